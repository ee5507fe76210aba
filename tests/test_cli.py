"""The command, from file to file: its answers, and what it says to misuse."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from compilation import slow
from pyarrow import csv
from report_contents import read

import jaxgmm
from jaxgmm import cli, storage
from jaxgmm.cli import demo, doctor, options, summary
from jaxgmm.doubts import flag_texts
from jaxgmm.frames import fit_groups
from jaxgmm.jobs import request, running, ways
from jaxgmm.report import write_report
from jaxgmm.selection.notes import note
from jaxgmm.tables import files
from jaxgmm.tables.dataset import find

# Unequal, and padded to one length, whether fitted together or each alone, so that few programs are compiled. For the
# same reason, tests of other tables have as many features, and up to four groups.
SIZES = {"a": 40, "b": 36, "c": 46}


def two_clusters(size, seed):
    draw = np.random.default_rng(seed)
    return draw.normal(size=(size, 2)) + 6.0 * (np.arange(size) % 2)[:, None]


SAMPLES = {key: two_clusters(size, seed) for seed, (key, size) in enumerate(SIZES.items())}
WEIGHTS = {key: np.random.default_rng(9).integers(1, 4, size).astype(float) for key, size in SIZES.items()}
# Shuffled, so that groups have to be found.
ORDER = np.random.default_rng(3).permutation(sum(SIZES.values()))
TABLE = pa.table(
    {
        "well": np.repeat(list(SIZES), list(SIZES.values())),
        "red": np.concatenate([x[:, 0] for x in SAMPLES.values()]),
        "green": np.concatenate([x[:, 1] for x in SAMPLES.values()]),
        "copies": np.concatenate(list(WEIGHTS.values())),
        "name": np.repeat("text", sum(SIZES.values())),
    }
).take(ORDER)


def in_table_order(key, rows):
    """The rows of a group in the order that the shuffled table has them."""
    first = sum(size for other, size in SIZES.items() if other < key)
    mine = ORDER - first
    return rows[mine[(mine >= 0) & (mine < SIZES[key])]]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the table in it, and nothing else."""
    monkeypatch.chdir(tmp_path)
    pq.write_table(TABLE, "cells.parquet")
    return tmp_path


def run(**changed):
    """Runs the usual job with some options changed; None leaves an option out."""
    file = changed.pop("file", "cells.parquet")
    several = any(mark in str(changed.get(name)) for name in ("components", "covariance") for mark in "-,")
    command = changed.pop("command", "sweep" if several else "fit")
    flags = changed.pop("flags", [])
    options = {
        "by": "well",
        "features": "red,green",
        "components": 2,
        "starts": 2,
        "precision": "float64",
        "out": "out",
    } | changed
    pairs = [(f"--{name.replace('_', '-')}", str(value)) for name, value in options.items() if value is not None]
    return cli.main([command, str(file), *(word for pair in pairs for word in pair), *flags])


def expected_fits(**options):
    options = {"n_init": 2, "precision": "float64"} | options
    fitted = jaxgmm.fit([in_table_order(key, SAMPLES[key]) for key in SIZES], 2, **options)
    return jaxgmm.order_components(fitted)


def output(name):
    return pq.read_table(f"out/{name}.parquet")


def column(name):
    return output("components")[name].to_numpy().reshape(len(SIZES), 2)


def test_answers_are_those_of_fit(here, capsys):
    assert run(seed=5) == 0
    expected = expected_fits(key=5)
    fits = output("fits")
    assert fits["well"].to_pylist() == list(SIZES)
    assert fits["n_samples"].to_pylist() == list(SIZES.values())
    assert fits["status"].to_pylist() == ["CONVERGED"] * 3
    assert fits["explanation"].to_pylist() == [jaxgmm.Status.CONVERGED.sentence] * 3
    np.testing.assert_array_equal(fits["log_likelihood"], expected.log_likelihood)
    np.testing.assert_array_equal(fits["n_iter"], expected.n_iter)
    assert output("components")["well"].to_pylist() == [key for key in SIZES for _ in range(2)]
    assert output("components")["component"].to_pylist() == [0, 1] * 3
    np.testing.assert_array_equal(column("weight"), expected.mixture.weights)
    np.testing.assert_array_equal(column("mean_green"), expected.mixture.means[..., 1])
    np.testing.assert_array_equal(column("covariance_red_red"), expected.mixture.covariances[..., 0, 0])
    np.testing.assert_array_equal(column("covariance_green_red"), expected.mixture.covariances[..., 1, 0])
    said = capsys.readouterr()
    assert "3 groups, 122 samples" in said.out
    assert "CONVERGED     3  The mean" in said.out
    assert "groups/s" in said.out
    assert "3 of 3 groups" in said.err


@pytest.mark.parametrize("components", [2, slow("1-2")])
def test_a_report_of_files_is_that_of_the_frame(here, capsys, components):
    weights = None if components == 2 else "copies"
    assert run(components=components, weights=weights) == 0
    capsys.readouterr()
    assert cli.main(["report", "out", "--data", "cells.parquet", "--out", "report.html", "--json"]) == 0
    size = Path("report.html").stat().st_size
    assert json.loads(capsys.readouterr().out) == {"groups": 3, "bytes": size, "file": "report.html"}
    given = components if components == 2 else [1, 2]
    options = {"n_init": 2, "precision": "float64", "weights": weights}
    found = fit_groups(TABLE, "well", ["red", "green"], given, **options)
    write_report(found, TABLE, "frame.html")
    own, other = (read(Path(name).read_text("ascii")) for name in ("report.html", "frame.html"))
    assert own.meta == other.meta
    # Tables do not hold the starts.
    for part, expected in ((own.core, other.core | {"flags": own.core["flags"]}), (own.blocks[0], other.blocks[0])):
        assert list(part) == list(expected)
        for name, values in expected.items():
            np.testing.assert_array_equal(part[name], values, err_msg=name)
    assert cli.main(["report", "out", "--data", "cells.parquet", "--out", "report.html"]) == 2
    assert "report.html exists already; remove it, name another file, or give --overwrite." in capsys.readouterr().err
    words = ["report", "out", "--data", "cells.parquet", "--out", "report.html", "--title", "Again", "--overwrite"]
    assert cli.main(words) == 0
    assert "<title>Again</title>" in Path("report.html").read_text()
    assert cli.main(["report", "out", "--data", "cells.parquet", "--out", "named.html", "--title", "Mine"]) == 0
    assert "3 groups, 0.1 MB; wrote named.html" in capsys.readouterr().out
    assert "<title>Mine</title>" in Path("named.html").read_text()


def test_a_missing_extra_is_misuse_and_a_missing_module_is_not():
    assert cli._can_be_put_right(ImportError("method='lbfgs' needs optax: pip install 'jaxgmm[optax]'."))
    assert not cli._can_be_put_right(ModuleNotFoundError("No module named 'words'", name="words"))


def test_options_reach_fit(here):
    assert run(covariance="diag", max_iter=3, tol=0, reg_covar=0.5, precision="float32") == 0
    expected = expected_fits(covariance_type="diag", max_iter=3, tol=0, reg_covar=0.5, precision="float32")
    assert output("fits")["status"].to_pylist() == ["MAX_ITER"] * 3
    np.testing.assert_array_equal(output("fits")["log_likelihood"], expected.log_likelihood)
    np.testing.assert_array_equal(column("variance_green"), expected.mixture.covariances[..., 1])


def test_weights_reach_fit(here):
    assert run(weights="copies") == 0
    weights = [in_table_order(key, WEIGHTS[key]) for key in SIZES]
    np.testing.assert_array_equal(output("fits")["log_likelihood"], expected_fits(sample_weight=weights).log_likelihood)
    assert output("fits")["n_samples"].to_pylist() == list(SIZES.values())


