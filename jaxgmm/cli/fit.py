"""`jaxgmm fit` and `jaxgmm sweep`: a mixture for every group of a table, part by part, or for the whole table."""

import re
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from threading import Event
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

import jaxgmm
from jaxgmm.cli import console, interrupts, streamed, summary
from jaxgmm.cli import options as of
from jaxgmm.cli.request import Request, check
from jaxgmm.engine.progress import bar
from jaxgmm.tables import files, job, parts, tabular, whole
from jaxgmm.tables.groups import Groups, check_named, group
from jaxgmm.tables.rows import Rows, open_rows
from jaxgmm.tables.survey import Survey, survey

Item = TypeVar("Item")

# A part is a few seconds of work, which is what a killed process may lose: runs times samples, and bounds on samples.
_RUNS_TIMES_ROWS = 2**23
_ROWS = (2**16, 2**20)
# Numbers in a part; this bounds its memory.
_NUMBERS = 2**24

# The wording in notes of a sweep.
_COUNT = re.compile(r"\d+ of \d+ data sets")

_ALL_WRITTEN = "all tables were written."


def run(request: Request, out: Path, *, resume: bool, as_csv: bool, as_json: bool) -> bool:
    """Does the job, or the rest of it, and prints a summary; returns whether any group ended CONVERGED or MAX_ITER."""
    tabular.check_output_columns(request.by, request.features, request.criterion)
    check(request)
    if out.name.lower().endswith(files.KINDS) and not out.exists():
        raise ValueError(f"--out must name a directory, for several tables; got {out}. For CSV files, give --csv.")
    request.file.check_outside(out)
    # A CSV file with keys is read whole here.
    with console.reading(request.file, shown=not as_json):
        rows = interrupts.interruptible(lambda: _opened(request))
    check_named(request.columns, request.by, request.features, request.weights, needs_key=False)
    description = request.description
    # Otherwise the description could be that of another file.
    rows.check_unchanged()
    if resume and job.is_finished(out, request.outputs, description):
        done = summary.Done(0, 0.0, ())
    else:
        done = _done(request, rows, out, description, resume=resume, as_csv=as_csv, shown=not as_json)
    interrupts.keeps(lambda: _ALL_WRITTEN)
    written = [out / f"{name}.parquet" for name in reversed(request.outputs)]
    if as_csv:
        written += _as_csv(written, request.separator)
    types = rows.types(request.by)
    return summary.summarised(written, types, done, is_sweep=request.criterion is not None, as_json=as_json)


def _done(
    request: Request, rows: Rows, out: Path, description: dict[str, Any], *, resume: bool, as_csv: bool, shown: bool
) -> summary.Done:
    """Does the job, or the rest of it."""
    begins = job.begun(out, request.outputs, description, resume=resume, differing=of.differing)
    with interrupts.unwinding(), begins as begun:
        if as_csv:
            # These are written after all others; so they are not this job's.
            files.check_absent(out, request.outputs, ".csv")
        interrupts.keeps(lambda: _kept(begun))
        try:
            return interrupts.interruptible(lambda: _fit_parts(request, rows, begun, shown=shown))
        except OSError as error:
            raise OSError(f"{error} ({_kept(begun)})") from error


def _as_csv(tables: list[Path], separator: str) -> list[Path]:
    """Copies tables to CSV files beside them, unless an earlier call has, and returns the paths of these."""
    interrupts.keeps(lambda: "all Parquet tables were written; the same command with --resume writes the CSV files.")
    with interrupts.unwinding():
        for path in tables:
            if not path.with_suffix(".csv").exists():
                files.copy_as_csv(path, separator)
    return [path.with_suffix(".csv") for path in tables]


def _opened(request: Request) -> Rows:
    options = {"separator": request.separator, "where": request.where}
    return open_rows(request.file, request.columns, keys=request.by, are_numbers=True, **options)


def _fit_parts(request: Request, rows: Rows, begun: job.Job, *, shown: bool) -> summary.Done:
    """Fits the unfinished parts, and joins all parts."""
    with console.reading(request.file, shown=shown):
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
    n_before, notes = n_done, {}
    n_groups, waits = len(planned.n_samples), Event()
    with _bar(request, n_groups, n_done, waits) if shown and wanted else nullcontext(lambda *_: None) as tell:
        coming = _groups(request, rows, planned, wanted, begun.directory / "sorted")
        for part, groups in zip(wanted, _ahead(coming, waits), strict=True):
            n_own = planned.n_groups([part])

            def progress(done: int, of_all: int, first: int = n_done, own: int = n_own) -> None:
                tell(*(first + own * done / of_all, n_groups) if request.by else (done, of_all))

            of_job = planned.n_samples if request.by else None
            outputs, own_notes = _fitted(request, groups, of_job, begun.checkpoint, progress)
            begun.keep(part, outputs)
            notes |= dict.fromkeys(own_notes)
            n_done += n_own
    seconds = time.perf_counter() - began
    rows.check_unchanged()
    begun.finish(planned.n_parts)
    return summary.Done(n_done - n_before, seconds, tuple(notes))


