"""The command with tables in many files, and with conditions on their rows."""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv, fs
from test_cli import SIZES, TABLE, contents, predicted, run

from jaxgmm import cli
from jaxgmm.tables import places


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the table in one file, and in two for each well: Parquet, and CSV."""
    monkeypatch.chdir(tmp_path)
    pq.write_table(TABLE, "cells.parquet")
    for well in SIZES:
        own = TABLE.filter(pa.array([key == well for key in TABLE["well"].to_pylist()])).drop_columns("well")
        for number, part in enumerate((own.slice(0, 20), own.slice(20))):
            for kind, write in (("parquet", pq.write_table), ("csv", csv.write_csv)):
                Path(f"{kind}/well={well}").mkdir(parents=True, exist_ok=True)
                write(part, f"{kind}/well={well}/{number}.{kind}")
    Path("parquet/_SUCCESS").touch()
    return tmp_path


def output(name, out="out"):
    return pq.read_table(f"{out}/{name}.parquet")


def test_tables_are_those_of_one_file(here, capsys):
    assert run() == 0
    each = sorted(map(str, Path("parquet").glob("*/*.parquet")))
    for number, (file, flags) in enumerate(
        [("parquet", []), ("csv", []), ("parquet/*/*.parquet", []), ("parquet/well=[a-c]", []), (each[0], each[1:])]
    ):
        assert run(file=file, flags=flags, out=f"out{number}") == 0
        for name in ("fits", "components"):
            assert output(name, f"out{number}").equals(output(name))
    # Folders are in the order of keys.
    assert "sorting them into" not in capsys.readouterr().err
    assert predicted(file="parquet", out="p.parquet", keep="name,copies") == 0
    found = pq.read_table("p.parquet")
    assert predicted(file="csv", out="p.csv", keep="name,copies") == 0
    assert found["copies"].to_pylist() == csv.read_csv("p.csv")["copies"].to_pylist()
    assert predicted() == 0
    one = pq.read_table("predicted.parquet")
    np.testing.assert_array_equal(
        found.sort_by([("well", "ascending"), ("log_density", "ascending")])["component"],
        one.sort_by([("well", "ascending"), ("log_density", "ascending")])["component"],
    )


@pytest.fixture
def store(here, monkeypatch):
    """URIs of the folder, with credentials."""
    system = fs.SubTreeFileSystem(str(here), fs.LocalFileSystem())
    monkeypatch.setattr(places, "opened", lambda _: (system, ""))
    return "s3://key:s3cret@bucket/{}?region=x"


def test_tables_at_uris_are_those_at_paths_and_credentials_are_told_nowhere(here, store, capsys):
    assert run() == 0
    for number, file in enumerate(("parquet", "parquet/*/*.parquet", "cells.parquet", "csv")):
        assert run(file=store.format(file), out=f"out{number}") == 0
        for name in ("fits", "components"):
            assert output(name, f"out{number}").equals(output(name))
    assert predicted(file=store.format("parquet"), out="p.parquet", keep="name") == 0
    assert predicted(file="parquet", out="q.parquet", keep="name") == 0
    assert pq.read_table("p.parquet").equals(pq.read_table("q.parquet"))
    assert cli.main(["info", store.format("parquet"), "--by", "well"]) == 0
    assert cli.main(["report", "out0", "--data", store.format("csv"), "--out", "report.html"]) == 0
    assert cli.main(["plot", "overview", "out0", "--data", store.format("parquet"), "--out", "p.png"]) == 0
    # They may be others when a job is resumed.
    assert run(file=store.format("parquet").replace("s3cret", "new"), out="out0", flags=["--resume"]) == 0
    assert run(file=store.format("csv"), out="out0", flags=["--resume"]) == 2
    told = capsys.readouterr()
    assert "out0 was begun with the file parquet, not csv" in told.err
    written = [path.read_bytes() for path in here.rglob("*") if path.is_file()]
    assert not [text for text in (told.out, told.err) if "s3cret" in text]
    assert not [content for content in written if b"s3cret" in content]


@pytest.mark.parametrize(
    "words",
    [
        ["fit", "cells.parquet", "--features", "red", "--components", "1", "--out", "s3://key:s3cret@bucket/out"],
        ["predict", "cells.parquet", "--fits", "out", "--out", "s3://key:s3cret@bucket/p.parquet"],
        ["demo", "--out", "file:///out"],
    ],
)
def test_output_at_a_uri_is_refused(here, capsys, words):
    assert cli.main(words) == 2
    told = capsys.readouterr().err
    assert "begins a URI; name a directory, and copy from there." in told
    assert "s3cret" not in told


def test_all_files_are_one_data_set(here):
    pq.write_table(TABLE.sort_by("well"), "sorted.parquet")
    for file, out in (("sorted.parquet", "one"), ("parquet", "many")):
        assert run(by=None, file=file, out=out) == 0
    assert output("components", "many").equals(output("components", "one"))


def test_info_counts_files_and_knows_columns_of_folders(here, capsys):
    assert cli.main(["info", "parquet", "--by", "well", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["files"], facts["rows"], facts["groups"]) == (6, 122, 3)
    assert (facts["columns"]["well"], facts["keys"]) == ("string", {"well": "string"})
    assert facts["in_the_order_of_keys"]
    assert cli.main(["info", "csv"]) == 0
    assert "files 6" in " ".join(capsys.readouterr().out.split())


def test_another_set_of_files_is_another_job(here, capsys):
    assert run(file="parquet") == 0
    assert run(file="parquet", flags=["--resume"]) == 0
    os.rename("parquet/well=a/1.parquet", "parquet/well=a/3.parquet")
    assert run(file="parquet", flags=["--resume"]) == 2
    assert "out was begun with other files of parquet; ask for the same again" in capsys.readouterr().err
    os.remove("parquet/well=a/3.parquet")
    assert run(file="parquet", flags=["--resume"]) == 2
    assert "out was begun with another parquet (bytes: " in capsys.readouterr().err


def test_a_condition_leaves_the_groups_that_satisfy_it(here, capsys):
    assert run() == 0
    for number, file in enumerate(("cells.parquet", "parquet", "csv")):
        assert run(file=file, where="well <> 'c' and red is not null", out=f"out{number}") == 0
        for name, n_rows in (("fits", 2), ("components", 4)):
            assert output(name, f"out{number}").equals(output(name).slice(0, n_rows))
    assert run(flags=["--where", "well <> 'c'", "--where", "red is not null"], out="both") == 0
    assert output("components", "both").equals(output("components", "out0"))
    capsys.readouterr()
    assert cli.main(["info", "out0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["where"] == "well <> 'c' and red is not null"
    # What is drawn is what was fitted, of the whole table.
    assert cli.main(["report", "out0", "--data", "cells.parquet", "--out", "report.html", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["groups"] == 2
    assert cli.main(["plot", "overview", "out1", "--data", "parquet", "--out", "p.png"]) == 0


def test_predictions_are_not_written_into_a_directory_that_is_read(here, capsys):
    assert run() == 0
    assert predicted(file="parquet", out="parquet/well=a/p.parquet") == 2
    assert "lies in parquet, which is read; name another place" in capsys.readouterr().err


def test_predictions_are_of_the_rows_that_satisfy_a_condition(here):
    assert run() == 0
    assert predicted() == 0
    every = pq.read_table("predicted.parquet")
    assert predicted(where="copies > 1", out="some.parquet") == 0
    assert pq.read_table("some.parquet").equals(every.filter(pa.array(TABLE["copies"].to_numpy() > 1)))


def test_another_condition_is_another_job(here, capsys):
    assert run(where="copies > 1") == 0
    assert run(where=" copies > 1 ", flags=["--resume"]) == 0
    for options, words in (
        ({"where": "copies > 2"}, "with --where copies > 1, not copies > 2"),
        ({}, "with --where copies > 1, not without --where"),
    ):
        assert run(flags=["--resume"], **options) == 2
        assert f"out was begun {words}; ask for the same again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"where": "well = a"}, "cells.parquet has no column 'a', which the condition names"),
        ({"where": "well ="}, "is not a valid condition: it does not consist of comparisons"),
        (
            {"flags": ["--where", "red > 0", "--where", "well ="]},
            "'well =' is not a valid condition: it does not consist",
        ),
        (
            {"flags": ["--where", "red > 0) or (red < 1", "--where", "red > 2"]},
            "'red > 0) or (red < 1' is not a valid condition",
        ),
        ({"where": "well = 7"}, "'well' holds string, and is compared with 7; compare it with a text, such as 'A01'"),
        ({"where": "well = 'z'"}, "no row of cells.parquet satisfies \"well = 'z'\"; change the condition"),
        ({"file": "csv", "where": "red = 'x'"}, "no row of csv satisfies \"red = 'x'\""),
        ({"file": "none/*.parquet"}, "no file matches 'none/*.parquet'; check the pattern"),
        ({"file": "parquet", "out": "parquet/fits"}, "parquet/fits lies in parquet, which is read"),
        ({"file": "*"}, "name files of one kind"),
        ({"file": ".", "by": "name"}, "cells.parquet is not"),
    ],
)
def test_misuse_is_one_line_with_a_remedy_and_writes_nothing(here, capsys, options, words):
    before = contents(here)
    assert run(**options) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err
    assert said.err.count("\n") == 1
    assert contents(here) == before
