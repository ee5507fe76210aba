"""Tables in parts: every row once, groups whole, whatever the order of rows and the size of row groups."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from jaxgmm.tables import counting, parts, ranges
from jaxgmm.tables import rows as rows_module
from jaxgmm.tables.groups import group
from jaxgmm.tables.rows import open_rows

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
    rows = open_rows(path, COLUMNS)
    planned = parts.plan(rows, BY, ["x"], None, lambda _: rows_per_part).cut
    wanted = range(planned.n_parts) if wanted is None else wanted
    return planned, list(parts.read(rows, planned, COLUMNS, wanted, tmp_path / "aside"))


@pytest.fixture(params=[3, 131_072], ids=["small blocks", "large blocks"], autouse=True)
def blocks(request, monkeypatch):
    monkeypatch.setattr(rows_module, "_BLOCK", request.param)
    monkeypatch.setattr(counting, "_MANY", request.param)
    # Of several columns: a range is as long as a block, or as the table.
    monkeypatch.setattr(ranges, "_NUMBERS", request.param * 3)


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
    assert planned.first_keys.equals(pa.concat_tables([g.keys.slice(0, 1) for g in groups]))
    assert (tmp_path / "aside").exists() == (rows_per_part < 1000)


def test_a_part_is_of_the_size_asked_for_but_for_its_last_group(tmp_path):
    planned, found = cut(tmp_path, table_of(SHUFFLED), 5)
    sizes = np.array([part.num_rows for part in found])
    assert np.all(sizes - 5 < max(SIZES.values()))
    assert planned.n_parts > 1


@pytest.mark.parametrize("rows", [SHUFFLED, in_order(SHUFFLED)], ids=["in no order", "in order"])
def test_rows_parts_are_what_they_are_among_all(tmp_path, rows):
    planned, everything = cut(tmp_path, table_of(rows), 5)
    wanted = [1, planned.n_parts - 1]
    _, some = cut(tmp_path, table_of(rows), 5, wanted=wanted)
    assert [part.to_pydict() for part in some] == [everything[i].to_pydict() for i in wanted]
    assert [part.num_rows for part in some] == np.diff(planned.ends)[wanted].tolist()


def test_a_key_that_comes_back_is_noticed_across_blocks(tmp_path):
    planned, _ = cut(tmp_path, table_of([("a", 1, 0.0)] * 4 + [("b", 1, 0.0)] * 4 + [("a", 1, 0.0)]), 4)
    assert not planned.is_in_order
    assert planned.n_rows == 9
    assert planned.n_parts == 2


def test_categorical_keys_keep_their_type(tmp_path):
    table = table_of(SHUFFLED)
    table = table.set_column(0, "plate", table["plate"].combine_chunks().dictionary_encode())
    planned, found = cut(tmp_path, table, 5)
    assert planned.first_keys.schema.field("plate").type == table.schema.field("plate").type
    assert {part.schema.field("plate").type for part in found} == {table.schema.field("plate").type}


def test_a_csv_file_has_the_same_parts(tmp_path):
    table = table_of([row for row in SHUFFLED if None not in row])
    csv.write_csv(table, tmp_path / "table.csv")
    rows = open_rows(tmp_path / "table.csv", COLUMNS)
    planned = parts.plan(rows, BY, ["x"], None, lambda _: 5).cut
    found = list(parts.read(rows, planned, COLUMNS, range(planned.n_parts), tmp_path / "aside"))
    expected_plan, expected = cut(tmp_path, table, 5)
    assert planned.first_keys.equals(expected_plan.first_keys)
    assert [part.to_pydict() for part in found] == [part.to_pydict() for part in expected]


def test_misuse_is_noticed_before_the_first_part(tmp_path):
    table = table_of(SHUFFLED).append_column("text", pa.array(["t"] * len(SHUFFLED)))
    table = table.append_column("w", pa.array([*[1.0] * (len(SHUFFLED) - 1), -1.0]))
    pq.write_table(table, tmp_path / "table.parquet")
    rows = open_rows(tmp_path / "table.parquet", COLUMNS)
    with pytest.raises(ValueError, match="'text' holds string, not numbers"):
        parts.plan(rows, BY, ["text"], None, lambda _: 5)
    with pytest.raises(ValueError, match=r"column 'w' holds -1\.0"):
        parts.plan(rows, BY, ["x"], "w", lambda _: 5)
    with pytest.raises(ValueError, match="no column 'y'"):
        open_rows(tmp_path / "table.parquet", ["y"])


def rewritten(path):
    """The same file with another byte, of the same size, and modified hardly later."""
    state, content = path.stat(), bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))


def replaced(path):
    """Another file of the same size and time."""
    state = path.stat()
    shutil.copy(path, path.with_name("other"))
    path.with_name("other").replace(path)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


CHANGES = {
    "rewritten": rewritten,
    "replaced": replaced,
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "removed": lambda path: path.unlink(),
}
CHANGED = (
    r"table\.parquet was changed, replaced or removed while it was read; begin anew with a file that nothing writes"
)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("rows", [SHUFFLED, in_order(SHUFFLED)], ids=["in no order", "in order"])
def test_a_file_that_is_changed_is_not_mixed_with_what_it_was(tmp_path, rows, change):
    path = tmp_path / "table.parquet"

    def opened():
        pq.write_table(table_of(rows), path, row_group_size=5)
        return open_rows(path, COLUMNS)

    before_plan = opened()
    change(path)
    with pytest.raises(ValueError, match=CHANGED):
        parts.plan(before_plan, BY, ["x"], None, lambda _: 5)
    before_reading = opened()
    planned = parts.plan(before_reading, BY, ["x"], None, lambda _: 5).cut
    change(path)
    with pytest.raises(ValueError, match=CHANGED):
        next(parts.read(before_reading, planned, COLUMNS, range(planned.n_parts), tmp_path / "aside"))
    assert not (tmp_path / "aside").exists() or not list((tmp_path / "aside").iterdir())
    before_the_end = opened()
    before_the_end.check_unchanged()
    change(path)
    with pytest.raises(ValueError, match=CHANGED):
        before_the_end.check_unchanged()


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_file_that_is_changed_between_two_parts_is_read_no_further(tmp_path, change):
    path = tmp_path / "table.parquet"
    pq.write_table(table_of(in_order(SHUFFLED)), path, row_group_size=5)
    rows = open_rows(path, COLUMNS)
    planned = parts.plan(rows, BY, ["x"], None, lambda _: 5).cut
    read = parts.read(rows, planned, COLUMNS, range(planned.n_parts), tmp_path / "aside")
    first = next(read)
    change(path)
    if len(ROWS) < rows_module._BLOCK:
        # All rows were read before.
        assert sum(part.num_rows for part in (first, *read)) == len(ROWS)
        return
    with pytest.raises(ValueError, match=CHANGED):
        list(read)


def test_a_csv_file_that_is_changed_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    csv.write_csv(table_of([row for row in SHUFFLED if None not in row]), path)
    read = rows_module.files.read_csv

    def slowly(*args, **kwargs):
        table = read(*args, **kwargs)
        path.write_text(path.read_text() + "d,1,0.5,0.5\n")
        return table

    monkeypatch.setattr(rows_module.files, "read_csv", slowly)
    with pytest.raises(ValueError, match=r"table\.csv was changed, replaced or removed while it was read"):
        open_rows(path, COLUMNS)


FULL = """
import resource, signal, sys
from pathlib import Path
from jaxgmm.tables import counting, parts, ranges
from jaxgmm.tables.rows import open_rows
rows = open_rows(sys.argv[1], ["key", "x"])
planned = parts.plan(rows, ["key"], ["x"], None, lambda _: 1000).cut
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
try:
    next(parts.read(rows, planned, ["key", "x"], range(planned.n_parts), Path(sys.argv[2])))
