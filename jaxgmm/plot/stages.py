"""plot.stages: the stages of a fit, as drawn in teaching notebooks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from jaxgmm.density import log_prob
from jaxgmm.mixture import Mixture
from jaxgmm.plot.histograms import draw_histogram
from jaxgmm.plot.limits import bulk, say_outside
from jaxgmm.plot.mixtures import checked_features, names_of_features, one_data_set, one_mixture
from jaxgmm.plot.palette import EMPHASIS, GREY, INK, axes_for_many, colour, label_offsets, whole_or_none, without_frame
from jaxgmm.plot.planes import draw_plane
from jaxgmm.record import counted
from jaxgmm.status import Status


@whole_or_none
def stages(
    result: Any,
    x: Any = None,
    iterations: Sequence[int] = (0, 1),
    *,
    ax: Any = None,
    features: Sequence[int] = (0, 1),
    names: Sequence[str] | None = None,
) -> np.ndarray:
    """Draws a fit at some of its iterations and at its end, and its log-likelihood by iteration.

    Args:
        result: the fit of one data set, a `FitResult` without batch axis that has `history` and `snapshots`, for
            example from `fit(x, 3, history=(0, 1))`.
        x: the data set, `(N, D)`.
        iterations: the iteration numbers given as `history`; 0 is the start.
        ax: one axes for each iteration, and two more; a new figure without it.
        features: which two features, if there are more.
        names: of all D features.

    Returns:
        the axes, in a row.

    Raises:
        ValueError: no fit or a batch of fits, a result without history or snapshots, or iterations other than those of
            its snapshots.
    """
    if not hasattr(result, "status"):
        remedy = " Of one group, pass its .result and its .x." if hasattr(result, "result") else ""
        raise ValueError(f"result must be a jaxgmm.FitResult; got {type(result).__name__}.{remedy}")
    if x is None:
        raise ValueError("x must hold the samples of the data set; got None.")
    if np.ndim(result.status) != 0:
        raise ValueError("plot.stages draws one fit; this result has a batch axis. Fit the data set alone.")
    snapshots, history = result.snapshots, result.history
    if snapshots is None or history is None:
        raise ValueError("result has no snapshots of its parameters; ask for them with fit(…, history=(0, 1)).")
    if len(snapshots.weights) != len(iterations):
        raise ValueError(f"result has {len(snapshots.weights)} snapshots; iterations names {len(iterations)}.")
    mixture = one_mixture(result.mixture)
    _check_numbers(x, mixture, snapshots, history, iterations)
    samples, names = one_data_set(x, mixture), names_of_features(names, mixture.n_features)
    axes = axes_for_many(ax, 1, len(iterations) + 2, (3.1, 3.2))[0]
    shown = [snapshots.of(s) for s in range(len(iterations))]
    titles = [_title(int(n)) for n in iterations]
    titles += [f"{Status(int(result.status)).name} after {counted(result.n_iter, 'iteration')}"]
    for panel, title, stage in zip(axes[:-1], titles, [*shown, mixture], strict=True):
        _draw_stage(panel, one_mixture(stage), samples, features, names)
        panel.set_title(title, fontsize="medium")
        if np.isnan(stage.weights).all():
            panel.text(0.5, 0.5, "no parameters", transform=panel.transAxes, ha="center", color=INK)
    for panel in axes[1:-1]:
        panel.set_ylabel("")
        panel.tick_params(labelleft=False)
    _draw_history(axes[-1], np.asarray(history), iterations, int(result.n_iter))
    label_offsets(*axes)
    return axes


def _check_numbers(
    x: Any, mixture: Mixture, snapshots: Mixture, history: np.ndarray, iterations: Sequence[int]
) -> None:
    """Raises ValueError if a snapshot's log-likelihood differs from that of the iteration it is said to belong to."""
    samples = one_data_set(x, mixture)

    def is_of(stage: Mixture, log_likelihood: float) -> bool:
        return bool(np.isclose(np.sum(log_prob(stage, samples)), log_likelihood, rtol=1e-3))

    ended = history[np.isfinite(history)]
    # With sample weights the log-likelihood is a different sum, and nothing can be checked.
    if len(ended) == 0 or not is_of(mixture, ended[-1]):
        return
    for s, number in enumerate(iterations):
        stage = snapshots.of(s)
        if number < len(ended) and np.isfinite(stage.weights).all() and not is_of(stage, ended[number]):
            raise ValueError(f"snapshot {s} is not of iteration {number}; give the numbers that history= named.")


def _draw_stage(
    panel: Axes, mixture: Mixture, samples: np.ndarray, features: Sequence[int], names: Sequence[str]
) -> None:
    """One stage, on the scale of the data, which all stages share."""
    if mixture.n_features == 1:
        draw_histogram(panel, mixture, samples[:, 0])
        panel.set(xlabel=names[0], ylabel="density", xlim=_limits(samples[:, 0]))
        say_outside(panel, samples)
    else:
        i, j = checked_features(features, mixture)
        draw_plane(panel, mixture, samples, (i, j), labels=True)
        panel.set(xlabel=names[i], ylabel=names[j], xlim=_limits(samples[:, i]), ylim=_limits(samples[:, j]))
        say_outside(panel, samples[:, (i, j)])
    without_frame(panel)


def _draw_history(panel: Axes, history: np.ndarray, iterations: Sequence[int], n_iter: int) -> None:
    history = history[: n_iter + 1]
    panel.plot(history, color=GREY, linewidth=1.5, marker=".", markersize=4 if len(history) < 100 else 0, zorder=1)
    stages = [n for n in iterations if n < n_iter]
    panel.plot(stages, history[stages], "o", color=colour(0), markersize=7, label="drawn", zorder=2)
    panel.plot(n_iter, history[n_iter], "D", color=EMPHASIS, markersize=7, label="the end", zorder=2)
    panel.set(xlabel="iteration", ylabel="log-likelihood (nats)")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.legend(frameon=False, loc="lower right", fontsize="small")
    without_frame(panel)


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Limits of the bulk of the values, with a margin."""
    low, high = bulk(values)
    if np.isnan(low):
        return (0.0, 1.0)
    margin = 0.12 * (high - low) or 1.0
    return (low - margin, high + margin)


def _title(n: int) -> str:
    return "the start" if n == 0 else f"after {counted(n, 'iteration')}"
