"""Fits as tables, and back."""

import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

import jaxgmm
from jaxgmm.tables import tabular
from jaxgmm.tables.groups import Groups

NAN = math.nan


def hand_made_result(*, diagonal):
    """Two groups, two components, two features; the second group has no answer."""
    covariances = np.array([[[1.0, 0.25], [0.25, 2.0]], [[3.0, -0.5], [-0.5, 4.0]]])
    if diagonal:
        covariances = np.diagonal(covariances, axis1=1, axis2=2)
    leaves = np.array([0.25, 0.75]), np.array([[10.0, 20.0], [30.0, 40.0]]), covariances
    return jaxgmm.FitResult(
        mixture=jaxgmm.Mixture(*(np.stack([leaf, np.full_like(leaf, NAN)]) for leaf in leaves)),
        log_likelihood=np.array([-12.5, NAN]),
        gap=np.array([1e-10, NAN]),
        n_iter=np.array([7, 0], np.int32),
        status=np.array([jaxgmm.Status.MAX_ITER, jaxgmm.Status.NONFINITE], np.int32),
        spurious=np.zeros(2, np.int32),
        ridge_dominated=np.array([1, 0], np.int32),
        start_passed_over=np.array([True, False]),
        n_samples=np.array([5.0, NAN]),
        n_parameters=np.full(2, 11, np.int32),
        ridge=np.full((2, 2), 1e-12),
        start_spurious=np.zeros((2, 1), np.int32),
        start_log_likelihood=np.array([[-12.5], [NAN]]),
        start_status=np.array([[1], [3]], np.int32),
        history=None,
        efficiency=1.0,
    )


KEYS = pa.table({"cell": ["a", None]})
FLAGGED = {name: np.array([name != "no_answer", name == "no_answer"]) for name in ("no_answer", "max_iter", "spurious")}


def test_fits_table_says_how_every_group_ended():
    samples = np.zeros((11, 2))
    samples[[6, 9], [0, 1]] = math.inf, NAN
    groups = Groups(KEYS, samples, None, np.array([0, 5, 11]), np.arange(11))
    rows = tabular.fits_table(groups, hand_made_result(diagonal=False), ["f", "g"], FLAGGED).to_pylist()
    maximum, nonfinite = jaxgmm.Status.MAX_ITER, jaxgmm.Status.NONFINITE
    assert rows == [
        {
            "cell": "a", "n_samples": 5, "log_likelihood": -12.5, "gap": 1e-10, "n_iter": 7, "spurious": 0,
            "ridge_dominated": 1,
            "start_passed_over": True, "flags": "max_iter, spurious", "status": "MAX_ITER",
            "explanation": maximum.sentence,
        },
        {
            "cell": None, "n_samples": 6, "log_likelihood": None, "gap": None, "n_iter": 0, "spurious": 0,
            "ridge_dominated": 0,
            "start_passed_over": False, "flags": "no_answer", "status": "NONFINITE",
            "explanation": f"{nonfinite.sentence[:-1]} (2 of 6 samples).",
        },
    ]  # fmt: skip


def test_fits_table_names_features_that_are_constant():
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(12, 2))
    samples[:5, 1] = 3.0
    samples[4, 1] = NAN  # has weight 0
    samples[3, 0] = NAN
    weights = np.where(np.arange(12) == 4, 0.0, 1.0)
    groups = Groups(KEYS, samples, weights, np.array([0, 5, 12]), np.arange(12))
    lost = replace(hand_made_result(diagonal=False), status=np.full(2, jaxgmm.Status.DEGENERATE, np.int32))
    found = tabular.fits_table(groups, lost, ["f", "g"], FLAGGED)["explanation"].to_pylist()
    sentence = jaxgmm.Status.DEGENERATE.sentence
    assert found == [f"{sentence[:-1]} (g).", sentence]


