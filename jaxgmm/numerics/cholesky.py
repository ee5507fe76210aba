"""Cholesky factors of many small matrices.

Library routines handle one matrix after another, which for D of 2 or 3 costs far more than the arithmetic. Up to
``UNROLLED_SIZE`` the textbook recurrences are therefore unrolled entry by entry: each entry is an elementwise operation
over all leading axes.

Above that size, a CPU computes them column by column. JAX's own CPU routines distribute their matrices to the pool of
threads from which they are called, and wait; programs that run at the same time, such as the chunks of
`jaxgmm.engine.devices`, can then deadlock (seen with jaxlib 0.10).
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

UNROLLED_SIZE = 8


def cholesky(a: Float[Array, "*batch d d"], *, unrolled_size: int = UNROLLED_SIZE) -> Float[Array, "*batch d d"]:
    """Lower-triangular ``l`` with ``a = l lᵀ``; NaN where ``a`` is not positive definite.

    Args:
        a: symmetric matrices.
        unrolled_size: the largest size that is unrolled; smaller if a program should compile fast.
    """
    size = a.shape[-1]
    if size > unrolled_size:
        return lax.platform_dependent(a, cpu=_cholesky_by_columns, default=jnp.linalg.cholesky)
    entry: dict[tuple[int, int], Array] = {}
    for j in range(size):
        pivot = a[..., j, j] - _sum([entry[j, q] * entry[j, q] for q in range(j)])
        entry[j, j] = jnp.sqrt(pivot)
        for i in range(j + 1, size):
            rest = a[..., i, j] - _sum([entry[i, q] * entry[j, q] for q in range(j)])
            entry[i, j] = rest / entry[j, j]
    return _lower_triangular(entry, size)


def inverse_lower(
    l: Float[Array, "*batch d d"],  # noqa: E741 (the textbook's letter)
    *,
    unrolled_size: int = UNROLLED_SIZE,
) -> Float[Array, "*batch d d"]:
    """Inverse of a lower-triangular matrix, by forward substitution; `unrolled_size` as in `cholesky`."""
    size = l.shape[-1]
    if size > unrolled_size:
        return lax.platform_dependent(l, cpu=_inverse_by_rows, default=_inverse_by_library)
    entry: dict[tuple[int, int], Array] = {}
    for j in range(size):
        entry[j, j] = 1 / l[..., j, j]
        for i in range(j + 1, size):
            entry[i, j] = -_sum([l[..., i, q] * entry[q, j] for q in range(j, i)]) / l[..., i, i]
    return _lower_triangular(entry, size)


def log_determinant(l: Float[Array, "*batch d d"]) -> Float[Array, "*batch"]:  # noqa: E741
    """Log-determinant of ``l lᵀ`` from its Cholesky factor."""
    return 2 * jnp.sum(jnp.log(jnp.diagonal(l, axis1=-2, axis2=-1)), axis=-1)


def _cholesky_by_columns(a: Float[Array, "*batch d d"]) -> Float[Array, "*batch d d"]:
    rows = _places(a.shape[:-1])

    def add_column(j: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        rest, factor = carry
        column = lax.dynamic_index_in_dim(rest, j, axis=-1, keepdims=False)
        pivot = lax.dynamic_index_in_dim(column, j, axis=-1)
        column = jnp.where(rows >= j, column / jnp.sqrt(pivot), 0)
        rest = rest - column[..., :, None] * column[..., None, :]
        return rest, lax.dynamic_update_index_in_dim(factor, column, j, axis=-1)

    return lax.fori_loop(0, a.shape[-1], add_column, (a, jnp.zeros_like(a)))[1]


def _inverse_by_rows(l: Float[Array, "*batch d d"]) -> Float[Array, "*batch d d"]:  # noqa: E741
    rows = _places(l.shape[:-1])

    def add_row(i: Array, inverse: Array) -> Array:
        own = lax.dynamic_index_in_dim(l, i, axis=-2, keepdims=False)
        pivot = lax.dynamic_index_in_dim(own, i, axis=-1)
        # Rows from i on are still zero.
        row = ((rows == i).astype(l.dtype) - jnp.sum(own[..., :, None] * inverse, axis=-2)) / pivot
        return lax.dynamic_update_index_in_dim(inverse, row, i, axis=-2)

    return lax.fori_loop(0, l.shape[-1], add_row, jnp.zeros_like(l))


def _places(shape: tuple[int, ...]) -> Array:
    """Row numbers of columns of this shape."""
    return lax.broadcasted_iota(jnp.int32, shape, len(shape) - 1)


def _inverse_by_library(l: Float[Array, "*batch d d"]) -> Float[Array, "*batch d d"]:  # noqa: E741
    identity = jnp.broadcast_to(jnp.eye(l.shape[-1], dtype=l.dtype), l.shape)
    return jax.scipy.linalg.solve_triangular(l, identity, lower=True)


def _sum(terms: list[Array]) -> Array | float:
    return sum(terms[1:], start=terms[0]) if terms else 0.0


def _lower_triangular(entry: dict[tuple[int, int], Array], size: int) -> Array:
    zero = jnp.zeros_like(entry[0, 0])
    rows = [jnp.stack([entry.get((i, j), zero) for j in range(size)], axis=-1) for i in range(size)]
    return jnp.stack(rows, axis=-2)
