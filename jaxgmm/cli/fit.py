"""`jaxgmm fit` and `jaxgmm sweep`: a mixture for every group of a table, part by part."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

import jaxgmm
from jaxgmm import job, parts, tables, tabular
from jaxgmm.cli import console, interrupts
from jaxgmm.cli import options as of
from jaxgmm.engine.progress import bar
from jaxgmm.groups import check_named, group
from jaxgmm.settings import LRT, check_options, check_test
from jaxgmm.status import Status

Item = TypeVar("Item")

# A part is some seconds of work: what may be lost when a process is killed. Runs times samples, and bounds on samples.
_RUNS_TIMES_ROWS = 2**23
_ROWS = (2**16, 2**20)
# Numbers of a part, and so its memory.
_NUMBERS = 2**24

# How fits end that are as they were asked for.
_ENDED_WELL = (Status.CONVERGED.name, Status.MAX_ITER.name)
_ALL_WRITTEN = "all tables were written."


class Request(NamedTuple):
    """What one call of the command asks for.

    Attributes:
        file: the table.
        separator: of its fields, if it is a CSV file.
        by: its key columns.
        features: its columns to be fitted.
        weights: its column of sample weights, or None.
        call: `jaxgmm.fit` or `jaxgmm.sweep`, by name.
        models: `n_components`, `covariance_type` and `reg_covar`, each one value or a list, and for a sweep what
            belongs to its choice.
        options: further options of both.
    """

    file: Path
    separator: str
    by: list[str]
    features: list[str]
    weights: str | None
    call: str
    models: dict[str, Any]
    options: dict[str, Any]

    @property
    def criterion(self) -> str | None:
        """What models are chosen by, or None where there is one."""
        return self.models.get("criterion")

    @property
    def combinations(self) -> list[tuple[int, str, float]]:
        """The models that every group is fitted with."""
        several = (self.models[name] for name in ("n_components", "covariance_type", "reg_covar"))
        return list(product(*(values if isinstance(values, list) else [values] for values in several)))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the tables to be written; the last is placed last."""
        return ("components", "fits") if self.criterion is None else ("models", "components", "fits")

    @property
    def columns(self) -> list[str]:
        """The columns to be read."""
        return list(dict.fromkeys([*self.by, *self.features, *([self.weights] if self.weights else [])]))

    @property
    def description(self) -> dict[str, Any]:
        """The same as it is written into outputs; a changed file is another file."""
        size, changed = self.file.stat().st_size, datetime.fromtimestamp(self.file.stat().st_mtime, UTC)
        described = {
            "jaxgmm": jaxgmm.__version__,
            "file": self.file.name,
            "bytes": size,
            "modified": changed.isoformat(),
        }
        described |= {"call": self.call, "by": self.by, "features": self.features, "weights": self.weights}
        described |= {} if self.separator == "," else {"separator": self.separator}
        return described | self.models | self.options


def requested(
    file: Path,
    separator: str,
    by: list[str],
    features: list[str],
    weights: str | None,
    call: str,
    models: dict[str, Any],
    options: dict[str, Any],
) -> Request:
    """What is asked for, of a table that has such columns or not."""
    names = tables.column_names(file, separator)
    # It may be said in two ways, which are one job.
    separator = "tab" if separator == "\t" else separator
    return Request(file, separator, of.columns(by, names), of.columns(features, names), weights, call, models, options)


def run(request: Request, out: Path, *, resume: bool, as_json: bool) -> bool:
    """Does the job, or what is left of it, and says how it went; returns whether any group ended as it should."""
    tabular.check_output_columns(request.by, request.features, request.criterion)
    _check_options(request)
    # A CSV file is read whole here.
    rows = interrupts.interruptible(lambda: _opened(request))
    check_named(request.columns, request.by, request.features, request.weights)
    description = request.description
    # Else it could be that of another file.
    rows.check_unchanged()
    if resume and job.is_finished(out, request.outputs, description):
        interrupts.keeps(lambda: _ALL_WRITTEN)
        return _summarised(request, out, rows, None, as_json=as_json)
    with interrupts.unwinding(), job.begun(out, request.outputs, description, resume=resume) as begun:
        interrupts.keeps(lambda: _kept(begun))
        try:
            fitted = interrupts.interruptible(lambda: _fit_parts(request, rows, begun, shown=not as_json))
        except OSError as error:
            raise OSError(f"{error} ({_kept(begun)})") from error
    return _summarised(request, out, rows, fitted, as_json=as_json)


def _opened(request: Request) -> parts.Rows:
    return parts.open_rows(request.file, request.columns, keys=request.by, separator=request.separator)


def _check_options(request: Request) -> None:
    """Raises ValueError for what `fit` and `sweep` would refuse, before any row is read."""
    given = request.options
    for k, family, ridge in request.combinations:
        check_options(
            k,
            family,
            given["n_init"],
            given["n_finalists"],
            given["tol"],
            given["max_iter"],
            ridge,
            given["precision"],
        )
    if request.criterion == LRT:
        check_test([LRT], request.combinations, request.weights, request.models["patience"], request.models["split"])


