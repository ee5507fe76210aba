"""The groups of a table, counted by many processes of which none holds all keys.

    sample: some keys, from which ranges of keys are chosen that hold about as many rows each
    count: the groups of one range of rows, written to a file by ranges of keys
    merge: the groups of one range of keys, from all of these files, distributed to parts

What the steps return is small: keys of samples, of the ends of ranges, and of the beginnings of parts.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from jaxgmm.tables import parts, ranges
from jaxgmm.tables.counting import Counts, counted, merged
from jaxgmm.tables.groups import joined, key_codes, taken
from jaxgmm.tables.ranges import Ranges
from jaxgmm.tables.rows import Rows

# Rows of a range of keys, which has no more groups than these.
_ROWS = 2**21

# Ranges of rows from which keys are sampled, and keys sampled from each.
_SAMPLED, _KEYS = 256, 256

_OF_NO_ROWS = Ranges(np.zeros(1, np.int64), np.zeros(1, np.int64))


class Counting(NamedTuple):
    """The work of counting, as every process needs to know it.

    Attributes:
        rows: the table.
        by: the columns that make a group's key, at least one.
        weights: column of sample weights, or None.
        bounds: those of the ranges of rows; see `jaxgmm.tables.ranges.Ranges`.
        aside: a directory for the files.
        first_keys: the first key of each range of keys but the first.
    """

    rows: Rows
    by: Sequence[str]
    weights: str | None
    bounds: Int[np.ndarray, " bounds"]
    aside: Path
    first_keys: pa.Table | None = None

    @property
    def n_ranges(self) -> int:
        """The number of ranges of rows."""
        return len(self.bounds) - 1


class Merging(NamedTuple):
    """The work of merging, as every process needs to know it.

    Attributes:
        by: the columns that make a group's key.
        aside: the directory of the files.
        with_rows: the ranges of rows that hold any.
        rows_per_part: how many rows are a part.
    """

    by: Sequence[str]
    aside: Path
    with_rows: Sequence[int]
    rows_per_part: int


class Counted(NamedTuple):
    """A range of rows whose groups have been counted.

    Attributes:
        n_rows: the number of its rows.
        edges: its first and its last key, if it has any.
        is_in_order: whether its rows are sorted by key.
    """

    n_rows: int
    edges: pa.Table
    is_in_order: bool


def sampled(counting: Counting) -> list[int]:
    """The ranges of rows that are sampled."""
    return np.unique(np.linspace(0, counting.n_ranges - 1, _SAMPLED).astype(int)).tolist()


def sample(counting: Counting, number: int) -> pa.Table:
    """Some keys from the beginning of a range of rows."""
    start, stop = counting.bounds[number : number + 2].tolist()
    for block in counting.rows.blocks(list(counting.by), start, stop):
        return block.take(np.unique(np.linspace(0, block.num_rows - 1, _KEYS).astype(int)))
    return counting.rows.schema.empty_table().select(list(counting.by))


def divided(samples: Iterable[pa.Table], n_rows: int) -> pa.Table:
    """The first key of each range of keys but the first, for a table of so many rows."""
    keys = joined([own for own in samples if own.num_rows])
    codes = key_codes(keys, keys.column_names)
    order = np.argsort(codes, kind="stable")
    n_ranges = -(-n_rows // _ROWS)
    chosen = order[np.arange(1, n_ranges) * len(order) // n_ranges]
    # Each range holds a key: the first one the least of all, and the others their first.
    _, first = np.unique(codes[chosen], return_index=True)
    return taken(keys, chosen[first][codes[chosen[first]] > 0])


def count(counting: Counting, number: int) -> Counted:
    """Counts the groups of a range of rows, and writes them to a file.

    Raises:
        ValueError: a column cannot be a key, or a weight is negative.
        OSError: the disk refuses.
    """
    assert counting.first_keys is not None
    counts, found = counted(counting.rows, counting.by, counting.weights, counting.bounds[number : number + 2])
    if len(counts.n_samples):
        ranges.write(_as_table(counts), counting.first_keys, counting.aside, number)
    edges = taken(counts.keys, np.unique([0, len(counts.n_samples) - 1])) if len(counts.n_samples) else counts.keys
    return Counted(int(found.before[-1]), edges, counts.is_in_order)


def merge(merging: Merging, number: int) -> parts.Plan:
    """The plan of a range of keys, by itself.

    Raises:
        OSError: a file is missing or damaged.
    """
    table = ranges.sorted_part(merging.aside, merging.with_rows, number)
    keys, n_samples = table.select(list(merging.by)), table.column(table.num_columns - 1).to_numpy()
    counts = merged([Counts(keys, n_samples, is_in_order=False)])
    return parts.planned(counts, _OF_NO_ROWS, merging.rows_per_part)


def are_in_order(counted: Sequence[Counted]) -> bool:
    """Whether the rows of successive ranges are sorted by key."""
    edges = joined([own.edges for own in counted if own.n_rows])
    codes = key_codes(edges, edges.column_names)
    return all(own.is_in_order for own in counted) and bool(np.all(codes[1:] >= codes[:-1]))


def _as_table(counts: Counts) -> pa.Table:
    # No key has this name, as it is longer than all.
    name = f"{max(counts.keys.column_names, key=len)} rows"
    return counts.keys.append_column(name, pa.array(counts.n_samples))
