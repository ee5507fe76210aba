"""Products of small matrices and long rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgmm.numerics.products import FEW, moments, product


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n_rows", [1, 3, FEW, FEW + 1])
def test_products_are_those_of_matrices(n_rows: int, dtype: str) -> None:
    rng, tolerance = np.random.default_rng(n_rows), 1e-12 if dtype == "float64" else 1e-5
    matrices, rows = rng.normal(size=(2, n_rows, n_rows)), rng.normal(size=(2, n_rows, 50))
    weights = rng.uniform(size=(2, 50)) * (np.arange(50) < 40)
    with jax.enable_x64(True):
        given = [jnp.asarray(array, dtype) for array in (matrices, rows, weights)]
        products = jax.vmap(product)(*given[:2])
        sums = jax.vmap(moments)(*given[1:])
    np.testing.assert_allclose(products, matrices @ rows, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(
        sums, (rows * weights[:, None]) @ np.swapaxes(rows, 1, 2), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200])
def test_both_ways_agree_where_numbers_are_not_finite(value: float) -> None:
    for n_rows in (FEW, FEW + 1):
        rows = np.ones((n_rows, 8))
        rows[0, 3] = value
        with jax.enable_x64(True):
            found = np.asarray(product(jnp.eye(n_rows), jnp.asarray(rows)))
            sums = np.asarray(moments(jnp.asarray(rows), jnp.ones(8)))
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(found, np.eye(n_rows) @ rows)
            np.testing.assert_array_equal(np.isfinite(sums), np.isfinite(rows @ rows.T))
