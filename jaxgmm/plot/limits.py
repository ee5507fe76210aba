"""Limits of axes: they follow the bulk of the data, and words say how much lies outside."""

import numpy as np
from matplotlib.axes import Axes

from jaxgmm.mixture import Mixture
from jaxgmm.plot.palette import INK, halo
from jaxgmm.record import counted

# A value is far if it is this many interquartile ranges away from the quartiles: drawn, it would leave the others less
# than a fifth of the axis.
_FAR = 20
# More distinct values than this share, and than this number, are not left out, however far they are.
_SHARE, _FEW = 0.02, 2
# With fewer distinct values, such as counts, a sentinel may shift their quartiles.
_FEWEST_DISTINCT = 10
_MARGIN = 0.05


def bulk(values: np.ndarray) -> tuple[float, float]:
    """The range of finite values without sentinels such as -9999 and without a few far outliers; NaN without values."""
    values = values[np.isfinite(values)]
    distinct = np.unique(values)
    if len(distinct) == 0:
        return (np.nan, np.nan)
    low, high = _quartiles(values, distinct)
    with np.errstate(over="ignore"):
        reach = _FAR * (high - low)
        near = distinct[(distinct >= low - reach) & (distinct <= high + reach)]
    n_far = len(distinct) - len(near)
    shown = near if n_far <= max(_FEW, _SHARE * len(distinct)) else distinct
    return (float(shown[0]), float(shown[-1]))


def _quartiles(values: np.ndarray, distinct: np.ndarray) -> np.ndarray:
    """Quartiles of distinct values, among which a sentinel is one, however often it occurs; of all, if closer."""
    found = np.percentile(distinct, (25, 75))
    of_all = np.percentile(values, (25, 75))
    is_closer = len(distinct) < _FEWEST_DISTINCT and 0 < np.ptp(of_all) < np.ptp(found)
    return of_all if is_closer else found


def is_far(points: np.ndarray) -> np.ndarray:
    """Which points `(N, D)` are outside the bulk of any feature."""
    low, high = np.transpose([bulk(values) for values in points.T])
    return np.any(np.isfinite(points) & ((points < low) | (points > high)), axis=1)


def limits_of_bulk(values: np.ndarray, means: np.ndarray, reaches: np.ndarray) -> tuple[float, float]:
    """Limits of an axis that shows the bulk of values, and the components about it as far as they reach.

    A component that is far away, or so wide that it would dwarf the bulk, does not widen the axis by more than the
    length of the bulk at each end.
    """
    low, high = bulk(values)
    length = (high - low) or 1.0
    near = (means >= low - length) & (means <= high + length)
    ends = np.clip([(means - reaches)[near], (means + reaches)[near]], low - length, high + length)
    low, high = np.min(ends, initial=low), np.max(ends, initial=high)
    margin = _MARGIN * (high - low) or 1.0
    return (low - margin, high + margin)


def n_outside(ax: Axes, points: np.ndarray) -> int:
    """How many finite points, `(N, 1)` along x or `(N, 2)`, lie beyond the limits of the axes."""
    low, high = np.sort([ax.get_xlim(), ax.get_ylim()], axis=1)[: points.shape[1]].T
    is_finite = np.isfinite(points).all(axis=1)
    return int(np.count_nonzero(is_finite & np.any((points < low) | (points > high), axis=1)))


def say_outside(ax: Axes, points: np.ndarray, mixture: Mixture | None = None) -> None:
    """Says how many samples, and components of a mixture of as many features, lie beyond the limits of the axes."""
    found = {"sample": n_outside(ax, points)}
    if mixture is not None:
        found["component"] = n_outside(ax, mixture.means[mixture.weights > 0])
    if found["sample"]:
        write_outside(ax, ", ".join(counted(n, noun) for noun, n in found.items() if n))


def write_outside(ax: Axes, words: str) -> None:
    """Says in the corner of a picture what is outside."""
    place = {"ha": "right", "va": "top", "transform": ax.transAxes}
    ax.text(0.99, 0.99, f"outside: {words}", fontsize="small", color=INK, path_effects=halo(3), zorder=5, **place)
