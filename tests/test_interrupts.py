"""Ctrl-C at any moment ends the command at once, with exit code 130 and one line, and leaves no half of a file."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")]

# Runs `python -m jaxgmm` with one function, or the import of a module, made to stand still, which says so first. This
# process may have been told to ignore interrupts, which others inherit.
STILL = """
import importlib.abc, importlib.machinery, os, runpy, signal, sys, time

signal.signal(signal.SIGINT, signal.default_int_handler)
module, name, how = sys.argv[1:4]

def still(*args, **kwargs):
    os.write(1, b"STILL\\n")
    if how == "lost":
        # As where an exception is lost on its way out of somebody's code.
        for _ in range(600):
            try:
                time.sleep(0.1)
            except BaseException:
                pass
    time.sleep(60)

class Loader(importlib.abc.Loader):
    def __init__(self, loader):
        self.loader = loader

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, loaded):
        if name == "import":
            still()
        self.loader.exec_module(loaded)
        owner = loaded
        *owners, last = name.split(".")
        for part in owners:
            owner = getattr(owner, part)
        setattr(owner, last, still)

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, wanted, path, target=None):
        if wanted != module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(wanted, path)
        spec.loader = Loader(spec.loader)
        return spec

sys.meta_path.insert(0, Finder())
sys.argv = ["jaxgmm", *sys.argv[4:]]
runpy.run_module("jaxgmm", run_name="__main__", alter_sys=True)
"""

FIT = "fit cells.parquet --by well --features red --components 2 --starts 1 --out out"
MOMENTS = [
    ("typer", "import", "--help"),
    ("typer", "import", "doctor"),
    ("numpy", "import", FIT),
    ("pyarrow", "import", "info cells.parquet"),
    ("jaxgmm.tables.rows", "open_rows", FIT),
    ("jaxgmm.tables.parts", "counted", FIT),
    ("jaxgmm.tables.counting", "counted", "info cells.parquet --by well"),
    ("jax", "import", FIT),
    ("jax", "import", "predict cells.parquet --fits fits --out p.parquet"),
    ("jax", "import", "sample fits --out s.parquet"),
    ("jax", "import", "doctor"),
    ("jax", "import", "plot mixture fits --data cells.parquet --out p.png"),
    ("matplotlib.pyplot", "import", "plot mixture fits --data cells.parquet --out p.png"),
    ("jaxgmm.fitting", "fit", FIT),
    ("jaxgmm.selection.sweeping", "sweep", FIT.replace("fit", "sweep", 1)),
    ("jaxgmm.driver.chunk", "fit_chunk", FIT),
    ("jaxgmm.tables.labels", "labels", "predict cells.parquet --fits fits --out p.parquet"),
    ("jaxgmm.sampling", "sample", "sample fits --out s.parquet"),
    ("jaxgmm.fitting", "fit", "doctor"),
]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A folder with a table and fits of it."""
    folder = tmp_path_factory.mktemp("tables")
    draw = np.random.default_rng(0)
    table = pa.table({"well": ["a"] * 30 + ["b"] * 30, "red": draw.normal(size=60)})
    pq.write_table(table, folder / "cells.parquet")
    command = [sys.executable, "-m", "jaxgmm", *FIT.replace("--out out", "--out fits").split()]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


def interrupted(folder, module, name, line, how="slow", signal_=signal.SIGINT, *, again=False):
    """Exit code and stderr of a command that gets a signal when a function of a module is called, and the seconds."""
    command = [sys.executable, "-c", STILL, module, name, how, *line.split()]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=folder, text=True, **pipes) as process:
        for said in process.stdout:
            if said == "STILL\n":
                break
        else:
            pytest.fail(f"{module}.{name} was not reached: {process.stderr.read()}")
        began = time.perf_counter()
        process.send_signal(signal_)
        while again and process.poll() is None and time.perf_counter() - began < 50:
            time.sleep(0.3)
            process.send_signal(signal_)
        _, err = process.communicate(timeout=55)
    return process.returncode, err, time.perf_counter() - began


@pytest.mark.parametrize("how", ["slow", "lost"])
@pytest.mark.parametrize(("module", "name", "line"), MOMENTS, ids=lambda part: part.partition(" ")[0])
def test_an_interrupt_ends_the_command_at_once_and_writes_nothing(tables, module, name, line, how):
    before = sorted(tables.rglob("*"))
    code, err, seconds = interrupted(tables, module, name, line, how)
    assert code == 130
    assert err == "jaxgmm: interrupted; nothing was written.\n"
    # Far less than what stands still.
    assert seconds < 20
    assert sorted(tables.rglob("*")) == before


@pytest.mark.parametrize(
    "line", [FIT.replace("--out out", "--out impatient"), "sample fits --out s.parquet"], ids=["fit", "sample"]
)
def test_who_interrupts_again_is_not_kept_waiting_by_a_disk(tables, line):
    code, err, seconds = interrupted(tables, "pyarrow.parquet.core", "ParquetWriter.write_table", line, again=True)
    assert code == 130
    assert "Traceback" not in err
    assert err.count("\n") <= 1
    assert seconds < 20
    assert not (tables / "s.parquet").exists()
    assert not (tables / "impatient" / "fits.parquet").exists()


def test_interrupts_are_ignored_where_whoever_started_the_command_wants_it(tables):
    ignoring = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
    program = """
import os, signal, sys
from jaxgmm import cli
from jaxgmm.tables import rows
opened = rows.open_rows
rows.open_rows = lambda *args, **options: (os.kill(os.getpid(), signal.SIGINT), opened(*args, **options))[1]
sys.exit(cli.main())
"""
    command = [sys.executable, "-c", ignoring, "-c", program, "info", "cells.parquet"]
    assert subprocess.run(command, cwd=tables, capture_output=True, check=False).returncode == 0


def test_termination_leaves_tables_whole_or_not_there(tables):
    line = "sample fits --out terminated.parquet"
    code, _, _ = interrupted(tables, "jaxgmm.sampling", "sample", line, signal_=signal.SIGTERM)
    assert code == -signal.SIGTERM
    assert not (tables / "terminated.parquet").exists()
