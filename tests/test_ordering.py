"""Components in an order of their own, or in that of a reference."""

from itertools import permutations

import jax
import numpy as np
import pytest

import jaxgmm
from jaxgmm.record import field_names

RNG = np.random.default_rng(0)


def mixtures(*batch, n_components=3, n_features=2, diagonal=False):
    shape = (*batch, n_components, n_features)
    weights = RNG.dirichlet(np.ones(n_components), size=batch)
    variances = RNG.uniform(0.5, 2, size=shape)
    return jaxgmm.Mixture(
        weights, RNG.normal(size=shape), variances if diagonal else variances[..., None] * np.eye(n_features)
    )


def shuffled(mixture):
    """The same mixtures, each with components in an order of its own."""
    order = RNG.permuted(np.broadcast_to(np.arange(mixture.n_components), mixture.weights.shape), axis=-1)
    rows = np.arange(len(order))[:, None]
    return mixture.map(lambda leaf: leaf[rows, order])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_stay_of_their_kind(dtype):
    mixture = mixtures(4).map(lambda leaf: leaf.astype(dtype))
    with jax.enable_x64(True):
        of_jax = mixture.map(jax.numpy.asarray)
    for given, kind in ((mixture, np.ndarray), (of_jax, jax.Array)):
        aligned, ordered = jaxgmm.align_components(given, mixture.of(2)), jaxgmm.order_components(given)
        assert all(isinstance(leaf, kind) and leaf.dtype == dtype for own in (aligned, ordered) for leaf in own.arrays)
        assert_same(aligned, jaxgmm.align_components(mixture, mixture.of(2)))


def assert_same(a, b):
    for own, other in zip(a.arrays, b.arrays, strict=True):
        np.testing.assert_array_equal(own, other)


@pytest.mark.parametrize("diagonal", [False, True])
def test_components_are_sorted_whole(diagonal):
    mixture = mixtures(5, diagonal=diagonal)
    x = RNG.normal(size=(5, 7, 2))
    for by, keys in (
        ("mean", lambda m: m.means[..., 0]),
        (1, lambda m: m.means[..., 1]),
        ("weight", lambda m: -m.weights),
    ):
        ordered = jaxgmm.order_components(mixture, by)
        assert np.all(np.diff(keys(ordered), axis=-1) >= 0)
        np.testing.assert_allclose(jaxgmm.log_prob(ordered, x), jaxgmm.log_prob(mixture, x), rtol=1e-13)
        assert_same(jaxgmm.order_components(shuffled(mixture), by), ordered)


def test_absent_components_come_last_and_equal_ones_keep_their_order():
    mixture = jaxgmm.Mixture(
        np.array([0.25, 0, 0.5, 0.25]), np.array([[2.0], [0], [1], [2]]), np.array([[1.0], [1], [3], [4]])
    )
    ordered = jaxgmm.order_components(mixture)
    assert ordered.weights.tolist() == [0.5, 0.25, 0.25, 0]
    assert ordered.covariances[:, 0].tolist() == [3, 1, 4, 1]


def test_mixtures_without_an_answer_stay_so():
    mixture = mixtures(2)
    unknown = mixture.map(lambda leaf: np.where(np.arange(2).reshape(-1, *[1] * (leaf.ndim - 1)) == 0, np.nan, leaf))
    for ordered in (jaxgmm.order_components(unknown), jaxgmm.align_components(unknown, mixtures())):
        assert np.all(np.isnan(ordered.of(0).means))
        assert np.all(np.isfinite(ordered.of(1).means))


@pytest.mark.parametrize("by", ["size", 2, -1, True, 0.5, None])
def test_an_unknown_order_is_refused(by):
    with pytest.raises(ValueError, match="by must be 'mean', 'weight' or the number of one of 2 features"):
        jaxgmm.order_components(mixtures(), by)


@pytest.mark.parametrize("thing", [3, np.zeros((2, 2))])
def test_only_mixtures_and_results_have_components(thing):
    for put in (jaxgmm.order_components, lambda own: jaxgmm.align_components(own, mixtures())):
        with pytest.raises(ValueError, match=r"result must be a jaxgmm.Mixture, FitResult or Sweep; got"):
            put(thing)


def test_components_are_sorted_outside_of_programs():
    with pytest.raises(ValueError, match=r"sort them outside jax.jit, vmap and grad"):
        jax.jit(jaxgmm.order_components)(mixtures())


