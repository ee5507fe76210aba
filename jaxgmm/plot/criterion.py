"""A criterion against the number of components, family by family."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from jaxgmm.plot.limits import is_far, write_outside
from jaxgmm.plot.palette import (
    EMPHASIS,
    GREY,
    INK,
    axes_for_one,
    colour,
    label_offsets,
    line,
    marker,
    say,
    verbatim,
    whole_or_none,
    without_frame,
)
from jaxgmm.record import check_some, counted
from jaxgmm.selection.criteria import CRITERIA
from jaxgmm.settings import LEVEL, is_integer
from jaxgmm.soundness import is_sound
from jaxgmm.status import Status


@whole_or_none
def criterion(sweep_or_table: Any, criterion: str = "bic", *, data_set: int = 0, ax: Axes | None = None) -> Axes:
    """Draws a criterion against K for one data set, with a line for each family (and ridge, if there are several).

    Only differences between models say anything, so the data set's minimum is 0; p-values stay as they are.
    The chosen model has a ring. Models that are degenerate or have spurious components, which do not count in their
    favour, have hollow markers; where one's value is far from all others, it is outside, and words say so.

    Args:
        sweep_or_table: a `Sweep`, or its table; or the `GroupFits` or `GroupFit` of a choice among models.
        criterion: a column of the table.
        data_set: number of the data set, from 0; of groups, their row in `fits`.
        ax: where to draw; a new figure without it.

    Returns:
        the axes.

    Raises:
        ValueError: no such data set or criterion.
    """
    given = getattr(sweep_or_table, "sweep", sweep_or_table)
    whole = given if isinstance(given, Mapping) else getattr(given, "table", None)
    if given is None:
        raise ValueError("these fits have no choice among models; pass several numbers of components to fit_groups.")
    if not isinstance(whole, Mapping):
        raise ValueError(
            "plot.criterion draws a jaxgmm.Sweep, or its table, a dict of columns; got "
            f"{type(sweep_or_table).__name__}."
        )
    known = [name for name in CRITERIA if name in whole]
    if criterion not in known:
        raise ValueError(f"criterion must be one that the sweep has, {', '.join(map(repr, known))}; got {criterion!r}.")
    if not is_integer(data_set):
        remedy = "; for a group, draw found.group(key)" if hasattr(sweep_or_table, "names") else ""
        raise ValueError(f"data_set must be the number of a data set, from 0; got {data_set!r}{remedy}.")
    check_some(len(whole["data_set"]))
    rows = np.asarray(whole["data_set"]) == data_set
    if not np.any(rows):
        raise ValueError(f"the table has no data set {data_set!r}; its last is {np.max(whole['data_set'])}.")
    table = {name: np.asarray(column)[rows] for name, column in whole.items()}
    statuses = np.array([Status[name] for name in table["status"].tolist()], int)
    hollow = ~is_sound(statuses, table["spurious"])
    far = np.zeros(len(hollow), bool)
    is_test = CRITERIA[criterion].is_test
    if not is_test:
        far = hollow & (table["chosen"] == 0) & is_far(np.asarray(table[criterion], float)[:, None])
        table[criterion] = _above_minimum(table[criterion], ~far)
    ax = axes_for_one(ax, (5.0, 3.6))
    kinds = list(dict.fromkeys(zip(table["covariance_type"].tolist(), table["reg_covar"].tolist(), strict=True)))
    for number, (family, ridge) in enumerate(kinds):
        of_kind = (table["covariance_type"] == family) & (table["reg_covar"] == ridge)
        of_kind &= np.isfinite(table[criterion])
        one_ridge = len({ridge for _, ridge in kinds}) == 1
        label = family if one_ridge else f"{family}, ridge {ridge:g}"
        _draw_line(ax, number, table["n_components"][of_kind], table[criterion][of_kind], hollow[of_kind], label)
    handles, _ = ax.get_legend_handles_labels()
    if np.any(hollow & np.isfinite(table[criterion])):
        handles.append(_key("o", "spurious or degenerate", markerfacecolor="white", markeredgecolor=INK))
    chosen = np.flatnonzero(table["chosen"] & np.isfinite(table[criterion]))
    for row in chosen:
        at = (table["n_components"][row], table[criterion][row])
        ax.plot(*at, "o", markersize=15, markerfacecolor="none", markeredgecolor=EMPHASIS, markeredgewidth=2, zorder=4)
        handles.append(
            _key("o", "chosen", markersize=11, markerfacecolor="none", markeredgecolor=EMPHASIS, markeredgewidth=2)
        )
    if is_test:
        ax.axhline(LEVEL, color=GREY, linewidth=1, linestyle=":")
    above = f"{CRITERIA[criterion].title} above its minimum (lower is better)"
    ylabel = "p-value of K against K + 1" if is_test else above
    ax.set(xlabel="components K", ylabel=ylabel, xticks=np.unique(table["n_components"]))
    ax.set_title(_title(sweep_or_table, data_set))
    ax.margins(x=0.08, y=0.1)
    _leave_out(ax, table[criterion], far)
    _explain(ax, handles if np.any(np.isfinite(table[criterion])) else [])
    without_frame(ax)
    label_offsets(ax)
    return ax


def _draw_line(ax: Axes, number: int, k: np.ndarray, values: np.ndarray, hollow: np.ndarray, label: str) -> None:
    """One family: a line, and a marker for every K, filled or hollow."""
    style = {"color": colour(number), "marker": marker(number), "markersize": 6}
    ax.plot(k, values, linestyle=line(number), linewidth=1.5, label=label, zorder=2, **style)
    ax.plot(k[hollow], values[hollow], linestyle="none", markerfacecolor="white", zorder=3, **style)


def _above_minimum(values: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """The difference of each value from the least finite one that is shown."""
    finite = values[shown & np.isfinite(values)]
    return values - np.min(finite) if len(finite) else values


def _title(given: Any, data_set: int) -> str:
    """The name of a group; no text where data sets have no names."""
    return verbatim(given.names[data_set] if hasattr(given, "names") else getattr(given, "name", ""))


def _explain(ax: Axes, handles: list[Any]) -> None:
    """A legend; where there is nothing to draw, words in its place, and no numbers."""
    if handles:
        ax.legend(handles=handles, frameon=False, fontsize="small")
    else:
        ax.set(yticks=[])
        say(ax, "no model has a value")


def _leave_out(ax: Axes, values: np.ndarray, far: np.ndarray) -> None:
    """Limits without the values that are far, and words that say how many."""
    if not np.any(far):
        return
    shown = values[~far & np.isfinite(values)]
    margin = 0.1 * np.ptp(shown) or 1.0
    ax.set_ylim(np.min(shown) - margin, np.max(shown) + margin)
    write_outside(ax, counted(np.count_nonzero(far), "model"))


def _key(shape: str, label: str, **style: Any) -> Line2D:
    return Line2D([], [], linestyle="none", marker=shape, label=label, **style)