def _bar(
    request: Request, n_groups: int, n_before: int, waits: Event
) -> AbstractContextManager[Callable[[float, int], None]]:
    """Counts groups; or runs, where there is one group."""

    def doing() -> str:
        return "reading" if waits.is_set() else "fitting"

    unit = "rows" if request.passes else "runs"
    return bar(n_groups, "groups", n_before, doing) if request.by else bar(None, unit, doing=doing)


def _groups(
    request: Request, rows: Rows, planned: parts.Plan, wanted: list[int], aside: Path
) -> Iterator[Groups | Survey]:
    """The groups of each wanted part. Without keys there is one part, the whole table."""

    def grouped(table: pa.Table) -> Groups:
        return group(table, request.by, request.features, request.weights)

    if request.passes:
        seed = request.options["key"]
        return (survey(rows, planned, request.features, request.weights, seed) for _ in wanted)
    if not request.by:
        return (whole.read(rows, planned, request.features, request.weights) for _ in wanted)
    # Not a loop, whose variable would hold a table while its groups are fitted.
    return map(grouped, parts.read(rows, planned, request.columns, wanted, aside))


def _fitted(
    request: Request,
    groups: Groups | Survey,
    of_job: np.ndarray | None,
    checkpoint: Path,
    progress: Callable[[int, int], None],
) -> tuple[dict[str, pa.Table], list[str]]:
    """The output tables of one part of a job of groups of these sizes, and notes for the user."""
    options = request.models | request.options
    if isinstance(groups, Survey):
        passes = options.pop("passes")
        fitted, notes = _ordered(streamed.fit(groups, options, passes, checkpoint, progress), request), []
        return _tables(request, groups, fitted, fitted, None), notes
    options |= {"sample_weight": groups.sample_weight, "part_of": of_job, "progress": progress}
    if request.criterion is None:
        fitted, notes = _ordered(jaxgmm.fit(groups.x, **options), request), []
        result, chosen = fitted, None
    else:
        swept, notes = _swept(groups.x, options)
        fitted = _ordered(swept, request)
        result, chosen = fitted.best, tabular.chosen_columns(fitted.table, groups.keys.num_rows, request.criterion)
    return _tables(request, groups, fitted, result, chosen), notes


def _tables(
    request: Request, groups: Groups | Survey, fitted: Any, result: "jaxgmm.FitResult", chosen: Any
) -> dict[str, pa.Table]:
    """The output tables of one part, from its fits or its sweep."""
    flags = jaxgmm.flags(fitted)
    outputs = {
        "components": tabular.components_table(groups.keys, result, request.features, flags),
        "fits": tabular.fits_table(groups, result, flags, chosen),
    }
    if chosen is not None:
        outputs["models"] = tabular.models_table(groups.keys, fitted.table, flags)
    return outputs


def _ordered(fitted: Any, request: Request) -> Any:
    """Fits with components in the order that was asked for."""
    from jaxgmm.ordering import in_named_order  # noqa: PLC0415 (imports JAX)

    return in_named_order(fitted, request.order_by, request.features)


def _swept(x: list[np.ndarray], options: dict[str, Any]) -> tuple["jaxgmm.Sweep", list[str]]:
    """A sweep and its notes. Notes that count data sets are kept only as warnings, without their numbers.

    These numbers are those of one part.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sweep = jaxgmm.sweep(x, **options)
    for warning in caught:
        if str(warning.message) not in sweep.notes:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    warned = {str(warning.message) for warning in caught}
    kept = [note for note in sweep.notes if note in warned or not _COUNT.search(note)]
    return sweep, [_COUNT.sub("some groups", note) for note in kept]


def _rows_per_part(request: Request) -> int:
    """Number of rows for which a part is a few seconds of work and takes a bounded share of memory."""
    n_runs = request.options["n_init"] * len(request.combinations)
    least, most = _ROWS
    by_work = min(most, max(least, _RUNS_TIMES_ROWS // n_runs))
    return max(1, min(by_work, _NUMBERS // len(request.columns)))


def _ahead(items: Iterator[Item], waits: Event) -> Iterator[Item]:
    """The same items, each fetched while the previous one is processed; `waits` is set while there is none."""

    def awaited(coming: Future[Item | None]) -> Item | None:
        waits.set()
        item = coming.result()
        waits.clear()
        return item

    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := awaited(coming)) is not None:
            coming = pool.submit(next, items, None)
            yield item


def _kept(begun: job.Job) -> str:
    """A sentence that says what is kept when a job ends early."""
    begun.stop()
    if job.is_finished(begun.out, begun.names, begun.description):
        return _ALL_WRITTEN
    if begun.n_done == 0 and begun.checkpoint.exists():
        return f"the passes so far are kept in {begun.directory}; the same command with --resume continues the job."
    if begun.n_done == 0:
        return "nothing was written."
    return f"{begun.n_done} parts are kept in {begun.directory}; the same command with --resume continues the job."
