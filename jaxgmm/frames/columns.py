"""Frames of any kind as Arrow columns, and Arrow columns as frames of a kind."""

from typing import Any

import narwhals as nw
import numpy as np
import pyarrow as pa


def native(keys: nw.DataFrame[Any], table: pa.Table) -> Any:
    """A table as the kind of frame of the keys, with its first column, row numbers of keys, replaced by the keys."""
    rows, columns = table.column(0).to_numpy(), table.remove_column(0)
    values = nw.from_arrow(columns, backend=keys.implementation)
    frame = nw.concat([nw.maybe_reset_index(keys[rows, :]), values], how="horizontal").to_native()
    nullable = _of_nullable_kinds(columns) if nw.dependencies.is_pandas_like_dataframe(frame) else {}
    return frame.assign(**nullable) if nullable else frame


def _of_nullable_kinds(table: pa.Table) -> dict[str, Any]:
    """Arrays of pandas for integers and flags with nulls, which would become floats and objects."""
    # pandas itself makes the columns of frames that behave like its own.
    import pandas as pd  # noqa: PLC0415 (optional)

    kinds = {pa.bool_(): pd.BooleanDtype(), pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype()}
    columns = zip(table.column_names, table.columns, strict=True)
    with_nulls = [name for name, column in columns if column.null_count and column.type in kinds]
    made = table.select(with_nulls).to_pandas(types_mapper=kinds.get)
    return {name: made[name].array for name in with_nulls}


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
