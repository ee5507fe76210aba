"""group(): the rows of a table as data sets, one for every group.

Groups are sorted by key, column after column, nulls last; within a group, rows keep their order. Rows whose key is null
form a group of their own. Without key columns, all rows are one group. No step here loops over rows or groups in
Python.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float, Int
from pyarrow import csv

from jaxgmm.tables.wording import listed, quoted

_VIEWS = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}


class Groups(NamedTuple):
    """The rows of a table, group after group.

    Attributes:
        keys: one row for each of B groups, the columns grouped by.
        samples: `(M, D)`, the features of all rows; NaN where the table holds null.
        weights: `(M,)`, the samples' weights, or None.
        offsets: `(B + 1,)`; group `b` is samples `offsets[b]` to `offsets[b + 1]`.
        rows: `(M,)`, the row of the table that each sample comes from; `(0,)` where samples keep the order of the rows.
    """

    keys: pa.Table
    samples: Float[np.ndarray, "m d"]
    weights: Float[np.ndarray, " m"] | None
    offsets: Int[np.ndarray, " boundaries"]
    rows: Int[np.ndarray, " m"]

    @property
    def n_samples(self) -> Int[np.ndarray, " b"]:
        """`(B,)`, the size of every group."""
        return np.diff(self.offsets)

    @property
    def n_unusable(self) -> Int[np.ndarray, " b"]:
        """`(B,)`, how many samples of every group hold NaN or infinity; see `unusable`."""
        before = np.concatenate([[0], np.cumsum(unusable(self.samples, self.weights))])
        return np.diff(before[self.offsets])

    def constant(self, b: int) -> Bool[np.ndarray, " d"]:
        """Which features have one value in a group; see `extremes`."""
        own = slice(*self.offsets[b : b + 2])
        least, most = extremes(self.samples[own], None if self.weights is None else self.weights[own])
        return least == most

    @property
    def x(self) -> list[np.ndarray]:
        """The groups' samples, `(N_b, D)` each, as `jaxgmm.fit` takes them: views, not copies."""
        return _by_group(self.samples, self.offsets)

    @property
    def sample_weight(self) -> list[np.ndarray] | None:
        """The groups' weights, `(N_b,)` each, as `jaxgmm.fit` takes them, or None."""
        return None if self.weights is None else _by_group(self.weights, self.offsets)


def group(table: pa.Table, by: Sequence[str], features: Sequence[str], weights: str | None = None) -> Groups:
    """Groups the rows of a table.

    Args:
        table: with the columns named below; others are ignored.
        by: the columns that make a group's key: texts, numbers, dates or booleans; none if all rows are one group.
        features: the numeric columns to fit. Nulls become NaN, for which `jaxgmm.fit` returns a status.
        weights: a column of sample weights, not negative.

    Returns:
        the groups, sorted by key.

    Raises:
        ValueError: no rows, a column named twice, one that is missing or of the wrong type, or a negative weight.

    Example:
        >>> import pyarrow as pa
        >>> from jaxgmm.tables.groups import group
        >>> table = pa.table({"cell": ["b", "a", "b"], "red": [1, 2, 3]})
        >>> groups = group(table, ["cell"], ["red"])
        >>> groups.keys["cell"].to_pylist(), groups.n_samples.tolist()
        (['a', 'b'], [1, 2])
    """
    check_named(table.column_names, by, features, weights, needs_key=False)
    if table.num_rows == 0:
        raise ValueError("the table is empty; it needs at least one row.")
    table = plain(table.select(list(dict.fromkeys([*by, *features, *([] if weights is None else [weights])]))))
    columns = [numbers(table[name], name) for name in features]
    sample_weight = None if weights is None else checked_weights(table[weights], weights)
    codes = key_codes(table, by)
    order = stable_order(codes)
    sorted_codes = codes[order]
    offsets = np.flatnonzero(np.concatenate([[True], sorted_codes[1:] != sorted_codes[:-1], [True]]))
    return Groups(
        keys=taken(table.select(list(by)), order[offsets[:-1]]),
        samples=np.stack([column[order] for column in columns], axis=1),
        weights=None if sample_weight is None else sample_weight[order],
        offsets=offsets,
        rows=order,
    )


