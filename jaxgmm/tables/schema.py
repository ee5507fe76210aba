"""The schema of results: the arrays of mixtures, fits, sweeps, bootstraps and streams, with their axes and types.

Texts, of which a sweep's table has two columns, are stored as indices into a list. Nothing here needs JAX, so that a
file can be described without it; `jaxgmm.tables.results` converts results to arrays and back.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

# Texts take more room in memory than their indices in a file, and the header says how much. To limit what a damaged
# file can request, they may take the larger of this many bytes in all, and this many for each byte of the arrays.
_TEXTS_AT_LEAST, _TEXTS_PER_BYTE = 2**20, 16


class Field(NamedTuple):
    """An array of a result.

    Attributes:
        axes: a letter for each axis after the batch axes; None for a scalar without batch axes.
        holds: `"f"`, floating-point numbers, `"i"`, integers, or `"b"`, booleans.
    """

    axes: str | None
    holds: str


class Column(NamedTuple):
    """A column of a sweep's table.

    Attributes:
        name: its name.
        texts: the texts that its numbers index; None for a column of numbers.
        length: number of characters of NumPy's type for the texts.
    """

    name: str
    texts: list[str] | None = None
    length: int = 0


def _within(name: str, fields: Mapping[str, Field], axes: str = "") -> dict[str, Field]:
    """The fields of a part, which has further axes."""
    return {
        f"{name}.{own}": Field(None if field.axes is None else axes + field.axes, field.holds)
        for own, field in fields.items()
    }


_MIXTURE = {"weights": Field("K", "f"), "means": Field("KD", "f"), "covariances": Field("KDD", "f")}
_FIT = {
    **_within("mixture", _MIXTURE),
    "log_likelihood": Field("", "f"),
    "gap": Field("", "f"),
    "n_iter": Field("", "i"),
    "status": Field("", "i"),
    "spurious": Field("", "i"),
    "ridge_dominated": Field("", "i"),
    "start_passed_over": Field("", "b"),
    "n_samples": Field("", "f"),
    "n_parameters": Field("", "i"),
    "ridge": Field("D", "f"),
    "start_log_likelihood": Field("R", "f"),
    "start_status": Field("R", "i"),
    "start_spurious": Field("R", "i"),
    "history": Field("T", "f"),
    "efficiency": Field(None, "f"),
    **_within("snapshots", _MIXTURE, "S"),
    "seconds": Field(None, "f"),
}
_STATISTICS = {"counts": Field("K", "f"), "first": Field("KD", "f"), "second": Field("KDD", "f")}
# The first array of each says which batch axes there are.
_FIELDS = {
    "Mixture": _MIXTURE,
    "FitResult": _FIT,
    "Sweep": _within("best", _FIT),
    "Bootstrap": {
        **_within("mixture", _MIXTURE, "R"),
        "log_likelihood": Field("R", "f"),
        "status": Field("R", "i"),
    },
    "Stream": {
        **_within("mixture", _MIXTURE),
        "status": Field("", "i"),
        "log_likelihood": Field("", "f"),
        "gap": Field("", "f"),
        **{name: Field("", "f") for name in ("n_samples", "unit")},
        **{name: Field("", "i") for name in ("n_rows", "n_batches", "n_refused")},
        **_STATISTICS,
        "shift": Field("D", "f"),
        "scale": Field("DD", "f"),
        "ridge": Field("DD", "f"),
        "family": Field(None, "i"),
        "exponent": Field(None, "f"),
        **{f"passage.{name}": Field(None, "i") for name in ("n_passes", "n_rows")},
        **{f"passage.{name}": Field(None, "f") for name in ("n_samples", "log_likelihood", "last_log_likelihood")},
        **_within("passage", _STATISTICS),
        **_within("passage", {f"last_{name}": field for name, field in _STATISTICS.items()}),
    },
}
# Arrays of one axis less where components are axis-aligned.
_MATRICES = ("covariances", "second", "last_second", "scale", "ridge")
# Fits and streams may come without the first three, and files may be older than the others.
_OPTIONAL = ("history", "snapshots", "passage", "gap", "seconds")
# Fields that files of the first format lack.
_SINCE_FORMAT_2 = ("ridge_dominated", "start_passed_over", "n_samples", "n_parameters", "ridge")

# The kinds of results.
KINDS = tuple(_FIELDS)


def fault(
    kind: str,
    found: Mapping[str, tuple[tuple[int, ...], np.dtype]],
    columns: Sequence[Column],
    *,
    is_of_format_1: bool = False,
) -> str | None:
    """What is wrong with a result's arrays, given their shapes and types; None if nothing is."""
    expected, table = _FIELDS[kind], {f"table.{column.name}": column for column in columns}
    optional = (*_OPTIONAL, *_SINCE_FORMAT_2) if is_of_format_1 else _OPTIONAL
    absent = [part for part in optional if not any(_part(name) == part for name in found)]
    missing = [name for name in (*expected, *table) if name not in found and _part(name) not in absent]
    unknown = [name for name in found if name not in expected and name not in table]
    if missing:
        return f"it lacks {missing[0]}"
    if unknown:
        return f"it has {unknown[0]}, which is unknown"
    return _fault_of_fields(kind, found) or (_fault_of_table(table, found) if kind == "Sweep" else None)


