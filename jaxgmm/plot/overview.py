"""Small multiples: some of thousands of fits, chosen by status, size or misfit."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes

from jaxgmm.diagnosis import Diagnosis, diagnose
from jaxgmm.driver.arguments import checked_weights
from jaxgmm.engine.batch import Batch, batch
from jaxgmm.mixture import Mixture
from jaxgmm.plot.histograms import draw_histogram
from jaxgmm.plot.limits import n_outside
from jaxgmm.plot.mixtures import checked_features, of_groups
from jaxgmm.plot.palette import EMPHASIS, INK, axes_for_many, halo, whole_or_none
from jaxgmm.plot.planes import draw_plane
from jaxgmm.settings import check_integer
from jaxgmm.status import Status

_COLUMNS = 6


@whole_or_none
def overview(
    result: Any,
    x: Any = None,
    *,
    by: Literal["status", "size", "misfit"] = "status",
    n: int = 24,
    ax: Any = None,
    features: Sequence[int] = (0, 1),
    names: Sequence[Any] | None = None,
    sample_weight: Any = None,
) -> np.ndarray:
    """Draws some of many fits, each in a small panel that says how it ended.

    A fit without an answer is hatched. Each panel has its own scale, that of the bulk of the samples; words say how
    many are outside.

    Args:
        result: a `FitResult` of B data sets, a `Sweep`, or the `GroupFits` of a frame, which have samples, names and
            weights of their own.
        x: the samples, a stack `(B, N, D)`, or a sequence of `(N_i, D)`.
        by: `"status"` takes equal numbers of each status, as far as available, the worst first; within a status, those
            with the most spurious components, then others evenly from first to last. `"size"` goes from the smallest
            data set to the largest in equal steps of rank. `"misfit"` takes those whose residuals are least likely to
            be uniform, smallest p-value first (see `jaxgmm.diagnose`); distances from uniformity would favour small
            data sets, which are far from it by chance.
        n: maximum number of panels.
        ax: as many axes; a new figure without it.
        features: which two features, if there are more.
        names: of all B data sets; their numbers without it.
        sample_weight: as for `jaxgmm.fit`; samples of weight 0 are not drawn.

    Returns:
        the axes in one row, `(n,)` or, of fewer data sets, `(B,)`.

    Raises:
        ValueError: data or result without batch axis, other numbers of data sets, or an unknown `by`.
    """
    if by not in ("status", "size", "misfit"):
        raise ValueError(f"by must be 'status', 'size' or 'misfit'; got {by!r}.")
    check_integer("n", n, 1)
    if x is None:
        x, names, sample_weight = of_groups(result, names, sample_weight)
    # For a sweep, draw the chosen fits; for fits of groups, the fits.
    result = getattr(result, "best", getattr(result, "result", result))
    if not hasattr(result, "status"):
        raise ValueError(f"result must be a jaxgmm.FitResult or Sweep; got {type(result).__name__}.")
    data = batch(x)
    if data.is_single or np.ndim(result.status) != 1:
        raise ValueError("plot.overview draws many fits, x and result with a batch axis. Use plot.mixture for one.")
    if len(result.status) != data.n_data_sets:
        raise ValueError(f"x holds {data.n_data_sets} data sets, but result {len(result.status)} fits.")
    if names is not None and len(names) != data.n_data_sets:
        raise ValueError(f"names must be of all {data.n_data_sets} data sets; there are {len(names)}.")
    plane = checked_features(features, result.mixture) if result.mixture.n_features > 1 else None
    found = diagnose(result.mixture, x, sample_weight) if by == "misfit" else None
    weights = None if sample_weight is None else checked_weights(sample_weight, data)
    chosen = _chosen(data, result, by, min(n, data.n_data_sets), found)
    rows = -(-len(chosen) // _COLUMNS)
    axes = _panels(ax, rows, len(chosen))
    for panel, b in zip(axes, chosen, strict=True):
        rows = slice(data.first[b], data.first[b] + data.lengths[b])
        samples = np.asarray(data.samples[rows], dtype=np.float64)
        if weights is not None:
            samples = samples[weights[rows] > 0]
        fitted = result.mixture.of(b).map(lambda leaf: np.asarray(leaf, dtype=np.float64))
        _draw_fit(panel, fitted, samples, Status(int(result.status[b])), plane)
        name = f"data set {b}" if names is None else str(names[b])
        panel.set_title(name, fontsize="medium", pad=3)
        parts = [f"N = {len(samples):,}"]
        if found is not None and np.isfinite(found.p_values[b]).all():
            parts += [f"p = {found.p_values[b].min():.1g}"]
        if outside := n_outside(panel, samples[:, plane or (0,)]):
            parts += [f"{outside:,} outside"]
        if result.spurious[b]:
            parts += [f"{result.spurious[b]} spurious"]
        # A line has room for two.
        lines = (", ".join(line) for line in (parts[:2], parts[2:]) if line)
        panel.set_xlabel("\n".join(lines), fontsize="small", labelpad=3)
    return axes


def _chosen(data: Batch, result: Any, by: str, n: int, found: Diagnosis | None) -> np.ndarray:
    """Numbers of the data sets to draw, in order."""
    if by == "size":
        return _evenly(np.argsort(data.lengths, kind="stable"), n)
    if found is not None:
        # P-values that underflow are ordered by distance; NaN, of fits without an answer, comes last.
        return np.lexsort((-found.misfit, found.p_values.min(axis=1)))[:n]
    groups = [np.flatnonzero(result.status == status) for status in reversed(Status)]
    groups = [group[np.argsort(-result.spurious[group], kind="stable")] for group in groups if len(group)]
    shares = np.zeros(len(groups), int)
    while shares.sum() < n:
        # One more for the group that has the fewest panels, if it has more members.
        open_groups = [g for g in range(len(groups)) if shares[g] < len(groups[g])]
        shares[min(open_groups, key=lambda g: shares[g])] += 1
    return np.concatenate([_worst(group, result.spurious, n) for group, n in zip(groups, shares, strict=True)])


def _worst(members: np.ndarray, spurious: np.ndarray, n: int) -> np.ndarray:
    """`n` of the members: those with spurious components, which come first, then others evenly."""
    n_spurious = min(n, int(np.count_nonzero(spurious[members])))
    return np.concatenate([members[:n_spurious], _evenly(members[n_spurious:], n - n_spurious)])


def _evenly(members: np.ndarray, n: int) -> np.ndarray:
    """`n` of the members, evenly from the first to the last."""
    return members[np.linspace(0, len(members) - 1, n).round().astype(int)]


def _panels(ax: Any, rows: int, n: int) -> np.ndarray:
    """One axes for each fit; surplus axes of a new figure are hidden."""
    if ax is not None:
        return axes_for_many(ax, 1, n, (0, 0))[0]
    grid = axes_for_many(None, rows, min(n, _COLUMNS), (1.9, 1.95)).ravel()
    for panel in grid[n:]:
        panel.set_visible(False)
    return grid[:n]


def _draw_fit(panel: Axes, fitted: Mixture, samples: np.ndarray, status: Status, plane: tuple[int, int] | None) -> None:
    """Samples with their fit; hatched without a fit."""
    if plane is None:
        draw_histogram(panel, fitted, samples[:, 0], small=True)
    else:
        draw_plane(panel, fitted, samples, plane, small=True)
    panel.set(xticks=[], yticks=[])
    has_answer = np.isfinite(fitted.means).all()
    if not has_answer:
        panel.patch.set(facecolor="0.93", edgecolor="0.75", hatch="////")
    if status is not Status.CONVERGED:
        _write_status(panel, status.name, "center" if not has_answer else "top")
    for spine in panel.spines.values():
        spine.set_color("0.6")


def _write_status(panel: Axes, name: str, place: str) -> None:
    height = 0.5 if place == "center" else 0.97
    options = {"fontsize": "small", "fontweight": "bold", "path_effects": halo(3), "zorder": 5}
    colour = INK if place == "center" else EMPHASIS
    panel.text(0.5, height, name, transform=panel.transAxes, ha="center", va=place, color=colour, **options)
