"""Tables in files: reading the needed columns, and writing complete tables or none.

Every error names the file and the remedy in one line, and is a `ValueError` or an `OSError`.
"""

import bz2
import gzip
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from jaxgmm.tables import atomic, places, wording
from jaxgmm.tables.groups import plain
from jaxgmm.tables.keys import typed
from jaxgmm.tables.places import Place, Remote
from jaxgmm.tables.wording import listed, quoted, shortened

Read = TypeVar("Read")

_PARQUET = (".parquet", ".pq")
_TAB_SEPARATED = (".tsv", ".tsv.gz", ".tsv.bz2")
_CSV = (".csv", ".csv.gz", ".csv.bz2", *_TAB_SEPARATED, ".txt", ".txt.gz", ".txt.bz2")
KINDS = _PARQUET + _CSV
# Bytes of each column that are read from a Parquet file at a time: of a remote one more, as each request takes long.
_BUFFER, _REMOTE_BUFFER = 2**18, 2**22
# Bytes of a CSV file that are read at a time, where it is not read whole.
_CSV_BLOCK = 2**24
_NOT_A_NUMBER = re.compile(r"CSV column #(\d+): .*conversion error to double: invalid value '(.*)'")
# Separators that a CSV file is likely to have, and names of those that are hard to type.
_SEPARATORS = (",", ";", "|", "\t")
_NAMED = {"tab": "\t", "\\t": "\t"}


def column_names(path: str | Place, separator: str = ",") -> list[str]:
    """The names of a file's columns, in order; its rows are not read.

    Args:
        path: a Parquet file (`.parquet`, `.pq`) or a CSV file with a header (`.csv`, `.tsv`, `.txt`, or one of these
            and `.gz` or `.bz2`), by its path, or by a place that `jaxgmm.tables.places.place` makes of a URI.
        separator: of a CSV file's fields: a character, or `tab`. In a `.tsv` file, a comma stands for `tab`.

    Raises:
        OSError: no such file, or it may not be read.
        ValueError: not a table of either kind, an empty file, or an invalid separator.
    """
    path = _readable(path)
    form = _form(path, separator)
    if is_parquet(path):
        system, own = places.located(path)
        return list(translated(path, lambda: pq.read_schema(own, filesystem=system).names))

    def header() -> list[str]:
        with csv.open_csv(places.stream(path), parse_options=form) as reader:
            return reader.schema.names

    return translated(path, header, separator)


def read_table(
    path: str | Place,
    columns: Sequence[str],
    *,
    keys: Sequence[str] = (),
    known: pa.Schema | None = None,
    separator: str = ",",
) -> pa.Table:
    """Reads some columns of a Parquet or CSV file.

    In a CSV file, the types of columns other than keys are inferred; an empty field, or one such as `NA` or `NaN`, is
    null in a column of numbers. Keys are texts, or of the type in which all of them are written: see
    `jaxgmm.tables.keys.typed`. Columns of a Parquet file have types.

    Args:
        path: see `column_names`.
        columns: the columns wanted, in the order wanted.
        keys: those of them that are keys of groups.
        known: types of the fitted keys with which these will be compared, as far as they are; a column is read as its
            type if all its values can be.
        separator: see `column_names`.

    Returns:
        the table; it may have no rows.

    Raises:
        OSError: no such file, or it may not be read.
        ValueError: not a table, an empty file, or a column that is missing or occurs twice.
    """
    path, columns = _readable(path), list(columns)
    check_columns(path, column_names(path, separator), columns, separator)
    if is_parquet(path):
        return _read_parquet(path, columns)
    return keyed(read_csv(path, columns, keys, separator), keys, known)


def read_csv(path: Place, columns: Sequence[str], texts: Sequence[str], separator: str) -> pa.Table:
    """Reads some columns of a CSV file, some of these as texts."""
    own = [name for name in columns if name in texts]
    # Arrow would take no columns for all.
    wanted = list(columns) or column_names(path, separator)[:1]
    convert = csv.ConvertOptions(include_columns=wanted, column_types=dict.fromkeys(own, pa.string()))
    form = _form(path, separator)
    table = translated(
        path, lambda: csv.read_csv(places.stream(path), parse_options=form, convert_options=convert), separator
    )
    return table.select(list(columns))


def keyed(table: pa.Table, keys: Sequence[str], known: pa.Schema | None = None) -> pa.Table:
    """A table whose keys, so far texts, are of the types in which they are written; see `read_table`."""
    for name in keys:
        if name in table.column_names:
            column = typed(table[name], known.field(name).type if known is not None and name in known.names else None)
            table = table.set_column(table.column_names.index(name), name, column)
    return table


