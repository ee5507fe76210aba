"""The command without `--by`: one mixture of a whole table, read batch by batch."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv
from test_cli import TABLE, contents, predicted, run

import jaxgmm
from jaxgmm import cli
from jaxgmm.cli import use
from jaxgmm.streams import passing

X = np.stack([TABLE["red"], TABLE["green"]], axis=1)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the table in it, in both formats, and nothing else."""
    monkeypatch.chdir(tmp_path)
    pq.write_table(TABLE, "cells.parquet")
    csv.write_csv(TABLE, "cells.csv")
    return tmp_path


def output(name, out="out"):
    return pq.read_table(f"{out}/{name}.parquet")


def test_answers_are_those_of_fit_and_have_no_keys(here, capsys):
    assert run(by=None, weights="copies") == 0
    weights = [TABLE["copies"].to_numpy()]
    expected = jaxgmm.order_components(jaxgmm.fit([X], 2, n_init=2, precision="float64", sample_weight=weights))
    np.testing.assert_array_equal(output("fits")["log_likelihood"], expected.log_likelihood)
    np.testing.assert_array_equal(output("components")["weight"], expected.mixture.weights[0])
    assert output("fits").column_names[0] == "n_samples"
    assert output("components").column_names[0] == "component"
    said = capsys.readouterr()
    assert "one mixture of 122 samples" in said.out
    assert "fitted in" in said.out
    assert "group" not in said.out + said.err
    assert "2 of 2 runs" in said.err


def test_csv_gives_the_same_tables_as_parquet(here):
    assert run(by=None) == 0
    assert run(by=None, file="cells.csv", out="out2") == 0
    for name in ("fits", "components"):
        assert output(name, "out2").equals(output(name))


@pytest.mark.slow
def test_a_choice_is_made_for_the_whole_table(here, capsys):
    assert run(by=None, components="1-3") == 0
    said = capsys.readouterr().out
    assert "\nthe model chosen\n" in said
    assert "group" not in said
    assert output("models")["n_components"].to_pylist() == [1, 2, 3]
    assert cli.main(["plot", "criterion", "out", "--out", "criterion.png"]) == 0
    assert capsys.readouterr().out == "drew the criterion: criterion.png\n"


