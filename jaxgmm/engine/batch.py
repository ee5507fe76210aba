"""Data sets of many sizes, as a few padded shapes.

The user's data become one table of samples, data set after data set, with the rows at which they begin. Chunks of it
are padded to a common number of samples; rows beyond a data set's own length get weight 0 later.
"""

import functools
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxgmm.engine.arrays import hint, is_sequence, is_traced, numeric
from jaxgmm.engine.transfer import is_for_cpu, sent

_LAYOUTS = "(N, D), (B, N, D) or a sequence of (N_i, D)"
_SMALLEST_PADDED = 32

# Float32 numbers in the widest vectors of a CPU, and two of those in float64.
_VECTOR = 16
_LARGE = 4096

Table = np.ndarray | jax.Array
_Tree = TypeVar("_Tree")

# From numbers of data sets, and the length they are padded to, to the weights of their samples `(C, N)`, float64.
WeightsOf = Callable[[np.ndarray, int], np.ndarray]


class Sizes(NamedTuple):
    """The numbers by which programs for data sets are chosen.

    Attributes:
        lengths: `(S,)`, numbers of samples: of each data set, or distinct ones.
        n_rows: M, the rows of the table that holds the samples; repeated data sets share them.
        n_features: D.
        is_single: whether the user passed one data set without a batch axis.
        is_weighted: whether samples have weights of their own.
        counts: `(S,)`, how many data sets have each of these lengths; None for one.
    """

    lengths: np.ndarray
    n_rows: int
    n_features: int
    is_single: bool
    is_weighted: bool
    counts: np.ndarray | None = None

    @property
    def n_each(self) -> np.ndarray:
        """`(S,)`, how many data sets have each length."""
        return np.ones(len(self.lengths), int) if self.counts is None else self.counts

    @property
    def is_ragged(self) -> bool:
        """Whether the data sets differ in length."""
        return not np.all(self.lengths == self.lengths[0])

    @property
    def in_short(self) -> "Sizes":
        """The same in less room if all data sets have one length."""
        if self.is_ragged:
            return self
        n_data_sets = len(self.lengths) if self.counts is None else int(np.sum(self.counts))
        return self._replace(lengths=self.lengths[:1], counts=np.array([n_data_sets]))

    def repeated(self, n: int) -> "Sizes":
        """Those of every data set `n` times, as the same rows."""
        return self._replace(counts=self.n_each * n, is_single=False)


class Batch(NamedTuple):
    """Data sets, each some successive rows of one table.

    Attributes:
        samples: `(M, D)`, all samples of all data sets; a JAX array if they are already on an accelerator.
        first: `(B,)`, the row with which each data set begins.
        lengths: `(B,)`, the number of samples of each data set.
        is_single: whether the user passed one data set without a batch axis. It may be repeated, once for each start.
        weights_of: the weights of samples, arbitrary for padding; None for 1. A function, not a table, because weights
            of replicates are made on request.
    """

    samples: Table
    first: np.ndarray
    lengths: np.ndarray
    is_single: bool
    weights_of: WeightsOf | None = None

    @property
    def sizes(self) -> Sizes:
        """The numbers by which programs are chosen."""
        n_rows, n_features = self.samples.shape
        return Sizes(self.lengths, n_rows, n_features, self.is_single, self.is_weighted)

    @property
    def n_data_sets(self) -> int:
        """B."""
        return len(self.lengths)

    @property
    def is_weighted(self) -> bool:
        """Whether samples have weights of their own."""
        return self.weights_of is not None

    def weighted(self, weights: np.ndarray | None) -> "Batch":
        """The same data sets, with a weight for each row of the table, `(M,)`; None for 1."""
        if weights is None:
            return self._replace(weights_of=None)

        def weights_of(data_sets: np.ndarray, n_samples: int) -> np.ndarray:
            return np.asarray(padded(weights, self, data_sets, n_samples), np.float64)

        return self._replace(weights_of=weights_of)

    def weights(self, data_sets: np.ndarray, n_samples: int) -> np.ndarray:
        """Weights `(C, n_samples)` of the samples of some data sets, 0 for padding."""
        inside = np.arange(n_samples) < self.lengths[data_sets][:, None]
        return np.where(inside, 1.0 if self.weights_of is None else self.weights_of(data_sets, n_samples), 0.0)

    def part(self, rows: np.ndarray | slice) -> "Batch":
        """Some of the data sets, as the same rows."""
        numbers, weights_of = np.arange(self.n_data_sets)[rows], self.weights_of

        def weights_of_part(data_sets: np.ndarray, n_samples: int) -> np.ndarray:
            assert weights_of is not None
            return weights_of(numbers[data_sets], n_samples)

        return self._replace(
            first=self.first[rows],
            lengths=self.lengths[rows],
            weights_of=None if weights_of is None else weights_of_part,
        )

    def kept(self, rows: np.ndarray) -> "Batch":
        """The data sets without weights and with only those rows of the table that a mask `(M,)` keeps."""
        before = np.concatenate([[0], np.cumsum(rows)])
        first, lengths = before[self.first], before[self.first + self.lengths] - before[self.first]
        return Batch(np.asarray(self.samples)[rows], first, lengths, self.is_single)

    def repeated(self, n: int) -> "Batch":
        """Every data set `n` times, one after the other, as the same rows: no sample is copied."""
        return self.part(np.repeat(np.arange(self.n_data_sets), n))._replace(is_single=False)


