"""`jaxgmm fit` and `jaxgmm sweep`: a mixture for every group of a table, part by part, or for the whole table."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

from jaxgmm.cli import console, interrupts, summary
from jaxgmm.cli import options as of
from jaxgmm.cli.inputs import found
from jaxgmm.engine.progress import bar
from jaxgmm.jobs.cluster import by_absolute_paths
from jaxgmm.jobs.engines import ENGINES
from jaxgmm.jobs.request import TableRequest, check
from jaxgmm.jobs.running import Done, fit_parts, opened
from jaxgmm.jobs.work import Work, planned
from jaxgmm.tables import files, job, job_files
from jaxgmm.tables.condition import parsed
from jaxgmm.tables.places import local
from jaxgmm.tables.rows import Rows
from jaxgmm.tables.wording import counted, counted_are

_ALL_WRITTEN = "all tables were written."


def run(request: TableRequest, out: Path, ray: str | None, *, resume: bool, as_csv: bool, as_json: bool) -> bool:
    """Does the job, or the rest of it, and prints a summary; returns whether any group ended CONVERGED or MAX_ITER.

    `ray` is the address of a cluster, or None.
    """
    if request.passes and request.by:
        raise ValueError("passes are made over a whole table; leave out --passes, or --by.")
    check(request, of.as_typed)
    out, engine = local(out), "process" if ray is None else "ray"
    if out.name.lower().endswith(files.KINDS) and not out.exists():
        raise ValueError(f"--out must name a directory, for several tables; got {out}. For CSV files, give --csv.")
    if ray is not None:
        request, out = by_absolute_paths(request, out)
    with console.reading(request.file, shown=not as_json):
        rows, description = opened(request, out, engine, interrupts.interruptible, needs_key=False)
    if resume and job_files.is_finished(out, request.outputs, description):
        done = Done(0, 0.0, ())
    else:
        done = _done(request, rows, out, ray, description, resume=resume, as_csv=as_csv, shown=not as_json)
    interrupts.keeps(lambda: _ALL_WRITTEN)
    written = [out / f"{name}.parquet" for name in reversed(request.outputs)]
    if as_csv:
        written += _as_csv(written, request.separator)
    types = rows.types(request.by)
    return summary.summarised(written, types, done, is_sweep=request.criterion is not None, as_json=as_json)


class Table(NamedTuple):
    """A table and its columns, as the user names them.

    Attributes:
        files: its files, or patterns of them.
        separator: of the fields of CSV files.
        by: the columns of its keys, or None.
        features: the columns to fit.
        weights: the column of sample weights, or None.
        where: conditions on rows, or None.
    """

    files: Sequence[str]
    separator: str
    by: list[str] | None
    features: list[str]
    weights: str | None
    where: list[str] | None


def requested(table: Table, call: str, models: dict[str, Any], options: dict[str, Any], order_by: str) -> TableRequest:
    """What one call of the command requests, whether or not the table has these columns."""
    file, names = found(*table.files, separator=table.separator)
    condition = of.condition(table.where)
    condition = None if condition is None else parsed(condition).text
    # A tab may be written in two ways, which describe the same job.
    separator = "tab" if table.separator in ("\t", "\\t") else table.separator
    columns = of.keys(table.by, names), of.columns(table.features, names), table.weights
    return TableRequest(file, separator, *columns, order_by, call, models, options, condition)


def _done(
    request: TableRequest,
    rows: Rows,
    out: Path,
    ray: str | None,
    description: dict[str, Any],
    *,
    resume: bool,
    as_csv: bool,
    shown: bool,
) -> Done:
    """Does the job, or the rest of it."""
    begins = job.begun(out, request.outputs, description, resume=resume, differing=of.differing)
    with interrupts.unwinding(), begins as begun:
        if as_csv:
            # These are written after all others; so they are not this job's.
            files.check_absent(out, request.outputs, ".csv")
        interrupts.keeps(lambda: _kept(begun))
        try:
            return interrupts.interruptible(lambda: _fit_parts(request, rows, begun, ray, shown=shown))
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


def _fit_parts(request: TableRequest, rows: Rows, begun: job.Job, ray: str | None, *, shown: bool) -> Done:
    """Fits the unfinished parts, and joins all parts."""
    with ENGINES["process" if ray is None else "ray"].ready(ray) as engine:
        with console.reading(request.file, shown=shown):
            work = planned(request, rows, begun, engine.plan)
        wanted, waits = work.wanted, Event()
        _say_how(work, wanted, begun, here=ray is None)
        told = _bar(work, wanted, waits) if shown and wanted else nullcontext(lambda *_: None)
        with told as tell:
            done = fit_parts(work, wanted, engine, tell, waits)
    begun.finish(work.plan.cut.n_parts)
    return done


def _say_how(work: Work, wanted: Sequence[int], begun: job.Job, *, here: bool) -> None:
    """Says what takes time and room beside fitting; programs are kept if parts are fitted here."""
    request = work.request
    if work.plan.cut.is_sorted_first and wanted:
        console.say(
            f"jaxgmm: the rows of {request.file.name} are not in the order of {', '.join(request.by)}; "
            f"sorting them into {counted(len(wanted), 'part')} in {begun.directory}."
        )
    if wanted and here:
        console.keep_programs()


def _bar(work: Work, wanted: Sequence[int], waits: Event) -> AbstractContextManager[Callable[[float, int], None]]:
    """Counts groups; or runs, where there is one group."""

    def doing() -> str:
        return "reading" if waits.is_set() else "fitting"

    n_all, n_wanted = work.plan.n_all, work.plan.n_in(wanted)
    unit = "rows" if work.request.passes else "runs"
    return bar(n_all, "groups", n_all - n_wanted, doing) if work.request.by else bar(None, unit, doing=doing)


def _kept(begun: job.Job) -> str:
    """A sentence that says what is kept when a job ends early."""
    begun.stop()
    if job_files.is_finished(begun.out, begun.names, begun.description):
        return _ALL_WRITTEN
    if begun.n_done == 0 and begun.checkpoint.exists():
        return f"the passes so far are kept in {begun.directory}; the same command with --resume continues the job."
    if begun.n_done == 0:
        return "nothing was written."
    parts = counted_are(begun.n_done, "part")
    return f"{parts} kept in {begun.directory}; the same command with --resume continues the job."
