"""Samples of two features with the ellipses or contours of a mixture."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Ellipse

from jaxgmm.density import predict
from jaxgmm.engine.devices import power_of_two_above
from jaxgmm.mixture import Mixture, full_covariances
from jaxgmm.plot.contours import draw_contours
from jaxgmm.plot.limits import is_far, limits_of_bulk
from jaxgmm.plot.palette import GREY, MOST_LABELS, colour, halo, marker, write


def marginal(mixture: Mixture, features: Sequence[int]) -> Mixture:
    """The marginal mixture of some features, with covariance matrices; absent and NaN components get weight 0."""
    chosen, covariances = list(features), full_covariances(mixture)
    finite = np.isfinite(mixture.means).all(axis=1) & np.isfinite(covariances).all(axis=(1, 2))
    present = (mixture.weights > 0) & finite
    return Mixture(
        np.where(present, mixture.weights, 0.0),
        np.where(present[:, None], mixture.means, 0.0)[:, chosen],
        np.where(present[:, None, None], covariances, np.eye(mixture.n_features))[:, chosen][:, :, chosen],
    )


# More points than these cover each other; the number of them in each cell says more, and is drawn sooner.
_MOST_POINTS, _MOST_POINTS_SMALL = 30_000, 10_000
_GREYS = LinearSegmentedColormap.from_list("counts", ["0.95", "0.6"])


def draw_plane(
    ax: Axes,
    mixture: Mixture,
    samples: np.ndarray,
    features: tuple[int, int],
    *,
    contours: bool = False,
    labels: bool = False,
    small: bool = False,
) -> None:
    """Samples and ellipses or contours of two features, on axes that follow the bulk of the samples."""
    plane = marginal(mixture, features)
    present = np.flatnonzero(plane.weights > 0).tolist()
    points = samples[:, features]
    far = is_far(points)
    draw_samples(ax, mixture, samples[~far], features, small=small)
    limits = _limits(points, plane, 3 if contours else 2) if np.any(far) else None
    if contours and len(present):
        draw_contours(ax, plane, points, limits, labels=labels)
    else:
        for k in present:
            _draw_ellipses(ax, k, plane, small=small)
    ax.autoscale_view()
    if limits is not None:
        ax.set(xlim=limits[0], ylim=limits[1])
    if labels and not contours and len(present) <= MOST_LABELS:
        for k in present:
            write(ax, f"{plane.weights[k]:.0%}", plane.means[k], fontweight="bold")


def _limits(points: np.ndarray, plane: Mixture, n_deviations: float) -> list[tuple[float, float]]:
    """Limits of both axes that show the bulk of the samples and some standard deviations of the components there."""
    present = plane.weights > 0
    reaches = n_deviations * np.sqrt(np.diagonal(plane.covariances, axis1=1, axis2=2))
    return [limits_of_bulk(points[:, d], plane.means[present, d], reaches[present, d]) for d in (0, 1)]


def draw_samples(
    ax: Axes, mixture: Mixture, samples: np.ndarray, features: tuple[int, int], *, small: bool = False
) -> None:
    """Samples in the colours and markers of their components; grey without a component, and where they are many."""
    if len(samples) == 0:
        return
    if len(samples) > (_MOST_POINTS_SMALL if small else _MOST_POINTS):
        _draw_counts(ax, samples[:, features], small=small)
        return
    component = most_probable(mixture, samples)
    area = np.clip(4000 / len(samples), 1.5, 18) / (3 if small else 1)
    for k in np.unique(component):
        # Markers that cover a pixel or less are rendered unevenly, unless they are round.
        kind = {"color": GREY, "marker": "."}
        if k >= 0:
            kind = {"color": colour(k), "marker": marker(k) if area > 3 else "o"}
        ax.scatter(
            *samples[component == k][:, features].T,
            s=area,
            alpha=np.clip(60 / np.sqrt(len(samples)), 0.15, 0.65),
            linewidths=0,
            rasterized=len(samples) > 2000,
            zorder=1,
            **kind,
        )


def _draw_counts(ax: Axes, points: np.ndarray, *, small: bool) -> None:
    """The number of samples in each cell, in light greys, so that lines above them keep their colours."""
    x, y = points[np.isfinite(points).all(axis=1)].T
    cells = 40 if small else 90
    ax.hexbin(x, y, gridsize=cells, bins="log", mincnt=1, cmap=_GREYS, linewidths=0.2, rasterized=True, zorder=1)


def most_probable(mixture: Mixture, samples: np.ndarray) -> np.ndarray:
    """The component of each sample, or -1."""
    # Padded to powers of two, so that pictures of many data sets share a program.
    rows = np.zeros((max(32, power_of_two_above(len(samples))), samples.shape[1]))
    rows[: len(samples)] = samples
    return np.asarray(predict(mixture, rows))[: len(samples)]


def _draw_ellipses(ax: Axes, k: int, plane: Mixture, *, small: bool) -> None:
    variances, axes = np.linalg.eigh(plane.covariances[k])
    widths = 2 * np.sqrt(np.maximum(variances, 0.0))
    angle = np.degrees(np.arctan2(axes[1, 1], axes[0, 1]))
    thickness = (0.7 if small else 1.0) + (1.3 if small else 2.5) * plane.weights[k]
    for n_deviations in (1, 2):
        ellipse = Ellipse(
            tuple(plane.means[k]),
            n_deviations * widths[1],
            n_deviations * widths[0],
            angle=angle,
            fill=False,
            edgecolor=colour(k),
            linewidth=thickness,
            linestyle="-" if n_deviations == 1 else (0, (4, 2)),
            path_effects=halo(thickness + 0.8),
            zorder=3,
        )
        ax.add_patch(ellipse)
