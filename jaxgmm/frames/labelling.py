"""The rows of a frame by group, and their labels under the mixtures of the groups."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from jaxgmm.frames.columns import column_names, with_columns
from jaxgmm.mixture import Mixture
from jaxgmm.tables.frame import arrow, selected
from jaxgmm.tables.groups import checked_weights, numbers, stable_order
from jaxgmm.tables.keys import group_of
from jaxgmm.tables.labels import labels
from jaxgmm.tables.tabular import label_columns


class Read(NamedTuple):
    """The samples of a frame.

    Attributes:
        group: `(M,)`, the number of each row's group; -1 where it has none.
        samples: `(M, D)`, the features.
        weights: `(M,)`, the sample weights, or None.
    """

    group: Int[np.ndarray, " m"]
    samples: Float[np.ndarray, "m d"]
    weights: Float[np.ndarray, " m"] | None

    def by_group(self, n_groups: int) -> tuple[list[np.ndarray], list[np.ndarray] | None]:
        """The samples `(N_b, D)` and weights `(N_b,)` of each group, rows in the order of the frame."""
        order = stable_order(np.where(self.group < 0, n_groups, self.group))
        ends = np.cumsum(np.bincount(self.group[self.group >= 0], minlength=n_groups))
        parts = (None if values is None else np.split(values[order], ends)[:-1] for values in self[1:])
        samples, weights = parts
        assert samples is not None
        return samples, weights


def read(df: Any, keys: pa.Table, features: Sequence[str], weights: str | None) -> Read:
    """Reads the columns that samples are made of.

    Args:
        df: a frame.
        keys: a row for each of B groups.
        features: the columns that hold samples; missing values become NaN.
        weights: the column of sample weights, or None.

    Raises:
        ValueError: columns that are missing or of the wrong type, or negative weights.
    """
    by = keys.column_names
    table = arrow(selected(df, by, list(features), weights))
    group = group_of(table.select(by), keys, "the frame", has_types=True)
    samples = np.stack([numbers(table[name], name) for name in features], axis=1)
    return Read(group, samples, None if weights is None else checked_weights(table[weights], weights))


def labelled(df: Any, keys: pa.Table, features: Sequence[str], mixture: Mixture, *, probabilities: bool) -> Any:
    """The frame with the labels of its rows in further columns.

    Args:
        df: the frame.
        keys: a row for each of B groups.
        features: the columns that hold samples.
        mixture: `(B, K, …)`, of the groups.
        probabilities: whether there are columns for the probabilities of all components.

    Raises:
        ValueError: columns that are missing or of the wrong type, or one with the name of a new one.
    """
    group, samples, _ = read(df, keys, features, None)
    known = column_names(df)
    taken = [name for name in label_columns(mixture.n_components, probabilities=probabilities) if name in known]
    if taken:
        raise ValueError(f"the frame has a column {taken[0]!r} already; rename it, or leave it out.")
    return with_columns(df, labels(mixture, group, samples, probabilities=probabilities))
