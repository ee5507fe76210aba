"""A histogram of one feature under the densities of components."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from jaxgmm.mixture import Mixture
from jaxgmm.plot.limits import bulk, is_far, limits_of_bulk
from jaxgmm.plot.palette import INK, MOST_LABELS, PALE, colour, line, write
from jaxgmm.plot.planes import marginal

# Standard deviations about a mean that are drawn.
_REACH = 3.5
# The fewest bars, and the most in a small panel and in others; more are thinner than can be seen.
_FEWEST, _MOST_SMALL, _MOST = 8, 50, 100
# By the rule of Freedman and Diaconis bars are as wide as this many interquartile ranges, over the cube root of the
# number of samples; a normal distribution has one of 1.349 standard deviations.
_RANGES, _NORMAL = 2.0, 1.349
# Two of the thinnest bars are within 2.5 standard deviations of the mean of a component that can be seen.
_SEEN = 2.5
# A line that is this much higher than the bars leaves the picture at the top, at this multiple of their height.
_SPIKE, _TOP = 3.0, 1.5


def draw_histogram(
    ax: Axes,
    mixture: Mixture,
    values: np.ndarray,
    *,
    weight: np.ndarray | None = None,
    bins: Any = None,
    labels: bool = False,
    small: bool = False,
) -> None:
    """Bars of finite values, and lines of the densities of a mixture of one feature."""
    weight = np.ones(len(values)) if weight is None else weight
    is_counted = np.isfinite(values) & (weight > 0)
    values, weight = values[is_counted], weight[is_counted]
    line_of_feature = marginal(mixture, (0,))
    present = np.flatnonzero(line_of_feature.weights > 0)
    means, scales = line_of_feature.means[present, 0], np.sqrt(line_of_feature.covariances[present, 0, 0])
    has_far = len(values) > 0 and bool(np.any(is_far(values[:, None])))
    limits = limits_of_bulk(values, means, _REACH * scales) if has_far else None
    tallest = 0.0
    if len(values):
        shares, most = line_of_feature.weights[present], _MOST_SMALL if small else _MOST
        own = bins is None
        edges = _edges(values, weight, scales, shares, most) if own else np.histogram_bin_edges(values, bins)
        tallest = _draw_bars(ax, values, weight, edges)
    if len(present):
        all_ends = np.concatenate([values, means - _REACH * scales, means + _REACH * scales])
        ends = limits or (np.min(all_ends), np.max(all_ends))
        highest = _draw_densities(ax, line_of_feature, present, ends, small=small)
        if tallest > 0 and highest > _SPIKE * tallest:
            ax.set_ylim(0, _TOP * tallest)
    if limits is not None:
        ax.set_xlim(limits)
    if labels and len(present) <= MOST_LABELS:
        heights = line_of_feature.weights[present] / (scales * np.sqrt(2 * np.pi))
        for k, mean, height in zip(present, means, np.minimum(heights, ax.get_ylim()[1]), strict=True):
            write(ax, f"{line_of_feature.weights[k]:.0%}", (mean, height / 2), fontweight="bold")


def _draw_bars(ax: Axes, values: np.ndarray, weight: np.ndarray, edges: np.ndarray) -> float:
    """Bars whose area is their share of all samples. Returns the height of the tallest."""
    counts, _ = np.histogram(values, edges, weights=weight)
    heights = counts / np.sum(weight) / np.diff(edges)
    gap = 0.4 if len(counts) <= _MOST_SMALL else 0.0
    ax.bar(edges[:-1], heights, np.diff(edges), align="edge", color=PALE, edgecolor="white", linewidth=gap, zorder=1)
    return float(np.max(heights))


def _draw_densities(
    ax: Axes, mixture: Mixture, present: np.ndarray, ends: tuple[float, float], *, small: bool
) -> float:
    """A line for each component that is present, and one for their sum. Returns the height of the highest point."""
    weights, means = mixture.weights[present, None], mixture.means[present]
    scales = np.sqrt(mixture.covariances[present, 0])
    # Close together about each component, which may be narrow; means are among them, so that heights are right.
    about = (means + scales * np.linspace(-_REACH, _REACH, 71)).ravel()
    grid = np.unique([*np.linspace(*ends, 500), *about[(about >= ends[0]) & (about <= ends[1])]])
    densities = weights * np.exp(-0.5 * ((grid - means) / scales) ** 2) / (scales * np.sqrt(2 * np.pi))
    thin = 0.7 if small else 1.0
    for k, density in zip(present, densities, strict=True):
        ax.plot(grid, density, color=colour(k), linestyle=line(k), linewidth=3 * thin, zorder=2)
    # The sum is thinner, so that both lines are visible where it equals one component's density.
    total = densities.sum(axis=0)
    ax.plot(grid, total, color=INK, linewidth=1.2 * thin, zorder=3)
    return float(np.max(total))


def _edges(values: np.ndarray, weight: np.ndarray, scales: np.ndarray, shares: np.ndarray, most: int) -> np.ndarray:
    """Edges of bars of one width, by the rule of Freedman and Diaconis, over the bulk of the values.

    The rule is applied to all values and to each component, because the interquartile range of two separate modes is
    their distance. Components too narrow to be seen do not count. Edges lie between rounded values, such as integers.
    """
    low, high = bulk(values)
    shown = (values >= low) & (values <= high)
    values, weight = values[shown], weight[shown]
    if low == high:
        return np.histogram_bin_edges(values, _FEWEST)
    n = np.sum(weight) ** 2 / np.sum(weight**2)
    quartiles = np.quantile(values, (0.25, 0.75), weights=weight, method="inverted_cdf")
    seen = _SEEN * scales >= (high - low) / most
    ranges = np.append((_NORMAL * scales * shares ** (-1 / 3))[seen], np.diff(quartiles))
    width = _RANGES * np.min(ranges[ranges > 0], initial=high - low) / n ** (1 / 3)
    n_bars = np.clip((high - low) / width, _FEWEST, most)
    steps = np.diff(np.unique(values))
    # Smaller steps are of rounding in the arithmetic.
    step = np.min(steps[steps > 1e-9 * (high - low)])
    width = step * max(1, np.round((high - low) / n_bars / step))
    return low - step / 2 + width * np.arange(np.ceil((high - low + step) / width - 1e-6) + 1)
