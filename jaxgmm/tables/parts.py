"""Tables larger than memory, read in parts of whole groups.

    plan: the groups that were counted are distributed to parts
    read: one part after another; if rows are sorted, each part is a span of rows, and otherwise rows are first
          sorted into parts, see `jaxgmm.tables.ranges`

Memory holds one part, the keys of all groups while they are counted, one block of rows as stored in the file, and
while rows are sorted, one range of them.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from jaxgmm.tables import ranges
from jaxgmm.tables.counting import Counts, check_features, counted
from jaxgmm.tables.groups import joined, taken
from jaxgmm.tables.ranges import Ranges
from jaxgmm.tables.rows import Rows


class Cut(NamedTuple):
    """How the rows of a table make P parts.

    Attributes:
        first_keys: the first key of each part, P rows.
        ends: `(P + 1,)`; part `p` holds rows `ends[p]` to `ends[p + 1]` of the rows sorted by key.
        ranges: the ranges in which the rows of the files are read.
        is_in_order: whether the rows of the files are sorted by key.
    """

    first_keys: pa.Table
    ends: Int[np.ndarray, " boundaries"]
    ranges: Ranges
    is_in_order: bool

    @property
    def n_parts(self) -> int:
        """P."""
        return len(self.ends) - 1

    @property
    def n_rows(self) -> int:
        """The number of all rows."""
        return int(self.ends[-1])

    @property
    def is_sorted_first(self) -> bool:
        """Whether rows must be sorted into parts before these can be read."""
        return self.n_parts > 1 and not self.is_in_order


class Plan(NamedTuple):
    """P parts of the groups of a table.

    Attributes:
        cut: how the rows make these parts.
        n_groups: `(P,)`, the number of groups in each part.
        sizes: `(2, S)`, the distinct numbers of samples of all groups, and how many groups have each.
    """

    cut: Cut
    n_groups: Int[np.ndarray, " p"]
    sizes: Int[np.ndarray, "2 s"]

    def n_in(self, some: Sequence[int]) -> int:
        """The number of groups in some parts."""
        return int(np.sum(self.n_groups[list(some)]))

    @property
    def n_all(self) -> int:
        """The number of all groups."""
        return int(np.sum(self.n_groups))


def plan(
    rows: Rows,
    by: Sequence[str],
    features: Sequence[str],
    weights: str | None,
    rows_per_part: Callable[[int], int],
) -> Plan:
    """Counts the groups of a table here, and distributes them to parts.

    Args:
        rows: the table.
        by: the columns that make a group's key; none if all rows are one group.
        features: columns that will be fitted.
        weights: column of sample weights, or None.
        rows_per_part: how many rows of a table of so many are a part.

    Raises:
        ValueError: a column cannot be a key, a feature is not numeric, or a weight is negative.
    """
    check_features(rows, by, features)
    n_columns = len({*by, *features, *([] if weights is None else [weights])})
    counts, found = counted(rows, by, weights, ranges.bounds_of(rows, n_columns))
    return planned(counts, found, rows_per_part(int(found.before[-1])))


def planned(counts: Counts, found: Ranges, rows_per_part: int) -> Plan:
    """Distributes groups to parts of about so many rows, but at least one group.

    A group of as many rows as a part should have is a part of its own.
    """
    keys, n_samples, is_in_order = counts
    before, n_rows = np.cumsum(n_samples) - n_samples, int(np.sum(n_samples))
    part, is_large = before * -(-n_rows // rows_per_part) // n_rows, n_samples >= rows_per_part
    begins = (part[1:] != part[:-1]) | is_large[1:] | is_large[:-1]
    first = np.flatnonzero(np.concatenate([[True], begins, [True]]))
    ends = np.append(before, n_rows)[first]
    sizes = np.stack(np.unique(n_samples, return_counts=True))
    return Plan(Cut(taken(keys, first[:-1]), ends, found, is_in_order), np.diff(first), sizes)


def successive(plans: Sequence[Plan], found: Ranges, *, is_in_order: bool) -> Plan:
    """The plan of a table, from those of successive ranges of its keys."""
    n_rows = [own.cut.n_rows for own in plans]
    before = np.cumsum(n_rows) - n_rows
    ends = np.concatenate([[0], *(own.cut.ends[1:] + start for own, start in zip(plans, before, strict=True))])
    distinct, group = np.unique(np.concatenate([own.sizes[0] for own in plans]), return_inverse=True)
    n_each = np.bincount(group, weights=np.concatenate([own.sizes[1] for own in plans])).astype(np.int64)
    cut = Cut(joined([own.cut.first_keys for own in plans]), ends, found, is_in_order)
    return Plan(cut, np.concatenate([own.n_groups for own in plans]), np.stack([distinct, n_each]))


def read(rows: Rows, cut: Cut, columns: Sequence[str], wanted: Sequence[int], aside: Path) -> Iterator[pa.Table]:
    """The rows of some parts, one table for each.

    Args:
        rows: the table.
        cut: how it is cut.
        columns: the columns wanted, including the keys.
        wanted: numbers of parts, ascending.
        aside: a directory for sorted rows; created if needed, and not removed. Those that are there are used.

    Raises:
        OSError: the disk refuses.
    """
    if not cut.is_sorted_first:
        each = [(int(cut.ends[part]), int(cut.ends[part + 1])) for part in wanted]
        yield from ranges.spans(rows, columns, cut.ranges, each)
        return
    with_rows = cut.ranges.with_rows
    if len(wanted):
        sort(rows, cut, columns, with_rows, aside)
    for part in wanted:
        yield ranges.sorted_part(aside, with_rows, part)


def sort(rows: Rows, cut: Cut, columns: Sequence[str], wanted: Sequence[int], aside: Path) -> None:
    """Sorts those of some ranges of rows into parts that are not sorted yet; see `jaxgmm.tables.ranges.sort`."""
    ranges.sort(rows, columns, cut.first_keys.slice(1), cut.ranges, wanted, aside)
