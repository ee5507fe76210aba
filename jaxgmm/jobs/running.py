"""A job from its first unfinished part to its last."""

import time
from collections.abc import Callable, Sequence
from threading import Event
from typing import NamedTuple

import numpy as np

from jaxgmm.jobs.engines import Engine
from jaxgmm.jobs.work import Work


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
    n_all, n_wanted = int(sum(n_groups)), int(sum(n_groups[list(wanted)]))
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
