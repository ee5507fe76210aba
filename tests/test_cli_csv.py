"""Tables that the command writes as CSV, and what `predict` adds to them on request."""

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv
from test_cli import TABLE, contents, predicted, run, write_keyed

import jaxgmm
from jaxgmm import cli
from jaxgmm.cli import fitted
from jaxgmm.tables import files

TEXTS = csv.ConvertOptions(column_types={"well": pa.string()}, strings_can_be_null=False)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a table whose keys are 001, 002 and 003, and nothing else."""
    monkeypatch.chdir(tmp_path)
    write_keyed("cells.csv", ["001", "002", "003"])
    return tmp_path


def job(*flags, **options):
    return run(file="cells.csv", flags=list(flags), **options)


@pytest.mark.parametrize("out", ["p.csv", "p.csv.gz", "p.csv.bz2"])
def test_predictions_in_csv_are_those_in_parquet_to_the_last_bit(here, out):
    assert job() == 0
    for name in (out, "p.parquet"):
        assert cli.main(["predict", "cells.csv", "--fits", "out", "--out", name, "--probabilities"]) == 0
    expected = pq.read_table("p.parquet")
    found = csv.read_csv(out, convert_options=TEXTS)
    assert found.column_names == expected.column_names
    for name in found.column_names:
        assert found[name].to_pylist() == expected[name].to_pylist()
    # The command reads these keys as what they were.
    assert files.read_table(out, ["well"], keys=["well"])["well"].equals(found["well"])


def test_equal_tables_are_equal_files(here):
    table = pa.table({"x": [1.5, None]})
    for name in ("a.csv.gz", "b.csv.gz"):
        with files.written(name, table.schema) as writer:
            writer.write_table(table)
    assert (here / "a.csv.gz").read_bytes() == (here / "b.csv.gz").read_bytes()
    assert gzip.decompress((here / "a.csv.gz").read_bytes()) == b'"x"\n1.5\n\n'


def test_numbers_keep_all_their_digits_and_null_is_empty(here):
    numbers = [0.1 + 0.2, 1e-300, -np.inf, 2.0**-1074, 1 / 3, None]
    table = pa.table({"key": ["001", "", None, 'a "b", c', "1E1", "d"], "x": numbers})
    with files.written("t.csv", table.schema, separator=";") as writer:
        writer.write_table(table)
    assert (here / "t.csv").read_text().splitlines()[-1] == '"d";'
    found = files.read_table("t.csv", ["key", "x"], keys=["key"], separator=";")
    assert found["x"].to_pylist() == numbers
    assert found["key"].to_pylist() == ["001", "", "", 'a "b", c', "1E1", "d"]


def test_tables_of_fits_are_written_as_csv_too(here, capsys):
    assert job("--csv", components="1-2") == 0
    assert "out/fits.csv, out/components.csv and out/models.csv" in capsys.readouterr().out.replace("\n", " ")
    for name in ("fits", "components", "models"):
        found = csv.read_csv(f"out/{name}.csv", convert_options=TEXTS)
        assert found.to_pylist() == pq.read_table(f"out/{name}.parquet").to_pylist()
    assert predicted(file="cells.csv") == 0


def test_csv_files_of_a_finished_job_are_written_when_it_is_resumed(here, capsys):
    assert job() == 0
    before = contents(here)
    assert job("--csv", "--resume") == 0
    assert set(contents(here)) - set(before) == {"out/fits.csv", "out/components.csv"}
    (here / "out" / "fits.csv").write_text("mine")
    (here / "out" / "components.csv").unlink()
    assert job("--csv", "--resume") == 0
    assert (here / "out" / "fits.csv").read_text() == "mine"
    assert (here / "out" / "components.csv").exists()
    capsys.readouterr()
    assert job("--csv", "--resume", starts=3) == 2
    assert "out was begun with --starts 2, not 3; ask for the same again" in capsys.readouterr().err


def test_csv_files_of_another_job_are_left_alone(here, capsys):
    (here / "out").mkdir()
    (here / "out" / "fits.csv").write_text("mine")
    before = contents(here)
    assert job("--csv") == 2
    assert capsys.readouterr().err == (
        "jaxgmm: error: out/fits.csv exists already; remove it, or name another directory.\n"
    )
    assert contents(here) == before


def test_fields_are_separated_in_what_is_written_as_in_what_is_read(here):
    write_keyed("others.csv", ["001", "002", "003"], ";")
    assert run(file="others.csv", flags=["--separator", ";", "--csv"]) == 0
    assert (here / "out" / "fits.csv").read_text().startswith('"well";"n_samples";')
    assert cli.main(["predict", "others.csv", "--fits", "out", "--out", "p.csv", "--separator", ";"]) == 0
    assert (here / "p.csv").read_text().startswith('"well";"component";')


def test_samples_are_written_as_csv(here):
    assert job() == 0
    assert cli.main(["sample", "out", "--samples", "5", "--out", "drawn.csv"]) == 0
    drawn = csv.read_csv("drawn.csv", convert_options=TEXTS)
    assert drawn["well"].to_pylist() == [key for key in ("001", "002", "003") for _ in range(5)]


def test_probabilities_of_all_components_are_those_of_the_library(here):
    pq.write_table(TABLE, "cells.parquet")
    assert run(components="1-3", criterion="bic") == 0
    words = ["--fits", "out", "--out", "p.parquet", "--probabilities"]
    assert cli.main(["predict", "cells.parquet", *words]) == 0
    found = pq.read_table("p.parquet")
    chosen = pq.read_table("out/fits.parquet")["n_components"].to_pylist()
    names = [f"probability_{k}" for k in range(max(chosen))]
    assert found.column_names == ["well", "component", "probability", "log_density", *names]
    probabilities = np.stack([found[name] for name in names], axis=1)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), found["component"])
    np.testing.assert_array_equal(probabilities.max(axis=1), found["probability"])


def test_p_values_are_those_of_each_row_s_own_group(here):
    pq.write_table(TABLE, "cells.parquet")
    assert run() == 0
    assert cli.main(["predict", "cells.parquet", "--fits", "out", "--out", "p.parquet", "--p-value"]) == 0
    found = pq.read_table("p.parquet")
    assert found.column_names == ["well", "component", "probability", "log_density", "p_value"]
    mixture = fitted.read_fits(here / "out").mixture()
    group = np.array([["a", "b", "c"].index(key) for key in TABLE["well"].to_pylist()])
    for b in range(3):
        x = np.stack([TABLE["red"], TABLE["green"]], axis=1)[group == b]
        expected = jaxgmm.outlier_p_values(mixture.of(b), x)
        np.testing.assert_allclose(found["p_value"].to_numpy()[group == b], expected, rtol=1e-9)


def test_rows_without_an_answer_have_nothing(here):
    assert job() == 0
    (here / "strange.csv").write_text("well,red,green\n004,0,0\n001,,0\n001,0,0\n")
    words = ["--fits", "out", "--out", "p.csv", "--probabilities", "--p-value"]
    assert cli.main(["predict", "strange.csv", *words]) == 0
    lines = (here / "p.csv").read_text().splitlines()
    assert lines[1:3] == ['"004",,,,,,', '"001",,,,,,']
    assert lines[3].count(",") == 6
    assert ",," not in lines[3]


def test_columns_of_probabilities_may_not_be_keys(here, capsys):
    pq.write_table(TABLE.rename_columns(["probability_1", "red", "green", "copies", "name"]), "odd.parquet")
    assert run(file="odd.parquet", by="probability_1") == 0
    assert predicted(file="odd.parquet") == 0
    words = ["--fits", "out", "--out", "p.csv", "--probabilities"]
    assert cli.main(["predict", "odd.parquet", *words]) == 2
    assert "two columns of the output would be called 'probability_1'" in capsys.readouterr().err


def test_a_full_disk_leaves_the_parquet_tables_and_says_how_to_go_on(here, capsys, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.csv, "CSVWriter", full)
        assert job("--csv") == 2
    assert "No space left on device" in capsys.readouterr().err
    assert sorted(path.name for path in (here / "out").iterdir()) == ["components.parquet", "fits.parquet"]
    assert job("--csv", "--resume") == 0
    assert jaxgmm.Status.CONVERGED.name in (here / "out" / "fits.csv").read_text()
