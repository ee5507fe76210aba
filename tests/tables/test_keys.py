"""Keys of groups in CSV files: different texts are different keys, and keys find the groups that were fitted."""

import datetime
import io
import math
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from jaxgmm.tables import files
from jaxgmm.tables.groups import group
from jaxgmm.tables.keys import _foreign, group_of, typed
from jaxgmm.tables.rows import open_rows

DISTINCT = {
    "leading zeros": ["001", "1"],
    "more digits than integers have": ["12345678901234567890", "12345678901234567891"],
    "more digits than decimals have": ["0.10000000000000001", "0.1"],
    "exponents": ["1E1", "10"],
    "signs": ["+1", "1"],
    "minus zero": ["-0", "0"],
    "decimal minus zero": ["-0.0", "0.0"],
    "blanks": [" 1", "1", "1 "],
    "decimals and integers": ["1.0", "1"],
    "closing zeros": ["1.50", "1.5"],
    "hexadecimal": ["0x10", "16"],
    "truth values": ["true", "True", "1"],
    "dates": ["2024-01-02", "2024/01/02", "20240102"],
    "times": ["2024-01-02 03:04:05", "2024-01-02T03:04:05", "2024-01-02 03:04:05.000"],
    "zones": ["2024-01-02 03:04:05Z", "2024-01-02 04:04:05+01:00", "2024-01-02 03:04:05+0000"],
    "dates and times": ["2024-01-02", "2024-01-02 00:00:00"],
    "nulls of others": ["", "NA", "NaN", "nan", "null", "N/A"],
    "numbers that are none": ["nan", "NaN", "inf", "Infinity", "1"],
    "a text among integers": ["1", "x1", "01"],
    "separators of thousands": ["1000", "1_000", "1'000"],
    "other digits": ["1", "１"],
}
WRITTEN = {
    "integers": (["10", "-2", "0"], pa.int64()),
    "the largest integers": (["9223372036854775807", "-9223372036854775808"], pa.int64()),
    "integers and nothing": (["1", "", "2"], pa.int64()),
    "truth values": (["true", "false"], pa.bool_()),
    "dates": (["2024-02-29", "1999-12-31"], pa.date32()),
    "times": (["2024-02-29 12:00:00", "1999-12-31 23:59:59"], pa.timestamp("s")),
    "decimals": (["0.5", "10", "1e-7"], pa.float64()),
    "decimals of Python": (["0.5", "10.0", "1e-07"], pa.float64()),
    "one too large": (["1", "9223372036854775808"], pa.string()),
    "nothing": (["", ""], pa.string()),
    "texts": (["a", "", "NA"], pa.string()),
    "no such date": (["2023-02-28", "2023-02-29"], pa.string()),
}


def csv_of(path, keys):
    """Two rows for each key, its first all in one block; quoted where a blank or a comma would be lost."""
    path.write_text("key,x\n" + "".join(f'"{key}",{i}\n' for i, key in enumerate([*keys, *keys])))
    return path


def matched(path, known, **options):
    """The number of the known key that each row of a file has."""
    rows = open_rows(path, ["key", "x"], keys=["key"], known=known.schema, **options)
    keys = pa.concat_tables([block.select(["key"]) for block in rows.blocks(["key"])])
    return group_of(keys, known, path, has_types=rows.has_types).tolist()


@pytest.mark.parametrize("keys", DISTINCT.values(), ids=DISTINCT)
@pytest.mark.parametrize("n_others", [0, 1], ids=["alone", "with a text"])
def test_different_texts_are_different_groups(tmp_path, keys, n_others):
    path = csv_of(tmp_path / "cells.csv", [*keys, *["x1"] * n_others])
    table = files.read_table(path, ["key", "x"], keys=["key"])
    assert table["key"].to_pylist()[: len(keys)] == keys
    groups = group(table, ["key"], ["x"])
    assert groups.keys["key"].to_pylist() == sorted({*keys, *["x1"] * n_others})


