"""Keys of groups: the types of keys in a CSV file, and matching of rows to the groups of another table.

A CSV file holds texts. A column of keys is read as integers, booleans, dates, times or decimals only if all its texts
are in the canonical form of the type, so that different texts stay different keys: `001` and `1`, `1E1` and `10`, or
`1.50` and `1.5` are six groups.
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int

from jaxgmm.tables.groups import Groups, decoded, key_codes


def typed(texts: pa.ChunkedArray, wanted: pa.DataType | None = None) -> pa.ChunkedArray:
    """Converts texts of keys to the type in which all of them are written, if there is one.

    In types other than text, an empty text is null.

    Args:
        texts: as they appear in a file.
        wanted: the type of the keys with which these will be compared, if any; no other type is tried then. If it is a
            time type, times may be written in any format.

    Returns:
        the keys; the texts themselves if some are not of the type.

    Example:
        >>> import pyarrow as pa
        >>> from jaxgmm.tables.keys import typed
        >>> typed(pa.chunked_array([["2", "", "10"]])).to_pylist()
        [2, None, 10]
        >>> typed(pa.chunked_array([["2", "", "010"]])).to_pylist()
        ['2', '', '010']
    """
    given = _not_empty(texts.unique())
    if wanted is None:
        types = _INFERRED if len(given) else ()
    else:
        wanted = wanted.value_type if pa.types.is_dictionary(wanted) else wanted
        types = () if _kind(wanted) == "text" else (wanted,)
    for type_ in types:
        if _are(given, type_, in_any_way=wanted is not None):
            return _null_where_empty(texts).cast(type_)
    return texts


def group_of(keys: pa.Table, known: pa.Table, path: object, *, has_types: bool) -> Int[np.ndarray, " m"]:
    """The number of each row's group among the known groups.

    Args:
        keys: the columns that make the rows' keys.
        known: one row for each of B groups, with distinct keys.
        path: the file of the rows, for errors.
        has_types: whether its columns have types, as in Parquet. Otherwise a text matches a fitted key if that key
            would be written this way.

    Returns:
        `(M,)`, numbers from 0; -1 where a row belongs to none of them. Without key columns, all are of group 0.

    Raises:
        ValueError: a column holds keys of another kind than was fitted, which can never be equal.
    """
    if not known.num_columns:
        return np.zeros(keys.num_rows, dtype=np.int64)
    possible = np.ones(keys.num_rows, dtype=bool)
    columns = {}
    for name in known.column_names:
        own, of_known = _of_one_type_if_null(decoded(keys[name]), decoded(known[name]))
        kinds = _kind(own.type), _kind(of_known.type)
        if not has_types and kinds[0] == "text":
            own, of_known, may_be = _as_written(own, of_known)
        elif kinds[0] == kinds[1]:
            own, of_known, may_be = _by_value(own, of_known)
        else:
            raise ValueError(
                f"column {name!r} of {path} holds {own.type}, where {of_known.type} was fitted; convert it."
            )
        possible &= may_be
        columns[name] = pa.chunked_array([*of_known.chunks, *own.chunks], of_known.type)
    codes = key_codes(pa.table(columns), known.column_names)
    of_known, wanted = codes[: known.num_rows], codes[known.num_rows :]
    number_of = np.full(len(codes), -1)
    number_of[of_known] = np.arange(known.num_rows)
    return np.where(possible, number_of[wanted], -1)


def matched(
    found: Groups, known: pa.Table, n_samples: Int[np.ndarray, " b"], path: object, *, has_types: bool
) -> Groups | None:
    """Those groups of a table that were fitted, in the order of the fits.

    Args:
        found: the groups of the table.
        known: the keys of the B groups that were fitted.
        n_samples: `(B,)`, their sizes.
        path: the table's name, for errors.
        has_types: whether its columns have types; see `group_of`.

    Returns:
        the groups; None if one is missing, or has another size.

    Raises:
        ValueError: a key column holds another kind of keys.
    """
    number = group_of(found.keys, known, path, has_types=has_types)
    own = np.flatnonzero(number >= 0)
    # Keys that were read as another type may be in another order.
    place = own[np.argsort(number[own], kind="stable")]
    if not np.array_equal(number[place], np.arange(known.num_rows)):
        return None
    if not np.array_equal(found.n_samples[place], n_samples):
        return None
    rows = np.concatenate([np.arange(0), *(np.arange(*found.offsets[i : i + 2]) for i in place)])
    return Groups(
        keys=known,
        samples=found.samples[rows],
        weights=None if found.weights is None else found.weights[rows],
        offsets=np.concatenate([[0], np.cumsum(found.n_samples[place])]),
        rows=found.rows[rows],
    )


def _of_one_type_if_null(own: pa.ChunkedArray, known: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Columns of keys; one that holds nothing but nulls, and has no type, gets the type of the other."""
    if pa.types.is_null(own.type):
        return own.cast(known.type), known
    return own, known.cast(own.type) if pa.types.is_null(known.type) else known


