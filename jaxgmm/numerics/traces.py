"""Diagonals of many small symmetric matrices, and traces of their products."""

import functools
import operator
from collections.abc import Iterable, Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxgmm.numerics.elimination import UNROLLED_SIZE

Matrices = Float[Array, "d d *s"]

# Unroll loops over up to this many features; with more, that takes too long to compile.
FEW = 16


def trace_products(p: Matrices, matrices: Sequence[Matrices]) -> list[Float[Array, "*s"]]:
    """Traces of P A P B for all pairs of some symmetric matrices A, B, in the order (0, 0), (0, 1), …, (1, 1), ….

    Trailing axes are further matrices. As in `jaxgmm.numerics.elimination`, every operation acts on all of them, and
    the sums are unrolled for few features.
    """
    if len(p) <= UNROLLED_SIZE:
        return _by_entries(p, matrices)
    shape = p.shape[2:]
    flat = jnp.stack([a.reshape(*a.shape[:2], -1) for a in matrices])
    traces = lax.platform_dependent(p.reshape(*p.shape[:2], -1), flat, cpu=_by_features, default=_by_products)
    return [trace.reshape(shape) for trace in traces]


def diagonals(matrices: Float[Array, "k d d *s"]) -> Float[Array, "k d *s"]:
    """The diagonals of K matrices."""
    size = matrices.shape[1]
    if size <= FEW:
        # A gather would not be vectorised with what reads it.
        return jnp.stack([matrices[:, i, i] for i in range(size)], axis=1)
    return matrices[:, np.arange(size), np.arange(size)]


def pairs(n: int) -> list[tuple[int, int]]:
    """All pairs of n things, each with itself too."""
    return [(i, j) for i in range(n) for j in range(i, n)]


def total(terms: Iterable[Array]) -> Array:
    """Their sum. XLA does not vectorise a sum along a short axis."""
    return functools.reduce(operator.add, terms)


def _by_entries(p: Matrices, matrices: Sequence[Matrices]) -> list[Array]:
    n = range(len(p))
    own, *others = ([jnp.unstack(row) for row in jnp.unstack(a)] for a in (p, *matrices))
    products = [[[total(own[i][k] * other[k][j] for k in n) for j in n] for i in n] for other in others]
    return [total(products[a][i][j] * products[b][j][i] for i in n for j in n) for a, b in pairs(len(matrices))]


def _by_features(p: Float[Array, "d d m"], matrices: Float[Array, "a d d m"]) -> Float[Array, "q m"]:
    def multiplied(k: Array, products: Array) -> Array:
        return products + _row(p, k, 1)[None, :, None] * _row(matrices, k, 1)[:, None]

    def traced(k: Array, traces: Array) -> Array:
        rows, columns = _row(products, k, 1), _row(products, k, 2)
        return traces + jnp.stack([total(rows[a] * columns[b]) for a, b in pairs(len(rows))])

    products = lax.fori_loop(0, len(p), multiplied, jnp.zeros_like(matrices))
    n_pairs = len(pairs(len(matrices)))
    return lax.fori_loop(0, len(p), traced, jnp.zeros((n_pairs, p.shape[-1]), p.dtype))


def _by_products(p: Float[Array, "d d m"], matrices: Float[Array, "a d d m"]) -> Float[Array, "q m"]:
    p, matrices = jnp.moveaxis(p, -1, 0), jnp.moveaxis(matrices, -1, 1)
    products = jnp.matmul(p[None], matrices, precision=lax.Precision.HIGHEST)
    return jnp.stack([jnp.sum(products[a] * products[b].mT, (-2, -1)) for a, b in pairs(len(matrices))])


def _row(array: Array, index: Array, axis: int) -> Array:
    return lax.dynamic_index_in_dim(array, index, axis, keepdims=False)
