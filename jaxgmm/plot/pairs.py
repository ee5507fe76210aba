"""A mixture of more than two features, pair by pair."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxgmm.mixture import Mixture
from jaxgmm.plot.histograms import draw_histogram
from jaxgmm.plot.limits import say_outside
from jaxgmm.plot.mixtures import checked_weight, names_of_features, of_group, one_data_set, one_mixture
from jaxgmm.plot.palette import axes_for_many, label_offsets, whole_or_none, without_frame
from jaxgmm.plot.planes import draw_plane, marginal


@whole_or_none
def pairs(
    mixture: Mixture,
    x: Any = None,
    *,
    ax: Any = None,
    names: Sequence[str] | None = None,
    sample_weight: Any = None,
) -> np.ndarray:
    """Draws every pair of features below the diagonal, as in `plot.mixture`, and every feature's histogram on it.

    Axes follow the bulk of the samples; the histogram of a feature says how many are outside.

    Args:
        mixture: one mixture of two features or more, or a fit, as for `plot.mixture`.
        x: samples `(N, D)`, or None.
        ax: `(D, D)` axes; a new figure without it. Those above the diagonal are hidden.
        names: of the features.
        sample_weight: `(N,)`; samples of weight 0 are not drawn.

    Returns:
        the axes, `(D, D)`.

    Raises:
        ValueError: a batch of mixtures, one feature, or samples of another number of features.
    """
    given, mixture = mixture, one_mixture(mixture)
    x, names, sample_weight, title = of_group(given, x, names, sample_weight)
    samples, d = one_data_set(x, mixture), mixture.n_features
    names = names_of_features(names, d)
    if d < 2:
        raise ValueError("plot.pairs draws mixtures of two features or more; this one has one. Use plot.histogram.")
    weight = None if sample_weight is None else checked_weight(sample_weight, samples)
    drawn = samples if weight is None else samples[weight > 0]
    axes = axes_for_many(ax, d, d, (1.9, 1.8))
    for row in range(d):
        for column in range(d):
            panel = axes[row, column]
            if column > row:
                panel.set_visible(False)
                continue
            if column == row:
                draw_histogram(panel, marginal(mixture, (row,)), samples[:, row], weight=weight, small=True)
                panel.set_yticks([])
            else:
                draw_plane(panel, mixture, drawn, (column, row), small=True)
            without_frame(panel)
            _label_outside(panel, row, column, names)
    # A feature has the same scale in all of its panels, including its histogram.
    for column in range(d):
        below = axes[column:, column]
        limits = np.array([panel.get_xlim() for panel in below])
        for panel in below:
            panel.set_xlim(limits[:, 0].min(), limits[:, 1].max())
        say_outside(axes[column, column], drawn[:, column, None])
    for row in range(1, d):
        for panel in axes[row, :row]:
            panel.set_ylim(axes[row, row].get_xlim())
    label_offsets(*axes[np.tril_indices(d)], small=True)
    axes[0, 0].set_title(title)
    return axes


def _label_outside(panel: Any, row: int, column: int, names: Sequence[str]) -> None:
    """Names and numbers at the left and at the bottom only."""
    last = len(names) - 1
    panel.tick_params(labelsize="small", labelbottom=row == last, labelleft=column == 0 and row > 0)
    if row == last:
        panel.set_xlabel(names[column])
    if column == 0:
        panel.set_ylabel(names[row])
    if row == column:
        panel.spines["left"].set_visible(False)
