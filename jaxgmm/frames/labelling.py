"""The rows of a frame by group, and their labels under the mixtures of the groups."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from jaxgmm.engine.batch import Batch
from jaxgmm.frames.columns import arrow, column_names, named, with_columns
from jaxgmm.mixture import Mixture
from jaxgmm.pieces import of_each
from jaxgmm.posterior import LABELS, LABELS_AND_RESPONSIBILITIES
from jaxgmm.tables.groups import checked_weights, numbers, stable_order
from jaxgmm.tables.keys import group_of

_COLUMNS = ("component", "probability", "log_density", "p_value")


class Rows(NamedTuple):
    """The rows of a frame that belong to fitted groups, group after group.

    Attributes:
        rows: `(M,)`, which rows of the frame; within a group in the order of the frame.
        samples: `(M, D)`, their features.
        weights: `(M,)`, their weights, or None.
        lengths: `(B,)`, the number of rows of each group.
    """

    rows: Int[np.ndarray, " m"]
    samples: Float[np.ndarray, "m d"]
    weights: Float[np.ndarray, " m"] | None
    lengths: Int[np.ndarray, " b"]

    @property
    def first(self) -> np.ndarray:
        """`(B,)`, the first row of each group."""
        return np.cumsum(self.lengths) - self.lengths

    def of_groups(self, values: np.ndarray) -> list[np.ndarray]:
        """Values of the rows by group: views, not copies."""
        return np.split(values, self.first[1:])


def rows_of(df: Any, keys: pa.Table, features: Sequence[str], weights: str | None) -> Rows:
    """The rows of a frame by group, in the order of the groups.

    Args:
        df: a frame.
        keys: a row for each of B groups.
        features: the columns that hold samples; missing values become NaN.
        weights: the column of sample weights, or None.

    Raises:
        ValueError: columns that are missing or of the wrong type, or negative weights.
    """
    by = keys.column_names
    table = arrow(named(df, by, list(features), weights))
    group = group_of(table.select(by), keys, "the frame", has_types=True)
    # Rows of no group come last.
    order = stable_order(np.where(group < 0, keys.num_rows, group))[: np.count_nonzero(group >= 0)]
    samples = np.stack([numbers(table[name], name)[order] for name in features], axis=1)
    own = None if weights is None else checked_weights(table[weights], weights)[order]
    return Rows(order, samples, own, np.bincount(group[order], minlength=keys.num_rows))


def labelled(df: Any, rows: Rows, mixture: Mixture, *, probabilities: bool) -> Any:
    """The frame with the component of every row, and more, in further columns.

    Args:
        df: the frame.
        rows: its rows by group.
        mixture: `(B, K, …)`, of the groups.
        probabilities: whether there are columns for the probabilities of all components.

    Raises:
        ValueError: the frame has a column with the name of a new one.
    """
    names = [*_COLUMNS, *(f"probability_{k}" for k in range(mixture.n_components if probabilities else 0))]
    taken = [name for name in names if name in column_names(df)]
    if taken:
        raise ValueError(f"the frame has a column {taken[0]!r} already; rename it, or leave it out.")
    answers = np.full((len(df), len(names)), np.nan)
    if len(rows.rows):
        has_rows = np.flatnonzero(rows.lengths)
        data = Batch(rows.samples, rows.first[has_rows], rows.lengths[has_rows], is_single=False)
        quantity = LABELS_AND_RESPONSIBILITIES if probabilities else LABELS
        values = of_each(quantity, mixture.of(has_rows), data, np.dtype(np.float64))
        # Infinity is as unknown as a missing value.
        values[~np.all(np.isfinite(rows.samples), axis=1)] = np.nan
        answers[rows.rows] = values
    component = np.where(answers[:, 0] >= 0, answers[:, 0], -1).astype(np.int32)
    columns = {name: np.ascontiguousarray(answers[:, i]) for i, name in enumerate(names)}
    return with_columns(df, columns | {"component": component})
