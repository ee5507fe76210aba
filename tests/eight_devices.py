"""Fits of samples that are divided over eight devices; `test_sharded.py` runs these tests where there are as many."""

import jax
import numpy as np
import pytest
import reference
from same_fits import assert_same_fit

import jaxgmm
from jaxgmm import Status
from jaxgmm.driver import shards as programs
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.engine.shards import _of_first, agreed, placed, shards_of

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")

K = 3
RNG = np.random.default_rng(0)
# 3,001 samples cannot be divided evenly.
DRAWN = RNG.integers(0, K, 3001)
X = np.array([[-3.0, 0.0], [0.0, 3.0], [3.0, -1.0]])[DRAWN] + RNG.normal(size=(3001, 2))
WEIGHTS = RNG.integers(0, 3, len(X)).astype(float)
# Most of them are those that the samples were drawn with.
LABELS = np.where(RNG.random(len(X)) < 0.3, 0, DRAWN)


def of_large() -> tuple[np.ndarray, jaxgmm.Mixture]:
    """Samples of eight components, and a start that is far from them."""
    rng = np.random.default_rng(1)
    means = rng.normal(0, 3, size=(8, 4))
    x = means[rng.integers(0, 8, 200_000)] + rng.normal(size=(200_000, 4))
    return x, jaxgmm.Mixture(np.full(8, 1 / 8), x[:8], np.tile(4 * np.eye(4), (8, 1, 1)))


def test_many_samples_have_the_answer_of_one_device() -> None:
    x, start = of_large()
    options = {"init": start, "tol": 0, "max_iter": 10, "history": (0, 10)}
    one, many = jaxgmm.fit(x, 8, **options), jaxgmm.fit(x, 8, devices=8, **options)
    np.testing.assert_allclose(many.history, one.history, rtol=1e-12)
    assert_same_fit(many, one, rtol=1e-10)


@pytest.mark.slow
def test_all_starts_are_made_on_a_sample_and_the_best_one_ends_at_an_optimum_of_all_samples() -> None:
    x = np.tile(X, (30, 1)) + 0.1 * RNG.normal(size=(30 * len(X), 2))
    found = jaxgmm.fit(x, K, n_init=3, devices=8)
    assert found.status == Status.CONVERGED
    assert found.start_status.shape == (3,)
    assert np.max(found.start_log_likelihood) == found.log_likelihood
    again = jaxgmm.fit(x, K, init=found, precision="float64")
    assert abs(again.log_likelihood - found.log_likelihood) < 1e-8 * len(x)
    total = reference.e_step(x, found.mixture.arrays, np.ones(len(x)))[1]
    np.testing.assert_allclose(found.log_likelihood, total, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighted"])
@pytest.mark.parametrize("family", FAMILIES)
def test_families(family: str, weights: np.ndarray | None) -> None:
    options = {"covariance_type": family, "init": LABELS, "sample_weight": weights, "history": (0, 3)}
    assert_same_fit(jaxgmm.fit(X, K, devices=8, **options), jaxgmm.fit(X, K, precision="float64", **options))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["squarem", "em", "lbfgs"])
def test_methods(method: str) -> None:
    options = {"method": method, "init": LABELS, "max_iter": 30}
    assert_same_fit(jaxgmm.fit(X, K, devices=8, **options), jaxgmm.fit(X, K, precision="float64", **options))


@pytest.mark.slow
def test_responsibilities_are_divided_with_the_samples() -> None:
    options = {"init": RNG.dirichlet(np.ones(K), len(X))}
    assert_same_fit(jaxgmm.fit(X, K, devices=8, **options), jaxgmm.fit(X, K, precision="float64", **options))


@pytest.mark.slow
def test_float32_is_float32() -> None:
    options = {"init": LABELS, "precision": "float32", "max_iter": 5}
    one, many = jaxgmm.fit(X, K, **options), jaxgmm.fit(X, K, devices=8, **options)
    np.testing.assert_allclose(many.ridge, one.ridge)
    np.testing.assert_allclose(many.log_likelihood, one.log_likelihood, rtol=1e-5)


@pytest.mark.slow
def test_few_samples_are_all_in_the_sample() -> None:
    one, many = jaxgmm.fit(X, K, n_init=3, precision="float64"), jaxgmm.fit(X, K, n_init=3, devices=8)
    np.testing.assert_allclose(many.log_likelihood, one.log_likelihood, rtol=1e-8)
    np.testing.assert_allclose(many.start_log_likelihood, one.start_log_likelihood, rtol=1e-6)


@pytest.mark.slow
def test_what_is_wrong_on_one_device_is_known_on_all() -> None:
    bad = X.copy()
    bad[1500, 1] = np.nan
    found = jaxgmm.fit(bad, K, n_init=3, devices=8)
    assert found.status == Status.NONFINITE
    assert np.all(np.isnan(found.mixture.means))
    assert np.all(found.start_status == Status.NONFINITE)
    assert jaxgmm.fit(bad, K, init=LABELS, devices=8).status == Status.NONFINITE
    without = np.arange(len(X)) != 1500
    cut = jaxgmm.fit(X[without], K, init=LABELS[without], precision="float64")
    options = {"init": LABELS, "sample_weight": without.astype(float), "devices": 8}
    assert_same_fit(jaxgmm.fit(bad, K, **options), cut)
    assert jaxgmm.fit(X[:2], K, n_init=3, devices=8).status == Status.TOO_FEW_SAMPLES
    assert jaxgmm.fit(np.ones((100, 2)), K, n_init=3, devices=8).status == Status.DEGENERATE


