"""`jaxgmm demo`: a typical job, from a table to pictures, on made-up cells."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jaxgmm.cli import console, interrupts
from jaxgmm.tables import files
from jaxgmm.tables.places import local

_PLATES, _ROWS, _COLUMNS = 4, "ABCDEFGH", 12
_MOST_KINDS = 4


def demo(out: Path, command: Callable[[list[str]], Any]) -> None:
    """Makes a table, and fits and draws it with `command`, which runs the command with the given words."""
    out = local(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} is not an empty directory; name another.")
    out.mkdir(parents=True, exist_ok=True)
    cells, fits = str(out / "cells.parquet"), str(out / "fits")
    table, n_kinds = wells()
    interrupts.keeps(lambda: f"what is in {out} is kept.")
    with interrupts.unwinding(), files.written(cells, table.schema) as writer:
        writer.write_table(table)
    n_wells = len(n_kinds)
    console.plain().print(
        f"wrote {cells}: {table.num_rows:,} cells in {n_wells} wells, three of them with bad data", highlight=False
    )

    def run(*words: str) -> None:
        console.say(f"\n$ jaxgmm {shlex.join(words)}")
        command(list(words))
        interrupts.keeps(lambda: f"what is in {out} is kept.")

    run(*("sweep", cells, "--by", "plate,well", "--features", "red,green", "--components", "1-6", "--out", fits))
    run(*("plot", "overview", fits, "--data", cells, "--out", str(out / "overview.png")))
    worst = ("--order", "misfit", "--panels", "12", "--out", str(out / "worst.png"))
    run(*("plot", "overview", fits, "--data", cells, *worst))
    run(*("plot", "criterion", fits, "--group", "plate=1,well=A03", "--out", str(out / "bic.png")))
    run(*("report", fits, "--data", cells, "--out", str(out / "report.html")))
    run(*("predict", cells, "--fits", fits, "--out", str(out / "predicted.parquet")))

    chosen = pq.read_table(fits + "/fits.parquet", columns=["n_components"])["n_components"].to_pylist()
    n_found = sum(k == own for k, own in zip(chosen, n_kinds.tolist(), strict=True))
    n_fitted = sum(k is not None for k in chosen)
    said = f"\nBIC found the number of kinds of cells in {n_found} of the {n_fitted} wells that could be fitted."
    console.plain().print(said)


def wells() -> tuple[pa.Table, np.ndarray]:
    """Cells of two colours, 100 to 400 in each well, and the number of kinds of cells in each well."""
    draw = np.random.default_rng(0)
    names = [(plate, f"{row}{column:02}") for plate in range(1, _PLATES + 1) for row in _ROWS for column in _columns()]
    n_kinds = draw.integers(1, _MOST_KINDS + 1, len(names))
    samples = [_well(draw, int(k), int(draw.integers(100, 401))) for k in n_kinds]
    samples[5][0, 0] = np.nan
    samples[17] = samples[17][:1]
    samples[40][:] = samples[40][0]
    sizes = [len(x) for x in samples]
    plate, well = (np.repeat([name[i] for name in names], sizes) for i in (0, 1))
    colours = np.concatenate(samples)
    return pa.table(
        {"plate": plate.astype(np.int64), "well": well, "red": colours[:, 0], "green": colours[:, 1]}
    ), n_kinds


def _columns() -> range:
    return range(1, _COLUMNS + 1)


def _well(draw: np.random.Generator, n_kinds: int, n_cells: int) -> np.ndarray:
    """Cells of some kinds; each kind is a Gaussian cloud with its own centre."""
    angles = draw.uniform(0, 2 * np.pi) + 2 * np.pi * np.arange(n_kinds) / max(n_kinds, 1)
    places = 20 + draw.uniform(4, 6) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    shapes = draw.normal(size=(n_kinds, 2, 2)) * 0.5 + np.eye(2)
    kind = draw.choice(n_kinds, n_cells, p=draw.dirichlet(np.full(n_kinds, 8.0)))
    return places[kind] + np.einsum("nij,nj->ni", shapes[kind], draw.normal(size=(n_cells, 2)))
