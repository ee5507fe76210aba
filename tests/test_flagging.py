"""Which fits to distrust, and why."""

from dataclasses import replace

import numpy as np
import pytest

import jaxgmm
from jaxgmm import Status
from jaxgmm.doubts import component_flags, flag_texts, largest_overlap, model_flags, overlaps

RNG = np.random.default_rng(0)
# Four data sets of 200 samples: two clusters, one cluster, a heap beside a cluster, and a value that is missing.
X = np.stack(
    [
        np.concatenate([RNG.normal(size=(100, 1)), 9 + RNG.normal(size=(100, 1))]),
        RNG.normal(size=(200, 1)),
        np.concatenate([RNG.normal(size=(150, 1)), np.full((50, 1), 5.0)]),
        np.full((200, 1), np.nan),
    ]
)


@pytest.fixture(scope="module")
def result() -> jaxgmm.FitResult:
    return jaxgmm.fit(X, 2, n_init=4)


@pytest.fixture(scope="module")
def swept() -> jaxgmm.Sweep:
    return jaxgmm.sweep(X, range(1, 3), n_init=4)


def test_a_flag_is_a_reason(result):
    found = jaxgmm.flags(result)
    assert set(found) <= set(jaxgmm.FLAGS)
    assert found["no_answer"].tolist() == [False, False, False, True]
    assert found["spurious"].tolist() == [False, False, True, False]
    assert found["overlapping"].tolist() == [False, True, False, False]
    assert not any(np.any(found[name]) for name in ("degenerate", "max_iter", "start_passed_over"))
    texts = flag_texts(found)
    assert texts[0] == ""
    assert "spurious" in texts[2].split(", ")
    assert texts[3] == "no_answer"


@pytest.mark.parametrize(
    ("field", "value", "flag"),
    [
        ("status", Status.MAX_ITER, "max_iter"),
        ("status", Status.DEGENERATE, "degenerate"),
        ("spurious", 1, "spurious"),
        ("ridge_dominated", 2, "ridge_dominated"),
        ("start_passed_over", True, "start_passed_over"),
    ],
)
def test_every_field_that_warns_has_a_flag(result, field, value, flag):
    sound = result.of(0)
    assert flag_texts(jaxgmm.flags(sound)) == ""
    changed = replace(sound, **{field: np.asarray(value)})
    assert flag_texts(jaxgmm.flags(changed)) == flag


def test_a_single_start_among_many_stands_alone(result):
    sound = result.of(0)
    assert sound.n_agreeing == 4
    others = np.array([sound.log_likelihood, *[sound.log_likelihood - 1.0] * 3])
    alone = replace(sound, start_log_likelihood=others)
    assert alone.n_agreeing == 1
    assert jaxgmm.flags(alone)["few_agreeing"]
    # Within 1e-3 nats per sample it is the same optimum; three starts are too few to say; one component has no other.
    assert not jaxgmm.flags(replace(alone, start_log_likelihood=others + np.array([0, 0.9, 0, 0])))["few_agreeing"]
    fewer = replace(alone, start_log_likelihood=others[:3], start_status=alone.start_status[:3])
    assert not jaxgmm.flags(fewer)["few_agreeing"]
    one = replace(alone, mixture=alone.mixture.components([0]))
    assert not jaxgmm.flags(one)["few_agreeing"]
    # Starts that are no finalists end before they can agree.
    ended = np.array([Status.CONVERGED, *[Status.MAX_ITER] * 3], np.int32)
    assert not jaxgmm.flags(replace(alone, start_status=ended))["few_agreeing"]


def test_no_fits_have_no_flags_and_texts_all_the_same(result):
    none = result.of([])
    assert flag_texts(jaxgmm.flags(none)).dtype.kind == "U"
    assert len(none.summary()["flags"]) == 0


@pytest.mark.slow
def test_the_choice_of_a_sweep_has_flags(swept):
    found = jaxgmm.flags(swept)
    k = [dict(zip(swept.chosen["data_set"], swept.chosen["n_components"], strict=True)).get(b) for b in range(4)]
    assert found["at_largest_k"].tolist() == [own == 2 for own in k]
    assert found["passed_over"].tolist() == [bool(np.any(swept.of(b).table["passed_over"])) for b in range(4)]
    of_one = jaxgmm.flags(swept.of(0))
    assert all(np.shape(holds) == () for holds in of_one.values())
    assert of_one["at_largest_k"]


@pytest.mark.slow
def test_residuals_are_checked_where_there_are_samples(result):
    one = jaxgmm.fit(X[:2], 1, n_init=4)
    assert jaxgmm.flags(one, X[:2])["misfit"].tolist() == [True, False]
    assert "misfit" not in jaxgmm.flags(one)
    # Weights decide which samples there are.
    first = np.tile(np.arange(200) < 100, (2, 1)).astype(float)
    assert not jaxgmm.flags(jaxgmm.fit(X[:2], 1, n_init=4, sample_weight=first), X[:2], first)["misfit"][0]


@pytest.mark.parametrize("diagonal", [False, True])
def test_overlap_is_that_of_diagnose(diagonal):
    variances = RNG.uniform(0.5, 2, size=(5, 3, 2))
    deviations = np.sqrt(variances)
    correlated = deviations[..., None] * deviations[..., None, :] * np.array([[1.0, 0.3], [0.3, 1.0]])
    spread = variances if diagonal else correlated
    mixture = jaxgmm.Mixture(np.full((5, 3), 1 / 3), RNG.normal(size=(5, 3, 2)), spread)
    separation = jaxgmm.diagnose(mixture, RNG.normal(size=(5, 200, 2))).separation
    overlap = np.where(np.eye(3, dtype=bool), 0, np.exp(-separation))
    np.testing.assert_allclose(largest_overlap(mixture), np.max(overlap, axis=(1, 2)), rtol=1e-9)


