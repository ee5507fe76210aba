"""Inverses of many small covariances, by Gauss-Jordan elimination in place.

A symmetric positive definite matrix needs no pivoting, and its pivots are the squared pivots of its Cholesky factor:
one loop gives the inverse and the log-determinant (Goodnight 1979, "A tutorial on the SWEEP operator"), as accurately
as the way through the factor does. Written out entry by entry, that way is some hundred kernels for D = 8, each of
which costs more to start than it computes; this loop is one (`jaxgmm.kernels`), which limits what it may be given.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxgmm.kernels import in_one_kernel

# XLA divides operations on more entries than this among threads, which it cannot do within one kernel.
MOST_ENTRIES = 2**14


def inverse_and_pivots(a: Float[Array, "k d d"]) -> tuple[Float[Array, "k d d"], Float[Array, "k d"]]:
    """Inverses, and the variance of each feature given those before it.

    Args:
        a: symmetric matrices, with `MOST_ENTRIES` entries at most, those of all runs together that are mapped over.

    Returns:
        inverses and pivots, whose product is the determinant. Where `a` is not positive definite, some pivot is not
        positive, or NaN.
    """
    # Matrices last: loops along them are what the compiler vectorises.
    inverse, pivots = _eliminate(jnp.moveaxis(a, 0, -1))
    return jnp.moveaxis(inverse, -1, 0), jnp.moveaxis(pivots, -1, 0)


@in_one_kernel
def _eliminate(a: Float[Array, "d d k"]) -> tuple[Float[Array, "d d k"], Float[Array, "d k"]]:
    n_features = len(a)

    def step(j: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        rest, pivots = carry
        row = lax.dynamic_index_in_dim(rest, j, keepdims=False)
        pivot = lax.dynamic_index_in_dim(row, j, keepdims=False)
        is_j = (jnp.arange(n_features, dtype=jnp.int32) == j)[:, None]
        # With row and column j emptied, and -1 in place of the pivot, all entries change by one outer product.
        row = jnp.where(is_j, -1, row)
        rest = jnp.where(is_j[:, None] | is_j[None], 0, rest) - (row / pivot[None])[:, None] * row[None]
        return rest, jnp.where(is_j, pivot[None], pivots)

    first, last = jnp.int32(0), jnp.int32(n_features)
    negative, pivots = lax.fori_loop(first, last, step, (a, jnp.zeros_like(a[0])))
    return -negative, pivots
