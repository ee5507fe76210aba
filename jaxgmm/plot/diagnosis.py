"""plot.diagnosis: the checks of one fit in four panels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from jaxgmm.diagnosis import Diagnosis
from jaxgmm.plot.mixtures import names_of_features
from jaxgmm.plot.palette import (
    GREY,
    INK,
    PALE,
    axes_for_many,
    colour,
    halo,
    label_offsets,
    line,
    marker,
    say,
    verbatim,
    whole_or_none,
    without_frame,
)

# Number of features, those with the worst residuals, that have a line of their own.
_MOST_LINES = 3
# The Kolmogorov-Smirnov distance that is exceeded with a probability of 0.05, times √N, for large N.
_BAND = 1.358
_MOST_NUMBERS = 8
# Uncertainties below this are too close to the axis to be seen.
_LEAST_DOUBT = 0.01


@whole_or_none
def diagnosis(diagnosis: Diagnosis, *, ax: Any = None, names: Sequence[str] | None = None) -> np.ndarray:
    """Draws the checks of one fit in four panels.

    1. Residuals: the share of residuals below u, minus u. If the mixture is right, a line leaves the grey band in one
       of twenty tests.
    2. Samples of each component: the sum of its responsibilities, and its effective number of samples.
    3. Overlap of components: 0 for separate components, 1 for identical ones.
    4. Uncertainty: the share of the samples that are at least as uncertain, with the mean of every component. The axis
       ends where all components would be equally probable. Without doubt about any sample, words say so.

    Args:
        diagnosis: of one data set; select one of a batch with `diagnosis.of(b)`.
        ax: four axes; a new figure without it.
        names: of the features; without it those that the diagnosis has, as that of a group.

    Returns:
        the axes, in a row.

    Raises:
        ValueError: a diagnosis with a batch axis, or names of another number of features.
    """
    if not isinstance(diagnosis, Diagnosis):
        raise ValueError(f"plot.diagnosis draws what jaxgmm.diagnose returns; got {type(diagnosis).__name__}.")
    if diagnosis.weights.ndim != 1:
        raise ValueError(
            "plot.diagnosis draws one data set's diagnosis; this has a batch axis. Select one with diagnosis.of(b)."
        )
    n_features = diagnosis.pit.shape[1]
    own = None if diagnosis.features is None else list(map(verbatim, diagnosis.features))
    names = names_of_features(own if names is None else names, n_features)
    axes = axes_for_many(ax, 1, 4, (0, 0))[0] if ax is not None else axes_for_many(None, 2, 2, (4.2, 3.2)).ravel()
    weight = np.ones(len(diagnosis.pit)) if diagnosis.sample_weight is None else diagnosis.sample_weight
    counted = weight > 0
    weight, present = weight[counted], np.flatnonzero(diagnosis.weights > 0)
    # The first feature has none before it, so both kinds of its residuals are the same.
    residuals = np.concatenate([diagnosis.pit[:, 1:], diagnosis.marginal, diagnosis.radius[:, None]], axis=1)[counted]
    labels = [*(f"{name}, given the features before it" for name in names[1:]), *names, "radius"]
    _draw_residuals(axes[0], residuals, weight, diagnosis, labels)
    _draw_counts(axes[1], diagnosis, present)
    _draw_overlap(axes[2], np.exp(-diagnosis.separation[np.ix_(present, present)]), present)
    _draw_uncertainty(axes[3], diagnosis, present, diagnosis.uncertainty[counted], weight)
    for panel in axes:
        panel.title.set_fontsize("medium")
        without_frame(panel)
    label_offsets(*axes)
    return axes


def _draw_residuals(
    ax: Axes, residuals: np.ndarray, weight: np.ndarray, diagnosis: Diagnosis, labels: Sequence[str]
) -> None:
    """Lines for the worst features and the radius, thin lines for the others, and the band for one line."""
    misfits, p_values, last = diagnosis.misfits[1:], diagnosis.p_values[1:], len(labels) - 1
    worst = np.argsort(-misfits[:last], kind="stable")[:_MOST_LINES]
    band = _BAND * np.sqrt(np.sum(weight**2)) / np.sum(weight)
    ax.axhspan(-band, band, color=PALE, linewidth=0, zorder=0)
    ax.axhline(0, color="white", linewidth=1, zorder=1)
    for column, label in enumerate(labels):
        at, height = _excess(residuals[:, column], weight)
        if column not in worst and column < last:
            ax.plot(at, height, color=GREY, linewidth=0.6, zorder=2)
            continue
        number = int(np.count_nonzero(worst < column))
        style: dict[str, Any] = {"color": INK, "linestyle": "-", "linewidth": 2.2}
        if column < last:
            style = {"color": colour(number), "linestyle": line(number), "linewidth": 1.6}
        ax.plot(at, height, label=f"{label}: p {_rounded(p_values[column])}", zorder=3, **style)
    # The band is visible even if everything lies within it.
    half = 1.1 * max(1.6 * band, *misfits)
    ax.set(
        xlabel="residual u",
        ylabel="empirical CDF of residuals − u",
        title="residuals of a correct mixture are uniform",
    )
    ax.set(xlim=(0, 1), ylim=(-half, 2 * half))
    ax.legend(frameon=False, fontsize="small", borderpad=0, loc="upper left")


def _excess(u: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Excess of the distribution of u over the uniform one: corners before and after each sample."""
    order = np.argsort(u)
    u, jumps = u[order], weight[order] / np.sum(weight)
    after = np.cumsum(jumps)
    at = np.concatenate([[0], np.repeat(u, 2), [1]])
    return at, np.concatenate([[0], np.stack([after - jumps, after], axis=1).ravel(), [1]]) - at


