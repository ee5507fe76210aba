"""Factors and inverses of small matrices against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import at_once

from jaxgmm.numerics.cholesky import UNROLLED_SIZE, cholesky, inverse_lower, log_determinant

SIZES = [1, 2, 5, UNROLLED_SIZE, UNROLLED_SIZE + 1, 20]

factors, inverses, log_determinants = map(at_once, (cholesky, inverse_lower, log_determinant))


def covariances(size: int) -> np.ndarray:
    samples = np.random.default_rng(size).normal(size=(4, 3, 2 * size, size))
    return np.swapaxes(samples, -1, -2) @ samples


@pytest.mark.parametrize("size", SIZES)
def test_factors_and_their_inverses(size: int) -> None:
    a = covariances(size)
    factor = factors(jnp.asarray(a))
    np.testing.assert_allclose(factor, np.linalg.cholesky(a), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(inverses(factor), np.linalg.inv(np.linalg.cholesky(a)), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(log_determinants(factor), np.linalg.slogdet(a)[1], rtol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_what_is_not_positive_definite_has_no_factor(size: int) -> None:
    a = covariances(size)
    a[..., -1, -1] = -1
    assert np.all(np.any(np.isnan(factors(jnp.asarray(a))), axis=(-2, -1)))


@pytest.mark.parametrize("size", SIZES)
def test_derivatives_are_those_of_differences(size: int) -> None:
    a = covariances(size)[0, 0]

    def function(a: jax.Array) -> jax.Array:
        return jnp.sum(inverse_lower(cholesky(a)))

    direction, with_slope = np.eye(size) * np.arange(1, size + 1), at_once(jax.value_and_grad(function))
    (above, _), (below, _) = with_slope(a + 1e-5 * direction), with_slope(a - 1e-5 * direction)
    expected = (above - below) / 2e-5
    derivative = np.sum(np.asarray(with_slope(a)[1]) * direction)
    assert derivative == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other platforms use their libraries")
@pytest.mark.parametrize("size", SIZES)
def test_cpu_calls_no_routine_that_waits_for_other_threads(size: int) -> None:
    def function(a: jax.Array) -> jax.Array:
        return inverse_lower(cholesky(a))

    assert "custom_call" not in jax.jit(function).lower(jnp.eye(size)[None]).as_text()
    assert "custom_call" in jax.jit(jnp.linalg.cholesky).lower(jnp.eye(size)[None]).as_text()
