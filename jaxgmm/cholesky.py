"""Cholesky factors of many small matrices.

Library routines handle one matrix after another, which for D of 2 or 3 costs far more than the arithmetic. Up to
``UNROLLED_SIZE`` the textbook recurrences are therefore written out entry by entry: each entry is an elementwise
operation over all leading axes.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

UNROLLED_SIZE = 8


def cholesky(a: Float[Array, "*batch d d"]) -> Float[Array, "*batch d d"]:
    """Lower-triangular ``l`` with ``a = l lᵀ``; NaN where ``a`` is not positive definite."""
    size = a.shape[-1]
    if size > UNROLLED_SIZE:
        return jnp.linalg.cholesky(a)
    entry: dict[tuple[int, int], Array] = {}
    for j in range(size):
        pivot = a[..., j, j] - _sum([entry[j, q] * entry[j, q] for q in range(j)])
        entry[j, j] = jnp.sqrt(pivot)
        for i in range(j + 1, size):
            rest = a[..., i, j] - _sum([entry[i, q] * entry[j, q] for q in range(j)])
            entry[i, j] = rest / entry[j, j]
    return _lower_triangular(entry, size)


def inverse_lower(l: Float[Array, "*batch d d"]) -> Float[Array, "*batch d d"]:  # noqa: E741 (the textbook's letter)
    """Inverse of a lower-triangular matrix, by forward substitution."""
    size = l.shape[-1]
    if size > UNROLLED_SIZE:
        identity = jnp.broadcast_to(jnp.eye(size, dtype=l.dtype), l.shape)
        return jax.scipy.linalg.solve_triangular(l, identity, lower=True)
    entry: dict[tuple[int, int], Array] = {}
    for j in range(size):
        entry[j, j] = 1 / l[..., j, j]
        for i in range(j + 1, size):
            entry[i, j] = -_sum([l[..., i, q] * entry[q, j] for q in range(j, i)]) / l[..., i, i]
    return _lower_triangular(entry, size)


def log_determinant(l: Float[Array, "*batch d d"]) -> Float[Array, "*batch"]:  # noqa: E741
    """Log-determinant of ``l lᵀ`` from its Cholesky factor."""
    return 2 * jnp.sum(jnp.log(jnp.diagonal(l, axis1=-2, axis2=-1)), axis=-1)


def _sum(terms: list[Array]) -> Array | float:
    return sum(terms[1:], start=terms[0]) if terms else 0.0


def _lower_triangular(entry: dict[tuple[int, int], Array], size: int) -> Array:
    zero = jnp.zeros_like(entry[0, 0])
    rows = [jnp.stack([entry.get((i, j), zero) for j in range(size)], axis=-1) for i in range(size)]
    return jnp.stack(rows, axis=-2)