def test_csv_gives_the_same_tables_as_parquet(here):
    csv.write_csv(TABLE, "cells.csv")
    assert run() == 0
    assert run(file="cells.csv", out="out2") == 0
    for name in ("fits", "components"):
        assert pq.read_table(f"out2/{name}.parquet").equals(output(name))


# Keys of three groups as a CSV file may write them, and what they are read as.
WRITTEN = {
    "zeros": (["001", "1", "01"], "string"),
    "powers": (["1E1", "10", "1e1"], "string"),
    "long": (["10000000000000000001", "10000000000000000002", "3"], "string"),
    "integers": (["2", "10", "1"], "int64"),
    "decimals": (["2.0", "10.0", "1.5"], "double"),
    "days": (["2024-01-02", "2024-01-01", "2024-01-03"], "date32[day]"),
}


def write_keyed(name, keys, separator=","):
    """Writes a CSV file of the usual samples with other keys; a row for each further key."""
    names = dict(zip(SIZES, keys, strict=False))
    lines = [separator.join(["well", "red", "green"])]
    for row in TABLE.to_pylist():
        lines.append(separator.join([names[row["well"]], repr(row["red"]), repr(row["green"])]))
    lines += [separator.join([key, "0.0", "0.0"]) for key in keys[len(SIZES) :]]
    with open(name, "w") as file:
        file.write("\n".join(lines) + "\n")


