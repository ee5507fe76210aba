"""The scikit-learn estimator: the same results as scikit-learn's, and its conventions."""

import importlib
import pickle
import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pytest
import reference
import sklearn.mixture
from compilation import FULL_DIAG_AND_OTHERS
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import jaxgmm
import jaxgmm.sklearn
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.sklearn import GaussianMixture, from_sklearn, to_sklearn
from jaxgmm.sklearn.runs import fit_starts
from jaxgmm.sklearn.starts import moments_of
from jaxgmm.status import Status

Theirs = sklearn.mixture.GaussianMixture
INIT_PARAMS = ["kmeans", "k-means++", "random", "random_from_data"]


def samples(seed: int = 0) -> np.ndarray:
    """Three overlapping clusters `(110, 2)`, away from the origin."""
    rng = np.random.default_rng(seed)
    sizes, means = (50, 35, 25), np.array([[0.0, 0.0], [4.0, 1.0], [1.0, 5.0]])
    x = [rng.normal(mean, size=(n, 2)) @ [[1.0, 0.3], [0.0, 0.8]] for n, mean in zip(sizes, means, strict=True)]
    return rng.permutation(np.concatenate(x)) + 7


def both(x: np.ndarray, **parameters: object) -> tuple[GaussianMixture, Theirs]:
    """jaxgmm's fit and scikit-learn's, whether they converge or not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return GaussianMixture(**parameters).fit(x), Theirs(**parameters).fit(x)


def assert_same(ours: Theirs, theirs: Theirs, rtol: float = 1e-7) -> None:
    for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
        expected = getattr(theirs, name)
        np.testing.assert_allclose(getattr(ours, name), expected, rtol=rtol, atol=rtol * np.abs(expected).max())
    assert (ours.n_iter_, ours.converged_) == (theirs.n_iter_, theirs.converged_)
    np.testing.assert_allclose(ours.lower_bound_, theirs.lower_bound_, rtol=rtol)
    if hasattr(theirs, "lower_bounds_"):  # from scikit-learn 1.7 on
        np.testing.assert_allclose(ours.lower_bounds_, theirs.lower_bounds_, rtol=rtol)


def labels_agree(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two clusterings are the same, whatever the order of components."""
    pairs = set(zip(a.tolist(), b.tolist(), strict=True))
    return len(pairs) == len(set(a.tolist())) == len(set(b.tolist()))


@pytest.mark.parametrize("init_params", ["kmeans", "k-means++"])
@pytest.mark.parametrize("family", FAMILIES)
def test_times_have_the_answer_of_durations(family: str, init_params: str) -> None:
    """Seconds since 1970, whose squares have no digits left for a variance; scikit-learn finds no mixture there."""
    # The sums are exact. A tied start depends on where 0 is.
    x, begin = np.round((samples() - np.mean(samples(), axis=0)) * 2**20) / 2**20, 2.0**31
    parameters = {"n_components": 3, "covariance_type": family, "init_params": init_params, "random_state": 0}
    near, far = (GaussianMixture(max_iter=500, **parameters).fit(own) for own in (x, x + begin))
    assert far.converged_
    np.testing.assert_allclose(far.means_ - begin, near.means_, atol=1e-5)
    np.testing.assert_allclose(far.covariances_, near.covariances_, rtol=1e-5)
    np.testing.assert_allclose(far.score_samples(x + begin), near.score_samples(x), atol=1e-5)
    np.testing.assert_array_equal(far.predict(x + begin), near.predict(x))
    np.testing.assert_allclose(far.score(x + begin), far.lower_bound_, atol=1e-3)
    converted = to_sklearn(from_sklearn(far), covariance_type=family)
    np.testing.assert_allclose(converted.score(x + begin), near.score(x), atol=1e-5)


