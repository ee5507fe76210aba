"""Rows that satisfy a condition, and row groups of Parquet files in which no row can.

As in SQL, no comparison with a missing value holds, nor does its opposite. NaN is missing, as it is where features are
read.
"""

import operator
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import reduce
from typing import Any, NamedTuple, NoReturn

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import dataset

from jaxgmm.tables.condition import Column, Comparison, Condition, Joined
from jaxgmm.tables.groups import decoded, plain
from jaxgmm.tables.places import Place, located
from jaxgmm.tables.wording import quoted, shortened

_COMPARED: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class _Kind(NamedTuple):
    """A kind of types whose values can be compared.

    Attributes:
        name: what its values are called.
        example: one of them, as it is written.
        types: tests of types.
        values: types of the values that are written.
    """

    name: str
    example: str
    types: tuple[Callable[[pa.DataType], bool], ...]
    values: tuple[type, ...]


def _has_zone(type_: pa.DataType) -> bool:
    return pa.types.is_timestamp(type_) and type_.tz is not None


_NUMBER = _Kind("a number", "7", (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal), (int, float))
_KINDS = (
    _NUMBER,
    _Kind("a text", "'A01'", (pa.types.is_string, pa.types.is_large_string), (str,)),
    _Kind("a time and its zone", "'2024-01-31T12:00Z'", (_has_zone,), (str,)),
    _Kind("a time", "'2024-01-31'", (pa.types.is_date, pa.types.is_timestamp), (str,)),
    _Kind("true or false", "true", (pa.types.is_boolean,), (bool,)),
)


def expression(condition: Condition, schema: pa.Schema) -> pc.Expression:
    """A condition as Arrow evaluates it.

    Args:
        condition: what rows have to satisfy.
        schema: types of its columns.

    Raises:
        ValueError: a column is compared with something of another kind.
    """
    return _bound(schema, of_statistics=False).expression(condition.tree)


def filtered(table: pa.Table, condition: Condition, as_expression: pc.Expression) -> pa.Table:
    """The rows of a table that satisfy a condition, which is known as an expression too, in their order.

    Raises:
        ValueError: a column holds values that cannot be compared with those of the condition.
    """
    try:
        return table.filter(as_expression)
    except pa.ArrowException as error:
        raise ValueError(
            f"the condition {quoted(condition.text)} cannot be evaluated ({shortened(str(error))}); "
            "compare columns with values of their types."
        ) from error


def with_folders(schema: pa.Schema, folders: pa.Schema) -> pa.Schema:
    """The columns of a table whose files have these columns, except for those that folders make."""
    for field in folders:
        place = schema.get_field_index(field.name)
        schema = schema.append(field) if place < 0 else schema.set(place, field)
    return schema


def possible_files(paths: Sequence[Place], schema: pa.Schema, folders: pa.Table, condition: Condition) -> list[bool]:
    """For each Parquet file, whether its folders allow that a row satisfies a condition. No file is opened.

    Args:
        paths: the files.
        schema: the columns of the table.
        folders: the values of columns that folders make; a row for each file.
        condition: what rows have to satisfy.
    """
    if not folders.num_columns:
        return [True] * len(paths)
    fragments = [_fragment(path, folders.slice(number, 1)) for number, path in enumerate(paths)]
    form, (system, _) = dataset.ParquetFileFormat(), located(paths[0])
    every = dataset.FileSystemDataset(fragments, schema, form, system)
    found = {fragment.path for fragment in every.get_fragments(expression(condition, schema))}
    return [fragment.path in found for fragment in fragments]


def row_groups(path: Place, schema: pa.Schema, folders: pa.Table, condition: Condition) -> list[int]:
    """The numbers of those row groups of a Parquet file whose statistics allow that a row satisfies a condition.

    Args:
        path: the file.
        schema: its columns.
        folders: one row: the values of columns that its folders make.
        condition: what rows have to satisfy.
    """
    own = [schema.field(name) for name in condition.columns if name not in folders.column_names]
    schema = with_folders(pa.schema(own), folders.schema)
    possible, fragment = _bound(schema, of_statistics=True).expression(condition.tree), _fragment(path, folders)
    # Integers beyond the reach of floats are refused where rows are compared.
    with suppress(pa.ArrowException):
        fragment = fragment.subset(possible, schema=schema)
    return [group.id for group in fragment.row_groups]


def _fragment(path: Place, folders: pa.Table) -> dataset.Fragment:
    """A Parquet file, and what is known of all of its rows."""
    known = [pc.field(name) == folders[name][0] for name in folders.column_names if folders[name][0].is_valid]
    known += [pc.field(name).is_null() for name in folders.column_names if not folders[name][0].is_valid]
    of_rows = reduce(operator.and_, known) if known else None
    system, own = located(path)
    return dataset.ParquetFileFormat().make_fragment(own, system, partition_expression=of_rows)


