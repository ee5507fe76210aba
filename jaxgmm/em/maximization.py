"""M-step: sufficient statistics to the mixture that maximises the expected log-likelihood."""

import jax.numpy as jnp
from jaxtyping import Array, Bool

from jaxgmm.em.covariance import Family, Ridge
from jaxgmm.em.statistics import SufficientStatistics
from jaxgmm.mixture import Mixture


def m_step(
    statistics: SufficientStatistics, family: Family, ridge: Ridge, present: Bool[Array, " k"] | None = None
) -> Mixture:
    """Weights n_k / n, means Σ r x / n_k, and the family's covariances.

    A component without support has a mean of NaN. One that is not `present` has weight 0, mean 0 and unit variances, so
    that mixtures of fewer components fit in arrays of one size.
    """
    means = statistics.first / statistics.counts[:, None]
    covariances = family.covariances(statistics, ridge)
    if present is not None:
        unit = jnp.ones(covariances.shape[-1:], covariances.dtype)
        placeholder = unit if family.diagonal else jnp.diag(unit)
        means = jnp.where(present[:, None], means, 0.0)
        covariances = jnp.where(present.reshape(-1, *[1] * placeholder.ndim), covariances, placeholder[None])
    return Mixture(statistics.counts / jnp.sum(statistics.counts), means, covariances)
