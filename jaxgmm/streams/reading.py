"""Batches of samples as users pass them, cut into tiles of one length, so that nothing is compiled twice."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import numpy as np

from jaxgmm.engine.arrays import numeric

Item = TypeVar("Item")
Value = TypeVar("Value")


# Of samples: their number, and their features.
_AXES = 2


class Rows(NamedTuple):
    """Some samples.

    Attributes:
        x: `(N, D)`.
        weights: `(N,)`.
    """

    x: np.ndarray
    weights: np.ndarray

    def part(self, rows: slice) -> "Rows":
        """Some of them."""
        return Rows(self.x[rows], self.weights[rows])

    def filled_up(self, size: int) -> "Rows":
        """The samples in float64, padded to a number with samples of weight 0."""
        x, weights = np.zeros((size, self.x.shape[1])), np.zeros(size)
        x[: len(self.x)], weights[: len(self.x)] = self.x, self.weights
        return Rows(x, weights)


def opener(batches: Any, passes: int, size: int) -> Callable[[], Iterator[Any]]:
    """A function that begins a pass; whatever has two axes is read by slices of `size` rows.

    Raises:
        ValueError: batches cannot be iterated, or not as often as needed.
    """
    again: Any = batches
    if callable(batches):
        return lambda: iter(again())
    if len(getattr(batches, "shape", ())) == _AXES:
        return lambda: (again[first : first + size] for first in range(0, again.shape[0], size))
    if not isinstance(batches, Iterable):
        raise ValueError(
            f"batches must be an iterable of arrays (N_i, D), or a function that returns an iterator; got "
            f"{type(batches).__name__}."
        )
    if passes > 1 and isinstance(batches, Iterator):
        raise ValueError(
            f"passes={passes} needs batches that can be read again: a list, or a function that returns an iterator; "
            f"this {type(batches).__name__} can be read once."
        )
    return lambda: iter(again)


def rows_in(batch: Any, n_features: int | None = None) -> Rows:
    """The samples of one batch: `(N, D)`, or a pair of these and their weights `(N,)`.

    Raises:
        ValueError: any other shape, entries that are not real numbers, or a negative weight.
    """
    x, weights = batch if isinstance(batch, tuple) and len(batch) == 2 else (batch, None)
    x = numeric(x, "a batch")
    if x.ndim != 2 or x.shape[1] == 0 or n_features not in (None, x.shape[1]):
        wanted = "D" if n_features is None else n_features
        raise ValueError(f"a batch must be (N, {wanted}), or a tuple of that and weights (N,); it has shape {x.shape}.")
    own = np.ones(len(x)) if weights is None else numeric(weights, "weights of a batch").astype(np.float64, copy=False)
    if own.shape != (len(x),) or np.any(own < 0):
        raise ValueError(f"weights of a batch must be ({len(x)},), one for each sample, and not negative.")
    return Rows(x, own)


def first_rows(batches: Iterator[Any], n: int) -> tuple[Rows, Iterator[Any]]:
    """The first samples of a stream, n of them if there are as many, and an iterator that still has them.

    They are copied, as an iterator may read every batch into the same array.

    Raises:
        ValueError: there are none.
    """
    read: list[Rows] = []
    while sum(len(rows.x) for rows in read) < n and (batch := next(batches, None)) is not None:
        rows = rows_in(batch, read[0].x.shape[1] if read else None)
        read.append(Rows(rows.x.copy(), rows.weights.copy()))
    if not sum(len(rows.x) for rows in read):
        raise ValueError("batches hold no samples.")
    # A batch may be far larger than n: no more of it is copied.
    joined = Rows(*(np.concatenate([part[:n] for part in parts])[:n] for parts in zip(*read, strict=True)))
    return joined, chain(read, batches)


def tiles(batches: Iterator[Any], size: int, n_features: int, skipped: int = 0) -> Iterator[tuple[Rows, int]]:
    """The samples of a stream after those skipped, `size` at a time, and how many these are.

    Where batches begin and end changes nothing.

    Raises:
        ValueError: there are fewer samples than were to be skipped.
    """
    tile, n = Rows(np.zeros((size, n_features)), np.zeros(size)), 0
    for batch in batches:
        rows = batch if isinstance(batch, Rows) else rows_in(batch, n_features)
        left = min(skipped, len(rows.x))
        skipped, rows = skipped - left, rows.part(slice(left, None))
        while len(rows.x):
            taken = rows.part(slice(0, size - n))
            tile.x[n : n + len(taken.x)], tile.weights[n : n + len(taken.x)] = taken
            n, rows = n + len(taken.x), rows.part(slice(len(taken.x), None))
            if n == size:
                yield tile, n
                tile, n = Rows(np.zeros((size, n_features)), np.zeros(size)), 0
    if skipped:
        raise ValueError(f"batches hold {skipped:,} samples fewer than had been read; pass the ones of the checkpoint.")
    if n:
        yield tile, n


def in_order(work: Callable[[Item], Value], items: Iterable[Item], n_workers: int) -> Iterator[tuple[Item, Value]]:
    """Items with what `work` returns for each, in order; as many as there are workers are in work at a time."""
    waiting: deque[Any] = deque()
    # Left as a context, it would wait for what is in work when the caller takes no more.
    pool = ThreadPoolExecutor(n_workers, thread_name_prefix="jaxgmm")
    try:
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) > n_workers:
                first, value = waiting.popleft()
                yield first, value.result()
        while waiting:
            first, value = waiting.popleft()
            yield first, value.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