@pytest.mark.parametrize(("texts", "type_"), WRITTEN.values(), ids=WRITTEN)
def test_keys_are_of_the_type_that_all_are_written_as(tmp_path, texts, type_):
    table = files.read_table(csv_of(tmp_path / "cells.csv", texts), ["key"], keys=["key"])
    assert table["key"].type == type_
    assert typed(pa.chunked_array([texts])).type == type_


def test_one_key_of_a_late_block_changes_no_group_but_its_type(tmp_path):
    path = tmp_path / "cells.csv"
    # Longer than a block that Arrow reads.
    path.write_text("key,x\n" + "7,1.5\n" * 300_000 + "007,1.5\n")
    table = files.read_table(path, ["key", "x"], keys=["key"])
    assert table["key"].num_chunks > 1
    assert group(table, ["key"], ["x"]).n_samples.tolist() == [1, 300_000]


def test_columns_that_are_no_keys_are_numbers_however_written(tmp_path):
    path = csv_of(tmp_path / "cells.csv", ["001", "1.50", "NA", ""])
    assert files.read_table(path, ["key"])["key"].to_pylist()[:4] == [1, 1.5, None, None]


def test_rows_say_what_was_read_as_what(tmp_path):
    path = csv_of(tmp_path / "cells.csv", ["001", "1"])
    assert open_rows(path, ["x", "key"], keys=["key"]).types(["key", "x"]) == {"key": "string", "x": "int64"}
    pq.write_table(pa.table({"key": pa.array([1], pa.int16())}), tmp_path / "cells.parquet")
    assert open_rows(tmp_path / "cells.parquet", ["key"], keys=["key"]).types(["key"]) == {"key": "int16"}


@pytest.mark.parametrize(
    ("fitted", "others", "expected"),
    [
        (["001", "1", "x1"], ["1", "2", "001"], [1, -1, 0]),
        (["001", "1"], ["1"], [1]),
        (["1", "2", ""], ["2", "x1", "02", "", "1"], [1, -1, -1, 2, 0]),
        (["1", "2", ""], ["", ""], [2, 2]),
        (["1", "2"], ["", "2"], [-1, 1]),
        (["a", "", "NA"], ["NA", "", "nan"], [2, 1, -1]),
        (["true", "false"], ["True", "true"], [-1, 0]),
        (["2024-01-01", "2024-01-02"], ["2024/01/02", "2024-01-02", "b"], [-1, 1, -1]),
        (["2024-01-02 03:04:05"], ["2024-01-02T03:04:05", "2024-01-02 03:04:06", "b", ""], [0, -1, -1, -1]),
        (["1.1", "1.2", "10"], ["1.10", "1.1", "10", "10.0", "1E1", "x"], [-1, 0, 2, 2, -1, -1]),
        (["1.1", "1.2", "10"], ["10.0", "1.2"], [2, 1]),
        (["1", "2"], ["99999999999999999999", "1"], [-1, 0]),
    ],
)
def test_keys_of_a_file_find_the_groups_fitted_from_another(tmp_path, fitted, others, expected):
    known = files.read_table(csv_of(tmp_path / "cells.csv", fitted), ["key"], keys=["key"]).slice(0, len(fitted))
    found = matched(csv_of(tmp_path / "others.csv", others), known)
    assert found == expected * 2


TIME = datetime.datetime(2024, 1, 2, 3, 4, 5)
TYPED = {
    "narrow integers": (pa.array([1, 2, None], pa.int8()), ["2", "001", "", "300"], [1, -1, 2, -1]),
    "float32": (pa.array([0.1, 2.0], pa.float32()), ["0.1", "2.0", "2", "0.10"], [0, 1, 1, -1]),
    "decimals": (pa.array([Decimal("1.50"), Decimal("2.25")]), ["1.5", "2.25", "2.255", "b"], [0, 1, -1, -1]),
    "microseconds": (pa.array([TIME], pa.timestamp("us")), ["2024-01-02 03:04:05", "2024-01-02T03:04:05"], [0, 0]),
    "zones": (pa.array([TIME], pa.timestamp("ms", "UTC")), ["2024-01-02 03:04:05Z", "no"], [0, -1]),
    "categories": (pa.array(["001", "1"]).dictionary_encode(), ["1", "001", "2"], [1, 0, -1]),
    "long texts": (pa.array(["001", None], pa.large_string()), ["001", "", "1"], [0, 1, -1]),
    "times of day": (pa.array([datetime.time(3, 4, 5)], pa.time32("s")), ["03:04:05", "3:04:05"], [0, -1]),
    "nothing but nulls": (pa.nulls(1), ["", "a"], [0, -1]),
}


