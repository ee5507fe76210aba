"""Exponential and logarithm against float64."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxgmm.numerics.elementary import (
    exp2_in_float64,
    exp_nonpositive,
    log2_in_float64,
    log_from_one,
    rsqrt_in_float64,
    sqrt_in_float64,
)


def test_exponential_is_that_of_float64() -> None:
    x = -np.concatenate([np.linspace(0, 90, 200_001), np.geomspace(1e-30, 1e30, 10_001)]).astype(np.float32)
    exact = np.exp(x.astype(np.float64))
    found = np.asarray(jax.jit(exp_nonpositive)(x))
    assert np.max(np.abs(found - exact)) < 1e-7
    normal = x >= -87
    # The argument is multiplied once, so its rounding grows with it.
    relative = np.abs(found[normal] / exact[normal] - 1)
    assert np.max(relative / (1 + np.abs(x[normal]))) < 1.2e-7
    assert np.all(found[~normal] == 0)
    assert found[0] == 1
    assert np.all(found <= 1)


def test_logarithm_is_that_of_float64() -> None:
    x = np.concatenate([np.linspace(1, 30, 200_001), np.geomspace(1, 1e38, 10_001)]).astype(np.float32)
    exact = np.log(x.astype(np.float64))
    found = np.asarray(jax.jit(log_from_one)(x))
    assert np.all(np.abs(found - exact) <= 1.5e-7 * exact)
    assert found[0] == 0


def test_no_number_stays_none() -> None:
    for function in (exp_nonpositive, log_from_one):
        assert np.isnan(function(jnp.float32(np.nan)))
    assert exp_nonpositive(jnp.float32(-np.inf)) == 0
    assert np.isnan(log_from_one(jnp.float32(0.5)))


def test_functions_in_float64_are_those_of_numpy() -> None:
    with jax.enable_x64(True):
        x = np.concatenate([np.linspace(0.4, 30, 100_001), np.geomspace(1e-307, 1e307, 50_001)])
        logarithm = np.asarray(jax.jit(log2_in_float64)(x))
        assert np.max(np.abs(logarithm - np.log2(x)) / np.maximum(1, np.abs(np.log2(x)))) < 1e-15
        assert np.max(np.abs(np.asarray(jax.jit(rsqrt_in_float64)(x)) * np.sqrt(x) - 1)) < 1e-15
        assert np.max(np.abs(np.asarray(jax.jit(sqrt_in_float64)(x)) / np.sqrt(x) - 1)) < 1e-15
        np.testing.assert_array_equal(sqrt_in_float64(jnp.asarray([0.0, np.inf, -1.0])), [0.0, np.inf, np.nan])
        exponent = np.concatenate([np.linspace(-1000, 1000, 100_001), -np.geomspace(1e-20, 1, 1001)])
        assert np.max(np.abs(np.asarray(jax.jit(exp2_in_float64)(exponent)) / np.exp2(exponent) - 1)) < 1e-15
        assert exp2_in_float64(jnp.float64(-1e30)) == 0
        for function in (log2_in_float64, rsqrt_in_float64):
            assert np.all(np.isnan(function(jnp.asarray([-1.0, 0.0, np.nan]))))
        assert np.isnan(exp2_in_float64(jnp.float64(np.nan)))
