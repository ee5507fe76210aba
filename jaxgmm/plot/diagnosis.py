"""The picture of a diagnosis."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from jaxgmm.diagnosis import Diagnosis
from jaxgmm.plot.palette import GREY, INK, PALE, axes_for_many, colour, halo, line, marker, without_frame

# Of the features, so many of the worst have a line of their own.
_MOST_LINES = 3
# The Kolmogorov-Smirnov distance that is exceeded with a probability of 0.05, times √N, for large N.
_BAND = 1.358
_MOST_NUMBERS = 8


def diagnosis(diagnosis: Diagnosis, *, ax: Any = None) -> np.ndarray:
    """Draws the checks of one fit in four panels.

    1. Residuals: by how much more of them lie below u than should. Lines beyond the grey band would come about in one
       of twenty tests of a mixture that is right.
    2. Samples of each component: the sum of its responsibilities, and its effective number of samples.
    3. Overlap of components, which is 0 for those apart and 1 for those that are the same.
    4. Uncertainty: the share of the samples that are less certain than this, with the mean of every component.

    Args:
        diagnosis: of one data set; take one of a batch with `diagnosis.of(b)`.
        ax: four axes; a new figure without it.

    Returns:
        the axes, in a row.

    Raises:
        ValueError: a diagnosis with a batch axis.
    """
    if diagnosis.weights.ndim != 1:
        raise ValueError(
            "the diagnosis of one data set is drawn; this has a batch axis. Take one with diagnosis.of(b)."
        )
    axes = axes_for_many(ax, 1, 4, (3.2, 3.2))[0] if ax is not None else axes_for_many(None, 2, 2, (4.0, 3.3)).ravel()
    weight = diagnosis.sample_weight
    weight = np.ones(len(diagnosis.pit)) if weight is None else np.asarray(weight)
    counted = weight > 0
    present = np.flatnonzero(diagnosis.weights > 0)
    residuals = np.concatenate([diagnosis.pit, diagnosis.radius[:, None]], axis=1)[counted]
    _draw_residuals(axes[0], residuals, weight[counted], diagnosis.misfits, diagnosis.p_values)
    _draw_counts(axes[1], diagnosis, present)
    _draw_overlap(axes[2], np.exp(-diagnosis.separation[np.ix_(present, present)]), present)
    _draw_uncertainty(axes[3], diagnosis, present, weight)
    return axes


def _draw_residuals(
    ax: Axes, residuals: np.ndarray, weight: np.ndarray, misfits: np.ndarray, p_values: np.ndarray
) -> None:
    n_features = residuals.shape[1] - 1
    labels = [f"feature {d}" for d in range(n_features)] + ["radius"]
    worst = set(np.argsort(-misfits[:n_features])[:_MOST_LINES].tolist()) | {n_features}
    band = _BAND * np.sqrt(np.sum(weight**2)) / np.sum(weight) if len(weight) else np.nan
    ax.axhspan(-band, band, color=PALE, zorder=0)
    ax.axhline(0, color="white", linewidth=1, zorder=1)
    number = 0
    for column, label in enumerate(labels):
        order = np.argsort(residuals[:, column])
        u, jumps = residuals[order, column], weight[order] / np.sum(weight)
        after = np.cumsum(jumps)
        # A corner before and after each jump, as the largest distance is at one of them.
        at = np.concatenate([[0], np.repeat(u, 2), [1]])
        height = np.concatenate([[0], np.stack([after - jumps, after], axis=1).ravel(), [1]]) - at
        if column in worst:
            is_radius = column == n_features
            style = (
                {"color": INK, "linestyle": "-"} if is_radius else {"color": colour(number), "linestyle": line(number)}
            )
            number += not is_radius
            ax.plot(at, height, linewidth=1.6, label=f"{label}: p = {_rounded(p_values[column])}", zorder=3, **style)
        else:
            ax.plot(at, height, color=GREY, linewidth=0.6, zorder=2)
    ax.set(xlabel="residual u", ylabel="share below u, less u", title="residuals, uniform if the mixture is right")
    ax.legend(frameon=False, fontsize="small")
    without_frame(ax)


def _draw_counts(ax: Axes, diagnosis: Diagnosis, present: np.ndarray) -> None:
    rows = np.arange(len(present))
    ax.barh(rows, diagnosis.counts[present], color=[colour(k) for k in present], alpha=0.75, height=0.6)
    ax.plot(
        diagnosis.effective_counts[present], rows, "|", color=INK, markersize=16, markeredgewidth=2.5, linestyle="none"
    )
    for row, k in enumerate(present):
        ax.text(0, row, f" {diagnosis.weights[k]:.0%}", va="center", path_effects=halo(), color=INK)
    ax.set(ylabel="component", xlabel="samples (bar) and effective samples (stroke)", title="samples of components")
    ax.set_yticks(rows, [str(k) for k in present])
    ax.invert_yaxis()
    without_frame(ax)


def _draw_overlap(ax: Axes, overlap: np.ndarray, present: np.ndarray) -> None:
    k = len(present)
    shown = np.where(np.tri(k, k, -1, dtype=bool), overlap, np.nan)
    ax.imshow(shown, vmin=0, vmax=1, cmap="Greys", aspect="auto")
    if k <= _MOST_NUMBERS:
        for i in range(k):
            for j in range(i):
                dark = overlap[i, j] > 0.5
                ax.text(j, i, f"{overlap[i, j]:.2f}", ha="center", va="center", color="white" if dark else INK)
    ax.set_xticks(np.arange(k), [str(component) for component in present])
    ax.set_yticks(np.arange(k), [str(component) for component in present])
    ax.set(xlabel="component", ylabel="component", title="overlap of components")
    without_frame(ax)


def _draw_uncertainty(ax: Axes, diagnosis: Diagnosis, present: np.ndarray, weight: np.ndarray) -> None:
    order = np.argsort(-diagnosis.uncertainty)
    share = np.cumsum(weight[order]) / np.sum(weight)
    ax.step(diagnosis.uncertainty[order], share, where="post", color=INK, linewidth=1.6)
    for k in present:
        ax.plot(
            diagnosis.component_uncertainty[k], 0, marker(k), color=colour(k), markersize=9, clip_on=False, zorder=3
        )
    ax.set(xlabel="uncertainty", ylabel="share of less certain samples", title="uncertainty of assignments")
    ax.set_xlim(left=0)
    ax.set_ylim(0, 1)
    without_frame(ax)


def _rounded(p_value: float) -> str:
    return f"{p_value:.2f}" if p_value >= 0.01 else f"{p_value:.0e}"