def test_the_fits_are_of_use(here, capsys):
    assert run(by=None) == 0
    capsys.readouterr()
    for kind in ("overview", "mixture", "diagnosis"):
        assert cli.main(["plot", kind, "out", "--data", "cells.csv", "--out", f"{kind}.png"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "drew the mixture: mixture.png"
    assert cli.main(["sample", "out", "--samples", "5", "--out", "drawn.parquet"]) == 0
    assert capsys.readouterr().out == "5 samples; wrote drawn.parquet\n"
    assert pq.read_table("drawn.parquet").column_names == ["component", "red", "green"]
    assert cli.main(["info", "out"]) == 0
    assert not {"by", "keys"} & {line.split()[0] for line in capsys.readouterr().out.splitlines()}
    assert cli.main(["info", "out", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["keys"], facts["by"], facts["groups"]) == ({}, [], 1)


@pytest.mark.parametrize("file", ["cells.parquet", "cells.csv"])
def test_predictions_go_batch_by_batch(here, monkeypatch, file):
    assert run(by=None) == 0
    monkeypatch.setattr(use, "_BLOCK", 50)
    assert predicted(file=file) == 0
    found = pq.read_table("predicted.parquet")
    mixture = jaxgmm.order_components(jaxgmm.fit([X], 2, n_init=2, precision="float64")).mixture.of(0)
    assert found.column_names == ["component", "probability", "log_density"]
    np.testing.assert_array_equal(found["component"], jaxgmm.predict(mixture, X))
    np.testing.assert_allclose(found["log_density"], jaxgmm.log_prob(mixture, X), rtol=1e-12)


def test_a_job_that_is_done_is_known(here, capsys):
    assert run(by=None, flags=["--resume"]) == 0
    before = contents(here)
    capsys.readouterr()
    assert run(by=None, flags=["--resume"]) == 0
    assert "it had been fitted before" in capsys.readouterr().out
    assert run(flags=["--resume"]) == 2
    assert "out was begun without --by, not with --by well" in capsys.readouterr().err
    assert contents(here) == before


def test_where_nothing_is_chosen_there_is_no_table_of_choices(here, capsys):
    pq.write_table(TABLE.set_column(1, "red", pa.array(np.full(TABLE.num_rows, np.nan))), "nan.parquet")
    assert run(by=None, file="nan.parquet", components="1-3") == 1
    assert "chosen" not in capsys.readouterr().out


def test_a_fit_without_an_answer_exits_with_1(here, capsys):
    pq.write_table(TABLE.set_column(1, "red", pa.array(np.full(TABLE.num_rows, np.nan))), "nan.parquet")
    assert run(by=None, file="nan.parquet") == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "jaxgmm: the fit has not ended CONVERGED or MAX_ITER (1 NONFINITE); out/fits.parquet says what to do."
    )
    assert predicted() == 0
    assert pq.read_table("predicted.parquet")["component"].null_count == TABLE.num_rows
    assert cli.main(["plot", "mixture", "out", "--data", "nan.parquet", "--out", "p.png"]) == 2
    assert "the whole table has no answer: its status is NONFINITE.\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"by": ""}, "--by names no column; name one, or leave out --by to take the whole table as one group"),
        ({"by": ","}, "--by names no column"),
        ({"by": None, "file": "cells.csv", "features": "red,name"}, "column 'name' holds text, not numbers"),
        ({"by": None, "features": "red,name"}, "column 'name' holds string, not numbers"),
        ({"by": None, "weights": "red"}, "weights must not be negative"),
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


def test_a_group_cannot_be_named(here, capsys):
    assert run(by=None) == 0
    words = ["--data", "cells.parquet", "--group", "a", "--out", "p.png"]
    assert cli.main(["plot", "mixture", "out", *words]) == 2
    assert "these fits are of a whole table; leave out --group" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["cells.parquet", "cells.csv"])
def test_passes_give_the_mixture_that_the_library_finds(here, capsys, file):
    assert run(by=None, file=file, passes=3) == 0
    sample = jaxgmm.fit([X], 2, n_init=2, precision="float64")
    start = {"init": sample.mixture.of(0), "n_init": 1, "precision": "float64"}
    stream = jaxgmm.fit_stream([X], 2, passes=3, sample=X, **start)
    expected = jaxgmm.order_components(stream.mixture)
    np.testing.assert_array_equal(output("components")["weight"], expected.weights)
    np.testing.assert_array_equal(output("fits")["log_likelihood"], [stream.log_likelihood])
    np.testing.assert_array_equal(output("fits")["gap"], [stream.gap])
    assert output("fits")["n_samples"].to_pylist() == [TABLE.num_rows]
    said = capsys.readouterr()
    assert "one mixture of 122 samples" in said.out
    assert "rows" in said.err


def test_passes_go_on_where_they_were_interrupted(here, capsys, monkeypatch):
    monkeypatch.setattr(passing, "TILE", 32)
    assert run(by=None, passes=3, weights="copies", out="expected") == 0
    added = passing._added

    def failing(passage, sums, n):
        if passage.n_rows > 32:
            raise OSError("the disk is gone")
        return added(passage, sums, n)

    monkeypatch.setattr(passing, "_added", failing)
    assert run(by=None, passes=3, weights="copies") == 2
    assert "the passes so far are kept in out/.unfinished; the same command with --resume" in capsys.readouterr().err
    monkeypatch.setattr(passing, "_added", added)
    assert run(by=None, passes=3, weights="copies", flags=["--resume"]) == 0
    for name in ("fits", "components"):
        assert output(name).equals(output(name, "expected"))


def test_passes_without_an_answer_say_what_is_bad(here):
    red = np.asarray(TABLE["red"], float).copy()
    red[[5, 7]] = np.nan
    place = TABLE.column_names.index("red")
    pq.write_table(TABLE.set_column(place, "red", pa.array(red)), "nan.parquet")
    assert run(by=None, file="nan.parquet", passes=1) == 1
    assert "(2 of 122 samples)" in output("fits")["explanation"][0].as_py()
    pq.write_table(TABLE.set_column(place, "red", pa.array(np.full(122, 4.0))), "flat.parquet")
    assert run(by=None, file="flat.parquet", passes=1, out="flat") == 1
    explanation = pq.read_table("flat/fits.parquet")["explanation"][0].as_py()
    assert explanation.endswith("drop constant features (red).")


def test_passes_are_made_over_a_whole_table(here, capsys):
    assert run(passes=2) == 2
    assert "leave out --passes, or --by" in capsys.readouterr().err
