"""Lines of equal density of a mixture of two features.

A grid over the whole picture would show a component narrower than its cells as a row of beads. Such a component has a
grid of its own, along its axes, and the grid of the picture leaves its place out.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from jaxgmm.density import log_prob
from jaxgmm.mixture import Mixture
from jaxgmm.plot.palette import INK, halo, write

# Shares of the mass within a contour.
MASSES = (0.5, 0.8, 0.95)
_DRAWS = 4096
# What is shown about each component at least, and the margin about everything, as a share of its size.
_FEWEST_DEVIATIONS, _MARGIN = 2.0, 0.05
# Points of a grid along each of its axes, and those of them beyond each end of a component.
_GRID, _BEYOND = 160, 8
# A grid shows a component if no step is longer than this many of its standard deviations.
_LONGEST_STEP = 0.5


class _Grid(NamedTuple):
    points: np.ndarray  # (_GRID, _GRID, 2)
    steps: np.ndarray  # along both axes, (2, 2)


class _Place(NamedTuple):
    """Where the density of one component is not far below the lowest contour."""

    mean: np.ndarray
    axes: np.ndarray  # unit vectors, (2, 2)
    reaches: np.ndarray  # along them, (2,)


def draw_contours(
    ax: Axes, plane: Mixture, points: np.ndarray, limits: Sequence[tuple[float, float]] | None, *, labels: bool
) -> None:
    """Lines around shares of the mass, within limits or else wherever there are points or components."""
    present = np.flatnonzero(plane.weights > 0)
    plane = plane.map(lambda leaf: leaf[present])
    names = _levels(plane)
    radii = _radii(plane, min(names))
    low, high = np.transpose(limits) if limits else _corners(plane, radii, points)
    whole = _rectangle(low, high)
    is_narrow = ~_is_shown(plane, whole)
    places = [_place(plane, k, radii[k]) for k in np.flatnonzero(is_narrow).tolist()]
    masked = np.any([_is_within(place, whole.points) for place in places], axis=0) if places else False
    segments = {level: [] for level in names}
    margin = 2 * float(np.max(np.linalg.norm(whole.steps, axis=1)))
    for grid in (whole, *(_about(place, margin) for place in places)):
        shown = _is_shown(plane, grid)
        if np.any(shown):
            density = _density(plane, grid.points, shown)
            density = np.ma.masked_array(density, masked) if grid is whole else density
            _draw_lines(ax, grid, density, segments)
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    if labels:
        _label(ax, {names[level]: found for level, found in segments.items() if found}, high - low)


def _radii(plane: Mixture, lowest: float) -> np.ndarray:
    """At how many standard deviations the density of each component alone is that of the lowest contour; or 0."""
    variances, _ = _principal(plane.covariances)
    peaks = plane.weights / (2 * np.pi * np.sqrt(np.prod(variances, axis=1)))
    return np.sqrt(2 * np.maximum(0.0, np.log(peaks / lowest)))


def _corners(plane: Mixture, radii: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest of points and contours, with a margin."""
    deviations = np.sqrt(np.diagonal(plane.covariances, axis1=1, axis2=2))
    spread = np.maximum(radii, _FEWEST_DEVIATIONS)[:, None] * deviations
    corners = [*(plane.means - spread), *(plane.means + spread), *points[np.isfinite(points).all(axis=1)]]
    low, high = np.min(corners, axis=0), np.max(corners, axis=0)
    return low - _MARGIN * (high - low), high + _MARGIN * (high - low)


def _levels(plane: Mixture) -> dict[float, str]:
    """The density at the edge of each share of the mass, from the lowest, and the share in words.

    The mass above a density is its share of samples drawn (Hyndman, 1996, "Computing and graphing highest density
    regions"), with equal numbers from every component.
    """
    draws = np.random.default_rng(0).normal(size=(_DRAWS, 2))
    variances, axes = _principal(plane.covariances)
    drawn = plane.means[:, None] + (draws * np.sqrt(variances)[:, None]) @ axes
    density = _density(plane, drawn, np.ones(len(plane.weights), bool)).ravel()
    order = np.argsort(density)[::-1]
    share = np.cumsum(np.repeat(plane.weights, _DRAWS)[order])
    edges = np.searchsorted(share / share[-1], sorted(MASSES, reverse=True))
    return {float(density[order[edge]]): f"{mass:.0%}" for edge, mass in zip(edges, sorted(MASSES)[::-1], strict=True)}


