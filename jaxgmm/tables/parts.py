"""Tables larger than memory, read in parts of whole groups.

    plan: one pass over the key columns finds all groups, and whether rows are sorted by key
    read: one part after another; if rows are sorted, each part is a range of rows, and otherwise rows are first
          distributed to one file for each part

A plan depends only on the file and the size of parts, so a resumed job gets the same parts. Memory holds one part, the
keys of all groups, and one block of rows as stored in the file. (If rows are unsorted, a part is never less than a
256th of the file.)
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from jaxgmm.tables import atomic
from jaxgmm.tables.groups import check_numbers, checked_weights, joined, key_codes, taken
from jaxgmm.tables.rows import Rows
from jaxgmm.tables.wording import shortened

try:
    import resource
except ImportError:
    # Windows lacks it.
    resource = None

# Groups collected before equal ones are joined.
_MANY = 2**20
# Files open while rows are distributed, unless a process may not have as many.
_MOST_FILES = 256


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

    def n_groups(self, some: Sequence[int]) -> int:
        """The number of groups in some parts."""
        return int(np.sum(np.diff(self.first)[list(some)]))


def plan(rows: Rows, by: Sequence[str], features: Sequence[str], weights: str | None, rows_per_part: int) -> Plan:
    """Finds the groups of a table, in one pass over its key columns, and distributes them to parts.

    Args:
        rows: the table.
        by: the columns that make a group's key; none if all rows are one group.
        features: columns that will be fitted.
        weights: column of sample weights, or None.
        rows_per_part: approximate number of rows in a part, which holds at least one group.

    Returns:
        the groups and the parts.

    Raises:
        ValueError: a column cannot be a key, a feature is not numeric, or a weight is negative.
    """
    found, is_in_order = [], True
    for block in rows.blocks([*features, *by]):
        for name in features:
            check_numbers(block[name], name)
        break
    for block in rows.blocks(list(dict.fromkeys([*by, *([] if weights is None else [weights])]))):
        if weights is not None:
            checked_weights(block[weights], weights)
        codes = key_codes(block, by)
        is_in_order = is_in_order and bool(np.all(codes[1:] >= codes[:-1]))
        found.append(_counted(block.select(list(by)), codes, np.ones(len(codes), np.int64)))
        if sum(len(counts) for _, counts in found) > _MANY:
            found, is_in_order = _joined(found, by, is_in_order)
    ((keys, n_samples),), is_in_order = _joined(found, by, is_in_order)
    before = np.cumsum(n_samples) - n_samples
    n_rows = int(np.sum(n_samples))
    n_parts = -(-n_rows // rows_per_part)
    if not is_in_order:
        n_parts = min(n_parts, _most_files())
    part = before * n_parts // n_rows
    first = np.flatnonzero(np.concatenate([[True], part[1:] != part[:-1], [True]]))
    return Plan(keys, n_samples, first, is_in_order)


def read(rows: Rows, planned: Plan, columns: Sequence[str], wanted: Sequence[int], aside: Path) -> Iterator[pa.Table]:
    """The rows of some parts, one table for each.

    Args:
        rows: the table.
        planned: its plan.
        columns: the columns wanted, including the keys.
        wanted: numbers of parts, ascending.
        aside: a directory for the files of unsorted rows; created if needed, and not removed.

    Raises:
        OSError: the disk refuses.
    """
    if planned.is_in_order or planned.n_parts == 1:
        yield from _ranges(rows, planned, columns, wanted)
        return
    if len(wanted):
        _cut(rows, planned, columns, set(wanted), aside)
    for part in wanted:
        path = _aside(aside, part)
        try:
            with pa.memory_map(str(path)) as source:
                table = pa.ipc.open_stream(source).read_all()
        except (pa.ArrowException, OSError) as error:
            reason = shortened(str(error))
            raise OSError(
                f"{path} cannot be read ({reason}); continue with --resume to sort the rows again."
            ) from error
        yield table
        path.unlink(missing_ok=True)


def _ranges(rows: Rows, planned: Plan, columns: Sequence[str], wanted: Sequence[int]) -> Iterator[pa.Table]:
    """Parts that are ranges of rows."""
    ends = np.concatenate([[0], np.cumsum(planned.n_samples)])[planned.first]
    held: list[pa.Table] = []
    position = int(ends[wanted[0]]) if len(wanted) else 0
    blocks = rows.blocks(columns, position)
    for part in wanted:
        start, stop = int(ends[part]), int(ends[part + 1])
        while position + sum(table.num_rows for table in held) < stop:
            held.append(next(blocks))
        table = pa.concat_tables(held)
        yield table.slice(start - position, stop - start)
        held, position = [table.slice(stop - position)], stop


def _cut(rows: Rows, planned: Plan, columns: Sequence[str], wanted: set[int], aside: Path) -> None:
    """Writes the rows of every wanted part to a file of its own, in their original order."""
    by = planned.keys.column_names
    boundaries = planned.keys.take(planned.first[1:-1])
    writers: dict[int, pa.ipc.RecordBatchStreamWriter] = {}
    try:
        with atomic.refusals(aside), ExitStack() as closing:
            aside.mkdir(parents=True, exist_ok=True)
            for block in rows.blocks(columns):
                codes = key_codes(pa.concat_tables([boundaries, block.select(by)]), by)
                part = np.searchsorted(codes[: len(boundaries)], codes[len(boundaries) :], side="right")
                order = np.argsort(part, kind="stable")
                for number, own in zip(*_runs(part[order], order), strict=True):
                    if number in wanted:
                        if number not in writers:
                            file = closing.enter_context(pa.OSFile(str(_aside(aside, number)), "wb"))
                            writers[number] = closing.enter_context(pa.ipc.new_stream(file, block.schema))
                        writers[number].write_table(block.take(own))
    except BaseException:
        # Incomplete files are useless and take up room.
        for number in writers:
            _aside(aside, number).unlink(missing_ok=True)
        raise


def _runs(values: np.ndarray, rows: np.ndarray) -> tuple[list[int], list[np.ndarray]]:
    """The distinct values among sorted ones, and the rows of each."""
    first = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    return values[first].tolist(), np.split(rows, first[1:])


def _most_files() -> int:
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if resource else 2 * _MOST_FILES
    return max(1, min(_MOST_FILES, allowed // 2))


def _aside(directory: Path, part: int) -> Path:
    return directory / f"{part:06}.arrow"


def _counted(keys: pa.Table, codes: np.ndarray, counts: np.ndarray) -> tuple[pa.Table, np.ndarray]:
    """The distinct keys in order, and the sum of counts of each."""
    _, first, group = np.unique(codes, return_index=True, return_inverse=True)
    return taken(keys, first), np.bincount(group, weights=counts).astype(np.int64)


def _joined(found: list, by: Sequence[str], is_in_order: bool) -> tuple[list, bool]:
    """Merges groups of successive blocks, and says whether they were in order."""
    keys = joined([keys for keys, _ in found])
    codes = key_codes(keys, by)
    is_in_order = is_in_order and bool(np.all(codes[1:] >= codes[:-1]))
    return [_counted(keys, codes, np.concatenate([counts for _, counts in found]))], is_in_order
