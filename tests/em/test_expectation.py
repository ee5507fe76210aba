"""E-step in quadratic features against the slow twin."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from compilation import at_once

from jaxgmm.em.covariance import FAMILIES
from jaxgmm.em.expectation import Data, as_data, collect, e_step, natural_parameters, over_tiles
from jaxgmm.em.statistics import SufficientStatistics
from jaxgmm.mixture import Mixture


def mixture_of(twin: reference.TwinMixture, *, diagonal: bool, dtype: type = np.float64) -> Mixture:
    covariances = np.diagonal(twin.covariances, axis1=1, axis2=2) if diagonal else twin.covariances
    return Mixture(*(jnp.asarray(leaf, dtype) for leaf in (twin.weights, twin.means, covariances)))


@functools.partial(at_once, static_argnames=("tile", "as_one_kernel"))
def sums_under(
    mixture: Mixture, z: jax.Array, weights: jax.Array, tile: int = 0, *, as_one_kernel: bool = False
) -> tuple[SufficientStatistics, jax.Array, jax.Array]:
    """Statistics of samples `(D, N)` under the posterior, their log-likelihood, and what is left of variances."""
    natural, remaining = natural_parameters(mixture, as_one_kernel=as_one_kernel)
    data = as_data(z, weights, tile, diagonal=mixture.is_diagonal)
    return *e_step(data, natural, len(z), diagonal=mixture.is_diagonal), remaining


# Families of one form are one program; only the inverses of matrices depend on their size, and on whether they are made
# in one kernel.
@pytest.mark.parametrize(
    ("family", "n_features", "as_one_kernel"),
    [
        *((family, d, d in (2, 8)) for family in ("full", "tied") for d in (1, 2, 3, 8, 9)),
        *((family, d, d == 9) for family in ("diag", "spherical") for d in (1, 9)),
    ],
)
def test_statistics_are_weighted_sums_under_the_posterior(family: str, n_features: int, as_one_kernel: bool) -> None:
    rng = np.random.default_rng(n_features)
    x, weights = rng.normal(size=(40, n_features)), rng.uniform(0, 2, 40)
    start = reference.random_start(rng, x, family, 3)
    diagonal = FAMILIES[family].diagonal
    statistics, log_likelihood, _ = sums_under(
        mixture_of(start, diagonal=diagonal), x.T, weights, as_one_kernel=as_one_kernel
    )

    responsibilities, expected = reference.e_step(x, start, weights)
    weighted = responsibilities * weights[:, None]
    outer = x[:, :, None] * x[:, None, :]
    second = np.einsum("nk,nij->kij", weighted, outer)
    np.testing.assert_allclose(log_likelihood, expected, rtol=1e-11)
    np.testing.assert_allclose(statistics.counts, weighted.sum(axis=0), rtol=1e-9)
    np.testing.assert_allclose(statistics.first, weighted.T @ x, rtol=1e-8, atol=1e-10)
    expected_second = np.diagonal(second, axis1=1, axis2=2) if diagonal else second
    np.testing.assert_allclose(statistics.second, expected_second, rtol=1e-8, atol=1e-10)


@functools.partial(at_once, static_argnames=("tile", "diagonal"))
def sums_by_label(
    labels: jax.Array, z: jax.Array, weights: jax.Array, tile: int, *, diagonal: bool
) -> SufficientStatistics:
    def by_label(data: Data, labels: jax.Array) -> SufficientStatistics:
        rows = jnp.where(labels[None] == jnp.arange(4)[:, None], data.weights[None], 0.0)
        return collect(data, rows, len(z), diagonal=diagonal)

    return over_tiles(as_data(z, weights, tile, diagonal=diagonal), labels, by_label, diagonal=diagonal)


@pytest.mark.parametrize("family", FAMILIES)
def test_tiles_add_up_to_the_whole(family: str) -> None:
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(48, 3)), rng.uniform(0, 2, 48)
    diagonal = FAMILIES[family].diagonal
    mixture = mixture_of(reference.random_start(rng, x, family, 4), diagonal=diagonal)
    labels = rng.integers(0, 4, 48)
    expected, found = (sums_under(mixture, x.T, weights, tile) for tile in (0, 16))
    assert found[1] == pytest.approx(float(expected[1]), rel=1e-13)
    expected_sums, found_sums = (sums_by_label(labels, x.T, weights, tile, diagonal=diagonal) for tile in (0, 16))
    for a, b in zip((*found[0], *found_sums), (*expected[0], *expected_sums), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


def test_absent_component_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 2))
    two = mixture_of(reference.random_start(rng, x, "full", 2), diagonal=False).map(np.asarray)
    three = two.map(lambda leaf: np.concatenate([leaf, leaf[:1]]))
    three.weights[2] = 0.0
    expected, log_likelihood, _ = sums_under(two, x.T, np.ones(30))
    statistics, with_absent, _ = sums_under(three, x.T, np.ones(30))
    assert with_absent == pytest.approx(float(log_likelihood), rel=1e-14)
    assert statistics.counts[2] == 0
    np.testing.assert_allclose(np.asarray(statistics.first)[:2], expected.first, rtol=1e-12)


@pytest.mark.parametrize(("smallest", "tolerance"), [(1.0, 2e-6), (1e-2, 2e-6), (1e-3, 2e-5), (1e-4, 2e-4)])
def test_float32_error_stays_below_what_cancellation_allows(smallest: float, tolerance: float) -> None:
    """Error in nats per sample, on standardised data whose smallest component variance is given."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(500, 2)), 1.0 + np.sqrt(smallest) * rng.normal(size=(500, 2))])
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    labels = np.repeat(np.eye(2), 500, axis=0)
    start = reference.m_step(x, labels, "full", np.ones(1000), 0.0)
    expected = reference.e_step(x, start, np.ones(1000))[1] / 1000
    narrow = mixture_of(start, diagonal=False, dtype=np.float32)
    _, log_likelihood, remaining = sums_under(narrow, x.T.astype(np.float32), np.ones(1000, np.float32))
    assert remaining.dtype == log_likelihood.dtype == jnp.float32
    assert abs(float(log_likelihood) / 1000 - expected) < tolerance
    assert np.all(np.asarray(remaining) > 0.2 * smallest)


remaining_of = at_once(lambda mixture: natural_parameters(mixture)[1])


def test_remaining_variance_is_not_a_number_when_a_covariance_is_not_positive_definite() -> None:
    indefinite = np.array([[[1.0, 2.0], [2.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]])
    remaining = np.asarray(remaining_of(Mixture(np.full(2, 0.5), np.zeros((2, 2)), indefinite)))
    assert np.isnan(remaining[0])
    assert remaining[1] == 1


@pytest.mark.parametrize("n_features", [1, 3, 5])
def test_negative_definite_covariances_leave_no_variance(n_features: int) -> None:
    full = -np.eye(n_features)[None]
    for covariances in (full, np.diagonal(full, axis1=1, axis2=2)):
        remaining = remaining_of(Mixture(np.ones(1), np.zeros((1, n_features)), covariances))
        assert np.isnan(np.asarray(remaining)[0])