class _Bound(NamedTuple):
    """Turns comparisons into expressions.

    Attributes:
        schema: types of the columns.
        types: those of the values that these stand for.
        of_statistics: whether they are compared with extremes and counts of nulls, which do not tell of NaN.
    """

    schema: pa.Schema
    types: dict[str, pa.DataType]
    of_statistics: bool

    def expression(self, tree: Comparison | Joined) -> pc.Expression:
        if isinstance(tree, Joined):
            return _joined(
                operator.and_ if tree.are_all else operator.or_, [self.expression(own) for own in tree.parts]
            )
        if tree.sign in ("in", "not in"):
            return self.among(*tree)
        return self.missing(tree.left, tree.sign) if tree.right is None else self.compared(*tree)

    def compared(self, left: Any, sign: str, right: Any) -> pc.Expression:
        columns = [own for own in (left, right) if isinstance(own, Column)]
        if len({self.kind(own) for own in columns}) == 2:
            self.refuse(left, f"column {right.name!r}, which holds {self.type(right)}")
        operands = [
            self.field(own) if isinstance(own, Column) else self.value(own, columns[0]) for own in (left, right)
        ]
        found = _COMPARED[sign](*operands)
        # NaN is unequal to everything, even to itself.
        return reduce(operator.and_, map(self.is_there, columns), found) if sign == "<>" else found

    def among(self, column: Column, sign: str, values: list[Any]) -> pc.Expression:
        field, known = self.field(column), [self.value(own, column) for own in values]
        if len({own.type for own in known} | {self.type(column)}) > 1:
            field, known = field.cast(pa.float64()), [own.cast(pa.float64()) for own in known]
        listed = pa.array(known)
        if pa.types.is_floating(listed.type):
            # Arrow finds 0 and -0 unequal here, and equal where values are compared.
            zeros = [0.0, -0.0] if 0 in listed.to_pylist() else []
            listed = pa.concat_arrays([listed, pa.array(zeros, listed.type)])
        found = field.isin(listed)
        return found if sign == "in" else ~found & self.is_there(column)

    def is_there(self, column: Column) -> pc.Expression:
        """Whether a value is not NaN, nor null."""
        return self.field(column) == self.field(column)

    def missing(self, column: Column, sign: str) -> pc.Expression:
        may_be_nan = pa.types.is_floating(self.type(column))
        if sign == "is" and may_be_nan and self.of_statistics:
            return pc.scalar(True)
        found = pc.field(column.name).is_null(nan_is_null=may_be_nan)
        return found if sign == "is" else ~found

    def type(self, column: Column) -> pa.DataType:
        return self.types[column.name]

    def kind(self, column: Column) -> _Kind | None:
        type_ = self.type(column)
        return next((kind for kind in _KINDS if any(is_kind(type_) for is_kind in kind.types)), None)

    def field(self, column: Column) -> pc.Expression:
        type_, field = self.type(column), pc.field(column.name)
        if pa.types.is_decimal(type_) or pa.types.is_float16(type_):
            return field.cast(pa.float64())
        return field if type_ == self.schema.field(column.name).type else field.cast(type_)

    def value(self, value: Any, column: Column) -> pa.Scalar:
        kind, type_ = self.kind(column), self.type(column)
        # True is an int.
        if kind is None or not isinstance(value, kind.values) or (isinstance(value, bool) and kind is _NUMBER):
            self.refuse(column, quoted(value))
        if kind is _NUMBER and not (isinstance(value, int) and pa.types.is_integer(type_)):
            return pa.scalar(float(value))
        try:
            return pa.scalar(value, type_) if kind is _NUMBER else pa.scalar(value).cast(type_)
        except (pa.ArrowInvalid, OverflowError):
            if kind is _NUMBER:
                return pa.scalar(float(value))
            self.refuse(column, quoted(value))

    def refuse(self, column: Column, other: str) -> NoReturn:
        kind, said = self.kind(column), f"column {column.name!r} holds {self.type(column)}"
        if kind is None:
            raise ValueError(f"{said}, which cannot be compared; leave it out of the condition.")
        raise ValueError(f"{said}, and is compared with {other}; compare it with {kind.name}, such as {kind.example}.")


def _bound(schema: pa.Schema, *, of_statistics: bool) -> _Bound:
    table = plain(schema.empty_table())
    return _Bound(schema, {name: decoded(table[name]).type for name in table.column_names}, of_statistics)


def _joined(join: Callable[[Any, Any], Any], found: list[pc.Expression]) -> pc.Expression:
    """Expressions joined by halves: Arrow's stack has no room for many levels."""
    half = len(found) // 2
    return join(_joined(join, found[:half]), _joined(join, found[half:])) if half else found[0]
