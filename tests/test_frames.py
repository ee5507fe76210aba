"""Grouping a table, and fits as tables."""

import math
from datetime import date
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

import jaxgmm
from jaxgmm import frames
from jaxgmm.em.covariance import FAMILIES

NAN = math.nan


def grouped_slowly(table, by, features):
    """The same grouping by a loop over rows: rows of each key, in the order of first appearance."""
    groups = {}
    for row in table.to_pylist():
        key = tuple(row[name] for name in by)
        groups.setdefault(key, []).append([NAN if row[f] is None else float(row[f]) for f in features])
    return groups


def test_groups_hold_the_rows_of_their_key_in_order():
    draw = np.random.default_rng(0)
    letters = np.array(["c", "a", "b", None])[draw.integers(4, size=300)]
    table = pa.table(
        {"i": draw.integers(-2, 3, size=300), "s": letters, "x": draw.normal(size=300), "n": np.arange(300)}
    )
    groups = frames.group(table, ["s", "i"], ["n", "x"])
    expected = grouped_slowly(table, ["s", "i"], ["n", "x"])
    keys = [tuple(row.values()) for row in groups.keys.to_pylist()]
    assert keys == sorted(expected, key=lambda key: (key[0] is None, key))
    assert groups.n_samples.tolist() == [len(expected[key]) for key in keys]
    for key, samples in zip(keys, groups.x, strict=True):
        np.testing.assert_array_equal(samples, expected[key])


@pytest.mark.parametrize(
    ("values", "in_order"),
    [
        (["b", None, "a", "b"], ["a", "b", None]),
        ([2, None, -1, 2], [-1, 2, None]),
        ([True, None, False, True], [False, True, None]),
        ([date(2020, 1, 2), None, date(2020, 1, 1)], [date(2020, 1, 1), date(2020, 1, 2), None]),
        ([Decimal("1.5"), None, Decimal("-2.5")], [Decimal("-2.5"), Decimal("1.5"), None]),
        (pa.array(["b", None, "a", "b"]).dictionary_encode(), ["a", "b", None]),
        ([None, None], [None]),
    ],
    ids=["text", "integers", "truth values", "dates", "decimals", "categorical", "nothing but nulls"],
)
def test_groups_are_sorted_by_key_with_null_a_group_of_its_own(values, in_order):
    column = values if isinstance(values, pa.Array) else pa.array(values)
    table = pa.table({"key": column, "x": np.arange(len(column))})
    groups = frames.group(table, ["key"], ["x"])
    assert groups.keys["key"].to_pylist() == in_order
    assert groups.keys.schema.field("key").type == column.type
    assert groups.n_samples.sum() == len(column)


def test_nan_keys_are_one_group_between_numbers_and_null():
    table = pa.table({"key": pa.array([NAN, 1.0, None, NAN]), "x": [1, 2, 3, 4]})
    groups = frames.group(table, ["key"], ["x"])
    assert [samples[:, 0].tolist() for samples in groups.x] == [[2], [1, 4], [3]]


def test_many_key_columns_do_not_overflow():
    n = 2000
    table = pa.table({f"k{i}": np.arange(n) * (1 + i) for i in range(7)} | {"x": np.arange(n)})
    groups = frames.group(table, [f"k{i}" for i in range(7)], ["x"])
    np.testing.assert_array_equal(groups.samples[:, 0], np.arange(n))
    assert groups.keys.num_rows == n


def test_tables_of_several_chunks_are_grouped_as_one():
    whole = pa.table({"key": pa.array(["b", "a", "b", "a"]).dictionary_encode(), "x": [1.0, 2.0, 3.0, 4.0]})
    other = pa.table({"key": pa.array(["a", "c"]).dictionary_encode(), "x": [5.0, 6.0]})
    groups = frames.group(pa.concat_tables([whole, other]), ["key"], ["x"])
    assert groups.keys["key"].to_pylist() == ["a", "b", "c"]
    assert [samples[:, 0].tolist() for samples in groups.x] == [[2, 4, 5], [1, 3], [6]]


def test_nulls_in_features_become_nan_of_any_type():
    columns = {"i": pa.array([1, None]), "f": pa.array([1.5, None], pa.float32()), "none": pa.nulls(2)}
    columns["d"] = pa.array([Decimal("2.25"), None])
    groups = frames.group(pa.table({"key": ["a", "a"]} | columns), ["key"], list(columns))
    np.testing.assert_array_equal(groups.samples, [[1, 1.5, NAN, 2.25], [NAN] * 4])


def test_weights_follow_their_rows():
    table = pa.table({"key": ["b", "a", "b"], "x": [1, 2, 3], "w": [0.5, 0, 2]})
    groups = frames.group(table, ["key"], ["x"], "w")
    assert [weights.tolist() for weights in groups.sample_weight] == [[0], [0.5, 2]]
    assert frames.group(table, ["key"], ["x"]).sample_weight is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((["key"], ["text"]), "column 'text' holds string, not numbers; convert it"),
        ((["key"], ["truth"]), "column 'truth' holds bool, not numbers"),
        ((["list"], ["x"]), "column 'list' holds list.*cannot be a key"),
        ((["absent"], ["x"]), "no column 'absent'; its columns are key, x"),
        ((["key"], ["x", "x"]), "column 'x' is named twice"),
        ((["x"], ["x"]), "column 'x' is named twice"),
        (([], ["x"]), "no key column is named"),
        ((["key"], []), "no feature column is named"),
        ((["key"], ["x"], "negative"), "weights must not be negative; column 'negative' holds -1.0"),
        ((["key"], ["x"], "text"), "column 'text' holds string, not numbers"),
    ],
)
def test_misuse_is_refused(arguments, words):
    columns = {"key": ["a", "b"], "x": [1, 2], "text": ["1", "2"], "truth": [True, False], "list": [[1], [2]]}
    table = pa.table(columns | {"negative": [1, -1]})
    with pytest.raises(ValueError, match=words):
        frames.group(table, *arguments)


