"""The E-step about each component's mean keeps digits that raw moments lose."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from jaxgmm.em.centred import centred_e_step, centred_parameters, centred_responsibilities
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.em.expectation import as_data, e_step, natural_parameters
from jaxgmm.em.maximization import m_step
from jaxgmm.mixture import Mixture

N_FEATURES, N_COMPONENTS = 2, 3


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def mixture(family: str, seed: int = 1) -> Mixture:
    x = np.random.default_rng(0).normal(size=(60, N_FEATURES))
    twin = reference.random_start(np.random.default_rng(seed), x, family, N_COMPONENTS)
    diagonal = FAMILIES[family].diagonal
    covariances = np.diagonal(twin.covariances, axis1=1, axis2=2) if diagonal else twin.covariances
    return Mixture(*map(jnp.asarray, (twin.weights, twin.means, covariances)))


@pytest.mark.parametrize("tile", [0, 20])
@pytest.mark.parametrize("family", FAMILIES)
def test_one_iteration_is_that_of_raw_moments(family: str, tile: int) -> None:
    diagonal, start = FAMILIES[family].diagonal, mixture(family)
    rng = np.random.default_rng(2)
    data = as_data(jnp.asarray(rng.normal(size=(N_FEATURES, 60))), jnp.asarray(rng.random(60)), tile, diagonal=diagonal)
    ridge = 0.01 * (jnp.ones(N_FEATURES) if diagonal else jnp.eye(N_FEATURES))
    raw, expected = e_step(data, natural_parameters(start)[0], N_FEATURES, diagonal=diagonal)
    found, log_likelihood = centred_e_step(data, centred_parameters(start)[0], N_FEATURES, diagonal=diagonal)
    np.testing.assert_allclose(log_likelihood, expected, rtol=1e-12)
    next_raw = m_step(raw, FAMILIES[family], ridge)
    next_centred = m_step(found, FAMILIES[family], ridge, origins=start.means)
    for own, leaf in zip(next_centred.arrays, next_raw.arrays, strict=True):
        np.testing.assert_allclose(own, leaf, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("width", [1e-4, 1e-8, 1e-12])
def test_widths_far_below_the_distance_from_the_origin_are_known(width: float) -> None:
    rng = np.random.default_rng(3)
    # Rounded to what float64 has at a distance of one, so that the twin reads the same samples.
    x = 1.0 + np.ldexp(np.round(np.ldexp(width * rng.normal(size=(1, 200)), 52)), -52)
    start = Mixture(jnp.ones(1), jnp.ones((1, 1)), jnp.full((1, 1), width**2))
    data = as_data(jnp.asarray(x), jnp.ones(200), 0, diagonal=True)
    parameters, _ = centred_parameters(start)
    found, log_likelihood = centred_e_step(data, parameters, 1, diagonal=True)
    after = m_step(found, FAMILIES["diag"], jnp.zeros(1), origins=start.means)
    np.testing.assert_allclose(after.covariances[0, 0], np.var(x - 1.0), rtol=1e-9)
    scaled = (x - 1.0) / width
    expected = -0.5 * np.sum(scaled**2) - 200 * (np.log(width) + 0.5 * np.log(2 * np.pi))
    np.testing.assert_allclose(log_likelihood, expected, rtol=1e-10)


def test_equal_values_far_from_the_origin_have_no_variance() -> None:
    rounding = jnp.full((1, 1), (np.finfo(np.float64).eps * 7) ** 2)
    _, remaining = centred_parameters(Mixture(jnp.ones(1), jnp.full((1, 1), 7.0), rounding))
    assert float(remaining[0]) == 0
    _, remaining = centred_parameters(Mixture(jnp.ones(1), jnp.full((1, 1), 7.0), jnp.full((1, 1), 1e-24)))
    assert float(remaining[0]) == 1


def test_remaining_tells_what_correlation_leaves() -> None:
    covariances = jnp.asarray([[[1.0, 1.0 - 1e-9], [1.0 - 1e-9, 1.0]], [[1.0, 2.0], [2.0, 1.0]]])
    _, remaining = centred_parameters(Mixture(jnp.full(2, 0.5), jnp.zeros((2, 2)), covariances))
    np.testing.assert_allclose(remaining[0], 2e-9, rtol=1e-6)
    assert np.isnan(remaining[1])


def test_axes_that_follow_are_further_mixtures() -> None:
    several = [mixture("full", seed) for seed in (1, 2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=-1), *several)
    parameters, remaining = centred_parameters(stacked)
    for i, one in enumerate(several):
        own, left = centred_parameters(one)
        np.testing.assert_allclose(parameters[..., i], own, rtol=1e-12)
        np.testing.assert_allclose(remaining[..., i], left, rtol=1e-12)


def test_responsibilities_are_the_twins() -> None:
    start = mixture("full")
    x = np.random.default_rng(4).normal(size=(60, N_FEATURES))
    found, log_density = centred_responsibilities(jnp.asarray(x.T), centred_parameters(start)[0], diagonal=False)
    expected, total = reference.e_step(x, reference.TwinMixture(*map(np.asarray, start)), np.ones(60))
    np.testing.assert_allclose(found.T, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(np.sum(log_density), total, rtol=1e-12)
