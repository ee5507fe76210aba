"""Tables in files: what is read, what is refused, and that nothing is left in part."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from jaxgmm.tables import files
from jaxgmm.tables.groups import group
from jaxgmm.tables.rows import open_rows

TABLE = pa.table({"group": ["a", "b", "a"], "x": [1.5, 2.5, 3.5], "n": [1, 2, 3], "a,b.c": [7, 8, 9]})


@pytest.fixture(params=["table.parquet", "table.PQ", "table.csv", "table.csv.gz"])
def path(request, tmp_path):
    path = tmp_path / request.param
    if path.suffix in (".parquet", ".PQ"):
        pq.write_table(TABLE, path)
    else:
        with pa.output_stream(path) as stream:
            csv.write_csv(TABLE, stream)
    return path


def test_columns_are_read_in_the_order_wanted(path):
    assert files.column_names(path) == TABLE.column_names
    assert files.read_table(path, ["a,b.c", "x", "group"]).equals(TABLE.select(["a,b.c", "x", "group"]))


def test_types_that_arrow_takes_no_rows_of_are_read_as_others(tmp_path):
    views = pa.table({"key": pa.array(["b", "a", "b"], pa.string_view()), "x": [1.0, 2.0, 3.0]})
    try:
        pq.write_table(views, tmp_path / "table.parquet")
    except pa.ArrowNotImplementedError:
        pytest.skip("this version of Arrow writes no such columns")
    table = files.read_table(tmp_path / "table.parquet", ["key", "x"])
    assert table.schema.field("key").type == pa.string()
    rows = open_rows(tmp_path / "table.parquet", ["key", "x"])
    for read in (table, next(rows.blocks(["key", "x"])), views):
        groups = group(read, ["key"], ["x"])
        assert (groups.keys["key"].to_pylist(), groups.n_samples.tolist()) == (["a", "b"], [1, 2])


def test_folders_called_like_partitions_add_no_columns(tmp_path):
    folder = tmp_path / "group=z"
    folder.mkdir()
    pq.write_table(TABLE, folder / "table.parquet")
    assert files.read_table(folder / "table.parquet", ["x", "group"]).equals(TABLE.select(["x", "group"]))


def test_csv_numbers_may_begin_as_integers(tmp_path):
    path = tmp_path / "table.csv"
    # Longer than a block, so that the type is first guessed without the last row.
    path.write_text("x\n" + "1\n" * 2_000_000 + "2.5\n")
    assert files.read_table(path, ["x"])["x"][-1].as_py() == 2.5


def test_csv_text_keeps_what_numbers_call_null(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("key,x\nNA,1\n,NA\nb,\n")
    assert files.read_table(path, ["key", "x"]).to_pydict() == {"key": ["NA", "", "b"], "x": [1, None, None]}


def test_csv_fields_may_hold_line_breaks(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text('key,x\n"two\nlines",1\n')
    assert files.read_table(path, ["key"])["key"].to_pylist() == ["two\nlines"]


def test_columns_that_are_not_wanted_may_have_one_name(tmp_path):
    (tmp_path / "table.csv").write_text("x,x,key\n1,2,3\n")
    twice = pa.table([[1], [2], ["3"]], names=["x", "x", "key"])
    pq.write_table(twice, tmp_path / "table.parquet")
    for path in tmp_path.iterdir():
        assert files.read_table(path, ["key"], keys=["key"])["key"].to_pylist() == [3 if path.suffix == ".csv" else "3"]


@pytest.mark.parametrize("separator", [";", "|", "tab", "\t", "\\t", ":"])
def test_csv_fields_may_be_separated_by_others_than_commas(tmp_path, separator):
    path, mark = tmp_path / "table.csv", {"tab": "\t", "\\t": "\t"}.get(separator, separator)
    path.write_text(f"key{mark}x, in mm\n01{mark}2.5\n")
    assert files.column_names(path, separator) == ["key", "x, in mm"]
    table = files.read_table(path, ["key", "x, in mm"], keys=["key"], separator=separator)
    assert table.to_pydict() == {"key": ["01"], "x, in mm": [2.5]}


@pytest.mark.parametrize(
    ("name", "separator", "mark"),
    [
        ("t.tsv", ",", "\t"),
        ("t.TSV.gz", "tab", "\t"),
        ("t.tsv", ";", ";"),
        ("t.txt", ",", ","),
        ("t.txt.bz2", ";", ";"),
    ],
)
def test_names_say_how_fields_are_separated(tmp_path, name, separator, mark):
    path, table = tmp_path / name, pa.table({"key": ["a", "b"], "x": [1.5, 2.5]})
    with files.written(path, table.schema, separator=separator) as writer:
        writer.write_table(table)
    with pa.input_stream(path) as stream:
        assert stream.read().decode() == f'"key"{mark}"x"\n"a"{mark}1.5\n"b"{mark}2.5\n'
    assert files.read_table(path, ["key", "x"], keys=["key"], separator=separator) == table
    blocks = files.blocks_of_numbers(path, ["x"], separator)
    assert [block["x"].to_pylist() for block in blocks] == [[1.5, 2.5]]


def test_commas_in_a_file_named_for_tabs_are_noticed(tmp_path):
    (tmp_path / "t.tsv").write_text("key,x\na,1\n")
    with pytest.raises(ValueError, match=r"has no column 'key'; its header seems to be separated by ','; rename"):
        files.read_table(tmp_path / "t.tsv", ["key"])


@pytest.mark.parametrize("separator", ["", ";;", '"', "\n", "§", "comma"])
def test_separators_that_are_none_are_refused(tmp_path, separator):
    (tmp_path / "table.csv").write_text("x\n1\n")
    for read in (files.column_names, lambda path, separator: files.read_table(path, ["x"], separator=separator)):
        with pytest.raises(ValueError, match="the separator must be one character such as ';', or tab; got"):
            read(tmp_path / "table.csv", separator)


@pytest.mark.parametrize(
    ("content", "separator", "probable"),
    [
        ("key;x\n1;2\n", ",", ";"),
        ("key;x\n1;2,5\n", ",", ";"),
        ('"key";"x, in mm"\n1;2\n', ",", ";"),
        ("key\tx\n1\t2\n", ",", "tab"),
        ("key|x\n1|2\n", ",", "|"),
        ("key,x\n1,2\n", ";", ","),
        ("key,x\n1,2\n", "tab", ","),
        ("key;x\r\n1;2\r\n", ",", ";"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_another_separator_is_named_where_a_column_is_missing(tmp_path, content, separator, probable, compressed):
    path = tmp_path / ("table.csv.gz" if compressed else "table.csv")
    with pa.output_stream(path) as stream:
        stream.write(content.encode())
    with pytest.raises(ValueError, match="seems to be separated by") as caught:
        files.read_table(path, ["key"], separator=separator)
    option = "tab" if probable == "tab" else f"'{probable}'"
    remedy = f"seems to be separated by {probable!r}; give that as the separator (--separator {option})."
    assert remedy in str(caught.value)
    assert "key" in files.column_names(path, probable)


def test_no_separator_is_proposed_where_the_one_given_separates(path):
    with pytest.raises(ValueError, match="its columns are group, x") as caught:
        files.read_table(path, ["zzz"])
    assert "separated" not in str(caught.value)


def test_other_encodings_are_refused_with_the_remedy(tmp_path):
    (tmp_path / "table.csv").write_bytes("key,x\né,1\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"cannot be read as CSV .*; save it in UTF-8"):
        files.read_table(tmp_path / "table.csv", ["key"], keys=["key"])


def test_errors_are_no_longer_than_anyone_reads(tmp_path):
    names = [f"column_{i}" for i in range(5000)]
    (tmp_path / "table.csv").write_text(",".join(names) + "\n" + ",".join("1" for _ in names) + "\n")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n" + "x" * 10_000 + "\n")
    for file, words in (
        ("table.csv", "no column 'zz'; its columns are column_0, column_1"),
        ("other.csv", "Expected 2"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            files.read_table(tmp_path / file, ["zz"])
        assert len(str(caught.value)) < 500


def test_missing_column_is_refused_with_the_nearest(path):
    with pytest.raises(ValueError, match="has no column 'group_'; did you mean 'group'"):
        files.read_table(path, ["x", "group_"])
    with pytest.raises(ValueError, match="has no column 'zzz'; its columns are group, x, n, a,b"):
        files.read_table(path, ["zzz"])


def test_ambiguous_column_is_refused(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("x,x\n1,2\n")
    with pytest.raises(ValueError, match="2 columns called 'x'; rename"):
        files.read_table(path, ["x"])


@pytest.mark.parametrize(
    ("name", "content", "error", "words"),
    [
        ("absent.csv", None, FileNotFoundError, "does not exist"),
        ("table.xlsx", b"x", ValueError, "ends in .parquet, .pq, .csv"),
        ("table.csv", b"", ValueError, "is empty; it needs a header"),
        ("table.parquet", b"", ValueError, "is empty"),
        ("table.parquet", b"not a table", ValueError, "cannot be read as Parquet"),
        ("table.csv", b"a,b\n1,2\n1\n", ValueError, "cannot be read as CSV"),
    ],
)
def test_unreadable_files_are_refused_in_one_line(tmp_path, name, content, error, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=words) as caught:
        files.read_table(tmp_path / name, ["a", "b"])
    assert "\n" not in str(caught.value)
    assert str(caught.value).count(name) == 1


def test_directory_is_no_table(tmp_path):
    with pytest.raises(IsADirectoryError, match="name one Parquet or CSV file"):
        files.column_names(tmp_path)


def test_table_is_written_piece_by_piece(tmp_path):
    with files.written(tmp_path / "one.parquet", TABLE.schema) as writer:
        writer.write_table(TABLE.slice(0, 1))
        assert not (tmp_path / "one.parquet").exists()
        writer.write_table(TABLE.slice(1))
    assert pq.read_table(tmp_path / "one.parquet").equals(TABLE)
    assert [file.name for file in tmp_path.iterdir()] == ["one.parquet"]


def test_existing_tables_are_noticed(tmp_path):
    (tmp_path / "two.parquet").write_bytes(b"mine")
    files.check_absent(tmp_path, ["one"])
    with pytest.raises(FileExistsError, match=r"two\.parquet exists already; remove it"):
        files.check_absent(tmp_path, ["one", "two"])


def test_file_in_the_place_of_the_directory_is_refused(tmp_path):
    (tmp_path / "out").write_bytes(b"mine")
    for directory in (tmp_path / "out", tmp_path / "out" / "below"):
        with pytest.raises(NotADirectoryError, match="is a file, not a directory"):
            files.check_absent(directory, ["one"])


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("n_written", [0, 1])
def test_interrupted_writing_leaves_what_was_there(tmp_path, stop, n_written):
    path = tmp_path / "one.parquet"
    path.write_bytes(b"mine")

    def write():
        with files.written(path, TABLE.schema) as writer:
            for _ in range(n_written):
                writer.write_table(TABLE)
            raise stop

    with pytest.raises(stop):
        write()
    assert path.read_bytes() == b"mine"
    assert [file.name for file in tmp_path.iterdir()] == ["one.parquet"]


@pytest.mark.parametrize("row_group_size", [50_000, 1_000_000], ids=["many row groups", "one row group"])
def test_a_file_read_in_pieces_is_never_held_whole(tmp_path, row_group_size):
    path = tmp_path / "big.parquet"
    numbers = np.random.default_rng(0).normal(size=(3, 1_000_000))
    pq.write_table(pa.table(dict(zip("xyz", numbers, strict=True))), path, row_group_size=row_group_size)
    before = pa.total_allocated_bytes()
    with files.opened(path) as file:
        held = [pa.total_allocated_bytes() - before for _ in file.iter_batches(2**14)]
    assert max(held) < path.stat().st_size / 2
