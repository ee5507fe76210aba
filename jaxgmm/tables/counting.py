"""The groups of a table, found in one pass over its key columns."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from jaxgmm.tables.groups import check_numbers, checked_weights, joined, key_codes, plain, taken
from jaxgmm.tables.ranges import Ranges
from jaxgmm.tables.rows import Rows

# Groups collected, at least, before equal ones are merged.
_MANY = 2**20


class Counts(NamedTuple):
    """The groups of some rows.

    Attributes:
        keys: one row for each of B groups, sorted.
        n_samples: `(B,)`, their numbers of rows.
        is_in_order: whether the rows are sorted by key.
    """

    keys: pa.Table
    n_samples: Int[np.ndarray, " b"]
    is_in_order: bool


def check_features(rows: Rows, by: Sequence[str], features: Sequence[str]) -> None:
    """Raises ValueError if a feature does not hold numbers, judging by its type."""
    for block in rows.blocks([*features, *by]):
        for name in features:
            check_numbers(block[name], name)
        break


def counted(
    rows: Rows, by: Sequence[str], weights: str | None, bounds: Int[np.ndarray, " bounds"]
) -> tuple[Counts, Ranges]:
    """Finds the groups of successive ranges of rows, and how many rows each range holds.

    Args:
        rows: the table.
        by: the columns that make a group's key; none if all rows are one group.
        weights: column of sample weights, or None.
        bounds: where the ranges begin and end; see `jaxgmm.tables.ranges.Ranges`.

    Raises:
        ValueError: a column cannot be a key, or a weight is negative.
    """
    found, n_rows = [], []
    columns = [*by, *([] if weights is None or weights in by else [weights])]
    for start, stop in pairwise(bounds.tolist()):
        n_rows.append(0)
        for block in rows.blocks(columns, start, stop):
            if weights is not None:
                checked_weights(block[weights], weights)
            found.append(_of_keys(block.select(list(by)), np.ones(block.num_rows, np.int64)))
            n_rows[-1] += block.num_rows
            # A key is merged only so often that all merging takes about as long as counting.
            if sum(len(own.n_samples) for own in found[1:]) > max(_MANY, len(found[0].n_samples)):
                found = [merged(found)]
    if not found:
        found = [_of_keys(plain(rows.schema.empty_table().select(list(by))), np.zeros(0, np.int64))]
    return merged(found), Ranges(bounds, np.cumsum([0, *n_rows]))


def merged(found: Sequence[Counts]) -> Counts:
    """The groups of successive rows."""
    own = _of_keys(joined([counts.keys for counts in found]), np.concatenate([counts.n_samples for counts in found]))
    return own._replace(is_in_order=own.is_in_order and all(counts.is_in_order for counts in found))


def _of_keys(keys: pa.Table, n_rows: Int[np.ndarray, " m"]) -> Counts:
    """The distinct ones among keys, in order, and the sum of the numbers of rows of each."""
    codes = key_codes(keys, keys.column_names)
    n_samples = np.bincount(codes, weights=n_rows).astype(np.int64)
    first = np.empty(len(n_samples), np.int64)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    return Counts(taken(keys, first), n_samples, bool(np.all(codes[1:] >= codes[:-1])))
