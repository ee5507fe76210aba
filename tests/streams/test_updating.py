"""Groups whose samples arrive in batches: no old one is read, and groups do not depend on each other."""

import numpy as np
import pytest
from same_streams import assert_same

import jaxgmm
from jaxgmm import Status, storage
from jaxgmm.em.covariance import FAMILIES

RNG = np.random.default_rng(0)
# Three groups of two clusters, far from the origin and in different units.
SIDE = np.where(RNG.random((3, 400, 1)) < 0.3, -3.0, 3.0)
X = (RNG.normal(size=(3, 400, 2)) + SIDE) * [1.0, 100.0] + [1e4, 0.0]
OPTIONS = {"n_init": 2, "precision": "float64"}


@pytest.fixture(scope="module")
def stream():
    return jaxgmm.start_stream(X[:, :100], 2, **OPTIONS)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_one_component_has_the_moments_of_all_samples(family):
    begun = jaxgmm.start_stream(X[:, :100], 1, covariance_type=family, **OPTIONS)
    found = jaxgmm.update(jaxgmm.update(begun, X[:, 100:250]), X[:, 250:])
    np.testing.assert_allclose(found.mixture.means[:, 0], X.mean(axis=1), rtol=1e-9)
    variances = X.var(axis=1)
    expected = {
        "diag": variances,
        "spherical": np.broadcast_to(variances.mean(axis=1, keepdims=True), variances.shape),
    }.get(family, np.stack([np.cov(x.T, bias=True) for x in X]))
    np.testing.assert_allclose(found.mixture.covariances[:, 0], expected, rtol=1e-6)
    assert found.covariance_type == family
    assert found.n_samples.tolist() == found.n_rows.tolist() == [400] * 3
    assert found.n_batches.tolist() == [3] * 3


@pytest.mark.slow
def test_it_comes_near_to_the_fit_of_all_samples(stream):
    found = stream
    for first in range(100, 400, 100):
        found = jaxgmm.update(found, X[:, first : first + 100])
    optimum = jaxgmm.fit(X, 2, **OPTIONS)
    reached = jaxgmm.log_prob(found.mixture, X).mean(axis=1)
    assert np.all(optimum.log_likelihood / 400 - reached < 1e-3)
    np.testing.assert_allclose(found.counts, found.mixture.weights, atol=1e-12)


def test_log_likelihoods_are_those_before_each_batch(stream):
    found = jaxgmm.update(stream, X[:, 100:200])
    expected = jaxgmm.log_prob(stream.mixture, X[:, 100:200]).sum(axis=1)
    np.testing.assert_allclose(found.log_likelihood - stream.log_likelihood, expected, rtol=1e-9)


def test_groups_without_new_samples_are_unchanged_to_the_bit(stream):
    assert_same(jaxgmm.update(stream, [np.empty((0, 2))] * 3), stream)
    assert_same(jaxgmm.update(stream, [[], [], []]), stream)
    found = jaxgmm.update(stream, [np.empty((0, 2)), X[1, 100:200], []])
    assert_same(found.of([0, 2]), stream.of([0, 2]))
    assert found.n_rows.tolist() == [100, 200, 100]


def test_a_group_has_the_answer_that_it_has_alone(stream):
    together = jaxgmm.update(stream, X[:, 100:200])
    alone = jaxgmm.update(stream.of(1), X[1, 100:200])
    np.testing.assert_allclose(alone.mixture.means, together.mixture.means[1], rtol=1e-12)
    assert alone.mixture.weights.shape == (2,)


def test_weight_2_is_a_sample_twice_and_weight_0_none(stream):
    new = X[:, 100:150]
    twice = jaxgmm.update(stream, np.concatenate([new, new], axis=1))
    doubled = jaxgmm.update(stream, new, np.full((3, 50), 2.0))
    np.testing.assert_allclose(doubled.mixture.means, twice.mixture.means, rtol=1e-12)
    assert doubled.n_samples.tolist() == [200.0] * 3
    assert doubled.n_rows.tolist() == [150] * 3
    assert_same(jaxgmm.update(stream, new, np.zeros((3, 50))), stream, but=["n_rows"])
    # A sample of weight 0 may hold anything.
    nothing = np.full((3, 1, 2), np.nan)
    kept = jaxgmm.update(stream, np.concatenate([new, nothing], axis=1), np.r_[np.ones(50), 0.0])
    np.testing.assert_allclose(kept.mixture.means, jaxgmm.update(stream, new).mixture.means, rtol=1e-12)


def test_bad_samples_are_left_out_and_counted(stream):
    new = X[:, 100:150].copy()
    new[1, 7, 0] = np.nan
    found = jaxgmm.update(stream, new)
    assert found.status.tolist() == [stream.status[0], Status.NONFINITE, stream.status[2]]
    assert found.n_refused.tolist() == [0, 50, 0]
    assert_same(found.of(1), stream.of(1), but=("status", "n_refused"))
    assert_same(found.of([0, 2]), jaxgmm.update(stream, X[:, 100:150]).of([0, 2]))


def test_a_group_that_could_not_be_fitted_has_no_answer_later():
    begun = jaxgmm.start_stream([X[0, :100], X[1, :1]], 2, **OPTIONS)
    assert begun.status[1] == Status.TOO_FEW_SAMPLES
    found = jaxgmm.update(begun, X[:2, 100:150])
    assert found.status[1] == Status.TOO_FEW_SAMPLES
    assert found.n_refused.tolist() == [0, 51]
    assert np.all(np.isnan(found.mixture.weights[1]))


def test_an_exponent_below_1_forgets(stream):
    moved = X[:, 100:] + [2.0, 200.0]
    forgetting = jaxgmm.start_stream(X[:, :100], 2, exponent=0.6, **OPTIONS)
    means = [jaxgmm.update(begun, moved).mixture.means for begun in (stream, forgetting)]
    late = jaxgmm.fit(moved, 2, init=stream.mixture, precision="float64").mixture.means
    gaps = [np.abs(own - late).sum() for own in means]
    assert gaps[1] < gaps[0]


def test_files_give_streams_back(tmp_path, stream):
    found = jaxgmm.update(stream, X[:, 100:150])
    storage.save(tmp_path / "stream.safetensors", found)
    read = storage.load(tmp_path / "stream.safetensors")
    assert_same(read, found)
    assert_same(jaxgmm.update(read, X[:, 150:200]), jaxgmm.update(found, X[:, 150:200]))
    assert repr(read) == repr(found)
    assert "Stream: 3 data sets" in repr(found)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (X[:2, :9], "more must be (3, N, 2)"),
        (X[0, :9], "more must be (3, N, 2)"),
        (X[:, :9, :1], "more must be (3, N, 2)"),
    ],
)
def test_other_shapes_are_refused(stream, more, said):
    with pytest.raises(ValueError, match=said.replace("(", r"\(").replace(")", r"\)")):
        jaxgmm.update(stream, more)


def test_other_things_are_refused(stream):
    with pytest.raises(ValueError, match=r"stream must be a jaxgmm\.Stream"):
        jaxgmm.update(stream.mixture, X)
    with pytest.raises(ValueError, match=r"exponent must be a number above 0\.5"):
        jaxgmm.start_stream(X, 2, exponent=0.5)
    with pytest.raises(ValueError, match="sample_weight must not be negative"):
        jaxgmm.update(stream, X[:, :2], np.full((3, 2), -1.0))
