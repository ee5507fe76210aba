"""Conditions on the columns of a table, such as `plate = 7 and well in ('A01', 'A02')`, as they are written.

Columns are compared with values, or with other columns, by `=`, `<>` (or `!=`), `<`, `<=`, `>` and `>=`, with lists of
values by `in` and `not in`, and by `is null` and `is not null`. Comparisons are joined by `and`, `or`, `not` and
parentheses.
`jaxgmm.tables.filtering` applies a condition to rows.
"""

import ast
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

from jaxgmm.tables.wording import listed, quoted, remedy

_EXAMPLE = "plate = 7 and well in ('A01', 'A02')"

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<text>'(?:[^']|'')*') |
    (?P<quoted>"(?:[^"]|"")+"|`[^`]+`) |
    (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?!\w) |
    (?P<word>[^\W\d]\w*) |
    (?P<mark><>|<=|>=|!=|==|[=<>(),])
    )""",
    re.VERBOSE,
)
# Words and marks that Python writes otherwise, or that are no names.
_PYTHON = {word: word for word in ("and", "or", "not", "in", "is")} | {"=": "==", "<>": "!="}
_VALUES = {"null": None, "true": True, "false": False}
_SIGNS: dict[type[ast.cmpop], str] = {
    ast.Eq: "=",
    ast.NotEq: "<>",
    ast.Lt: "<",
    ast.GtE: ">=",
    ast.Gt: ">",
    ast.LtE: "<=",
    ast.In: "in",
    ast.NotIn: "not in",
    ast.Is: "is",
    ast.IsNot: "is not",
}
_OPPOSITE = {"=": "<>", "<": ">=", ">": "<=", "in": "not in", "is": "is not"}
_OPPOSITE |= {other: own for own, other in _OPPOSITE.items()}


class Column(NamedTuple):
    """A column, by its name."""

    name: str


class Comparison(NamedTuple):
    """A comparison of a column.

    Attributes:
        left: a column, or a value.
        sign: `=`, `<>`, `<`, `<=`, `>`, `>=`, `in`, `not in`, `is` or `is not`.
        right: a column, or a value: a text, a number, True or False; for `in`, a list of values; for `is`, None.
    """

    left: Any
    sign: str
    right: Any

    @property
    def operands(self) -> list[Any]:
        """Its columns and values."""
        return [self.left, *(self.right if isinstance(self.right, list) else [self.right])]


class Joined(NamedTuple):
    """Comparisons of which all, or any, have to hold. None is negated: `not` has been moved to their signs."""

    are_all: bool
    parts: "list[Comparison | Joined]"


class Condition(NamedTuple):
    """A condition on the rows of a table.

    Attributes:
        text: as it was written.
        tree: its comparisons.
    """

    text: str
    tree: Comparison | Joined

    @property
    def columns(self) -> list[str]:
        """The columns that are compared, each once."""
        return _names(comparison for comparison in _leaves(self.tree))

    @property
    def texts(self) -> list[str]:
        """The columns that are compared with texts, each once."""
        return _names(own for own in _leaves(self.tree) if any(isinstance(value, str) for value in own.operands))

    def check_columns(self, names: Sequence[str], table: object) -> None:
        """Raises ValueError unless a table, whose columns are `names`, has those of the condition."""
        for column in self.columns:
            if column not in names:
                otherwise = f"its columns are {listed(names)}, and texts are in single quotes."
                raise ValueError(
                    f"{table} has no column {column!r}, which the condition names; {remedy(column, names, otherwise)}"
                )


def parsed(text: str) -> Condition:
    """Reads a condition.

    Args:
        text: such as `plate = 7`. Texts are in single quotes; names with other characters than letters, digits and `_`
            are in double quotes or backticks; words such as `and` may be in upper case.

    Returns:
        the condition, which may be on columns that a table does not have.

    Raises:
        ValueError: it is not a valid condition.

    Example:
        >>> from jaxgmm.tables.condition import parsed
        >>> parsed("plate = 7 and not well in ('A01', 'A02')").columns
        ['plate', 'well']
    """
    if not isinstance(text, str):
        _refuse(text, "it is not a text")
    text, python, operands, position = text.strip(), [], [], 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            rest = quoted(text[position:].strip())
            hint = 'a name with other characters than letters, digits and _ is in double quotes, such as "FITC-A"'
            _refuse(text, f"{rest} is neither a name, a value nor a comparison; {hint}")
        position, kind = token.end(), str(token.lastgroup)
        said = token[kind]
        if kind in ("word", "mark") and said.lower() in _PYTHON:
            python.append(_PYTHON[said.lower()])
        elif kind == "mark":
            python.append(said)
        else:
            # Python knows names and values by their numbers, so that no text can be mistaken for a program.
            python.append(f"_{len(operands)}")
            operands.append(_operand(kind, said))
    try:
        tree = ast.parse(" ".join(python), mode="eval").body
        return Condition(text, _Reader(text, operands).read(tree, is_negated=False))
    except (SyntaxError, RecursionError, MemoryError):
        _refuse(text, "it does not consist of comparisons joined by and, or, not and parentheses")


def _operand(kind: str, said: str) -> Any:
    """A column or a value."""
    if kind == "text":
        return said[1:-1].replace("''", "'")
    if kind == "number":
        # Arrow has no longer integers.
        return int(said) if said.lstrip("+-").isdecimal() and abs(float(said)) < 2**64 else float(said)
    if kind == "quoted":
        return Column(said[1:-1].replace('""', '"'))
    return _VALUES[said.lower()] if said.lower() in _VALUES else Column(said)


class _Reader(NamedTuple):
    """Turns what Python has parsed into comparisons of operands."""

    text: str
    operands: list[Any]

    def read(self, node: ast.expr, *, is_negated: bool) -> Comparison | Joined:
        match node:
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return self.read(operand, is_negated=not is_negated)
            case ast.BoolOp(op=op, values=values):
                parts = [self.read(own, is_negated=is_negated) for own in values]
                return Joined(isinstance(op, ast.And) != is_negated, parts)
            case ast.Compare(left=left, ops=signs, comparators=others):
                # A chain such as 0 < red < 5.
                pairs = zip([left, *others[:-1]], signs, others, strict=True)
                found: list[Comparison | Joined] = [self.compared(*pair, is_negated=is_negated) for pair in pairs]
                return Joined(not is_negated, found) if len(found) > 1 else found[0]
        _refuse(self.text, "it contains something other than comparisons of columns")

    def compared(self, left: ast.expr, sign: ast.cmpop, right: ast.expr, *, is_negated: bool) -> Comparison:
        is_list = isinstance(sign, ast.In | ast.NotIn)
        elements = right.elts if isinstance(right, ast.Tuple) and is_list else [right]
        if not elements or not all(isinstance(own, ast.Name) for own in [left, *elements]):
            _refuse(self.text, "a column is compared with a value, a column, or a list of values in parentheses")
        first, *others = (self.operands[int(own.id[1:])] for own in [left, *elements] if isinstance(own, ast.Name))
        is_column = [isinstance(own, Column) for own in (first, *others)]
        if not any(is_column) or (is_list and is_column != [True] + [False] * len(others)):
            _refuse(self.text, f"no column is compared with {quoted(first)}" if not is_list else "lists have values")
        if isinstance(sign, ast.Is | ast.IsNot) != (others == [None]) or first is None or (is_list and None in others):
            _refuse(self.text, "a missing value is written 'is null', and any other without 'is'")
        said = _SIGNS[type(sign)]
        return Comparison(first, _OPPOSITE[said] if is_negated else said, others if is_list else others[0])


def _leaves(tree: Comparison | Joined) -> Iterator[Comparison]:
    """All comparisons."""
    if isinstance(tree, Comparison):
        yield tree
        return
    for part in tree.parts:
        yield from _leaves(part)


def _names(comparisons: Iterator[Comparison]) -> list[str]:
    return list(dict.fromkeys(own.name for one in comparisons for own in one.operands if isinstance(own, Column)))


def _refuse(text: Any, reason: str) -> NoReturn:
    raise ValueError(f'{quoted(text)} is not a valid condition: {reason}; write one such as "{_EXAMPLE}".')