def _density(plane: Mixture, points: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """The density of some of the components at points (…, 2)."""
    some = Mixture(np.where(shown, plane.weights, 0.0), plane.means, plane.covariances)
    return np.exp(np.asarray(log_prob(some, points.reshape(-1, 2)))).reshape(points.shape[:-1])


def _principal(covariances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variances (K, 2) along the axes of covariances, and the axes, (K, 2, 2) in rows."""
    variances, columns = np.linalg.eigh(covariances)
    # Rounding may leave a variance of 0 or less.
    least = np.finfo(float).eps * variances[:, 1:]
    return np.maximum(variances, least), columns.swapaxes(1, 2)


def _rectangle(low: np.ndarray, high: np.ndarray) -> _Grid:
    """A grid of the whole picture."""
    sides = np.linspace(low, high, _GRID)
    return _Grid(np.stack(np.meshgrid(*sides.T), axis=-1), np.diag(sides[1] - sides[0]))


def _place(plane: Mixture, k: int, radius: float) -> _Place:
    """The place of one component, outside of which K components like it would be below the lowest contour together."""
    (variances,), (axes,) = _principal(plane.covariances[[k]])
    return _Place(plane.means[k], axes, np.sqrt((radius**2 + 2 * np.log(len(plane.weights))) * variances))


def _about(place: _Place, margin: float) -> _Grid:
    """A grid along the axes of one component, which goes beyond its place by a margin."""
    inner = np.linspace(-1, 1, _GRID - 2 * _BEYOND)
    beyond = np.linspace(0, margin, _BEYOND + 1)[1:]
    sides = [np.concatenate([-reach - beyond[::-1], reach * inner, reach + beyond]) for reach in place.reaches]
    along = np.stack(np.meshgrid(*sides), axis=-1)
    return _Grid(place.mean + along @ place.axes, (inner[1] - inner[0]) * place.reaches[:, None] * place.axes)


def _is_within(place: _Place, points: np.ndarray) -> np.ndarray:
    return np.all(np.abs((points - place.mean) @ place.axes.T) < place.reaches, axis=-1)


def _is_shown(plane: Mixture, grid: _Grid) -> np.ndarray:
    """Which components are wide enough for the steps of a grid."""
    variances, axes = _principal(plane.covariances)
    lengths = np.einsum("kij,aj->kai", axes, grid.steps) / np.sqrt(variances)[:, None]
    return np.all(np.sum(lengths**2, axis=2) <= _LONGEST_STEP**2, axis=1)


def _draw_lines(ax: Axes, grid: _Grid, density: np.ndarray, segments: dict[float, list[np.ndarray]]) -> None:
    """Draws the lines within one grid, and adds them to the segments of each level."""
    levels = [level for level in segments if np.min(density) < level < np.max(density)]
    if not levels:
        return
    horizontal, vertical = np.moveaxis(grid.points, -1, 0)
    lines = ax.contour(horizontal, vertical, density, levels, colors=INK, linewidths=1.2, zorder=3)
    lines.set_path_effects(halo())
    for level, found in zip(levels, lines.allsegs, strict=True):
        segments[level] += [segment for segment in found if len(segment)]


def _label(ax: Axes, segments: dict[str, list[np.ndarray]], size: np.ndarray) -> None:
    """One label for each level, from the outermost to the innermost, as close together as possible."""
    at = None
    for name, found in segments.items():
        at = max(found, key=len)[0] if at is None else at
        tops = [segment[np.argmax(segment[:, 1])] for segment in found]
        at = min(tops, key=lambda top, before=at: np.linalg.norm((top - before) / size))
        write(ax, name, at, fontsize="small")