def _draw_counts(ax: Axes, diagnosis: Diagnosis, present: np.ndarray) -> None:
    rows = np.arange(len(present))
    counts, effective = diagnosis.counts[present], diagnosis.effective_counts[present]
    ax.barh(rows, counts, color=[colour(k) for k in present], alpha=0.75, height=0.6, label="sum of responsibilities")
    ax.plot(effective, rows, "|", color=INK, markersize=16, markeredgewidth=2.5, label="effective samples")
    for row, k in enumerate(present):
        ax.text(0, row, f" {diagnosis.weights[k]:.0%}", va="center", path_effects=halo(), color=INK)
    ax.set(ylabel="component", xlabel="samples (bar), effective samples (stroke)", title="samples of components")
    ax.set_yticks(rows, [str(k) for k in present])
    ax.set_ylim(max(len(present), 3) - 0.5, -0.5)


def _draw_overlap(ax: Axes, overlap: np.ndarray, present: np.ndarray) -> None:
    """Every pair once: rows from the second component on, columns up to the last but one."""
    ax.set(xlabel="component", ylabel="component", title="overlap of components, from 0 to 1")
    k = len(present)
    if k < 2:
        ax.set(xticks=[], yticks=[])
        say(ax, "no pair")
        return
    pairs = np.ma.masked_array(overlap[1:, :-1], mask=~np.tri(k - 1, dtype=bool))
    ax.pcolormesh(pairs, vmin=0, vmax=1, cmap="Greys", edgecolors=PALE, linewidth=1)
    if k <= _MOST_NUMBERS:
        for i in range(k - 1):
            for j in range(i + 1):
                ink = "white" if pairs[i, j] > 0.5 else INK
                ax.text(j + 0.5, i + 0.5, f"{pairs[i, j]:.2f}", ha="center", va="center", color=ink)
    ax.set_xticks(np.arange(k - 1) + 0.5, [str(component) for component in present[:-1]])
    ax.set_yticks(np.arange(k - 1) + 0.5, [str(component) for component in present[1:]])
    ax.invert_yaxis()
    ax.tick_params(length=0)


def _draw_uncertainty(
    ax: Axes, diagnosis: Diagnosis, present: np.ndarray, uncertainty: np.ndarray, weight: np.ndarray
) -> None:
    ax.set(
        xlabel="uncertainty of the assignment",
        ylabel="share at least as uncertain",
        title="uncertainty of assignments",
    )
    if len(present) and np.all(uncertainty < _LEAST_DOUBT):
        ax.set(xticks=[], yticks=[])
        say(ax, f"no doubt: every sample\nhas a component of\na probability above {1 - _LEAST_DOUBT:.0%}")
        return
    order = np.argsort(-uncertainty)
    at, share = uncertainty[order], np.cumsum(weight[order]) / np.sum(weight)
    most = 1 - 1 / max(2, len(present))
    ax.step([most, *at, 0], [0, *share, 1], where="post", color=INK, linewidth=1.8)
    for k in present:
        mean = diagnosis.component_uncertainty[k]
        height = np.sum(weight[uncertainty >= mean]) / np.sum(weight)
        style = {"color": colour(k), "marker": marker(k), "markersize": 9, "linestyle": "none", "clip_on": False}
        ax.plot(mean, height, label=f"mean of {k}: {mean:.2f}", zorder=3, **style)
    ax.set(xlim=(0, most), ylim=(0, 1))
    if 0 < len(present) <= _MOST_NUMBERS:
        ax.legend(frameon=False, fontsize="small", loc="upper right")


def _rounded(p_value: float) -> str:
    if np.isnan(p_value):
        return "unknown"
    return f"= {p_value:.2f}" if p_value >= 0.01 else "< 0.01" if p_value >= 0.001 else "< 0.001"