def _fit_parts(request: Request, rows: parts.Rows, begun: job.Job, *, shown: bool) -> tuple[int, float]:
    """Fits the parts that are not done, and joins all; returns how many groups were fitted, and in how many seconds."""
    planned = parts.plan(rows, request.by, request.features, request.weights, _rows_per_part(request))
    wanted = [part for part in range(planned.n_parts) if not begun.is_done(part)]
    if planned.n_parts > 1 and not planned.is_in_order and wanted:
        console.say(
            f"jaxgmm: the rows of {request.file.name} are not in the order of {', '.join(request.by)}; "
            f"sorting them into {len(wanted)} parts in {begun.directory}."
        )
    if wanted:
        console.keep_programs()
    began, n_done = time.perf_counter(), planned.n_groups(range(planned.n_parts)) - planned.n_groups(wanted)
    n_before = n_done
    n_groups = len(planned.n_samples)
    with bar(n_groups, "groups", n_done) if shown else nullcontext(lambda *_: None) as tell:
        whole = parts.read(rows, planned, request.columns, wanted, begun.directory / "sorted")
        for part, table in zip(wanted, _ahead(whole), strict=True):
            of_part = planned.n_groups([part])

            def progress(done: int, of_all: int, first: int = n_done, of_part: int = of_part) -> None:
                tell(first + of_part * done / of_all, n_groups)

            begun.keep(part, _fitted(request, table, progress))
            n_done += of_part
            tell(n_done, n_groups)
    seconds = time.perf_counter() - began
    rows.check_unchanged()
    begun.finish(planned.n_parts)
    return n_done - n_before, seconds


def _fitted(request: Request, table: pa.Table, progress: Callable[[int, int], None]) -> dict[str, pa.Table]:
    """The output tables of one part."""
    groups = group(table, request.by, request.features, request.weights)
    options = request.models | request.options | {"sample_weight": groups.sample_weight, "progress": progress}
    if request.criterion is None:
        result, chosen, models = jaxgmm.fit(groups.x, **options), None, {}
    else:
        sweep = jaxgmm.sweep(groups.x, **options)
        result = sweep.best
        chosen = tabular.chosen_columns(sweep.table, groups.keys.num_rows, request.criterion)
        models = {"models": tabular.models_table(groups.keys, sweep.table)}
    return models | {
        "components": tabular.components_table(groups.keys, result, request.features),
        "fits": tabular.fits_table(groups.keys, groups.n_samples, result, chosen),
    }


def _rows_per_part(request: Request) -> int:
    """So many rows that a part is some seconds of work, and takes a bounded share of memory."""
    n_runs = request.options["n_init"] * len(request.combinations)
    least, most = _ROWS
    by_work = min(most, max(least, _RUNS_TIMES_ROWS // n_runs))
    return max(1, min(by_work, _NUMBERS // len(request.columns)))


def _ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, each asked for while the one before is worked on."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


def _kept(begun: job.Job) -> str:
    """What is kept when a job ends early."""
    begun.stop()
    if job.is_finished(begun.out, begun.names, begun.description):
        return _ALL_WRITTEN
    if begun.n_done == 0:
        return "nothing was written."
    return f"{begun.n_done} parts are kept in {begun.directory}; the same command with --resume goes on."


def _summarised(
    request: Request, out: Path, rows: parts.Rows, fitted: tuple[int, float] | None, *, as_json: bool
) -> bool:
    """Says how the fits ended, and how long they took; returns whether any ended as it should."""
    files = [out / f"{name}.parquet" for name in reversed(request.outputs)]
    chosen = ["n_components", "covariance_type"] if request.criterion else []
    with tables.opened(files[0]) as file:
        fits = file.read(["status", "n_samples", *chosen])
    counts, n_samples = Counter(fits["status"].to_pylist()), int(np.sum(fits["n_samples"].to_numpy()))
    if as_json:
        n_fitted, seconds = fitted or (0, 0.0)
        summary = {"groups": fits.num_rows, "samples": n_samples, "status": dict(counts)}
        summary |= {
            "keys": rows.types(request.by),
            "fitted": n_fitted,
            "seconds": round(seconds, 3),
            "files": [str(path) for path in files],
        }
        console.print_json(summary)
    else:
        console.plain().print(f"\n{fits.num_rows:,} groups, {n_samples:,} samples", style="bold")
        console.print_statuses(counts)
        _print_done(fits.num_rows, fitted, files)
        if request.criterion:
            answered = fits.drop_null()
            _print_choice(answered["n_components"].to_numpy(), np.array(answered["covariance_type"].to_pylist()))
    has_ended_well = any(counts[name] for name in _ENDED_WELL)
    if not has_ended_well:
        ended = ", ".join(f"{count:,} {name}" for name, count in counts.items())
        wanted = " or ".join(_ENDED_WELL)
        console.say(f"jaxgmm: no group ended {wanted} ({ended}); {files[0]} says what to do about each.")
    return has_ended_well


def _print_done(n_groups: int, fitted: tuple[int, float] | None, files: list[Path]) -> None:
    """Prints how many groups were fitted, in what time, and where the tables are."""
    printed = console.plain()
    if fitted is None:
        printed.print("all was done before")
    else:
        n_fitted, seconds = fitted
        rest = "" if n_fitted == n_groups else f"; {n_groups - n_fitted:,} had been done before"
        rate = n_fitted / seconds if seconds else 0
        printed.print(f"fitted {n_fitted:,} in {seconds:.1f} s, {rate:,.0f} groups/s{rest}")
    printed.print("wrote " + " and ".join(map(str, files)), soft_wrap=True)


def _print_choice(n_components: np.ndarray, covariance_type: np.ndarray) -> None:
    """Prints how often which model was chosen: K down, families across."""
    families = list(dict.fromkeys(covariance_type.tolist()))
    table = console.plain_table("components", *families)
    for column in table.columns:
        column.justify = "right"
    for k in np.unique(n_components).tolist():
        of_k = covariance_type[n_components == k]
        table.add_row(str(k), *(f"{np.count_nonzero(of_k == family):,}" for family in families))
    console.plain().print("\ngroups by the model chosen", style="bold")
    console.plain().print(table)