@pytest.mark.slow
def test_equal_values_and_narrow_components_are_found_as_on_one_device() -> None:
    awkward, labels = X.copy(), np.where(X[:, 0] > 0, 0, 2)
    awkward[:200], labels[:200] = 5.0, 1
    one = jaxgmm.fit(awkward, K, init=labels, precision="float64")
    many = jaxgmm.fit(awkward, K, init=labels, devices=8)
    assert (many.spurious, many.ridge_dominated) == (one.spurious, one.ridge_dominated) == (1, 1)
    # The way back to data units rounds; a component is a billion times as wide as that.
    np.testing.assert_allclose(many.mixture.means[1], 5, rtol=1e-15)
    # Raw moments cancel where a component is this narrow.
    awkward[:200] = 5 + 1e-5 * RNG.normal(size=(200, 2))
    options = {"init": labels, "reg_covar": 0.0}
    one, many = jaxgmm.fit(awkward, K, precision="float64", **options), jaxgmm.fit(awkward, K, devices=8, **options)
    assert (many.status, many.spurious, many.n_iter) == (one.status, one.spurious, one.n_iter) == (0, 0, one.n_iter)
    np.testing.assert_allclose(many.mixture.covariances, one.mixture.covariances, rtol=1e-5, atol=1e-16)


@pytest.mark.slow
def test_arrays_that_are_divided_already_are_used_where_they_are() -> None:
    x, weights, labels = X[:3000], WEIGHTS[:3000], LABELS[:3000]
    expected = jaxgmm.fit(x, K, init=labels, sample_weight=weights, precision="float64")
    mesh = jax.make_mesh((4, 2), ("rows", "others"))
    with jax.enable_x64(True):
        for axes in ("rows", ("rows", "others")):
            own = jax.device_put(x, jax.NamedSharding(mesh, jax.P(axes)))
            assert_same_fit(jaxgmm.fit(own, K, init=labels, sample_weight=weights), expected)
        everywhere = jax.device_put(x, jax.NamedSharding(mesh, jax.P()))
    # Copies of all samples are no division of them.
    assert shards_of(everywhere, None, None) is None
    with pytest.raises(ValueError, match="along its samples only"):
        jaxgmm.fit(jax.device_put(x, jax.NamedSharding(mesh, jax.P("rows", "others"))), K)
    with pytest.raises(ValueError, match="divided over devices already"):
        jaxgmm.fit(jax.device_put(x, jax.NamedSharding(mesh, jax.P("rows"))), K, devices=8)


@pytest.mark.parametrize("n_samples", [31, 64])
def test_questions_are_answered_wherever_samples_are(n_samples: int) -> None:
    """With padding and without; programs are compiled for the default device."""
    x, mixture = np.float32(X[:n_samples]), jaxgmm.fit(X, K, init=LABELS).mixture.map(np.float32)
    expected = jaxgmm.log_prob(mixture, jax.device_put(x))
    mesh = jax.make_mesh((8,), ("rows",))
    for place in (jax.devices()[5], jax.NamedSharding(mesh, jax.P("rows" if n_samples % 8 == 0 else None))):
        own = jax.device_put(x, place)
        np.testing.assert_array_equal(jaxgmm.log_prob(mixture, own), expected)
        there = mixture.map(lambda leaf: jax.device_put(leaf, jax.devices()[5]))
        np.testing.assert_array_equal(jaxgmm.log_prob(there, own), expected)
    with jax.default_device(jax.devices()[5]):
        found = jaxgmm.log_prob(mixture.map(lambda leaf: leaf + 0), jax.device_put(x))
    np.testing.assert_array_equal(found, expected)


def test_the_nearest_value_is_that_of_any_row_of_positive_weight() -> None:
    x, weights = np.float32(X), np.ones(len(X))
    x[2999], x[7], weights[7] = [1e6, 5.0], [1e6 + 1, 5.0], 0
    shards = shards_of(x, weights, 8)
    assert shards is not None
    with jax.enable_x64(True):
        assert programs.nearest_value(shards, 0, 1e6 + 2.0) == 1e6
        others = np.delete(x[:, 1], 7).astype(float)
        assert programs.nearest_value(shards, 1, 0.1) == others[np.argmin(np.abs(others - 0.1))]


def test_a_sample_stands_for_all_rows() -> None:
    rows = np.arange(80_000.0)[:, None]
    shards = shards_of(rows, None, 8)
    assert shards is not None
    with jax.enable_x64(True):
        x, weights = programs.sample_of(shards, np.int64(0), 800)
        assert weights is None
        assert len(np.unique(x)) > 790
        np.testing.assert_allclose(np.quantile(x, [0.1, 0.5, 0.9]), [8000, 40_000, 72_000], atol=300)
        # One device has all the weight: its rows stand for more.
        shards = shards_of(rows, np.where(np.arange(80_000) < 10_500, 2.0, 0.0), 8)
        assert shards is not None
        x, weights = programs.sample_of(shards, np.int64(0), 800)
        assert weights is not None
        np.testing.assert_allclose(np.sum(weights), 2 * 10_500)
        assert np.max(x) < 10_500


def test_devices_agree_on_what_the_first_host_says() -> None:
    shards = shards_of(X, None, 8)
    assert shards is not None
    with jax.enable_x64(True):
        np.testing.assert_array_equal(agreed(X[:3], shards.mesh), X[:3])
        # As if every device belonged to another host, of which one has gone astray.
        said = np.array([[1.5], [np.nan], *[[2.0]] * 6])
        np.testing.assert_array_equal(_of_first(placed(said, shards.mesh), mesh=shards.mesh), [1.5])
