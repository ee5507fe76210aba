"""M-step: sufficient statistics to the mixture that maximises the expected log-likelihood."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxgmm.em.covariance import Covariances, Family, Ridge
from jaxgmm.em.statistics import SufficientStatistics
from jaxgmm.mixture import Mixture

# Roundings of a difference of squares, per feature.
ROUNDINGS = 16


def m_step(
    statistics: SufficientStatistics,
    family: Family,
    ridge: Ridge,
    present: Bool[Array, "k *s"] | None = None,
    origins: Float[Array, "k d *s"] | None = None,
) -> Mixture:
    """Weights n_k / n, means Σ r x / n_k, and the family's covariances.

    The statistics of component k are sums of samples less `origins[k]`, where these are given; covariances are the same
    about any origin. A component without support has a mean of NaN. One that is not `present` has weight 0, mean 0 and
    unit variances, so that mixtures of fewer components fit in arrays of one size.

    Trailing axes beyond those of one run are further runs.
    """
    means = statistics.first / statistics.counts[:, None]
    covariances = family.covariances(statistics, ridge)
    if origins is not None:
        covariances = covariances + _rounding(means, covariances)
        means = origins + means
    if present is not None:
        n_features, runs = means.shape[1], means.shape[2:]
        unit = np.ones(n_features) if family.diagonal else np.eye(n_features)
        placeholder = jnp.asarray(unit.reshape(1, *unit.shape, *[1] * len(runs)), covariances.dtype)
        means = jnp.where(present[:, None], means, 0.0)
        covariances = jnp.where(present.reshape(len(present), *[1] * unit.ndim, *runs), covariances, placeholder)
    return Mixture(statistics.counts / jnp.sum(statistics.counts, axis=0, keepdims=True), means, covariances)


def _rounding(steps: Float[Array, "k d *s"], covariances: Covariances) -> Float[Array, "1 d ..."]:
    """The amount that rounding may remove from variances about new means, given their distance from the origins.

    The same for all components, as a family may require. It vanishes when the means converge.
    """
    n_features = steps.shape[1]
    steps = jnp.where(jnp.isfinite(steps), steps, 0.0)
    eps = jnp.finfo(steps.dtype).eps.astype(steps.dtype)
    lost = ROUNDINGS * n_features * eps * jnp.max(steps**2, axis=(0, 1))
    unit = np.ones(n_features) if covariances.ndim == steps.ndim else np.eye(n_features)
    unit = jnp.asarray(unit.reshape(1, *unit.shape, *[1] * lost.ndim), steps.dtype)
    return unit * lost.reshape(*[1] * (unit.ndim - lost.ndim), *lost.shape)
