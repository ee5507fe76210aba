"""Tables larger than memory, read in parts of whole groups.

    plan: one pass over the key columns finds all groups, and whether rows are sorted by key
    read: one part after another; if rows are sorted, each part is a range of rows, and otherwise rows are first
          sorted into parts, see `jaxgmm.tables.ranges`

A plan depends only on the file and the size of parts, so a resumed job gets the same parts, as do several processes.
Memory holds one part, the keys of all groups, one block of rows as stored in the file, and while rows are sorted, one
range of them.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from jaxgmm.tables import ranges
from jaxgmm.tables.groups import check_numbers, checked_weights, joined, key_codes, taken
from jaxgmm.tables.rows import Rows

# Groups collected before equal ones are joined.
_MANY = 2**20


class Counts(NamedTuple):
    """The groups of some rows.

    Attributes:
        keys: one row for each of B groups, sorted.
        n_samples: `(B,)`, their numbers of rows.
        is_in_order: whether the rows are sorted by key.
    """

    keys: pa.Table
    n_samples: Int[np.ndarray, " b"]
    is_in_order: bool


class Cut(NamedTuple):
    """How the rows of a table make P parts.

    Attributes:
        boundaries: the first key of every part but the first, P - 1 rows.
        ends: `(P + 1,)`; part `p` holds rows `ends[p]` to `ends[p + 1]` of the rows sorted by key.
        is_in_order: whether the rows of the file are sorted by key.
    """

    boundaries: pa.Table
    ends: Int[np.ndarray, " boundaries"]
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
    """The groups of a table, and their distribution to P parts.

    Attributes:
        keys: one row for each of B groups, sorted.
        n_samples: `(B,)`, their numbers of rows.
        first: `(P + 1,)`; part `p` holds groups `first[p]` to `first[p + 1]`.
        is_in_order: whether the rows of the file are sorted by key.
    """

    keys: pa.Table
    n_samples: Int[np.ndarray, " b"]
    first: Int[np.ndarray, " boundaries"]
    is_in_order: bool

    @property
    def n_parts(self) -> int:
        """P."""
        return len(self.first) - 1

    @property
    def n_groups(self) -> Int[np.ndarray, " p"]:
        """`(P,)`, the number of groups in each part."""
        return np.diff(self.first)

    @property
    def cut(self) -> Cut:
        """What reading the parts needs to know."""
        ends = np.concatenate([[0], np.cumsum(self.n_samples)])[self.first]
        return Cut(taken(self.keys, self.first[1:-1]), ends, self.is_in_order)


def plan(rows: Rows, by: Sequence[str], features: Sequence[str], weights: str | None, rows_per_part: int) -> Plan:
    """Finds the groups of a table, and distributes them to parts; see `counted` and `planned`."""
    return planned(counted(rows, by, features, weights), rows_per_part)


def counted(rows: Rows, by: Sequence[str], features: Sequence[str], weights: str | None) -> Counts:
    """Finds the groups of a table, in one pass over its key columns.

    Args:
        rows: the table.
        by: the columns that make a group's key; none if all rows are one group.
        features: columns that will be fitted.
        weights: column of sample weights, or None.

    Raises:
        ValueError: a column cannot be a key, a feature is not numeric, or a weight is negative.
    """
    for block in rows.blocks([*features, *by]):
        for name in features:
            check_numbers(block[name], name)
        break
    found: list[Counts] = []
    for block in rows.blocks(list(dict.fromkeys([*by, *([] if weights is None else [weights])]))):
        if weights is not None:
            checked_weights(block[weights], weights)
        found.append(_counted(block.select(list(by)), np.ones(block.num_rows, np.int64)))
        if sum(len(own.n_samples) for own in found) > _MANY:
            found = [_joined(found)]
    return _joined(found)


def planned(counts: Counts, rows_per_part: int) -> Plan:
    """Distributes groups to parts of about so many rows, but at least one group.

    A group of as many rows as a part should have is a part of its own.
    """
    keys, n_samples, is_in_order = counts
    before, n_rows = np.cumsum(n_samples) - n_samples, int(np.sum(n_samples))
    part, is_large = before * -(-n_rows // rows_per_part) // n_rows, n_samples >= rows_per_part
    begins = (part[1:] != part[:-1]) | is_large[1:] | is_large[:-1]
    return Plan(keys, n_samples, np.flatnonzero(np.concatenate([[True], begins, [True]])), is_in_order)


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
        yield from ranges.in_ranges(rows, columns, [(int(cut.ends[part]), int(cut.ends[part + 1])) for part in wanted])
        return
    all_ranges = range(n_ranges(cut, columns))
    if len(wanted):
        sort(rows, cut, columns, all_ranges, aside)
    for part in wanted:
        yield ranges.sorted_part(aside, len(all_ranges), part)


def n_ranges(cut: Cut, columns: Sequence[str]) -> int:
    """In how many ranges the rows of a table are sorted into parts."""
    return len(ranges.ranges_of(cut.n_rows, len(columns)))


def sort(rows: Rows, cut: Cut, columns: Sequence[str], wanted: Sequence[int], aside: Path) -> None:
    """Sorts those of some ranges of rows into parts that are not sorted yet; see `jaxgmm.tables.ranges.sort`."""
    ranges.sort(rows, columns, cut.boundaries, ranges.ranges_of(cut.n_rows, len(columns)), wanted, aside)


def _counted(keys: pa.Table, n_rows: Int[np.ndarray, " m"]) -> Counts:
    """The distinct ones among keys, in order, and the sum of the numbers of rows of each."""
    codes = key_codes(keys, keys.column_names)
    _, first, group = np.unique(codes, return_index=True, return_inverse=True)
    n_samples = np.bincount(group, weights=n_rows).astype(np.int64)
    return Counts(taken(keys, first), n_samples, bool(np.all(codes[1:] >= codes[:-1])))


def _joined(found: Sequence[Counts]) -> Counts:
    """The groups of successive rows."""
    own = _counted(joined([counts.keys for counts in found]), np.concatenate([counts.n_samples for counts in found]))
    return own._replace(is_in_order=own.is_in_order and all(counts.is_in_order for counts in found))
