"""sweep(): rows equal to fits, criteria equal to their formulas, sound choices.

Nearly all time goes into compilation, so tests share shapes where they can: four data sets of 120 samples or one of
these alone, up to four components, and two starts.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import polars as pl
import pytest
from compilation import FULL_AND_OTHERS, slow
from sklearn.mixture import GaussianMixture

import jaxgmm
from jaxgmm import Status
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.selection.held_out import folds

DATA = Path(__file__).parents[1] / "data"
OF_MCLUST = {"VVV": "full", "EEE": "tied", "VVI": "diag", "VII": "spherical"}
ALL = tuple(FAMILIES)
KS = range(1, 5)
RIDGES = (1e-2, 1e-9, 1e-1)
CONVERGED = {"n_init": 2, "tol": 1e-10}


def clusters(seed: int, k: int = 3, n_samples: int = 120, n_features: int = 2, distance: float = 8.0) -> np.ndarray:
    """Clusters of unit variance whose centres are `distance` apart or more."""
    rng = np.random.default_rng(seed)
    centres = np.zeros((0, n_features))
    while len(centres) < k:
        centre = rng.uniform(-2 * distance, 2 * distance, n_features)
        if np.all(np.linalg.norm(centres - centre, axis=1) >= distance):
            centres = np.vstack([centres, centre])
    return centres[np.arange(n_samples) % k] + rng.normal(size=(n_samples, n_features))


def stack(*ks: int) -> np.ndarray:
    """Four data sets, of so many clusters each; by default, of three."""
    return np.stack([clusters(seed, k) for seed, k in enumerate(ks or (3, 3, 3, 3))])


def compilations_of(call: Callable[[], Any]) -> tuple[Any, list[str]]:
    """The answer of a call, and the names of the programs that were compiled for it."""
    compiled = []

    def listen(event: str, _seconds: float, **about: str) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(about.get("fun_name"))

    jax.clear_caches()
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        return call(), compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture(scope="module")
def of_all_families() -> tuple[jaxgmm.Sweep, list[str]]:
    """A sweep over all families with every criterion that does not fit again, and the programs that it took."""
    options = {"covariance_type": ALL, "criterion": ("bic", "aic", "aicc", "icl")}
    return compilations_of(lambda: jaxgmm.sweep(stack(), KS, **options, **CONVERGED))


@pytest.fixture(scope="module")
def ridged() -> jaxgmm.Sweep:
    """A sweep over several ridges."""
    return jaxgmm.sweep(stack(), KS, reg_covar=RIDGES, n_init=2, tol=1e-9)


def rows_of(table: dict, **wanted: object) -> np.ndarray:
    return np.flatnonzero(np.all([table[name] == value for name, value in wanted.items()], axis=0))


def row_of(table: dict, **wanted: object) -> dict:
    (row,) = rows_of(table, **wanted)
    return {name: column[row] for name, column in table.items()}


@pytest.mark.slow
def test_iris_is_fitted_as_well_as_by_mclust_or_better_and_spurious_components_are_named() -> None:
    mclust = json.loads((DATA / "mclust_iris.json").read_text())
    x = np.array(mclust["X"])
    sweep = jaxgmm.sweep(x, range(1, 7), covariance_type=ALL, n_init=64, reg_covar=0, tol=1e-8, max_iter=5000)
    table = sweep.table
    assert len(table["bic"]) == 24
    for fit in mclust["fits"]:
        if fit["model"] in OF_MCLUST:
            row = row_of(table, n_components=fit["G"], covariance_type=OF_MCLUST[fit["model"]])
            assert row["log_likelihood"] >= fit["loglik"] - 1e-4 or row["start_passed_over"]
    assert row_of(table, n_components=4, covariance_type="tied")["bic"] <= 591.5
    chosen = row_of(sweep.chosen, data_set=0)
    assert (chosen["n_components"], chosen["covariance_type"], chosen["spurious"]) == (2, "full", 0)
    assert row_of(table, n_components=6, covariance_type="full")["start_passed_over"]
    assert sweep.best.status == Status.CONVERGED


@pytest.mark.parametrize("family", FULL_AND_OTHERS)
def test_rows_are_what_fit_says(family: str, of_all_families: tuple[jaxgmm.Sweep, list[str]]) -> None:
    table = of_all_families[0].table
    alone = jaxgmm.fit(stack(), 3, covariance_type=family, **CONVERGED)
    rows = rows_of(table, n_components=3, covariance_type=family)
    np.testing.assert_allclose(table["log_likelihood"][rows], alone.log_likelihood, rtol=1e-7)
    np.testing.assert_array_equal(table["status"][rows], [Status(code).name for code in alone.status])


@pytest.mark.parametrize("family", FULL_AND_OTHERS)
def test_criteria_are_those_of_scikit_learn_and_of_their_formulas(
    family: str, of_all_families: tuple[jaxgmm.Sweep, list[str]]
) -> None:
    x, table = stack(), of_all_families[0].table
    n, p = x.shape[1], table["n_parameters"]
    np.testing.assert_allclose(table["bic"], p * np.log(n) - 2 * table["log_likelihood"], rtol=1e-12)
    np.testing.assert_allclose(table["aicc"], table["aic"] + 2 * p * (p + 1) / (n - p - 1), rtol=1e-12)
    row = row_of(table, data_set=0, n_components=3, covariance_type=family)
    mixture = jaxgmm.fit(x, 3, covariance_type=family, **CONVERGED).of(0).mixture
    model = GaussianMixture(3, covariance_type=family)
    model.weights_, model.means_, covariances = mixture.arrays
    of_scikit_learn = {"tied": covariances[0], "spherical": covariances[:, 0]}.get(family, covariances)
    if FAMILIES[family].diagonal:
        model.precisions_cholesky_ = np.sqrt(1 / of_scikit_learn)
    else:
        model.precisions_cholesky_ = np.linalg.cholesky(np.linalg.inv(of_scikit_learn))
    model.covariances_ = of_scikit_learn
    assert row["bic"] == pytest.approx(model.bic(x[0]), rel=1e-8)
    assert row["aic"] == pytest.approx(model.aic(x[0]), rel=1e-8)
    largest = np.max(jaxgmm.responsibilities(mixture, x[0]), axis=1)
    assert row["icl"] == pytest.approx(row["bic"] - 2 * np.sum(np.log(largest)), rel=1e-8)


@pytest.mark.slow
def test_bic_finds_the_number_of_well_separated_clusters() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(1, 6, size=200)
    x = [clusters(seed, k, n_samples=int(rng.integers(120, 250))) for seed, k in enumerate(true)]
    sweep = jaxgmm.sweep(x, range(1, 7), n_init=5)
    assert np.mean(sweep.chosen["n_components"] == true) >= 0.95
    np.testing.assert_array_equal(np.sum(sweep.best.mixture.weights > 0, axis=1), sweep.chosen["n_components"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("families", "weighted", "checked"),
    [(("full", "diag"), False, [(3, "full"), (2, "diag")]), ("full", True, [(3, "full")])],
)
def test_cross_validation_is_a_loop_over_folds(
    families: str | tuple[str, ...], weighted: bool, checked: list[tuple[int, str]]
) -> None:
    x, options = stack(), {"n_init": 2, "tol": 1e-11, "max_iter": 5000}
    weights = np.random.default_rng(0).uniform(0.5, 2, x.shape[:2]) if weighted else np.ones(x.shape[:2])
    given = {"sample_weight": weights} if weighted else {}
    table = jaxgmm.sweep(x, KS, covariance_type=families, criterion="cv", n_folds=3, **given, **options).table
    fold = folds(x.shape[1], 3)
    for k, family in checked:
        total = np.zeros(4)
        for f in range(3):
            train, test = fold != f, fold == f
            fit = jaxgmm.fit(x[:, train], k, covariance_type=family, sample_weight=weights[:, train], **options)
            total += np.sum(weights[:, test] * jaxgmm.log_prob(fit.mixture, x[:, test]), axis=1)
        rows = rows_of(table, n_components=k, covariance_type=family)
        np.testing.assert_allclose(table["cv"][rows], -2 * total, rtol=1e-8)


def test_table_is_a_data_frame_as_it_is(ridged: jaxgmm.Sweep) -> None:
    for frame in (pd.DataFrame(ridged.table), pl.DataFrame(ridged.table)):
        assert frame.shape == (4 * 4 * 3, 18)
    assert ridged.table["data_set"].tolist() == np.repeat(np.arange(4), 12).tolist()
    assert ridged.table["n_components"].tolist() == np.repeat(KS, 3).tolist() * 4
    assert ridged.table["reg_covar"].tolist() == list(RIDGES) * 16
    assert list(ridged.chosen["data_set"]) == [0, 1, 2, 3]


def test_ridges_are_runs_of_their_own(ridged: jaxgmm.Sweep) -> None:
    for ridge in RIDGES:
        alone = jaxgmm.fit(stack(), 3, reg_covar=ridge, n_init=2, tol=1e-9)
        rows = rows_of(ridged.table, n_components=3, reg_covar=ridge)
        np.testing.assert_allclose(ridged.table["log_likelihood"][rows], alone.log_likelihood, rtol=1e-8)


def test_bad_data_sets_have_rows_and_leave_neighbours_unchanged() -> None:
    x = stack()
    spoiled = x.copy()
    spoiled[1, 3] = np.nan
    spoiled[3] = 7.0
    sweep, expected = (jaxgmm.sweep(data, KS, covariance_type=ALL, n_init=2) for data in (spoiled, x))
    assert sweep.best.status[1] == Status.NONFINITE
    assert sweep.best.status[3] == Status.DEGENERATE
    assert sweep.chosen["data_set"].tolist() == [0, 2]
    assert np.all(np.isnan(sweep.best.mixture.weights[[1, 3]]))
    good = np.isin(sweep.table["data_set"], [0, 2])
    for name, column in sweep.table.items():
        np.testing.assert_array_equal(column[good], expected.table[name][good])


@pytest.mark.slow
def test_more_components_than_samples_are_a_status_in_their_rows() -> None:
    # Two samples of the data set count.
    sweep = jaxgmm.sweep(clusters(0), KS, sample_weight=np.arange(120) < 2, n_init=2)
    assert sweep.table["status"][2:].tolist() == ["TOO_FEW_SAMPLES"] * 2
    assert np.all(np.isnan(sweep.table["bic"][2:]))
    assert sweep.chosen["n_components"][0] <= 2


def test_best_has_weight_zero_for_what_is_absent() -> None:
    x = stack(1, 3, 1, 3)
    sweep = jaxgmm.sweep(x, KS, covariance_type=ALL, n_init=2)
    assert [leaf.shape for leaf in sweep.best.mixture.arrays] == [(4, 4), (4, 4, 2), (4, 4, 2, 2)]
    assert np.sum(sweep.best.mixture.weights > 0, axis=1).tolist() == [1, 3, 1, 3]
    density = jaxgmm.log_prob(sweep.best.mixture, x)
    np.testing.assert_allclose(density.sum(axis=1), sweep.best.log_likelihood, rtol=1e-9)
    assert np.all(jaxgmm.predict(sweep.best.mixture, x)[[0, 2]] == 0)
    only_axes = jaxgmm.sweep(x, KS, covariance_type=("diag", "spherical"), n_init=2)
    assert only_axes.best.mixture.covariances.shape == (4, 4, 2)


@pytest.mark.slow
def test_the_chosen_mixture_is_a_start_of_a_fit() -> None:
    x = stack(1, 3, 1, 3)
    best = jaxgmm.sweep(x, KS, n_init=2).best
    absent = best.mixture.weights == 0
    assert np.sum(absent, axis=1).tolist() == [3, 1, 3, 1]
    result = jaxgmm.fit(x, 4, init=best.mixture)
    np.testing.assert_array_equal(result.status, Status.CONVERGED)
    np.testing.assert_array_equal(result.mixture.weights == 0, absent)
    np.testing.assert_array_equal(result.mixture.means[absent], 0)
    np.testing.assert_array_equal(result.mixture.covariances[absent], np.tile(np.eye(2), (np.sum(absent), 1, 1)))
    np.testing.assert_allclose(result.log_likelihood, best.log_likelihood, rtol=1e-6)


def test_a_model_that_owes_its_likelihood_to_a_spurious_component_is_passed_over() -> None:
    # Seven samples on a line beside others: a component of their own has a likelihood without bound.
    line = np.linspace(-1, 1, 7)[:, None] * np.array([1.0, 2.0]) + np.array([3.0, -1.5])
    x = np.stack([np.concatenate([np.random.default_rng(b).normal(size=(113, 2)), line]) for b in range(4)])
    sweep, by_criterion = (jaxgmm.sweep(x, KS, n_init=2, avoid_spurious=avoid) for avoid in (True, False))
    assert sweep.best.spurious.tolist() == [0] * 4
    passed_over = sweep.table["passed_over"]
    assert np.all(sweep.table["spurious"][passed_over] > 0)
    assert np.any(passed_over)
    assert np.any(sweep.table["start_passed_over"])
    bic = by_criterion.table["bic"].reshape(4, 4)
    np.testing.assert_array_equal(by_criterion.chosen["bic"], np.min(bic, axis=1))
    assert np.any(by_criterion.best.spurious)
    assert not np.any(by_criterion.table["passed_over"])


def test_information_criteria_do_not_compare_ridges(ridged: jaxgmm.Sweep) -> None:
    x, options = stack(), {"n_init": 2, "tol": 1e-9}
    assert len(ridged.table["bic"]) == 48
    assert np.all(ridged.chosen["reg_covar"] == 1e-9)
    assert any("ridge" in note for note in ridged.notes)
    alone = jaxgmm.sweep(x, KS, reg_covar=1e-9, **options)
    np.testing.assert_array_equal(ridged.chosen["n_components"], alone.chosen["n_components"])


@pytest.mark.slow
def test_cross_validation_compares_ridges() -> None:
    compared = jaxgmm.sweep(stack(), KS, reg_covar=RIDGES, criterion="cv", n_folds=3, n_init=2, tol=1e-9)
    held_out = np.where(compared.table["spurious"] == 0, compared.table["cv"], np.inf).reshape(4, 12)
    np.testing.assert_array_equal(compared.chosen["cv"], held_out.min(axis=1))


def test_weights_that_are_no_counts_are_warned_of_once() -> None:
    x = stack()
    weights = np.full(x.shape[:2], 1 / x.shape[1])
    with pytest.warns(UserWarning, match="sum to much less than the number of their samples") as caught:
        sweep = jaxgmm.sweep(x, KS, sample_weight=weights, n_init=2)
    assert len(caught) == 1
    assert str(caught[0].message) in sweep.notes
    # Samples that are left out are no reason; as warnings are errors here, this says it.
    jaxgmm.sweep(x, KS, sample_weight=np.broadcast_to(np.arange(x.shape[1]) % 2.0, x.shape[:2]), n_init=2)


def test_weights_that_sum_to_much_more_than_the_samples_are_noted() -> None:
    """No warning: a row may stand for many samples."""
    x = stack()
    noted, plain = (jaxgmm.sweep(x, KS, sample_weight=np.full(x.shape[:2], w), n_init=2) for w in (50.0, 5.0))
    assert any("sum to much more than the number of their samples" in note for note in noted.notes)
    assert not any("weights" in note for note in plain.notes)


def test_a_criterion_that_no_model_has_is_noted() -> None:
    # Five samples of each data set count.
    x = stack()
    sweep = jaxgmm.sweep(x, KS, sample_weight=(np.arange(x.shape[1]) < 5) * np.ones((4, 1)), criterion="aicc", n_init=2)
    assert np.all(np.isinf(sweep.table["aicc"]))
    assert sweep.chosen["n_components"].tolist() == [1, 1, 1, 1]
    assert any("aicc is infinite for every model of 4 of 4 data sets" in note for note in sweep.notes)


def test_the_largest_k_tried_is_told() -> None:
    x = stack(4, 3, 4, 3)
    sweep = jaxgmm.sweep(x, KS, n_init=2)
    assert np.all(sweep.table["at_largest_k"] == (sweep.table["chosen"] & (sweep.table["n_components"] == 4)))
    assert np.sum(sweep.table["at_largest_k"]) == 2
    assert any("K = 4, the largest that was tried" in note for note in sweep.notes)
    assert not np.any(jaxgmm.sweep(x, 3, n_init=2).table["at_largest_k"])


@pytest.mark.slow
def test_one_data_set_has_no_batch_axis() -> None:
    sweep = jaxgmm.sweep(clusters(0), KS, n_init=2)
    assert sweep.best.mixture.means.shape == (4, 2)
    assert sweep.best.log_likelihood == pytest.approx(sweep.chosen["log_likelihood"][0])


def test_weights_count_as_samples() -> None:
    x = clusters(0)
    weights = np.random.default_rng(1).integers(0, 3, len(x)).astype(float)
    weighted = jaxgmm.sweep(x, KS, n_init=2, sample_weight=weights, tol=1e-9)
    repeated = jaxgmm.sweep(np.repeat(x, weights.astype(int), axis=0), KS, n_init=2, tol=1e-9)
    np.testing.assert_array_equal(weighted.table["n_samples"], repeated.table["n_samples"])
    np.testing.assert_allclose(weighted.table["bic"], repeated.table["bic"], rtol=1e-7)


def test_all_models_share_a_few_programs(of_all_families: tuple[jaxgmm.Sweep, list[str]]) -> None:
    assert 5 <= len(of_all_families[1]) <= 12


def test_patience_stops_raising_k_and_leaves_no_rows_behind() -> None:
    x = stack(1, 2, 3, 2)
    everything, patient = (jaxgmm.sweep(x, KS, n_init=2, patience=patience) for patience in (None, 1))
    fitted = [patient.table["n_components"][patient.table["data_set"] == b].tolist() for b in range(4)]
    assert fitted == [[1, 2], [1, 2, 3], [1, 2, 3, 4], [1, 2, 3]]
    for name in ("n_components", "log_likelihood"):
        np.testing.assert_allclose(patient.chosen[name], everything.chosen[name], rtol=1e-6)
    np.testing.assert_allclose(patient.best.mixture.means, everything.best.mixture.means, atol=1e-3)


@pytest.mark.parametrize("families", [("full",), slow(ALL)])
def test_a_split_component_is_one_more_start(families: tuple[str, ...]) -> None:
    options = {"covariance_type": families, "n_init": 2, "criterion": "aic"}
    plain, split = (jaxgmm.sweep(stack(4, 4, 4, 4), KS, split=split, **options) for split in (False, True))
    assert plain.best.start_log_likelihood.shape == (4, 2)
    assert split.best.start_log_likelihood.shape == (4, 3)
    sound = (split.table["spurious"] == 0) & (plain.table["spurious"] == 0)
    assert np.all((split.table["log_likelihood"] >= plain.table["log_likelihood"] - 0.05)[sound])
    # From three components that cover four clusters, the split finds all four, in every family.
    for family in families:
        aic = split.table["aic"][rows_of(split.table, covariance_type=family)].reshape(4, 4)
        assert np.argmin(aic, axis=1).tolist() == [3] * 4


@pytest.mark.slow
def test_likelihood_ratio_test_rejects_too_few_components_only() -> None:
    x = [clusters(0, k=1, n_samples=100), clusters(1, k=3, n_samples=120)]
    options = {"covariance_type": "spherical", "n_init": 2, "n_replicates": 39}
    sweep = jaxgmm.sweep(x, range(1, 6), criterion=("lrt", "bic"), **options)
    assert sweep.chosen["n_components"].tolist() == [1, 3]
    p_values = sweep.table["lrt"].reshape(2, 5)
    assert p_values[0, 0] > 0.05
    assert np.all(np.isnan(p_values[0, 1:]))
    np.testing.assert_array_equal(p_values[1, :2], 1 / 40)
    assert p_values[1, 2] > 0.05


def test_cross_validation_and_patience_choose_among_what_is_fitted() -> None:
    x, options = stack(2, 2, 2, 2), {"criterion": "cv", "n_folds": 3, "patience": 1, "n_init": 2}
    sweep = jaxgmm.sweep(x, KS, **options)
    assert sweep.chosen["data_set"].tolist() == list(range(4))
    assert np.all(sweep.best.status == Status.CONVERGED)
    # A part of a job has the answers of the whole.
    part = jaxgmm.sweep(x[2:], KS, part_of=[120] * 4, **options)
    for name in ("cv", "log_likelihood", "chosen", "n_iter"):
        np.testing.assert_array_equal(part.table[name], sweep.table[name][sweep.table["data_set"] > 1], err_msg=name)


def test_clusters_far_apart_are_not_spurious() -> None:
    x = np.random.default_rng(0).normal(size=(120, 2)) + np.where(np.arange(120) < 60, 0, 3000)[:, None]
    assert jaxgmm.sweep(x, KS, n_init=2, reg_covar=0).chosen["n_components"] == [2]


def test_one_heavy_sample_makes_no_others_spurious() -> None:
    x, weights = clusters(0, k=2), np.ones(120)
    weights[0] = 40
    assert jaxgmm.sweep(x, KS, sample_weight=weights, n_init=2).chosen["n_components"] == [2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"criterion": "likelihood"},
            "criterion must be one of 'bic', 'aic', 'aicc', 'icl', 'cv', 'lrt'; got 'likelihood'",
        ),
        ({"criterion": ()}, "criterion must name at least one value"),
        ({"n_components": []}, "n_components must name at least one value"),
        ({"n_components": (1, 0)}, "n_components must be an integer of at least 1"),
        ({"n_components": (1, 2.5)}, "n_components must be an integer of at least 1"),
        ({"covariance_type": ("full", "round")}, "covariance_type must be one of"),
        ({"reg_covar": (1e-6, -1)}, "reg_covar must be a finite number of at least 0"),
        ({"init": np.zeros(120, int)}, "init must be one of"),
        (
            {"criterion": "lrt", "n_components": (1, 3), "reg_covar": (0.1, 0)},
            "needs consecutive n_components, one covariance_type and one reg_covar; got n_components 1, 3, "
            r"covariance_type full and reg_covar 0\.1, 0\.$",
        ),
        ({"criterion": "lrt", "covariance_type": ("full", "diag")}, "criterion 'lrt' needs consecutive n_components"),
        ({"criterion": "lrt", "sample_weight": np.ones(120)}, "leave out sample_weight and split"),
        ({"split": "x"}, "split must be True or False"),
        ({"criterion": "lrt", "split": True}, "leave out sample_weight and split"),
        ({"criterion": "lrt", "patience": 1}, "leave out patience"),
        ({"n_components": None}, "n_components must be one integer or a sequence"),
        ({"n_components": 3.0}, r"n_components must be one integer or a sequence of integers; got 3\.0"),
        ({"reg_covar": None}, "reg_covar must be one number or a sequence"),
        ({"n_folds": None, "criterion": "cv"}, "n_folds must be an integer"),
        ({"n_replicates": 0}, "n_replicates must be an integer of at least 1"),
        ({"patience": 0}, "patience must be an integer of at least 1"),
        ({"n_folds": 1}, "n_folds must be an integer of at least 2"),
    ],
)
def test_misuse_raises_before_any_work(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        jaxgmm.sweep(clusters(0), **options)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed", "float32"])
def test_features_of_few_values_have_no_component_for_each_value(precision: str) -> None:
    x = np.random.default_rng(0).normal(size=(4, 120, 2))
    x[:, :, 0] = x[:, :, 0].round()
    sweep = jaxgmm.sweep(x, KS, covariance_type=("full", "diag"), n_init=2, precision=precision)
    assert sweep.chosen["n_components"].tolist() == [1] * 4
    assert np.all(sweep.best.spurious == 0)
    # By likelihood alone, most would have had more.
    assert np.mean(np.any(sweep.table["passed_over"].reshape(4, 8), axis=1)) > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("seed", [40, 49, 55])
def test_no_model_gains_by_what_spurious_components_are_compared_by(seed: int) -> None:
    # Few heavy samples: in one data set of each seed, a component as wide as the data is likelier than the tied one.
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(4, 120, 2)) + (np.arange(120) % 2)[:, None]
    weights = rng.lognormal(sigma=4, size=(4, 120))
    weights *= 120 / weights.sum(axis=1, keepdims=True)
    table = jaxgmm.sweep(x, KS, covariance_type="tied", n_init=2, sample_weight=weights).table
    bic, spurious, chosen = (table[name].reshape(4, 4) for name in ("bic", "spurious", "chosen"))
    assert np.any(spurious)
    # No sound model has a lower criterion than one with spurious components that is chosen.
    lowest_sound = np.min(np.where(spurious == 0, bic, np.inf), axis=1)
    of_chosen = np.sum(np.where(chosen, bic, 0), axis=1)
    assert np.all(of_chosen <= lowest_sound + 1e-6)


def test_a_data_set_for_which_no_model_has_a_score_is_not_called_converged() -> None:
    """A feature that varies in one sample only is constant without its fold."""
    x = np.random.default_rng(0).normal(size=(20, 2))
    x[:, 1] = np.arange(20) == 0
    sweep = jaxgmm.sweep(x, [1], criterion="cv", n_folds=3, n_init=2)
    assert np.isnan(sweep.table["cv"]).all()
    assert sweep.best.status == Status.DEGENERATE
    assert not sweep.best.converged
    assert np.isnan(sweep.best.mixture.means).all()
