"""Results: frozen records of arrays that say in a few lines what they hold.

A record is a dataclass and a pytree of its fields, in their order. It is neither a tuple nor a sequence: fields have
names, `len(result)` is the number of data sets, and `result.of(b)` is what was found for some of them.
`dataclasses.replace(result, …)` makes another with other fields.
"""

import dataclasses
import html
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self, SupportsInt, TypeVar, dataclass_transform

import jax
import numpy as np
from jax.core import Tracer

from jaxgmm.status import Status

Type = TypeVar("Type", bound=type)

# Lines that are printed of a result, and rows of a block that may have many.
_MOST_LINES = 15
_MOST_ROWS = 6
# Characters of a line of a note.
_LONGEST_NOTE = 76
# Between these, six digits are no tenths, and tenths can be told apart.
_LARGE, _HUGE = 1e5, 1e15
# What describing a record may raise where tracers, shapes, axes or anything else stand in place of its arrays.
_INDESCRIBABLE = (AttributeError, IndexError, TypeError, ValueError)


class Block(NamedTuple):
    """Lines of a description.

    Attributes:
        rows: texts by row.
        names: of the columns, if they need names.
        is_kept: whether to print all of it, and to cut other blocks where there is no room for both.
    """

    rows: Sequence[Sequence[str]]
    names: Sequence[str] = ()
    is_kept: bool = False


class Record:
    """What all results have: how many data sets they are of, and how they print.

    A subclass defines `_batch`, its shape along data sets, and `_described`. Arrays and lists have the batch axis
    first; a scalar belongs to all data sets.
    """

    @property
    def _batch(self) -> tuple[int, ...]:
        raise NotImplementedError

    def _described(self) -> tuple[str, list[Block]]:
        """A title and what stands under it."""
        raise NotImplementedError

    def of(self, index: Any) -> Self:
        """The results of one data set, given its number, or of several: a slice, a mask or an array of integers.

        Raises:
            ValueError: this is of one data set already, or the index is none of these.
            IndexError: there is no such data set.
        """
        rows = self._rows(index)

        def part(value: Any) -> Any:
            if not isinstance(value, list):
                return value[rows] if np.ndim(value) else value
            chosen = np.arange(len(value))[rows]
            return value[chosen] if chosen.ndim == 0 else [value[i] for i in chosen]

        return jax.tree.map(part, self, is_leaf=lambda value: isinstance(value, list))

    def _rows(self, index: Any) -> Any:
        """An index of data sets as `of` takes it, checked."""
        if not self._batch:
            raise ValueError(f"this {type(self).__name__} is of one data set: it has no batch axis, and no others.")
        return checked_index(index, self._batch[0])

    def __len__(self) -> int:
        """The number of data sets."""
        if not self._batch:
            raise TypeError(f"this {type(self).__name__} is of one data set: it has no batch axis, and no length.")
        return self._batch[0]

    def __bool__(self) -> bool:
        """True, whatever the number of data sets."""
        return True

    def __repr__(self) -> str:
        try:
            title, blocks = self._described()
        except _INDESCRIBABLE:
            fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in field_names(self))
            return f"{type(self).__name__}({fields})"
        lines = [(title, True), *((line, block.is_kept) for block in blocks for line in _lines(block))]
        return "\n".join(_cut(lines))

    def _repr_html_(self) -> str:
        """For notebooks."""
        try:
            title, blocks = self._described()
        except _INDESCRIBABLE:
            return f"<pre>{html.escape(repr(self))}</pre>"
        return f"<div><b>{html.escape(title)}</b>{''.join(map(_table, blocks))}</div>"


def of_the_call(*, default: Any) -> Any:
    """A field about the call that made a record, not about data sets: parts and pytrees have its default instead."""
    return dataclasses.field(default=default, metadata={"in_pytrees": "drop_fields"})


def of_all(*, default: Any) -> Any:
    """A field that is no array and holds for all data sets: parts have it, too, and pytrees as part of their kind."""
    return dataclasses.field(default=default, metadata={"in_pytrees": "meta_fields"})


@dataclass_transform(frozen_default=True, eq_default=False, field_specifiers=(of_the_call, of_all))
def record(cls: Type) -> Type:
    """Makes a class a frozen dataclass and a pytree of its fields. Two records are equal if they are the same one."""
    made = dataclasses.dataclass(frozen=True, eq=False, repr=False)(cls)
    roles: dict[str, list[str]] = {"data_fields": [], "meta_fields": [], "drop_fields": []}
    for field in dataclasses.fields(made):
        roles[field.metadata.get("in_pytrees", "data_fields")].append(field.name)
    return jax.tree_util.register_dataclass(made, **roles)


def field_names(of: Any) -> tuple[str, ...]:
    """The names of the fields of a record, or of its type, in their order."""
    return tuple(field.name for field in dataclasses.fields(of))


