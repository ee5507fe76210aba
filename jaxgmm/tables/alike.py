"""Whether the files of a table have the same columns."""

from collections.abc import Sequence

import pyarrow as pa

from jaxgmm.tables import files
from jaxgmm.tables.groups import plain
from jaxgmm.tables.places import Place, each

# The types that columns of numbers may be read as from CSV files. Where files differ in these, joining promotes them.
_NUMBERS = (pa.null(), pa.int64(), pa.float64())


def parquet(
    paths: Sequence[Place], columns: Sequence[str], wanted: Sequence[bool] | None = None
) -> tuple[pa.Schema, tuple[int, ...]]:
    """The types of some columns of Parquet files, and how many rows each file has.

    Args:
        paths: the files.
        columns: names of the columns.
        wanted: which files are read, or None for all. Of others, only the first is opened, and none has rows.

    Raises:
        ValueError: a file lacks a column, or holds it in another type.
    """
    expected, counts = pa.schema([]), [0] * len(paths)
    is_wanted = [True] * len(paths) if wanted is None else wanted
    opened = [number for number in range(len(paths)) if is_wanted[number] or not number]
    footers = each(_footer, [paths[number] for number in opened])
    for number, (schema, n_rows) in zip(opened, footers, strict=True):
        path = paths[number]
        _check_names(paths[0], path, schema.names, columns)
        own = pa.schema([schema.field(name) for name in columns])
        counts[number] = n_rows if is_wanted[number] else 0
        if not number:
            expected = own
        _check_types(paths[0], expected, path, own)
    return plain(expected.remove_metadata().empty_table()).schema, tuple(counts)


def _footer(path: Place) -> tuple[pa.Schema, int]:
    """The columns of a Parquet file, and how many rows it has."""
    with files.opened(path) as file:
        return file.schema_arrow, file.metadata.num_rows


def check_headers(paths: Sequence[Place], columns: Sequence[str], separator: str) -> None:
    """Raises ValueError if a CSV file other than the first lacks a column."""
    for path in paths[1:]:
        _check_names(paths[0], path, files.column_names(path, separator), columns, separator)


def check_numbers(paths: Sequence[Place], schemas: Sequence[pa.Schema]) -> None:
    """Raises ValueError if a column of CSV files holds numbers in some of them, and something else in others."""
    for path, schema in zip(paths, schemas, strict=True):
        _check_types(paths[0], schemas[0], path, schema, _NUMBERS)


def _check_names(first: Place, path: Place, names: Sequence[str], columns: Sequence[str], separator: str = ",") -> None:
    for name in columns:
        if name not in names:
            raise ValueError(f"{path} has no column {name!r}, which {first} has; name files of the same columns.")
    files.check_columns(path, names, columns, separator)


def _check_types(
    first: Place, expected: pa.Schema, path: Place, schema: pa.Schema, one_kind: Sequence[pa.DataType] = ()
) -> None:
    for field, own in zip(expected, schema, strict=True):
        if field.type != own.type and not {field.type, own.type} <= set(one_kind):
            raise ValueError(
                f"column {own.name!r} holds {field.type} in {first}, and {own.type} in {path}; convert one of them."
            )
