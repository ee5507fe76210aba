"""Shared by all pictures: colours, markers and lines of components, and axes to draw into."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import AbstractPathEffect, withStroke

# Okabe and Ito (2008), "Color universal design", without yellow, which is too light for lines. Neighbours differ in
# lightness.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#56B4E9", "#D55E00", "#CC79A7", "#000000")
# With these, the first 56 components differ in colour or marker.
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))

INK, GREY, PALE = "0.1", "0.55", "0.85"
EMPHASIS = "#D55E00"

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
