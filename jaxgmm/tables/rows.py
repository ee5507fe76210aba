"""The rows of a table in one or several files, block by block."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from jaxgmm.tables import alike, atomic, files, filtering, places
from jaxgmm.tables.condition import Condition, parsed
from jaxgmm.tables.dataset import Dataset, find
from jaxgmm.tables.groups import joined, plain
from jaxgmm.tables.places import Place
from jaxgmm.tables.wording import quoted

# Rows read at a time: small beside a part, large beside the cost of a call.
_BLOCK = 2**17


class Rows(NamedTuple):
    """The rows of a table, or those of them that satisfy a condition.

    Attributes:
        source: Parquet files, which are read block by block, or CSV files.
        opened: the state of every file before anything was read.
        schema: the columns that can be read, and their types.
        folders: values of the columns that folders make; a row for each file.
        counts: how many rows each Parquet file has.
        table: all rows of CSV files that are read whole; None if they are read block by block, too.
        condition: what rows have to satisfy.
        separator: of a CSV file's fields.
    """

    source: Dataset
    opened: tuple[atomic.State | None, ...]
    schema: pa.Schema
    folders: pa.Table
    counts: tuple[int, ...] = ()
    table: pa.Table | None = None
    condition: Condition | None = None
    separator: str = ","

    @property
    def has_types(self) -> bool:
        """Whether the files themselves have types for their columns."""
        return self.table is None

    def types(self, columns: Sequence[str]) -> dict[str, str]:
        """The types that columns are read as, such as `int64` or `string`."""
        return {name: str(self.schema.field(name).type) for name in columns}

    @property
    def n_stored(self) -> int | None:
        """The number of rows that the files store; None where only reading them would tell."""
        if self.table is not None:
            return self.table.num_rows
        return sum(self.counts) if self.counts else None

    @property
    def n_rows(self) -> int | None:
        """The number of rows; None where only reading them block by block would tell."""
        return self.n_stored if self.condition is None or self.table is not None else None

    def check_unchanged(self) -> None:
        """Checks that the files are still those that were opened.

        Raises:
            ValueError: one has been changed, replaced or removed.
        """
        paths = self.source.paths
        for path, now, before in zip(paths, places.each(atomic.state, paths), self.opened, strict=True):
            _check_same(path, now, before)

    def blocks(
        self, columns: Sequence[str], start: int = 0, stop: int | None = None, size: int | None = None
    ) -> Iterator[pa.Table]:
        """Blocks of about `size` rows, with the given columns.

        They are those of rows number `start` to `stop`, as the files store them.

        Raises:
            ValueError: a file is no longer the one that was opened, or cannot be read.
        """
        size, columns = size or _BLOCK, list(columns)
        if self.table is not None:
            table = self.table.select(columns).slice(start, None if stop is None else max(0, stop - start))
            for first in range(0, table.num_rows, size):
                yield table.slice(first, size)
            return
        blocks = self._pieces(columns, start, stop, size)
        is_whole = len(self.source.paths) == 1 and self.condition is None
        yield from blocks if is_whole else _joined(blocks, size)

    def is_empty(self, columns: Sequence[str]) -> bool:
        """Whether there is no row. Where none is counted, the given columns are read up to the first one."""
        if self.n_rows is not None:
            return self.n_rows == 0
        return not any(block.num_rows for block in self._pieces(list(columns), 0, None, _BLOCK))

    def _pieces(self, columns: list[str], start: int, stop: int | None, size: int) -> Iterator[pa.Table]:
        """Blocks of at most `size` rows, of those that satisfy the condition."""
        if self.condition is None:
            yield from self._of_all(columns, start, stop, size)
            return
        expression = filtering.expression(self.condition, self.schema)
        for block in self._of_all(list(dict.fromkeys([*columns, *self.condition.columns])), start, stop, size):
            yield filtering.filtered(block, self.condition, expression).select(columns)

    def _of_all(self, columns: list[str], start: int, stop: int | None, size: int) -> Iterator[pa.Table]:
        """Blocks of one file after another, without row groups in which no row can satisfy the condition."""
        own = [name for name in columns if name not in self.folders.column_names]
        end = sys.maxsize if stop is None else stop
        for number, block in self._of_parquet(own, start, end, size) if self.counts else self._of_csv(own, start, end):
            yield _with_folders(block, self.folders.slice(number, 1), columns)

    def _of_csv(self, columns: list[str], start: int, stop: int) -> Iterator[tuple[int, pa.Table]]:
        """Blocks of CSV files, each with the number of its file; rows before the first one are read, too."""
        texts, first = [] if self.condition is None else self.condition.texts, 0
        for number, path in enumerate(self.source.paths):
            self._check_unchanged(number)
            for block in files.blocks_of_numbers(path, columns, self.separator, texts):
                self._check_unchanged(number)
                if first >= stop:
                    return
                yield number, _between(block, start - first, stop - first)
                first += block.num_rows

    def _of_parquet(self, columns: list[str], start: int, stop: int, size: int) -> Iterator[tuple[int, pa.Table]]:
        """Blocks of Parquet files, each with the number of its file."""
        first = 0
        for number, n_rows in enumerate(self.counts):
            if max(start, first) < min(stop, first + n_rows):
                for block in self._of_one(number, columns, start - first, stop - first, size):
                    yield number, block
            first += n_rows

    def _of_one(self, number: int, columns: list[str], start: int, stop: int, size: int) -> Iterator[pa.Table]:
        path = self.source.paths[number]
        self._check_unchanged(number)
        with files.opened(path) as file:
            n_rows = np.array([file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)])
            ends = np.cumsum(n_rows)
            begins, possible = ends - n_rows, range(file.num_row_groups)
            if self.condition is not None:
                possible = filtering.row_groups(path, file.schema_arrow, self.folders.slice(number, 1), self.condition)
            groups = [i for i in possible if begins[i] < stop and ends[i] > start]
            # Only the first and the last of them can reach beyond these rows.
            skipped = max(0, start - int(begins[groups[0]])) if groups else 0
            wanted = int(np.sum(np.minimum(ends[groups], stop) - np.maximum(begins[groups], start)))
            batches = file.iter_batches(size, row_groups=groups, columns=columns)
            while wanted and (batch := self._unless_changed(number, lambda: next(batches, None))) is not None:
                block = _between(plain(pa.Table.from_batches([batch]).select(columns)), skipped, skipped + wanted)
                skipped, wanted = max(0, skipped - batch.num_rows), wanted - block.num_rows
                if block.num_rows:
                    yield block

    def _unless_changed(self, number: int, read: Callable[[], pa.RecordBatch | None]) -> pa.RecordBatch | None:
        """Reads, and raises if the file is no longer the one that was opened."""
        try:
            return files.translated(self.source.paths[number], read)
        finally:
            # For a changed file, this error says more than Arrow's.
            self._check_unchanged(number)

    def _check_unchanged(self, number: int) -> None:
        path = self.source.paths[number]
        _check_same(path, atomic.state(path), self.opened[number])


def open_rows(
    source: str | Path | Dataset,
    columns: Sequence[str],
    *,
    keys: Sequence[str] = (),
    known: pa.Schema | None = None,
    separator: str = ",",
    are_numbers: bool = False,
    where: str | None = None,
) -> Rows:
    """Opens the rows of a table; only CSV files are read at once, because all of their fields decide the types.

    Args:
        source: the table, or what `jaxgmm.tables.dataset.find` takes.
        columns: those that will be read.
        keys: those of them that are keys of groups.
        known: types of the keys with which these will be compared; see `jaxgmm.tables.files.read_table`.
        separator: of a CSV file's fields.
        are_numbers: whether columns other than keys hold numbers. Then CSV files without keys are read block by block.
        where: a condition, which other rows than those wanted do not satisfy; see `jaxgmm.tables.condition.parsed`.

    Raises:
        OSError: no such file, or it may not be read.
        ValueError: not a table, no rows, a missing column, files of different columns, or no condition.
    """
    source = source if isinstance(source, Dataset) else find(source)
    condition = None if where is None else parsed(where)
    opened = tuple(places.each(atomic.state, source.paths))
    names = source.column_names(separator)
    needed = list(dict.fromkeys(columns))
    if condition is not None:
        condition.check_columns(names, source)
        needed += [name for name in condition.columns if name not in needed]
    files.check_columns(source.paths[0], names, needed, separator)
    folders = files.keyed(source.folders, source.folders.column_names, known)
    own = [name for name in needed if name not in folders.column_names]
    texts, counts, table = condition.texts if condition else [], (), None
    if source.is_parquet:
        schema, counts = _of_parquet(source.paths, own, folders, condition)
    elif are_numbers and not set(keys) & set(own):
        alike.check_headers(source.paths, own, separator)
        schema = pa.schema([(name, pa.string() if name in texts else pa.float64()) for name in own])
    else:
        table = _read_whole(source, needed, folders, [*keys, *texts], separator)
        # Folders have been converted already.
        table = files.keyed(table, [name for name in keys if name in own], known)
        schema = table.schema
    schema = filtering.with_folders(schema, folders.schema)
    if condition is not None:
        # It is refused before anything is read.
        expression = filtering.expression(condition, schema)
        table = table if table is None else filtering.filtered(table, condition, expression)
    rows = Rows(source, opened, schema, folders, counts, table, condition, separator)
    rows.check_unchanged()
    if rows.is_empty(columns):
        if condition is not None:
            raise ValueError(f"no row of {source} satisfies {quoted(condition.text)}; change the condition.")
        raise ValueError(f"{source} is empty; it needs at least one row below its header.")
    return rows


def _of_parquet(
    paths: Sequence[Place], columns: Sequence[str], folders: pa.Table, condition: Condition | None
) -> tuple[pa.Schema, tuple[int, ...]]:
    """The types of columns of Parquet files, and how many rows each has; none where folders rule the condition out."""
    wanted = None
    if condition is not None:
        first, _ = alike.parquet(paths[:1], columns)
        wanted = filtering.possible_files(paths, filtering.with_folders(first, folders.schema), folders, condition)
    return alike.parquet(paths, columns, wanted)


def _read_whole(
    source: Dataset, columns: Sequence[str], folders: pa.Table, texts: Sequence[str], separator: str
) -> pa.Table:
    """The rows of CSV files, some of whose columns remain texts."""
    own = [name for name in columns if name not in folders.column_names]
    alike.check_headers(source.paths, own, separator)
    read = [files.read_csv(path, own, texts, separator) for path in source.paths]
    alike.check_numbers(source.paths, [table.schema for table in read])
    each = [_with_folders(table, folders.slice(number, 1), columns) for number, table in enumerate(read)]
    return pa.concat_tables(each, promote_options="permissive")


def _between(block: pa.Table, start: int, stop: int) -> pa.Table:
    """Those of some rows that a block has. Arrow's `slice` goes beyond the end of a table without columns."""
    begin, end = (min(max(0, row), block.num_rows) for row in (start, stop))
    return block.slice(begin, end - begin)


def _check_same(path: Place, now: atomic.State | None, before: atomic.State | None) -> None:
    if now != before:
        raise ValueError(
            f"{path} was changed, replaced or removed while it was read; begin anew with a file that nothing writes to."
        )


def _with_folders(block: pa.Table, folders: pa.Table, columns: Sequence[str]) -> pa.Table:
    """The columns of a block of one file, of which some are made by its folders."""
    for name in columns:
        if name in folders.column_names:
            block = block.append_column(folders.schema.field(name), pa.repeat(folders[name][0], block.num_rows))
    return block.select(list(columns))


def _joined(blocks: Iterator[pa.Table], size: int) -> Iterator[pa.Table]:
    """The same rows in blocks that are not much smaller."""
    held: list[pa.Table] = []
    for block in blocks:
        held += [block] if block.num_rows else []
        if 2 * sum(own.num_rows for own in held) >= size:
            yield joined(held)
            held = []
    if held:
        yield joined(held)
