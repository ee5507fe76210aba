"""Rows of several files are those of one file after another, in blocks that are not small."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from jaxgmm.tables import parts, whole
from jaxgmm.tables import rows as rows_module
from jaxgmm.tables.groups import group
from jaxgmm.tables.rows import open_rows

DRAW = np.random.default_rng(0)
# Numbers of rows of the files, of which one has none.
SIZES = {1: 7, 2: 0, 3: 1, 9: 30, 10: 12}
PLATE = np.repeat(list(SIZES), list(SIZES.values()))
WELL = [["A", "B", "C"][i] for i in DRAW.integers(0, 3, len(PLATE))]
TABLE = pa.table({"plate": PLATE, "well": WELL, "red": DRAW.normal(size=len(PLATE)), "green": np.arange(len(PLATE))})
COLUMNS = ["green", "plate", "red"]


@pytest.fixture(params=["parquet", "csv"])
def folder(request, tmp_path):
    for plate in SIZES:
        own = tmp_path / "data" / f"plate={plate}"
        own.mkdir(parents=True)
        table = TABLE.filter(pa.array(plate == PLATE)).drop_columns("plate")
        if request.param == "csv":
            csv.write_csv(table, own / "x.csv")
        else:
            pq.write_table(table, own / "x.parquet", row_group_size=4)
    return tmp_path / "data"


@pytest.mark.parametrize("size", [3, 8, 1000])
def test_blocks_are_those_of_one_file_after_another(folder, size):
    rows = open_rows(folder, COLUMNS, are_numbers=True)
    for start in (0, 7, 8, 20, 49):
        blocks = list(rows.blocks(COLUMNS, start, size=size))
        found = pa.concat_tables(blocks)
        for name in COLUMNS:
            np.testing.assert_array_equal(found[name], TABLE[name].slice(start), err_msg=name)
        assert all(2 * block.num_rows >= min(size, 4) for block in blocks[:-1])
    assert list(rows.blocks(COLUMNS, TABLE.num_rows)) == []
    assert sum(block.num_rows for block in rows.blocks([])) == TABLE.num_rows
    assert rows.types(["plate"]) == {"plate": "int64"}


def test_folders_are_keys_by_which_rows_are_in_order(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "_BLOCK", 5)
    for by in (["plate"], ["well", "plate"]):
        rows = open_rows(folder, [*by, "red"], keys=by)
        planned = parts.plan(rows, by, ["red"], None, lambda _: 10).cut
        assert planned.is_in_order == (by == ["plate"])
        found = [
            group(part, by, ["red"])
            for part in parts.read(rows, planned, [*by, "red"], range(planned.n_parts), tmp_path / "aside")
        ]
        expected = group(TABLE, by, ["red"])
        assert pa.concat_tables([own.keys for own in found]).equals(expected.keys)
        np.testing.assert_array_equal(np.concatenate([own.samples for own in found]), expected.samples)


@pytest.mark.parametrize("where", [None, "green <> 3 and plate <> 3"])
def test_later_parts_are_what_they_are_among_all(folder, tmp_path, where):
    rows = open_rows(folder, COLUMNS, keys=["plate"], where=where)
    planned = parts.plan(rows, ["plate"], ["red"], None, lambda _: 10).cut
    every = list(parts.read(rows, planned, COLUMNS, range(planned.n_parts), tmp_path / "aside"))
    assert planned.n_parts > 1
    for first in range(planned.n_parts):
        wanted = range(first, planned.n_parts)
        some = list(parts.read(rows, planned, COLUMNS, wanted, tmp_path / "aside"))
        assert [part.to_pydict() for part in some] == [part.to_pydict() for part in every[first:]]


def test_all_files_are_one_data_set(folder):
    rows = open_rows(folder, ["red", "plate"], are_numbers=True)
    found = whole.read(rows, TABLE.num_rows, ["red", "plate"], None)
    np.testing.assert_array_equal(found.samples, np.stack([TABLE["red"], PLATE], axis=1))


def test_a_column_of_a_file_gives_way_to_its_folder(tmp_path):
    (tmp_path / "key=b").mkdir()
    pq.write_table(pa.table({"x": [1.0, 2.0], "key": [7, 8]}), tmp_path / "key=b" / "x.parquet")
    rows = open_rows(tmp_path, ["x", "key"])
    assert next(rows.blocks(["key", "x"])).to_pydict() == {"key": ["b", "b"], "x": [1.0, 2.0]}
    assert open_rows(tmp_path, ["x"], where="key = 'b' and x > 1").schema.names == ["x", "key"]


def test_folders_written_differently_are_different_keys(tmp_path):
    for key in ("001", "1"):
        (tmp_path / f"key={key}").mkdir()
        pq.write_table(pa.table({"x": [1.0]}), tmp_path / f"key={key}" / "x.parquet")
    rows = open_rows(tmp_path, ["key"])
    assert pa.concat_tables(rows.blocks(["key"]))["key"].to_pylist() == ["001", "1"]


@pytest.mark.parametrize("change", ["rewritten", "removed"])
def test_each_file_is_the_one_that_was_opened(folder, change):
    rows = open_rows(folder, COLUMNS, are_numbers=True)
    path = rows.source.paths[3]
    blocks = rows.blocks(COLUMNS, size=2)
    next(blocks)
    if change == "removed":
        path.unlink()
    else:
        path.write_bytes(rows.source.paths[0].read_bytes())
    with pytest.raises(ValueError, match=f"{path} was changed, replaced or removed while it was read"):
        list(blocks)
    with pytest.raises(ValueError, match=f"{path} was changed, replaced or removed while it was read"):
        rows.check_unchanged()


def test_files_of_different_columns_are_refused_by_both_names(tmp_path):
    tables = {
        "one": pa.table({"x": [1.0], "y": [1.0], "other": [1]}),
        "two": pa.table({"x": [1], "y": ["a"], "other": ["a"]}),
        "lone": pa.table({"x": [1.0]}),
    }
    for name, table in tables.items():
        pq.write_table(table, tmp_path / f"{name}.parquet")
        csv.write_csv(table, tmp_path / f"{name}.csv")

    def opened(names, kind, columns):
        pattern = str(tmp_path / f"[{''.join(name[0] for name in names)}]*.{kind}")
        return open_rows(pattern, columns)

    with pytest.raises(ValueError, match=r"lone.parquet has no column 'y'; its columns are x"):
        opened(["one", "lone"], "parquet", ["x", "y"])
    with pytest.raises(ValueError, match=r"'x' holds double in .*one.parquet, and int64 in .*two.parquet; convert"):
        opened(["one", "two"], "parquet", ["x"])
    with pytest.raises(ValueError, match=r"'y' holds int64 in .*one.csv, and string in .*two.csv; convert"):
        opened(["one", "two"], "csv", ["x", "y"])
    # Columns that are not read may differ, and numbers of CSV files are numbers.
    assert opened(["one", "lone"], "parquet", ["x"]).n_rows == 2
    assert opened(["one", "two"], "csv", ["x"]).n_rows == 2


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_later_file_without_a_column_is_refused_by_both_names(tmp_path, kind):
    write = pq.write_table if kind == "parquet" else csv.write_csv
    write(pa.table({"x": [1.0], "y": [1.0]}), tmp_path / f"a.{kind}")
    write(pa.table({"x": [1.0]}), tmp_path / f"b.{kind}")
    for options in ({}, {"are_numbers": True}):
        with pytest.raises(ValueError, match=rf"b.{kind} has no column 'y', which .*a.{kind} has; name files of the"):
            open_rows(tmp_path, ["x", "y"], **options)


def test_keys_of_csv_files_have_the_type_in_which_all_are_written(tmp_path):
    (tmp_path / "a.csv").write_text("key,x\n1,1\n2,\n")
    (tmp_path / "b.csv").write_text("key,x\n3,1.5\n")
    assert open_rows(tmp_path, ["key", "x"], keys=["key"]).types(["key", "x"]) == {"key": "int64", "x": "double"}
    (tmp_path / "c.csv").write_text("key,x\n003,1.5\n")
    rows = open_rows(tmp_path, ["key", "x"], keys=["key"])
    assert pa.concat_tables(rows.blocks(["key"]))["key"].to_pylist() == ["1", "2", "3", "003"]


def test_files_without_any_row_are_refused(tmp_path):
    for name in ("a", "b"):
        pq.write_table(TABLE.slice(0, 0), tmp_path / f"{name}.parquet")
    with pytest.raises(ValueError, match="is empty; it needs at least one row"):
        open_rows(tmp_path, ["red"])


def test_memory_holds_less_than_one_of_the_files(tmp_path):
    for number in range(4):
        table = pa.table({name: DRAW.normal(size=200_000) for name in "xyz"})
        pq.write_table(table, tmp_path / f"{number}.parquet", row_group_size=50_000)
    rows = open_rows(tmp_path, ["x", "y"], where="z > 1")
    before = pa.total_allocated_bytes()
    held = [pa.total_allocated_bytes() - before for _ in rows.blocks(["x", "y"], size=2**14)]
    assert max(held) < table.nbytes