except OSError as error:
    print(error)
print(*Path(sys.argv[2]).iterdir())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the system has no such limit")
def test_a_disk_that_is_full_while_rows_are_sorted_is_one_line_and_leaves_room(tmp_path):
    draw = np.random.default_rng(0)
    pq.write_table(pa.table({"key": draw.permutation(5000), "x": draw.normal(size=5000)}), tmp_path / "table.parquet")
    words = [sys.executable, "-c", FULL, str(tmp_path / "table.parquet"), str(tmp_path / "aside")]
    said = subprocess.run(words, capture_output=True, text=True, check=True)
    line, *files = said.stdout.split("\n")
    assert line.startswith(f"{tmp_path / 'aside' / '000000'}")
    assert line.endswith(" cannot be written (File too large); free some room, or name another place.")
    assert files == ["", ""]


@pytest.mark.parametrize("damage", ["removed", "cut short", "all removed"])
def test_sorted_rows_that_are_damaged_are_one_line_with_the_remedy(tmp_path, damage):
    pq.write_table(table_of(SHUFFLED), tmp_path / "table.parquet", row_group_size=5)
    rows, aside = open_rows(tmp_path / "table.parquet", COLUMNS), tmp_path / "aside"
    planned = parts.plan(rows, BY, ["x"], None, lambda _: 5).cut
    read = parts.read(rows, planned, COLUMNS, range(planned.n_parts), aside)
    next(read)
    file = aside / "000000.arrow"
    if damage == "all removed":
        shutil.rmtree(aside)
    elif damage == "removed":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(OSError, match=r"000000\.arrow cannot be read .*; resume the job to sort rows again"):
        next(read)
    assert not file.exists()
