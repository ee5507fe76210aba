"""Shared by all pictures: colours, markers and lines of components, and axes to draw into."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.patheffects import AbstractPathEffect, withStroke
from matplotlib.ticker import ScalarFormatter

# Okabe and Ito (2008), "Color universal design", without yellow, which is too light for lines. Neighbours differ in
# lightness.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#56B4E9", "#D55E00", "#CC79A7", "#000000")
# With these, the first 56 components differ in colour or marker.
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))

INK, GREY, PALE = "0.1", "0.55", "0.85"
EMPHASIS = "#D55E00"

# More labels than this hide the picture.
MOST_LABELS = 12
# Powers of ten of an axis's largest number, between which numbers are written in full.
_SMALLEST, _LARGEST = -2, 3

_Arguments = ParamSpec("_Arguments")
_Axes = TypeVar("_Axes")


def colour(k: int) -> str:
    """The colour of a component or family, by its number."""
    return _COLOURS[k % len(_COLOURS)]


def marker(k: int) -> str:
    """The marker of a component or family, by its number."""
    return _MARKERS[k % len(_MARKERS)]


def line(k: int) -> Any:
    """The line style of a component or family, by its number."""
    return _LINES[k % len(_LINES)]


def halo(width: float = 2.5) -> list[AbstractPathEffect]:
    """A white edge that makes lines and letters stand out from samples."""
    return [withStroke(linewidth=width, foreground="white")]


def write(ax: Axes, text: str, at: Any, **style: Any) -> None:
    """Text that is readable among samples."""
    horizontal, vertical = at
    options = {"ha": "center", "va": "center", "color": INK, "path_effects": halo(3), "clip_on": True, "zorder": 4}
    ax.text(horizontal, vertical, text, **options | style)


def verbatim(text: Any) -> str:
    """A text of the data, such as a key, that matplotlib draws as it is: between two dollars it would read TeX."""
    return str(text).replace("$", r"\$")


def say(ax: Axes, words: str) -> None:
    """Words in the place of a picture that would be empty."""
    ax.text(0.5, 0.5, words, transform=ax.transAxes, ha="center", va="center", color=INK)


def whole_or_none(draw: Callable[_Arguments, _Axes]) -> Callable[_Arguments, _Axes]:
    """Decorates a drawing function: if it raises, the figures it has begun are closed; pyplot would keep them open."""

    @functools.wraps(draw)
    def drawn(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Axes:
        before = set(plt.get_fignums())
        try:
            return draw(*args, **kwargs)
        except BaseException:
            for number in set(plt.get_fignums()) - before:
                plt.close(number)
            raise

    return drawn


def axes_for_one(ax: Any, size: tuple[float, float]) -> Axes:
    """The axes given, or those of a new figure."""
    if ax is None:
        return plt.figure(figsize=size, layout="constrained").subplots()
    if not isinstance(ax, Axes):
        raise ValueError(f"ax must be one matplotlib Axes; got {type(ax).__name__}.")
    return ax


def axes_for_many(ax: Any, rows: int, columns: int, size: tuple[float, float]) -> np.ndarray:
    """An array `(rows, columns)` of axes: those given, or those of a new figure in which each has a size in inches."""
    if ax is None:
        figure = plt.figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
        return figure.subplots(rows, columns, squeeze=False)
    given = np.asarray(ax, dtype=object)
    if given.size != rows * columns or not all(isinstance(panel, Axes) for panel in given.flat):
        raise ValueError(f"ax must hold {rows * columns} matplotlib Axes; it holds {given.size}.")
    return given.reshape(rows, columns)


def without_frame(ax: Axes) -> None:
    """Removes the top and right spines."""
    ax.spines[["top", "right"]].set_visible(False)


def label_offsets(*panels: Axes, small: bool = False) -> None:
    """Says in the label of an axis what its numbers leave out: an offset, or a power of ten.

    matplotlib writes these at the ends of the axes, across titles and labels. They are fixed here, so that the label
    stays true if the limits change. In small panels they have a line of their own.
    """
    for panel in panels:
        for axis in (panel.xaxis, panel.yaxis):
            formatter = axis.get_major_formatter()
            if isinstance(formatter, ScalarFormatter):
                _fix_offset(axis, formatter, "\n" if small else " ")


def _fix_offset(axis: Axis, formatter: ScalarFormatter, gap: str) -> None:
    """Keeps the offset that matplotlib has chosen, and chooses a power of ten for numbers with many digits."""
    ticks = axis.get_majorticklocs()
    formatter.set_locs(list(ticks))
    offset = float(formatter.offset)
    low, high = np.sort(axis.get_view_interval())
    largest = np.max(np.abs(ticks[(low <= ticks) & (ticks <= high)] - offset), initial=0)
    power = int(np.floor(np.log10(largest))) if largest > 0 else 0
    power = 0 if _SMALLEST <= power <= _LARGEST else 3 * (power // 3)
    fixed = ScalarFormatter(useOffset=False)
    fixed.offset = offset
    fixed.set_scientific(power != 0)
    fixed.set_powerlimits((power, power))
    axis.set_major_formatter(fixed)
    axis.offsetText.set_visible(False)
    if label := axis.get_label_text():
        less = f"{gap}{'−' if offset > 0 else '+'} {abs(offset):,.15g}" if offset else ""
        axis.set_label_text(f"{label}{less}{f', in 1e{power}' if power else ''}")
