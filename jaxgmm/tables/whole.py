"""A whole table as one data set: its numbers are read block by block into one array."""

import numpy as np

from jaxgmm.tables.groups import Groups, checked_weights, numbers, without_columns
from jaxgmm.tables.rows import Rows


def read(rows: Rows, n_rows: int, features: list[str], weights: str | None) -> Groups:
    """All rows as one group. Beside its samples, memory holds only one block of rows.

    Args:
        rows: the table.
        n_rows: their number.
        features: names of the D features.
        weights: column of sample weights, or None.

    Raises:
        ValueError: the file cannot be read, has changed, or has other values than numbers.
    """
    read_so_far, samples = 0, np.empty((n_rows, len(features)))
    sample_weight = None if weights is None else np.empty(n_rows)
    for block in rows.blocks(list(dict.fromkeys([*features, *([] if weights is None else [weights])]))):
        own = slice(read_so_far, read_so_far + block.num_rows)
        for i, name in enumerate(features):
            samples[own, i] = numbers(block[name], name)
        if sample_weight is not None and weights is not None:
            sample_weight[own] = checked_weights(block[weights], weights)
        read_so_far = own.stop
    return Groups(without_columns(1), samples, sample_weight, np.array([0, n_rows]), np.arange(0))
