"""Inverses by elimination against NumPy, and against the way through the Cholesky factor."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import at_once

from jaxgmm.numerics.cholesky import cholesky, inverse_lower
from jaxgmm.numerics.elimination import MOST_ENTRIES, _by_features, _step_by_step, inverse_and_pivots

inverses = at_once(inverse_and_pivots)
in_one_kernel = jax.jit(functools.partial(inverse_and_pivots, as_one_kernel=True))
step_by_step, by_features = at_once(_step_by_step), at_once(_by_features)
whitenings = at_once(lambda a: inverse_lower(cholesky(a)))


def covariances(size: int, condition: float = 10.0) -> np.ndarray:
    """50 of them, with eigenvalues from 1 down to 1 / `condition`."""
    rng = np.random.default_rng(size)
    axes = np.linalg.qr(rng.normal(size=(50, size, size)))[0]
    eigenvalues = condition ** -rng.uniform(size=(50, size))
    eigenvalues[:, 0], eigenvalues[:, -1] = 1, 1 / condition
    a = (axes * eigenvalues[:, None]) @ np.swapaxes(axes, -1, -2)
    return (a + np.swapaxes(a, -1, -2)) / 2


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8, 15])
def test_inverse_and_pivots(size: int) -> None:
    a = covariances(size)
    inverse, pivots = inverses(jnp.asarray(a))
    np.testing.assert_allclose(inverse, np.linalg.inv(a), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(inverse, np.swapaxes(inverse, -1, -2))
    np.testing.assert_allclose(pivots, np.diagonal(np.linalg.cholesky(a), axis1=1, axis2=2) ** 2, rtol=1e-10)
    # Further matrices in a last axis, and all of it as one kernel.
    reshaped = jnp.moveaxis(jnp.asarray(a).reshape(10, 5, size, size), 1, -1)
    for found, expected in zip(in_one_kernel(reshaped), (inverse, pivots), strict=True):
        np.testing.assert_allclose(jnp.moveaxis(found, -1, 1).reshape(expected.shape), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("size", [4, 8, 15])
def test_steps_written_out_are_those_of_the_loop(size: int) -> None:
    # Other platforms than a CPU take these, and are not at hand.
    a = jnp.moveaxis(jnp.asarray(covariances(size)), 0, 2)
    for found, expected in zip(step_by_step(a), by_features(a), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)
    further = step_by_step(a.reshape(size, size, 10, 5))
    for found, expected in zip(further, by_features(a), strict=True):
        np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("condition", [1e2, 1e4])
@pytest.mark.parametrize("size", [2, 3, 4, 8])
def test_as_accurate_as_the_cholesky_factor(size: int, condition: float) -> None:
    a = covariances(size, condition)
    x = np.random.default_rng(0).normal(size=(50, 100, size)) @ np.swapaxes(np.linalg.cholesky(a), -1, -2)

    def distances(inverse: np.ndarray) -> np.ndarray:
        return np.einsum("bni,bij,bnj->bn", x, np.asarray(inverse, np.float64), x)

    single = jnp.asarray(a, jnp.float32)
    whitening = whitenings(single)
    exact = distances(np.linalg.inv(np.asarray(single, np.float64)))
    by_factor = distances(jnp.matmul(jnp.swapaxes(whitening, -1, -2), whitening, precision="highest"))
    as_one_kernel = distances(inverses(single)[0])
    errors = [np.mean(np.abs(found - exact)) for found in (as_one_kernel, by_factor)]
    assert errors[0] < 1.5 * errors[1]
    assert errors[0] < 1e-6 * condition


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8])
def test_what_is_not_positive_definite_has_a_pivot_that_is_not_positive(size: int) -> None:
    a = covariances(size)
    a[0, -1, -1] = -1
    a[1] = 0
    a[2] = np.nan
    _, pivots = inverses(jnp.asarray(a))
    np.testing.assert_array_equal(np.all(np.asarray(pivots) > 0, axis=1), np.arange(50) > 2)


@pytest.mark.parametrize(
    ("n_runs", "n_components", "size", "dtype"),
    [
        (2, 32, 16, np.float64),
        (256, 4, 4, np.float64),
        (1, 1, 128, np.float64),
        (64, 1, 16, np.float64),
        (2, 32, 16, np.float32),
        (256, 4, 4, np.float32),
    ],
)
def test_as_many_as_are_promised_fit_one_kernel(n_runs: int, n_components: int, size: int, dtype: type) -> None:
    assert n_runs * n_components * size**2 == MOST_ENTRIES
    a = np.broadcast_to(2 * np.eye(size, dtype=dtype)[..., None], (n_components, size, size, n_runs))
    inverse, _ = in_one_kernel(a)
    np.testing.assert_allclose(inverse, a / 4)
