"""The files of a table: which are found, in which order, with which columns from their folders."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import dataset as arrow_dataset

from jaxgmm.tables.dataset import find
from jaxgmm.tables.rows import open_rows


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(*names, columns=("x",)):
    for name in names:
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        if name.endswith(".parquet"):
            pq.write_table(pa.table({column: [1.0, 2.0] for column in columns}), name)
        else:
            with open(name, "w") as file:
                file.write(",".join(columns) + "\n" + ",".join("1" for _ in columns) + "\n")


def paths(*named):
    return [str(path) for path in find(*named).paths]


def test_a_directory_holds_its_files_at_any_depth_but_no_hidden_ones(here):
    make("data/b.parquet", "data/a/c.parquet", "data/a/d/e.pq.parquet", "data/_tmp/x.parquet", "data/.old/x.parquet")
    make("data/_metadata.parquet", "data/.b.parquet", "data/_SUCCESS", "data/README.txt", "data/notes.csv")
    assert paths("data") == ["data/a/c.parquet", "data/a/d/e.pq.parquet", "data/b.parquet"]
    assert paths("data/") == paths("./data") == paths("data", "data/a") == paths("data")
    assert paths(here / "data") == [str(here / path) for path in paths("data")]


def test_csv_files_of_a_directory_are_taken_where_there_are_no_parquet_files(here):
    make("data/b.csv", "data/a.csv", "data/README.txt")
    assert paths("data") == ["data/a.csv", "data/b.csv"]


def test_numbers_in_paths_are_ordered_by_size(here):
    make(*(f"data/plate={plate}/part-{part}.parquet" for plate in (10, 9, 8) for part in (11, 2)))
    found = [f"data/plate={plate}/part-{part}.parquet" for plate in (8, 9, 10) for part in (2, 11)]
    assert paths("data") == found
    assert paths(*reversed(found), found[0]) == found


@pytest.mark.parametrize(
    "pattern", ["data/*/*.parquet", "data/plate=*", "data/**/*.parquet", "data/**", "data/plate=[0-9]*/?.parquet"]
)
def test_patterns_find_what_they_match(here, pattern):
    make("data/plate=1/x.parquet", "data/plate=2/x.parquet", "data/plate=2/_x.parquet")
    found = find(pattern)
    assert [str(path) for path in found.paths] == ["data/plate=1/x.parquet", "data/plate=2/x.parquet"]
    assert found.folders.to_pydict() == {"plate": ["1", "2"]}


def test_a_name_that_is_no_pattern_because_it_is_there(here):
    make("data[1].parquet", "data1.parquet")
    assert paths("data[1].parquet") == ["data[1].parquet"]


def test_folders_are_columns_as_arrow_reads_them(here):
    names = [
        "plate=1/well=A%2F1/x.parquet",
        "plate=1/well=__HIVE_DEFAULT_PARTITION__/x.parquet",
        "plate=2/well=b/x.parquet",
    ]
    make(*(f"data/{name}" for name in names))
    partitioning = arrow_dataset.partitioning(pa.schema([("plate", pa.string()), ("well", pa.string())]), flavor="hive")
    expected = arrow_dataset.dataset("data", partitioning=partitioning).to_table(columns=["plate", "well"])
    found = find("data").folders
    assert sorted(found.to_pylist(), key=str) == sorted(expected.to_pylist()[::2], key=str)
    assert find("data").column_names() == ["x", "plate", "well"]
    # Only below what was named, and not of a file that was named as such.
    assert find("data/plate=2").folders.column_names == ["well"]
    assert find("data/plate=2/well=b/x.parquet").folders.column_names == []
    assert find(*(f"data/{name}" for name in names)).folders.equals(found)


def test_a_folder_above_what_is_named_is_told_to_be_no_column(here):
    make("data/plate=7/x.parquet")
    for named in ("data/plate=7", "data/plate=7/*", "data/plate=7/x.parquet"):
        with pytest.raises(ValueError, match="no column 'plate'; name the directory above plate=7, and select"):
            open_rows(named, ["plate", "x"], keys=["plate"])
    assert open_rows("data", ["plate", "x"], keys=["plate"], where="plate = 7").n_rows is None


def test_a_file_that_is_found_twice_is_read_once(here):
    make("data/a.parquet", "data/b.parquet")
    (here / "data" / "again").symlink_to(here / "data", target_is_directory=True)
    (here / "data" / "c.parquet").symlink_to(here / "data" / "b.parquet")
    assert paths("data", "data/*.parquet", "data/a.parquet") == ["data/a.parquet", "data/b.parquet"]


def test_the_description_tells_other_files_names_and_times(here):
    make("data/plate=1/x.parquet", "data/plate=2/x.parquet")
    first = find("data").description
    assert first == find("data/").description == find(here / "data").description
    assert (first["file"], first["files"]) == ("data", 2)
    assert first["bytes"] == 2 * os.path.getsize("data/plate=1/x.parquet")
    stat = os.stat("data/plate=1/x.parquet")
    os.utime("data/plate=1/x.parquet", ns=(stat.st_atime_ns, stat.st_mtime_ns - 1))
    second = find("data").description
    os.rename("data/plate=2", "data/plate=3")
    third = find("data").description
    assert len({own["digest"] for own in (first, second, third)}) == 3
    os.chdir("data")
    assert find(".").description == third
    alone = find(here / "data" / "plate=1" / "x.parquet").description
    assert (alone["file"], set(alone)) == ("x.parquet", {"file", "bytes", "modified"})


def test_what_is_not_there_is_one_sentence(here):
    make("data/a.parquet", "data/b.csv", "other/readme.md", "mixed/plate=1/x.parquet", "mixed/y.parquet")
    os.makedirs("empty/_old")
    for named, error, words in [
        (["absent"], FileNotFoundError, "absent does not exist; check the path."),
        (["data/a.parquet", "well"], FileNotFoundError, "well does not exist; .* commas, as in --by plate,well"),
        (["data/*.pq"], FileNotFoundError, r"no file matches 'data/\*.pq'; check the pattern"),
        (["empty"], FileNotFoundError, "empty holds no Parquet or CSV file; name a directory that does"),
        (["other"], FileNotFoundError, "other holds no Parquet or CSV file"),
        (["other/*"], ValueError, "other/readme.md is of no known kind; name a file that ends in .parquet"),
        (["data/*"], ValueError, "data/a.parquet is a Parquet file, and data/b.csv is not; name files of one kind"),
        (["mixed"], ValueError, "mixed/plate=1/x.parquet is in a folder plate=…, and mixed/y.parquet is not"),
    ]:
        with pytest.raises(error, match=words) as caught:
            find(*named)
        assert "\n" not in str(caught.value)


def test_tables_are_not_written_into_a_directory_that_is_read(here):
    make("data/a.parquet", "data/b.parquet")
    for out in (here / "data", here / "data" / "fits"):
        with pytest.raises(ValueError, match="lies in data, which is read; name another place"):
            find("data").check_outside(out)
    find("data").check_outside(here / "fits")
    find("data/*.parquet").check_outside(here / "data" / "fits")
    for pattern, out in {
        "data/**": "data/deep/fits",
        "dat*": "data/fits",
        "d*/[ab]*": "data/all",
        "data/**/*.parquet": "data/fits",
        "data/*.parquet": "data/p.parquet",
    }.items():
        with pytest.raises(ValueError, match=r"would match what is in .*; name another place"):
            find(pattern).check_outside(here / out)
        find(pattern).check_outside(here / "fits")
