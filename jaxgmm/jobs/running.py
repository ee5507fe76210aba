"""A job from its table to its last part."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import numpy as np

from jaxgmm.jobs.engines import ENGINES, Engine
from jaxgmm.jobs.request import TableRequest
from jaxgmm.jobs.work import Work
from jaxgmm.tables.groups import check_named
from jaxgmm.tables.rows import Rows, open_rows


class Done(NamedTuple):
    """The work of one call.

    Attributes:
        n_fitted: number of groups fitted; 0 if all had been fitted before.
        seconds: how long that took.
        notes: notes for the user, a sentence each.
    """

    n_fitted: int
    seconds: float
    notes: tuple[str, ...]


def opened(
    request: TableRequest,
    out: Path,
    engine: str,
    read: Callable[[Callable[[], Rows]], Rows] = lambda rows: rows(),
    *,
    needs_key: bool = True,
) -> tuple[Rows, dict[str, Any]]:
    """The rows of the table that is to be fitted, and the description of the job.

    Args:
        request: the request, which has been checked.
        out: directory of the tables to write.
        engine: the kind of engine that will do the job, a name among `ENGINES`.
        read: calls what opens the table. A CSV file with keys is read then.
        needs_key: whether a table without keys is refused.

    Raises:
        OSError: no such file, or it may not be read.
        ValueError: not a table, no rows, a missing column, a table that the engine cannot read, or one within `out`.
    """
    request.file.check_outside(out)
    options = {"separator": request.separator, "where": request.where}
    rows = read(lambda: open_rows(request.file, request.columns, keys=request.by, are_numbers=True, **options))
    check_named(request.columns, request.by, request.features, request.weights, needs_key=needs_key)
    ENGINES[engine].check(request, rows)
    description = request.description
    # Otherwise the description could be that of another file.
    rows.check_unchanged()
    return rows, description


def fit_parts(
    work: Work, wanted: Sequence[int], engine: Engine, tell: Callable[[float, int], None], waits: Event
) -> Done:
    """Does the parts that are wanted. They are kept, not joined.

    Args:
        work: the job.
        wanted: numbers of parts, ascending.
        engine: what does them.
        tell: receives the numbers of finished and of all groups; of one group without a key, those of runs or rows.
        waits: an event that is set while there is nothing to fit.

    Raises:
        ValueError: the table was changed meanwhile, or holds what cannot be fitted.
        OSError: the disk refuses.
    """
    began, n_groups, n_rows = time.perf_counter(), work.plan.n_groups, np.diff(work.plan.cut.ends)
    n_all, n_wanted = work.plan.n_all, work.plan.n_in(wanted)
    n_done, notes = n_all - n_wanted, {}

    def progress(part: int, done: int, of_all: int) -> None:
        tell(*(n_done + n_groups[part] * done / of_all, n_all) if work.request.by else (done, of_all))

    for finished in engine.fit(work, wanted, progress, waits):
        n_done += int(n_groups[finished.part])
        counts = {"groups": int(n_groups[finished.part]), "rows": int(n_rows[finished.part])}
        work.job.log({"part": finished.part, **counts, **finished.log})
        notes |= dict.fromkeys(finished.notes)
    seconds = time.perf_counter() - began
    work.rows.check_unchanged()
    return Done(n_wanted, seconds, tuple(notes))
