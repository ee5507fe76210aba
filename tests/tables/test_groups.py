"""Grouping the rows of a table."""

import math
from datetime import date
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from jaxgmm.tables.groups import check_named, group

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
    groups = group(table, ["s", "i"], ["n", "x"])
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
    groups = group(table, ["key"], ["x"])
    assert groups.keys["key"].to_pylist() == in_order
    assert groups.keys.schema.field("key").type == column.type
    assert groups.n_samples.sum() == len(column)


def test_nan_keys_are_one_group_between_numbers_and_null():
    table = pa.table({"key": pa.array([NAN, 1.0, None, NAN]), "x": [1, 2, 3, 4]})
    groups = group(table, ["key"], ["x"])
    assert [samples[:, 0].tolist() for samples in groups.x] == [[2], [1, 4], [3]]


@pytest.mark.parametrize("type_", [np.float32, np.float64])
def test_nan_keys_are_one_group_whatever_their_bits(type_):
    # Processors make NaN of either sign.
    keys = np.array([NAN, 1.0, -NAN, NAN], type_)
    assert len({key.tobytes() for key in keys}) == 3
    groups = group(pa.table({"key": keys, "x": [1, 2, 3, 4]}), ["key"], ["x"])
    assert [samples[:, 0].tolist() for samples in groups.x] == [[2], [1, 3, 4]]


def test_more_keys_than_sixteen_bits_hold_are_sorted():
    draw = np.random.default_rng(0)
    keys = draw.permutation(np.repeat(np.arange(70_000), 2))
    groups = group(pa.table({"key": keys, "x": np.arange(140_000)}), ["key"], ["x"])
    order = np.argsort(keys, kind="stable")
    np.testing.assert_array_equal(groups.keys["key"].to_numpy(), np.arange(70_000))
    np.testing.assert_array_equal(groups.rows, order)
    np.testing.assert_array_equal(groups.samples[:, 0], order)


def test_many_key_columns_do_not_overflow():
    n = 2000
    table = pa.table({f"k{i}": np.arange(n) * (1 + i) for i in range(7)} | {"x": np.arange(n)})
    groups = group(table, [f"k{i}" for i in range(7)], ["x"])
    np.testing.assert_array_equal(groups.samples[:, 0], np.arange(n))
    assert groups.keys.num_rows == n


def test_tables_of_several_chunks_are_grouped_as_one():
    whole = pa.table({"key": pa.array(["b", "a", "b", "a"]).dictionary_encode(), "x": [1.0, 2.0, 3.0, 4.0]})
    other = pa.table({"key": pa.array(["a", "c"]).dictionary_encode(), "x": [5.0, 6.0]})
    groups = group(pa.concat_tables([whole, other]), ["key"], ["x"])
    assert groups.keys["key"].to_pylist() == ["a", "b", "c"]
    assert [samples[:, 0].tolist() for samples in groups.x] == [[2, 4, 5], [1, 3], [6]]


def test_nulls_in_features_become_nan_of_any_type():
    columns = {"i": pa.array([1, None]), "f": pa.array([1.5, None], pa.float32()), "none": pa.nulls(2)}
    columns["d"] = pa.array([Decimal("2.25"), None])
    groups = group(pa.table({"key": ["a", "a"]} | columns), ["key"], list(columns))
    np.testing.assert_array_equal(groups.samples, [[1, 1.5, NAN, 2.25], [NAN] * 4])


def test_weights_follow_their_rows():
    table = pa.table({"key": ["b", "a", "b"], "x": [1, 2, 3], "w": [0.5, 0, 2]})
    groups = group(table, ["key"], ["x"], "w")
    assert [weights.tolist() for weights in groups.sample_weight] == [[0], [0.5, 2]]
    assert group(table, ["key"], ["x"]).sample_weight is None


def test_samples_that_cannot_be_used_are_counted():
    weights = pa.array([1.0, 0.0, 1.0, None, 2.0])
    table = pa.table({"cell": ["b", "b", "b", "a", "a"], "x": [math.inf, math.nan, None, 1.0, 2.0], "w": weights})
    assert group(table, ["cell"], ["x"]).n_unusable.tolist() == [0, 3]
    # A weight of 0 leaves a sample out, and one that is missing spoils it.
    assert group(table, ["cell"], ["x"], "w").n_unusable.tolist() == [1, 2]


def test_without_keys_all_rows_are_one_group():
    groups = group(pa.table({"x": [3, 1, 2], "w": [1.0, 0.0, 2.0]}), [], ["x"], "w")
    assert (groups.keys.num_columns, groups.keys.num_rows) == (0, 1)
    assert groups.n_samples.tolist() == [3]
    assert [x[:, 0].tolist() for x in groups.x] == [[3, 1, 2]]
    assert [weights.tolist() for weights in groups.sample_weight] == [[1, 0, 2]]


def test_keys_are_needed_where_they_are_asked_for():
    check_named(["x"], [], ["x"], None, needs_key=False)
    with pytest.raises(ValueError, match="no key column is named"):
        check_named(["x"], [], ["x"], None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((["key"], ["text"]), "column 'text' holds string, not numbers; convert it"),
        ((["key"], ["limits"]), "column 'limits' holds string, not numbers, such as '<0.01'; convert it"),
        ((["key"], ["gaps"]), "column 'gaps' holds string, not numbers, such as 'NA'; convert it"),
        ((["key"], ["truth"]), "column 'truth' holds bool, not numbers"),
        ((["list"], ["x"]), "column 'list' holds list.*cannot be a key"),
        ((["absent"], ["x"]), "no column 'absent'; its columns are key, x"),
        ((["key"], ["x", "x"]), "column 'x' is named twice"),
        ((["x"], ["x"]), "column 'x' is named twice"),
        ((["key"], []), "no feature column is named"),
        ((["key"], ["x"], "negative"), "weights must not be negative; column 'negative' holds -1.0"),
        ((["key"], ["x"], "text"), "column 'text' holds string, not numbers"),
    ],
)
def test_misuse_is_refused(arguments, words):
    columns = {"key": ["a", "b"], "x": [1, 2], "text": ["1", "2"], "truth": [True, False], "list": [[1], [2]]}
    columns |= {"limits": ["NA", "<0.01"], "gaps": ["NA", "2"]}
    table = pa.table(columns | {"negative": [1, -1]})
    with pytest.raises(ValueError, match=words):
        group(table, *arguments)


def test_a_column_that_two_are_called_like_is_refused_if_it_is_needed():
    table = pa.table([[1], [2], [3.0], [4]], names=["key", "x", "other", "other"])
    assert group(table, ["key"], ["x"]).n_samples.tolist() == [1]
    with pytest.raises(ValueError, match="the table has 2 columns called 'other'; rename all but one"):
        group(table, ["key"], ["x"], "other")


def test_names_that_are_no_texts_are_listed_in_few_words():
    with pytest.raises(ValueError, match=r"no column 'x'; its columns are 0, 1, 2, 3.*…\.") as caught:
        check_named([*range(10_000), "key"], ["key"], ["x"], None)
    assert len(str(caught.value)) < 300


def test_table_without_rows_is_refused():
    with pytest.raises(ValueError, match="the table is empty"):
        group(pa.table({"key": pa.array([], pa.string()), "x": pa.array([], pa.float64())}), ["key"], ["x"])


def test_minus_zero_is_zero():
    table = pa.table({"key": [0.0, -0.0, 1.0], "x": [1, 2, 3]})
    assert group(table, ["key"], ["x"]).n_samples.tolist() == [2, 1]
