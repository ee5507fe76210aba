"""Conversion of results to named arrays, such as `mixture.means` or `table.bic`, and back."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from jaxgmm.fit_result import FitResult
from jaxgmm.mixture import Mixture
from jaxgmm.record import Record, field_names
from jaxgmm.resampling import Bootstrap
from jaxgmm.selection.sweep_result import Sweep
from jaxgmm.soundness import passed_over
from jaxgmm.streams.state import Passage, Stream
from jaxgmm.tables.schema import Column

Result = Mixture | FitResult | Sweep | Bootstrap | Stream


def kind_of(value: Any) -> str:
    """The kind of a result.

    Raises:
        ValueError: not a result.
    """
    for kind in (Mixture, FitResult, Sweep, Bootstrap, Stream):
        if isinstance(value, kind):
            return kind.__name__
    remedy = " Save its .result." if hasattr(value, "result") else ""
    raise ValueError(
        f"a Mixture, FitResult, Sweep, Bootstrap or Stream can be saved; got {type(value).__name__}.{remedy}"
    )


def taken_apart(value: Result) -> tuple[dict[str, np.ndarray], list[Column]]:
    """The arrays of a result, without those that are None, and the columns of its table in order."""
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
    """Rebuilds a result from its arrays; `notes` are those of a sweep.

    Raises:
        ValueError: a number refers to a text that is not listed.
    """

    def mixture(prefix: str) -> Mixture:
        return Mixture(*(arrays[f"{prefix}{name}"] for name in field_names(Mixture)))

    def fit_result(prefix: str) -> FitResult:
        fields: dict[str, Any] = {name: arrays.get(f"{prefix}{name}") for name in field_names(FitResult)}
        fields["snapshots"] = mixture(f"{prefix}snapshots.") if f"{prefix}snapshots.weights" in arrays else None
        fields |= {"mixture": mixture(f"{prefix}mixture."), "efficiency": float(arrays[f"{prefix}efficiency"])}
        fields["seconds"] = float(arrays.get(f"{prefix}seconds", np.nan))
        return _completed(FitResult(**fields))

    if kind == "Mixture":
        return mixture("")
    if kind == "FitResult":
        return fit_result("")
    if kind == "Stream":
        own: dict[str, Any] = {name: arrays.get(name) for name in field_names(Stream)}
        own |= {"mixture": mixture("mixture."), "family": int(own["family"]), "exponent": float(own["exponent"])}
        if "passage.counts" in arrays:
            own["passage"] = Passage(*(arrays[f"passage.{name}"] for name in field_names(Passage)))
        return Stream(**own)
    if kind == "Bootstrap":
        return Bootstrap(mixture("mixture."), arrays["log_likelihood"], arrays["status"])
    table = {column.name: _with_texts(arrays[f"table.{column.name}"], column) for column in columns}
    return Sweep(table, fit_result("best."), tuple(notes))


def _completed(result: FitResult) -> FitResult:
    """Completes a fit from a file of an earlier version: missing fields are derived if possible, else -1 or NaN."""
    if result.gap is None:
        result = replace(result, gap=np.full(np.shape(result.status), np.nan)[()])
    if result.ridge_dominated is not None:
        return result
    gains = result.start_log_likelihood - np.asarray(result.log_likelihood)[..., None]
    return replace(
        result,
        ridge_dominated=np.full_like(result.status, -1)[()],
        # The number of samples is not known; one sample makes the threshold smallest.
        start_passed_over=passed_over(result.start_status, result.start_spurious, gains, 1.0),
        n_samples=np.full(np.shape(result.status), np.nan)[()],
        n_parameters=np.full_like(result.status, -1)[()],
        ridge=np.full((*np.shape(result.status), result.mixture.n_features), np.nan),
    )


def _arrays(value: Any, prefix: str = "") -> dict[str, np.ndarray]:
    arrays = {}
    parts = value if isinstance(value, Mapping) else {name: getattr(value, name) for name in field_names(value)}
    for name, part in parts.items():
        if name == "notes" and isinstance(value, Sweep):
            continue
        if isinstance(part, Mapping | Record):
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
    # NumPy has no text type of length 0.
    return np.array(column.texts, dtype=f"U{max(1, column.length)}")[numbers]
