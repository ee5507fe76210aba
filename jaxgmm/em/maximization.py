"""M-step: sufficient statistics to the mixture that maximises the expected log-likelihood."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from jaxgmm.em.covariance import Family, Ridge
from jaxgmm.em.statistics import SufficientStatistics
from jaxgmm.mixture import Mixture


def m_step(
    statistics: SufficientStatistics, family: Family, ridge: Ridge, present: Bool[Array, "k *s"] | None = None
) -> Mixture:
    """Weights n_k / n, means Σ r x / n_k, and the family's covariances.

    A component without support has a mean of NaN. One that is not `present` has weight 0, mean 0 and unit variances, so
    that mixtures of fewer components fit in arrays of one size.

    Axes that follow those of one run are further runs.
    """
    means = statistics.first / statistics.counts[:, None]
    covariances = family.covariances(statistics, ridge)
    if present is not None:
        n_features, runs = means.shape[1], means.shape[2:]
        unit = np.ones(n_features) if family.diagonal else np.eye(n_features)
        placeholder = jnp.asarray(unit.reshape(1, *unit.shape, *[1] * len(runs)), covariances.dtype)
        means = jnp.where(present[:, None], means, 0.0)
        covariances = jnp.where(present.reshape(len(present), *[1] * unit.ndim, *runs), covariances, placeholder)
    return Mixture(statistics.counts / jnp.sum(statistics.counts, axis=0, keepdims=True), means, covariances)
