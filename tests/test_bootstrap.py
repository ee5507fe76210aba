"""bootstrap(): replicates as weights and as samples, matched to the fit."""

from dataclasses import replace

import jax
import numpy as np
import pytest
import reference
from compilation import slow

import jaxgmm
from jaxgmm import Status, resampling
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.engine.batch import batch
from jaxgmm.ordering import matched
from jaxgmm.resampling import KINDS

# Replicates are weights, or samples.
WEIGHTS_AND_SAMPLES = ["weighted", slow("parametric"), slow("nonparametric")]

# Tests share programs, which are compiled for so many.
N_REPLICATES = 50


def two_clusters(seed: int = 0, n_samples: int = 300) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_samples, 2)) + 6 * (np.arange(n_samples) % 3 == 0)[:, None]


def mixture_of(x: np.ndarray, family: str = "full") -> jaxgmm.Mixture:
    """What is fitted to two clusters, to a few digits."""
    memberships = np.eye(2)[(np.arange(len(x)) % 3 == 0).astype(int)]
    mixture = reference.m_step(x, memberships, family, np.ones(len(x)), 0.0)
    diagonal = FAMILIES[family].diagonal
    covariances = np.diagonal(mixture.covariances, axis1=1, axis2=2) if diagonal else mixture.covariances
    return jaxgmm.Mixture(mixture.weights, mixture.means, covariances)


@pytest.mark.parametrize("kind", WEIGHTS_AND_SAMPLES)
def test_spread_of_a_mean_is_its_standard_error(kind: str) -> None:
    # One component: the mean of N samples has standard error σ / √N, and a variance σ² √(2 / N).
    x = 3 * np.random.default_rng(0).normal(size=(500, 1))
    fitted = jaxgmm.fit(x, 1)
    replicates = jaxgmm.bootstrap(fitted.mixture, x, 800, kind=kind)
    assert replicates.mixture.means.shape == (800, 1, 1)
    assert np.all(replicates.status == Status.CONVERGED)
    sigma = x.std()
    assert replicates.mixture.means.std() == pytest.approx(sigma / np.sqrt(500), rel=0.15)
    assert replicates.mixture.covariances.std() == pytest.approx(sigma**2 * np.sqrt(2 / 500), rel=0.25)
    assert replicates.mixture.means.mean() == pytest.approx(fitted.mixture.means[0, 0], abs=0.03)


# Families and kinds have nothing to do with each other, so not all pairs are tried.
@pytest.mark.parametrize(
    ("family", "kind"),
    [
        *(("full", kind) for kind in KINDS),
        slow("tied", "weighted"),
        slow("diag", "parametric"),
        slow("spherical", "nonparametric"),
    ],
)
def test_components_keep_their_order(family: str, kind: str) -> None:
    x = two_clusters()
    for order in ([0, 1], [1, 0]):
        own = mixture_of(x, family).components(order)
        replicates = jaxgmm.bootstrap(own, x, N_REPLICATES, kind=kind)
        np.testing.assert_allclose(np.median(replicates.mixture.means, axis=0), own.means, atol=0.2)
        low, high = replicates.percentiles((2.5, 97.5))
        assert np.all(low.means < high.means)
        assert low.means.shape == own.means.shape


@pytest.mark.parametrize("kind", WEIGHTS_AND_SAMPLES)
def test_a_data_set_has_the_same_replicates_alone_and_in_a_batch(kind: str) -> None:
    x = [two_clusters(0), two_clusters(1, 295), two_clusters(2)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *map(mixture_of, x))
    together = jaxgmm.bootstrap(stacked, x, N_REPLICATES, kind=kind)
    alone = jaxgmm.bootstrap(mixture_of(x[1]), x[1], N_REPLICATES, kind=kind)
    np.testing.assert_allclose(together.mixture.means[1], alone.mixture.means, atol=1e-3)
    np.testing.assert_allclose(together.log_likelihood[1], alone.log_likelihood, rtol=1e-6)


