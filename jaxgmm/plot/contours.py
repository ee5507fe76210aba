"""Lines of equal density of a mixture of two features."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from jaxgmm.density import log_prob
from jaxgmm.mixture import Mixture
from jaxgmm.plot.palette import INK, halo, write

# Shares of the mass within a contour.
MASSES = (0.5, 0.8, 0.95)
_GRID, _DRAWS = 160, 4096


def draw_contours(
    ax: Axes, plane: Mixture, points: np.ndarray, limits: Sequence[tuple[float, float]] | None, *, labels: bool
) -> None:
    """Lines around shares of the mass, within limits or else wherever there are points or components."""
    spread = 3 * np.sqrt(np.diagonal(plane.covariances, axis1=1, axis2=2))
    present = plane.weights > 0
    corners = [*(plane.means - spread)[present], *(plane.means + spread)[present]]
    corners += list(points[np.isfinite(points).all(axis=1)])
    low, high = np.transpose(limits) if limits else (np.min(corners, axis=0), np.max(corners, axis=0))
    # The grid is also fine around the components, which may be narrow compared with the picture.
    about = (plane.means[present] + spread[present] * at for at in np.linspace(-1, 1, _GRID // 4))
    about = np.concatenate(list(about))
    horizontal, vertical = (
        np.unique(np.concatenate([np.linspace(a, b, _GRID), own])) for a, b, own in zip(low, high, about.T, strict=True)
    )
    grid = np.stack(np.meshgrid(horizontal, vertical), axis=-1)
    density = np.exp(np.asarray(log_prob(plane, grid.reshape(-1, 2)))).reshape(grid.shape[:-1])
    # The mass above a density is its share of samples drawn (Hyndman, 1996, "Computing and graphing highest density
    # regions"), with equal numbers from every component.
    draws = np.random.default_rng(0).normal(size=(_DRAWS, 2))
    drawn = plane.means[present][:, None] + draws @ np.linalg.cholesky(plane.covariances[present]).swapaxes(1, 2)
    of_drawn = np.exp(np.asarray(log_prob(plane, drawn.reshape(-1, 2))))
    order = np.argsort(of_drawn)[::-1]
    descending = of_drawn[order]
    share = np.cumsum(np.repeat(plane.weights[present], _DRAWS)[order])
    share /= share[-1]
    # The density at the edge of each share, from the largest share to the smallest.
    edges = {descending[np.searchsorted(share, mass)]: f"{mass:.0%}" for mass in sorted(MASSES, reverse=True)}
    lines = ax.contour(horizontal, vertical, density, sorted(edges), colors=INK, linewidths=1.2, zorder=3)
    lines.set_path_effects(halo())
    if labels:
        # One label for each level, from the outermost to the innermost, as close together as possible.
        at = max(lines.allsegs[0], key=len)[0]
        for segments, density_there in zip(lines.allsegs, lines.levels, strict=True):
            tops = [segment[np.argmax(segment[:, 1])] for segment in segments if len(segment)]
            at = min(tops, key=lambda top, before=at: np.linalg.norm((top - before) / (high - low)))
            write(ax, edges[density_there], at, fontsize="small")