def blocks_of_numbers(
    path: Place, columns: Sequence[str], separator: str, texts: Sequence[str] = ()
) -> Iterator[pa.Table]:
    """Columns of numbers of a CSV file, or of texts, block by block; only one block is held in memory.

    Without columns, blocks have only their numbers of rows.

    Raises:
        ValueError: the file cannot be read as CSV, or a column holds something else than numbers.
    """
    names = column_names(path, separator)
    # Arrow would take no columns for all. As texts, values of any column can be read.
    types = {name: pa.string() if name in texts else pa.float64() for name in columns} or {names[0]: pa.string()}
    convert = csv.ConvertOptions(include_columns=list(types), column_types=types)
    reading = csv.ReadOptions(block_size=_CSV_BLOCK)

    def read(step: Callable[[], Read]) -> Read:
        try:
            return translated(path, step, separator)
        except ValueError as error:
            if found := _NOT_A_NUMBER.search(str(error.__cause__)):
                column, value = names[int(found[1])], quoted(found[2])
                raise ValueError(
                    f"column {column!r} holds text, not numbers, such as {value}; convert it, or leave it out."
                ) from error
            raise

    with read(lambda: csv.open_csv(places.stream(path), reading, _form(path, separator), convert)) as reader:
        batches = iter(reader)
        while (batch := read(lambda: next(batches, None))) is not None:
            if batch.num_rows:
                yield pa.Table.from_batches([batch]).select(list(columns))


def opened(path: Place) -> pq.ParquetFile:
    """Opens a Parquet file for reading in pieces; only these pieces are held in memory. The caller closes it."""
    # By default Arrow fetches everything in advance, and without a buffer it reads whole columns of a row group.
    system, own = places.located(path)
    options = {"pre_buffer": False, "buffer_size": _REMOTE_BUFFER if isinstance(path, Remote) else _BUFFER}
    return translated(path, lambda: pq.ParquetFile(own, filesystem=system, **options))


