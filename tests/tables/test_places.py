"""Tables at URIs: they are named, found, read and refused as those at paths are, and credentials are told nowhere."""

import gzip
import os
import pickle
import traceback
from pathlib import Path, PurePosixPath

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv, fs

from jaxgmm.tables import places
from jaxgmm.tables.dataset import find
from jaxgmm.tables.places import Remote, as_path, local, place
from jaxgmm.tables.rows import open_rows

SECRET = "s3cret"
TABLE = pa.table({"x": [1.0, 2.0]})


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with one `bucket`, which is also that of `s3:` URIs."""
    monkeypatch.chdir(tmp_path)
    system = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    monkeypatch.setattr(places, "opened", lambda _: (system, "bucket"))
    (tmp_path / "bucket").mkdir()
    return tmp_path


def make(name, table=TABLE, **options):
    path = Path("bucket", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write = pq.write_table if path.suffix == ".parquet" else csv.write_csv
    write(table, str(path), **options)


@pytest.mark.parametrize(
    ("uri", "store", "below", "text"),
    [
        ("s3://b", "s3://b/", "", "s3://b/"),
        ("s3://b/a%20b/c d.parquet", "s3://b/", "a b/c d.parquet", "s3://b/a b/c d.parquet"),
        ("s3://b/a/?region=eu-west-1&scheme=http", "s3://b/?region=eu-west-1&scheme=http", "a", "s3://b/a"),
        ("s3://b/part-?.parquet", "s3://b/", "part-?.parquet", "s3://b/part-?.parquet"),
        ("s3://b/p?.parquet?region=x", "s3://b/?region=x", "p?.parquet", "s3://b/p?.parquet"),
        ("S3://key:s3cret@b/me@home/x", "s3://key:s3cret@b/", "me@home/x", "s3://b/me@home/x"),
        ("hdfs://name:8020/user/x", "hdfs://name:8020/", "user/x", "hdfs://name:8020/user/x"),
        ("abfss://c:s3cret@a.net/x?client_secret=s3cret", "abfss://c:s3cret@a.net/?client_secret=s3cret", "x", "abfss://c@a.net/x"),
    ],
)  # fmt: skip
def test_a_uri_is_a_store_and_a_path_in_it_and_is_told_without_credentials(uri, store, below, text):
    found = place(uri)
    assert found == Remote(store, PurePosixPath(below))
    assert str(found) == text
    assert SECRET not in repr([found])
    assert pickle.loads(pickle.dumps(found)) == found
    assert {found: 1}[place(uri)] == 1
    assert sorted([found / "b", found / "a"]) == [found / "a", found / "b"]


@pytest.mark.parametrize("name", ["cells.parquet", "data/*.parquet", "C:/data/x", "/a//b", "a:b", "s3:/b/x"])
def test_other_names_are_paths(name):
    assert place(name) == Path(name)
    assert as_path(name) == name
    assert local("out") == Path("out")


def test_a_file_uri_is_a_path(here):
    make("a b/plate=1/x.parquet")
    make("a b/plate=2/x.parquet")
    uri = (here / "bucket" / "a b").as_uri()
    assert "%20" in uri
    for end in ("", "/*/*.parquet", "/plate=?", "/plate=1/x.parquet"):
        found = find(uri + end)
        assert found == find(f"{here}/bucket/a b{end}")
        assert isinstance(found.paths[0], Path)
    assert find(uri.replace("file://", "FILE://localhost")).description == find(uri).description


NAMED = [
    ("data",),
    ("data/",),
    ("data/plate=9",),
    ("data/plate=9/a.parquet",),
    ("data/plate=9", "data/plate=10", "data/plate=9/a.parquet"),
    ("data/plate=9/a.parquet", "data/plate=10/a.parquet"),
    ("data/*",),
    ("data/*/a.parquet",),
    ("data/**/*.parquet",),
    ("data/**",),
    ("**/*.parquet",),
    ("data/plate=[0-9]/?.parquet",),
    ("data/plate=*",),
    ("data/**/plate=1?",),
    ("csv",),
    ("csv/b.csv",),
]


@pytest.mark.parametrize("named", NAMED)
def test_what_is_found_at_uris_is_what_is_found_at_paths(here, named):
    for name in ("plate=9/a", "plate=10/a", "plate=9/b", "plate=9/_b", ".old/plate=9/a", "_tmp/plate=9/a"):
        make(f"data/{name}.parquet")
    make("csv/b.csv")
    make("csv/a.csv")
    Path("bucket/data/_SUCCESS").touch()
    Path("bucket/csv/README.txt").touch()
    found = find(*(f"s3://key:{SECRET}@bucket/{name}?region=x" for name in named))
    expected = find(*(f"bucket/{name}" for name in named))
    assert list(map(str, found.paths)) == [f"s3://{path}" for path in expected.paths]
    assert found.named == tuple(f"s3://{path}" for path in expected.named)
    assert found.folders.equals(expected.folders)
    assert (found.is_one_file, found.column_names()) == (expected.is_one_file, expected.column_names())
    assert found.description == expected.description
    assert SECRET not in repr(found)
    assert found.absolute() == found
    found.check_outside(here)


def test_stores_that_list_no_directories_have_those_of_their_files(here, monkeypatch):
    make("data/plate=9/a.parquet")

    class Flat(fs.FSSpecHandler):
        """Of a store that has only keys."""

        def get_file_info_selector(self, selector):
            return [entry for entry in super().get_file_info_selector(selector) if entry.type == fs.FileType.File]

    system = fs.PyFileSystem(Flat(fsspec.filesystem("file")))
    monkeypatch.setattr(places, "opened", lambda _: (system, str(here / "bucket")))
    assert list(map(str, find("s3://bucket/**/plate=*").paths)) == ["s3://bucket/data/plate=9/a.parquet"]


@pytest.mark.parametrize("where", [None, "x >= 2", "key is not null and x < 3"])
@pytest.mark.parametrize(
    "name", ["data", "data/plate=7", "groups.parquet", "csv", "csv/plate=8/x.csv", "packed.csv.gz"]
)
def test_rows_at_uris_are_those_at_paths(here, name, where):
    table = pa.table({"key": ["001", "1", "1", None], "x": [1.0, 2.0, None, 4.0]})
    for kind in ("parquet", "csv"):
        for plate in (7, 8):
            make(f"{'data' if kind == 'parquet' else kind}/plate={plate}/x.{kind}", table.slice(plate - 7))
    make("groups.parquet", table, row_group_size=1)
    make("packed.csv", table)
    Path("bucket/packed.csv.gz").write_bytes(gzip.compress(Path("bucket/packed.csv").read_bytes()))
    for keys in ([], ["key"]):
        options = {"keys": keys, "are_numbers": True, "where": where}
        own, expected = (open_rows(f"{root}/{name}", ["x", *keys], **options) for root in ("s3://bucket", "bucket"))
        assert (own.n_rows, own.schema) == (expected.n_rows, expected.schema)
        # As another process reads them.
        own = pickle.loads(pickle.dumps(own))
        for start in (0, 2):
            blocks = (list(rows.blocks(["x", *keys], start, 2)) for rows in (own, expected))
            assert all(block.equals(known) for block, known in zip(*blocks, strict=True))


def test_a_file_that_is_changed_meanwhile_is_refused(here):
    make("x.parquet")
    rows = open_rows("s3://bucket/x.parquet", ["x"])
    blocks = rows.blocks(["x"], size=1)
    next(blocks)
    os.utime("bucket/x.parquet", ns=(0, 0))
    for read in (lambda: next(blocks), rows.check_unchanged):
        with pytest.raises(ValueError, match=r"^s3://bucket/x.parquet was changed, replaced or removed while"):
            read()


@pytest.mark.parametrize("error", [OSError, pa.ArrowException])
def test_a_store_that_does_not_answer_is_not_a_changed_file(here, monkeypatch, error):
    make("x.parquet")
    rows = open_rows("s3://bucket/x.parquet", ["x"])

    class Silent(fs.FSSpecHandler):
        def get_file_info(self, paths):
            raise error("AWS Error NETWORK_CONNECTION\nand more")

    system = fs.PyFileSystem(Silent(fsspec.filesystem("file")))
    monkeypatch.setattr(places, "opened", lambda _: (system, "bucket"))
    for read in (rows.check_unchanged, lambda: next(rows.blocks(["x"])), lambda: find("s3://bucket")):
        with pytest.raises(
            ConnectionError, match=r"cannot be reached \(AWS Error NETWORK_CONNECTION\); check its name"
        ):
            read()


@pytest.mark.parametrize(
    ("named", "error", "words"),
    [
        (["absent.parquet"], FileNotFoundError, "s3://bucket/absent.parquet does not exist; check the path."),
        (["a.parquet", "well"], FileNotFoundError, "s3://bucket/well does not exist; .* commas"),
        (["*.pq"], FileNotFoundError, r"no file matches 's3://bucket/\*.pq'; check the pattern"),
        (["none/*.parquet"], FileNotFoundError, "no file matches"),
        (["empty"], FileNotFoundError, "s3://bucket/empty holds no Parquet or CSV file"),
        (["readme.md"], ValueError, "s3://bucket/readme.md is of no known kind"),
        (["a.parquet", "b.csv"], ValueError, "s3://bucket/a.parquet is a Parquet file, and s3://bucket/b.csv is not"),
        (["damaged.parquet"], ValueError, "s3://bucket/damaged.parquet cannot be read as Parquet"),
        (["nothing.csv"], ValueError, "s3://bucket/nothing.csv is empty"),
    ],
)
def test_what_cannot_be_read_is_one_sentence_without_credentials(here, named, error, words):
    make("a.parquet")
    make("b.csv")
    Path("bucket/empty").mkdir()
    for name, text in (("readme.md", "#"), ("damaged.parquet", "PAR1"), ("nothing.csv", "")):
        Path("bucket", name).write_text(text)
    with pytest.raises(error, match=words) as caught:
        find(*(f"s3://key:{SECRET}@bucket/{name}?region=x" for name in named)).column_names()
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("named", "words"),
    [
        (
            ["https://me:s3cret@host/x.parquet"],
            r"https://host/ cannot be opened \(Unrecognized .*\); name a path, or a URI",
        ),
        (["s3://me:s3cret@bucket/x.parquet?zone=1"], r"s3://bucket/ cannot be opened \(Unexpected query .* 'zone'\)"),
        (["s3://me:s3cret @bucket/x.parquet"], r"s3://bucket/ cannot be opened \(Cannot parse URI"),
        (["s3://me:s3cret/more@bucket/x.parquet"], "a URI of s3: has ':' in its host; give credentials by"),
        (["s3://me:/s3cret@bucket/x.parquet"], "a URI of s3: has ':' in its host"),
        (["s3://me:s3@s3cret@bucket/x.parquet?x-y=s3cret"], r"s3://bucket/ cannot be opened"),
        (
            [Path("s3://me:s3cret@bucket/x.parquet")],
            "a Path keeps one of the two slashes after s3:, so name a URI as text",
        ),
        (["file://data/x.parquet"], "begins with three slashes, as in file:///data/cells.parquet"),
    ],
)
def test_what_is_no_uri_is_one_sentence_without_credentials(named, words):
    with pytest.raises(ValueError, match=words) as caught:
        find(*named)
    assert "\n" not in str(caught.value)
    assert SECRET not in "".join(traceback.format_exception(caught.value)).replace(str(named[0]), "")


def test_tables_of_several_stores_are_refused(here):
    make("x.parquet")
    for others in (["bucket/x.parquet"], ["s3://key:s3cret@bucket/x.parquet"], ["gs://bucket/x.parquet"]):
        with pytest.raises(
            ValueError, match="are not in one store; name tables of one, with the same options"
        ) as caught:
            find("s3://bucket/x.parquet", *others)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("out", ["s3://key:s3cret@bucket/out", "file:///out", Path("gs://bucket/out")])
def test_output_is_not_written_to_uris(out):
    with pytest.raises(ValueError, match=r"directories, and \w+: begins a URI; name a directory") as caught:
        local(out)
    assert SECRET not in str(caught.value)
