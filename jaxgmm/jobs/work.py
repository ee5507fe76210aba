"""The work of a job, as every part of it needs to know it."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jaxgmm.jobs.request import Request
from jaxgmm.tables import parts
from jaxgmm.tables.job import Job
from jaxgmm.tables.rows import Rows, open_rows


class Work(NamedTuple):
    """A job of P parts. It holds what every part needs, and can be pickled.

    Attributes:
        request: what is fitted.
        rows: the table.
        cut: how it is cut into parts.
        n_groups: `(P,)`, the number of groups in each part.
        sizes: `(2, S)`, the distinct numbers of samples of all groups, and how many groups have each.
        job: where parts are kept.
    """

    request: Request
    rows: Rows
    cut: parts.Cut
    n_groups: Int[np.ndarray, " p"]
    sizes: Int[np.ndarray, "2 s"]
    job: Job

    @property
    def wanted(self) -> list[int]:
        """The parts that are not done yet."""
        return [part for part in range(self.cut.n_parts) if not self.job.is_done(part)]

    @property
    def aside(self) -> Path:
        """The directory of sorted rows."""
        return self.job.directory / "sorted"


def opened(request: Request) -> Rows:
    """The rows of the table. A CSV file with keys is read here.

    Raises:
        OSError: no such file, or it may not be read.
        ValueError: not a table, no rows, or a missing column.
    """
    options = {"separator": request.separator, "where": request.where}
    return open_rows(request.file, request.columns, keys=request.by, are_numbers=True, **options)


def planned(request: Request, rows: Rows, job: Job) -> Work:
    """The work of a job, after one pass over the keys of the table.

    Raises:
        ValueError: a column cannot be a key, a feature is not numeric, or a weight is negative.
    """
    counts = parts.counted(rows, request.by, request.features, request.weights)
    plan = parts.planned(counts, request.rows_per_part(int(np.sum(counts.n_samples))))
    # Not the keys, which may be many: work is sent to other processes.
    sizes = np.stack(np.unique(plan.n_samples, return_counts=True))
    return Work(request, rows, plan.cut, plan.n_groups, sizes, job)
