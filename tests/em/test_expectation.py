"""E-step in quadratic features against the slow twin."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
import reference

from jaxgmm.em.covariance import FAMILIES
from jaxgmm.em.expectation import Data, as_data, collect, e_step, natural_parameters, over_tiles
from jaxgmm.em.statistics import features
from jaxgmm.mixture import Mixture


def mixture_of(twin: reference.TwinMixture, *, diagonal: bool, dtype: type = np.float64) -> Mixture:
    covariances = np.diagonal(twin.covariances, axis1=1, axis2=2) if diagonal else twin.covariances
    return Mixture(*(jnp.asarray(leaf, dtype) for leaf in (twin.weights, twin.means, covariances)))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n_features", [1, 2, 3, 8, 9])
@pytest.mark.parametrize("as_one_kernel", [False, True])
def test_statistics_are_weighted_sums_under_the_posterior(family: str, n_features: int, as_one_kernel: bool) -> None:
    rng = np.random.default_rng(n_features)
    x, weights = rng.normal(size=(40, n_features)), rng.uniform(0, 2, 40)
    start = reference.random_start(rng, x, family, 3)
    diagonal = FAMILIES[family].diagonal

    natural, _ = natural_parameters(mixture_of(start, diagonal=diagonal), as_one_kernel=as_one_kernel)
    data = Data(features(jnp.asarray(x.T), diagonal=diagonal), jnp.asarray(weights))
    statistics, log_likelihood = e_step(data, natural, n_features, diagonal=diagonal)

    responsibilities, expected = reference.e_step(x, start, weights)
    weighted = responsibilities * weights[:, None]
    outer = x[:, :, None] * x[:, None, :]
    second = np.einsum("nk,nij->kij", weighted, outer)
    np.testing.assert_allclose(log_likelihood, expected, rtol=1e-11)
    np.testing.assert_allclose(statistics.counts, weighted.sum(axis=0), rtol=1e-9)
    np.testing.assert_allclose(statistics.first, weighted.T @ x, rtol=1e-8, atol=1e-10)
    expected_second = np.diagonal(second, axis1=1, axis2=2) if diagonal else second
    np.testing.assert_allclose(statistics.second, expected_second, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("family", FAMILIES)
def test_tiles_add_up_to_the_whole(family: str) -> None:
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(48, 3)), rng.uniform(0, 2, 48)
    diagonal = FAMILIES[family].diagonal
    natural, _ = natural_parameters(mixture_of(reference.random_start(rng, x, family, 4), diagonal=diagonal))
    labels = jnp.asarray(rng.integers(0, 4, 48))

    def by_label(data: Data, labels: jnp.ndarray) -> object:
        return collect(
            data, jnp.where(labels[None] == jnp.arange(4)[:, None], data.weights[None], 0.0), 3, diagonal=diagonal
        )

    whole, tiled = (as_data(jnp.asarray(x.T), jnp.asarray(weights), tile, diagonal=diagonal) for tile in (0, 16))
    expected, found = (e_step(data, natural, 3, diagonal=diagonal) for data in (whole, tiled))
    assert found[1] == pytest.approx(float(expected[1]), rel=1e-13)
    expected_sums, found_sums = (over_tiles(data, labels, by_label, diagonal=diagonal) for data in (whole, tiled))
    for a, b in zip((*found[0], *found_sums), (*expected[0], *expected_sums), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


def test_absent_component_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 2))
    two = mixture_of(reference.random_start(rng, x, "full", 2), diagonal=False)
    three = two.map(lambda leaf: jnp.concatenate([leaf, leaf[:1]]))
    three = replace(three, weights=three.weights.at[2].set(0.0))
    data = Data(features(jnp.asarray(x.T), diagonal=False), jnp.ones(30))
    expected, log_likelihood = e_step(data, natural_parameters(two)[0], 2, diagonal=False)
    statistics, with_absent = e_step(data, natural_parameters(three)[0], 2, diagonal=False)
    assert with_absent == pytest.approx(float(log_likelihood), rel=1e-14)
    assert statistics.counts[2] == 0
    np.testing.assert_allclose(statistics.first[:2], expected.first, rtol=1e-12)


@pytest.mark.parametrize(("smallest", "tolerance"), [(1.0, 2e-6), (1e-2, 2e-6), (1e-3, 2e-5), (1e-4, 2e-4)])
def test_float32_error_stays_below_what_cancellation_allows(smallest: float, tolerance: float) -> None:
    """Error in nats per sample, on standardised data whose smallest component variance is given."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(500, 2)), 1.0 + np.sqrt(smallest) * rng.normal(size=(500, 2))])
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    labels = np.repeat(np.eye(2), 500, axis=0)
    start = reference.m_step(x, labels, "full", np.ones(1000), 0.0)
    expected = reference.e_step(x, start, np.ones(1000))[1] / 1000
    natural, remaining = natural_parameters(mixture_of(start, diagonal=False, dtype=np.float32))
    data = Data(features(jnp.asarray(x.T, jnp.float32), diagonal=False), jnp.ones(1000, jnp.float32))
    _, log_likelihood = e_step(data, natural, 2, diagonal=False)
    assert natural.dtype == log_likelihood.dtype == jnp.float32
    assert abs(float(log_likelihood) / 1000 - expected) < tolerance
    assert np.all(np.asarray(remaining) > 0.2 * smallest)


def test_remaining_variance_is_not_a_number_when_a_covariance_is_not_positive_definite() -> None:
    indefinite = jnp.asarray([[[1.0, 2.0], [2.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]])
    _, remaining = natural_parameters(Mixture(jnp.full(2, 0.5), jnp.zeros((2, 2)), indefinite))
    assert np.isnan(remaining[0])
    assert remaining[1] == 1


@pytest.mark.parametrize("n_features", [1, 3, 5])
def test_negative_definite_covariances_leave_no_variance(n_features: int) -> None:
    full = -jnp.eye(n_features)[None]
    for covariances in (full, jnp.diagonal(full, axis1=1, axis2=2)):
        _, remaining = natural_parameters(Mixture(jnp.ones(1), jnp.zeros((1, n_features)), covariances))
        assert np.isnan(remaining[0])
