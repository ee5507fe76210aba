"""The samples that a report draws: some of each group, in units of the group's own box."""

from typing import NamedTuple

import numpy as np

from jaxgmm.report.content import Content

# Of each group, at most as many samples are drawn. They and their mixture take 700 bytes.
MOST = 200
# Steps from one end of the box to the other: 0.15 pixels of 600.
LEVELS = 4095
# Steps of a weight, from 0 to the largest of the group.
WEIGHT_LEVELS = 255


class Drawn(NamedTuple):
    """Samples of B groups that are drawn, group after group, by rising first feature.

    Attributes:
        offsets: `(B + 1,)`; those of group `b` are `offsets[b]` to `offsets[b + 1]`.
        low: `(B, D)`, lower ends of the boxes; 0 for a group without samples to draw.
        span: `(B, D)`, widths of the boxes; 1 where all values are equal.
        levels: `(S, D)`, from 0 to `LEVELS` within the box.
        weights: `(S,)`, from 1 to `WEIGHT_LEVELS`, or None.
        n_lost: `(B,)`, how many samples of each group are not finite, though their weight is not 0.
        n_zero: `(B,)`, how many have weight 0.
    """

    offsets: np.ndarray
    low: np.ndarray
    span: np.ndarray
    levels: np.ndarray
    weights: np.ndarray | None
    n_lost: np.ndarray
    n_zero: np.ndarray


def drawn(content: Content) -> Drawn:
    """Chooses samples: extremes of every feature, as outliers are what one looks for, and others at random."""
    samples, of_group, first = content.samples, content.of_group, content.offsets[:-1]
    weight = np.ones(len(samples)) if content.sample_weight is None else content.sample_weight
    is_finite = np.isfinite(samples).all(axis=1) & np.isfinite(weight)
    usable = is_finite & (weight > 0)
    rows = _chosen(samples, usable, of_group, content.offsets)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(of_group[rows], minlength=len(first)))])
    group, kept = of_group[rows], samples[rows]
    low, span = _boxes(kept, offsets)
    with np.errstate(over="ignore"):
        share = np.clip((kept - low[group]) / span[group], 0, 1)
    weights = None
    if content.sample_weight is not None:
        largest = np.maximum.reduceat(np.where(usable, weight, 0.0), first)
        weights = np.ceil(weight[rows] / largest[group] * WEIGHT_LEVELS).astype(np.uint8)
    return Drawn(
        offsets=offsets,
        low=low,
        span=span,
        levels=np.rint(share * LEVELS).astype(np.uint16),
        weights=weights,
        n_lost=np.add.reduceat((~is_finite & (weight != 0)).astype(np.uint32), first),
        n_zero=np.add.reduceat((weight == 0).astype(np.uint32), first),
    )


def _chosen(samples: np.ndarray, usable: np.ndarray, of_group: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Rows of the samples to draw, group after group, by rising first feature."""
    priority = 0.5 + 0.25 * np.random.default_rng(0).random(len(samples))
    for column in samples.T:
        for extreme, otherwise in ((np.minimum, np.inf), (np.maximum, -np.inf)):
            values = np.where(usable, column, otherwise)
            at_extreme = np.flatnonzero((values == extreme.reduceat(values, offsets[:-1])[of_group]) & usable)
            # One of those that are equal.
            _, first = np.unique(of_group[at_extreme], return_index=True)
            priority[at_extreme[first]] = 0.25
    priority[~usable] = 0.9
    # One sort by group and priority, which is between 0 and 1.
    order = np.argsort(of_group + priority)
    place = np.arange(len(order)) - offsets[of_group]
    kept = order[(place < MOST) & usable[order]]
    return kept[np.lexsort((samples[kept, 0], of_group[kept]))]


def _boxes(samples: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower ends and widths of the groups' boxes."""
    some = np.diff(offsets) > 0
    low, high = np.zeros((2, len(some), samples.shape[1]))
    if np.any(some):
        low[some] = np.minimum.reduceat(samples, offsets[:-1][some], axis=0)
        high[some] = np.maximum.reduceat(samples, offsets[:-1][some], axis=0)
    with np.errstate(over="ignore"):
        span = np.minimum(high - low, np.finfo(np.float64).max)
    return low, np.where(span > 0, span, 1.0)


def shared_axes(content: Content) -> list[list[float]]:
    """Axes for all groups: for each feature two ends, which leave out a thousandth of the samples each."""
    # As many as decide on a thousandth.
    samples = content.samples[:: max(1, len(content.samples) // 500_000)]
    samples = samples[np.isfinite(samples).all(axis=1)]
    if not len(samples):
        return [[0.0, 1.0]] * samples.shape[1]
    low, high = np.quantile(samples, [0.001, 0.999], axis=0)
    return [[float(a), float(b if b > a else a + 1)] for a, b in zip(low, high, strict=True)]
