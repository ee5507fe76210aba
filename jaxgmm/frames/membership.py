"""Keys of groups, and the rows of a frame that belong to each group."""

from math import isnan
from operator import or_
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from jaxgmm.tables.frame import Samples
from jaxgmm.tables.keys import group_of


class Membership(NamedTuple):
    """The rows of a frame that belong to B groups.

    Attributes:
        rows: numbers of rows, group after group, in their order within each group.
        offsets: `(B + 1,)`; group `b` has `rows[offsets[b]:offsets[b + 1]]`.
        n_rows: of the whole frame.
    """

    rows: Int[np.ndarray, " m"]
    offsets: Int[np.ndarray, " boundaries"]
    n_rows: int

    def of(self, group: int) -> Int[np.ndarray, " n"]:
        """The rows of one group."""
        return self.rows[self.offsets[group] : self.offsets[group + 1]]


def membership(samples: Samples, keys: pa.Table) -> Membership:
    """The rows of a frame by group, given all its samples, and a row of keys for each group."""
    groups = samples.by_group(keys)
    return Membership(groups.rows, groups.offsets, len(samples.group))


def number_of(key: tuple[Any, ...], known: pa.Table) -> int:
    """The number of the group with a key; -1 if there is none."""
    # Frames have nulls of their own. In a column of floats NaN may be a key, or stand for null.
    is_nan = [isinstance(value, float) and isnan(value) for value in key]
    is_float = [pa.types.is_floating(column.type) for column in known.columns]
    is_null = [
        value is None or type(value).__name__ in ("NAType", "NaTType") or (nan and not may_be)
        for value, nan, may_be in zip(key, is_nan, is_float, strict=True)
    ]
    for nulls in dict.fromkeys([tuple(is_null), tuple(map(or_, is_null, is_nan))]):
        try:
            values = [pa.array([None if null else value]) for value, null in zip(key, nulls, strict=True)]
        except (pa.ArrowException, TypeError, OverflowError):
            return -1
        number = int(group_of(pa.table(values, known.column_names), known, "the key", has_types=True)[0])
        if number >= 0:
            return number
    return -1