def batch(x: Any) -> Batch:
    """Reads `(N, D)`, `(B, N, D)` or a sequence of `(N_i, D)`.

    Raises:
        ValueError: any other shape, or entries that are not real numbers.
    """
    if is_sequence(x, n_axes=2):
        sets = [numeric(item, f"x[{b}]") for b, item in enumerate(x)]
        if not sets:
            raise ValueError(f"x holds no data sets; expected {_LAYOUTS}.")
        for b, item in enumerate(sets):
            if item.ndim != 2 or item.shape[1] != sets[0].shape[-1]:
                first = f"x[0] has shape {sets[0].shape} and " if b else ""
                raise ValueError(
                    f"x is a sequence, so each item must be (N_i, D) with the same D; {first}x[{b}] has shape "
                    f"{item.shape}.{hint(x[b], f'x[{b}]') if item.ndim == 1 else ''}"
                )
        lengths = np.array([len(item) for item in sets])
        # One data set, which may be large, is not copied.
        samples, is_single = sets[0] if len(sets) == 1 else np.concatenate(sets), False
    else:
        array = x if _is_on_accelerator(x) else numeric(x, "x")
        if array.ndim not in (2, 3):
            raise ValueError(
                f"x must be {_LAYOUTS}; it has shape {array.shape}.{hint(x, 'x') if array.ndim == 1 else ''}"
            )
        is_single = array.ndim == 2
        n_data_sets, n_samples = (1, len(array)) if is_single else array.shape[:2]
        if n_data_sets == 0:
            raise ValueError(f"x holds no data sets: its shape is {array.shape}; expected {_LAYOUTS}.")
        lengths = np.full(n_data_sets, n_samples)
        samples = array.reshape(n_data_sets * n_samples, array.shape[-1])
    if samples.shape[1] == 0:
        raise ValueError("x has no features: its last axis is empty.")
    return Batch(samples, np.cumsum(lengths) - lengths, lengths, is_single)


def per_sample(values: Any, batch: Batch, name: str, trailing: tuple[int, ...] = ()) -> np.ndarray:
    """One row for every sample of a batch, from an array or a sequence laid out as `x` was.

    Args:
        values: with the shape of `x` without its last axis, then `trailing`; without the batch axis if all data sets
            share them.
        batch: the data sets.
        name: what to call the values in an error.
        trailing: axes that follow the sample axis.

    Returns:
        `(M, *trailing)`.

    Raises:
        ValueError: a shape that does not fit.
    """
    tail = "".join(f", {size}" for size in trailing)
    if is_sequence(values, n_axes=1 + len(trailing)):
        items = [numeric(item, f"{name}[{b}]") for b, item in enumerate(values)]
        shapes = [item.shape for item in items]
        expected = [(int(length), *trailing) for length in batch.lengths]
        if shapes != expected:
            wrong = next((b for b, pair in enumerate(zip(shapes, expected, strict=False)) if pair[0] != pair[1]), None)
            found = f"{len(shapes)} items" if wrong is None else f"shape {shapes[wrong]} in {name}[{wrong}]"
            wanted = f"{len(expected)} items" if wrong is None else f"{expected[wrong]}"
            raise ValueError(
                f"{name} must have one (N_i{tail}) array for each data set: expected {wanted}, got {found}."
            )
        return items[0] if len(items) == 1 else np.concatenate(items)
    array = numeric(values, name)
    lengths = batch.lengths
    if not np.all(lengths == lengths[0]):
        raise ValueError(f"{name} must be a sequence of (N_i{tail}) arrays, as x is; got an array of {array.shape}.")
    shared = (int(lengths[0]), *trailing)
    stacked = (batch.n_data_sets, *shared)
    if array.shape == shared:
        array = np.broadcast_to(array, stacked)
    if array.shape != stacked:
        expected_shape = shared if batch.is_single else stacked
        raise ValueError(f"{name} must have shape {expected_shape} to match x; it has shape {array.shape}.")
    return array.reshape(len(batch.samples), *trailing)


