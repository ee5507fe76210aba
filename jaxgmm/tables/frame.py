"""Data frames of any kind that Narwhals knows, as tables of their named columns."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import narwhals as nw
import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from jaxgmm.tables.groups import Groups, check_named, checked_weights, numbers, plain, stable_order
from jaxgmm.tables.keys import group_of
from jaxgmm.tables.wording import shortened


class Samples(NamedTuple):
    """The samples of a frame, and the known groups that they belong to.

    Attributes:
        group: `(M,)`, the number of each row's group; -1 where it has none.
        samples: `(M, D)`, the features.
        weights: `(M,)`, the sample weights, or None.
    """

    group: Int[np.ndarray, " m"]
    samples: Float[np.ndarray, "m d"]
    weights: Float[np.ndarray, " m"] | None

    def by_group(self, keys: pa.Table) -> Groups:
        """The samples group after group, given a row of keys for each; rows of no group are left out."""
        n_samples = np.bincount(self.group[self.group >= 0], minlength=keys.num_rows)
        order = stable_order(np.where(self.group < 0, keys.num_rows, self.group))[: np.sum(n_samples)]
        return Groups(
            keys=keys,
            samples=self.samples[order],
            weights=None if self.weights is None else self.weights[order],
            offsets=np.concatenate([[0], np.cumsum(n_samples)]),
            rows=order,
        )


def read(
    df: Any, keys: pa.Table, features: Sequence[str], weights: str | None, rows: Int[np.ndarray, " m"] | None = None
) -> Samples:
    """Reads the samples of a frame, and finds the group of each.

    Args:
        df: a frame.
        keys: a row for each of B groups.
        features: the columns that hold samples; missing values become NaN.
        weights: the column of sample weights, or None.
        rows: numbers of the rows to read; all if None.

    Raises:
        ValueError: columns that are missing or of the wrong type, or negative weights.
    """
    by = keys.column_names
    table = arrow(selected(df, by, list(features), weights, rows))
    group = group_of(table.select(by), keys, "the frame", has_types=True)
    samples = np.stack([numbers(table[name], name) for name in features], axis=1)
    return Samples(group, samples, None if weights is None else checked_weights(table[weights], weights))


def selected(
    df: Any,
    by: Sequence[str],
    features: Sequence[str],
    weights: str | None,
    rows: Int[np.ndarray, " m"] | None = None,
) -> nw.DataFrame[Any]:
    """The named columns of a frame, wrapped by Narwhals.

    Args:
        df: a pandas or Polars DataFrame, a PyArrow Table, or another eager frame that Narwhals knows.
        by: names of key columns.
        features: names of numeric columns.
        weights: name of a column of weights, which may also be a key or a feature, or None.
        rows: numbers of the rows to select; all if None.

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
        _check_not_in_index(df, needed)
        check_named(names, by, features, weights)
        # Rows first, as pandas copies the columns that it selects.
        df, rows = (df if rows is None else df.iloc[rows]), None
        df = _dense(df.iloc[:, [_place(names, name) for name in needed]])
    frame = nw.from_native(df, pass_through=True)
    if isinstance(frame, nw.LazyFrame):
        raise ValueError(f"df is a lazy frame, {type(df).__name__}; collect it first.")
    if not isinstance(frame, nw.DataFrame):
        raise ValueError(f"df must be a pandas or Polars DataFrame or a PyArrow Table; got {type(df).__name__}.")
    check_named(frame.columns, by, features, weights)
    frame = frame.select(nw.col(needed))
    return frame if rows is None else frame[rows, :]


def arrow(frame: nw.DataFrame[Any]) -> pa.Table:
    """A frame as an Arrow table.

    Raises:
        ValueError: a column holds values of several types, or of one that Arrow lacks.
    """
    try:
        return frame.to_arrow()
    except (pa.ArrowException, TypeError, OverflowError) as error:
        # pandas makes one error of two texts, of which the second names the column.
        text = "; ".join(map(str, error.args))
        reason = shortened(text.partition("\n")[0].rstrip("."))
        raise ValueError(
            f"a column holds values of several types, or of one that Arrow lacks ({reason}); convert it to one type."
        ) from error


def _check_not_in_index(df: Any, needed: Sequence[str]) -> None:
    """Raises ValueError if a pandas frame has a wanted column only as a level of its index."""
    columns, levels = ([name for name in names if isinstance(name, str)] for names in (df.columns, df.index.names))
    for name in needed:
        if name in levels and name not in columns:
            raise ValueError(f"{name!r} is in the index of the frame, not a column; pass df.reset_index().")


def _place(names: list[Any], name: str) -> int:
    """The position of a column; names of other types may not be comparable."""
    return next(i for i, other in enumerate(names) if isinstance(other, str) and other == name)


def _dense(df: Any) -> Any:
    """A pandas frame whose sparse columns, which Arrow does not take, are made dense."""
    sparse = [name for name, dtype in df.dtypes.items() if str(dtype).startswith("Sparse[")]
    return df.assign(**{name: df[name].sparse.to_dense() for name in sparse}) if sparse else df
