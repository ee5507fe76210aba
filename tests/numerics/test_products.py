"""Products of small matrices and long rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgmm.numerics.products import FEW, moments, of_rows


@pytest.mark.parametrize("n_rows", [1, 3, FEW, FEW + 1])
def test_products_are_those_of_matrices(n_rows: int) -> None:
    rng = np.random.default_rng(n_rows)
    matrix, rows, weights = rng.normal(size=(n_rows, n_rows)), rng.normal(size=(n_rows, 50)), rng.uniform(size=50)
    with jax.enable_x64(True):
        product = of_rows(jnp.asarray(matrix), jnp.asarray(rows))
        found = moments(jnp.asarray(rows), jnp.asarray(weights))
    np.testing.assert_allclose(product, matrix @ rows, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found, (rows * weights) @ rows.T, rtol=1e-12, atol=1e-12)
