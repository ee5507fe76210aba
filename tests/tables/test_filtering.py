"""Rows that satisfy a condition are those that SQLite selects, whatever row groups and folders rule out beforehand."""

import datetime
import sqlite3
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from jaxgmm.tables import filtering
from jaxgmm.tables import rows as rows_module
from jaxgmm.tables.condition import parsed
from jaxgmm.tables.rows import open_rows

DAYS = [datetime.date(2024, 1, day) for day in (1, 2, 31)]
# Sorted in part, so that some row groups are ruled out; in one, all numbers but NaN are equal.
TABLE = pa.table(
    {
        "row": pa.array(range(24)),
        "plate": pa.array([1] * 6 + [2] * 6 + [None, 3] * 3 + [-7] * 6, pa.int16()),
        "red": pa.array([0.5, 1.5, None] * 2 + [2.0, 2.0, np.nan] * 2 + [1.0, 2.5, -1e9] * 4, pa.float64()),
        "green": pa.array([1.5, 2.5, np.nan, 0.5] * 6, pa.float32()),
        "well": pa.array(["A01", "B'2", None, ""] * 6),
        "kind": pa.array(["x", "y", None] * 8).dictionary_encode(),
        "is_good": pa.array([True, False, None] * 8),
        "day": pa.array([*DAYS, None] * 6, pa.date32()),
        "price": pa.array([Decimal("1.50"), Decimal("2.25"), None] * 8, pa.decimal128(9, 2)),
        "red, far": pa.array([1, 2, 3] * 8, pa.uint8()),
        "zero": pa.array([0.0, -0.0, None, 3.0] * 6, pa.float64()),
        "viewed": pa.array(["v1", "v2", None] * 8, pa.string_view()),
    }
)
CONDITIONS = [
    "plate = 1",
    "plate == 1 AND red > 1",
    "plate in (1, 3) or well = 'A01'",
    "not plate in (1, 3)",
    "plate NOT IN (1, 3)",
    "plate in (1, 2.5)",
    "not (plate = 1 or red < 2)",
    "not (plate = 1 and not red < 2)",
    "red is null",
    "red is not null and plate is not null",
    "not red is null or not green is not null",
    "red <> 2",
    "red != 2.0 and red >= -1000000000",
    "not red = 2",
    "not red < 2",
    "red = green",
    "red <> green",
    "not red > green",
    "red not in (2)",
    "zero in (0, 5)",
    "zero not in (-0.0)",
    "plate in (1, -0.0) or row in (-0.0)",
    "green = 0.5",
    "well = 'B''2'",
    "well <> ''",
    "well > 'A' and well is not null",
    "kind = 'x' or kind is null",
    "kind not in ('x', 'z')",
    "is_good = true",
    "is_good != TRUE",
    "not is_good = false",
    "day >= '2024-01-02'",
    "day in ('2024-01-01', '2024-01-31') and day <> '2024-01-01'",
    "price = 1.5",
    "price in (1.5, 2) or price < 2",
    '"red, far" <= 1',
    "`red, far` > 2 and red < .5e1",
    '"red, far" < 300 and "red, far" <> -1 and plate > -300 and plate < 99999',
    "viewed = 'v1'",
    "red < 99999999999999999999999999",
    "plate > +1 or plate<-6",
    "1 < plate",
]


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """The table with several row groups, and cut into folders, of which one is called as a column of the files."""
    folder = tmp_path_factory.mktemp("tables")
    pq.write_table(TABLE, folder / "table.parquet", row_group_size=3)
    for plate in (1, 2, None, 3, -7):
        own = folder / "folders" / f"plate={'__HIVE_DEFAULT_PARTITION__' if plate is None else plate}"
        own.mkdir(parents=True)
        rows = [TABLE.slice(i, 1) for i, value in enumerate(TABLE["plate"].to_pylist()) if value == plate]
        pq.write_table(pa.concat_tables(rows), own / "part.parquet", row_group_size=3)
    return [folder / "table.parquet", folder / "folders"]


@pytest.fixture(scope="module")
def selected():
    """What SQLite selects. It takes NaN for null, and knows no dates and decimals."""
    database = sqlite3.connect(":memory:")
    as_sql = {"day": pa.string(), "price": pa.float64()}
    columns = [TABLE[name].cast(as_sql[name]) if name in as_sql else TABLE[name] for name in TABLE.column_names]
    kinds = ["TEXT" if str(column[0].as_py()) == column[0].as_py() else "NUMERIC" for column in columns]
    names = ", ".join(f'"{name}" {kind}' for name, kind in zip(TABLE.column_names, kinds, strict=True))
    database.execute(f"create table cells ({names})")
    marks = ", ".join("?" for _ in columns)
    values = zip(*(column.to_pylist() for column in columns), strict=True)
    database.executemany(f"insert into cells values ({marks})", values)
    return lambda where: [row for (row,) in database.execute(f"select row from cells where {where} order by row")]


