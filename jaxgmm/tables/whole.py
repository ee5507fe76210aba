"""A whole table as one data set: its numbers are read block by block into one array."""

import numpy as np

from jaxgmm.tables.groups import Groups, checked_weights, numbers
from jaxgmm.tables.parts import Plan
from jaxgmm.tables.rows import Rows


def read(rows: Rows, planned: Plan, features: list[str], weights: str | None) -> Groups:
    """All rows as one group. Beside its samples, memory holds only one block of rows.

    Args:
        rows: the table.
        planned: its plan without keys, which knows the number of rows.
        features: names of the D features.
        weights: column of sample weights, or None.

    Raises:
        ValueError: the file cannot be read, has changed, or has other values than numbers.
    """
    n_rows, read_so_far = int(planned.n_samples[0]), 0
    samples = np.empty((n_rows, len(features)))
    sample_weight = None if weights is None else np.empty(n_rows)
    for block in rows.blocks(list(dict.fromkeys([*features, *([] if weights is None else [weights])]))):
        own = slice(read_so_far, read_so_far + block.num_rows)
        for i, name in enumerate(features):
            samples[own, i] = numbers(block[name], name)
        if sample_weight is not None and weights is not None:
            sample_weight[own] = checked_weights(block[weights], weights)
        read_so_far = own.stop
    return Groups(planned.keys, samples, sample_weight, np.array([0, n_rows]), np.arange(0))