def test_components_table_names_every_covariance_entry():
    rows = tabular.components_table(KEYS, hand_made_result(diagonal=False), ["f", "g"], FLAGGED).to_pylist()
    names = ["cell", "component", "weight", "mean_f", "mean_g", "covariance_f_f", "covariance_g_f", "covariance_g_g"]
    assert [list(row) for row in rows] == [[*names, "flags"]] * 4
    assert list(rows[0].values()) == ["a", 0, 0.25, 10, 20, 1, 0.25, 2, "max_iter, spurious"]
    assert list(rows[1].values()) == ["a", 1, 0.75, 30, 40, 3, -0.5, 4, "max_iter, spurious"]
    assert [list(row.values()) for row in rows[2:]] == [[None, k, *[None] * 6, "no_answer"] for k in range(2)]


def test_components_table_of_axis_aligned_families_holds_variances():
    rows = tabular.components_table(KEYS, hand_made_result(diagonal=True), ["f", "g"], FLAGGED).to_pylist()
    assert list(rows[1].items())[5:7] == [("variance_f", 3), ("variance_g", 4)]


def test_models_table_has_the_flags_of_each_model():
    models = {
        "data_set": np.array([0, 0, 1]),
        "n_components": np.array([1, 2, 1]),
        "chosen": np.array([False, True, False]),
    }
    models |= {
        "log_likelihood": np.array([-1.0, -2.0, NAN]),
        "gap": np.array([1e-3, 1e-10, NAN]),
        "status": np.array(["MAX_ITER", "CONVERGED", "NONFINITE"]),
    }
    models |= {
        "spurious": np.zeros(3, int),
        "ridge_dominated": np.zeros(3, int),
        "start_passed_over": np.zeros(3, bool),
    }
    rows = tabular.models_table(KEYS, models, FLAGGED).to_pylist()
    assert [row["flags"] for row in rows] == ["max_iter", "max_iter, spurious", "no_answer"]
    assert [row["cell"] for row in rows] == ["a", "a", None]
    assert [row["log_likelihood"] for row in rows] == [-1.0, -2.0, None]


@pytest.mark.parametrize(
    ("by", "features", "name"),
    [
        (["status"], ["f"], "status"),
        (["flags"], ["f"], "flags"),
        (["weight"], ["f"], "weight"),
        (["k"], ["c", "b_c", "a", "a_b"], "covariance_a_b_c"),
    ],
)
def test_names_that_collide_in_the_output_are_refused(by, features, name):
    with pytest.raises(ValueError, match=f"would be called '{name}'; rename a column"):
        tabular.check_output_columns(by, features)


def test_names_that_do_not_collide_are_accepted():
    tabular.check_output_columns(["plate", "well"], ["red", "green"])


@pytest.mark.parametrize("diagonal", [False, True])
def test_mixtures_are_read_back_from_the_table_of_components(diagonal):
    draw, features = np.random.default_rng(0), ["red", "green", "blue"]
    factors = draw.normal(size=(3, 4, 3, 3))
    covariances = draw.uniform(1, 2, (3, 4, 3)) if diagonal else factors @ factors.swapaxes(-1, -2)
    mixture = jaxgmm.Mixture(draw.dirichlet(np.ones(4), 3), draw.normal(size=(3, 4, 3)), covariances)
    mixture.weights[1, 2:] = 0
    for leaf in mixture.arrays:
        leaf[2] = np.nan
    result = jaxgmm.FitResult(mixture, *[np.zeros(3)] * 13, history=None, efficiency=1.0)
    table = tabular.components_table(pa.table({"tile": [0, 1, 2]}), result, features, {"spurious": np.zeros(3, bool)})
    assert table.num_rows == 4 + 2 + 4
    read = tabular.mixture_of(table, 3, features)
    for leaf, expected in zip(read.arrays, mixture.arrays, strict=True):
        np.testing.assert_array_equal(leaf[0], expected[0])
        np.testing.assert_array_equal(leaf[1, :2], expected[1, :2])
        assert np.isnan(leaf[2]).all()
    assert np.all(read.weights[1, 2:] == 0)