@pytest.mark.parametrize("parts", [1, 2])
def test_samples_drawn_in_parts_are_those_drawn_at_once(parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of one data set's replicates, and whole data sets."""
    x = [two_clusters(0), two_clusters(1, 295)]
    fitted, key = jax.tree.map(lambda *leaves: np.stack(leaves), *map(mixture_of, x)), jax.random.key(0)
    (whole,) = resampling.simulated(fitted, batch(x), N_REPLICATES, key)
    monkeypatch.setattr(resampling, "_MOST_DRAWN", N_REPLICATES * 300 * 2 // parts)
    found = list(resampling.simulated(fitted, batch(x), N_REPLICATES, key))
    assert len(found) == 2 * parts
    for b in range(2):
        own = [some for some in found if some.data_sets == slice(b, b + 1)]
        drawn = np.concatenate([some.data.samples for some in own])
        expected = whole.data.samples.reshape(2, -1, x[0].shape[1])[b]
        np.testing.assert_allclose(drawn, expected, rtol=1e-12)
        assert np.concatenate([some.data.lengths for some in own]).tolist() == [len(x[b])] * N_REPLICATES
        assert sum(len(some.each_of(fitted).weights) for some in own) == N_REPLICATES


def test_a_nonparametric_replicate_is_a_fit_to_samples_drawn_again() -> None:
    x = two_clusters()
    weights = np.random.default_rng(0).integers(0, 3, len(x)).astype(float)
    weighted, plain = (
        jaxgmm.bootstrap(mixture_of(x), x, N_REPLICATES, kind="nonparametric", sample_weight=given)
        for given in (weights, None)
    )
    # Samples without weight are never drawn: the total weight is about that of the data.
    assert np.all(np.isfinite(weighted.log_likelihood))
    assert not np.allclose(plain.log_likelihood, weighted.log_likelihood)


def test_absent_components_stay_absent_in_their_place() -> None:
    # Room for three components, as `best` of a sweep has it, in an order that a user may have asked for.
    x = two_clusters()
    absent = jaxgmm.Mixture(0.0, np.zeros(2), np.eye(2))
    mixture = mixture_of(x).map(lambda leaf, nothing: np.insert(leaf, 1, nothing, axis=0), absent)
    found, expected = (jaxgmm.bootstrap(own, x, N_REPLICATES).mixture for own in (mixture, mixture_of(x)))
    np.testing.assert_array_equal(found.means[:, [0, 2]], expected.means)
    assert np.all(found.weights[:, 1] == 0)
    assert np.all(found.weights[:, [0, 2]] > 0)


def test_each_data_set_has_replicates_of_the_family_that_was_chosen_for_it() -> None:
    """A choice among families holds matrices for all of them."""
    x = [two_clusters(0), two_clusters(0) @ np.array([[1, 0.9], [0, 0.4]]), two_clusters(2)]
    families = ("full", "spherical")
    swept = jaxgmm.sweep(x, 2, covariance_type=families, n_init=3)
    assert swept.chosen["covariance_type"].tolist() == ["spherical", "full", "spherical"]
    found = jaxgmm.bootstrap(swept.best, x, N_REPLICATES)
    are_round = np.all(
        found.mixture.covariances == found.mixture.covariances[..., :1, :1] * np.eye(2), axis=(1, 2, 3, 4)
    )
    assert are_round.tolist() == [True, False, True]
    alone = jaxgmm.bootstrap(jaxgmm.fit(x[2], 2, covariance_type="spherical", n_init=3), x[2], N_REPLICATES)
    own = matched(found.mixture.of(2), alone.mixture.of(np.zeros(N_REPLICATES, int)))
    np.testing.assert_allclose(own.means, alone.mixture.means, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_data_sets_of_any_outcome_have_replicates_beside_each_other(kind: str) -> None:
    x = two_clusters()
    bad = np.where(np.arange(300)[:, None] == 7, np.nan, x)
    swept = jaxgmm.sweep([bad, x, x[1::3], x], [1, 2], n_init=1).best
    assert np.sum(swept.mixture.weights > 0, axis=1).tolist() == [0, 2, 1, 2]
    weights = [np.ones(300), np.linspace(1, 2, 300), np.ones(100), np.ones(300)]
    together = jaxgmm.bootstrap(swept, [bad, x, x[1::3], x], N_REPLICATES, kind=kind, sample_weight=weights)
    assert together.status[:, 0].tolist() == [Status.NONFINITE, *[Status.CONVERGED] * 3]
    assert all(np.all(np.isnan(leaf[0])) for leaf in (*together.mixture.arrays, together.log_likelihood))
    assert np.all(together.mixture.weights[2] == [1, 0])
    assert np.all(together.mixture.covariances[2, :, 1] == np.eye(2))
    for b, own in ((1, x), (2, x[1::3])):
        alone = jaxgmm.bootstrap(swept.of(b), own, N_REPLICATES, kind=kind, sample_weight=weights[b])
        n_present = alone.mixture.n_components
        np.testing.assert_allclose(together.mixture.means[b, :, :n_present], alone.mixture.means, atol=1e-3)
        np.testing.assert_allclose(together.log_likelihood[b], alone.log_likelihood, rtol=1e-6)
    low, high = together.percentiles((2.5, 97.5))
    assert np.all(np.isnan(low.means[0]))
    assert np.all((low.means < high.means)[[1, 3]])


def test_a_fit_without_an_answer_has_replicates_without_one() -> None:
    x = two_clusters()
    failed = jaxgmm.fit(np.where(x > 0, x, np.nan), 2, n_init=1)
    replicates = jaxgmm.bootstrap(failed, x, 3)
    assert replicates.status.tolist() == [Status.NONFINITE] * 3
    assert np.all(np.isnan(replicates.percentiles(50).means))
    with pytest.raises(ValueError, match=r"such as 2\.5 and 97\.5; got \(0\.025, 0\.975\)"):
        replicates.percentiles((0.025, 0.975))
    assert replicates.mixture.means.shape == (3, 2, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_replicates": 0}, "n_replicates must be an integer of at least 1"),
        ({"kind": "jackknife"}, "kind must be one of 'weighted', 'parametric', 'nonparametric'; got 'jackknife'"),
        ({"covariance_type": "round"}, "covariance_type must be one of"),
        ({"covariance_type": ""}, "covariance_type must be one of"),
        ({"tol": -1.0}, "tol must be a finite number"),
    ],
)
def test_misuse_raises_before_any_work(options: dict, message: str) -> None:
    x = two_clusters()
    fitted = mixture_of(x)
    with pytest.raises(ValueError, match=message):
        jaxgmm.bootstrap(fitted, x, **options)


def test_seeds_have_64_bits() -> None:
    x = two_clusters()
    fitted = mixture_of(x)
    first, other = (jaxgmm.bootstrap(fitted, x, N_REPLICATES, key=key).log_likelihood for key in (0, 2**32))
    assert not np.any(first == other)


def test_mixtures_that_do_not_fit_the_data_are_refused() -> None:
    x = two_clusters()
    fitted = mixture_of(x)
    with pytest.raises(ValueError, match="mixture must hold a fit for each of the 1 data sets with 1 features"):
        jaxgmm.bootstrap(fitted, x[:, :1])
    with pytest.raises(ValueError, match="mixture holds NaN"):
        jaxgmm.bootstrap(replace(fitted, means=fitted.means * np.nan), x)
    with pytest.raises(ValueError, match=r"mixture must be a jaxgmm\.Mixture or a result of jaxgmm\.fit; got NoneType"):
        jaxgmm.bootstrap(None, x)
    with pytest.raises(ValueError, match="must sum to 1"):
        jaxgmm.bootstrap(replace(fitted, weights=np.array([1.5, 0.5])), x)
    with pytest.raises(ValueError, match="covariances between features, so it is not of covariance_type='diag'"):
        jaxgmm.bootstrap(fitted, x, covariance_type="diag")
    both = fitted.map(lambda leaf: np.stack([leaf, leaf]))
    both.weights[1] = [0.0, 0.0]
    with pytest.raises(ValueError, match="must sum to 1"):
        jaxgmm.bootstrap(both, np.stack([x, x]))


@pytest.mark.parametrize("kind", WEIGHTS_AND_SAMPLES)
def test_samples_without_weight_are_as_if_they_were_not_there(kind: str) -> None:
    x = two_clusters()
    padded = np.insert(x, [0, 7, 300], [[np.nan, 1.0]], axis=0)
    weights = np.where(np.isnan(padded[:, 0]), 0.0, 1.0)
    alone = jaxgmm.bootstrap(mixture_of(x), x, N_REPLICATES, kind=kind)
    found = jaxgmm.bootstrap(mixture_of(x), padded, N_REPLICATES, kind=kind, sample_weight=weights)
    np.testing.assert_allclose(found.log_likelihood, alone.log_likelihood, rtol=1e-6)