def found(path, where, columns=("row",)):
    rows = open_rows(path, columns, where=where)
    return pa.concat_tables(rows.blocks(list(columns)))["row"].to_pylist()


@pytest.mark.parametrize("where", CONDITIONS)
def test_rows_are_those_that_sql_selects(paths, selected, where):
    expected = selected(where)
    assert 0 < len(expected) < TABLE.num_rows
    for path in paths:
        assert sorted(found(path, where)) == expected


def test_conditions_may_be_nested_in_any_way(paths, selected):
    draw = np.random.default_rng(0)
    leaves = [where for where in CONDITIONS if " and " not in where and " or " not in where.lower()]

    def condition(depth):
        if depth == 0:
            return str(draw.choice(leaves))
        parts = [condition(depth - 1) for _ in range(2)]
        negation, join = draw.choice(["", "not "]), draw.choice(["and", "or"])
        return f"{negation}({parts[0]}) {join} {parts[1]}"

    conditions = [condition(int(draw.integers(1, 4))) for _ in range(60)]
    some = [where for where in conditions if selected(where)]
    assert len(some) > 30
    for where in some:
        assert found(paths[0], where) == selected(where), where


def test_chains_compare_neighbours(paths, selected):
    assert found(paths[0], "-7 < plate < red <= 2.5") == selected("-7 < plate and plate < red and red <= 2.5")
    assert found(paths[0], "not 1 < plate < 3") == selected("not (1 < plate and plate < 3)")


def test_row_groups_that_cannot_satisfy_a_condition_are_not_read(paths):
    none = pa.table({})

    def groups(where):
        return filtering.row_groups(paths[0], TABLE.schema, none, parsed(where))

    assert groups("plate = 1") == [0, 1]
    assert groups("plate = 2 and red > 3") == []
    assert groups("row in (3, 23)") == [1, 7]
    # These hold NaN, of which statistics do not tell.
    assert set(groups("red is null")) >= {0, 1, 2, 3}


def test_files_whose_folders_rule_out_a_condition_are_not_opened(paths, monkeypatch):
    opened, files = [], rows_module.files
    monkeypatch.setattr(files, "opened", lambda path, open_=files.opened: (opened.append(path), open_(path))[1])
    assert len(found(paths[1], "plate = 3 and red > 0", ["row", "plate"])) == 2
    assert {path.parent.name for path in opened} == {"plate=1", "plate=3"}


def test_a_csv_file_is_filtered_as_it_is_read(tmp_path):
    texts = "row,well,red,note\n0,001,1.50,a\n1,01,2,\n2,001,,c\n3,002,NaN,d\n"
    (tmp_path / "table.csv").write_text(texts)
    # With keys it is read whole, and otherwise block by block.
    for columns, options in ((["row", "red"], {"are_numbers": True}), (["row", "well"], {"keys": ["well"]})):
        for where, rows in {
            "well = '001'": [0, 2],
            "red >= 1.5 and well <> '002'": [0, 1],
            "red is null": [2, 3],
            "note in ('a', 'd')": [0, 3],
        }.items():
            opened = open_rows(tmp_path / "table.csv", columns, where=where, **options)
            assert pa.concat_tables(opened.blocks(["row"]))["row"].to_pylist() == rows
    assert opened.n_rows == 2