@pytest.mark.parametrize(("keys", "texts", "expected"), TYPED.values(), ids=TYPED)
def test_texts_find_the_groups_of_a_parquet_file(tmp_path, keys, texts, expected):
    assert matched(csv_of(tmp_path / "cells.csv", texts), pa.table({"key": keys})) == expected * 2


@pytest.mark.parametrize(
    ("known", "keys", "expected"),
    [
        (pa.array([1, 2], pa.int64()), pa.array([2.0, 1.5, math.nan, None]), [1, -1, -1, -1]),
        (pa.array([1, 2], pa.int8()), pa.array([257, 2], pa.int64()), [-1, 1]),
        (pa.array([1.0, math.nan]), pa.array([1, 2**53 + 1], pa.int64()), [0, -1]),
        (pa.array([Decimal("1.50")]), pa.array([1.5, 2.5]), [0, -1]),
        (pa.array([datetime.date(2024, 1, 2)]), pa.array([datetime.datetime(2024, 1, 2), TIME]), [0, -1]),
        (pa.array([TIME], pa.timestamp("s")), pa.array([TIME, TIME.replace(microsecond=1)]), [0, -1]),
        (pa.array(["b", "a"]).dictionary_encode(), pa.array(["a", "c"], pa.large_string()), [1, -1]),
    ],
)
def test_values_of_one_kind_are_compared_exactly(tmp_path, known, keys, expected):
    pq.write_table(pa.table({"key": keys, "x": np.arange(len(keys))}), tmp_path / "others.parquet")
    assert matched(tmp_path / "others.parquet", pa.table({"key": known})) == expected


def test_types_of_other_kinds_are_refused(tmp_path):
    pq.write_table(pa.table({"key": ["1"], "x": [1]}), tmp_path / "others.parquet")
    with pytest.raises(ValueError, match=r"column 'key' of .*parquet holds string, where int64 was fitted; convert it"):
        matched(tmp_path / "others.parquet", pa.table({"key": [1]}))


def test_several_columns_of_keys_are_matched_together(tmp_path):
    path = tmp_path / "cells.csv"
    path.write_text("plate,well,x\n1,01,5\n2,1,6\n01,1,7\n")
    known = pa.table({"plate": [1, 1, 2], "well": ["01", "1", "01"]})
    rows = open_rows(path, ["plate", "well", "x"], keys=["plate", "well"], known=known.schema)
    assert group_of(next(rows.blocks(["plate", "well"])), known, path, has_types=False).tolist() == [0, -1, -1]


def test_the_text_of_every_typed_key_is_what_stood_in_the_file():
    for texts, type_ in WRITTEN.values():
        if type_ in (pa.int64(), pa.date32(), pa.bool_(), pa.timestamp("s")):
            out = io.BytesIO()
            csv.write_csv(
                pa.table({"key": typed(pa.chunked_array([texts]))}), out, csv.WriteOptions(include_header=False)
            )
            assert out.getvalue().decode().replace('"', "").split("\n")[:-1] == texts


def test_texts_that_are_no_values_are_found_among_many() -> None:
    texts = pa.array(["1.5", "x", *map(str, np.arange(2, 500) / 4), "", "1e", "7"])
    assert _foreign(texts, pa.float64()) == ["x", "", "1e"]
    assert _foreign(texts.slice(2, 400), pa.float64()) == []
