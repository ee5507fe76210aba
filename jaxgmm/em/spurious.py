"""Spurious components: optima of the unbounded likelihood where a component shrinks onto a few samples or equal values.

Such a component has almost no variance in some direction, and few samples, or equal ones. It says nothing about the
data: a handful of samples lies near some plane by chance, a hundred do not. The more components and starts there are,
the likelier it is to win by likelihood alone (Day, 1969, "Estimating the components of a mixture of normal
distributions"). Widths are compared with those of the other components, as in the bounded ratios of Hathaway (1985), "A
constrained formulation of maximum-likelihood estimation for normal mixture distributions", and not with the spread of
the data: well-separated clusters are narrow compared with that, and real.

The other components of such a run may be fine, but its likelihood cannot be trusted. So the run is compared by the
likelihood it would have if its spurious components were as wide as the data.

Equal values, as produced by rounding and detector limits, are not a cluster, however many they are: a component shrinks
onto them until its width is the ridge, and the ridge alone determines its likelihood. If values are not equal, a
component narrower than the ridge is a cluster of unknown width, and is counted separately (`ridge_dominated`).
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

# A component is spurious if in some direction its standard deviation is below this fraction of the pooled one within
# components, and its size is below this multiple of what its family needs. Both were chosen by simulation:
# `benchmarks/NOTES.md`.
NARROWEST = 0.01
FEW = 5

# Or if more than half of its variance in some direction comes from the ridge, and more than half of its weight lies on
# equal values. A value counts if the samples that have it make up this share of the component's weight.
MOSTLY_RIDGE = 2.0
TIED = 0.5
NOTABLE = 0.05

# Without a ridge, or with one smaller than rounding, rounding determines the variance of equal values. It is less than
# this, in units of the standardised data.
ROUNDING = 1e-12

# A component is dominated by the ridge if it owes more than a tenth of its variance in some direction to it.
DOMINATED = 10.0


# Factors are computed once for each run, so fast compilation matters most.
_UNROLLED_SIZE = 2


class Findings(NamedTuple):
    """Numbers of untrustworthy components of runs, and log-likelihoods that these do not raise.

    Attributes:
        spurious: components that are narrow and small, of equal values, or without samples.
        ridge_dominated: components that owe more than a tenth of a variance to the ridge.
        bounded: log-likelihoods with spurious components as wide as the data; see `bounded_log_likelihood`.
    """

    spurious: Int[Array | np.ndarray, "*q"]
    ridge_dominated: Int[Array | np.ndarray, "*q"]
    bounded: Float[Array | np.ndarray, "*q"]


def effective_sizes(mixture: Mixture, data: Data | Tiles) -> Float[Array, " k"]:
    """Effective number of samples of each component, (Σ w r)² / Σ w² r with responsibilities r (Kish, 1965).

    If all samples have the same weight, it is the component's share of them.

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
        least: number of samples that determine the parameters a component does not share.
    """
    spread = tuple([1] * (mixture.covariances.ndim - 1))
    present = mixture.weights > 0
    shares = jnp.where(present, mixture.weights, 0.0).reshape(-1, *spread)
    within = jnp.sum(jnp.where(present.reshape(-1, *spread), shares * mixture.covariances, 0.0), axis=0)
    is_narrow = _falls_below(mixture, NARROWEST**2 * within)
    # The size of a component of exactly `least` samples is known only to rounding.
    return present & ((is_narrow & (sizes < FEW * least)) | (sizes < (1 - 1e-6) * least))


def owes_to_ridge(mixture: Mixture, ridge: Ridge, times: float) -> Bool[Array, " k"]:
    """Which components have in some direction less variance than `times` the ridge.

    Args:
        mixture: in standardised coordinates.
        ridge: `(D, D)` or `(D,)`, part of the covariances.
        times: more than 1.
    """
    return (mixture.weights > 0) & _falls_below(mixture, times * ridge)


def may_be_tied(mixture: Mixture, ridge: Ridge) -> Bool[Array, " k"]:
    """Which components are mostly ridge; without a ridge, which are as narrow as rounding.

    A ridge wider than `NARROWEST` of the data is assumed to be intended, and does not count.
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
        # A single sample has no equals, unless its weight stands for many.
        alone = jnp.where(weights[None, :] >= TIED * counts[:, None], 0.0, weights[None, :])
        tied = (of_value[None, :] >= NOTABLE * counts[:, None]) & (of_value[None, :] > (1 + 1e-9) * alone)
        return jnp.sum(jnp.where(tied, parts, 0.0), axis=1) / counts

    return jnp.max(lax.map(share_of, x), axis=0) > TIED


def bounded_log_likelihood(
    mixture: Mixture, spurious: Bool[Array, " k"], z: Float[Array, "d n"], weights: Float[Array, " n"]
) -> Float[Array, ""]:
    """Total log-likelihood in nats, with spurious components as wide as the bulk of the data, or wider.

    It may exceed that of the mixture itself, for example if tied components get a covariance of their own; the caller
    takes the lower of the two.

    A component then gains nothing by shrinking onto a few samples, or equal ones, but keeps what it gains by covering
    samples that no other component covers. So runs and models with spurious components can be compared with sound ones.
    The width of the other components would not do: if values are rounded, these have often shrunk onto a few values as
    well.
    """
    unit = jnp.ones(len(z)) if mixture.is_diagonal else jnp.eye(len(z))
    widened = mixture.covariances + unit[None]
    flags = spurious.reshape(-1, *[1] * unit.ndim)
    parameters, _ = centred_parameters(replace(mixture, covariances=jnp.where(flags, widened, mixture.covariances)))
    return jnp.sum(weights * centred_responsibilities(z, parameters, diagonal=mixture.is_diagonal)[1])


def _weight_of_equal(values: Float[Array, " n"], weights: Float[Array, " n"]) -> Float[Array, " n"]:
    """For each sample, the weight of all samples with the same value, up to rounding."""
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
    """Which components `(K,)` have in some direction less variance than a given covariance, or variances."""
    excess = mixture.covariances - least[None]
    if mixture.is_diagonal:
        return jnp.any(excess < 0, axis=-1)
    # No direction is too narrow exactly if the excess has a Cholesky factor.
    return jnp.any(jnp.isnan(cholesky(excess, unrolled_size=_UNROLLED_SIZE)), axis=(-2, -1))


def _made_of(ridge: Ridge) -> Ridge:
    """Upper bounds of variances that are mostly ridge; almost zero where the ridge counts as intended."""
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