def span(values: Any, spec: str = "") -> str:
    """The range of some numbers, those that are not finite left out."""
    known = np.asarray(values)[np.isfinite(values)]
    if not known.size:
        return "none"
    # Six digits, but tenths of what is large.
    bounds = (np.min(known), np.max(known))
    low, high = (format(bound, spec or (",.1f" if _LARGE <= abs(bound) < _HUGE else ",.6g")) for bound in bounds)
    return low if low == high else f"{low} to {high}"


def counted(n: SupportsInt, noun: str) -> str:
    """`3 data sets`, `1 data set`."""
    n = int(n)
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def status_names(codes: Any) -> np.ndarray:
    """Names of statuses, such as `"CONVERGED"`, from their codes."""
    return np.array([status.name for status in Status])[np.asarray(codes)]


def statuses(codes: Any, noun: str) -> Block:
    """How many ended in which way."""
    found, counts = np.unique(codes, return_counts=True)
    rows = [[Status(code).name, counted(n, noun)] for code, n in zip(found, counts, strict=True)]
    return Block(rows, is_kept=True)


def shown(rows: Iterable[Sequence[str]], names: Sequence[str] = ()) -> Block:
    """A block of the first rows, and of a last one that says how many more there are."""
    rows = list(rows)
    if len(rows) > _MOST_ROWS:
        left = len(rows) - (_MOST_ROWS - 1)
        rows = [*rows[: _MOST_ROWS - 1], [f"and {left:,} more", *[""] * (len(rows[0]) - 1)]]
    return Block(rows, names)


def written(notes: Iterable[str], *, is_kept: bool = False) -> Block:
    """A block of sentences, in lines that fit a terminal."""
    lines = [line for note in notes for line in textwrap.wrap(note, _LONGEST_NOTE, subsequent_indent="  ")]
    return Block([[line] for line in lines], is_kept=is_kept)


def checked_index(index: Any, n: int) -> Any:
    """The index of one of n rows, or of several: a slice, a mask, or an array of integers."""
    if isinstance(index, slice | Tracer):
        return index
    rows = np.asarray(index)
    rows = rows.astype(int) if rows.size == 0 and not isinstance(index, np.ndarray) else rows
    is_mask = rows.dtype == bool and rows.shape == (n,)
    if not is_mask and (not np.issubdtype(rows.dtype, np.integer) or rows.ndim > 1):
        raise ValueError(
            f"an index of data sets must be an integer, a slice, a mask of {n}, or a 1-D array of integers; got "
            f"{type(index).__name__} of shape {rows.shape}."
        )
    if not is_mask and np.any((rows < -n) | (rows >= n)):
        raise IndexError(f"there are {n} data sets, numbered from 0; got {index!r}.")
    return int(rows) if rows.ndim == 0 else rows


def check_some(n_groups: int) -> None:
    """Raises ValueError if there is no group."""
    if n_groups == 0:
        raise ValueError("these fits are of no group; select at least one, as found.of([0]).")


def rows_within(counts: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The rows of some groups in a table that has the rows of one group after those of another, `counts` of each."""
    lengths = counts[chosen]
    first = (np.cumsum(counts) - counts)[chosen] - (np.cumsum(lengths) - lengths)
    return np.repeat(first, lengths) + np.arange(np.sum(lengths))


def _cut(lines: Sequence[tuple[str, bool]]) -> list[str]:
    """At most so many lines, each with whether it is kept; of the others, those in the middle are left out."""
    if len(lines) <= _MOST_LINES:
        return [line for line, _ in lines]
    kept = [i for i, (_, is_kept) in enumerate(lines) if is_kept][: _MOST_LINES - 1]
    others = [i for i, (_, is_kept) in enumerate(lines) if not is_kept]
    # The last two lines are of notes.
    n_first, n_last = max(0, _MOST_LINES - 3 - len(kept)), min(2, _MOST_LINES - 1 - len(kept))
    first, last = others[:n_first], others[len(others) - n_last :]
    left_out = next(i for i in range(len(lines)) if i not in {*kept, *first, *last})
    return ["  …" if i == left_out else lines[i][0] for i in sorted({*kept, *first, *last, left_out})]


def _lines(block: Block) -> list[str]:
    rows = _even([block.names, *block.rows] if block.names else block.rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _table(block: Block) -> str:
    def line(texts: Sequence[str], cell: str) -> str:
        style = "text-align:left;padding:1px 1em 1px 0"
        cells = "".join(f'<{cell} style="{style}">{html.escape(text)}</{cell}>' for text in texts)
        return f"<tr>{cells}</tr>"

    head = f"<thead>{line(block.names, 'th')}</thead>" if block.names else ""
    return f"<table>{head}<tbody>{''.join(line(row, 'td') for row in _even(block.rows))}</tbody></table>"


def _even(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Rows of one length: the shorter ones end in empty texts."""
    longest = max(map(len, rows), default=0)
    return [[*row, *[""] * (longest - len(row))] for row in rows]