@pytest.mark.parametrize("init_params", INIT_PARAMS)
@pytest.mark.parametrize("covariance_type", FULL_DIAG_AND_OTHERS)
def test_same_start_same_iterations_same_result(covariance_type: str, init_params: str) -> None:
    ours, theirs = both(
        samples(), n_components=3, covariance_type=covariance_type, init_params=init_params, random_state=5
    )
    assert ours.n_iter_ > 1
    assert_same(ours, theirs)


@pytest.mark.parametrize("covariance_type", FULL_DIAG_AND_OTHERS)
def test_same_choice_among_several_starts(covariance_type: str) -> None:
    settings = {"n_components": 3, "covariance_type": covariance_type, "init_params": "random", "n_init": 4}
    ours, theirs = both(samples(), **settings, random_state=1)
    np.testing.assert_allclose(ours.lower_bound_, theirs.lower_bound_, rtol=1e-9)
    assert labels_agree(ours.predict(samples()), theirs.predict(samples()))
    # The same stream has been drawn from: what is drawn next is the same.
    streams = [np.random.RandomState(3), np.random.RandomState(3)]
    GaussianMixture(**settings, random_state=streams[0]).fit(samples())
    Theirs(**settings, random_state=streams[1]).fit(samples())
    assert streams[0].uniform() == streams[1].uniform()


@pytest.mark.parametrize("covariance_type", FULL_DIAG_AND_OTHERS)
@pytest.mark.parametrize("given", [("means",), ("weights", "precisions"), ("weights", "means", "precisions")])
def test_given_parameters_replace_drawn_ones(covariance_type: str, given: tuple[str, ...]) -> None:
    _, other = both(samples(1), n_components=3, covariance_type=covariance_type, random_state=2)
    start = {f"{name}_init": getattr(other, f"{name}_") for name in given}
    ours, theirs = both(samples(), n_components=3, covariance_type=covariance_type, random_state=5, **start)
    assert_same(ours, theirs)


@pytest.mark.parametrize("max_iter", [0, 1, 4])
def test_same_parameters_where_max_iter_ends_the_fit(max_iter: int) -> None:
    ours, theirs = both(samples(), n_components=3, max_iter=max_iter, tol=0.0, init_params="random", random_state=0)
    assert ours.n_iter_ == max_iter
    assert_same(ours, theirs)


def test_runs_longer_than_the_history_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_SHORTEST_HISTORY", "_LONGEST_HISTORY"):
        monkeypatch.setattr(importlib.import_module("jaxgmm.sklearn.runs"), name, 16)
    settings = {"covariance_type": "diag", "max_iter": 70, "tol": 0.0}
    ours, theirs = both(samples(), n_components=3, **settings, random_state=0)
    assert len(ours.lower_bounds_) == 70
    assert_same(ours, theirs)