def check_absent(directory: str | Path, names: Sequence[str], suffix: str = ".parquet") -> None:
    """Checks, before the work that fills them, that tables of these names can be written into a directory.

    Raises:
        OSError: one of them exists already, the directory is a file, or it may not be written to.
    """
    directory = Path(directory)
    existing = [file for file in (directory / f"{name}{suffix}" for name in names) if os.path.lexists(file)]
    if existing:
        raise FileExistsError(f"{existing[0]} exists already; remove it, or name another directory.")
    nearest = _existing_ancestor(directory)
    if not nearest.is_dir():
        raise NotADirectoryError(f"{nearest} is a file, not a directory; name another directory for the output.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(f"{nearest} may not be written to; name another directory for the output.")


@contextmanager
def written(path: str | Path, schema: pa.Schema, *, separator: str = ",") -> Iterator[pq.ParquetWriter | csv.CSVWriter]:
    """Opens a file for writing in pieces. It gets its name when it is complete; otherwise nothing is left.

    Numbers in CSV files have all their digits, null is an empty field, and texts are quoted.

    Args:
        path: the file, of a kind that can be read; an existing one is replaced.
        schema: its columns.
        separator: of a CSV file's fields.

    Raises:
        OSError: the disk refuses.
        ValueError: an invalid separator.
    """
    path = Path(path)
    with atomic.written(path) as file:
        if is_parquet(path):
            with pq.ParquetWriter(file, schema) as writer:
                yield writer
            return
        form = csv.WriteOptions(delimiter=_form(path, separator).delimiter)
        with _compressing(file, path) as stream, csv.CSVWriter(stream, schema, write_options=form) as writer:
            yield writer


def _compressing(file: BinaryIO, path: Path) -> AbstractContextManager[Any]:
    """A stream that compresses what is written to a file as its name says."""
    if path.suffix.lower() == ".gz":
        # Without the time, so that equal tables are equal files.
        return gzip.GzipFile("", "wb", fileobj=file, mtime=0)
    return bz2.BZ2File(file, "wb") if path.suffix.lower() == ".bz2" else nullcontext(file)


def copy_as_csv(path: Path, separator: str) -> Path:
    """Copies a Parquet file to a CSV file beside it, and returns the path of that.

    Raises:
        OSError: the disk refuses.
    """
    copied = path.with_suffix(".csv")
    with opened(path) as file, written(copied, file.schema_arrow, separator=separator) as writer:
        for batch in file.iter_batches():
            writer.write_table(pa.Table.from_batches([batch]))
    return copied


def _readable(path: str | Place) -> Place:
    path = atomic.readable(Path(path) if isinstance(path, str) else path, "one Parquet or CSV file")
    check_kind(path)
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; it needs a header and at least one row.")
    return path


def check_kind(path: Place) -> None:
    """Raises ValueError unless a file has a suffix of Parquet or CSV files."""
    if not path.name.lower().endswith(KINDS):
        raise ValueError(f"{path} is of no known kind; name a file that ends in {', '.join(KINDS)}.")


def is_parquet(path: Place) -> bool:
    """Whether a file has a suffix of Parquet files."""
    return path.name.lower().endswith(_PARQUET)


def _read_parquet(path: Place, columns: Sequence[str]) -> pa.Table:
    # `pq.read_table` would also read columns out of a path whose folders are called `name=value`.
    with opened(path) as file:
        return plain(translated(path, lambda: file.read(list(columns)).select(list(columns))))


def translated(path: Place, read: Callable[[], Read], separator: str = ",") -> Read:
    """What `read` returns; Arrow's errors become one line that names the file."""
    try:
        return read()
    except (pa.ArrowException, ValueError, OSError) as error:
        kind, remedy = ("Parquet", "check or repair the file.") if is_parquet(path) else _remedy(path, error, separator)
        reason = shortened(str(error).strip().partition("\n")[0].rstrip("."))
        raise ValueError(f"{path} cannot be read as {kind} ({reason}); {remedy}") from error


def check_columns(path: Place, names: Sequence[str], columns: Sequence[str], separator: str = ",") -> None:
    """Raises ValueError unless a file, whose columns are `names`, has each of the wanted columns exactly once."""
    for column in columns:
        if column not in names:
            remedy = wording.remedy(column, names, f"its columns are {listed(names)}.")
            if not is_parquet(path) and (other := _probable_separator(path, separator)):
                remedy = _separated(path, other)
            # Folders above the place that was named are no columns.
            if folder := next((own.name for own in path.parents if own.name.startswith(f"{column}=")), None):
                remedy = f"name the directory above {folder}, and select this folder by a condition."
            raise ValueError(f"{path} has no column {column!r}; {remedy}")
        if names.count(column) > 1:
            raise ValueError(f"{path} has {names.count(column)} columns called {column!r}; rename all but one.")


def _form(path: Place, separator: str) -> csv.ParseOptions:
    """The format of a CSV file."""
    is_default = separator == "," and path.name.lower().endswith(_TAB_SEPARATED)
    character = "\t" if is_default else _NAMED.get(separator, separator)
    if len(character) != 1 or not character.isascii() or character in '"\r\n':
        raise ValueError(f"the separator must be one character such as ';', or tab; got {quoted(separator)}.")
    # A quoted field may hold a line break; by default Arrow would cut the file there.
    return csv.ParseOptions(delimiter=character, newlines_in_values=True)


def _remedy(path: Place, error: Exception, separator: str) -> tuple[str, str]:
    """The expected kind of a file that Arrow could not read, and the remedy."""
    if "UTF8" in str(error):
        return "CSV", "save it in UTF-8."
    if other := _probable_separator(path, separator):
        return "CSV", _separated(path, other)
    return "CSV", "check or repair the file."


def _probable_separator(path: Place, separator: str) -> str | None:
    """The apparent separator of a CSV file's header, or None if it is the one given."""
    try:
        with places.stream(path) as stream:
            header = stream.read(_BUFFER).decode(errors="replace").partition("\n")[0]
    except (pa.ArrowException, OSError):
        return None
    # Separators within quotes do not count.
    outside, said = re.sub('"[^"]*"', "", header), _form(path, separator).delimiter
    best = max((said, *_SEPARATORS), key=outside.count)
    return None if best == said else best


def _separated(path: Place, character: str) -> str:
    """The remedy for a header that has another separator."""
    if character == "," and path.name.lower().endswith(_TAB_SEPARATED):
        return "its header seems to be separated by ','; rename the file, so that it ends in .csv."
    name = "tab" if character == "\t" else character
    option = name if name == "tab" else f"'{name}'"
    return f"its header seems to be separated by {name!r}; give that as the separator (--separator {option})."


def _existing_ancestor(path: Path) -> Path:
    """The path itself if it exists, or the nearest directory above it that does."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if os.path.lexists(place))
