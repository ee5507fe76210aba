"""What diagnose() says, against scipy, numerical integration, and data drawn from the mixture itself."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.stats import chi2, kstest, multivariate_normal, norm

import jaxgmm
from jaxgmm.diagnosis import Diagnosis
from jaxgmm.mixture import full_covariances
from jaxgmm.record import field_names


def random_mixture(seed: int, n_components: int, n_features: int, *, diagonal: bool = False) -> jaxgmm.Mixture:
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(n_components, n_features, n_features))
    covariances = factors @ factors.swapaxes(-1, -2) + 0.3 * np.eye(n_features)
    if diagonal:
        covariances = np.diagonal(covariances, axis1=-2, axis2=-1).copy()
    weights = rng.dirichlet(np.full(n_components, 5.0))
    return jaxgmm.Mixture(weights, 2 * rng.normal(size=(n_components, n_features)), covariances)


def stacked(mixtures: list[jaxgmm.Mixture]) -> jaxgmm.Mixture:
    return jaxgmm.Mixture(*(np.stack(arrays) for arrays in zip(*(one.arrays for one in mixtures), strict=True)))


def density(mixture: jaxgmm.Mixture, point: np.ndarray) -> float:
    """Of a mixture at one point, by scipy."""
    terms = zip(mixture.weights, mixture.means, full_covariances(mixture), strict=True)
    return sum(weight * multivariate_normal(mean, covariance).pdf(point) for weight, mean, covariance in terms)


def marginal(mixture: jaxgmm.Mixture, n_features: int) -> jaxgmm.Mixture:
    """Of the first features."""
    covariances = full_covariances(mixture)[:, :n_features, :n_features]
    return jaxgmm.Mixture(mixture.weights, mixture.means[:, :n_features], covariances)


def assert_equal(left: Diagnosis, right: Diagnosis, **tolerance: float) -> None:
    assert left.features == right.features
    arrays = [name for name in field_names(Diagnosis) if name != "features"]
    for name, ours, theirs in ((name, getattr(left, name), getattr(right, name)) for name in arrays):
        np.testing.assert_allclose(ours, theirs, err_msg=name, **tolerance)


def test_one_feature_is_transformed_by_scipys_distribution_function() -> None:
    mixture = random_mixture(0, 3, 1)
    x = np.random.default_rng(1).normal(scale=3, size=(50, 1))
    scales = np.sqrt(mixture.covariances[:, 0, 0])
    expected = norm.cdf(x, mixture.means[:, 0], scales) @ mixture.weights
    found = jaxgmm.diagnose(mixture, x)
    np.testing.assert_allclose(found.pit[:, 0], expected, rtol=1e-11)
    np.testing.assert_allclose(found.marginal[:, 0], expected, rtol=1e-11)
    np.testing.assert_allclose(found.radius, np.abs(2 * expected - 1), rtol=1e-9)
    assert found.misfits[0] == pytest.approx(kstest(expected, "uniform").statistic, rel=1e-10)
    assert found.p_values[0] == pytest.approx(kstest(expected, "uniform").pvalue, abs=0.02)


@pytest.mark.parametrize("diagonal", [False, True])
def test_later_features_are_transformed_by_the_integral_of_the_density_given_the_earlier_ones(diagonal: bool) -> None:
    mixture = random_mixture(2, 3, 3, diagonal=diagonal)
    x = np.random.default_rng(3).normal(scale=2, size=(4, 3))
    pit = jaxgmm.diagnose(mixture, x).pit
    for d in (1, 2):
        of_first = marginal(mixture, d + 1)
        for point, u in zip(x, pit[:, d], strict=True):

            def along(value: float, known: np.ndarray = point[:d], of_first: jaxgmm.Mixture = of_first) -> float:
                return density(of_first, np.append(known, value))

            # Densities may be tiny, so only relative errors count.
            below, above = (
                quad(along, *ends, epsabs=0, epsrel=1e-10, limit=200)[0] for ends in ((-30, point[d]), (point[d], 30))
            )
            assert u == pytest.approx(below / (below + above), rel=1e-8)


def test_the_radius_of_one_gaussian_is_its_mahalanobis_distance() -> None:
    mixture = random_mixture(4, 1, 3)
    x = np.random.default_rng(5).normal(scale=2, size=(40, 3))
    centred = x - mixture.means[0]
    squared = np.sum(centred @ np.linalg.inv(mixture.covariances[0]) * centred, axis=1)
    np.testing.assert_allclose(jaxgmm.diagnose(mixture, x).radius, chi2(3).cdf(squared), rtol=1e-8)


def test_residuals_of_the_true_mixture_are_uniform_and_their_p_values_as_well() -> None:
    mixture = random_mixture(6, 3, 2)
    x, _ = jaxgmm.sample(0, stacked([mixture] * 400), 300)
    found = jaxgmm.diagnose(mixture, x)
    for values in (*np.moveaxis(found.pit, -1, 0), *np.moveaxis(found.marginal, -1, 0), found.radius):
        assert kstest(values.ravel(), "uniform").pvalue > 0.01
    for p_values in found.p_values.T:
        assert kstest(p_values, "uniform").pvalue > 0.01


def test_columns_hide_a_correlation_that_the_radius_shows() -> None:
    x = np.random.default_rng(7).normal(size=(2000, 2)) @ np.array([[1.0, 0.9], [0.0, 0.44]])
    found = jaxgmm.diagnose(jaxgmm.Mixture(np.ones(1), x.mean(axis=0)[None], x.var(axis=0)[None]), x)
    assert np.all(found.p_values[:4] > 0.05)
    assert found.p_values[4] < 1e-6
    assert found.misfit == found.misfits[4]


@pytest.mark.parametrize("diagonal", [False, True])
def test_marginals_are_the_first_residuals_of_each_feature_alone(diagonal: bool) -> None:
    mixture = random_mixture(27, 3, 3, diagonal=diagonal)
    x = np.random.default_rng(28).normal(scale=2, size=(20, 3))
    found = jaxgmm.diagnose(mixture, x)
    for d in range(3):
        alone = jaxgmm.Mixture(mixture.weights, mixture.means[:, [d]], full_covariances(mixture)[:, [d]][:, :, [d]])
        of_one = jaxgmm.diagnose(alone, x[:, [d]])
        np.testing.assert_allclose(found.marginal[:, d], of_one.pit[:, 0], rtol=1e-10)
        assert found.misfits[3 + d] == pytest.approx(of_one.misfits[0], rel=1e-10)


def test_an_order_of_features_hides_two_clusters_that_marginals_show() -> None:
    rng = np.random.default_rng(29)
    cluster = np.repeat([-1.0, 1.0], 300)
    # The first feature predicts the second, but for noise; only the second shows two clusters.
    first = 2 * cluster + rng.normal(scale=2, size=600)
    x = np.column_stack([first, cluster + 0.2 * rng.normal(size=600)])
    one = jaxgmm.Mixture(np.ones(1), x.mean(axis=0)[None], np.cov(x.T, bias=True)[None])
    p_values = jaxgmm.diagnose(one, x).p_values
    assert p_values[3] < 1e-9
    assert p_values[3] < 1e-6 * p_values[1]


def test_misfit_tells_two_clusters_from_one() -> None:
    x = np.random.default_rng(8).normal(size=(400, 1)) + np.where(np.arange(400) < 200, -3, 3)[:, None]
    halves = x.reshape(2, 200, 1)
    one = jaxgmm.diagnose(jaxgmm.Mixture(np.ones(1), x.mean(axis=0)[None], x.var(axis=0)[None]), x)
    two = jaxgmm.diagnose(jaxgmm.Mixture(np.full(2, 0.5), halves.mean(axis=1), halves.var(axis=1)), x)
    assert one.p_values.min() < 1e-3
    assert two.p_values.min() > 0.2


@pytest.mark.parametrize("diagonal", [False, True])
def test_separation_is_the_integral_of_the_root_of_the_product(diagonal: bool) -> None:
    mixture = random_mixture(9, 3, 2, diagonal=diagonal)
    grid = np.linspace(-25, 25, 1001)
    points = np.stack(np.meshgrid(grid, grid), axis=-1)
    densities = [
        multivariate_normal(mean, covariance).pdf(points)
        for mean, covariance in zip(mixture.means, full_covariances(mixture), strict=True)
    ]
    overlaps = [[np.sum(np.sqrt(p * q)) * (grid[1] - grid[0]) ** 2 for q in densities] for p in densities]
    found = jaxgmm.diagnose(mixture, np.zeros((1, 2)))
    np.testing.assert_allclose(np.exp(-found.separation), overlaps, rtol=1e-8)
    np.testing.assert_array_equal(np.diag(found.separation), 0)


def test_counts_and_uncertainties_are_those_of_the_responsibilities() -> None:
    mixture = random_mixture(10, 3, 2)
    x = np.random.default_rng(11).normal(scale=2, size=(60, 2))
    weight = np.random.default_rng(12).exponential(size=60)
    shares = jaxgmm.responsibilities(mixture, x)
    found = jaxgmm.diagnose(mixture, x, weight)
    uncertainty, weighted = 1 - shares.max(axis=1), weight[:, None] * shares
    np.testing.assert_allclose(found.uncertainty, uncertainty, atol=1e-12)
    np.testing.assert_allclose(found.counts, weighted.sum(axis=0))
    np.testing.assert_allclose(found.effective_counts, weighted.sum(axis=0) ** 2 / (weighted**2).sum(axis=0))
    np.testing.assert_allclose(found.component_uncertainty, uncertainty @ weighted / weighted.sum(axis=0))
    entropies = -np.sum(shares * np.log(shares), axis=1)
    assert found.entropy == pytest.approx(np.average(entropies, weights=weight))
    np.testing.assert_array_equal(found.sample_weight, weight)


def test_nothing_is_certain_where_components_are_the_same() -> None:
    one = random_mixture(13, 1, 2)
    twice = jaxgmm.Mixture(np.full(2, 0.5), *(np.repeat(leaf, 2, axis=0) for leaf in one.arrays[1:]))
    x = np.random.default_rng(14).normal(size=(30, 2))
    found = jaxgmm.diagnose(twice, x)
    np.testing.assert_allclose(found.uncertainty, 0.5)
    assert found.entropy == pytest.approx(np.log(2))
    np.testing.assert_allclose(found.counts, 15)
    # Half of each sample, but of all 30 of them.
    np.testing.assert_allclose(found.effective_counts, 30)
    np.testing.assert_array_equal(found.separation, 0)
    np.testing.assert_allclose(found.pit, jaxgmm.diagnose(one, x).pit)


def test_weight_0_is_as_if_removed_and_weight_2_as_if_there_twice() -> None:
    mixture = random_mixture(15, 3, 2)
    x = np.random.default_rng(16).normal(size=(30, 2))
    x[:5] = np.nan
    weight = np.repeat([0.0, 1.0, 2.0], [5, 10, 15])
    found, expected = jaxgmm.diagnose(mixture, x, weight), jaxgmm.diagnose(mixture, np.repeat(x, weight.astype(int), 0))
    for name in ("misfits", "counts", "component_uncertainty", "entropy"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), err_msg=name)


@pytest.mark.parametrize("exponent", [-900, 900])
def test_weights_scaled_by_a_power_of_two_change_nothing_but_counts(exponent: int) -> None:
    mixture, weight = random_mixture(15, 3, 2), np.random.default_rng(0).uniform(0.5, 2, 30)
    x = np.random.default_rng(16).normal(size=(30, 2))
    expected, found = jaxgmm.diagnose(mixture, x, weight), jaxgmm.diagnose(mixture, x, np.ldexp(weight, exponent))
    for name in ("misfits", "p_values", "effective_counts", "component_uncertainty", "entropy"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    np.testing.assert_array_equal(found.counts, np.ldexp(expected.counts, exponent))


@pytest.mark.parametrize("lengths", [[40] * 5, [40, 33, 7, 90, 500]], ids=["stack", "list"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_batch_is_its_data_sets_alone(lengths: list[int], weighted: bool) -> None:
    mixtures, rng = [random_mixture(seed, 3, 2) for seed in range(5)], np.random.default_rng(17)
    x, weights = [rng.normal(size=(n, 2)) for n in lengths], [rng.exponential(size=n) for n in lengths]
    together = jaxgmm.diagnose(stacked(mixtures), x, weights if weighted else None)
    for b, mixture in enumerate(mixtures):
        alone = jaxgmm.diagnose(mixture, x[b], weights[b] if weighted else None)
        if weighted:
            assert_equal(together.of(b), alone, rtol=1e-9)
        else:
            assert together.of(b).sample_weight is alone.sample_weight is None
            assert_equal(replace(together.of(b), sample_weight=0), replace(alone, sample_weight=0), rtol=1e-9)
    if len(set(lengths)) == 1:
        assert together.pit.shape == (5, 40, 2)
        shared = jaxgmm.diagnose(mixtures[0], np.stack(x))
        np.testing.assert_allclose(shared.misfits[0], jaxgmm.diagnose(mixtures[0], x[0]).misfits, rtol=1e-9)


def test_more_data_sets_than_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(18).normal(size=(7, 20, 2))
    mixture = stacked([random_mixture(seed, 2, 2) for seed in range(7)])
    expected = jaxgmm.diagnose(mixture, x)
    monkeypatch.setattr("jaxgmm.diagnosis._MOST_HELD", 3 * 2 * 2 * (32 + 4))
    found = jaxgmm.diagnose(mixture, x)
    assert_equal(replace(found, sample_weight=0), replace(expected, sample_weight=0), rtol=1e-12)


@pytest.mark.parametrize(("n_components", "n_samples"), [(2, 500), (3, 30)])
def test_bad_data_sets_have_nan_and_leave_neighbours_unchanged(n_components: int, n_samples: int) -> None:
    x = np.random.default_rng(19).normal(size=(4, n_samples, 2))
    mixture = stacked([random_mixture(seed, n_components, 2) for seed in range(4)])
    expected = jaxgmm.diagnose(mixture, x)
    spoilt, holes = x.copy(), mixture.map(lambda leaf: leaf.copy())
    spoilt[1, 3] = np.nan
    for leaf in holes.arrays:
        leaf[2] = np.nan
    found = jaxgmm.diagnose(holes, spoilt)
    assert np.isnan(found.misfit).tolist() == [False, True, True, False]
    assert np.isnan(found.entropy).tolist() == [False, True, True, False]
    for b in (0, 3):
        assert_equal(replace(found.of(b), sample_weight=0), replace(expected.of(b), sample_weight=0), rtol=0)
    assert set(found.table["data_set"]) == {0, 1, 3}


def test_absent_components_change_nothing_and_have_no_rows() -> None:
    mixture = random_mixture(20, 2, 2)
    room = jaxgmm.Mixture(
        np.append(mixture.weights, 0.0),
        np.append(mixture.means, [[np.nan, 0.0]], axis=0),
        np.append(mixture.covariances, np.zeros((1, 2, 2)), axis=0),
    )
    x = np.random.default_rng(21).normal(size=(30, 2))
    found, expected = jaxgmm.diagnose(room, x), jaxgmm.diagnose(mixture, x)
    np.testing.assert_allclose(found.pit, expected.pit)
    np.testing.assert_allclose(found.separation[:2, :2], expected.separation)
    for values in (found.counts, found.effective_counts, found.component_uncertainty, found.separation[2]):
        assert np.isnan(values[2])
    for name, column in expected.table.items():
        np.testing.assert_allclose(found.table[name], column, err_msg=name)


def test_the_table_has_a_row_for_every_component_that_is_there() -> None:
    mixture = jaxgmm.Mixture(
        np.array([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]]),
        np.array([[[0.0], [1.0], [9.0]]] * 2),
        np.ones((2, 3, 1)),
    )
    x = np.random.default_rng(22).normal(size=(2, 50, 1))
    found = jaxgmm.diagnose(mixture, x)
    table = pd.DataFrame(found.table)
    assert table["data_set"].tolist() == [0, 0, 0, 1]
    assert table["component"].tolist() == [0, 1, 2, 0]
    assert table["weight"].tolist() == [0.5, 0.3, 0.2, 1.0]
    assert table["nearest"].tolist() == [1, 0, 1, -1]
    # Gaussians of equal variance 1 at a distance δ: exp(-δ² / 8)
    np.testing.assert_allclose(table["overlap"], [np.exp(-1 / 8), np.exp(-1 / 8), np.exp(-8), 0], rtol=1e-12)
    np.testing.assert_array_equal(table["count"], [*found.counts[0], 50])
    np.testing.assert_array_equal(table["misfit"], found.misfit[[0, 0, 0, 1]])
    assert list(found.of(0).table) == list(found.table)
    np.testing.assert_array_equal(found.of(1).table["effective_count"], [50])


def test_a_data_set_without_samples_has_no_answer() -> None:
    found = jaxgmm.diagnose(random_mixture(23, 2, 1), [np.zeros((0, 1)), np.zeros((3, 1))])
    assert np.isnan(found.misfit).tolist() == [True, False]
    assert [len(u) for u in found.uncertainty] == [0, 3]


def test_far_from_the_origin_and_far_outside_keep_their_digits() -> None:
    mixture = random_mixture(24, 3, 2)
    x = np.random.default_rng(25).normal(size=(20, 2))
    shifted = jaxgmm.diagnose(replace(mixture, means=mixture.means + 1e6), x + 1e6)
    np.testing.assert_allclose(shifted.pit, jaxgmm.diagnose(mixture, x).pit, atol=1e-8)
    outlier = jaxgmm.diagnose(mixture, np.full((1, 2), 1e4))
    assert outlier.radius[0] == 1
    assert np.all(np.isfinite(outlier.misfits))


def test_misuse_is_refused_in_words() -> None:
    mixture, x = random_mixture(26, 2, 2), np.zeros((5, 2))
    with pytest.raises(ValueError, match=r"means \(K, 3\).* to match x; its shapes are \(2,\), \(2, 2\), \(2, 2, 2\)"):
        jaxgmm.diagnose(mixture, np.zeros((5, 3)))
    with pytest.raises(ValueError, match="to match x; its shapes"):
        jaxgmm.diagnose(stacked([mixture, mixture]), x)
    with pytest.raises(ValueError, match="or with the batch axis 3 before these"):
        jaxgmm.diagnose(stacked([mixture, mixture]), np.zeros((3, 5, 2)))
    with pytest.raises(ValueError, match="sample_weight must have shape"):
        jaxgmm.diagnose(mixture, x, np.ones(4))
    with pytest.raises(ValueError, match="of one data set"):
        jaxgmm.diagnose(mixture, x).of(0)