@pytest.mark.parametrize("kind", WRITTEN)
def test_keys_of_csv_files_that_are_written_differently_are_different_groups(here, capsys, kind):
    keys, type_ = WRITTEN[kind]
    write_keyed("keyed.csv", keys)
    assert run(file="keyed.csv", flags=["--json"]) == 0
    assert json.loads(capsys.readouterr().out)["keys"] == {"well": type_}
    fits = output("fits")
    assert str(fits["well"].type) == type_
    assert sorted(fits["n_samples"].to_pylist()) == sorted(SIZES.values())
    assert cli.main(["info", "keyed.csv", "--by", "well", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["keys"], facts["groups"]) == ({"well": type_}, 3)
    assert predicted(file="keyed.csv") == 0
    found = pq.read_table("predicted.parquet")
    assert (str(found["well"].type), found["component"].null_count) == (type_, 0)
    assert cli.main(["plot", "mixture", "out", "--data", "keyed.csv", "--out", "p.png"]) == 0


@pytest.mark.parametrize(("fitted", "others"), [("integers", "zeros"), ("zeros", "integers"), ("integers", "decimals")])
def test_rows_keyed_otherwise_than_what_was_fitted_keep_their_keys_and_have_no_answer(here, fitted, others):
    write_keyed("keyed.csv", WRITTEN[fitted][0])
    write_keyed("others.csv", [*WRITTEN[others][0], "x1"])
    assert run(file="keyed.csv") == 0
    assert predicted(file="others.csv") == 0
    found = pq.read_table("predicted.parquet")
    texts = csv.read_csv("others.csv", convert_options=csv.ConvertOptions(column_types={"well": pa.string()}))["well"]
    assert found["well"].equals(texts)
    known = {str(key) for key in output("fits")["well"].to_pylist()}
    assert found["component"].is_valid().to_pylist() == [key in known for key in texts.to_pylist()]


def test_pictures_find_groups_whose_keys_are_in_another_order_as_texts(here, capsys, monkeypatch):
    write_keyed("keyed.csv", WRITTEN["decimals"][0])
    assert run(file="keyed.csv") == 0
    # As no program writes numbers throughout, these are texts, and 10.0 is before 2.
    write_keyed("mixed.csv", ["2", "10.0", "1.5"])
    drawn, diagnose = [], jaxgmm.diagnose
    monkeypatch.setattr(jaxgmm, "diagnose", lambda *args: (drawn.append(args), diagnose(*args))[1])
    words = ["--data", "mixed.csv", "--group", "2", "--out", "p.png"]
    assert cli.main(["plot", "diagnosis", "out", *words]) == 0
    np.testing.assert_array_equal(drawn[0][1], in_table_order("a", SAMPLES["a"]))
    write_keyed("more.csv", ["2.0", "10.0", "1.5", "x1"])
    assert cli.main(["plot", "overview", "out", "--data", "more.csv", "--out", "q.png"]) == 2
    assert "more.csv holds other groups than were fitted" in capsys.readouterr().err


@pytest.mark.parametrize(("separator", "said"), [(";", ";"), ("\t", "tab"), ("|", "|")])
def test_fields_of_csv_files_may_be_separated_otherwise(here, capsys, separator, said):
    write_keyed("commas.csv", ["2", "10", "1"])
    write_keyed("others.csv", ["2", "10", "1"], separator)
    own = ["--separator", said]
    assert run(file="commas.csv", out="commas") == 0
    capsys.readouterr()
    assert run(file="others.csv") == 2
    assert f"its header seems to be separated by {said!r}" in capsys.readouterr().err
    assert run(file="others.csv", flags=own) == 0
    assert output("fits").equals(pq.read_table("commas/fits.parquet"))
    assert run(file="others.csv", flags=["--resume", "--separator", separator]) == 0
    capsys.readouterr()
    assert cli.main(["info", "out", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["separator"] == said
    assert cli.main(["info", "commas", "--json"]) == 0
    assert "separator" not in json.loads(capsys.readouterr().out)
    assert cli.main(["info", "others.csv", *own, "--by", "well", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["groups"] == 3
    assert cli.main(["predict", "others.csv", "--fits", "out", "--out", "p.parquet", *own]) == 0
    assert pq.read_table("p.parquet")["component"].null_count == 0
    assert cli.main(["plot", "mixture", "out", "--data", "others.csv", "--out", "p.png", *own]) == 0
    assert cli.main(["info", "others.csv", "--separator", "long"]) == 2
    assert "the separator must be one character such as ';', or tab; got 'long'" in capsys.readouterr().err


def test_a_file_that_is_written_to_while_it_is_fitted_leaves_no_tables(here, capsys, monkeypatch):
    write_keyed("keyed.csv", ["2", "10", "1"])
    whole = jaxgmm.fit

    def written_to(*args, **options):
        with open("keyed.csv", "a") as file:
            file.write("1,0.0,0.0\n")
        return whole(*args, **options)

    monkeypatch.setattr(jaxgmm, "fit", written_to)
    assert run(file="keyed.csv") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("jaxgmm: error: keyed.csv was changed, replaced or removed while it was read")
    assert not (here / "out" / "fits.parquet").exists()


def test_a_file_that_is_changed_before_its_job_is_described_is_refused(here, capsys, monkeypatch):
    write_keyed("keyed.csv", ["2", "10", "1"])
    check_named = running.check_named

    def written_to(*args, **options):
        with open("keyed.csv", "a") as file:
            file.write("1,0.0,0.0\n")
        check_named(*args, **options)

    monkeypatch.setattr(running, "check_named", written_to)
    assert run(file="keyed.csv") == 2
    assert "was changed, replaced or removed" in capsys.readouterr().err
    assert not (here / "out").exists()


def test_columns_may_be_repeated_or_hold_commas(here):
    pq.write_table(TABLE.rename_columns(["well", "red,far", "green", "copies", "name"]), "commas.parquet")
    options = ["--by", "well", "--by", "name", "--features", "red,far", "--features", "green, copies"]
    # More than there are samples of any group: that is told without a program.
    assert cli.main(["fit", "commas.parquet", *options, "--components", "99", "--out", "out"]) == 1
    names = ["well", "name", "component", "weight", "mean_red,far", "mean_green", "mean_copies"]
    assert output("components").column_names[:7] == names


def test_bad_groups_leave_the_others_alone(here):
    bad = pa.table(
        {
            "well": [None, None, None, "b0", "d", "d", "d"],
            "red": [1.0, None, 2.0, 5.0, 1.0, 1.0, 1.0],
            "green": [1.0, 2.0, 3.0, 5.0, 1.0, 1.0, 1.0],
            "copies": [1.0] * 7,
            "name": ["text"] * 7,
        }
    )
    good = TABLE.filter(pa.array([key == "b" for key in TABLE["well"].to_pylist()]))
    pq.write_table(pa.concat_tables([bad, good]), "bad.parquet")
    assert run(out="alone") == 0
    assert run(file="bad.parquet") == 0
    fits = output("fits")
    assert fits["well"].to_pylist() == ["b", "b0", "d", None]
    assert fits["status"].to_pylist() == ["CONVERGED", "TOO_FEW_SAMPLES", "DEGENERATE", "NONFINITE"]
    assert fits["log_likelihood"].is_null().to_pylist() == [False, True, True, True]
    assert fits["explanation"][2].as_py().endswith("drop constant features (red, green).")
    for name, rows, own in (("fits", [0], [1]), ("components", [0, 1], [2, 3])):
        assert output(name).take(rows).equals(pq.read_table(f"alone/{name}.parquet").take(own))


@pytest.mark.parametrize("what", [{}, slow({"command": "sweep", "components": "1-3"})], ids=["fit", "sweep"])
def test_a_job_of_which_no_group_ends_well_exits_with_1_and_writes_its_tables(here, capsys, what):
    pq.write_table(TABLE.set_column(1, "red", pa.array(np.full(TABLE.num_rows, np.nan))), "nan.parquet")
    for flags in ([], ["--resume"], ["--resume", "--json"]):
        assert run(file="nan.parquet", flags=flags, **what) == 1
        said = capsys.readouterr()
        assert said.err.splitlines()[-1] == (
            "jaxgmm: no group ended CONVERGED or MAX_ITER (3 NONFINITE); out/fits.parquet says what to do about each."
        )
        assert output("fits")["status"].to_pylist() == ["NONFINITE"] * 3
    assert json.loads(said.out)["status"] == {"NONFINITE": 3}


def test_one_group_that_ends_by_max_iter_is_enough_for_exit_code_0(here, capsys):
    bad = pa.array([1.0 if key == "a" else np.nan for key in TABLE["well"].to_pylist()])
    red = pa.array(TABLE["red"].to_numpy() * bad.to_numpy())
    pq.write_table(TABLE.set_column(1, "red", red), "one.parquet")
    assert run(file="one.parquet", tol=0, max_iter=2) == 0
    assert output("fits")["status"].to_pylist() == ["MAX_ITER", "NONFINITE", "NONFINITE"]
    assert "no group" not in capsys.readouterr().err


def contents(folder):
    return {str(path.relative_to(folder)): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"file": "absent.parquet"}, "absent.parquet does not exist; check the path"),
        ({"file": "empty.csv"}, "empty.csv is empty; it needs a header"),
        ({"file": "header.csv"}, "header.csv is empty; it needs at least one row"),
        ({"file": "broken.parquet"}, "broken.parquet cannot be read as Parquet"),
        ({"file": "."}, "broken.parquet cannot be read as Parquet"),
        ({"by": "well_"}, "has no column 'well_'; did you mean 'well'?"),
        ({"features": "red,blue"}, "has no column 'blue'; its columns are well, red, green, copies, name"),
        ({"weights": "mass"}, "has no column 'mass'"),
        ({"features": "red,name"}, "column 'name' holds string, not numbers, such as '"),
        ({"by": "well,"}, "'well,' names a column without a name"),
        ({"features": "red,well"}, "column 'well' is named twice"),
        ({"features": "red,red"}, "column 'red' is named twice"),
        ({"features": ","}, "no feature column is named; name at least one"),
        ({"features": None}, "Missing option '--features'; see 'jaxgmm fit --help'"),
        ({"components": 0}, "--components must be numbers from 1"),
        ({"covariance": ","}, "--covariance must be one of"),
        ({"components": "two"}, "--components must be numbers from 1"),
        ({"out": "fits.csv"}, "--out must name a directory, for several tables; got fits.csv. For CSV"),
        ({"starts": 0}, "'--starts'"),
        ({"covariance": "banana"}, "'full', 'tied', 'diag', 'spherical'"),
        ({"tol": -1}, "'--tol'"),
        ({"reg_covar": "inf"}, "--reg-covar must be a finite number"),
        ({"weights": "red"}, "weights must not be negative"),
        ({"no_such_option": 1}, "No such option: --no-such-option"),
        ({"out": "taken"}, "taken/fits.parquet exists already; remove it, or name another directory"),
        ({"out": "empty.csv"}, "empty.csv is a file, not a directory"),
    ],
)
def test_misuse_is_one_line_with_a_remedy_and_writes_nothing(here, capsys, options, words):
    (here / "empty.csv").touch()
    (here / "header.csv").write_text("well,red,green\n")
    (here / "broken.parquet").write_bytes(b"PAR1 broken")
    (here / "taken").mkdir()
    (here / "taken" / "fits.parquet").write_bytes(b"mine")
    before = contents(here)
    assert run(**options) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err
    assert said.err.startswith("jaxgmm: error: ")
    assert said.err.endswith("\n")
    assert said.err.count("\n") == 1
    assert contents(here) == before


def test_columns_separated_by_spaces_are_refused_with_the_remedy(here, capsys):
    options = ["--features", "red", "--components", "1", "--out", "out"]
    assert cli.main(["fit", "cells.parquet", "--by", "well", "name", *options]) == 2
    assert "separate columns by commas, as in --by plate,well" in capsys.readouterr().err


def test_output_may_join_other_files(here):
    assert run(out=".") == 0
    assert sorted(path.name for path in here.iterdir()) == ["cells.parquet", "components.parquet", "fits.parquet"]


@pytest.mark.parametrize("place", ["fit", "write_table"])
def test_interrupt_writes_nothing(here, capsys, monkeypatch, place):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(jaxgmm if place == "fit" else files.pq.ParquetWriter, place, interrupted)
    assert run() == 130
    assert capsys.readouterr().err.endswith("jaxgmm: interrupted; nothing was written.\n")
    assert [path.name for path in here.iterdir()] == ["cells.parquet"]


def test_interrupt_does_not_wait_for_compiled_code(here):
    program = """
import os, signal, sys, time
import jaxgmm
from jaxgmm import cli

def endless(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(600)

jaxgmm.fit = endless
options = ["--by", "well", "--features", "red", "--components", "2", "--out", "out"]
sys.exit(cli.main(["fit", "cells.parquet", *options]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 130
    assert done.stderr.endswith("jaxgmm: interrupted; nothing was written.\n")
    assert [path.name for path in here.iterdir()] == ["cells.parquet"]


def test_full_disk_is_one_line_and_writes_nothing(here, capsys, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.pq.ParquetWriter, "write_table", full)
    assert run() == 2
    assert "No space left on device" in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in here.iterdir()] == ["cells.parquet"]


def test_version_is_the_package_s(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"jaxgmm {jaxgmm.__version__}\n"


def test_help_shows_an_example_and_the_columns_written(capsys):
    assert cli.main(["fit", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "jaxgmm fit cells.parquet --by plate,well" in said
    for name in (*output_names("fit"), "mean_F", "variance_F", "covariance_G_F"):
        assert name in said
    assert cli.main(["sweep", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for name in output_names("sweep"):
        assert name in said


FLAWS = ("spurious", "ridge_dominated", "start_passed_over")


def output_names(command):
    """The columns that tables of a command have beside keys and parameters."""
    names = ("n_samples", "log_likelihood", "gap", "n_iter", *FLAWS, "flags", "status", "explanation")
    chosen = ("n_components", "covariance_type", "at_largest_k")
    of_models = ("reg_covar", "n_parameters", "n_agreeing", "passed_over", "chosen")
    return names if command == "fit" else (*names[:-3], "status", *chosen, *of_models)


def test_the_help_names_every_column_that_is_written(here):
    assert run(components="1-3", out="out") == 0
    assert {*output("fits").column_names, *output("models").column_names} == {
        *output_names("fit"),
        *output_names("sweep"),
        "well",
        "bic",
    }


@pytest.mark.parametrize("package", ["typer", "rich.console", "pyarrow"])
def test_missing_packages_are_one_line_with_the_remedy(package):
    # A module that is None in the table of modules cannot be imported.
    program = f"import sys; sys.modules[{package!r}] = None; from jaxgmm.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install 'jaxgmm[cli]'" in done.stderr


def test_models_are_chosen_among_components_and_families(here, capsys):
    assert run(components="1-3", covariance="full,diag", criterion="icl") == 0
    groups = [in_table_order(key, SAMPLES[key]) for key in SIZES]
    options = {"criterion": "icl", "n_init": 2, "precision": "float64"}
    sweep = jaxgmm.sweep(groups, range(1, 4), covariance_type=("full", "diag"), **options)
    sweep = jaxgmm.order_components(sweep)
    fits, models, components = (output(name) for name in ("fits", "models", "components"))
    assert fits["n_components"].to_pylist() == sweep.chosen["n_components"].tolist() == [2, 2, 2]
    assert fits["covariance_type"].to_pylist() == sweep.chosen["covariance_type"].tolist()
    np.testing.assert_array_equal(fits["icl"], sweep.chosen["icl"])
    assert models.column_names[0] == "well"
    assert models.num_rows == 3 * 3 * 2
    assert models["flags"].filter(models["chosen"]).equals(fits["flags"])
    assert fits["flags"].to_pylist() == flag_texts(jaxgmm.flags(sweep)).tolist()
    assert components["flags"].to_pylist() == [text for text in fits["flags"].to_pylist() for _ in range(2)]
    np.testing.assert_array_equal(models["log_likelihood"], sweep.table["log_likelihood"])
    # A row for each component that is there.
    assert components["component"].to_pylist() == [0, 1] * 3
    said = capsys.readouterr().out
    assert "groups by the model chosen" in said
    assert "models.parquet" in said


def test_a_single_model_leaves_no_table_of_models(here):
    assert run(components="2") == 0
    assert sorted(path.name for path in (here / "out").iterdir()) == ["components.parquet", "fits.parquet"]


@pytest.mark.parametrize("components", ["0-2", "few", "3-1", "", "1,,x", "1,5-3", "1-1000000000"])
def test_components_must_be_numbers(here, capsys, components):
    assert run(components=components) == 2
    assert "--components must be numbers from 1" in capsys.readouterr().err


# Three groups, each a part of its own.
@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(request, "_ROWS", 40)


KILLED = """
import os, signal, sys
from jaxgmm import cli
from jaxgmm.tables import job
from jaxgmm.jobs import request

request._ROWS = 40
keep = job.Job.keep

def killed(self, part, of_part):
    if self.n_done == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    keep(self, part, of_part)

job.Job.keep = killed
cli.main(sys.argv[1:])
"""
JOB = ["cells.parquet", "--by", "well", "--features", "red,green", "--starts", "2", "--precision", "float64"]


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_as_for_users")
@pytest.mark.parametrize("what", [["fit", "--components", "2"], ["sweep", "--components", "1-2"]], ids=["fit", "sweep"])
def test_a_killed_job_goes_on_and_equals_an_uninterrupted_one(here, capsys, small_parts, what, monkeypatch):
    command, *models = what
    arguments = [command, *JOB, *models]
    assert cli.main([*arguments, "--out", "whole"]) == 0
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments, "--out", "out"], check=False, capture_output=True
    )
    assert killed.returncode == -9
    assert not (here / "out" / "fits.parquet").exists()

    capsys.readouterr()
    assert cli.main([*arguments, "--out", "out"]) == 2
    assert "holds an unfinished job; continue it with --resume" in capsys.readouterr().err
    assert cli.main([*arguments, "--out", "out", "--resume", "--tol", "0.1"]) == 2
    assert "was begun with --tol 1e-09, not 0.1" in capsys.readouterr().err

    fitted, call = [], getattr(jaxgmm, command)
    monkeypatch.setattr(
        jaxgmm, command, lambda x, *args, **kwargs: (fitted.append(len(x)), call(x, *args, **kwargs))[1]
    )
    assert cli.main([*arguments, "--out", "out", "--resume"]) == 0
    assert sum(fitted) == 2
    assert "1 had been fitted before" in capsys.readouterr().out
    assert contents(here / "out") == contents(here / "whole")

    assert cli.main([*arguments, "--out", "out", "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fitted"] == 0
    assert sum(fitted) == 2


@pytest.mark.parametrize(
    ("changed", "flags", "words"),
    [
        ({"starts": 3}, [], "with --starts 2, not 3"),
        ({"components": 3}, [], "with --components 2, not 3"),
        ({"by": "well,name"}, [], "with --by well, not well,name"),
        ({"by": None}, [], "with --by well, not without --by"),
        ({"weights": "copies"}, [], "without --weights, not with --weights copies"),
        ({"max_iter": 9}, [], "with --max-iter 1000, not 9"),
        ({"seed": 9}, [], "with --seed 0, not 9"),
        ({"order_by": "weight"}, [], "with --order-by mean, not weight"),
        ({}, ["--allow-spurious"], "without --allow-spurious, not with --allow-spurious"),
        ({"file": "copy.parquet"}, [], "with the file cells.parquet, not copy.parquet"),
    ],
)
def test_another_job_is_refused_by_the_options_that_differ(here, capsys, changed, flags, words):
    shutil.copy("cells.parquet", "copy.parquet")
    (here / "out" / ".unfinished").mkdir(parents=True)
    given = {"n_init": 2, "n_finalists": None, "key": 0, "tol": 1e-9, "max_iter": 1000, "precision": "float64"}
    models = {"n_components": 2, "covariance_type": "full", "reg_covar": 1e-12}
    asked = request.TableRequest(
        find("cells.parquet"), ",", ["well"], ["red", "green"], None, "mean", "fit", models, given
    )
    (here / "out" / ".unfinished" / "job.json").write_text(json.dumps(asked.description))
    assert run(flags=["--resume", *flags], **changed) == 2
    assert f"out/.unfinished was begun {words}; ask for the same again, or remove it" in capsys.readouterr().err


def test_flags_lists_and_commands_that_differ_are_named_as_they_are_typed():
    before, wanted = {"split": False, "patience": None}, {"split": True, "patience": 2}
    assert options.differing("split", before, wanted) == "without --split, not with --split"
    assert options.differing("split", wanted, before) == "with --split, not without --split"
    assert options.differing("patience", before, wanted) == "without --patience, not with --patience 2"
    ridges = [{"reg_covar": [1e-6]}, {"reg_covar": [0.1, 1.0]}]
    assert options.differing("reg_covar", *ridges) == "with --reg-covar 1e-06, not 0.1,1.0"
    assert options.differing("call", {"call": "fit"}, {"call": "sweep"}) == "by jaxgmm fit, not by jaxgmm sweep"


@pytest.mark.slow
def test_tests_draw_as_many_replicates_as_are_asked_for(here):
    assert run(command="sweep", components="1-2", criterion="lrt", flags=["--replicates", "9", "--starts", "2"]) == 0
    p_values = output("models")["lrt"].drop_null().to_numpy()
    assert len(p_values) > 0
    np.testing.assert_allclose(10 * p_values, np.round(10 * p_values))


def test_the_library_s_options_are_called_as_they_are_typed(here, capsys):
    assert run(command="sweep", components="1,3", criterion="lrt") == 2
    assert "needs consecutive --components" in capsys.readouterr().err
    assert run(command="sweep", components="1-2", criterion="lrt", flags=["--replicates", "0"]) == 2
    assert "--replicates" in capsys.readouterr().err
    assert run(command="sweep", components="1-3", criterion="lrt", flags=["--split"]) == 2
    assert "leave out --weights and --split" in capsys.readouterr().err


def test_an_interrupt_keeps_the_parts_that_are_done(here, capsys, small_parts, monkeypatch):
    whole, calls = jaxgmm.fit, []

    def interrupted(*args, **kwargs):
        calls.append(args)
        if len(calls) % 2 == 0:
            raise KeyboardInterrupt
        return whole(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(jaxgmm, "fit", interrupted)
        for kept in ("1 part is kept", "2 parts are kept"):
            assert run(flags=["--resume"]) == 130
            said = f"interrupted; {kept} in out/.unfinished; the same command with --resume continues the job."
            assert said in capsys.readouterr().err
    assert run(flags=["--resume"]) == 0
    assert output("fits")["status"].to_pylist() == ["CONVERGED"] * 3


def test_a_file_in_no_order_is_said_to_be_sorted_and_gives_the_same(here, capsys, small_parts):
    assert run() == 0
    said = capsys.readouterr().err
    assert "the rows of cells.parquet are not in the order of well; sorting them into" in said
    pq.write_table(TABLE.sort_by("well"), "sorted.parquet")
    assert run(file="sorted.parquet", out="sorted") == 0
    assert "sorting" not in capsys.readouterr().err
    expected = expected_fits()
    for name in ("out", "sorted"):
        found = pq.read_table(f"{name}/fits.parquet")
        # Programs are chosen for the whole job, so they are those of one call.
        np.testing.assert_array_equal(found["log_likelihood"], expected.log_likelihood)
        assert not (here / name / ".unfinished").exists()


def test_json_is_one_object_and_nothing_else(here, capsys):
    assert run(flags=["--json"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    summary = json.loads(said.out)
    assert summary.pop("seconds") > 0
    assert summary == {
        "groups": 3,
        "samples": 122,
        "status": {"CONVERGED": 3},
        "flags": {},
        "keys": {"well": "string"},
        "notes": [],
        "fitted": 3,
        "files": ["out/fits.parquet", "out/components.parquet"],
    }


def test_fit_points_to_sweep_for_several_numbers(here, capsys):
    assert run(command="fit", components="1-3") == 2
    assert "not 1-3; jaxgmm sweep chooses among several" in capsys.readouterr().err


def predicted(**options):
    arguments = {"file": "cells.parquet", "fits": "out", "out": "predicted.parquet"} | options
    file = arguments.pop("file")
    pairs = [(f"--{name}", value) for name, value in arguments.items()]
    return cli.main(["predict", file, *(word for pair in pairs for word in pair if word is not None)])


@pytest.mark.parametrize(("covariance", "precision"), [("full", "float64"), slow("diag", "float32")])
def test_predictions_are_those_of_each_row_s_own_group(here, covariance, precision):
    assert run(covariance=covariance, precision=precision) == 0
    assert predicted() == 0
    found = pq.read_table("predicted.parquet")
    assert found["well"].equals(TABLE["well"])
    fits = expected_fits(covariance_type=covariance, precision=precision)
    for b, key in enumerate(SIZES):
        own = fits.mixture.of(b)
        x = in_table_order(key, SAMPLES[key])
        rows = np.array(TABLE["well"].to_pylist()) == key
        np.testing.assert_array_equal(found["component"].to_numpy()[rows], jaxgmm.predict(own, x))
        np.testing.assert_allclose(found["log_density"].to_numpy()[rows], jaxgmm.log_prob(own, x), rtol=1e-12)
        most = jaxgmm.responsibilities(own, x).max(axis=1)
        np.testing.assert_allclose(found["probability"].to_numpy()[rows], most, atol=1e-12)


def test_rows_without_an_answer_are_null(here, capsys):
    assert run() == 0
    strange = pa.table({"well": ["new", "a", None, "b"], "red": [0.0, None, 0.0, 1.0], "green": [0.0] * 4})
    pq.write_table(strange, "strange.parquet")
    assert predicted(file="strange.parquet") == 0
    said = capsys.readouterr()
    assert "4 rows, 3 of them without an answer, 2 of these in groups that were not fitted" in said.out
    assert "warning" not in said.err
    found = pq.read_table("predicted.parquet")
    for name in ("component", "probability", "log_density"):
        assert found[name].is_null().to_pylist() == [True, True, True, False]


def test_rows_none_of_which_belongs_to_a_fitted_group_are_warned_of(here, capsys):
    assert run() == 0
    pq.write_table(TABLE.set_column(0, "well", pa.array(["A1"] * TABLE.num_rows)), "others.parquet")
    assert predicted(file="others.parquet") == 0
    warning = "warning: no row of others.parquet belongs to a group that was fitted; compare its keys with those of out"
    assert f"{warning}, such as well=a." in capsys.readouterr().err


def test_what_is_written_replaces_a_file_only_on_request(here, capsys):
    assert run() == 0
    assert predicted() == 0
    before = Path("predicted.parquet").read_bytes()
    assert predicted() == 2
    assert Path("predicted.parquet").read_bytes() == before
    assert predicted(overwrite=None, keep="name") == 0
    assert pq.read_table("predicted.parquet").column_names[:2] == ["well", "name"]
    drawn = ["sample", "out", "--samples", "2", "--out", "predicted.parquet"]
    assert cli.main(drawn) == 2
    assert cli.main([*drawn, "--overwrite"]) == 0
    assert pq.read_table("predicted.parquet").num_rows == 6
    picture = ["plot", "mixture", "out", "--data", "cells.parquet", "--out", "m.svg"]
    assert [cli.main(picture), cli.main(picture), cli.main([*picture, "--overwrite"])] == [0, 2, 0]


def test_columns_of_the_table_are_kept_in_the_order_of_its_rows(here):
    table = TABLE.append_column("cell_id", pa.array([f"{7 * i:05}" for i in range(TABLE.num_rows)]))
    pq.write_table(table, "cells.parquet")
    csv.write_csv(table, "cells.csv")
    assert run() == 0
    for file in ("cells.parquet", "cells.csv"):
        out = f"of-{file}"
        assert predicted(file=file, keep="cell_id,red,well", out=out) == 0
        found = files.read_table(out, files.column_names(out), keys=["cell_id", "well"])
        assert found.column_names == ["well", "cell_id", "red", "component", "probability", "log_density"]
        for name in ("well", "cell_id", "red"):
            assert found[name].to_pylist() == table[name].to_pylist()
    # One mixture of all rows has no keys.
    assert run(by=None, out="whole") == 0
    assert predicted(file="cells.csv", fits="whole", keep="cell_id", out="whole.csv") == 0
    assert Path("whole.csv").read_text().splitlines()[2].startswith('"00007",')


def test_samples_have_the_moments_of_their_group(here, capsys):
    assert run() == 0
    assert cli.main(["sample", "out", "--samples", "20000", "--out", "drawn.parquet", "--seed", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.split("parquet\n")[-1])["groups"] == 3
    drawn, fits = pq.read_table("drawn.parquet"), expected_fits()
    assert drawn["well"].to_pylist() == [key for key in SIZES for _ in range(20000)]
    x = np.stack([drawn["red"], drawn["green"]], axis=1).reshape(3, 20000, 2)
    means = np.einsum("bk,bkd->bd", fits.mixture.weights, fits.mixture.means)
    np.testing.assert_allclose(x.mean(axis=1), means, atol=0.1)
    share = np.mean(drawn["component"].to_numpy().reshape(3, -1) == 0, axis=1)
    np.testing.assert_allclose(share, fits.mixture.weights[:, 0], atol=0.02)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"fits": "nowhere"},
            "nowhere/fits.parquet does not exist; name a directory that jaxgmm fit or sweep has written",
        ),
        ({"fits": "foreign"}, "foreign/fits.parquet was not written by jaxgmm"),
        ({"out": "p.xls"}, "--out must name a file that ends in .parquet, .pq, .csv, .csv.gz, .csv.bz2, .tsv, "),
        (
            {"out": "cells.parquet"},
            "cells.parquet exists already; remove it, name another file, or give --overwrite.",
        ),
        ({"out": "cells.parquet", "overwrite": None}, "cells.parquet is read by this command; name another file."),
        ({"out": "out/fits.parquet", "overwrite": None}, "out/fits.parquet is read by this command"),
        ({"out": "folder.csv", "overwrite": None}, "folder.csv is a directory; name a file"),
        ({"keep": "red,names"}, "cells.parquet has no column 'names'; did you mean 'name'?"),
        ({"out": "deep/p.parquet"}, "deep does not exist; make it"),
        ({"file": "narrow.parquet"}, "has no column 'green'"),
    ],
)
def test_misuse_of_predict_is_one_line_with_a_remedy(here, capsys, options, words):
    assert run() == 0
    (here / "foreign").mkdir()
    (here / "folder.csv").mkdir()
    pq.write_table(TABLE, here / "foreign" / "fits.parquet")
    pq.write_table(TABLE.drop_columns(["green"]), "narrow.parquet")
    capsys.readouterr()
    assert predicted(**options) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert said.err.count("\n") == 1
    assert not (here / "predicted.parquet").exists()


def test_info_says_what_a_table_holds(here, capsys):
    assert cli.main(["info", "cells.parquet", "--by", "well", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["rows"] == 122
    assert facts["columns"]["red"] == "double"
    assert (facts["groups"], facts["in_the_order_of_keys"]) == (3, False)
    assert facts["sizes"] == {"smallest": 36, "median": 40.0, "largest": 46}
    assert cli.main(["info", "cells.parquet"]) == 0
    assert "well string, red double" in " ".join(capsys.readouterr().out.split())


def test_info_says_which_columns_are_read_otherwise_as_keys(here, capsys):
    Path("cells.csv").write_text("plate,well,day,red\n001,1,2026-11-01,1.50\n002,2,2026-11-02,2\n")
    assert cli.main(["info", "cells.csv", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["columns"] == {"plate": "int64", "well": "int64", "day": "date32[day]", "red": "double"}
    assert facts["as_keys"] == {"plate": "string"}
    assert cli.main(["info", "cells.csv"]) == 0
    assert "as keys plate string" in " ".join(capsys.readouterr().out.split())
    assert cli.main(["info", "cells.csv", "--by", "plate", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["keys"] == {"plate": "string"}
    assert "as_keys" not in facts


def test_info_of_a_folder_without_fits_says_what_to_name(here, capsys):
    (here / "empty").mkdir()
    assert cli.main(["info", "empty"]) == 2
    assert "empty holds no Parquet or CSV file; name a directory that does" in capsys.readouterr().err


def test_info_says_what_was_asked_for_and_how_it_ended(here, capsys):
    assert run(seed=7) == 0
    capsys.readouterr()
    assert cli.main(["info", "out", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["status"] == {"CONVERGED": 3}
    assert (facts["file"], facts["by"], facts["key"], facts["n_components"]) == ("cells.parquet", ["well"], 7, 2)


def test_info_knows_unfinished_jobs_and_saved_files(here, capsys):
    (here / "half" / ".unfinished" / "000000").mkdir(parents=True)
    assert cli.main(["info", "half"]) == 0
    assert "1 part is done" in capsys.readouterr().out
    storage.save("fits.safetensors", expected_fits(), options={"n_components": 2})
    assert cli.main(["info", "fits.safetensors", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["options"] == {"n_components": 2}
    assert cli.main(["info", "nothing"]) == 2
    assert "nothing does not exist" in capsys.readouterr().err


@pytest.mark.slow
def test_the_doctor_says_that_fits_are_right_and_how_fast(here, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "_SECONDS", 0)
    assert cli.main(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["jaxgmm"] == jaxgmm.__version__
    assert all(check["is_right"] for check in facts["checks"])
    assert "iterations of whole runs per second" in facts["checks"][-1]["found"]
    assert cli.main(["doctor"]) == 0
    assert "known fit, float64" in capsys.readouterr().out


@pytest.mark.slow
def test_the_doctor_notices_wrong_answers(here, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "_rate", lambda *_: doctor.Check("rate", "none", True))
    monkeypatch.setattr(doctor, "_LOG_LIKELIHOOD", -46.8)
    assert cli.main(["doctor"]) == 1
    assert "WRONG" in capsys.readouterr().out


KINDS = {"overview": ["--data", "cells.parquet", "--order", "size"]}
KINDS |= {kind: ["--data", "cells.parquet", "--group", "b"] for kind in ("mixture", "pairs", "diagnosis")}
KINDS |= {"criterion": ["--group", "well=b"]}


def test_every_kind_of_picture_is_drawn(here, capsys):
    assert run(components="1-3") == 0
    for kind, words in KINDS.items():
        assert cli.main(["plot", kind, "out", *words, "--out", f"{kind}.png"]) == 0
        assert (here / f"{kind}.png").read_bytes().startswith(b"\x89PNG")
    assert "drew the criterion of b: criterion.png" in capsys.readouterr().out


def test_pictures_of_one_group_have_its_key_as_a_title(here, capsys):
    table = TABLE.append_column("$plate$", pa.array(["$P\\4$"] * TABLE.num_rows))
    pq.write_table(table, "plates.parquet")
    assert run(file="plates.parquet", by="$plate$,well", components="1-3") == 0
    for kind, words in KINDS.items():
        own = [word.replace("cells", "plates").removeprefix("well=") for word in words]
        own = own if kind == "overview" else [*own[:-1], "$plate$=$P\\4$", "--group", f"well={own[-1]}"]
        assert cli.main(["plot", kind, "out", *own, "--out", f"{kind}.svg"]) == 0
        # Letters are paths, and the text stands beside them as a comment.
        has_title = "<!-- $P\\4$, b -->" in (here / f"{kind}.svg").read_text()
        assert has_title == (kind != "diagnosis")
    assert "drew the pairs of $P\\4$, b: pairs.svg" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mixture", "out"], "jaxgmm plot mixture needs the fitted table; give --data"),
        (["criterion", "out", "--data", "cells.parquet"], "jaxgmm plot criterion takes no table; leave out --data"),
        (["criterion", "out"], "models.parquet does not exist; jaxgmm sweep writes it"),
        (["mixture", "out", "--data", "other.parquet"], "other.parquet holds other groups than were fitted"),
        (["mixture", "out", "--data", "cells.parquet", "--group", "z"], "no group is called 'z'"),
        (
            ["mixture", "out", "--data", "cells.parquet", "--group", "well=b", "--group", "row=1"],
            "--group must give each",
        ),
        (
            ["mixture", "out", "--data", "cells.parquet", "--out", "p.jpg"],
            "--out must name a file that ends in .png, .svg, .pdf",
        ),
        (["mixture", "out", "--data", "cells.parquet", "--out", "there.png"], "there.png exists already"),
    ],
)
def test_misuse_of_plot_is_one_line_with_a_remedy(here, capsys, words, said):
    assert run() == 0
    (here / "there.png").touch()
    pq.write_table(TABLE.slice(0, 1), "other.parquet")
    capsys.readouterr()
    assert cli.main(["plot", *words, *([] if "--out" in words else ["--out", "p.png"])]) == 2
    found = capsys.readouterr().err
    assert said in found
    assert found.count("\n") == 1


def test_the_old_spelling_of_an_overview_s_order_is_told(here, capsys):
    assert cli.main(["plot", "overview", "out", "--data", "cells.parquet", "--by", "misfit", "--out", "p.png"]) == 2
    assert "give an overview --order misfit" in capsys.readouterr().err


@pytest.mark.slow
def test_the_demonstration_is_a_session_from_table_to_pictures(here, capsys, monkeypatch):
    monkeypatch.setattr(demo, "_PLATES", 1)
    assert cli.main(["demo", "--out", "demo"]) == 0
    said = capsys.readouterr()
    assert "$ jaxgmm sweep demo/cells.parquet --by plate,well" in said.err
    assert "of the 93 wells that could be fitted" in " ".join(said.out.split())
    pictures = {path.name for path in (here / "demo").glob("*.png")}
    assert pictures == {"overview.png", "worst.png", "bic.png"}
    assert "Plates" in (here / "demo" / "report.html").read_text()
    fits = pq.read_table("demo/fits/fits.parquet")
    assert fits["status"].to_pylist().count("CONVERGED") == 93
    assert cli.main(["demo", "--out", "demo"]) == 2
    assert "demo is not an empty directory" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["fit", "sweep", "predict", "sample", "plot", "report", "info", "demo", "doctor"])
def test_every_command_has_an_example_in_its_help(capsys, command):
    assert cli.main([command, "--help"]) == 0
    assert f"Example: jaxgmm {command}" in " ".join(capsys.readouterr().out.split())


def test_the_help_is_shown_without_a_command(capsys):
    assert cli.main([]) == 2
    said = capsys.readouterr()
    assert "Usage: jaxgmm" in said.out + said.err
    assert "error" not in said.err


def test_names_in_brackets_are_printed_as_they_are(here, capsys):
    table = TABLE.rename_columns(["well", "[/red]", "[bold]green", "copies", "name"])
    pq.write_table(table.append_column("at", pa.array([None] * 122, pa.timestamp("us", "UTC"))), "marked.parquet")
    assert cli.main(["info", "marked.parquet"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "[/red] double, [bold]green double" in said
    assert "timestamp[us, tz=UTC]" in said
    assert run(file="marked.parquet", features="[/red],[bold]green") == 0
    assert cli.main(["info", "out"]) == 0
    assert "[/red]" in capsys.readouterr().out


def test_keys_called_like_parameters_are_refused_or_harmless(here, capsys):
    pq.write_table(TABLE.rename_columns(["variance_red", "red", "green", "copies", "name"]), "odd.parquet")
    assert run(file="odd.parquet", by="variance_red") == 2
    assert "two columns of the output would be called 'variance_red'" in capsys.readouterr().err
    pq.write_table(TABLE.rename_columns(["probability", "red", "green", "copies", "name"]), "odder.parquet")
    assert run(file="odder.parquet", by="probability") == 0
    assert predicted(file="odder.parquet") == 2
    assert "two columns of the output would be called 'probability'" in capsys.readouterr().err


def test_keys_of_another_kind_are_refused_and_of_another_width_are_not(here, capsys):
    numbered = TABLE.set_column(0, "well", pa.array([ord(key) for key in TABLE["well"].to_pylist()], pa.int64()))
    pq.write_table(numbered, "numbered.parquet")
    assert run(file="numbered.parquet") == 0
    capsys.readouterr()
    assert predicted() == 2
    assert "column 'well' of cells.parquet holds string, where int64 was fitted; convert it." in capsys.readouterr().err
    narrow = numbered.set_column(0, "well", numbered["well"].cast(pa.int16()))
    pq.write_table(narrow, "narrow.parquet")
    assert predicted(file="narrow.parquet") == 0
    assert pq.read_table("predicted.parquet")["component"].null_count == 0


def test_tables_of_another_job_are_refused(here, capsys):
    assert run() == 0
    assert run(out="other", components=1) == 0
    (here / "other" / "components.parquet").replace(here / "out" / "components.parquet")
    capsys.readouterr()
    assert predicted() == 2
    assert "components.parquet is not of the job that made out/fits.parquet" in capsys.readouterr().err


def test_rows_that_are_not_finite_have_no_component(here):
    assert run() == 0
    pq.write_table(pa.table({"well": ["a"], "red": [np.inf], "green": [0.0]}), "far.parquet")
    assert predicted(file="far.parquet") == 0
    assert pq.read_table("predicted.parquet")["component"].null_count == 1


def test_pictures_take_weights_and_keys_as_the_fit_did(here, capsys, monkeypatch):
    keys = pa.array([{"a": float("nan"), "b": 1.0, "c": None}[key] for key in TABLE["well"].to_pylist()])
    pq.write_table(TABLE.set_column(0, "well", keys), "odd.parquet")
    assert run(file="odd.parquet", weights="copies") == 0
    drawn = []
    diagnose = jaxgmm.diagnose
    monkeypatch.setattr(jaxgmm, "diagnose", lambda *args: (drawn.append(args), diagnose(*args))[1])
    for group, key in (("1", "b"), ("null", "c")):
        words = ["--data", "odd.parquet", "--group", group, "--out", f"{key}.png"]
        assert cli.main(["plot", "diagnosis", "out", *words]) == 0
        np.testing.assert_array_equal(drawn[-1][1], in_table_order(key, SAMPLES[key]))
        np.testing.assert_array_equal(drawn[-1][2], in_table_order(key, WEIGHTS[key]))
    assert cli.main(["plot", "overview", "out", "--data", "odd.parquet", "--order", "misfit", "--out", "all.png"]) == 0
    pq.write_table(TABLE.set_column(0, "well", keys).slice(3), "fewer.parquet")
    assert cli.main(["plot", "overview", "out", "--data", "fewer.parquet", "--out", "more.png"]) == 2


def test_a_reader_that_has_seen_enough_is_no_error(here):
    program = "import sys; from jaxgmm import cli; sys.exit(cli.main(sys.argv[1:]))"
    for flags in ([], ["--json"]):
        command = [sys.executable, "-c", program, "info", "cells.parquet", *flags]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait() == 0


@pytest.mark.parametrize("command", ["fit", "sweep"])
def test_the_ridge_is_by_default_that_of_the_library(here, capsys, command):
    assert run(command=command) == 0
    capsys.readouterr()
    assert cli.main(["info", "out", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["reg_covar"] == (1e-12 if command == "fit" else [1e-12])
    assert "avoid_spurious" not in facts


# Three of these samples are so close together that a component of their own is spurious, and likely.
CLOSE = np.concatenate([two_clusters(40, 0), [[3.0, 9.0], [3.0, 9.00001], [3.00001, 9.0]]])


@pytest.mark.slow
@pytest.mark.parametrize("command", ["fit", "sweep"])
def test_spurious_components_are_allowed_if_asked_for(here, capsys, command):
    close = pa.table({"well": ["a"] * len(CLOSE), "red": CLOSE[:, 0], "green": CLOSE[:, 1]})
    pq.write_table(close, "close.parquet")
    options = {"file": "close.parquet", "components": 3, "starts": 30, "command": command}
    assert run(**options) == 0
    capsys.readouterr()
    assert run(**options, out="allowed", flags=["--allow-spurious", "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    given = {"n_init": 30, "precision": "float64", "avoid_spurious": False}
    result = jaxgmm.fit([CLOSE], 3, **given) if command == "fit" else jaxgmm.sweep([CLOSE], 3, **given).best
    allowed = pq.read_table("allowed/fits.parquet")
    np.testing.assert_allclose(allowed["log_likelihood"], result.log_likelihood, rtol=1e-9)
    assert counts["flags"]["spurious"] == 1
    assert output("fits")["spurious"].to_pylist() == [0]
    assert allowed["log_likelihood"][0].as_py() > output("fits")["log_likelihood"][0].as_py()
    assert cli.main(["info", "allowed", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["avoid_spurious"] is False


@pytest.mark.parametrize("is_sweep", [False, True])
def test_the_summary_counts_fits_of_each_flag_and_is_silent_about_none(here, capsys, is_sweep):
    flags = [
        "start_passed_over",
        "spurious, start_passed_over",
        "spurious, start_passed_over, at_largest_k",
        "no_answer",
    ]
    fits = {"status": ["CONVERGED"] * 3 + ["NONFINITE"], "n_samples": [5] * 4, "flags": flags}
    chosen = {"n_components": [1, 2, 2, None], "covariance_type": ["full"] * 3 + [None]}
    pq.write_table(pa.table(fits | (chosen if is_sweep else {})), "fits.parquet")
    done = running.Done(4, 1.0, ("Weights are light.",))
    for as_json in (False, True):
        given = {"is_sweep": is_sweep, "as_json": as_json}
        assert summary.summarised([here / "fits.parquet"], {"well": "string"}, done, **given)
        said = capsys.readouterr()
        if as_json:
            facts = json.loads(said.out)
            assert facts["flags"] == {"no_answer": 1, "spurious": 2, "start_passed_over": 3, "at_largest_k": 1}
            assert facts["notes"] == ["Weights are light."]
            assert said.err == ""
        else:
            lines = [line.split() for line in said.out.splitlines()]
            counts = {line[0]: line[1] for line in lines if line and line[0] in jaxgmm.FLAGS}
            assert counts == {"no_answer": "1", "spurious": "2", "start_passed_over": "3", "at_largest_k": "1"}
            assert said.err == "jaxgmm: Weights are light.\n"


@pytest.mark.slow
def test_a_warning_of_light_weights_is_one_line_for_all_parts(here, capsys, small_parts):
    light = TABLE.set_column(3, "copies", pa.array(TABLE["copies"].to_numpy() / 1000))
    pq.write_table(light.sort_by("well"), "light.parquet")
    options = {"file": "light.parquet", "components": "1-2", "weights": "copies"}
    assert run(**options) == 0
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if "weights" in line]
    assert len(lines) == 1
    assert lines[0].startswith("jaxgmm: The sample weights of some groups sum to much less than the number of their sa")
    assert "UserWarning" not in said
    assert ".py" not in said
    assert run(**options, out="json", flags=["--json"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert json.loads(said.out)["notes"] == [lines[0].removeprefix("jaxgmm: ")]


def test_notes_of_a_sweep_are_passed_on_unless_flags_say_the_same(monkeypatch):
    """Without counts, which are of one part."""
    weights = note("Weights of {}.", "1 of 4 data sets", is_warning=True)
    largest = note("K = 2 is chosen for {}.", "3 of 4 data sets", is_flagged=True)
    notes = (note("The smallest ridge is chosen."), largest, weights, note("{} are heavy.", "2 of 4 data sets"))

    def noting(*_args, **_options):
        warnings.warn(weights, UserWarning, stacklevel=2)
        return jaxgmm.Sweep({}, None, notes)

    monkeypatch.setattr(jaxgmm, "sweep", noting)
    assert ways.swept([], {})[1] == [notes[0], "Weights of some groups.", "some groups are heavy."]


def test_other_warnings_than_a_sweep_s_own_are_left_to_python(here, monkeypatch):
    whole = jaxgmm.sweep

    def warning(*args, **options):
        warnings.warn("something else", UserWarning, stacklevel=2)
        return whole(*args, **options)

    monkeypatch.setattr(jaxgmm, "sweep", warning)
    with pytest.warns(UserWarning, match="something else"):
        assert run(components="1-3") == 0


OLD = Path(__file__).parent / "data" / "version_0_1_0"


@pytest.mark.parametrize("command", ["fit", "sweep"])
def test_fits_of_version_0_1_are_of_use(here, capsys, command):
    shutil.copytree(OLD / command, "old")
    shutil.copy(OLD / "cells.csv", "old.csv")
    assert cli.main(["info", "old", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["jaxgmm"], facts["groups"]) == ("0.1.0", 3)
    assert predicted(file="old.csv", fits="old") == 0
    found = pq.read_table("predicted.parquet")
    has_answer = {key: status in ("CONVERGED", "MAX_ITER") for key, status in statuses_of("old").items()}
    assert any(has_answer.values())
    assert found["component"].is_valid().to_pylist() == [has_answer[key] for key in found["well"].to_pylist()]
    assert cli.main(["sample", "old", "--samples", "5", "--out", "drawn.parquet"]) == 0
    assert pq.read_table("drawn.parquet").num_rows == 5 * sum(has_answer.values())
    for kind in ("overview", "mixture"):
        assert cli.main(["plot", kind, "old", "--data", "old.csv", "--out", f"{kind}.png"]) == 0
    if command == "sweep":
        assert cli.main(["plot", "criterion", "old", "--out", "criterion.png"]) == 0


def statuses_of(directory):
    fits = pq.read_table(f"{directory}/fits.parquet")
    return dict(zip(fits["well"].to_pylist(), fits["status"].to_pylist(), strict=True))


def test_a_job_that_another_version_began_is_refused_naming_both(here, capsys, monkeypatch):
    monkeypatch.setattr(jaxgmm, "__version__", "9.9.9")
    shutil.copytree(OLD / "unfinished", "out")
    shutil.copy(OLD / "cells.csv", "cells.csv")
    os.utime("cells.csv", (1767225600, 1767225600))
    before = contents(here / "out")
    assert run(file="cells.csv", precision=None, reg_covar=1e-6, flags=["--resume"]) == 2
    assert "was begun by jaxgmm '0.1.0', and this is '9.9.9'" in capsys.readouterr().err
    assert contents(here / "out") == before


def test_components_have_the_order_that_is_asked_for(here, capsys):
    for order, name, sign in (("mean", "mean_red", 1), ("green", "mean_green", 1), ("weight", "weight", -1)):
        assert run(order_by=order, out=order) == 0
        values = pq.read_table(f"{order}/components.parquet")[name].to_numpy().reshape(-1, 2)
        assert np.all(sign * np.diff(values, axis=1) > 0)
    capsys.readouterr()
    assert run(order_by="size", out="size") == 2
    assert "--order-by must be one of 'mean', 'weight', 'start', 'red', 'green'; got 'size'" in capsys.readouterr().err
