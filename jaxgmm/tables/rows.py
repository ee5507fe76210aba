"""The rows of a file, block by block."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from jaxgmm.tables import atomic, files
from jaxgmm.tables.groups import plain

# Rows read at a time: small beside a part, large beside the cost of a call.
_BLOCK = 2**17


class Rows(NamedTuple):
    """The rows of a file.

    Attributes:
        path: a Parquet file, which is read block by block, or a CSV file.
        table: all rows of a CSV file that is read whole; None if it is read block by block, too.
        opened: the state of the file before anything was read.
        separator: of a CSV file's fields.
    """

    path: Path
    table: pa.Table | None
    opened: atomic.State | None
    separator: str = ","

    @property
    def has_types(self) -> bool:
        """Whether the file itself has types for its columns."""
        return self.table is None

    def types(self, columns: Sequence[str]) -> dict[str, str]:
        """The types that columns are read as, such as `int64` or `string`."""
        if self.table is not None:
            return {name: str(self.table.schema.field(name).type) for name in columns}
        if not files.is_parquet(self.path):
            return dict.fromkeys(columns, str(pa.float64()))
        with files.opened(self.path) as file:
            return {name: str(file.schema_arrow.field(name).type) for name in columns}

    @property
    def n_rows(self) -> int | None:
        """The number of rows; None for a CSV file that is read block by block."""
        if self.table is not None:
            return self.table.num_rows
        return files.n_rows(self.path) if files.is_parquet(self.path) else None

    def check_unchanged(self) -> None:
        """Checks that the file is still the one that was opened.

        Raises:
            ValueError: it has been changed, replaced or removed.
        """
        if atomic.state(self.path) != self.opened:
            raise ValueError(
                f"{self.path} was changed, replaced or removed while it was read; "
                "begin anew with a file that nothing writes to."
            )

    def blocks(self, columns: Sequence[str], start: int = 0, size: int | None = None) -> Iterator[pa.Table]:
        """Blocks of the rows from number `start` on, with the given columns and `size` rows, or a suitable number.

        Raises:
            ValueError: the file is no longer the one that was opened, or cannot be read.
        """
        size = size or _BLOCK
        if self.table is not None:
            for first in range(start, self.table.num_rows, size):
                yield self.table.select(list(columns)).slice(first, size)
            return
        self.check_unchanged()
        if not files.is_parquet(self.path):
            for block in files.blocks_of_numbers(self.path, columns, self.separator):
                self.check_unchanged()
                yield block.slice(start)
                start = max(0, start - block.num_rows)
            return
        with files.opened(self.path) as file:
            ends = np.cumsum([file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)])
            first_group = int(np.searchsorted(ends, start, side="right"))
            skipped = start - (int(ends[first_group - 1]) if first_group else 0)
            groups = list(range(first_group, file.num_row_groups))
            batches = file.iter_batches(size, row_groups=groups, columns=list(columns))
            while (batch := self._unless_changed(lambda: next(batches, None))) is not None:
                block = plain(pa.Table.from_batches([batch]).select(list(columns)).slice(skipped))
                skipped = max(0, skipped - batch.num_rows)
                if block.num_rows:
                    yield block

    def _unless_changed(self, read: Callable[[], pa.RecordBatch | None]) -> pa.RecordBatch | None:
        """Reads, and raises if the file is no longer the one that was opened."""
        try:
            return files.translated(self.path, read)
        finally:
            # For a changed file, this error says more than Arrow's.
            self.check_unchanged()


def open_rows(
    path: str | Path,
    columns: Sequence[str],
    *,
    keys: Sequence[str] = (),
    known: pa.Schema | None = None,
    separator: str = ",",
    are_numbers: bool = False,
) -> Rows:
    """Opens the rows of a file; only a CSV file is read at once, because all of its fields decide their type.

    Args:
        path: the file.
        columns: those that will be read.
        keys: those of them that are keys of groups.
        known: types of the keys with which these will be compared; see `jaxgmm.tables.files.read_table`.
        separator: of a CSV file's fields.
        are_numbers: whether columns other than keys hold numbers. Then a CSV file without keys is read block by block.

    Raises:
        OSError: no such file, or it may not be read.
        ValueError: not a table, no rows, or a missing column.
    """
    path = Path(path)
    opened, table = atomic.state(path), None
    if files.is_parquet(path) or (are_numbers and not keys):
        files.check_columns(path, files.column_names(path, separator), columns, separator)
    else:
        table = files.read_table(path, columns, keys=keys, known=known, separator=separator)
    rows = Rows(path, table, opened, separator)
    rows.check_unchanged()
    n_rows = rows.n_rows
    if not (next((block.num_rows for block in rows.blocks(columns)), 0) if n_rows is None else n_rows):
        raise ValueError(f"{path} is empty; it needs at least one row below its header.")
    return rows
