"""The labels of a frame's rows, under the mixtures of their groups."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from jaxgmm.frames.columns import column_names, with_columns
from jaxgmm.mixture import Mixture
from jaxgmm.tables.frame import read
from jaxgmm.tables.labels import labels
from jaxgmm.tables.tabular import label_columns


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
