"""Data frames of any kind that Narwhals knows, as tables of their named columns."""

from collections.abc import Sequence
from typing import Any

import narwhals as nw
import pyarrow as pa

from jaxgmm.tables.groups import check_named, plain
from jaxgmm.tables.wording import shortened


def selected(df: Any, by: Sequence[str], features: Sequence[str], weights: str | None) -> nw.DataFrame[Any]:
    """The named columns of a frame, wrapped by Narwhals.

    Args:
        df: a pandas or Polars DataFrame, a PyArrow Table, or another eager frame that Narwhals knows.
        by: names of key columns.
        features: names of numeric columns.
        weights: name of a column of weights, which may also be a key or a feature, or None.

    Raises:
        ValueError: not a frame or a lazy one, or columns that are missing or named twice.
    """
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


def arrow(frame: nw.DataFrame[Any]) -> pa.Table:
    """A frame as an Arrow table.

    Raises:
        ValueError: a column holds values of several types, or of one that Arrow lacks.
    """
    try:
        return frame.to_arrow()
    except (pa.ArrowException, TypeError, OverflowError) as error:
        reason = shortened(str(error).partition("\n")[0].rstrip("."))
        raise ValueError(
            f"a column holds values of several types, or of one that Arrow lacks ({reason}); convert it to one type."
        ) from error


def _place(names: list[Any], name: str) -> int:
    """The position of a column; names of other types may not be comparable."""
    return next(i for i, other in enumerate(names) if isinstance(other, str) and other == name)


def _dense(df: Any) -> Any:
    """A pandas frame whose sparse columns, which Arrow does not take, are made dense."""
    sparse = [name for name, dtype in df.dtypes.items() if str(dtype).startswith("Sparse[")]
    return df.assign(**{name: df[name].sparse.to_dense() for name in sparse}) if sparse else df