def _common_decimal(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """A type that holds the decimals of two types; float64 if there is none."""
    scale = max(one.scale, other.scale)
    digits = scale + max(kind.precision - kind.scale for kind in (one, other))
    return pa.decimal256(digits, scale) if digits <= _MOST_DIGITS else pa.float64()


def _by_value(own: pa.ChunkedArray, known: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.ChunkedArray, np.ndarray]:
    """Values of one kind converted to one type, and which of the first are unchanged by that."""
    if own.type == known.type:
        type_ = known.type
    elif _kind(known.type) == "text":
        type_ = pa.large_string()
    elif pa.types.is_decimal(own.type) and pa.types.is_decimal(known.type):
        type_ = _common_decimal(own.type, known.type)
    elif pa.types.is_decimal(own.type) or pa.types.is_decimal(known.type):
        type_ = pa.float64()
    else:
        type_ = known.type
    cast = own.cast(type_, safe=False)
    return cast, known.cast(type_, safe=False), _equal(cast.cast(own.type, safe=False), own)


def _as_written(texts: pa.ChunkedArray, known: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.ChunkedArray, np.ndarray]:
    """Texts and the keys they may match, in one type, and which texts may match any key."""
    everywhere = np.ones(len(texts), dtype=bool)
    if _kind(known.type) == "text":
        own, known = texts.cast(pa.large_string()), known.cast(pa.large_string())
        # An empty field is a missing key, unless empty texts are keys.
        is_missing = known.null_count and not _has_empty(known)
        return (_null_where_empty(own) if is_missing else own), known, everywhere
    if not any(is_kind(known.type) for is_kind in (pa.types.is_floating, *_FREE)):
        return texts.cast(pa.string()), known.cast(pa.string()).fill_null(""), everywhere
    given = _not_empty(texts.unique())
    unread = pa.array(_foreign(given, known.type), given.type)
    is_unread = pc.is_in(texts, value_set=unread)  # pyright: ignore[reportAttributeAccessIssue]
    values = pc.if_else(is_unread, "", texts)  # pyright: ignore[reportAttributeAccessIssue]
    return _null_where_empty(values).cast(known.type), known, ~is_unread.to_numpy()


def _foreign(given: pa.Array, type_: pa.DataType) -> list[str]:
    """The texts that are not values of a type, by bisection: halves in which all are values are not searched."""
    if len(given) == 0 or _are(given, type_, in_any_way=True):
        return []
    if len(given) == 1:
        return given.to_pylist()
    half = len(given) // 2
    return _foreign(given.slice(0, half), type_) + _foreign(given.slice(half), type_)


def _are(given: pa.Array, type_: pa.DataType, *, in_any_way: bool) -> bool:
    """Whether all texts are in the canonical form of a type; for types in `_FREE`, on request, in any form."""
    try:
        values = given.cast(type_)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return False
    if in_any_way and any(is_kind(type_) for is_kind in _FREE):
        return True
    if pa.types.is_floating(type_) and not _are_plain(values):
        return False
    return any(write(values).equals(given) for write in _WRITTEN)


def _are_plain(values: pa.Array) -> bool:
    """Whether decimals can be keys by value: minus zero equals zero, and NaN is not a number."""
    numbers = values.to_numpy(zero_copy_only=False)
    return bool(np.all(np.isfinite(numbers)) and not np.any((numbers == 0) & np.signbit(numbers)))


def _as_arrow_writes(values: pa.Array) -> pa.Array:
    return values.cast(pa.string())


def _as_python_writes(values: pa.Array) -> pa.Array:
    """As Arrow does, except for decimals: 1.0 where Arrow writes 1."""
    if not pa.types.is_floating(values.type):
        return values.cast(pa.string())
    return pa.array(values.to_numpy(zero_copy_only=False).astype(str), pa.string())


# Of an Arrow decimal.
_MOST_DIGITS = 76
# In this order, because texts of integers are also texts of decimals.
_INFERRED = (pa.int64(), pa.bool_(), pa.date32(), pa.timestamp("s"), pa.float64())
_WRITTEN: tuple[Callable[[pa.Array], pa.Array], ...] = (_as_arrow_writes, _as_python_writes)
# Kinds of types whose values can be compared.
_KINDS = {
    "number": (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal),
    "text": (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
    "time": (pa.types.is_date, pa.types.is_timestamp),
}
# Types whose values are usually written in several ways, without ambiguity.
_FREE = (pa.types.is_decimal, pa.types.is_timestamp)


def _kind(type_: pa.DataType) -> str:
    """The kind of type as which keys are compared."""
    return next((name for name, tests in _KINDS.items() if any(test(type_) for test in tests)), str(type_))


def _has_empty(texts: pa.ChunkedArray) -> bool:
    given = texts.unique().drop_null()
    return len(_not_empty(given)) < len(given)


def _not_empty(texts: pa.Array) -> pa.Array:
    return texts.filter(pc.not_equal(texts, ""))  # pyright: ignore[reportAttributeAccessIssue]


def _null_where_empty(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    is_empty = pc.equal(texts, "")  # pyright: ignore[reportAttributeAccessIssue]
    return pc.if_else(is_empty, None, texts)  # pyright: ignore[reportAttributeAccessIssue]


def _equal(a: pa.ChunkedArray, b: pa.ChunkedArray) -> Bool[np.ndarray, " m"]:
    """Which values are equal; null is equal to null, and NaN to NaN."""
    codes = key_codes(pa.table({"key": pa.chunked_array([*a.chunks, *b.chunks], a.type)}), ["key"])
    return codes[: len(a)] == codes[len(a) :]
