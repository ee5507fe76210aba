"""Ranges of the rows of a table, and their rows sorted into parts.

Any process can read a range by itself. Where rows are not in the order of keys, each range is sorted into one file,
whatever the number of parts. Such a file holds an Arrow stream for each part, whose rows keep their order, and ends
with the P + 1 places, in bytes, where these begin and end.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from jaxgmm.tables import atomic
from jaxgmm.tables.groups import key_codes
from jaxgmm.tables.rows import Rows
from jaxgmm.tables.wording import shortened

# Numbers in a range, which bounds its memory, unless that would make too many files.
_NUMBERS, _MOST_FILES = 2**22, 1024

# The end of a table whose number of rows is unknown.
_END = np.iinfo(np.int64).max


class Ranges(NamedTuple):
    """R ranges of the rows of a table, in their order.

    Attributes:
        bounds: `(R + 1,)`, where they begin and end among the rows that the files store.
        before: `(R + 1,)`, how many of the rows before each of these satisfy the condition of the table.
    """

    bounds: Int[np.ndarray, " bounds"]
    before: Int[np.ndarray, " bounds"]

    @property
    def with_rows(self) -> list[int]:
        """The numbers of those that hold a row that satisfies it."""
        return np.flatnonzero(np.diff(self.before)).tolist()

    def place(self, row: int) -> tuple[int, int]:
        """A place among the stored rows at or before a row that satisfies the condition, and that place's own number.

        Numbers are those among rows that satisfy it.
        """
        i = int(np.searchsorted(self.before, row, side="right")) - 1
        begin, before = int(self.bounds[i]), int(self.before[i])
        all_satisfy = self.bounds[i + 1] - begin == self.before[i + 1] - before
        return (begin + row - before, row) if all_satisfy else (begin, before)


def bounds_of(rows: Rows, n_columns: int) -> Int[np.ndarray, " bounds"]:
    """Where the ranges of a table of so many columns begin and end; see `Ranges`."""
    n_rows = rows.n_stored
    if n_rows is None:
        return np.array([0, _END])
    size = max(1, _NUMBERS // n_columns, -(-n_rows // _MOST_FILES))
    return np.append(np.arange(0, n_rows, size), n_rows)


def spans(rows: Rows, columns: Sequence[str], ranges: Ranges, wanted: Sequence[tuple[int, int]]) -> Iterator[pa.Table]:
    """Some spans of the rows that satisfy the condition, one table for each; memory holds one span and one block.

    Args:
        rows: the table.
        columns: the columns wanted.
        ranges: of the table, by which a span is found.
        wanted: numbers of the first row of each span, and of that after the last; ascending.
    """
    blocks, held, position = iter(()), [], -1
    for start, stop in wanted:
        if position < 0 or start > position + sum(table.num_rows for table in held):
            place, position = ranges.place(start)
            blocks, held = rows.blocks(columns, place), []
        while position + sum(table.num_rows for table in held) < stop:
            held.append(next(blocks))
        table = pa.concat_tables(held)
        yield table.slice(start - position, stop - start)
        held, position = [table.slice(stop - position)], stop


def sort(
    rows: Rows, columns: Sequence[str], boundaries: pa.Table, ranges: Ranges, wanted: Sequence[int], aside: Path
) -> None:
    """Sorts those of some ranges that are not sorted yet. Several processes may do so at the same time.

    Args:
        rows: the table.
        columns: the columns wanted, including the keys.
        boundaries: the first key of each part but the first, P - 1 rows.
        ranges: those of the table.
        wanted: numbers of ranges that hold rows, ascending.
        aside: a directory for the files; created if needed.

    Raises:
        OSError: the disk refuses.
        ValueError: the table cannot be read, or has changed.
    """
    missing = [number for number in wanted if not _file(aside, number).exists()]
    tables = spans(rows, columns, ranges, [(int(ranges.before[i]), int(ranges.before[i + 1])) for i in missing])
    for number, table in zip(missing, tables, strict=True):
        write(table, boundaries, aside, number)


def write(table: pa.Table, boundaries: pa.Table, aside: Path, number: int) -> None:
    """Writes the rows of one range, sorted into the parts that begin with the given keys but for the first.

    Raises:
        OSError: the disk refuses.
    """
    with atomic.refusals(aside):
        aside.mkdir(parents=True, exist_ok=True)
    _write(_by_part(table, boundaries), _file(aside, number))


def sorted_part(aside: Path, numbers: Sequence[int], part: int) -> pa.Table:
    """The rows of a part, in the order that they have in the table.

    Args:
        aside: the directory of the files.
        numbers: those of all ranges that hold rows, ascending.
        part: the number of the part.

    Raises:
        OSError: a file is missing, cannot be read, or is damaged; then it is removed.
    """
    return pa.concat_tables([_read(_file(aside, number), part) for number in numbers])


def _by_part(table: pa.Table, boundaries: pa.Table) -> list[pa.Table]:
    """The rows of each part, in the order that they have in the table."""
    by = boundaries.column_names
    codes = key_codes(pa.concat_tables([boundaries, table.select(by)]), by)
    n_parts = boundaries.num_rows + 1
    part = np.searchsorted(codes[: n_parts - 1], codes[n_parts - 1 :], side="right")
    order = np.argsort(part, kind="stable")
    ends = np.searchsorted(part[order], np.arange(n_parts + 1))
    return [table.take(order[ends[i] : ends[i + 1]]) for i in range(n_parts)]


def _write(tables: Sequence[pa.Table], path: Path) -> None:
    with atomic.written(path) as file:
        places = [0]
        for table in tables:
            with pa.ipc.new_stream(file, table.schema) as writer:
                writer.write_table(table)
            places.append(file.tell())
        file.write(np.array(places).tobytes())


def _read(path: Path, part: int) -> pa.Table:
    try:
        with pa.memory_map(str(path)) as source:
            start, stop = _places(source, part)
            source.seek(start)
            return pa.ipc.open_stream(source.read_buffer(stop - start)).read_all()
    except (pa.ArrowException, OSError, ValueError) as error:
        # What the system refuses may be read another time.
        if getattr(error, "errno", None) is None:
            path.unlink(missing_ok=True)
        raise OSError(f"{path} cannot be read ({shortened(str(error))}); resume the job to sort rows again.") from error


def _places(source: pa.NativeFile, part: int) -> Int[np.ndarray, " two"]:
    """Where the stream of a part begins and ends."""
    source.seek(source.size() - 8)
    n_bytes = int(np.frombuffer(source.read(8), np.int64)[0])
    source.seek(n_bytes + 8 * part)
    return np.frombuffer(source.read(16), np.int64)


def _file(aside: Path, number: int) -> Path:
    return aside / f"{number:06}.arrow"
