"""Frames of any kind as Arrow columns, and Arrow columns as frames of a kind."""

from collections.abc import Iterable
from typing import Any

import narwhals as nw
import numpy as np
import pyarrow as pa

from jaxgmm.tables.groups import check_named, plain
from jaxgmm.tables.wording import quoted, shortened


def named(df: Any, by: list[str], features: list[str], weights: str | None) -> nw.DataFrame[Any]:
    """The named columns of a frame, wrapped by Narwhals.

    Raises:
        ValueError: not a frame or a lazy one, or columns that are missing or named twice.
    """
    # Weights may also be a key or a feature.
    needed = [*by, *features] if weights is None or weights in (*by, *features) else [*by, *features, weights]
    # Narwhals refuses a frame with two columns of one name, even if neither is needed.
    if nw.dependencies.is_pyarrow_table(df):
        check_named(df.column_names, by, features, weights)
        df = plain(df.select(needed))
    elif nw.dependencies.is_pandas_like_dataframe(df):
        names = list(df.columns)
        check_named(names, by, features, weights)
        df = _dense(df.iloc[:, [_place(names, name) for name in needed]])
    frame = nw.from_native(df, pass_through=True)
    if isinstance(frame, nw.LazyFrame):
        raise ValueError(f"df is a lazy frame, {type(df).__name__}; collect it first.")
    if not isinstance(frame, nw.DataFrame):
        raise ValueError(f"df must be a pandas or Polars DataFrame or a PyArrow Table; got {type(df).__name__}.")
    check_named(frame.columns, by, features, weights)
    return frame.select(nw.col(needed))


def _place(names: list[Any], name: str) -> int:
    """The position of a column; names of other types may not be comparable."""
    return next(i for i, other in enumerate(names) if isinstance(other, str) and other == name)


def _dense(df: Any) -> Any:
    """A pandas frame whose sparse columns, which Arrow does not take, are made dense."""
    sparse = [name for name, dtype in df.dtypes.items() if str(dtype).startswith("Sparse[")]
    return df.assign(**{name: df[name].sparse.to_dense() for name in sparse}) if sparse else df


def arrow(frame: nw.DataFrame[Any]) -> pa.Table:
    """A frame as an Arrow table.

    Raises:
        ValueError: a column of several types.
    """
    try:
        return frame.to_arrow()
    except (pa.ArrowException, TypeError, OverflowError) as error:
        reason = shortened(str(error).partition("\n")[0].rstrip("."))
        raise ValueError(
            f"a column holds values of several types, or of one that Arrow lacks ({reason}); convert it to one type."
        ) from error


def names_in(role: str, given: Any) -> list[str]:
    """One name or several, as a list.

    Raises:
        ValueError: anything else.
    """
    names = [given] if isinstance(given, str) or not isinstance(given, Iterable) else list(given)
    if not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"{role} must be the name of a column, or a sequence of names; got {quoted(given)}. "
            "Rename columns whose names are not strings."
        )
    return names


def native(keys: nw.DataFrame[Any], table: pa.Table) -> Any:
    """A table as the kind of frame of the keys, with its first column, row numbers of keys, replaced by the keys."""
    rows, columns = table.column(0).to_numpy(), table.remove_column(0)
    values = nw.from_arrow(columns, backend=keys.implementation)
    return nw.concat([nw.maybe_reset_index(keys[rows, :]), values], how="horizontal").to_native()


def with_columns(df: Any, columns: dict[str, np.ndarray]) -> Any:
    """A frame with further columns. Floats that are NaN, and integers below 0, are null; in pandas, floats are NaN.

    pandas frames keep their index, and get integers of the nullable kind.
    """
    if nw.dependencies.is_pandas_like_dataframe(df):
        # pandas itself makes the columns of frames that behave like its own.
        import pandas as pd  # noqa: PLC0415 (optional)

        own = {
            name: values if values.dtype.kind == "f" else pd.arrays.IntegerArray(np.maximum(values, 0), values < 0)
            for name, values in columns.items()
        }
        return df.assign(**own)
    made = {name: _nullable(values) for name, values in columns.items()}
    if nw.dependencies.is_pyarrow_table(df):
        for name, values in made.items():
            df = df.append_column(name, values)
        return df
    frame = nw.from_native(df, eager_only=True)
    extra = nw.from_arrow(pa.table(made), backend=frame.implementation)
    return nw.concat([frame, extra], how="horizontal").to_native()


def _nullable(values: np.ndarray) -> pa.Array:
    return pa.array(values, from_pandas=True) if values.dtype.kind == "f" else pa.array(values, mask=values < 0)


def column_names(df: Any) -> list[Any]:
    """The names of a frame's columns, of any type."""
    return list(df.column_names if nw.dependencies.is_pyarrow_table(df) else df.columns)
