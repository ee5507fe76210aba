"""Inverses of many small covariances, by Gauss-Jordan elimination in place.

A symmetric positive definite matrix needs no pivoting, and its pivots are the squared pivots of its Cholesky factor:
elimination gives the inverse and the log-determinant (Goodnight 1979, "A tutorial on the SWEEP operator"), as
accurately as the way through the factor does, and in fewer operations.

Library routines handle one matrix after another, which for small ones costs far more than the arithmetic. Here every
operation acts on all matrices. Up to `UNROLLED_SIZE` the operations are unrolled entry by entry; above, a step
eliminates one feature of all matrices, and the loop over the features can be one CPU kernel
(`jaxgmm.numerics.kernels`). On a GPU, where each turn of a loop starts several kernels, the steps are unrolled instead.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxgmm.numerics.kernels import in_one_kernel

UNROLLED_SIZE = 3

# Unroll the steps up to this many features; with more, that takes long to compile.
MOST_STEPS = 16

# XLA divides operations on more entries than this among threads, which it cannot do within one kernel.
MOST_ENTRIES = 2**14


def inverse_and_pivots(
    a: Float[Array, "k d d *s"], *, as_one_kernel: bool = False
) -> tuple[Float[Array, "k d d *s"], Float[Array, "k d *s"]]:
    """Inverses, and the variance of each feature given those before it.

    Args:
        a: symmetric matrices; trailing axes are further matrices.
        as_one_kernel: whether there are at most `MOST_ENTRIES` entries in all, so that the loop may be one kernel.

    Returns:
        inverses and pivots, whose product is the determinant. Where `a` is not positive definite, some pivot is not
        positive, or NaN.
    """
    if a.shape[1] <= UNROLLED_SIZE:
        return _by_entries(a)
    # Matrices last: loops along them are what the compiler vectorises.
    a = jnp.moveaxis(a, 0, 2)
    if as_one_kernel:
        inverse, pivots = in_one_kernel(_by_features)(a)
    elif len(a) > MOST_STEPS:
        inverse, pivots = _by_features(a)
    else:
        inverse, pivots = lax.platform_dependent(a, cpu=_by_features, default=_step_by_step)
    return jnp.moveaxis(inverse, 2, 0), jnp.moveaxis(pivots, 1, 0)


def _by_entries(a: Float[Array, "k d d *s"]) -> tuple[Float[Array, "k d d *s"], Float[Array, "k d *s"]]:
    features = range(a.shape[1])
    # Rows of lower triangles.
    rest = [[a[:, i, j] for j in features[: i + 1]] for i in features]
    pivots = []
    for p in features:
        # As in `_by_features`: row p, with -1 in place of the pivot, changes all other entries by an outer product.
        pivots.append(rest[p][p])
        row = [rest[max(i, p)][min(i, p)] if i != p else -jnp.ones_like(rest[p][p]) for i in features]
        scaled = [entry / rest[p][p] for entry in row]
        rest = [
            [-scaled[i] * row[j] if p in (i, j) else rest[i][j] - scaled[i] * row[j] for j in features[: i + 1]]
            for i in features
        ]
    inverse = [jnp.stack([-rest[max(i, j)][min(i, j)] for j in features], axis=1) for i in features]
    return jnp.stack(inverse, axis=1), jnp.stack(pivots, axis=1)


def _step_by_step(a: Float[Array, "d d k *s"]) -> tuple[Float[Array, "d d k *s"], Float[Array, "d k *s"]]:
    pivots = []
    for j in range(len(a)):
        pivots.append(a[j, j])
        a = _without(a, a[j], a[j, j : j + 1], jnp.asarray(np.arange(len(a)) == j).reshape(-1, *[1] * (a.ndim - 2)))
    return -a, jnp.stack(pivots)


def _by_features(a: Float[Array, "d d k *s"]) -> tuple[Float[Array, "d d k *s"], Float[Array, "d k *s"]]:
    def step(j: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        rest, pivots = carry
        row = lax.dynamic_index_in_dim(rest, j, keepdims=False)
        pivot = lax.dynamic_index_in_dim(row, j)
        is_j = lax.broadcasted_iota(jnp.int32, row.shape, 0) == j
        return _without(rest, row, pivot, is_j), jnp.where(is_j, pivot, pivots)

    # NumPy's integers, since JAX's are traced: only a loop of known length can be differentiated in reverse.
    first, last = np.int32(0), np.int32(len(a))
    negative, pivots = lax.fori_loop(first, last, step, (a, jnp.zeros_like(a[0])))
    return -negative, pivots


def _without(rest: Array, row: Array, pivot: Array, is_j: Array) -> Array:
    """The matrices after elimination of feature j, given their row j, its pivot, and the pivot's place in the row."""
    # With row and column j emptied, and -1 in place of the pivot, all entries change by one outer product.
    row = jnp.where(is_j, -1, row)
    return jnp.where(is_j[:, None] | is_j[None], 0, rest) - (row / pivot)[:, None] * row[None]
