"""What a result consists of: the arrays of mixtures, fits, sweeps and bootstraps, their axes and types.

A result is taken apart into arrays by name, such as `mixture.means` or `table.bic`, and put together again. Texts, of
which a sweep's table has two columns, become numbers of a list of texts.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxgmm.fitting import FitResult
from jaxgmm.mixture import Mixture
from jaxgmm.resampling import Bootstrap
from jaxgmm.selection.sweeping import Sweep
from jaxgmm.soundness import is_sound

Result = Mixture | FitResult | Sweep | Bootstrap
KINDS = {kind.__name__: kind for kind in (Mixture, FitResult, Sweep, Bootstrap)}

# Texts take up more room in memory than their numbers in a file, and how much is a number of its header. So that a
# damaged file does not ask for much, they may take this many bytes at any rate, or for each byte of the arrays.
_TEXTS_AT_LEAST, _TEXTS_PER_BYTE = 2**20, 16


class Field(NamedTuple):
    """An array of a result.

    Attributes:
        axes: a letter for each axis after the batch axes; None where there are no axes, nor batch axes.
        holds: `"f"`, floating-point numbers, `"i"`, integers, or `"b"`, truth values.
    """

    axes: str | None
    holds: str


class Column(NamedTuple):
    """A column of a sweep's table.

    Attributes:
        name: what it is called.
        texts: what its numbers stand for; None for a column of numbers.
        length: characters that NumPy keeps room for in each text.
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
    "n_iter": Field("", "i"),
    "status": Field("", "i"),
    "spurious": Field("", "i"),
    "ridge_dominated": Field("", "i"),
    "start_passed_over": Field("", "b"),
    "ridge": Field("D", "f"),
    "start_log_likelihood": Field("R", "f"),
    "start_status": Field("R", "i"),
    "start_spurious": Field("R", "i"),
    "history": Field("T", "f"),
    "efficiency": Field(None, "f"),
    **_within("snapshots", _MIXTURE, "S"),
}
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
}
_OPTIONAL = ("history", "snapshots")
# What files of the first format do not hold.
_SINCE_FORMAT_2 = ("ridge_dominated", "start_passed_over", "ridge")


def kind_of(value: Any) -> str:
    """The kind of a result.

    Raises:
        ValueError: it is none.
    """
    for name, kind in KINDS.items():
        if isinstance(value, kind):
            return name
    raise ValueError(f"a Mixture, FitResult, Sweep or Bootstrap can be saved; got {type(value).__name__}.")


def taken_apart(value: Result) -> tuple[dict[str, np.ndarray], list[Column]]:
    """The arrays of a result, those that are None left out, and the columns of its table in their order."""
    arrays, columns = _arrays(value), []
    for name in [name for name in arrays if name.startswith("table.")]:
        column = Column(name.removeprefix("table."))
        if arrays[name].dtype.kind == "U":
            texts, numbers = np.unique(arrays[name], return_inverse=True)
            column = column._replace(texts=texts.tolist(), length=arrays[name].dtype.itemsize // 4)
            arrays[name] = numbers.astype(np.int32)
        columns.append(column)
    return arrays, columns


def put_together(kind: str, arrays: Mapping[str, Any], columns: Sequence[Column], notes: Sequence[str] = ()) -> Result:
    """The result that was taken apart; `notes` are a sweep's.

    Raises:
        ValueError: a number of a text that is not listed.
    """

    def mixture(prefix: str) -> Mixture:
        return Mixture(*(arrays[f"{prefix}{name}"] for name in Mixture._fields))

    def fit_result(prefix: str) -> FitResult:
        fields: dict[str, Any] = {name: arrays.get(f"{prefix}{name}") for name in FitResult._fields}
        fields["snapshots"] = mixture(f"{prefix}snapshots.") if f"{prefix}snapshots.weights" in arrays else None
        fields |= {"mixture": mixture(f"{prefix}mixture."), "efficiency": float(arrays[f"{prefix}efficiency"])}
        return _completed(FitResult(**fields))

    if kind == "Mixture":
        return mixture("")
    if kind == "FitResult":
        return fit_result("")
    if kind == "Bootstrap":
        return Bootstrap(mixture("mixture."), arrays["log_likelihood"], arrays["status"])
    table = {column.name: _with_texts(arrays[f"table.{column.name}"], column) for column in columns}
    return Sweep(table, fit_result("best."), tuple(notes))


def _completed(result: FitResult) -> FitResult:
    """A fit from a file of the first format: what that does not say is -1 or NaN, and what follows from it is there."""
    if result.ridge_dominated is not None:
        return result
    gains = result.start_log_likelihood - np.asarray(result.log_likelihood)[..., None]
    unsound = ~is_sound(result.start_status, result.start_spurious)
    return result._replace(
        ridge_dominated=np.full_like(result.status, -1)[()],
        start_passed_over=np.any(unsound & (gains > 0), axis=-1),
        ridge=np.full((*np.shape(result.status), result.mixture.n_features), np.nan),
    )


def fault(
    kind: str,
    found: Mapping[str, tuple[tuple[int, ...], np.dtype]],
    columns: Sequence[Column],
    *,
    is_of_format_1: bool = False,
) -> str | None:
    """What is wrong with a result's arrays, given their shapes and types; None where nothing is."""
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
        # Variances have an axis less than covariances.
        if name.endswith("covariances") and len(shape) == len(leading) + len(own) - 1:
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


def _arrays(value: Any, prefix: str = "") -> dict[str, np.ndarray]:
    arrays = {}
    for name, part in value.items() if isinstance(value, Mapping) else value._asdict().items():
        if name == "notes" and isinstance(value, Sweep):
            continue
        if isinstance(part, Mapping) or hasattr(part, "_asdict"):
            arrays |= _arrays(part, f"{prefix}{name}.")
        elif part is not None:
            array = np.asarray(part, order="C")
            arrays[f"{prefix}{name}"] = array.astype(array.dtype.newbyteorder("="), copy=False)
    return arrays


def _with_texts(numbers: np.ndarray, column: Column) -> np.ndarray:
    if column.texts is None:
        return numbers
    if np.any((numbers < 0) | (numbers >= len(column.texts))):
        raise ValueError(f"table.{column.name} refers to a text that is not there")
    # NumPy has no text of length 0.
    return np.array(column.texts, dtype=f"U{max(1, column.length)}")[numbers]


def _part(name: str) -> str:
    """The field of a fit that an array belongs to."""
    return name.removeprefix("best.").partition(".")[0]
