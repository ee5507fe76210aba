"""Parts of the initialisers, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgmm.em.initialization import _cumulative_sum, _first_largest


@pytest.mark.parametrize("n", [1, 15, 16, 17, 300, 5000])
def test_cumulative_sum_is_numpys(n: int) -> None:
    x = np.random.default_rng(n).exponential(size=n) ** 4
    x[::3] = 0
    with jax.enable_x64(True):
        found = np.asarray(_cumulative_sum(jnp.asarray(x)))
    np.testing.assert_allclose(found, np.cumsum(x), rtol=1e-13)


def test_padding_leaves_the_cumulative_sum_alone() -> None:
    x = np.random.default_rng(0).exponential(size=100)
    with jax.enable_x64(True):
        padded = np.asarray(_cumulative_sum(jnp.asarray(np.pad(x, (0, 60)))))
        np.testing.assert_allclose(padded[:100], _cumulative_sum(jnp.asarray(x)), rtol=1e-15)
    assert np.all(padded[100:] == padded[99])


def test_first_largest_is_argmax() -> None:
    rows = np.random.default_rng(0).integers(0, 3, size=(5, 200)).astype(np.float32)
    rows[3] = -np.inf
    np.testing.assert_array_equal(_first_largest(jnp.asarray(rows)), np.argmax(rows, axis=0))
