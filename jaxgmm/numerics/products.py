"""Products of a small matrix and a few long rows.

For matrices as small as this, a product of matrices is a call of a library for each data set, and on a GPU a kernel of
its own, whose operands are written to memory and read again. Written out, it is part of what makes and reads the rows.
"""

import functools

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# Up to this many rows, products are written out: faster with 2 and 3 rows on a CPU, and for a card fewer bytes. With D
# rows, the moments are D² sums.
FEW = 4


def product(matrix: Float[Array, "e d"], rows: Float[Array, "d n"]) -> Float[Array, "e n"]:
    """The product of a matrix and rows, a column for each sample."""
    if len(rows) > FEW:
        return jnp.matmul(matrix, rows, precision=lax.Precision.HIGHEST)
    return functools.reduce(jnp.add, (matrix[:, i, None] * rows[None, i] for i in range(len(rows))))


def moments(rows: Float[Array, "d n"], weights: Float[Array, " n"]) -> Float[Array, "d d"]:
    """The matrix of weighted sums over samples of the products of two rows."""
    weighted = rows * weights[None, :]
    if len(rows) > FEW:
        return jnp.matmul(weighted, rows.T, precision=lax.Precision.HIGHEST)
    of_all = range(len(rows))
    entries = {(i, j): jnp.sum(weighted[i] * rows[j]) for i in of_all for j in range(i + 1)}
    return jnp.stack([jnp.stack([entries[max(i, j), min(i, j)] for j in of_all]) for i in of_all])
