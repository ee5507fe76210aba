"""The work of a job, as every part of it needs to know it."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from jaxgmm.jobs.request import TableRequest
from jaxgmm.tables import plans
from jaxgmm.tables.job import Job
from jaxgmm.tables.parts import Plan
from jaxgmm.tables.rows import Rows

# Counts the groups of a table and distributes them to parts; the directory is for files on the way.
Count = Callable[[TableRequest, Rows, Path], Plan]


class Work(NamedTuple):
    """A job of P parts. It holds what every part needs, and can be pickled.

    Attributes:
        request: what is fitted.
        rows: the table.
        plan: its groups and parts.
        job: where parts are kept.
    """

    request: TableRequest
    rows: Rows
    plan: Plan
    job: Job

    @property
    def wanted(self) -> list[int]:
        """The parts that are not done yet."""
        return [part for part in range(self.plan.cut.n_parts) if not self.job.is_done(part)]

    @property
    def aside(self) -> Path:
        """The directory of sorted rows."""
        return self.job.directory / "sorted"


def planned(request: TableRequest, rows: Rows, job: Job, count: Count) -> Work:
    """The work of a job, whose groups are counted unless that has been done before.

    Raises:
        ValueError: a column cannot be a key, a feature is not numeric, or a weight is negative.
        OSError: the disk refuses, or the plan that was kept is missing or damaged.
    """
    plan = plans.kept(job.plan)
    if plan is None:
        if job.n_done:
            raise OSError(f"{job.plan} is missing; remove {job.directory} to begin anew.")
        plan = count(request, rows, job.directory)
        plans.keep(plan, job.plan)
    return Work(request, rows, plan, job)
