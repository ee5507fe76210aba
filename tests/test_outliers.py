"""P-values of outliers under a mixture."""

import jax
import numpy as np
import pytest
import scipy.stats

import jaxgmm

RNG = np.random.default_rng(0)


def two(distance: float) -> jaxgmm.Mixture:
    spread = np.array([[2.0, 0.5], [0.5, 1.0]])
    return jaxgmm.Mixture(
        np.array([0.3, 0.7]), np.array([[0.0, 0.0], [distance, 0.0]]), np.stack([spread, 0.25 * spread])
    )


def test_the_p_value_of_one_gaussian_is_that_of_its_mahalanobis_distance() -> None:
    mixture, x = two(50.0), RNG.normal(size=(40, 2))
    distances = [x[:, None, :] - mixture.means[k] for k in range(2)]
    squares = [np.sum((d @ np.linalg.inv(mixture.covariances[k]) * d)[:, 0], axis=1) for k, d in enumerate(distances)]
    expected = np.max([scipy.stats.chi2.sf(square, 2) for square in squares], axis=0)
    found = jaxgmm.outlier_p_values(mixture, x)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    np.testing.assert_allclose(jax.jit(jaxgmm.outlier_p_values)(mixture, x), expected, rtol=1e-3)


@pytest.mark.parametrize(("distance", "is_exact"), [(50.0, True), (1.0, False)])
def test_few_samples_of_the_mixture_itself_are_outliers(distance: float, is_exact: bool) -> None:
    n = 40_000
    x, _ = jaxgmm.sample(0, two(distance), n)
    for level in (0.5, 0.05, 0.01):
        share, error = np.mean(jaxgmm.outlier_p_values(two(distance), x) <= level), 4 * np.sqrt(level / n)
        assert share <= level + error
        assert share >= level - error or not is_exact


def test_what_is_known_of_far_missing_and_absent() -> None:
    mixture = two(3.0)
    x = np.array([[0.0, 0.0], [1e200, 0.0], [np.inf, 0.0], [np.nan, 0.0]])
    found = jaxgmm.outlier_p_values(mixture, x)
    assert found[0] == 1
    assert found[1] == found[2] == 0
    assert np.isnan(found[3])
    alone = jaxgmm.Mixture(np.array([1.0, 0.0]), mixture.means, mixture.covariances)
    assert jaxgmm.outlier_p_values(alone, mixture.means[1:])[0] < 0.1
    nothing = jaxgmm.Mixture(np.zeros(2), mixture.means, mixture.covariances)
    assert np.all(np.isnan(jaxgmm.outlier_p_values(nothing, x)))


def test_mixtures_without_an_answer_know_no_outliers_among_many() -> None:
    weights, means, variances = np.full((200, 3), 1 / 3), RNG.normal(size=(200, 3, 1)), np.ones((200, 3, 1))
    mixture = jaxgmm.Mixture(weights, means, variances)
    for leaf in mixture.arrays:
        leaf[::7] = np.nan
    found = jaxgmm.outlier_p_values(mixture, [RNG.normal(size=(90 + b % 30, 1)) for b in range(200)])
    assert [bool(np.all(np.isnan(own))) for own in found] == [b % 7 == 0 for b in range(200)]
    assert not any(np.any(np.isnan(own)) for b, own in enumerate(found) if b % 7)
