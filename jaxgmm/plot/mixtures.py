"""One mixture: its samples with ellipses or contours in the plane, or a histogram of one feature."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse

from jaxgmm.density import log_prob, predict
from jaxgmm.driver.arguments import numeric_mixture
from jaxgmm.engine.arrays import numeric
from jaxgmm.engine.devices import power_of_two_above
from jaxgmm.mixture import Mixture, as_mixture, full_covariances
from jaxgmm.plot.palette import (
    GREY,
    INK,
    PALE,
    axes_for_one,
    colour,
    halo,
    label_offsets,
    line,
    marker,
    whole_or_none,
    without_frame,
)

# Shares of the mass within a contour.
MASSES = (0.5, 0.8, 0.95)
_GRID, _DRAWS = 160, 4096
# More labels than this hide the picture.
_MOST_LABELS = 12


@whole_or_none
def mixture(
    mixture: Mixture,
    x: Any = None,
    *,
    ax: Axes | None = None,
    features: Sequence[int] = (0, 1),
    contours: bool = False,
    names: Sequence[str] | None = None,
    sample_weight: Any = None,
) -> Axes:
    """Draws a mixture in the plane of two features: ellipses of one and two standard deviations, or contours.

    Samples have the colour and marker of their most probable component, given all features. Ellipses are those of the
    marginal distribution of the two features; their line width grows with the component's weight, which is written at
    its mean.

    Args:
        mixture: one mixture, or the fit of one data set; for D = 1, `histogram` is drawn.
        x: samples `(N, D)`, or None.
        ax: where to draw; a new figure without it.
        features: the two features, numbered from 0.
        contours: lines of equal density around 50, 80 and 95% of the mass, instead of ellipses.
        names: of all D features.
        sample_weight: `(N,)`; samples of weight 0 are not drawn.

    Returns:
        the axes.

    Raises:
        ValueError: a batch of mixtures, or samples of another number of features.
    """
    mixture = one_mixture(mixture)
    if mixture.n_features == 1:
        return histogram(mixture, x, ax=ax, names=names, sample_weight=sample_weight)
    samples = one_data_set(x, mixture)
    names, (i, j) = names_of_features(names, mixture.n_features), checked_features(features, mixture)
    if sample_weight is not None:
        samples = samples[checked_weight(sample_weight, samples) > 0]
    ax = axes_for_one(ax, (5.0, 4.2))
    draw_plane(ax, mixture, samples, (i, j), contours=contours, labels=True)
    ax.set(xlabel=names[i], ylabel=names[j])
    without_frame(ax)
    label_offsets(ax)
    return ax


@whole_or_none
def histogram(
    mixture: Mixture,
    x: Any = None,
    *,
    ax: Axes | None = None,
    bins: Any = None,
    names: Sequence[str] | None = None,
    sample_weight: Any = None,
) -> Axes:
    """Draws a histogram of one feature with the densities of the components and their sum.

    Args:
        mixture: one mixture with D = 1.
        x: samples `(N, 1)`, or None.
        ax: where to draw; a new figure without it.
        bins: as for `numpy.histogram`; by default, the rule of Freedman and Diaconis.
        names: of the one feature.
        sample_weight: `(N,)`.

    Returns:
        the axes.

    Raises:
        ValueError: a batch of mixtures, or another number of features.
    """
    mixture = one_mixture(mixture)
    if mixture.n_features != 1:
        raise ValueError(
            f"plot.histogram draws mixtures of one feature; this one has {mixture.n_features}. Use plot.mixture or "
            "plot.pairs."
        )
    samples, names = one_data_set(x, mixture), names_of_features(names, mixture.n_features)
    weight = None if sample_weight is None else checked_weight(sample_weight, samples)
    ax = axes_for_one(ax, (5.0, 3.4))
    draw_histogram(ax, mixture, samples[:, 0], weight=weight, bins=bins, labels=True)
    ax.set(xlabel=names[0], ylabel="density")
    without_frame(ax)
    label_offsets(ax)
    return ax


def one_mixture(mixture: Any) -> Mixture:
    """The mixture, or that of a result, in float64. Raises ValueError unless it is one mixture."""
    given = numeric_mixture(as_mixture(mixture))
    mixture = given.map(lambda leaf: leaf.astype(np.float64, copy=False))
    if mixture.weights.ndim != 1 or mixture.means.ndim != 2:
        raise ValueError(
            f"mixture must be one mixture, with weights (K,) and means (K, D); these have shapes "
            f"{mixture.weights.shape} and {mixture.means.shape}. Select one of a batch with mixture.of(b), or use "
            "plot.overview."
        )
    return mixture


def one_data_set(x: Any, mixture: Mixture) -> np.ndarray:
    """Samples `(N, D)`; an empty array for None."""
    if x is None:
        return np.empty((0, mixture.n_features))
    samples = numeric(x, "x").astype(np.float64, copy=False)
    if samples.ndim != 2 or samples.shape[1] != mixture.n_features:
        raise ValueError(
            f"x must be (N, {mixture.n_features}), with as many features as the mixture; its shape is {samples.shape}."
        )
    return samples


def names_of_features(names: Sequence[str] | None, n_features: int) -> Sequence[str]:
    """The names given, checked, or numbers of all features."""
    if names is None:
        return [f"feature {d}" for d in range(n_features)]
    if isinstance(names, str) or len(names) != n_features:
        raise ValueError(f"names must be of all {n_features} features; got {names!r}.")
    return names


def checked_features(features: Sequence[int], mixture: Mixture) -> tuple[int, int]:
    """Two different existing features."""
    chosen = tuple(int(feature) for feature in features)
    if len(chosen) != 2 or chosen[0] == chosen[1] or not all(0 <= d < mixture.n_features for d in chosen):
        raise ValueError(f"features must be two different of 0 to {mixture.n_features - 1}; got {features!r}.")
    return chosen


def checked_weight(sample_weight: Any, samples: np.ndarray) -> np.ndarray:
    """Weights `(N,)` of samples."""
    weight = numeric(sample_weight, "sample_weight").astype(np.float64, copy=False)
    if weight.shape != samples.shape[:1]:
        raise ValueError(f"sample_weight must have shape {samples.shape[:1]} to match x; it has shape {weight.shape}.")
    return weight


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
    """Samples and ellipses or contours of two features."""
    draw_samples(ax, mixture, samples, features, small=small)
    plane = marginal(mixture, features)
    present = np.flatnonzero(plane.weights > 0).tolist()
    if contours and len(present):
        _draw_contours(ax, plane, samples[:, features], labels=labels)
        return
    for k in present:
        _draw_ellipses(ax, k, plane, small=small)
    ax.autoscale_view()
    if labels and len(present) <= _MOST_LABELS:
        for k in present:
            _write(ax, f"{plane.weights[k]:.0%}", plane.means[k], fontweight="bold")


def draw_samples(
    ax: Axes, mixture: Mixture, samples: np.ndarray, features: tuple[int, int], *, small: bool = False
) -> None:
    """Samples in the colours and markers of their components; grey without a component."""
    if len(samples) == 0:
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


def _draw_contours(ax: Axes, plane: Mixture, samples: np.ndarray, *, labels: bool) -> None:
    """Lines around shares of the mass."""
    spread = 3 * np.sqrt(np.diagonal(plane.covariances, axis1=1, axis2=2))
    present = plane.weights > 0
    corners = [*(plane.means - spread)[present], *(plane.means + spread)[present]]
    corners += list(samples[np.isfinite(samples).all(axis=1)])
    low, high = np.min(corners, axis=0), np.max(corners, axis=0)
    # The grid is also fine around the components, which may be narrow compared with the picture.
    about = (plane.means[present] + spread[present] * at for at in np.linspace(-1, 1, _GRID // 4))
    about = np.concatenate(list(about))
    horizontal, vertical = (
        np.unique(np.concatenate([np.linspace(a, b, _GRID), own])) for a, b, own in zip(low, high, about.T, strict=True)
    )
    points = np.stack(np.meshgrid(horizontal, vertical), axis=-1)
    density = np.exp(np.asarray(log_prob(plane, points.reshape(-1, 2)))).reshape(points.shape[:-1])
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
            _write(ax, edges[density_there], at, fontsize="small")


def _write(ax: Axes, text: str, at: Any, **style: Any) -> None:
    """Text that is readable among samples."""
    horizontal, vertical = at
    options = {"ha": "center", "va": "center", "color": INK, "path_effects": halo(3), "clip_on": True, "zorder": 4}
    ax.text(horizontal, vertical, text, **options | style)


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
    is_finite = np.isfinite(values)
    values, weight = values[is_finite], None if weight is None else weight[is_finite]
    line_of_feature = marginal(mixture, (0,))
    present = np.flatnonzero(line_of_feature.weights > 0).tolist()
    if len(values):
        bins = _bins(values) if bins is None else bins
        ax.hist(values, bins, density=True, weights=weight, color=PALE, edgecolor="white", linewidth=0.4, zorder=1)
    if len(present) == 0:
        return
    means, scales = line_of_feature.means[:, 0], np.sqrt(line_of_feature.covariances[:, 0, 0])
    ends = [*values, *(means - 3.5 * scales)[present], *(means + 3.5 * scales)[present]]
    # Means are on the grid, so that narrow components keep their height.
    grid = np.unique(np.concatenate([np.linspace(min(ends), max(ends), 500), *_around(means, scales, present)]))
    z = (grid - means[:, None]) / scales[:, None]
    densities = line_of_feature.weights[:, None] * np.exp(-0.5 * z**2) / (scales[:, None] * np.sqrt(2 * np.pi))
    thin = 0.7 if small else 1.0
    for k in present:
        ax.plot(grid, densities[k], color=colour(k), linestyle=line(k), linewidth=3 * thin, zorder=2)
    # The sum is thinner, so that both lines are visible where it equals one component's density.
    ax.plot(grid, densities.sum(axis=0), color=INK, linewidth=1.2 * thin, zorder=3)
    if labels and len(present) <= _MOST_LABELS:
        for k in present:
            _write(ax, f"{line_of_feature.weights[k]:.0%}", (means[k], densities[k].max() / 2), fontweight="bold")


def _bins(values: np.ndarray) -> np.ndarray:
    """Edges by the rule of Freedman and Diaconis, 8 to 80 bars."""
    low, high = np.min(values), np.max(values)
    width = 2 * np.subtract(*np.percentile(values, (75, 25))) / len(values) ** (1 / 3)
    n_bars = np.clip((high - low) / width if width > 0 else 0, 8, 80)
    return np.histogram_bin_edges(values, int(np.ceil(n_bars)))


def _around(means: np.ndarray, scales: np.ndarray, present: list[int]) -> list[np.ndarray]:
    """Points about each component, close enough for a smooth line."""
    return [means[k] + scales[k] * np.linspace(-3.5, 3.5, 71) for k in present]