def test_table_without_rows_is_refused():
    with pytest.raises(ValueError, match="the table is empty"):
        frames.group(pa.table({"key": pa.array([], pa.string()), "x": pa.array([], pa.float64())}), ["key"], ["x"])


def hand_made_result(*, diagonal):
    """Two groups, two components, two features; the second group has no answer."""
    covariances = np.array([[[1.0, 0.25], [0.25, 2.0]], [[3.0, -0.5], [-0.5, 4.0]]])
    if diagonal:
        covariances = np.diagonal(covariances, axis1=1, axis2=2)
    leaves = np.array([0.25, 0.75]), np.array([[10.0, 20.0], [30.0, 40.0]]), covariances
    return jaxgmm.FitResult(
        mixture=jaxgmm.Mixture(*(np.stack([leaf, np.full_like(leaf, NAN)]) for leaf in leaves)),
        log_likelihood=np.array([-12.5, NAN]),
        n_iter=np.array([7, 0], np.int32),
        status=np.array([jaxgmm.Status.MAX_ITER, jaxgmm.Status.NONFINITE], np.int32),
        spurious=np.zeros(2, np.int32),
        start_spurious=np.zeros((2, 1), np.int32),
        start_log_likelihood=np.array([[-12.5], [NAN]]),
        start_status=np.array([[1], [3]], np.int32),
        history=None,
        efficiency=1.0,
    )


KEYS = pa.table({"cell": ["a", None]})


def test_fits_table_says_how_every_group_ended():
    rows = frames.fits_table(KEYS, np.array([5, 6]), hand_made_result(diagonal=False)).to_pylist()
    maximum, nonfinite = jaxgmm.Status.MAX_ITER, jaxgmm.Status.NONFINITE
    assert rows == [
        {
            "cell": "a", "n_samples": 5, "log_likelihood": -12.5, "n_iter": 7, "spurious": 0, "status": "MAX_ITER",
            "explanation": maximum.sentence,
        },
        {
            "cell": None, "n_samples": 6, "log_likelihood": None, "n_iter": 0, "spurious": 0, "status": "NONFINITE",
            "explanation": nonfinite.sentence,
        },
    ]  # fmt: skip


def test_components_table_names_every_covariance_entry():
    rows = frames.components_table(KEYS, hand_made_result(diagonal=False), ["f", "g"]).to_pylist()
    names = ["cell", "component", "weight", "mean_f", "mean_g", "covariance_f_f", "covariance_g_f", "covariance_g_g"]
    assert [list(row) for row in rows] == [names] * 4
    assert list(rows[0].values()) == ["a", 0, 0.25, 10, 20, 1, 0.25, 2]
    assert list(rows[1].values()) == ["a", 1, 0.75, 30, 40, 3, -0.5, 4]
    assert [list(row.values()) for row in rows[2:]] == [[None, k, *[None] * 6] for k in range(2)]


def test_components_table_of_axis_aligned_families_holds_variances():
    rows = frames.components_table(KEYS, hand_made_result(diagonal=True), ["f", "g"]).to_pylist()
    assert list(rows[1].items())[5:] == [("variance_f", 3), ("variance_g", 4)]


@pytest.mark.parametrize("family", FAMILIES)
def test_component_columns_are_those_of_the_table(family):
    result = hand_made_result(diagonal=FAMILIES[family].diagonal)
    names = frames.components_table(KEYS, result, ["f", "g"]).column_names
    assert names == ["cell", "component", *frames.component_columns(["f", "g"], family)]


@pytest.mark.parametrize(
    ("by", "features", "name"),
    [
        (["status"], ["f"], "status"),
        (["weight"], ["f"], "weight"),
        (["k"], ["c", "b_c", "a", "a_b"], "covariance_a_b_c"),
    ],
)
def test_names_that_collide_in_the_output_are_refused(by, features, name):
    with pytest.raises(ValueError, match=f"would be called '{name}'; rename a column"):
        frames.check_output_columns(by, features, ["full"])


def test_names_that_do_not_collide_are_accepted():
    frames.check_output_columns(["plate", "well"], ["red", "green"], ["full"])


@pytest.mark.parametrize("diagonal", [False, True])
def test_mixtures_are_read_back_from_the_table_of_components(diagonal):
    draw, features = np.random.default_rng(0), ["red", "green", "blue"]
    factors = draw.normal(size=(3, 4, 3, 3))
    covariances = draw.uniform(1, 2, (3, 4, 3)) if diagonal else factors @ factors.swapaxes(-1, -2)
    mixture = jaxgmm.Mixture(draw.dirichlet(np.ones(4), 3), draw.normal(size=(3, 4, 3)), covariances)
    mixture.weights[1, 2:] = 0
    for leaf in mixture:
        leaf[2] = np.nan
    result = jaxgmm.FitResult(mixture, *[np.zeros(3)] * 7, history=None, efficiency=1.0)
    table = frames.components_table(pa.table({"tile": [0, 1, 2]}), result, features)
    assert table.num_rows == 4 + 2 + 4
    read = frames.mixture_of(table, 3, features)
    for leaf, expected in zip(read, mixture, strict=True):
        np.testing.assert_array_equal(leaf[0], expected[0])
        np.testing.assert_array_equal(leaf[1, :2], expected[1, :2])
        assert np.isnan(leaf[2]).all()
    assert np.all(read.weights[1, 2:] == 0)
