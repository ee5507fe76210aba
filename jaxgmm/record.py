"""Results: frozen records of arrays that say in a few lines what they hold.

A record is a dataclass and a pytree of its fields, in their order. It is neither a tuple nor a sequence: fields have
names, `len(result)` is the number of data sets, and `result.of(b)` is what was found for some of them.
`dataclasses.replace(result, …)` makes another with other fields.
"""

import dataclasses
import html
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


class Block(NamedTuple):
    """Lines of a description.

    Attributes:
        rows: texts by row.
        names: of the columns, if they need names.
    """

    rows: Sequence[Sequence[str]]
    names: Sequence[str] = ()


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
            ValueError: this is of one data set already.
        """
        if not self._batch:
            raise ValueError(f"this {type(self).__name__} is of one data set: it has no batch axis, and no others.")

        def part(value: Any) -> Any:
            if not isinstance(value, list):
                return value[index] if np.ndim(value) else value
            chosen = np.arange(len(value))[index]
            return value[chosen] if chosen.ndim == 0 else [value[i] for i in chosen]

        return jax.tree.map(part, self, is_leaf=lambda value: isinstance(value, list))

    def __len__(self) -> int:
        """The number of data sets."""
        if not self._batch:
            raise TypeError(f"this {type(self).__name__} is of one data set: it has no batch axis, and no length.")
        return self._batch[0]

    def __bool__(self) -> bool:
        """True, whatever the number of data sets."""
        return True

    def __repr__(self) -> str:
        if not holds_arrays(self):
            fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in names_of(self))
            return f"{type(self).__name__}({fields})"
        title, blocks = self._described()
        lines = [title, *(line for block in blocks for line in _lines(block))]
        return "\n".join(lines if len(lines) <= _MOST_LINES else [*lines[: _MOST_LINES - 1], "  …"])

    def _repr_html_(self) -> str:
        """For notebooks."""
        if not holds_arrays(self):
            return f"<pre>{html.escape(repr(self))}</pre>"
        title, blocks = self._described()
        return f"<div><b>{html.escape(title)}</b>{''.join(map(_table, blocks))}</div>"


@dataclass_transform(frozen_default=True, eq_default=False)
def record(cls: Type) -> Type:
    """Makes a class a frozen dataclass and a pytree of its fields. Two records are equal if they are the same one."""
    return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True, eq=False, repr=False)(cls))


def names_of(of: Any) -> tuple[str, ...]:
    """The names of the fields of a record, or of its type, in their order."""
    return tuple(field.name for field in dataclasses.fields(of))


def holds_arrays(value: Any) -> bool:
    """Whether all leaves of a pytree have values: none is a tracer, or what JAX puts in place of an array."""
    in_place = Tracer | jax.ShapeDtypeStruct
    leaves = jax.tree.leaves(value)
    return all(isinstance(leaf, str | float) or hasattr(leaf, "shape") for leaf in leaves) and not any(
        isinstance(leaf, in_place) for leaf in leaves
    )


def span(values: Any, spec: str = ",.6g") -> str:
    """The range of some numbers, those that are NaN left out."""
    known = np.asarray(values)[np.isfinite(values)]
    if not known.size:
        return "none"
    low, high = (format(bound, spec) for bound in (np.min(known), np.max(known)))
    return low if low == high else f"{low} to {high}"


def counted(n: SupportsInt, noun: str) -> str:
    """`3 data sets`, `1 data set`."""
    n = int(n)
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def statuses(codes: Any, noun: str) -> Block:
    """How many ended in which way."""
    found, counts = np.unique(codes, return_counts=True)
    return Block([[Status(code).name, counted(n, noun)] for code, n in zip(found, counts, strict=True)])


def shown(rows: Iterable[Sequence[str]], names: Sequence[str] = ()) -> Block:
    """A block of the first rows, and of a last one that says how many more there are."""
    rows = list(rows)
    if len(rows) > _MOST_ROWS:
        left = len(rows) - (_MOST_ROWS - 1)
        rows = [*rows[: _MOST_ROWS - 1], [f"and {left:,} more", *[""] * (len(rows[0]) - 1)]]
    return Block(rows, names)


def _lines(block: Block) -> list[str]:
    rows = _even([block.names, *block.rows] if block.names else block.rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _table(block: Block) -> str:
    def line(texts: Sequence[str], cell: str) -> str:
        cells = "".join(f'<{cell} style="text-align:left">{html.escape(text)}</{cell}>' for text in texts)
        return f"<tr>{cells}</tr>"

    head = f"<thead>{line(block.names, 'th')}</thead>" if block.names else ""
    return f"<table>{head}<tbody>{''.join(line(row, 'td') for row in _even(block.rows))}</tbody></table>"


def _even(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Rows of one length: the shorter ones end in empty texts."""
    longest = max(map(len, rows), default=0)
    return [[*row, *[""] * (longest - len(row))] for row in rows]
