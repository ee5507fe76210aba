"""The bulk of a data set: its values that are not far from the others.

Location and scale of a data set are those of its bulk: values far from the others, such as sentinels of -9999, would
otherwise determine them alone. Values more than `FAR` standard deviations from the mean are removed repeatedly until
there are none, unless the remaining values would have no variance.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxgmm.engine.rows import for_some, rows_of

# Standard deviations from the mean beyond which a value is not part of the bulk. Equal sentinels are found if they are
# fewer than 1 / (1 + FAR²), 6% of the samples; one in 16,000 Gaussian samples is left out, which does not matter.
FAR = 4.0

# Each turn removes the farthest of several kinds of values; data have no more kinds than this.
_MOST_TURNS = 16

# Which values are in the bulk, their mean and variance, which of them are near enough to stay, and the number of turns.
_Turn = tuple[Array, Array, Array, Array, Array]


class Bulk(NamedTuple):
    """The values of a data set that are not far from the others, and their moments, in units of the largest value.

    Attributes:
        values: which values of each feature they are.
        mean: of them.
        variance: likewise.
        near: which of them are near enough to that mean to stay; all, once found.
        size: `(D,)`, the largest absolute value of each feature, or 1.
    """

    values: Bool[Array, "d n"]
    mean: Float[Array, " d"]
    variance: Float[Array, " d"]
    near: Bool[Array, "d n"]
    size: Float[Array, " d"]


def bulks(x: Float[Array, "c d n"], weights: Float[Array, "c n"], at_a_time: int) -> Bulk:
    """The bulks of C data sets. Data sets with values far from the others are processed further, a few at a time.

    Args:
        x: samples, finite.
        weights: sample weights.
        at_a_time: number of data sets processed together.
    """
    first = jax.vmap(_everything)(x, weights)

    def found(number: Array) -> Bulk:
        return _without_far_values(*rows_of((first, x, weights), number))

    return for_some(found, jnp.any(first.near != first.values, axis=(1, 2)), first, at_a_time)


def bulk_of(x: Float[Array, "d n"], weights: Float[Array, " n"]) -> Bulk:
    """The bulk of one data set."""
    return _without_far_values(_everything(x, weights), x, weights)


def variances_of(x: Float[Array, "d n"], weights: Float[Array, " n"], bulk: Bulk) -> Float[Array, " d"]:
    """The variances of a bulk in units of its size, as a function of the samples and weights."""
    return _moments(_of_size(x, weights, bulk.size), jnp.where(bulk.values, weights[None, :], 0.0))[1]


def _everything(x: Float[Array, "d n"], weights: Float[Array, " n"]) -> Bulk:
    """All values of a data set, as the initial bulk."""
    present = (weights > 0)[None, :]
    size = jnp.max(jnp.where(present, jnp.abs(x), 0.0), axis=1)
    size = jnp.where(size > 0, size, 1.0)
    y, everything = _of_size(x, weights, size), jnp.broadcast_to(present, x.shape)
    mean, variance = _moments(y, jnp.where(everything, weights[None, :], 0.0))
    return Bulk(everything, mean, variance, _nearer(y, everything, mean, variance), size)


def _without_far_values(begun: Bulk, x: Float[Array, "d n"], weights: Float[Array, " n"]) -> Bulk:
    """The bulk found by repeatedly removing the farthest values."""
    y = _of_size(x, weights, begun.size)

    def turn(carry: _Turn) -> _Turn:
        bulk, mean, variance, near, count = carry
        new_mean, new_variance = _moments(y, jnp.where(near, weights[None, :], 0.0))
        # If the others are equal except for rounding, a feature keeps the values that give it a variance.
        rounding = 64 * jnp.finfo(y.dtype).eps * jnp.max(jnp.abs(jnp.where(near, y, 0.0)), axis=1)
        better = new_variance > rounding**2
        mean, variance = jnp.where(better, new_mean, mean), jnp.where(better, new_variance, variance)
        bulk = jnp.where(better[:, None], near, bulk)
        return bulk, mean, variance, jnp.where(better[:, None], _nearer(y, bulk, mean, variance), bulk), count + 1

    def unfinished(carry: _Turn) -> Array:
        bulk, _, _, near, count = carry
        return jnp.any(near != bulk) & (count < _MOST_TURNS)

    bulk, mean, variance, near, size = begun
    start = (bulk, mean, variance, near, jnp.zeros((), jnp.int32))
    bulk, mean, variance, near, _ = lax.while_loop(unfinished, turn, start)
    return Bulk(bulk, mean, variance, near, size)


def _of_size(x: Float[Array, "d n"], weights: Float[Array, " n"], size: Float[Array, " d"]) -> Float[Array, "d n"]:
    """Values divided by their size, so that squares of 1e±200 neither overflow nor vanish."""
    return jnp.where((weights > 0)[None, :], x, 0.0) / size[:, None]


def _nearer(y: Array, bulk: Array, mean: Array, variance: Array) -> Bool[Array, "d n"]:
    return bulk & ((y - mean[:, None]) ** 2 <= FAR**2 * variance[:, None])


def _moments(y: Float[Array, "d n"], weights: Float[Array, "d n"]) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
    """Weighted mean and variance of each feature."""
    total = jnp.sum(weights, axis=1)
    mean = jnp.sum(weights * y, axis=1) / total
    # The mean of values far from 0 has their rounding error; the mean of the residuals has a smaller one.
    mean += jnp.sum(weights * (y - mean[:, None]), axis=1) / total
    return mean, jnp.sum(weights * (y - mean[:, None]) ** 2, axis=1) / total