def test_blocks_of_the_rows_that_are_left_begin_anywhere_and_are_not_small(paths, monkeypatch, selected):
    monkeypatch.setattr(rows_module, "_BLOCK", 4)
    where = "row <> 5 and row <> 6"
    rows = open_rows(paths[0], ["row"], where=where)
    assert rows.n_rows is None
    for start in range(0, 25, 5):
        blocks = list(rows.blocks(["row"], start))
        expected = [row for row in selected(where) if row >= start]
        assert [row for block in blocks for row in block["row"].to_pylist()] == expected
        assert all(block.num_rows >= 2 for block in blocks[:-1])
    assert sum(block.num_rows for block in rows.blocks([])) == 22


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("plate = '1'", "'plate' holds int16, and is compared with '1'; compare it with a number, such as 7"),
        ("plate = true", "'plate' holds int16, and is compared with True; compare it with a number"),
        ("well = 1", "'well' holds string, and is compared with 1; compare it with a text, such as 'A01'"),
        ("kind in ('x', 1)", "'kind' holds string, and is compared with 1"),
        ("day > '31 Jan'", "'day' holds date32.*, and is compared with '31 Jan'; .* a time, such as '2024-01-31'"),
        ("is_good = 1", "'is_good' holds bool, and is compared with 1; compare it with true or false, such as true"),
        ("plate = well", "'plate' holds int16, and is compared with column 'well', which holds string"),
        ("plate = 99", "no row of .* satisfies 'plate = 99'; change the condition"),
        ("plate = 2 and red = 2.5", "no row of .* satisfies"),
        ("wells = 'A01'", "no column 'wells', which the condition names; did you mean 'well'?"),
        ('well = "A01"', "no column 'A01', .* texts are in single quotes"),
    ],
)
def test_conditions_that_no_row_can_satisfy_are_one_sentence(paths, where, words):
    for path in paths[: 2 if "int16" not in words else 1]:
        with pytest.raises(ValueError, match=words) as caught:
            found(path, where)
        assert "\n" not in str(caught.value)


def test_columns_that_cannot_be_compared_are_refused(tmp_path):
    pq.write_table(pa.table({"row": [1], "red": [[1.0]]}), tmp_path / "lists.parquet")
    with pytest.raises(ValueError, match=r"'red' holds list.*, which cannot be compared; leave it out"):
        found(tmp_path / "lists.parquet", "red = 1")


def test_times_with_a_zone_are_compared_with_such_times(tmp_path):
    times = pa.array([0, 3600, 7200], pa.timestamp("s", "Europe/Berlin"))
    pq.write_table(pa.table({"row": [0, 1, 2], "seen": times}), tmp_path / "zones.parquet")
    assert found(tmp_path / "zones.parquet", "seen >= '1970-01-01T01:00Z'") == [1, 2]
    assert found(tmp_path / "zones.parquet", "seen in ('1970-01-01T02:00+01:00')") == [1]
    with pytest.raises(ValueError, match=r"compare it with a time and its zone, such as '2024-01-31T12:00Z'"):
        found(tmp_path / "zones.parquet", "seen > '1970-01-01'")


def test_columns_that_are_not_compared_may_be_ambiguous(tmp_path):
    table = pa.table([[0, 1], [1.0, 2.0], [3.0, 4.0], [[1], [2]]], names=["row", "red", "red", "list"])
    pq.write_table(table, tmp_path / "twice.parquet")
    assert found(tmp_path / "twice.parquet", "row > 0") == [1]
    with pytest.raises(ValueError, match="2 columns called 'red'; rename all but one"):
        found(tmp_path / "twice.parquet", "red = 1")


def test_integers_beyond_the_reach_of_floats_are_compared_exactly_or_not_at_all(tmp_path):
    large = 2**62
    pq.write_table(pa.table({"row": [0, 1, 2], "key": [large, large + 1, 3]}), tmp_path / "large.parquet")
    assert found(tmp_path / "large.parquet", f"key = {large + 1}") == [1]
    assert found(tmp_path / "large.parquet", f"key in (3, {large})") == [0, 2]
    # The statistics of this file say that all of its values are equal.
    pq.write_table(pa.table({"row": [0, 1], "key": [large + 1] * 2}), tmp_path / "equal.parquet")
    for name in ("large", "equal"):
        with pytest.raises(ValueError, match=r"cannot be evaluated .* compare columns with values of their types"):
            found(tmp_path / f"{name}.parquet", "key > 2.5")


def test_long_lists_and_many_comparisons_are_no_burden(tmp_path):
    pq.write_table(pa.table({"row": np.arange(20_000)}), tmp_path / "long.parquet")
    values = ", ".join(map(str, range(0, 20_000, 2)))
    assert len(found(tmp_path / "long.parquet", f"row in ({values})")) == 10_000
    # More than Arrow's stack has room for, if they were nested.
    many = " or ".join(f"row = {i}" for i in range(1000))
    pq.write_table(pa.table({"row": np.arange(2000)}), tmp_path / "short.parquet")
    assert len(found(tmp_path / "short.parquet", many)) == 1000


def test_a_csv_file_may_be_written_by_arrow(tmp_path):
    csv.write_csv(TABLE.select(["row", "well", "red"]), tmp_path / "table.csv")
    assert found(tmp_path / "table.csv", "well = 'A01' and row < 9") == [0, 4, 8]