@pytest.mark.parametrize("max_iter", [1, 3])
def test_warm_start_goes_on_where_the_last_fit_ended(max_iter: int) -> None:
    settings = {"n_components": 3, "max_iter": max_iter, "init_params": "random"}
    ours, theirs = (c(**settings, random_state=0, warm_start=True) for c in (GaussianMixture, Theirs))
    for _ in range(100):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            assert_same(ours.fit(samples()), theirs.fit(samples()), rtol=1e-6)
        if theirs.converged_:
            break
    assert ours.converged_
    with pytest.raises(ValueError, match="X has 1 features, and the last fit, to start from, 2"):
        ours.fit(samples()[:, :1])


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("covariance_type", FULL_DIAG_AND_OTHERS)
def test_ridge_is_absolute(covariance_type: str, scale: float) -> None:
    ours, theirs = both(
        scale * samples(), n_components=3, covariance_type=covariance_type, reg_covar=0.5, random_state=0
    )
    assert_same(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("covariance_type", FULL_DIAG_AND_OTHERS)
@pytest.mark.parametrize("spoil", ["constant", "collinear", "all constant"])
def test_ridge_lets_features_be_constant_or_collinear(covariance_type: str, spoil: str) -> None:
    x = samples()
    x[:, 1] = 2 * x[:, 0] if spoil == "collinear" else 3.1
    x[:, 0] = 1e5 if spoil == "all constant" else x[:, 0]
    start = sklearn_start(x)
    fits = fit_starts(x, batched(start, covariance_type), covariance_type, 0.0, 5, 1e-3)
    twin = reference.em(x, start, covariance_type, 5, ridge=1e-3)
    assert fits.n_iter[0] == 5
    mixture = fits.mixture.of(0)
    np.testing.assert_allclose(mixture.weights, twin.mixture.weights, atol=1e-7)
    np.testing.assert_allclose(mixture.means, twin.mixture.means, rtol=1e-7)
    np.testing.assert_allclose(jaxgmm.mixture.full_covariances(mixture), twin.mixture.covariances, rtol=1e-6, atol=1e-9)
    # That of the parameters before the last M-step.
    np.testing.assert_allclose(fits.log_likelihood[0], twin.trace[-2], rtol=1e-7)


def test_a_last_m_step_that_is_not_sound_is_degenerate() -> None:
    x = samples()
    start = sklearn_start(x)
    far = start._replace(means=start.means + np.array([[0.0, 0.0], [1e3, 0.0], [0.0, 0.0]]))
    fits = fit_starts(x, batched(far, "full"), "full", 0.0, 1, 1e-3)
    assert (fits.n_iter[0], fits.status[0], fits.start_status[0, 0]) == (0, Status.DEGENERATE, Status.DEGENERATE)
    np.testing.assert_allclose(fits.mixture.means[0], far.means, rtol=1e-12)


def sklearn_start(x: np.ndarray) -> reference.TwinMixture:
    """Three components around the quartiles of the first feature."""
    means = np.quantile(x, [0.25, 0.5, 0.75], axis=0) + np.array([[0.0, 0.1], [0.1, 0.0], [0.0, 0.0]])
    return reference.TwinMixture(np.array([0.2, 0.3, 0.5]), means, np.stack([np.eye(2)] * 3))


def batched(start: reference.TwinMixture, covariance_type: str) -> jaxgmm.Mixture:
    covariances = start.covariances
    if FAMILIES[covariance_type].diagonal:
        covariances = np.diagonal(covariances, axis1=1, axis2=2)
    return jaxgmm.Mixture(start.weights[None], start.means[None], covariances[None])


def test_float32_gives_float32() -> None:
    x = samples().astype(np.float32)
    ours, theirs = both(x, n_components=3, random_state=5)
    assert ours.means_.dtype == ours.covariances_.dtype == ours.precisions_cholesky_.dtype == np.float32
    np.testing.assert_allclose(ours.means_, theirs.means_, rtol=1e-4)


def test_same_parameters_and_attributes() -> None:
    ours, theirs = both(samples(), n_components=3, random_state=5)
    assert ours.get_params() == theirs.get_params()
    assert set(vars(ours)) - {"lower_bounds_"} == set(vars(theirs)) - {"lower_bounds_"}
    assert isinstance(ours, Theirs)
    assert repr(GaussianMixture(2)) == repr(Theirs(2))


def raised(function: Callable[[], object]) -> tuple[type, str]:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        function()
    return caught.type, str(caught.value)


@pytest.mark.parametrize(
    "parameters",
    [
        {"n_components": 0},
        {"covariance_type": "round"},
        {"tol": -1.0},
        {"reg_covar": -1.0},
        {"max_iter": -1},
        {"n_init": 0},
        {"init_params": "best"},
        {"n_components": 111},
        {"n_components": 3, "weights_init": [0.5, 0.5]},
        {"n_components": 3, "weights_init": [0.5, 0.5, 0.5]},
        {"n_components": 3, "means_init": np.zeros((3, 1))},
        {"n_components": 3, "precisions_init": np.zeros((3, 2, 2))},
        {"random_state": "seed"},
        {"n_components": 3, "init_params": "k-means++", "reg_covar": 0.0},
    ],
    ids="-".join,
)
def test_errors_read_as_scikit_learns(parameters: dict) -> None:
    ours = raised(lambda: GaussianMixture(**{"random_state": 0} | parameters).fit(samples()))
    assert ours == raised(lambda: Theirs(**{"random_state": 0} | parameters).fit(samples()))
    assert ours[0] is ValueError or issubclass(ours[0], ValueError)


@pytest.mark.parametrize("x", [np.array([[1.0, 2.0]]), np.ones(3), np.array([[np.nan], [1.0]]), np.ones((3, 0))])
def test_bad_data_are_refused_in_scikit_learns_words(x: np.ndarray) -> None:
    assert raised(lambda: GaussianMixture().fit(x)) == raised(lambda: Theirs().fit(x))


def test_unfitted_estimators_say_so() -> None:
    for method in ("predict", "score", "score_samples", "predict_proba"):
        with pytest.raises(NotFittedError, match="This GaussianMixture instance is not fitted yet"):
            getattr(GaussianMixture(), method)(samples())


def test_warning_reads_as_scikit_learns() -> None:
    texts = []
    for estimator in (GaussianMixture(3, max_iter=2, random_state=0), Theirs(3, max_iter=2, random_state=0)):
        with pytest.warns(ConvergenceWarning) as caught:
            estimator.fit(samples())
        texts.append([str(warning.message) for warning in caught])
    assert texts[0] == texts[1]


@pytest.mark.parametrize("verbose", [1, 2])
def test_verbose_prints_what_scikit_learn_prints(verbose: int, capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for c in (GaussianMixture, Theirs):
        c(3, init_params="random", n_init=2, random_state=0, verbose=verbose, verbose_interval=2).fit(samples())
        lines = capsys.readouterr().out.splitlines()
        # Times differ, and they alone.
        printed.append([line.partition("time lapse")[0] for line in lines])
    assert len(printed[0]) > 4
    assert printed[0] == printed[1]


def test_one_sound_start_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, original = [], moments_of

    def collapsed_at_first(*args: object) -> jaxgmm.Mixture:
        drawn.append(original(*args))
        return replace(drawn[-1], covariances=0 * drawn[-1].covariances) if len(drawn) == 1 else drawn[-1]

    monkeypatch.setattr("jaxgmm.sklearn.estimator.moments_of", collapsed_at_first)
    estimator = GaussianMixture(3, n_init=3, random_state=0).fit(samples())
    assert len(drawn) == 3
    monkeypatch.undo()
    # Another start may be the best now, at the same optimum.
    whole = GaussianMixture(3, n_init=3, random_state=0).fit(samples())
    assert estimator.lower_bound_ == pytest.approx(whole.lower_bound_, rel=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_no_sound_start_reads_as_scikit_learns(weighted: bool) -> None:
    x = np.repeat([[0.0, 1.0], [1.0, 0.0]], 55, axis=0)
    weights = np.arange(1.0, 111.0) if weighted else None
    with pytest.warns(ConvergenceWarning, match="distinct clusters"):
        ours = raised(lambda: GaussianMixture(3, reg_covar=0.0, random_state=0).fit(x, sample_weight=weights))
    with pytest.warns(ConvergenceWarning, match="distinct clusters"):
        theirs = raised(lambda: Theirs(3, reg_covar=0.0, random_state=0).fit(x))
    # What to do about it has been said in other words before scikit-learn 1.7.
    assert [text.partition(" Try")[0] for text in (ours[1], theirs[1])] == [ours[1].partition(" Try")[0]] * 2
    assert ours[0] is theirs[0] is ValueError
    assert weighted or ours == theirs


@pytest.mark.parametrize("covariance_type", FULL_DIAG_AND_OTHERS)
def test_what_is_too_narrow_for_the_engine_is_left_to_scikit_learn(covariance_type: str) -> None:
    # Single samples with a ridge of 1e-6 are the start, among data that are 1e10 times as wide.
    settings = {"n_components": 3, "covariance_type": covariance_type, "init_params": "k-means++"}
    ours, theirs = both(1e10 * (samples() - 7), **settings, random_state=0)
    assert_same(ours, theirs)
    x = np.repeat([[0.0, 1.0], [1.0, 0.0]], 55, axis=0)
    streams = [np.random.RandomState(3), np.random.RandomState(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        ours = GaussianMixture(3, covariance_type=covariance_type, random_state=streams[0]).fit(x)
        theirs = Theirs(3, covariance_type=covariance_type, random_state=streams[1]).fit(x)
    assert_same(ours, theirs)
    assert streams[0].uniform() == streams[1].uniform()


@pytest.mark.parametrize("init_params", INIT_PARAMS)
def test_weight_zero_is_absence(init_params: str) -> None:
    x, settings = samples(), {"n_components": 3, "init_params": init_params, "random_state": 0}
    weights = np.random.default_rng(0).integers(0, 4, size=len(x)) * 1.5
    with_zeros = GaussianMixture(**settings).fit(x, sample_weight=weights)
    without = GaussianMixture(**settings).fit(x[weights > 0], sample_weight=weights[weights > 0])
    assert_same(with_zeros, without, rtol=1e-12)
    weights = (weights > 0).astype(float)
    assert_same(GaussianMixture(**settings).fit(x, sample_weight=weights), Theirs(**settings).fit(x[weights > 0]))


@pytest.mark.parametrize("covariance_type", ["full", "spherical"])
def test_integer_weight_is_repetition(covariance_type: str) -> None:
    x = samples()[:100]
    weights = 1 + (np.arange(100) % 5 == 0)
    start = sklearn_start(x)
    precisions = {"full": start.covariances, "tied": np.eye(2), "diag": np.ones((3, 2)), "spherical": np.ones(3)}
    settings = {
        "n_components": 3,
        "covariance_type": covariance_type,
        "weights_init": start.weights,
        "means_init": start.means,
        "precisions_init": precisions[covariance_type],
        "tol": 1e-8,
        "max_iter": 500,
    }
    weighted = GaussianMixture(**settings).fit(x, sample_weight=weights)
    repeated = GaussianMixture(**settings).fit(np.repeat(x, weights, axis=0))
    assert_same(weighted, repeated)
    score = weighted.score(x, sample_weight=weights)
    np.testing.assert_allclose(score, weighted.score(np.repeat(x, weights, axis=0)), rtol=1e-12)
    clusters = GaussianMixture(**settings).fit_predict(x, sample_weight=weights)
    np.testing.assert_array_equal(clusters, weighted.predict(x))


@pytest.mark.parametrize("covariance_type", FULL_DIAG_AND_OTHERS)
def test_weights_count_in_the_starts(covariance_type: str) -> None:
    x = samples()
    weights = np.random.default_rng(0).integers(1, 4, size=len(x))
    r = np.random.default_rng(1).uniform(size=(len(x), 3))
    weighted = moments_of(x, r * weights[:, None], weights, covariance_type, 1e-3)
    repeated = moments_of(np.repeat(x, weights, axis=0), np.repeat(r, weights, axis=0), None, covariance_type, 1e-3)
    for leaf, expected in zip(weighted.arrays, repeated.arrays, strict=True):
        np.testing.assert_allclose(leaf, expected, rtol=1e-9)


def test_bad_weights_are_refused() -> None:
    for weights, words in (
        (np.zeros(110), "must contain at least one non-zero"),
        (np.full(110, -1.0), "[Nn]egative"),
        (np.ones(3), "inconsistent|shape"),
        ((np.arange(110) < 2) * 1.0, "Expected n_samples >= n_components"),
    ):
        with pytest.raises(ValueError, match=words):
            GaussianMixture(3).fit(samples(), sample_weight=weights)


def test_in_pipelines_and_searches() -> None:
    x = samples()
    pipeline = make_pipeline(StandardScaler(), GaussianMixture(3, random_state=0))
    expected = make_pipeline(StandardScaler(), Theirs(3, random_state=0))
    np.testing.assert_allclose(cross_val_score(pipeline, x, cv=3), cross_val_score(expected, x, cv=3), rtol=1e-7)
    grid = {"gaussianmixture__reg_covar": [1e-6, 1.0], "gaussianmixture__covariance_type": ["full", "diag"]}
    ours, theirs = GridSearchCV(pipeline, grid, cv=3).fit(x), GridSearchCV(expected, grid, cv=3).fit(x)
    assert ours.best_params_ == theirs.best_params_
    np.testing.assert_allclose(ours.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"], rtol=1e-7)
    weighted = pipeline.fit(x, gaussianmixture__sample_weight=np.arange(110.0))
    assert weighted.predict(x).shape == (110,)


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_data_frames(frame: type) -> None:
    x = samples()
    table = frame({"length": x[:, 0], "width": x[:, 1]})
    ours, theirs = both(table, n_components=3, random_state=0)
    assert_same(ours, theirs)
    np.testing.assert_array_equal(ours.predict(table), theirs.predict(table))
    # Not every version of scikit-learn reads names of every version of polars.
    assert hasattr(theirs, "feature_names_in_") or frame is pl.DataFrame
    if hasattr(theirs, "feature_names_in_"):
        assert ours.feature_names_in_.tolist() == ["length", "width"]
        with pytest.raises(ValueError, match="feature names should match"):
            ours.predict(frame({"width": x[:, 1], "length": x[:, 0]}))


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_set_output(library: str) -> None:
    table = pd.DataFrame(samples(), columns=["length", "width"])
    ours, theirs = (
        make_pipeline(StandardScaler(), c(3, random_state=0)).set_output(transform=library).fit(table)
        for c in (GaussianMixture, Theirs)
    )
    assert_same(ours[-1], theirs[-1])
    np.testing.assert_array_equal(ours.predict(table), theirs.predict(table))


def test_clones_and_pickles() -> None:
    estimator = GaussianMixture(3, covariance_type="diag", random_state=0).fit(samples())
    assert clone(estimator).get_params() == estimator.get_params()
    again = pickle.loads(pickle.dumps(estimator))
    assert_same(again, estimator, rtol=0)
    np.testing.assert_array_equal(again.predict_proba(samples()), estimator.predict_proba(samples()))


@pytest.mark.parametrize("covariance_type", FULL_DIAG_AND_OTHERS)
def test_there_and_back(covariance_type: str) -> None:
    fitted = Theirs(3, covariance_type=covariance_type, random_state=0).fit(samples())
    mixture = from_sklearn(fitted)
    assert mixture.is_diagonal == FAMILIES[covariance_type].diagonal
    np.testing.assert_allclose(jaxgmm.log_prob(mixture, samples()), fitted.score_samples(samples()), rtol=1e-9)
    back = to_sklearn(mixture)
    assert back.covariance_type == covariance_type
    for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
        np.testing.assert_allclose(getattr(back, name), getattr(fitted, name), rtol=1e-12)
    assert (back.n_iter_, back.converged_, back.n_features_in_) == (0, False, 2)
    np.testing.assert_allclose(back.score_samples(samples()), fitted.score_samples(samples()), rtol=1e-12)
    assert back.sample(5)[0].shape == (5, 2)
    for leaf, expected in zip(from_sklearn(back).arrays, mixture.arrays, strict=True):
        np.testing.assert_array_equal(leaf, expected)


def test_a_converted_fit_knows_how_it_ended() -> None:
    fit = jaxgmm.fit(samples(), 3, n_init=2, sample_weight=np.full(110, 2.0))
    estimator = to_sklearn(fit)
    assert (estimator.converged_, estimator.n_iter_) == (True, fit.n_iter)
    assert estimator.lower_bound_ == pytest.approx(estimator.score(samples()))
    begun = to_sklearn(jaxgmm.fit(samples(), 3, n_init=2, max_iter=1)).set_params(warm_start=True, tol=1e-9)
    assert (begun.converged_, begun.n_iter_) == (False, 1)
    assert begun.fit(samples()).n_iter_ > 2


def test_a_converted_mixture_can_be_fitted_further() -> None:
    _, begun = both(samples(), n_components=3, max_iter=2, random_state=0)
    estimator = to_sklearn(from_sklearn(begun)).set_params(warm_start=True, tol=1e-6, max_iter=1000)
    before = estimator.score(samples())
    assert estimator.fit(samples()).score(samples()) >= before - 1e-6


def test_narrower_families_are_wider_ones_too() -> None:
    spherical = from_sklearn(Theirs(3, covariance_type="spherical", random_state=0).fit(samples()))
    for family in FAMILIES:
        if family == "tied":
            with pytest.raises(ValueError, match=r"not of covariance_type='tied'; they are of 'spherical'"):
                to_sklearn(spherical, family)
        else:
            density = to_sklearn(spherical, family).score_samples(samples())
            np.testing.assert_allclose(density, jaxgmm.log_prob(spherical, samples()), rtol=1e-9)


def test_components_of_weight_zero_are_left_out() -> None:
    mixture = jaxgmm.Mixture(np.array([0.4, 0.0, 0.6]), np.arange(6.0).reshape(3, 2), np.stack([np.eye(2)] * 3))
    estimator = to_sklearn(mixture)
    assert estimator.n_components == 2
    np.testing.assert_allclose(estimator.score_samples(samples()), jaxgmm.log_prob(mixture, samples()), rtol=1e-9)


def test_conversions_refuse_what_they_cannot_mean() -> None:
    batch = jaxgmm.Mixture(np.ones((2, 1)), np.zeros((2, 1, 2)), np.ones((2, 1, 2)))
    with pytest.raises(ValueError, match="must be one mixture"):
        to_sklearn(batch)
    with pytest.raises(ValueError, match=r"must be a jaxgmm\.Mixture or a result"):
        to_sklearn("text")
    with pytest.raises(ValueError, match="NaN or infinity"):
        to_sklearn(jaxgmm.Mixture(np.array([np.nan]), np.zeros((1, 2)), np.ones((1, 2))))
    with pytest.raises(ValueError, match="covariance_type"):
        to_sklearn(jaxgmm.Mixture(np.ones(1), np.zeros((1, 2)), np.ones((1, 2))), "round")
    with pytest.raises(ValueError, match=r"must be a sklearn.mixture.GaussianMixture; it is a StandardScaler"):
        from_sklearn(StandardScaler())
    with pytest.raises(NotFittedError):
        from_sklearn(GaussianMixture())


CHECKS = parametrize_with_checks([GaussianMixture(), GaussianMixture(max_iter=5, n_init=2)]).mark
# These fit nothing, or hardly anything. Each of the others fits data of a shape of its own, for which programs are
# compiled.
QUICK = {
    "check_complex_data",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_estimators_empty_data_messages",
    "check_estimators_unfitted",
    "check_fit1d",
    "check_fit2d_1sample",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_valid_tag_types",
}


def with_marks(estimator: GaussianMixture, check: Callable) -> object:
    name = getattr(check, "func", check).__name__
    return pytest.param(estimator, check, marks=() if name in QUICK else pytest.mark.slow)


# Older versions of scikit-learn give a generator, of which pytest 9 disapproves.
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(CHECKS.args[0], [with_marks(*given) for given in CHECKS.args[1]], **CHECKS.kwargs)
def test_scikit_learns_checks(estimator: GaussianMixture, check: Callable) -> None:
    check(estimator)


@pytest.mark.parametrize("changed", [{"covariance_type": "diag"}, {"n_components": 2}])
def test_a_warm_start_from_another_model_is_refused_in_words(changed: dict) -> None:
    estimator = GaussianMixture(3, warm_start=True, random_state=0).fit(samples())
    with pytest.raises(ValueError, match=r"last fit, to start from.*set warm_start=False"):
        estimator.set_params(**changed).fit(samples())
