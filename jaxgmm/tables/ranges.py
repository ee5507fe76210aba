"""Rows of a table that are not in the order of its keys, sorted into parts.

The table is taken in ranges of rows, each of which is sorted into one file, whatever the number of parts, and by any
process. Such a file holds an Arrow stream for each part, whose rows keep their order, and ends with the P + 1 places,
in bytes, where these begin and end.
"""

import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from jaxgmm.tables import atomic
from jaxgmm.tables.groups import key_codes
from jaxgmm.tables.rows import Rows
from jaxgmm.tables.wording import shortened

# Numbers in a range, which bounds its memory, unless that would make too many files.
_NUMBERS, _MOST_FILES = 2**22, 1024

# One row range after another: the number of the first row, and of that after the last.
Range = tuple[int, int]


def ranges_of(n_rows: int, n_columns: int) -> list[Range]:
    """The ranges of a table of so many rows and columns."""
    size = max(1, _NUMBERS // n_columns, -(-n_rows // _MOST_FILES))
    return [(start, min(start + size, n_rows)) for start in range(0, n_rows, size)]


def in_ranges(rows: Rows, columns: Sequence[str], wanted: Sequence[Range]) -> Iterator[pa.Table]:
    """The rows of some ranges, ascending, one table for each; memory holds one range and one block."""
    blocks, held, position = iter(()), [], -1
    for start, stop in wanted:
        if position < 0 or start > position + sum(table.num_rows for table in held):
            blocks, held, position = rows.blocks(columns, start), [], start
        while position + sum(table.num_rows for table in held) < stop:
            held.append(next(blocks))
        table = pa.concat_tables(held)
        yield table.slice(start - position, stop - start)
        held, position = [table.slice(stop - position)], stop


def sort(
    rows: Rows,
    columns: Sequence[str],
    boundaries: pa.Table,
    all_ranges: Sequence[Range],
    wanted: Sequence[int],
    aside: Path,
) -> None:
    """Sorts those of some ranges that are not sorted yet. Several processes may do so at the same time.

    Args:
        rows: the table.
        columns: the columns wanted, including the keys.
        boundaries: the first key of each part but the first, P - 1 rows.
        all_ranges: all ranges of the table.
        wanted: numbers of ranges, ascending.
        aside: a directory for the files; created if needed.

    Raises:
        OSError: the disk refuses.
        ValueError: the table cannot be read, or has changed.
    """
    missing = [number for number in wanted if not _file(aside, number).exists()]
    with atomic.refusals(aside):
        aside.mkdir(parents=True, exist_ok=True)
    for number, table in zip(missing, in_ranges(rows, columns, [all_ranges[i] for i in missing]), strict=True):
        _write(_by_part(table, boundaries), _file(aside, number))


def sorted_part(aside: Path, n_ranges: int, part: int) -> pa.Table:
    """The rows of a part, in the order that they have in the table.

    Raises:
        OSError: a file is missing or damaged; it is removed.
    """
    return pa.concat_tables([_read(_file(aside, number), part) for number in range(n_ranges)])


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
    # Another process may be writing the same rows.
    own = path.with_name(f"{path.stem}.{uuid.uuid4().hex}")
    with atomic.written(own) as file:
        places = [0]
        for table in tables:
            with pa.ipc.new_stream(file, table.schema) as writer:
                writer.write_table(table)
            places.append(file.tell())
        file.write(np.array(places).tobytes())
    with atomic.refusals(path):
        own.replace(path)


def _read(path: Path, part: int) -> pa.Table:
    try:
        with pa.memory_map(str(path)) as source:
            start, stop = _places(source, part)
            source.seek(start)
            return pa.ipc.open_stream(source.read_buffer(stop - start)).read_all()
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = shortened(str(error))
        path.unlink(missing_ok=True)
        raise OSError(f"{path} cannot be read ({reason}); continue with --resume to sort the rows again.") from error


def _places(source: pa.NativeFile, part: int) -> Int[np.ndarray, " two"]:
    """Where the stream of a part begins and ends."""
    source.seek(source.size() - 8)
    n_bytes = int(np.frombuffer(source.read(8), np.int64)[0])
    source.seek(n_bytes + 8 * part)
    return np.frombuffer(source.read(16), np.int64)


def _file(aside: Path, number: int) -> Path:
    return aside / f"{number:06}.arrow"