def _fault_of_fields(kind: str, found: Mapping[str, tuple[tuple[int, ...], np.dtype]]) -> str | None:
    expected = {name: field for name, field in _FIELDS[kind].items() if name in found}
    first = next(iter(expected))
    shape = found[first][0]
    batch = shape[: len(shape) - len(expected[first].axes or "")]
    if len(batch) > 1 and kind != "Mixture":
        return f"{first} has shape {shape}"
    sizes: dict[str, int] = {}
    for name, (axes, holds) in expected.items():
        shape, dtype = found[name]
        leading, own = ((), "") if axes is None else (batch, axes)
        if own.endswith("DD") and name.rpartition(".")[2] in _MATRICES and len(shape) == len(leading) + len(own) - 1:
            own = own[:-1]
        n_own = len(shape) - len(leading)
        sized = n_own == len(own) and all(
            sizes.setdefault(axis, n) == n for axis, n in zip(own, shape[len(leading) :], strict=True)
        )
        if not sized or shape[: len(leading)] != leading:
            return f"{name} has shape {shape}"
        if dtype.kind not in {"f": "f", "i": "iu", "b": "b"}[holds]:
            return f"{name} holds {dtype}"
    return None


def _fault_of_table(table: Mapping[str, Column], found: Mapping[str, tuple[tuple[int, ...], np.dtype]]) -> str | None:
    if "table.chosen" not in table or found["table.chosen"][1].kind != "b":
        return "its table does not say what was chosen"
    for name, column in table.items():
        shape, dtype = found[name]
        if len(shape) != 1 or shape != found["table.chosen"][0]:
            return f"{name} has shape {shape}"
        if dtype.kind not in "biuf" or (column.texts is not None and dtype != np.int32):
            return f"{name} holds {dtype}"
        longest = max(map(len, column.texts or ()), default=0)
        if column.texts is not None and longest > column.length:
            return f"{name} holds texts of {longest} characters, not of {column.length}"
    return _fault_of_texts(table, found)


def _fault_of_texts(table: Mapping[str, Column], found: Mapping[str, tuple[tuple[int, ...], np.dtype]]) -> str | None:
    of_text = {name: column for name, column in table.items() if column.texts is not None}
    n_texts = {name: found[name][0][0] + len(column.texts or ()) for name, column in of_text.items()}
    n_bytes = sum(4 * n_texts[name] * max(1, column.length) for name, column in of_text.items())
    in_file = sum(math.prod(shape) * dtype.itemsize for shape, dtype in found.values())
    if n_bytes > max(_TEXTS_AT_LEAST, _TEXTS_PER_BYTE * in_file):
        longest = max(column.length for column in of_text.values())
        return f"its table holds texts of {longest} characters, which is far more than it has numbers for"
    return None


def _part(name: str) -> str:
    """The field of a fit that an array belongs to."""
    return name.removeprefix("best.").partition(".")[0]
