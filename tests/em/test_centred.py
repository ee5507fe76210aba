"""The E-step about each component's mean keeps digits that raw moments lose."""

import functools

import jax
import numpy as np
import pytest
import reference
from compilation import at_once

from jaxgmm.em.centred import centred_e_step, centred_parameters, centred_responsibilities
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.em.expectation import as_data, e_step, natural_parameters
from jaxgmm.em.maximization import m_step
from jaxgmm.mixture import Mixture

N_FEATURES, N_COMPONENTS = 2, 3


parameters_of = at_once(centred_parameters)
responsibilities_of = at_once(centred_responsibilities, static_argnames=("diagonal",))


@functools.partial(at_once, static_argnames=("family", "tile"))
def one_iteration(
    z: jax.Array, weights: jax.Array, start: Mixture, ridge: jax.Array, family: str, tile: int = 0
) -> tuple[Mixture, jax.Array]:
    """By centred sums: the mixture, and the log-likelihood of the one before."""
    diagonal = FAMILIES[family].diagonal
    data = as_data(z, weights, tile, diagonal=diagonal)
    sums, log_likelihood = centred_e_step(data, centred_parameters(start)[0], len(z), diagonal=diagonal)
    return m_step(sums, FAMILIES[family], ridge, origins=start.means), log_likelihood


@functools.partial(at_once, static_argnames=("family", "tile"))
def one_of_raw_moments(
    z: jax.Array, weights: jax.Array, start: Mixture, ridge: jax.Array, family: str, tile: int
) -> tuple[Mixture, jax.Array]:
    diagonal = FAMILIES[family].diagonal
    data = as_data(z, weights, tile, diagonal=diagonal)
    sums, log_likelihood = e_step(data, natural_parameters(start)[0], len(z), diagonal=diagonal)
    return m_step(sums, FAMILIES[family], ridge), log_likelihood


def mixture(family: str, seed: int = 1) -> Mixture:
    x = np.random.default_rng(0).normal(size=(60, N_FEATURES))
    twin = reference.random_start(np.random.default_rng(seed), x, family, N_COMPONENTS)
    diagonal = FAMILIES[family].diagonal
    covariances = np.diagonal(twin.covariances, axis1=1, axis2=2) if diagonal else twin.covariances
    return Mixture(twin.weights, twin.means, covariances)


@pytest.mark.parametrize("tile", [0, 20])
@pytest.mark.parametrize("family", FAMILIES)
def test_one_iteration_is_that_of_raw_moments(family: str, tile: int) -> None:
    start, rng = mixture(family), np.random.default_rng(2)
    z, weights = rng.normal(size=(N_FEATURES, 60)), rng.random(60)
    ridge = 0.01 * (np.ones(N_FEATURES) if FAMILIES[family].diagonal else np.eye(N_FEATURES))
    expected, of_start = one_of_raw_moments(z, weights, start, ridge, family, tile)
    found, log_likelihood = one_iteration(z, weights, start, ridge, family, tile)
    np.testing.assert_allclose(log_likelihood, of_start, rtol=1e-12)
    for own, leaf in zip(found.arrays, expected.arrays, strict=True):
        np.testing.assert_allclose(own, leaf, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("width", [1e-4, 1e-8, 1e-12])
def test_widths_far_below_the_distance_from_the_origin_are_known(width: float) -> None:
    rng = np.random.default_rng(3)
    # Rounded to what float64 has at a distance of one, so that the twin reads the same samples.
    x = 1.0 + np.ldexp(np.round(np.ldexp(width * rng.normal(size=(1, 200)), 52)), -52)
    start = Mixture(np.ones(1), np.ones((1, 1)), np.full((1, 1), width**2))
    after, log_likelihood = one_iteration(x, np.ones(200), start, np.zeros(1), "diag")
    np.testing.assert_allclose(np.asarray(after.covariances)[0, 0], np.var(x - 1.0), rtol=1e-9)
    scaled = (x - 1.0) / width
    expected = -0.5 * np.sum(scaled**2) - 200 * (np.log(width) + 0.5 * np.log(2 * np.pi))
    np.testing.assert_allclose(log_likelihood, expected, rtol=1e-10)


def test_equal_values_far_from_the_origin_have_no_variance() -> None:
    rounding = np.full((1, 1), (np.finfo(np.float64).eps * 7) ** 2)
    _, remaining = parameters_of(Mixture(np.ones(1), np.full((1, 1), 7.0), rounding))
    assert float(np.asarray(remaining)[0]) == 0
    _, remaining = parameters_of(Mixture(np.ones(1), np.full((1, 1), 7.0), np.full((1, 1), 1e-24)))
    assert float(np.asarray(remaining)[0]) == 1


def test_remaining_tells_what_correlation_leaves() -> None:
    covariances = np.array([[[1.0, 1.0 - 1e-9], [1.0 - 1e-9, 1.0]], [[1.0, 2.0], [2.0, 1.0]]])
    _, remaining = parameters_of(Mixture(np.full(2, 0.5), np.zeros((2, 2)), covariances))
    np.testing.assert_allclose(np.asarray(remaining)[0], 2e-9, rtol=1e-6)
    assert np.isnan(np.asarray(remaining)[1])


def test_axes_that_follow_are_further_mixtures() -> None:
    several = [mixture("full", seed) for seed in (1, 2)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves, axis=-1), *several)
    parameters, remaining = map(np.asarray, parameters_of(stacked))
    for i, one in enumerate(several):
        own, left = parameters_of(one)
        np.testing.assert_allclose(parameters[..., i], own, rtol=1e-12)
        np.testing.assert_allclose(remaining[..., i], left, rtol=1e-12)


def test_responsibilities_are_the_twins() -> None:
    start = mixture("full")
    x = np.random.default_rng(4).normal(size=(60, N_FEATURES))
    found, log_density = responsibilities_of(x.T, parameters_of(start)[0], diagonal=False)
    expected, total = reference.e_step(x, reference.TwinMixture(*start.arrays), np.ones(60))
    np.testing.assert_allclose(np.asarray(found).T, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(np.sum(np.asarray(log_density)), total, rtol=1e-12)
