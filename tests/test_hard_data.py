"""Sentinels, bursts, peaks, values at a limit, lines, and small clusters of many features: what real tables hold.

Nearly all time goes into compilation, so tests share shapes where they can: nine data sets of one feature, or four of
two, 1000 samples each, and up to five components. That is much work for programs that are compiled at once.
"""

import numpy as np
import pytest

import jaxgmm
from jaxgmm.status import Status

pytestmark = pytest.mark.slow

N = 1000


def bursts() -> np.ndarray:
    """Four bursts of a minute over 300 days, in seconds since 1970."""
    rng = np.random.default_rng(1)
    return np.concatenate([1.7e9 + 86400.0 * day + 60 * rng.normal(size=N // 4) for day in (0, 100, 200, 300)])


def with_sentinel(value: float) -> np.ndarray:
    """Two clusters of standard deviation 0.5, three apart, and five equal values far away."""
    rng = np.random.default_rng(2)
    return np.concatenate([0.5 * rng.normal(size=500), 3 + 0.5 * rng.normal(size=495), np.full(5, value)])


def peaks() -> np.ndarray:
    """Four peaks of a mass spectrum."""
    rng = np.random.default_rng(4)
    return np.concatenate([m + 0.01 * rng.normal(size=N // 4) for m in (200.0, 455.3, 800.7, 1500.2)])


def at_a_limit(seed: int) -> np.ndarray:
    """Two clusters of a detector that counts from 0 to 4.5."""
    rng = np.random.default_rng(seed)
    return np.clip(np.concatenate([rng.normal(1, 0.5, 667), rng.normal(4, 0.6, 333)]), 0, 4.5)


ONE_FEATURE = {
    "bursts": bursts(),
    "peaks": peaks(),
    **{f"sentinel {value:g}": with_sentinel(value) for value in (-9999.0, 1e6, -1e20, 1e36)},
    **{f"limit {seed}": at_a_limit(seed) for seed in (0, 1, 2)},
}


KS = range(1, 6)


def stacked_with_ridge(reg_covar: float = 1e-12) -> jaxgmm.Sweep:
    return jaxgmm.sweep(np.stack(list(ONE_FEATURE.values()))[..., None], KS, reg_covar=reg_covar)


@pytest.fixture(scope="module")
def under_a_wider_ridge() -> jaxgmm.Sweep:
    return stacked_with_ridge(1e-6)


@pytest.fixture(scope="module")
def one_feature() -> dict[str, tuple[dict[str, np.ndarray], jaxgmm.Mixture]]:
    """For every data set the rows of its table, and the mixture chosen."""
    swept = stacked_with_ridge()
    rows = [
        {name: column[swept.table["data_set"] == b] for name, column in swept.table.items()}
        for b in range(len(ONE_FEATURE))
    ]
    mixtures = [swept.best.mixture.of(b) for b in range(len(ONE_FEATURE))]
    return dict(zip(ONE_FEATURE, zip(rows, mixtures, strict=True), strict=True))


def widths(mixture: jaxgmm.Mixture) -> np.ndarray:
    """Standard deviations of a mixture of one feature, by mean."""
    present = mixture.weights > 0
    order = np.argsort(mixture.means[present, 0])
    return np.sqrt(mixture.covariances[present, 0, 0])[order]


@pytest.mark.parametrize(("name", "expected"), [("bursts", 60.0), ("peaks", 0.01)])
def test_clusters_far_apart_keep_their_widths(one_feature, name: str, expected: float) -> None:
    rows, mixture = one_feature[name]
    assert rows["n_components"][rows["chosen"]].tolist() == [4]
    np.testing.assert_allclose(widths(mixture), expected, rtol=0.15)
    assert np.all(rows["spurious"][rows["n_components"] <= 4] == 0)


@pytest.mark.parametrize("name", [name for name in ONE_FEATURE if name.startswith("sentinel")])
def test_sentinels_widen_no_other_component(one_feature, name: str) -> None:
    rows, _ = one_feature[name]
    assert "DEGENERATE" not in rows["status"]
    assert rows["n_components"][rows["chosen"]][0] in (2, 3)
    flagged = rows["spurious"] + rows["passed_over"]
    assert flagged[rows["n_components"] == 3] > 0
    x = ONE_FEATURE[name][:, None]
    three = jaxgmm.fit(np.stack([x] * 4), 3, n_init=5)
    assert three.status.tolist() == [Status.CONVERGED] * 4
    assert three.spurious.tolist() == [1] * 4
    own = three.mixture.of(0)
    clusters = np.sort(widths(own))[1:]
    np.testing.assert_allclose(clusters, 0.5, rtol=0.1)
    log_density = jaxgmm.log_prob(own, x)
    np.testing.assert_allclose(three.log_likelihood[0], np.sum(log_density), rtol=1e-9)


@pytest.mark.parametrize("name", [name for name in ONE_FEATURE if name.startswith("limit")])
def test_values_at_a_limit_are_no_cluster(one_feature, name: str) -> None:
    rows, _ = one_feature[name]
    assert rows["n_components"][rows["chosen"]][0] in (2, 3)


@pytest.mark.parametrize("reg_covar", [1e-6, 1e-9])
def test_values_at_a_limit_are_no_cluster_under_a_wider_ridge(reg_covar: float, request: pytest.FixtureRequest) -> None:
    is_shared = reg_covar == 1e-6
    swept = request.getfixturevalue("under_a_wider_ridge") if is_shared else stacked_with_ridge(reg_covar)
    at_limits = [name.startswith("limit") for name in ONE_FEATURE]
    assert all(k in (2, 3) for k in swept.chosen["n_components"][at_limits])
    assert swept.chosen["data_set"].tolist() == list(range(len(ONE_FEATURE)))


def test_values_at_a_limit_are_no_cluster_in_float32() -> None:
    x = np.stack([at_a_limit(seed) for seed in range(4)])[..., None]
    chosen = jaxgmm.sweep(x, KS, n_init=3, precision="float32").chosen
    assert all(k in (2, 3) for k in chosen["n_components"])
    assert len(chosen["n_components"]) == len(x)


def test_components_narrower_than_the_ridge_are_counted(one_feature, under_a_wider_ridge: jaxgmm.Sweep) -> None:
    swept = under_a_wider_ridge
    for name in ("bursts", "peaks"):
        rows, _ = one_feature[name]
        assert rows["ridge_dominated"][rows["n_components"] == 4].tolist() == [0]
        wide = swept.best.of(list(ONE_FEATURE).index(name))
        assert np.count_nonzero(wide.mixture.weights) == 4
        assert wide.ridge_dominated == 4
        # Their values differ, so they are clusters all the same.
        assert wide.spurious == 0
        np.testing.assert_allclose(widths(wide.mixture), np.sqrt(wide.ridge[0]), rtol=0.01)


def two_features(kind: str) -> np.ndarray:
    rng = np.random.default_rng(3)
    if kind == "rounded":
        return rng.normal(size=(N, 2)).round()
    if kind == "sentinels":
        x = np.concatenate([0.5 * rng.normal(size=(500, 2)), 3 + 0.5 * rng.normal(size=(500, 2))])
        x[:5] = -9999
        return x
    width = {"thin line": 1e-4, "line": 0.0}[kind]
    t = rng.normal(size=200)
    line = np.stack([4 + t, 4 + 0.5 * t + width * rng.normal(size=200)], axis=1)
    return np.concatenate([rng.normal(size=(400, 2)), np.array([-5, 4]) + rng.normal(size=(400, 2)), line])


def test_lines_are_clusters_and_grids_are_not() -> None:
    expected = {"thin line": {3}, "line": {3}, "rounded": {1}, "sentinels": {2, 3}}
    chosen = jaxgmm.sweep(np.stack([two_features(kind) for kind in expected]), KS).chosen
    for (kind, ks), k in zip(expected.items(), chosen["n_components"], strict=True):
        assert k in ks, kind


@pytest.mark.parametrize("family", ["tied", "diag", "spherical"])
def test_small_clusters_of_many_features_are_found(family: str) -> None:
    """Eight samples in ten dimensions: too few for a covariance of their own, which these families do not ask for."""
    x = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        x.append(np.concatenate([rng.normal(size=(8, 10)) + centre for centre in 4 * rng.normal(size=(5, 10))]))
    swept = jaxgmm.sweep(np.stack(x), range(1, 8), covariance_type=family)
    assert np.count_nonzero(swept.chosen["n_components"] == 5) >= 5
    assert not np.any(swept.chosen["spurious"])


def test_tied_clusters_of_few_samples_for_each_feature_are_found() -> None:
    """Four samples for each feature: distances to seeds are mostly noise."""
    rng, labels = np.random.default_rng(21), np.repeat([0, 1], [90, 6])
    x = np.stack([1.5 * rng.normal(size=(2, 24))[labels] + rng.normal(size=(96, 24)) for _ in range(24)])
    found = jaxgmm.fit(x, 2, covariance_type="tied").log_likelihood
    true = jaxgmm.fit(x, 2, covariance_type="tied", init=np.tile(labels, (24, 1))).log_likelihood
    assert np.count_nonzero(found < true - 1) <= 1


def test_weights_elsewhere_make_no_cluster_smaller() -> None:
    """However much lighter than the other, a cluster of 500 samples still has 500."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(500, 2)), rng.normal(size=(500, 2)) + 8])
    lighter = np.array([1.0, 1e-3, 1e-12])
    weights = np.repeat(np.stack([lighter, np.ones(3)], axis=1), 500, axis=1)
    result = jaxgmm.fit(np.stack([x] * 3), 2, sample_weight=weights, init=np.repeat([0, 1], 500))
    np.testing.assert_allclose(result.mixture.weights.min(axis=1), lighter / (1 + lighter), rtol=1e-2)
    assert result.spurious.tolist() == [0, 0, 0]
    # Whatever the weights of the others.
    for own, given in zip(result.log_likelihood, weights, strict=True):
        alike = jaxgmm.fit(np.stack([x] * 3), 2, sample_weight=np.stack([given] * 3), init=np.repeat([0, 1], 500))
        np.testing.assert_allclose(alike.log_likelihood, own, rtol=1e-9)
        assert alike.spurious.tolist() == [0, 0, 0]


def test_a_small_spherical_cluster_is_not_passed_over() -> None:
    rng = np.random.default_rng(0)
    centres = 2 * rng.normal(size=(3, 10))
    x = np.concatenate([rng.normal(size=(n, 10)) + c for n, c in zip((100, 100, 9), centres, strict=True)])
    result = jaxgmm.fit(x, 3, covariance_type="spherical")
    assert result.log_likelihood > -3129
    assert not result.start_passed_over


def test_a_likelier_start_that_was_passed_over_is_told_and_can_be_had() -> None:
    # Three samples are so close together that a component of their own is spurious, and likely.
    rng = np.random.default_rng(0)
    clusters = rng.normal(size=(40, 2)) + 6.0 * (np.arange(40) % 2)[:, None]
    x = np.concatenate([clusters, [[3.0, 9.0], [3.0, 9.00001], [3.00001, 9.0]]])
    passed = jaxgmm.fit(x, 3, n_init=30)
    taken = jaxgmm.fit(x, 3, n_init=30, avoid_spurious=False)
    assert (passed.spurious, taken.spurious) == (0, 1)
    assert (passed.start_passed_over, taken.start_passed_over) == (True, False)
    assert taken.log_likelihood > passed.log_likelihood + 1
    np.testing.assert_allclose(taken.log_likelihood, np.max(taken.start_log_likelihood), rtol=1e-6)


@pytest.mark.usefixtures("float32_searches")
def test_starts_are_compared_without_the_ridge_of_the_search() -> None:
    """A component a thousandth as wide as the data, at their mean: float32 represents it, its ridge widens it."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(9, 500)), 1e-3 * rng.normal(size=(9, 500))], axis=1)[..., None]
    tables = (jaxgmm.sweep(x, KS, precision=precision).table for precision in ("mixed", "float64"))
    mixed, double = (table["n_agreeing"][table["n_components"] == 2] for table in tables)
    np.testing.assert_array_equal(mixed, double)
    assert np.median(double) > 1


@pytest.mark.parametrize("family", ["full", "diag"])
def test_sentinels_in_one_column_leave_clusters_their_widths(family: str) -> None:
    # One start of ten merges them with a cluster. It has no spurious component, and is thousands of nats worse.
    rows = []
    for seed in (0, 7, 0, 7):
        rng = np.random.default_rng(seed)
        x = np.concatenate([rng.normal(0, 0.5, (500, 2)), rng.normal(3, 0.5, (500, 2))])
        x[rng.choice(N, 20, replace=False), 0] = -9999
        rows.append(x)
    swept = jaxgmm.sweep(np.stack(rows), KS, covariance_type=family)
    assert swept.chosen["n_components"].tolist() == [3] * 4
    assert swept.best.spurious.tolist() == [1] * 4
    covariances = swept.best.mixture.covariances
    variances = covariances if covariances.ndim == 3 else np.diagonal(covariances, axis1=-2, axis2=-1)
    is_cluster = swept.best.mixture.weights > 0.1
    assert np.sum(is_cluster, axis=1).tolist() == [2] * 4
    np.testing.assert_allclose(np.sqrt(variances[is_cluster]), 0.5, rtol=0.1)


def with_equal_values(seed: int, value: float, n_equal: int) -> np.ndarray:
    """Two clusters six apart, and equal values."""
    rng = np.random.default_rng(seed)
    x = 6 * rng.integers(2, size=N) + rng.normal(size=N)
    x[:n_equal] = value
    return x


def heaps(value: float, n_equal: int) -> np.ndarray:
    return np.stack([with_equal_values(seed, value, n_equal) for seed in range(len(ONE_FEATURE))])[..., None]


@pytest.mark.parametrize("ridge", [0.0, 1e-26])
def test_equal_values_are_spurious_without_a_ridge_too(ridge: float) -> None:
    swept = jaxgmm.sweep(heaps(20.0, 30), KS, reg_covar=ridge, max_iter=100)
    # Where nothing is added, most runs that shrink onto the heap are degenerate, and any of the others may win.
    assert all(k in (3, 4) for k in swept.chosen["n_components"])
    assert swept.best.spurious.tolist() == [1] * len(ONE_FEATURE)


def test_a_ridge_at_which_some_k_are_degenerate_decides_nothing() -> None:
    x = np.concatenate([heaps(20.0, 30)[:4], heaps(-9999.0, 20)[:5]])
    swept = jaxgmm.sweep(x, KS, reg_covar=(0.0, 1e-12), max_iter=100)
    assert all(k in (3, 4) for k in swept.chosen["n_components"][:4])
    assert swept.best.spurious.tolist() == [1] * len(x)
    # Three components are degenerate without a ridge, and chosen at the next.
    status = swept.table["status"].reshape(len(x), len(KS), 2)[4:]
    assert np.all(status[:, 0, 0] == "CONVERGED")
    assert np.all(status[:, 2, 0] == "DEGENERATE")
    assert swept.chosen["n_components"][4:].tolist() == [3] * 5


@pytest.mark.parametrize("sentinel", [-9999.0, 1e9, 1e12, 9.969209968386869e36, -3.4028234663852886e38])
def test_the_log_likelihood_is_that_of_the_mixture_however_far_a_sentinel_is(sentinel: float) -> None:
    x = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        own = 5 * rng.integers(2, size=1000) + rng.normal(size=1000)
        own[:30] = sentinel
        x.append(own[:, None])
    found = jaxgmm.fit(np.stack(x), 3, n_init=5)
    assert not np.any(found.status)
    expected = np.sum(jaxgmm.log_prob(found.mixture, np.stack(x)), axis=1)
    np.testing.assert_allclose(found.log_likelihood, expected, rtol=1e-9)
