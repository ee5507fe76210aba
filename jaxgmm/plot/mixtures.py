"""One mixture: its samples with ellipses or contours in the plane, or a histogram of one feature."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from jaxgmm.driver.arguments import numeric_mixture
from jaxgmm.engine.arrays import numeric
from jaxgmm.mixture import Mixture, as_mixture
from jaxgmm.plot.histograms import draw_histogram
from jaxgmm.plot.limits import say_outside
from jaxgmm.plot.palette import axes_for_one, label_offsets, verbatim, whole_or_none, without_frame
from jaxgmm.plot.planes import draw_plane, marginal
from jaxgmm.record import check_some
from jaxgmm.settings import is_integer


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

    Samples have the colour and marker of their most probable component, given all features; of more than 30,000, their
    number in each cell is drawn in grey. Ellipses are those of the marginal distribution of the two features; their
    line width grows with the component's weight, which is written at its mean. Axes follow the bulk of the samples;
    words say how many samples, sentinels and far outliers, are outside.

    Args:
        mixture: one mixture, or the fit of one data set; for D = 1, `histogram` is drawn. The `GroupFit` of a group
            has samples, names and weights of its own, and a title.
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
    given, mixture = mixture, one_mixture(mixture)
    if mixture.n_features == 1:
        return histogram(given, x, ax=ax, names=names, sample_weight=sample_weight)
    x, names, sample_weight, title = of_group(given, x, names, sample_weight)
    samples = one_data_set(x, mixture)
    names, (i, j) = names_of_features(names, mixture.n_features), checked_features(features, mixture)
    if sample_weight is not None:
        samples = samples[checked_weight(sample_weight, samples) > 0]
    ax = axes_for_one(ax, (5.0, 4.2))
    draw_plane(ax, mixture, samples, (i, j), contours=contours, labels=True)
    say_outside(ax, samples[:, (i, j)], marginal(mixture, (i, j)))
    ax.set(xlabel=names[i], ylabel=names[j], title=title)
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

    Bars have the area of their share of all samples. The axis follows the bulk of the samples; words say how many,
    sentinels and far outliers, are outside. A density far higher than the bars leaves the picture at the top.

    Args:
        mixture: one mixture with D = 1, or a fit, as for `mixture`.
        x: samples `(N, 1)`, or None.
        ax: where to draw; a new figure without it.
        bins: as for `numpy.histogram`; by default, 8 to about 100 of one width, by the rule of Freedman and
            Diaconis for all samples and for each component.
        names: of the one feature.
        sample_weight: `(N,)`.

    Returns:
        the axes.

    Raises:
        ValueError: a batch of mixtures, or another number of features.
    """
    given, mixture = mixture, one_mixture(mixture)
    x, names, sample_weight, title = of_group(given, x, names, sample_weight)
    if mixture.n_features != 1:
        raise ValueError(
            f"plot.histogram draws mixtures of one feature; this one has {mixture.n_features}. Use plot.mixture or "
            "plot.pairs."
        )
    samples, names = one_data_set(x, mixture), names_of_features(names, mixture.n_features)
    weight = None if sample_weight is None else checked_weight(sample_weight, samples)
    ax = axes_for_one(ax, (5.0, 3.4))
    draw_histogram(ax, mixture, samples[:, 0], weight=weight, bins=bins, labels=True)
    say_outside(ax, samples if weight is None else samples[weight > 0], marginal(mixture, (0,)))
    ax.set(xlabel=names[0], ylabel="density", title=title)
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


def of_groups(fits: Any, names: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
    """Samples, names and weights of the fits of groups, as far as they are not given.

    Raises:
        ValueError: the fits have no samples.
    """
    if not hasattr(fits, "names"):
        raise ValueError(f"x must hold the samples of many fits: a {type(fits).__name__} has none of its own.")
    check_some(len(fits.names))
    own = fits.sample_weight if sample_weight is None else sample_weight
    return fits.x, list(map(verbatim, fits.names)) if names is None else names, own


def of_group(fit: Any, x: Any, names: Any, sample_weight: Any) -> tuple[Any, Any, Any, str]:
    """The same of one group, whose names are those of its features, if x is None; and its title, or no text."""
    if x is not None or not hasattr(fit, "features"):
        return x, names, sample_weight, ""
    own = fit.sample_weight if sample_weight is None else sample_weight
    return fit.x, list(map(verbatim, fit.features)) if names is None else names, own, verbatim(fit.name)


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
    chosen = tuple(int(feature) if is_integer(feature) else -1 for feature in features)
    if len(chosen) != 2 or chosen[0] == chosen[1] or not all(0 <= d < mixture.n_features for d in chosen):
        raise ValueError(f"features must be two different of 0 to {mixture.n_features - 1}; got {features!r}.")
    return chosen


def checked_weight(sample_weight: Any, samples: np.ndarray) -> np.ndarray:
    """Weights `(N,)` of samples."""
    weight = numeric(sample_weight, "sample_weight").astype(np.float64, copy=False)
    if weight.shape != samples.shape[:1]:
        raise ValueError(f"sample_weight must have shape {samples.shape[:1]} to match x; it has shape {weight.shape}.")
    if np.any(weight < 0):
        raise ValueError("sample_weight must not be negative. Give samples to be left out weight 0.")
    return weight
