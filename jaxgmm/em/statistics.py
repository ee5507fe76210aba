"""Sufficient statistics of a Gaussian mixture, and the features whose sums they are.

The log-density of a Gaussian is linear in φ(x) = [1, x, vech(x xᵀ)], or [1, x, x²] when components are axis-aligned. So
φ is computed once for a data set; the E-step is then a product with the components' natural parameters, and the
statistics are a product with the responsibilities. Samples are the last axis throughout.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class SufficientStatistics(NamedTuple):
    """Weighted sums over samples, one for each component. Sums of two sets of samples add.

    Runs that step together are in trailing axes.

    Attributes:
        counts: `(K,)`, Σ_n r_kn, the effective number of samples.
        first: `(K, D)`, Σ_n r_kn x_n.
        second: `(K, D, D)`, Σ_n r_kn x_n x_nᵀ, or `(K, D)`, Σ_n r_kn x_n² for axis-aligned components.
    """

    counts: Float[Array, "..."]
    first: Float[Array, "..."]
    second: Float[Array, "..."]


def features(x: Float[Array, "d n"], *, diagonal: bool) -> Float[Array, "f n"]:
    """All of φ(x): F = 1 + D + D (D + 1) / 2 rows, or 1 + 2 D for axis-aligned components."""
    ones = jnp.ones_like(x[:1])
    if diagonal:
        return jnp.concatenate([ones, x, x * x])
    rows, columns = np.tril_indices(x.shape[0])
    return jnp.concatenate([ones, x, x[rows] * x[columns]])


def n_rows(n_features: int, *, diagonal: bool) -> int:
    """F, the number of rows of `features`."""
    return 1 + n_features + (n_features if diagonal else n_features * (n_features + 1) // 2)


def from_sums(sums: Float[Array, "k f"], n_features: int, *, diagonal: bool) -> SufficientStatistics:
    """Splits Σ_n r_kn φ(x_n) into counts, first and second moments."""
    count, first, products = jnp.split(sums, [1, 1 + n_features], axis=-1)
    second = products if diagonal else products[:, _vech_index(n_features)]
    return SufficientStatistics(count[:, 0], first, second)


def vech(matrices: Float[Array, "k d d *s"]) -> Float[Array, "k v *s"]:
    """Lower triangle of P, its off-diagonal doubled, so that its product with that of x xᵀ is xᵀ P x."""
    rows, columns = np.tril_indices(matrices.shape[1])
    multiplicity = np.where(rows == columns, 1.0, 2.0).reshape(1, -1, *[1] * (matrices.ndim - 3))
    return matrices[:, rows, columns] * jnp.asarray(multiplicity, dtype=matrices.dtype)


def unvech(rows: Float[Array, "k v *s"], n_features: int) -> Float[Array, "k d d *s"]:
    """The symmetric matrices of which `vech` made rows."""
    row, column = np.tril_indices(n_features)
    share = np.where(row == column, 1.0, 0.5).reshape(1, -1, *[1] * (rows.ndim - 2))
    return (rows * jnp.asarray(share, rows.dtype))[:, _vech_index(n_features)]


def _vech_index(n_features: int) -> np.ndarray:
    """Position in vech of every entry of a symmetric matrix."""
    index = np.empty((n_features, n_features), dtype=int)
    rows, columns = np.tril_indices(n_features)
    index[rows, columns] = index[columns, rows] = np.arange(len(rows))
    return index
