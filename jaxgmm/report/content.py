"""What a report is about: fits, the samples that were fitted, and the models that were tried."""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

import jaxgmm
from jaxgmm.tables.groups import Groups, decoded
from jaxgmm.tables.keys import group_of


class Content(NamedTuple):
    """Fits of B groups, and their M samples of D features, group after group.

    Attributes:
        keys: one row for each group.
        features: names of the D features.
        weights: name of the column of sample weights, or None.
        samples: `(M, D)`; NaN where the table holds null.
        sample_weight: `(M,)`, or None for 1.
        offsets: `(B + 1,)`; group `b` is samples `offsets[b]` to `offsets[b + 1]`.
        result: the fits, or the chosen ones. It may hold no starts.
        models: columns as in `jaxgmm.Sweep.table`, one row for each model tried, in the order of the groups; None where
            there was no choice.
        criterion: the column of `models` by which they were chosen, or None.
        flags: `(B,)`, names of the flags of each fit, where the result holds no starts; else None.
    """

    keys: pa.Table
    features: list[str]
    weights: str | None
    samples: Float[np.ndarray, "m d"]
    sample_weight: Float[np.ndarray, " m"] | None
    offsets: Int[np.ndarray, " boundaries"]
    result: "jaxgmm.FitResult"
    models: dict[str, np.ndarray] | None
    criterion: str | None
    flags: list[str] | None = None

    @property
    def n_samples(self) -> Int[np.ndarray, " b"]:
        """`(B,)`, the number of rows of every group."""
        return np.diff(self.offsets)

    @property
    def of_group(self) -> Int[np.ndarray, " m"]:
        """`(M,)`, the group of every sample."""
        return np.repeat(np.arange(len(self.n_samples)), self.n_samples)

    @property
    def has_answer(self) -> np.ndarray:
        """`(B,)`, whether groups have mixtures."""
        return np.isfinite(self.result.mixture.weights).all(axis=1)

    def diagnosed(self) -> "jaxgmm.Diagnosis":
        """The fits, checked against the samples."""
        within = self.offsets[1:-1]
        weights = None if self.sample_weight is None else np.split(self.sample_weight, within)
        return jaxgmm.diagnose(self.result.mixture, np.split(self.samples, within), weights)


def content_of_groups(
    groups: Groups,
    features: list[str],
    weights: str | None,
    result: "jaxgmm.FitResult",
    models: pa.Table | None = None,
    criterion: str | None = None,
    flags: list[str] | None = None,
) -> Content:
    """What a report is about, from tables.

    Args:
        groups: keys and samples of the B groups.
        features: names of the D features.
        weights: name of the column of sample weights, or None.
        result: fits of the groups, in the same order.
        models: as `models.parquet`, one row for each model tried, with the keys of its group; None without a choice.
        criterion: the column of `models` by which they were chosen.
        flags: `(B,)`, names of the flags of each fit, where the result holds no starts.
    """
    table = None if models is None else _numbered(models, groups.keys)
    return Content(
        groups.keys, features, weights, groups.samples, groups.weights, groups.offsets, result, table, criterion, flags
    )


def _numbered(models: pa.Table, keys: pa.Table) -> dict[str, np.ndarray]:
    """The models as columns, with the number of each one's group in place of its keys, in the order of the groups."""
    data_set = group_of(models.select(keys.column_names), keys, "models", has_types=True)
    order = np.argsort(data_set, kind="stable")
    order = order[data_set[order] >= 0]
    columns = {name: _array(models[name]) for name in models.column_names if name not in keys.column_names}
    return {name: column[order] for name, column in (("data_set", data_set), *columns.items())}


def _array(column: pa.ChunkedArray) -> Any:
    return decoded(column).to_numpy()
