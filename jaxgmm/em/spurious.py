"""Spurious components: optima that a likelihood without bound has wherever a component can shrink onto a few samples.

Such a component has next to no variance in some direction and few samples, or equal ones. It says nothing about the
data: a handful of samples lies near some plane by chance, a hundred do not. The more components and starts there are,
the likelier it is to win by likelihood alone (Day, 1969, "Estimating the components of a mixture of normal
distributions"). Widths are compared with those of the other components, as in the bounded ratios of Hathaway (1985), "A
constrained formulation of maximum-likelihood estimation for normal mixture distributions", and not with the spread of
the data: clusters far from each other are narrow beside that, and real.

A run with such components is no worse for what it says of the others, but its likelihood is not to be believed. So it
is compared by the likelihood that it has when they are as wide as the data.

Equal values, as rounding and limits of a detector make them, are no cluster however many they are: a component shrinks
onto them until its width is the ridge, and its likelihood is whatever the ridge makes it. Where values are not equal, a
component that is narrower than the ridge is a cluster whose width is not known, and is counted apart.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxgmm.em.centred import centred_parameters, centred_responsibilities
from jaxgmm.em.covariance import Ridge
from jaxgmm.em.expectation import Data, Tiles, over_tiles
from jaxgmm.mixture import Mixture
from jaxgmm.numerics.cholesky import cholesky, inverse_lower

# A component is spurious where its standard deviation in some direction is below this fraction of that within the
# components together, and it may have fewer samples than this multiple of what its family needs. Both were chosen by
# simulation: `benchmarks/NOTES.md`.
NARROWEST = 0.01
FEW = 5

# Or where more than half of its variance in some direction is the ridge's, and more than half of its weight lies on
# equal values. A value counts where the samples that have it weigh this share of the component.
MOSTLY_RIDGE = 2.0
TIED = 0.5
NOTABLE = 0.05

# Without a ridge, or with one that rounding exceeds, the width of equal values is what rounding makes of it. It is less
# than this, as a variance of the standardised data.
ROUNDING = 1e-12

# A component is dominated by the ridge where it owes more than a tenth of its variance in some direction to it.
DOMINATED = 10.0


# Factors are wanted once for each run: what matters is that they are compiled fast.
_UNROLLED_SIZE = 2


class Findings(NamedTuple):
    """How many components of runs are not to be trusted, and what is left of their log-likelihoods without that.

    Attributes:
        spurious: narrow and small, of equal values, or without samples.
        ridge_dominated: owe more than a tenth of a variance to the ridge.
        bounded: log-likelihoods where spurious components are as wide as the data; see `bounded_log_likelihood`.
    """

    spurious: Int[Array | np.ndarray, "*q"]
    ridge_dominated: Int[Array | np.ndarray, "*q"]
    bounded: Float[Array | np.ndarray, "*q"]


def effective_sizes(mixture: Mixture, data: Data | Tiles) -> Float[Array, " k"]:
    """Effective number of samples of each component, (Σ w r)² / Σ w² r with responsibilities r (Kish, 1965).

    Of samples that all have one weight, it is the component's share of them.

    Args:
        mixture: in standardised coordinates.
        data: samples, likewise.
    """
    parameters, _ = centred_parameters(mixture)
    n_features, diagonal = mixture.n_features, mixture.is_diagonal

    def sums(tile: Data, _: None) -> tuple[Array, Array]:
        # Features after the first are the samples.
        z = tile.features[1 : 1 + n_features]
        parts = centred_responsibilities(z, parameters, diagonal=diagonal)[0] * tile.weights[None, :]
        return jnp.sum(parts, axis=1), jnp.sum(parts * tile.weights[None, :], axis=1)

    first, second = over_tiles(data, None, sums, diagonal=diagonal)
    # Not the square, which may vanish.
    return jnp.where(second > 0, first / jnp.where(second > 0, second, 1.0) * first, 0.0)


def is_small(mixture: Mixture, sizes: Float[Array, " k"], least: Float[Array, ""]) -> Bool[Array, " k"]:
    """Which components are narrow and small, or have too few samples.

    Args:
        mixture: in standardised coordinates.
        sizes: effective number of samples of each component.
        least: how many samples the family needs for what a component has to itself.
    """
    spread = tuple([1] * (mixture.covariances.ndim - 1))
    present = mixture.weights > 0
    shares = jnp.where(present, mixture.weights, 0.0).reshape(-1, *spread)
    within = jnp.sum(jnp.where(present.reshape(-1, *spread), shares * mixture.covariances, 0.0), axis=0)
    is_narrow = _falls_below(mixture, NARROWEST**2 * within)
    # Shares of whole samples, as those of a component that has just so many, are known to rounding.
    return present & ((is_narrow & (sizes < FEW * least)) | (sizes < (1 - 1e-6) * least))


def owes_to_ridge(mixture: Mixture, ridge: Ridge, times: float) -> Bool[Array, " k"]:
    """Which components have in some direction less variance than so many times the ridge.

    Args:
        mixture: in standardised coordinates.
        ridge: `(D, D)` or `(D,)`, part of the covariances.
        times: more than 1.
    """
    return (mixture.weights > 0) & _falls_below(mixture, times * ridge)


def may_be_tied(mixture: Mixture, ridge: Ridge) -> Bool[Array, " k"]:
    """Which components are mostly ridge; without a ridge, which are as narrow as rounding.

    A ridge wider than `NARROWEST` of the data is taken as intended, and counts for none.
    """
    unit = jnp.ones(len(ridge)) if ridge.ndim == 1 else jnp.eye(len(ridge))
    return (mixture.weights > 0) & _falls_below(mixture, _made_of(ridge + ROUNDING * unit))


def is_tied(
    mixture: Mixture, z: Float[Array, "d n"], x: Float[Array, "d n"], weights: Float[Array, " n"]
) -> Bool[Array, " k"]:
    """Which components have most of their weight on equal values of some feature.

    Args:
        mixture: in standardised coordinates.
        z: samples, likewise.
        x: the same samples with the features of the data, each scaled to unit variance.
        weights: sample weights; padding has 0.
    """
    parameters, _ = centred_parameters(mixture)
    parts = centred_responsibilities(z, parameters, diagonal=mixture.is_diagonal)[0] * weights[None, :]
    counts = jnp.sum(parts, axis=1)

    def share_of(values: Float[Array, " n"]) -> Float[Array, " k"]:
        of_value = _weight_of_equal(values, weights)
        # A single sample has no equal, unless it stands for many.
        alone = jnp.where(weights[None, :] >= TIED * counts[:, None], 0.0, weights[None, :])
        tied = (of_value[None, :] >= NOTABLE * counts[:, None]) & (of_value[None, :] > (1 + 1e-9) * alone)
        return jnp.sum(jnp.where(tied, parts, 0.0), axis=1) / counts

    return jnp.max(lax.map(share_of, x), axis=0) > TIED


def bounded_log_likelihood(
    mixture: Mixture, spurious: Bool[Array, " k"], z: Float[Array, "d n"], weights: Float[Array, " n"]
) -> Float[Array, ""]:
    """Total log-likelihood in nats, where spurious components are as wide as the bulk of the data, or wider.

    It may exceed that of the mixture itself, as where tied components get a covariance of their own; who compares takes
    the lower of both.

    What a component gains by shrinking onto a few samples, or equal ones, is gone then; what it gains by standing where
    there is no other stays. So runs and models with spurious components can be compared with sound ones. The width of
    the other components would not do: where values are rounded, these have often shrunk onto a few values as well.
    """
    unit = jnp.ones(len(z)) if mixture.is_diagonal else jnp.eye(len(z))
    widened = mixture.covariances + unit[None]
    flags = spurious.reshape(-1, *[1] * unit.ndim)
    parameters, _ = centred_parameters(replace(mixture, covariances=jnp.where(flags, widened, mixture.covariances)))
    return jnp.sum(weights * centred_responsibilities(z, parameters, diagonal=mixture.is_diagonal)[1])


def _weight_of_equal(values: Float[Array, " n"], weights: Float[Array, " n"]) -> Float[Array, " n"]:
    """Weight of all samples that have the value of each, up to rounding."""
    n_samples = len(values)
    values = jnp.where(weights > 0, values, jnp.inf)
    order = jnp.argsort(values)
    in_order = values[order]
    rounding = 64 * jnp.finfo(values.dtype).eps * (1 + jnp.abs(in_order[:-1]))
    is_next = jnp.concatenate([jnp.zeros(1, bool), ~(in_order[1:] - in_order[:-1] <= rounding)])
    value = jnp.cumsum(is_next, dtype=jnp.int32)
    total = jax.ops.segment_sum(weights[order], value, n_samples, indices_are_sorted=True)
    return jnp.zeros_like(values).at[order].set(total[value])


def _falls_below(mixture: Mixture, least: Ridge) -> Any:
    """Which components `(K,)` have in some direction less variance than a covariance, or variances, of comparison."""
    excess = mixture.covariances - least[None]
    if mixture.is_diagonal:
        return jnp.any(excess < 0, axis=-1)
    # No direction is too narrow exactly where there is a Cholesky factor of what remains.
    return jnp.any(jnp.isnan(cholesky(excess, unrolled_size=_UNROLLED_SIZE)), axis=(-2, -1))


def _made_of(ridge: Ridge) -> Ridge:
    """Variances that are mostly the ridge's; next to none where it is as wide as it may be."""
    mostly, most = MOSTLY_RIDGE * ridge, NARROWEST**2
    if ridge.ndim == 1:
        return jnp.where(mostly < most, mostly, 0.0)
    # The same in every direction, without eigenvalues: a / (1 + (2a / (a + b))¹⁶) is a for a < b, and nearly 0 beyond.
    identity = jnp.eye(len(ridge), dtype=ridge.dtype)
    step = 2 * (identity - most * _inverse(mostly + most * identity))
    for _ in range(4):
        step = jnp.matmul(step, step, precision="highest")
    return jnp.matmul(mostly, _inverse(identity + step), precision="highest")


def _inverse(positive: Float[Array, "d d"]) -> Float[Array, "d d"]:
    factor = cholesky(positive, unrolled_size=_UNROLLED_SIZE)
    inverse = inverse_lower(factor, unrolled_size=_UNROLLED_SIZE)
    return jnp.matmul(inverse.T, inverse, precision="highest")