def test_unknown_components_come_before_absent_ones():
    mixture = jaxgmm.Mixture(np.array([np.nan, np.nan, 0.0]), np.array([[np.nan], [np.nan], [0]]), np.ones((3, 1)))
    np.testing.assert_array_equal(jaxgmm.order_components(mixture).weights, mixture.weights)


def distance(mixture, reference, places):
    """Squared distances of the means, in standard deviations of the reference, added up over its places."""
    deviations = np.sqrt(np.diagonal(reference.covariances, axis1=-2, axis2=-1))
    n = reference.n_components
    return sum(np.sum(((mixture.means[places[k]] - reference.means[k]) / deviations[k]) ** 2) for k in range(n))


@pytest.mark.parametrize(("n_components", "n_places"), [(3, 3), (4, 3), (5, 2)])
def test_no_other_match_is_closer(n_components, n_places):
    reference, mixture = mixtures(n_components=n_places), mixtures(20, n_components=n_components)
    aligned = jaxgmm.align_components(mixture, reference)
    for b in range(20):
        own = mixture.of(b)
        best = min(permutations(range(n_components), n_places), key=lambda places: distance(own, reference, places))
        np.testing.assert_array_equal(aligned.of(b).means[:n_places], own.means[list(best)])
        rest = sorted(set(range(n_components)) - set(best), key=lambda k: own.means[k, 0])
        np.testing.assert_array_equal(aligned.of(b).means[n_places:], own.means[rest])
        np.testing.assert_array_equal(np.sort(aligned.of(b).weights), np.sort(own.weights))


def test_absent_components_of_a_reference_may_hold_anything():
    means = np.array([[9.0], [np.nan], [0.0]])
    reference = jaxgmm.Mixture(np.array([0.5, 0, 0.5]), means, np.ones((3, 1)))
    mixture = jaxgmm.Mixture(np.array([0.3, 0.7]), np.array([[0.1], [8.0]]), np.ones((2, 1)))
    assert jaxgmm.align_components(mixture, reference).weights.tolist() == [0.7, 0, 0.3]


def test_places_without_a_match_are_absent():
    reference = jaxgmm.Mixture(np.full(3, 1 / 3), np.array([[0.0], [10], [20]]), np.ones((3, 1)))
    mixture = jaxgmm.Mixture(np.array([0.75, 0.25]), np.array([[21.0], [1]]), np.full((2, 1), 2.0))
    aligned = jaxgmm.align_components(mixture, reference)
    assert aligned.weights.tolist() == [0.25, 0, 0.75]
    assert aligned.means[:, 0].tolist() == [1, 0, 21]
    assert aligned.covariances[:, 0].tolist() == [2, 1, 2]


def test_a_reference_is_one_mixture_of_the_same_features():
    for reference in (mixtures(2), mixtures(n_features=3)):
        with pytest.raises(ValueError, match="reference must be one mixture of 2 features"):
            jaxgmm.align_components(mixtures(4), reference)


@pytest.mark.slow
def test_a_result_keeps_everything_else():
    x = np.stack([np.concatenate([RNG.normal(size=(60, 1)), 9 + RNG.normal(size=(40, 1))]), RNG.normal(size=(100, 1))])
    x[1, :30] -= 7
    result = jaxgmm.fit(x, 2, n_init=2, history=(0, 1))
    ordered = jaxgmm.order_components(result, "weight")
    assert np.all(np.diff(ordered.mixture.weights, axis=-1) <= 0)
    for name in set(field_names(result)) - {"mixture", "snapshots", "efficiency"}:
        np.testing.assert_array_equal(getattr(ordered, name), getattr(result, name))
    # A snapshot has the components in the order of the result, not in one of its own.
    for b in range(2):
        place = int(np.argmax(result.mixture.weights[b]))
        np.testing.assert_array_equal(ordered.snapshots.means[b, :, 0], result.snapshots.means[b, :, place])
    sweep = jaxgmm.sweep(x, range(1, 3), n_init=2)
    best = jaxgmm.order_components(sweep, "weight").best
    assert np.all(np.diff(best.mixture.weights, axis=-1) <= 0)
    aligned = jaxgmm.align_components(sweep, result.of(1)).best.mixture
    assert abs(aligned.means[1, 0, 0] - result.mixture.means[1, 0, 0]) < 0.1
