"""Help, versions, info and misuse are answered without JAX, pyplot or pandas."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

SAVED = Path(__file__).parent / "data" / "version_0_1_0" / "fits.safetensors"
HEAVY = ("jax", "jaxlib", "matplotlib", "pandas", "scipy", "sklearn")
COMMANDS = ("fit", "sweep", "predict", "sample", "plot", "info", "demo", "doctor")
# As `jaxgmm` itself is called. What was imported is said after what the command says.
PROGRAM = f"""
import atexit, os, sys

def say():
    sys.stdout.flush()
    print("imported", [name for name in {(*HEAVY, "numpy", "pyarrow")} if sys.modules.get(name)])

atexit.register(say)
from jaxgmm.cli import main
sys.exit(main())
"""


def answered(*words: str) -> tuple[int, list[str], str, str]:
    """The exit code, what was imported, and what was said on stdout and stderr."""
    command = [sys.executable, "-c", PROGRAM, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    said, _, imported = done.stdout.rpartition("imported ")
    return done.returncode, eval(imported), said, done.stderr


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A folder with tables, fits of one, and a picture; only these are there."""
    folder = tmp_path_factory.mktemp("tables")
    draw = np.random.default_rng(0)
    table = pa.table({"well": ["a"] * 30 + ["b"] * 30, "red": draw.normal(size=60), "name": ["text"] * 60})
    pq.write_table(table, folder / "cells.parquet")
    (folder / "there.png").touch()
    (folder / "damaged.safetensors").write_bytes(b"no")
    (folder / "saved.safetensors").write_bytes(SAVED.read_bytes())
    command = [sys.executable, "-m", "jaxgmm", "fit", "cells.parquet", "--by", "well", "--features", "red"]
    subprocess.run([*command, "--components", "1", "--starts", "1", "--out", "fits"], cwd=folder, check=True)
    return folder


@pytest.mark.parametrize("words", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)], ids=" ".join)
def test_help_and_version_import_no_more_than_typer(words):
    code, imported, said, err = answered(*words)
    assert (code, imported, err) == (0, [], "")
    assert said


@pytest.mark.parametrize(
    "words", [[], ["nothing"], ["fit", "--nothing"], ["fit"], ["sweep", "x", "--criterion", "x"], ["doctor", "x"]]
)
def test_misuse_that_no_file_is_needed_for_imports_no_more_than_typer(words):
    code, imported, _, err = answered(*words)
    assert (code, imported) == (2, [])
    assert err.count("\n") == (1 if words else err.count("\n"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("fit absent.parquet --by well --features red --components 1 --out o", "does not exist"),
        ("fit cells.parquet --by wells --features red --components 1 --out o", "did you mean 'well'"),
        ("fit cells.parquet --by well --features name --components 1 --out o", "not numbers"),
        ("fit cells.parquet --by well --features red --components 1 --out fits", "exists already"),
        ("fit cells.parquet --by well --features red --components 1 --out o --covariance x", "must be one of"),
        ("fit cells.parquet --by well --features red --components 1 --out o --reg-covar inf", "finite number"),
        ("fit cells.parquet --by well --features red --components 1-2 --out o", "jaxgmm sweep chooses"),
        ("sweep cells.parquet --by well --features red --components 1,3 --criterion lrt --out o", "successive"),
        ("predict cells.parquet --fits nowhere --out p.parquet", "does not exist"),
        ("predict absent.parquet --fits fits --out p.parquet", "does not exist"),
        ("predict cells.parquet --fits fits --out cells.parquet", "exists already"),
        ("sample fits --out s.csv", "ends in .parquet"),
        ("plot mixture fits --out p.png", "give --data"),
        ("plot criterion fits --out p.png", "jaxgmm sweep writes it"),
        ("plot mixture fits --data absent.parquet --out p.png", "does not exist"),
        ("plot mixture fits --data cells.parquet --group z --out p.png", "no group is called"),
        ("plot mixture fits --data cells.parquet --out there.png", "exists already"),
        ("demo --out fits", "not an empty directory"),
        ("info absent", "does not exist"),
        ("info absent.safetensors", "does not exist"),
        ("info damaged.safetensors", "is cut short or damaged"),
    ],
)
def test_misuse_of_files_is_answered_without_jax(tables, monkeypatch, line, words):
    monkeypatch.chdir(tables)
    before = sorted(tables.rglob("*"))
    code, imported, said, err = answered(*line.split())
    assert (code, said) == (2, "")
    assert not set(HEAVY) & set(imported)
    assert err.startswith("jaxgmm: error: ")
    assert words in err
    assert err.count("\n") == 1
    assert sorted(tables.rglob("*")) == before


@pytest.mark.parametrize(
    "line",
    [
        "info cells.parquet",
        "info cells.parquet --by well",
        "info fits",
        "info fits --json",
        "info saved.safetensors",
    ],
)
def test_info_is_given_without_jax(tables, monkeypatch, line):
    monkeypatch.chdir(tables)
    code, imported, said, _ = answered(*line.split())
    assert code == 0
    assert not set(HEAVY) & set(imported)
    assert said