def padded_lengths(sizes: Sizes, tolerated: int) -> np.ndarray:
    """The numbers of samples `(S,)` that data sets of each length are padded to.

    Every new length compiles a program. None is less than 32. Stacks have a fine grid, which pads by at most a
    sixteenth, or to the next multiple of 16, the length of a processor's vectors. Other data sets are padded to powers
    of two, and those of one power join the next larger one as long as that pads them, all together, by at most
    `tolerated` samples.
    """
    lengths = np.maximum(sizes.lengths, _SMALLEST_PADDED)
    octave = 2 ** np.floor(np.log2(lengths)).astype(int)
    coarse = sizes.is_ragged | (sizes.is_single & (lengths <= _LARGE))
    step = np.where(coarse, octave, np.maximum(octave // 16, _VECTOR))
    padded = octave + -(-(lengths - octave) // step) * step
    for size, next_larger in pairwise(np.unique(padded)):
        joining = padded == size
        if int(np.sum(sizes.n_each[joining])) * int(next_larger - size) <= tolerated:
            padded = np.where(joining, next_larger, padded)
    return padded


def padded(rows: Table, batch: Batch, data_sets: np.ndarray, n_samples: int, size: int | None = None) -> Table:
    """The rows of some data sets as `(C, n_samples, …)`, padded to `size` data sets.

    Rows beyond a data set's length, and beyond the last data set, are arbitrary.
    """
    own, last, size = successive(data_sets), len(rows) - 1, size or len(data_sets)
    first, lengths = batch.first[own], batch.lengths[own]
    if last < 0:
        return np.zeros((size, n_samples, *rows.shape[1:]), rows.dtype)
    blocks = _blocks(rows, first, lengths)
    if blocks is not None:
        if blocks.shape[:2] == (size, n_samples):
            return blocks
        table = np.zeros((size, n_samples, *rows.shape[1:]), rows.dtype)
        table[: len(blocks), : lengths[0]] = blocks
        return table
    first = np.concatenate([first, np.repeat(first[:1], size - len(first))])
    if isinstance(rows, jax.Array):
        return _gathered(rows, first, n_samples)
    return rows[np.minimum(first[:, None] + np.arange(n_samples)[None, :], last)]


def placed(rows: Table, batch: Batch, data_sets: np.ndarray, n_samples: int, size: int) -> Table:
    """The same on the default device if the rows can be sent as they are in the table, which copies less."""
    if isinstance(rows, np.ndarray) and len(rows) and not is_for_cpu():
        own = successive(data_sets)
        blocks = _blocks(rows, batch.first[own], batch.lengths[own])
        if blocks is not None:
            return sent(blocks, (size, n_samples))
    return padded(rows, batch, data_sets, n_samples, size)


def of_each(tree: _Tree, data_sets: np.ndarray, size: int) -> _Tree:
    """Rows `(C, …)` of arrays that have one for each data set, padded to `size` with arbitrary rows.

    They are on the default device if that is not a CPU.
    """
    own = successive(data_sets)
    if not is_for_cpu():
        return sent(jax.tree.map(lambda leaf: leaf[own], tree), (size,))
    if len(data_sets) < size:
        own = np.concatenate([data_sets, np.repeat(data_sets[:1], size - len(data_sets))])
    return jax.tree.map(lambda leaf: leaf[own], tree)


def successive(numbers: np.ndarray) -> np.ndarray | slice:
    """Numbers of rows, as a slice if they follow each other, so that no row has to be gathered."""
    is_run = len(numbers) > 0 and numbers[-1] - numbers[0] == len(numbers) - 1 and np.all(numbers[1:] > numbers[:-1])
    return slice(int(numbers[0]), int(numbers[-1]) + 1) if is_run else numbers


def put(rows: np.ndarray, first: np.ndarray, lengths: np.ndarray, padded: np.ndarray) -> None:
    """Copies padded rows `(C, n, …)` to where each of C data sets begins, without their padding."""
    blocks = _blocks(rows, first, lengths)
    if blocks is not None:
        blocks[...] = padded[:, : lengths[0]]
        return
    inside = np.arange(padded.shape[1]) < lengths[:, None]
    rows[(first[:, None] + np.arange(padded.shape[1]))[inside]] = padded[inside]


def _blocks(rows: Table, first: np.ndarray, lengths: np.ndarray) -> np.ndarray | None:
    """A view of data sets of one length that begin at equal distances, so that no row has to be gathered."""
    steps = np.diff(first)
    if not isinstance(rows, np.ndarray) or np.any(lengths != lengths[0]) or np.any(steps != steps[:1]):
        return None
    shape = (len(first), int(lengths[0]), *rows.shape[1:])
    step = int(steps[0]) if len(steps) else 0
    return np.lib.stride_tricks.as_strided(rows[first[0] :], shape, (step * rows.strides[0], *rows.strides))


@functools.partial(jax.jit, static_argnames=("n_samples",))
def _gathered(rows: jax.Array, first: jax.Array, n_samples: int) -> jax.Array:
    index = first[:, None] + jnp.arange(n_samples)[None, :]
    return rows[jnp.minimum(index, len(rows) - 1)]


def _is_on_accelerator(x: Any) -> bool:
    """Whether samples can be used where they are."""
    usable = (
        isinstance(x, jax.Array)
        and not is_traced(x)
        and x.dtype in (jnp.float32, jnp.float64)
        and len(x.devices()) == 1
    )
    return usable and next(iter(x.devices())).platform != "cpu"
