"""Help, versions, info and misuse are answered without JAX, pyplot or pandas."""

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

SAVED = Path(__file__).parent / "data" / "version_0_1_0" / "fits.safetensors"
HEAVY = ("jax", "jaxlib", "matplotlib", "pandas", "scipy", "sklearn")
COMMANDS = ("fit", "sweep", "predict", "sample", "plot", "report", "info", "demo", "doctor")
# As `jaxgmm` itself is called, for one line after another. What was imported is told after each.
PROGRAM = f"""
import contextlib, io, json, sys
from jaxgmm.cli import main

def answer(words):
    sys.argv, out, err = ["jaxgmm", *words], io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main()
        except SystemExit as end:
            code = end.code
    imported = [name for name in {(*HEAVY, "numpy", "pyarrow")} if sys.modules.get(name)]
    return code or 0, imported, out.getvalue(), err.getvalue()

print(json.dumps([answer(words) for words in json.loads(sys.argv[1])]))
"""


@functools.cache
def answers(lines: tuple[str, ...], folder: Path | None = None) -> dict[str, tuple[int, list[str], str, str]]:
    """For each line its exit code, what has been imported, and what was said on stdout and stderr; by one process."""
    command = [sys.executable, "-c", PROGRAM, json.dumps([line.split() for line in lines])]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, cwd=folder)
    assert done.stderr == ""
    return dict(zip(lines, json.loads(done.stdout), strict=True))


class Tables(NamedTuple):
    """A folder, and what was in it before any command."""

    folder: Path
    paths: list[Path]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A folder with tables, fits of one, and a picture; only these are there."""
    folder = tmp_path_factory.mktemp("tables")
    draw = np.random.default_rng(0)
    table = pa.table({"well": ["a"] * 30 + ["b"] * 30, "red": draw.normal(size=60), "name": ["text"] * 60})
    pq.write_table(table, folder / "cells.parquet")
    pq.write_table(table.slice(1), folder / "other.parquet")
    (folder / "there.png").touch()
    (folder / "damaged.safetensors").write_bytes(b"no")
    (folder / "saved.safetensors").write_bytes(SAVED.read_bytes())
    command = [sys.executable, "-m", "jaxgmm", "fit", "cells.parquet", "--by", "well", "--features", "red"]
    subprocess.run([*command, "--components", "1", "--starts", "1", "--out", "fits"], cwd=folder, check=True)
    return Tables(folder, sorted(folder.rglob("*")))


HELP = ("--help", "--version", *(f"{name} --help" for name in COMMANDS))


@pytest.mark.parametrize("line", HELP)
def test_help_and_version_import_no_more_than_typer(line):
    code, imported, said, err = answers(HELP)[line]
    assert (code, imported, err) == (0, [], "")
    assert said


MISUSE = ("", "nothing", "fit --nothing", "fit", "sweep x --criterion x", "doctor x")


@pytest.mark.parametrize("line", MISUSE)
def test_misuse_that_no_file_is_needed_for_imports_no_more_than_typer(line):
    code, imported, _, err = answers(MISUSE)[line]
    assert (code, imported) == (2, [])
    assert err.count("\n") == (1 if line else err.count("\n"))


OF_FILES = {
    "fit absent.parquet --by well --features red --components 1 --out o": "does not exist",
    "fit cells.parquet --features name --components 1 --out o": "not numbers",
    "fit cells.parquet --by wells --features red --components 1 --out o": "did you mean 'well'",
    "fit cells.parquet --by well --features name --components 1 --out o": "not numbers",
    "fit cells.parquet --by well --features red --components 1 --out fits": "exists already",
    "fit cells.parquet --by well --features red --components 1 --out o --covariance x": "must be one of",
    "fit cells.parquet --by well --features red --components 1 --out o --reg-covar inf": "finite number",
    "fit cells.parquet --by well --features red --components 1-2 --out o": "jaxgmm sweep chooses",
    "sweep cells.parquet --by well --features red --components 1,3 --criterion lrt --out o": "consecutive",
    "predict cells.parquet --fits nowhere --out p.parquet": "does not exist",
    "predict absent.parquet --fits fits --out p.parquet": "does not exist",
    "predict cells.parquet --fits fits --out cells.parquet": "exists already",
    "sample fits --out s.xls": "ends in .parquet",
    "plot mixture fits --out p.png": "give --data",
    "plot overview fits --data cells.parquet --by misfit --out p.png": "give an overview --order misfit",
    "plot criterion fits --out p.png": "jaxgmm sweep writes it",
    "plot mixture fits --data absent.parquet --out p.png": "does not exist",
    "plot mixture fits --data cells.parquet --group z --out p.png": "no group is called",
    "plot mixture fits --data cells.parquet --out there.png": "exists already",
    "report fits --data absent.parquet --out r.html": "does not exist",
    "report nowhere --data cells.parquet --out r.html": "does not exist",
    "report fits --data cells.parquet --out r.pdf": "ends in .html, .htm",
    "report fits --data other.parquet --out r.html": "holds other groups than were fitted",
    "demo --out fits": "not an empty directory",
    "info absent": "does not exist",
    "info absent.safetensors": "does not exist",
    "info damaged.safetensors": "is cut short or damaged",
}


@pytest.mark.parametrize(("line", "words"), OF_FILES.items())
def test_misuse_of_files_is_answered_without_jax(tables, line, words):
    code, imported, said, err = answers(tuple(OF_FILES), tables.folder)[line]
    assert (code, said) == (2, "")
    assert not set(HEAVY) & set(imported)
    assert err.startswith("jaxgmm: error: ")
    assert words in err
    assert err.count("\n") == 1


def test_misuse_of_files_writes_nothing(tables):
    answers(tuple(OF_FILES), tables.folder)
    assert sorted(tables.folder.rglob("*")) == tables.paths


INFO = (
    "info cells.parquet",
    "info cells.parquet --by well",
    "info fits",
    "info fits --json",
    "info saved.safetensors",
)


@pytest.mark.parametrize("line", INFO)
def test_info_is_given_without_jax(tables, line):
    code, imported, said, _ = answers(INFO, tables.folder)[line]
    assert code == 0
    assert not set(HEAVY) & set(imported)
    assert said
