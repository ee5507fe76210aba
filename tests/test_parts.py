"""Tables in parts: every row once, groups whole, whatever the order of rows and the size of row groups."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from jaxgmm import parts
from jaxgmm.groups import group

SIZES = {("b", 2): 7, ("b", None): 3, ("a", 5): 1, (None, 1): 4, ("c", 0): 30, ("c", 9): 2}
# Shuffled, so that neither groups nor their rows come in order.
DRAW = np.random.default_rng(0)
ROWS = [(*key, float(i)) for i, key in enumerate(key for key, size in SIZES.items() for _ in range(size))]
SHUFFLED = [ROWS[i] for i in DRAW.permutation(len(ROWS))]
BY, COLUMNS = ["plate", "well"], ["plate", "well", "x"]


def table_of(rows):
    plate, well, x = zip(*rows, strict=True)
    return pa.table({"plate": pa.array(plate), "well": pa.array(well), "x": pa.array(x), "other": pa.array(x)})


def in_order(rows):
    """The rows sorted by key, nulls last; those of a group keep their order."""
    return sorted(rows, key=lambda row: [(value is None, value or 0) for value in row[:2]])


def cut(tmp_path, table, rows_per_part, *, row_group_size=5, wanted=None):
    path = tmp_path / "table.parquet"
    pq.write_table(table, path, row_group_size=row_group_size)
    rows = parts.open_rows(path, COLUMNS)
    planned = parts.plan(rows, BY, ["x"], None, rows_per_part)
    wanted = range(planned.n_parts) if wanted is None else wanted
    return planned, list(parts.read(rows, planned, COLUMNS, wanted, tmp_path / "aside"))


@pytest.fixture(params=[3, 131_072], ids=["small blocks", "large blocks"], autouse=True)
def blocks(request, monkeypatch):
    monkeypatch.setattr(parts.Rows.blocks, "__defaults__", (0, request.param))
    monkeypatch.setattr(parts, "_MANY", request.param)


@pytest.mark.parametrize("rows_per_part", [1, 5, 12, 1000])
@pytest.mark.parametrize("row_group_size", [1, 5, 1000])
def test_parts_of_a_file_in_order_are_its_rows(tmp_path, rows_per_part, row_group_size):
    planned, found = cut(tmp_path, table_of(in_order(SHUFFLED)), rows_per_part, row_group_size=row_group_size)
    assert planned.is_in_order
    assert [row for part in found for row in zip(*part.to_pydict().values(), strict=True)] == in_order(SHUFFLED)
    assert not (tmp_path / "aside").exists()


@pytest.mark.parametrize("rows_per_part", [1, 5, 12, 1000])
def test_parts_of_a_file_in_no_order_hold_whole_groups_in_the_order_of_keys(tmp_path, rows_per_part):
    planned, found = cut(tmp_path, table_of(SHUFFLED), rows_per_part)
    assert not planned.is_in_order
    groups = [group(part, BY, ["x"]) for part in found]
    whole = group(table_of(SHUFFLED), BY, ["x"])
    np.testing.assert_array_equal(np.concatenate([g.samples for g in groups]), whole.samples)
    assert pa.concat_tables([g.keys for g in groups]).equals(whole.keys)
    assert planned.keys.equals(whole.keys)
    np.testing.assert_array_equal(planned.n_samples, whole.n_samples)
    # What is cut aside is removed with the part that needed it.
    assert not list((tmp_path / "aside").iterdir()) if rows_per_part < 1000 else not (tmp_path / "aside").exists()


def test_a_part_is_of_the_size_asked_for_but_for_its_last_group(tmp_path):
    planned, found = cut(tmp_path, table_of(SHUFFLED), 5)
    sizes = np.array([part.num_rows for part in found])
    assert np.all(sizes - 5 < max(SIZES.values()))
    assert planned.n_parts > 1


@pytest.mark.parametrize("rows", [SHUFFLED, in_order(SHUFFLED)], ids=["in no order", "in order"])
def test_some_parts_are_what_they_are_among_all(tmp_path, rows):
    planned, everything = cut(tmp_path, table_of(rows), 5)
    wanted = [1, planned.n_parts - 1]
    _, some = cut(tmp_path, table_of(rows), 5, wanted=wanted)
    assert [part.to_pydict() for part in some] == [everything[i].to_pydict() for i in wanted]
    assert planned.n_groups(wanted) == sum(group(part, BY, ["x"]).keys.num_rows for part in some)


def test_a_key_that_comes_back_is_noticed_across_blocks(tmp_path):
    planned, _ = cut(tmp_path, table_of([("a", 1, 0.0)] * 4 + [("b", 1, 0.0)] * 4 + [("a", 1, 0.0)]), 4)
    assert not planned.is_in_order
    assert planned.n_samples.tolist() == [5, 4]


def test_categorical_keys_keep_their_type(tmp_path):
    table = table_of(SHUFFLED)
    table = table.set_column(0, "plate", table["plate"].combine_chunks().dictionary_encode())
    planned, found = cut(tmp_path, table, 5)
    assert planned.keys.schema.field("plate").type == table.schema.field("plate").type
    assert {part.schema.field("plate").type for part in found} == {table.schema.field("plate").type}


def test_a_csv_file_has_the_same_parts(tmp_path):
    table = table_of([row for row in SHUFFLED if None not in row])
    csv.write_csv(table, tmp_path / "table.csv")
    rows = parts.open_rows(tmp_path / "table.csv", COLUMNS)
    planned = parts.plan(rows, BY, ["x"], None, 5)
    found = list(parts.read(rows, planned, COLUMNS, range(planned.n_parts), tmp_path / "aside"))
    expected_plan, expected = cut(tmp_path, table, 5)
    assert planned.keys.equals(expected_plan.keys)
    assert [part.to_pydict() for part in found] == [part.to_pydict() for part in expected]


def test_misuse_is_noticed_before_the_first_part(tmp_path):
    table = table_of(SHUFFLED).append_column("text", pa.array(["t"] * len(SHUFFLED)))
    table = table.append_column("w", pa.array([*[1.0] * (len(SHUFFLED) - 1), -1.0]))
    pq.write_table(table, tmp_path / "table.parquet")
    rows = parts.open_rows(tmp_path / "table.parquet", COLUMNS)
    with pytest.raises(ValueError, match="'text' holds string, not numbers"):
        parts.plan(rows, BY, ["text"], None, 5)
    with pytest.raises(ValueError, match=r"column 'w' holds -1\.0"):
        parts.plan(rows, BY, ["x"], "w", 5)
    with pytest.raises(ValueError, match="no column 'y'"):
        parts.open_rows(tmp_path / "table.parquet", ["y"])
