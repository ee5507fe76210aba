"""Covariance families: what the covariances of components may share, as functions of sufficient statistics.

A family is one row of `FAMILIES`. It sees sums over samples, never samples. Its ridge is added to every covariance; in
standardised coordinates it may be a matrix (`jaxgmm.engine.standardize`).

The maximum-likelihood estimates are those of Celeux and Govaert (1995), "Gaussian parsimonious clustering models".
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgmm.em.statistics import SufficientStatistics

Covariances = Float[Array, "k d d"] | Float[Array, "k d"]
Ridge = Float[Array, "d d"] | Float[Array, " d"]


class Family(NamedTuple):
    """One row of the table.

    Attributes:
        covariances: maximum-likelihood covariances `(K, D, D)`, or variances `(K, D)` of an axis-aligned family, with
            the ridge added.
        diagonal: whether components are axis-aligned: their second moments and ridge are then vectors.
        closed_under: the widest map of the data that takes the family into itself.
    """

    covariances: Callable[[SufficientStatistics, Ridge], Covariances]
    diagonal: bool
    closed_under: Literal["affine", "scale per feature", "one scale"]


def _full(statistics: SufficientStatistics, ridge: Ridge) -> Covariances:
    """Each component has its own covariance (VVV)."""
    return _second_central_moment(statistics) + ridge[None]


def _tied(statistics: SufficientStatistics, ridge: Ridge) -> Covariances:
    """All components share one covariance (EEE)."""
    share = statistics.counts / jnp.sum(statistics.counts)
    shared = jnp.sum(share[:, None, None] * _second_central_moment(statistics), axis=0) + ridge
    return jnp.broadcast_to(shared[None], statistics.second.shape)


def _diag(statistics: SufficientStatistics, ridge: Ridge) -> Covariances:
    """Each component has its own variance in each feature (VVI)."""
    return _second_central_moment(statistics) + ridge[None]


def _spherical(statistics: SufficientStatistics, ridge: Ridge) -> Covariances:
    """Each component has one variance for all features (VII)."""
    variances = jnp.mean(_second_central_moment(statistics), axis=-1, keepdims=True)
    return jnp.broadcast_to(variances + ridge[None], statistics.second.shape)


def _second_central_moment(statistics: SufficientStatistics) -> Covariances:
    """Σ_n r_kn (x_n - m_k)(x_n - m_k)ᵀ / Σ_n r_kn, or its diagonal; zeros for a component without samples."""
    counts = jnp.where(statistics.counts > 0, statistics.counts, 1)
    means = statistics.first / counts[:, None]
    if statistics.second.ndim == 2:
        return statistics.second / counts[:, None] - means**2
    return statistics.second / counts[:, None, None] - means[:, :, None] * means[:, None, :]


FAMILIES: dict[str, Family] = {
    "full": Family(_full, diagonal=False, closed_under="affine"),
    "tied": Family(_tied, diagonal=False, closed_under="affine"),
    "diag": Family(_diag, diagonal=True, closed_under="scale per feature"),
    "spherical": Family(_spherical, diagonal=True, closed_under="one scale"),
}
