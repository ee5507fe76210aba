"""M-step: sufficient statistics to the mixture that maximises the expected log-likelihood."""

import jax.numpy as jnp

from jaxgmm.em.covariance import Family, Ridge
from jaxgmm.em.statistics import SufficientStatistics
from jaxgmm.mixture import Mixture


def m_step(statistics: SufficientStatistics, family: Family, ridge: Ridge) -> Mixture:
    """Weights n_k / n, means Σ r x / n_k, and the family's covariances. A component without support becomes NaN."""
    return Mixture(
        weights=statistics.counts / jnp.sum(statistics.counts),
        means=statistics.first / statistics.counts[:, None],
        covariances=family.covariances(statistics, ridge),
    )
