"""A whole table that memory need not hold: a sample of its rows, what is known of all, and batches of all of them."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int

from jaxgmm.tables.groups import checked_weights, extremes, numbers, unusable, without_columns
from jaxgmm.tables.rows import Rows

# Rows of the sample: they take a few MiB, and what they leave open of an optimum falls with their number.
SAMPLED = 2**16


class Survey(NamedTuple):
    """A table without keys, of which rows are read when they are needed.

    Attributes:
        keys: one row without columns, as for other groups.
        n_samples: `(1,)`, the number of rows.
        n_unusable: `(1,)`, how many hold NaN or infinity; see `jaxgmm.tables.groups.unusable`.
        least: `(D,)`, the least value of each feature.
        most: `(D,)`, the largest.
        sample: `(n, D)`, rows drawn at random, in their order; with one that is unusable, if there is one.
        weights: `(n,)`, their weights, or None.
        rows: all rows.
        features: names of the D features.
        weighted_by: column of sample weights, or None.
    """

    keys: pa.Table
    n_samples: Int[np.ndarray, " b"]
    n_unusable: Int[np.ndarray, " b"]
    least: Float[np.ndarray, " d"]
    most: Float[np.ndarray, " d"]
    sample: Float[np.ndarray, "n d"]
    weights: Float[np.ndarray, " n"] | None
    rows: Rows
    features: list[str]
    weighted_by: str | None

    def constant(self, _b: int) -> Bool[np.ndarray, " d"]:
        """Which features have one value."""
        return self.least == self.most

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All rows, block by block, with their weights."""
        for x, weights in _blocks(self.rows, self.features, self.weighted_by):
            yield x, np.ones(len(x)) if weights is None else weights


def survey(rows: Rows, n_rows: int, features: list[str], weights: str | None, seed: int) -> Survey:
    """Reads all rows once, and keeps a sample.

    Args:
        rows: the table.
        n_rows: their number.
        features: names of the D features.
        weights: column of sample weights, or None.
        seed: of the sample.

    Raises:
        ValueError: the file cannot be read, has changed, or has other values than numbers.
    """
    first, n_unusable, least, most = 0, 0, np.full(len(features), np.inf), np.full(len(features), -np.inf)
    drawn = np.sort(np.random.default_rng(seed).choice(n_rows, min(n_rows, SAMPLED), replace=False, shuffle=False))
    kept: list[tuple[np.ndarray, np.ndarray | None]] = []
    for x, own in _blocks(rows, features, weights):
        bad = np.flatnonzero(unusable(x, own))
        wanted = drawn[slice(*np.searchsorted(drawn, [first, first + len(x)]))] - first
        if len(bad) and not n_unusable:
            wanted = np.union1d(wanted, bad[:1])
        kept.append((x[wanted], None if own is None else own[wanted]))
        low, high = extremes(x, own)
        least, most = np.minimum(least, low), np.maximum(most, high)
        first, n_unusable = first + len(x), n_unusable + len(bad)
    sample_weight = None if weights is None else np.concatenate([own for _, own in kept if own is not None])
    sample = np.concatenate([x for x, _ in kept])
    counts = np.array([n_rows]), np.array([n_unusable])
    return Survey(without_columns(1), *counts, least, most, sample, sample_weight, rows, features, weights)


def _blocks(
    rows: Rows, features: list[str], weights: str | None
) -> Iterator[tuple[Float[np.ndarray, "n d"], Float[np.ndarray, " n"] | None]]:
    for block in rows.blocks(list(dict.fromkeys([*features, *([] if weights is None else [weights])]))):
        x = np.stack([numbers(block[name], name) for name in features], axis=1).astype(np.float64, copy=False)
        yield x, None if weights is None else checked_weights(block[weights], weights)