def unusable(samples: Float[np.ndarray, "m d"], weights: Float[np.ndarray, " m"] | None) -> Bool[np.ndarray, " m"]:
    """Which samples hold NaN or infinity, or have such a weight; a finite weight of 0 leaves a sample out."""
    is_finite = np.all(np.isfinite(samples), axis=1)
    if weights is None:
        return ~is_finite
    return ~np.isfinite(weights) | (~is_finite & (weights != 0))


def extremes(
    samples: Float[np.ndarray, "m d"], weights: Float[np.ndarray, " m"] | None
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    """The least and the largest value of each feature, of samples with positive weight; NaN has no say."""
    counted = samples if weights is None else samples[weights > 0]
    return np.fmin.reduce(counted, axis=0, initial=np.inf), np.fmax.reduce(counted, axis=0, initial=-np.inf)


def _by_group(values: np.ndarray, offsets: Int[np.ndarray, " boundaries"]) -> list[np.ndarray]:
    """The values of each group; there may be no groups."""
    return np.split(values, offsets[1:])[:-1]


def taken(keys: pa.Table, rows: Int[np.ndarray, " m"]) -> pa.Table:
    """Some rows of a table of keys. Arrow's `take` would forget how many there are if the table has no columns."""
    return keys.take(rows) if keys.num_columns else without_columns(len(rows))


def joined(keys: Sequence[pa.Table]) -> pa.Table:
    """The rows of several tables of keys, which may have no columns."""
    return pa.concat_tables(keys) if keys[0].num_columns else without_columns(sum(own.num_rows for own in keys))


def without_columns(n_rows: int) -> pa.Table:
    """Keys of so many groups where no column is a key."""
    return pa.table({"": pa.nulls(n_rows)}).select([])


def names_in(role: str, given: Any) -> list[str]:
    """One name of a column or several, as a list.

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


def check_name(role: str, given: Any) -> None:
    """Raises ValueError unless an argument is the name of a column, or None."""
    if not isinstance(given, str | None):
        raise ValueError(f"{role} must be the name of a column; got {quoted(given)}.")


def check_named(
    columns: Sequence[Any],
    by: Sequence[str],
    features: Sequence[str],
    weights: str | None,
    *,
    needs_key: bool = True,
) -> None:
    """Checks that a table has the named columns.

    Raises:
        ValueError: no feature, no key where one is needed, a column named twice, or one that is missing or ambiguous.
    """
    for role, names, is_needed in (("key", by, needs_key), ("feature", features, True)):
        if is_needed and not names:
            raise ValueError(f"no {role} column is named; name at least one.")
    check_once(by, features)
    # Frames may have names of other types, some of which cannot be compared.
    texts = [name for name in columns if isinstance(name, str)]
    for name in (*by, *features, *([] if weights is None else [weights])):
        if name not in texts:
            is_no_text = any(str(other) == name for other in columns)
            remedy = "one has a name that is not a string but looks the same: rename it" if is_no_text else ""
            raise ValueError(f"the table has no column {name!r}; {remedy or f'its columns are {listed(columns)}'}.")
        if texts.count(name) > 1:
            raise ValueError(f"the table has {texts.count(name)} columns called {name!r}; rename all but one.")


def check_once(by: Sequence[str], features: Sequence[str]) -> None:
    """Raises ValueError if a column is named twice among the keys and features."""
    twice = [name for name, count in Counter([*by, *features]).items() if count > 1]
    if twice:
        raise ValueError(f"column {twice[0]!r} is named twice; name each key and each feature once.")


def plain(table: pa.Table) -> pa.Table:
    """The same columns, in types from which Arrow can take single rows."""
    for i, name in enumerate(table.column_names):
        column = table.column(i)
        if pa.types.is_run_end_encoded(column.type):
            column = pc.run_end_decode(column)  # pyright: ignore[reportAttributeAccessIssue]
        kind = _VIEWS.get(column.type, column.type)
        if kind != table.column(i).type:
            table = table.set_column(i, name, column.cast(kind))
    return table


def numbers(column: pa.ChunkedArray, name: str) -> Float[np.ndarray, " m"]:
    """A column as float64, null as NaN. Raises ValueError if it does not hold numbers."""
    check_numbers(column, name)
    column = decoded(column)
    # A copy, as Arrow's memory is read-only.
    return np.array(column.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)


def check_numbers(column: pa.ChunkedArray, name: str) -> None:
    """Raises ValueError if a column does not hold numbers, judging by its type."""
    kind = decoded(column.slice(0, 0)).type
    # A column of only nulls has no type of its own.
    known = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null)
    if not any(is_kind(kind) for is_kind in known):
        such_as = _such_as(decoded(column))
        raise ValueError(f"column {name!r} holds {kind}, not numbers{such_as}; convert it, or leave it out.")


def _such_as(column: pa.ChunkedArray) -> str:
    """The first text that is neither a number nor read as missing from CSV files, if a column holds texts."""
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return ""
    first, missing = "", csv.ConvertOptions().null_values
    for text in filter(None, column.unique().to_pylist()):
        try:
            float(text)
        except ValueError:
            first = first or text
            if text not in missing:
                return f", such as {quoted(text)}"
    return f", such as {quoted(first)}" if first else ""


def checked_weights(column: pa.ChunkedArray, name: str) -> Float[np.ndarray, " m"]:
    """Sample weights as float64. Raises ValueError if one is negative."""
    weights = numbers(column, name)
    if np.any(weights < 0):
        raise ValueError(
            f"weights must not be negative; column {name!r} holds {np.nanmin(weights)}. "
            "Give rows to be left out weight 0."
        )
    return weights


def key_codes(table: pa.Table, by: Sequence[str]) -> Int[np.ndarray, " m"]:
    """The number of every row's key among the distinct ones, which are sorted."""
    codes = np.zeros(table.num_rows, dtype=np.int64)
    for i, name in enumerate(by):
        ranks, n_values = _ranks(table[name], name)
        codes = codes * n_values + ranks
        if i > 0:
            # Renumbered after every column, so that the product stays below the square of the number of rows.
            codes, _ = _ranks(pa.chunked_array([codes]), name)
    return codes


def stable_order(codes: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
    """A stable sort order of codes from 0; NumPy is fastest with 16 bits at a time."""
    order = np.argsort(codes.astype(np.uint16), kind="stable")
    largest = int(np.max(codes, initial=0))
    for shift in range(16, largest.bit_length(), 16):
        order = order[np.argsort((codes[order] >> shift).astype(np.uint16), kind="stable")]
    return order


def _ranks(column: pa.ChunkedArray, name: str) -> tuple[Int[np.ndarray, " m"], int]:
    """The rank of every row's value among the column's distinct values, null last; and how many values there are."""
    try:
        column = decoded(column)
        if pa.types.is_floating(column.type):
            column = _canonical(column)
        encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
        values, indices = encoded.dictionary, encoded.indices
        in_order = np.zeros(1, np.int64)
        if not pa.types.is_null(values.type):
            # Arrow makes its compute functions at import, where a type checker does not see them.
            in_order = pc.sort_indices(values).to_numpy()  # pyright: ignore[reportAttributeAccessIssue]
    except pa.ArrowNotImplementedError:
        raise ValueError(f"column {name!r} holds {column.type}, which cannot be a key; convert it to text.") from None
    rank_of = np.empty(len(values), dtype=np.int64)
    rank_of[in_order] = np.arange(len(values))
    return rank_of[indices.to_numpy(zero_copy_only=False)], len(values)


def _canonical(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Floats in one pattern of bits for each value: minus zero is zero, and all NaNs are the same."""
    column = pc.add(column, 0.0)  # pyright: ignore[reportAttributeAccessIssue]
    is_nan = pc.is_nan(column)  # pyright: ignore[reportAttributeAccessIssue]
    return pc.if_else(is_nan, pa.scalar(np.nan, column.type), column)  # pyright: ignore[reportAttributeAccessIssue]


def decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A dictionary-encoded column (a categorical) as the values it stands for."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
