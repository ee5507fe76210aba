"""A whole table as one data set: every number in its place, and none of the other columns in memory."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from jaxgmm.tables import files, parts, whole
from jaxgmm.tables import rows as rows_module
from jaxgmm.tables.rows import open_rows

DRAW = np.random.default_rng(0)
X, WEIGHTS = DRAW.normal(size=(200_000, 2)), DRAW.integers(0, 3, 200_000).astype(float)
COLUMNS = ["green", "red", "copies"]
TABLE = pa.table({"red": X[:, 1], "text": ["some text"] * 200_000, "green": X[:, 0], "copies": WEIGHTS})
TEXTS = "column 'text' holds text, not numbers, such as 'some text'; convert it, or leave it out."


@pytest.fixture(params=["cells.parquet", "cells.csv"])
def path(request, tmp_path, monkeypatch):
    """A table of which a block is a small part."""
    monkeypatch.setattr(rows_module, "_BLOCK", 512)
    monkeypatch.setattr(files, "_CSV_BLOCK", 2**14)
    path = tmp_path / request.param
    if path.suffix == ".csv":
        csv.write_csv(TABLE, path)
    else:
        pq.write_table(TABLE, path, row_group_size=1000)
    return path


def opened(path, columns=COLUMNS):
    return open_rows(path, columns, are_numbers=True)


@pytest.mark.parametrize("weights", [None, "copies"])
def test_all_rows_are_one_data_set_in_their_order(path, weights):
    rows = opened(path)
    planned = parts.plan(rows, [], COLUMNS[:2], weights, lambda _: 10).cut
    assert (planned.n_parts, planned.is_in_order, planned.first_keys.num_rows) == (1, True, 1)
    groups = whole.read(rows, 200_000, COLUMNS[:2], weights)
    np.testing.assert_array_equal(groups.samples, X)
    assert groups.n_samples.tolist() == [200_000]
    assert groups.keys.num_rows == 1
    if weights is None:
        assert groups.sample_weight is None
    else:
        np.testing.assert_array_equal(groups.sample_weight[0], WEIGHTS)


def test_memory_holds_one_block_beside_the_samples(path):
    rows = opened(path)
    before = pa.total_allocated_bytes()
    held = [pa.total_allocated_bytes() - before for _ in rows.blocks(COLUMNS[:2])]
    assert rows.table is None
    assert max(held) < X.nbytes
    assert whole.read(rows, 200_000, COLUMNS[:2], None).samples.nbytes == X.nbytes


def test_rows_begin_where_they_are_wanted_to(path):
    found = pa.concat_tables(opened(path).blocks(["green"], 777))
    np.testing.assert_array_equal(found["green"], X[777:, 0])


def test_blocks_of_no_columns_have_their_numbers_of_rows(path):
    assert sum(block.num_rows for block in opened(path).blocks([])) == 200_000


def test_a_column_of_texts_is_told_by_its_name(tmp_path):
    csv.write_csv(TABLE, tmp_path / "cells.csv")
    with pytest.raises(ValueError, match=TEXTS):
        opened(tmp_path / "cells.csv", ["red", "text"])


def test_a_file_without_rows_is_refused(tmp_path):
    (tmp_path / "header.csv").write_text("red,green\n")
    with pytest.raises(ValueError, match=r"header.csv is empty; it needs at least one row"):
        opened(tmp_path / "header.csv", ["red"])
