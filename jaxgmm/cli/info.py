"""`jaxgmm info`: what a table, a directory of fits or a saved file holds."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from jaxgmm.cli import console, interrupts
from jaxgmm.cli import options as of
from jaxgmm.cli.fitted import check_filled, described
from jaxgmm.tables import counting, files, job_files, saved
from jaxgmm.tables.dataset import Dataset, find
from jaxgmm.tables.places import Remote, place
from jaxgmm.tables.rows import open_rows
from jaxgmm.tables.wording import counted_are

# Types of columns of a CSV file that are not looked at again.
_NOT_OTHERWISE = ("string", "double", "null")


def info(named: str, separator: str, by: list[str] | None, *, as_json: bool) -> None:
    """Prints what a table, a directory of fits or a saved file holds."""
    facts = interrupts.interruptible(lambda: _facts(named, separator, by))
    if as_json:
        console.print_json(facts)
        return
    table = console.plain_table(str(place(named)), "")
    # Fits of a whole table have no keys.
    for name, value in ((name, value) for name, value in facts.items() if value not in ([], {})):
        table.add_row(name.replace("_", " "), _written(value))
    console.plain().print(table)


def _facts(named: str, separator: str, by: list[str] | None) -> dict[str, Any]:
    path = place(named)
    if isinstance(path, Remote):
        return _of_table(named, separator, by)
    is_unfinished, is_apart = (path / job_files.UNFINISHED).is_dir(), job_files.left_apart(path) is not None
    if is_unfinished or is_apart or (path / "fits.parquet").exists():
        return _of_fits(path)
    if path.suffix == ".safetensors":
        return _of_saved(path)
    return _of_table(named, separator, by)


def _of_table(named: str, separator: str, by: list[str] | None) -> dict[str, Any]:
    """Columns and rows of a table, and its groups."""
    source = find(named)
    names = source.column_names(separator)
    by = of.keys(by, names)
    rows = open_rows(source, names, keys=by, separator=separator)
    n_rows = rows.n_rows or 0
    facts: dict[str, Any] = {} if source.is_one_file else {"files": len(source.paths)}
    facts |= {"rows": n_rows, "columns": rows.types(names)}
    facts |= _as_keys(source, separator, {name: kind for name, kind in facts["columns"].items() if name not in by})
    if not by:
        return facts
    files.check_columns(source.paths[0], names, by, separator)
    counts, _ = counting.counted(rows, by, None, np.array([0, n_rows]))
    least, median, most = np.quantile(counts.n_samples, [0, 0.5, 1]).tolist()
    sizes = {"smallest": int(least), "median": median, "largest": int(most)}
    facts |= {"keys": rows.types(by), "groups": len(counts.n_samples), "sizes": sizes}
    return facts | {"in_the_order_of_keys": counts.is_in_order}


def _as_keys(source: Dataset, separator: str, columns: dict[str, str]) -> dict[str, Any]:
    """Columns of a CSV file that would be read as another type if they were keys: a column of 001 and 2 as texts.

    Numbers with a fraction are measurements, not keys.
    """
    others = [name for name, kind in columns.items() if kind not in _NOT_OTHERWISE]
    if source.is_parquet or not others:
        return {}
    read = open_rows(source, others, keys=others, separator=separator).types(others)
    found = {name: kind for name, kind in read.items() if kind != columns[name]}
    return {"as_keys": found} if found else {}


def _of_fits(directory: Path) -> dict[str, Any]:
    """The options of the job in a directory, and how its fits ended."""
    path = directory / "fits.parquet"
    unfinished = directory / job_files.UNFINISHED
    if not path.exists() and unfinished.is_dir():
        parts = counted_are(job_files.n_done(directory), "part")
        return {"unfinished": f"{parts} done; the same command with --resume continues the job"}
    check_filled(path)
    description = described(path)
    with files.opened(path) as file:
        fits = file.read(["status", "n_samples"])
        keys = {name: str(file.schema_arrow.field(name).type) for name in description["by"]}
    sizes = fits["n_samples"].to_numpy()
    ended = {"groups": fits.num_rows, "samples": int(sizes.sum()), "status": dict(Counter(fits["status"].to_pylist()))}
    return ended | {"keys": keys} | {name: value for name, value in description.items() if value is not None}


def _of_saved(path: Path) -> dict[str, Any]:
    """What a file that `jaxgmm.storage` has written holds."""
    return saved.header(saved.readable(path))[0]._asdict()


def _written(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_written(own)}" for name, own in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)