def test_absent_components_overlap_nothing():
    mixture = jaxgmm.Mixture(np.array([1.0, 0.0]), np.zeros((2, 1)), np.ones((2, 1)))
    assert largest_overlap(mixture) == 0


def test_a_flag_of_a_component_is_one_of_its_fit_that_may_concern_it(result):
    found = jaxgmm.flags(result)
    of_each = component_flags(result, found)
    assert list(of_each) == list(found)
    for name, holds in of_each.items():
        assert holds.shape == (4, 2)
        np.testing.assert_array_equal(holds.any(axis=1), found[name])
    # The heap of equal values is component 1 of an ordered fit: it owes its width to the ridge, and the other does not.
    ordered = jaxgmm.order_components(result)
    assert result.ridge_dominated[2] == 1
    assert component_flags(ordered, found)["ridge_dominated"].tolist() == [[False] * 2] * 2 + [
        [False, True],
        [False] * 2,
    ]
    assert of_each["spurious"][2].tolist() == [True, True]


@pytest.mark.parametrize("diagonal", [False, True])
def test_flags_tell_which_components_overlap_and_which_owe_most_to_the_ridge(result, diagonal):
    # The first two overlap; the third is narrow along a direction between the axes, or along the second.
    means = np.array([[[0.0, 0.0], [0.1, 0.0], [9.0, 9.0], [0.0, 0.0]]])
    narrow = np.array([[1.0, 1 - 1e-9], [1 - 1e-9, 1.0]])
    covariances = np.stack([np.eye(2), np.eye(2), narrow, np.eye(2)])[None]
    if diagonal:
        covariances = np.array([[[1.0, 1.0], [1.0, 1.0], [1.0, 1e-9], [1.0, 1.0]]])
    mixture = jaxgmm.Mixture(np.array([[0.4, 0.3, 0.3, 0.0]]), means, covariances)
    fits = replace(result.of([0]), mixture=mixture, ridge_dominated=np.array([1]), ridge=np.full((1, 2), 1e-9))
    found = component_flags(fits, jaxgmm.flags(fits))
    assert found["overlapping"].tolist() == [[True, True, False, False]]
    assert found["ridge_dominated"].tolist() == [[False, False, True, False]]
    np.testing.assert_array_equal(np.max(overlaps(mixture), axis=-1), largest_overlap(mixture))


def test_models_have_the_flags_of_their_rows_and_the_chosen_ones_those_of_their_fits(swept):
    found = jaxgmm.flags(swept)
    texts, table = flag_texts(model_flags(swept.table, found)), swept.table
    chosen = table["chosen"]
    assert texts[chosen].tolist() == flag_texts(found)[table["data_set"][chosen]].tolist()
    assert texts[chosen][0] == "at_largest_k"
    assert texts[table["data_set"] == 3].tolist() == ["no_answer"] * 2
    others = ~chosen & (table["data_set"] < 3)
    flawed = (table["spurious"] > 0) | (table["ridge_dominated"] > 0) | (table["status"] == "MAX_ITER")
    assert [text != "" for text in texts[others]] == (flawed | table["start_passed_over"])[others].tolist()


def test_only_results_have_flags(result):
    with pytest.raises(ValueError, match=r"result must be a jaxgmm.FitResult or Sweep; got Mixture"):
        jaxgmm.flags(result.mixture)


def test_criteria_of_a_fit_are_those_of_the_table(swept):
    table, best = swept.chosen, swept.best.of(slice(3))
    for name in ("n_samples", "n_parameters", "n_agreeing"):
        np.testing.assert_array_equal(getattr(best, name), table[name])
    np.testing.assert_allclose(best.bic(), table["bic"], rtol=1e-14)
    n, p = best.n_samples, best.n_parameters
    np.testing.assert_allclose(best.aic(), 2 * p - 2 * best.log_likelihood, rtol=1e-14)
    np.testing.assert_allclose(best.aicc(), best.aic() + 2 * p * (p + 1) / (n - p - 1), rtol=1e-14)
    assert np.isnan(swept.best.bic()[3])


@pytest.mark.slow
def test_parameters_of_a_fit_are_counted_by_family(result):
    assert result.n_parameters.tolist() == [5] * 4
    assert result.n_samples.tolist()[:3] == [200.0] * 3
    tied = jaxgmm.fit(X, 2, n_init=4, covariance_type="tied", sample_weight=np.full((4, 200), 0.5))
    assert tied.n_parameters.tolist() == [4] * 4
    np.testing.assert_allclose(tied.n_samples[:3], 100, rtol=1e-12)


def test_a_summary_has_a_row_for_each_data_set(result):
    summary = result.summary()
    assert {len(column) for column in summary.values()} == {4}
    assert summary["n_components"].tolist() == [2, 2, 2, 0]
    assert summary["flags"].tolist() == flag_texts(jaxgmm.flags(result)).tolist()
    for name, column in result.of(2).summary().items():
        assert len(column) == 1
        assert name == "data_set" or column[0] == summary[name][2]
