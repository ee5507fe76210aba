"""The work of a job, as every part of it needs to know it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jaxgmm.jobs.request import Request
from jaxgmm.tables import parts
from jaxgmm.tables.job import Job
from jaxgmm.tables.rows import Rows, open_rows


class Work(NamedTuple):
    """A job of P parts.

    Attributes:
        request: what is fitted.
        rows: the table.
        planned: its groups, and the parts that they make.
        job: where parts are kept.
    """

    request: Request
    rows: Rows
    planned: parts.Plan
    job: Job

    @property
    def wanted(self) -> list[int]:
        """The parts that are not done yet."""
        return [part for part in range(self.planned.n_parts) if not self.job.is_done(part)]

    @property
    def n_groups(self) -> Int[np.ndarray, " p"]:
        """`(P,)`, the number of groups of each part."""
        return np.diff(self.planned.first)

    @property
    def is_sorted_aside(self) -> bool:
        """Whether rows have to be sorted into parts before these can be read."""
        return self.planned.n_parts > 1 and not self.planned.is_in_order


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
    rows_per_part = request.rows_per_part(rows.n_rows or 1)
    return Work(request, rows, parts.plan(rows, request.by, request.features, request.weights, rows_per_part), job)
