"""Covariance families: constraints on the covariances of components, as functions of sufficient statistics.

A family is one row of `FAMILIES`. It sees sums over samples, never samples. Its ridge is added to every covariance; in
standardised coordinates it may be a matrix (`jaxgmm.driver.standardize`).

The maximum-likelihood estimates are those of Celeux and Govaert (1995), "Gaussian parsimonious clustering models".
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jaxgmm.em.statistics import SufficientStatistics

# `(K, D, D)` or `(K, D)`, and `(D, D)` or `(D,)`; axes that follow are those of further runs.
Covariances = Float[Array, "k d ..."]
Ridge = Float[Array, "d ..."]
Weights = Float[Array, "k ..."]


class Coordinates(NamedTuple):
    """The properties of a family that determine its coordinates; families that agree in them share standardised data.

    Attributes:
        closed_under: the most general map of the data that takes the family into itself.
        diagonal: whether components are axis-aligned.
        isotropic: whether the ridge has to be the same in every direction.
    """

    closed_under: Literal["affine", "scale per feature", "one scale"]
    diagonal: bool
    isotropic: bool


class Family(NamedTuple):
    """One row of the table.

    Attributes:
        covariances: maximum-likelihood covariances `(K, D, D)`, or variances `(K, D)` of an axis-aligned family, with
            the ridge added.
        diagonal: whether components are axis-aligned: their second moments and ridge are then vectors.
        closed_under: the most general map of the data that takes the family into itself, whether axis-aligned or not.
        n_parameters: number of free parameters of the covariances of K components in D dimensions.
        least_samples: number of samples, in D dimensions, that determine the parameters a component does not share:
            fewer samples have no covariance of their own, or say nothing about it.
        isotropic: whether all features have one variance, and so one ridge.
        of_start: covariances of the family, from the weights `(K,)` and the covariances of a start, which need not be
            of it. Those that are stay as they are, and so do those of components of weight 0.
    """

    covariances: Callable[[SufficientStatistics, Ridge], Covariances]
    diagonal: bool
    closed_under: Literal["affine", "scale per feature", "one scale"]
    n_parameters: Callable[[int, int], int]
    least_samples: Callable[[int], int]
    isotropic: bool = False
    of_start: Callable[[Weights, Covariances], Covariances] = lambda _, covariances: covariances

    @property
    def coordinates(self) -> Coordinates:
        """The coordinates in which the family is fitted."""
        return Coordinates(self.closed_under, self.diagonal, self.isotropic)


def _full(statistics: SufficientStatistics, ridge: Ridge) -> Covariances:
    """Each component has its own covariance (VVV)."""
    return _second_central_moment(statistics) + ridge[None]


def _tied(statistics: SufficientStatistics, ridge: Ridge) -> Covariances:
    """All components share one covariance (EEE)."""
    share = statistics.counts / jnp.sum(statistics.counts, axis=0, keepdims=True)
    shared = jnp.sum(share[:, None, None] * _second_central_moment(statistics), axis=0) + ridge
    return jnp.broadcast_to(shared[None], statistics.second.shape)


def _diag(statistics: SufficientStatistics, ridge: Ridge) -> Covariances:
    """Each component has its own variance in each feature (VVI)."""
    return _second_central_moment(statistics) + ridge[None]


def _spherical(statistics: SufficientStatistics, ridge: Ridge) -> Covariances:
    """Each component has one variance for all features (VII)."""
    variances = jnp.mean(_second_central_moment(statistics), axis=1, keepdims=True)
    return jnp.broadcast_to(variances + ridge[None], statistics.second.shape)


def _mean_of_components(weights: Weights, covariances: Covariances) -> Covariances:
    """The mean of all components where these differ."""
    is_present = weights[:, None, None] > 0
    least = jnp.min(jnp.where(is_present, covariances, jnp.inf), axis=0, keepdims=True)
    most = jnp.max(jnp.where(is_present, covariances, -jnp.inf), axis=0, keepdims=True)
    differ = jnp.any(least != most, axis=(1, 2), keepdims=True)
    share = weights / jnp.sum(weights, axis=0, keepdims=True)
    shared = jnp.sum(jnp.where(is_present, share[:, None, None] * covariances, 0), axis=0, keepdims=True)
    return jnp.where(is_present & differ, shared, covariances)


def _mean_of_features(weights: Weights, covariances: Covariances) -> Covariances:
    """The mean of all features where these differ."""
    differ = jnp.any(covariances != covariances[:, :1], axis=1, keepdims=True)
    return jnp.where((weights[:, None] > 0) & differ, jnp.mean(covariances, axis=1, keepdims=True), covariances)


def _second_central_moment(statistics: SufficientStatistics) -> Covariances:
    """Σ_n r_kn (x_n - m_k)(x_n - m_k)ᵀ / Σ_n r_kn, or its diagonal; zeros for a component without samples."""
    counts = jnp.where(statistics.counts > 0, statistics.counts, 1)
    means = statistics.first / counts[:, None]
    if statistics.second.ndim == means.ndim:
        return statistics.second / counts[:, None] - means**2
    return statistics.second / counts[:, None, None] - means[:, :, None] * means[:, None, :]


FAMILIES: dict[str, Family] = {
    "full": Family(
        _full,
        diagonal=False,
        closed_under="affine",
        n_parameters=lambda k, d: k * d * (d + 1) // 2,
        # Fewer samples lie in a hyperplane.
        least_samples=lambda d: d + 1,
    ),
    "tied": Family(
        _tied,
        diagonal=False,
        closed_under="affine",
        n_parameters=lambda _, d: d * (d + 1) // 2,
        # A component shares everything but its mean and weight.
        least_samples=lambda _: 1,
        of_start=_mean_of_components,
    ),
    "diag": Family(
        _diag,
        diagonal=True,
        closed_under="scale per feature",
        n_parameters=lambda k, d: k * d,
        # Two samples may be near each other by chance; three hardly ever are.
        least_samples=lambda d: min(d + 1, 3),
    ),
    "spherical": Family(
        _spherical,
        diagonal=True,
        closed_under="one scale",
        n_parameters=lambda k, _: k,
        least_samples=lambda d: min(d + 1, 3),
        isotropic=True,
        of_start=_mean_of_features,
    ),
}


def n_parameters(n_components: Any, n_features: int, covariance_type: str) -> Any:
    """Free parameters of a mixture: weights that sum to 1, means, and the family's free covariance parameters.

    `n_components` is an integer, or an array of integers.
    """
    family = FAMILIES[covariance_type]
    return n_components - 1 + n_components * n_features + family.n_parameters(n_components, n_features)


def one_of(names: Sequence[str], index: Int[Array | np.ndarray, "*s"]) -> Family:
    """The family with a traced number.

    Families differ only in the M-step, so runs of several families can share the E-step, and a program, as long as they
    agree in `diagonal`. The other attributes of the result are those of the first family.
    """
    families = [FAMILIES[name] for name in names]
    if len(families) == 1:
        return families[0]

    def chosen(choices: Sequence[Covariances]) -> Covariances:
        which = lax.broadcast_in_dim(index, choices[0].shape, range(choices[0].ndim - index.ndim, choices[0].ndim))
        return lax.select_n(which, *choices)

    def covariances(statistics: SufficientStatistics, ridge: Ridge) -> Covariances:
        return chosen([family.covariances(statistics, ridge) for family in families])

    def of_start(weights: Weights, covariances: Covariances) -> Covariances:
        return chosen([family.of_start(weights, covariances) for family in families])

    return families[0]._replace(covariances=covariances, of_start=of_start)
