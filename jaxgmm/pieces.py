"""Evaluation of concrete samples, piece by piece.

Samples are cut into pieces whose lengths are powers of two, and a few pieces are processed at a time, so that few
programs are compiled whatever the number of samples and mixtures, and no array of size N K D is held. Neither the
length of a piece nor its padding changes the answer for a sample: see `jaxgmm.mixture.log_joint_from`.
"""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from jaxgmm.driver.arguments import check_mixture
from jaxgmm.engine.batch import Batch, padded, put
from jaxgmm.engine.devices import power_of_two_above, power_of_two_below
from jaxgmm.engine.transfer import default_device
from jaxgmm.mixture import Factors, Mixture, factors, log_joint_from
from jaxgmm.numerics.kernels import compiler_options
from jaxgmm.posterior import Quantity

# Bytes of a processor's widest vectors. Shorter pieces would sum in another order.
_VECTOR = 64
# Numbers that each of a few arrays may hold: enough to fit a core's cache, or to fill a GPU.
_HELD, _HELD_BY_GPU = 2**16, 2**24
# This much arithmetic takes less time than another call of a program.
_TOLERATED = 2**17
# Chunks that are computed while the next are prepared.
_IN_FLIGHT = 2
# The factors of mixtures up to this size are kept from one call to the next.
_KEPT_BYTES, _KEPT, _KEPT_PROGRAMS = 2**20, 16, 256


def of_one_piece(quantity: Quantity, mixture: Mixture, x: Any, *, on_device: Any = None) -> Array | None:
    """A quantity of one small mixture at few samples, padding included; None in any other case.

    Args:
        quantity: the quantity to compute.
        mixture: NumPy arrays of the type of `x`.
        x: `(N, D)`, float32 or float64.
        on_device: the same as a JAX array, if it is one.
    """
    weights, means, covariances = mixture.arrays
    if means.nbytes + covariances.nbytes > _KEPT_BYTES:
        return None
    shapes, device = (weights.shape, means.shape, covariances.shape), default_device()
    one = _one_piece(quantity, x.dtype, shapes, x.shape, device)
    if one is None:
        return None
    is_there = on_device is not None and len(x) == one.size and on_device.devices() == one.devices
    with jax.enable_x64(True):
        contents = (weights.tobytes(), means.tobytes(), covariances.tobytes())
        own = _kept_factors(contents, shapes, means.dtype, device)
        return one.program(own, on_device if is_there else _filled_up(x, one.size))


def of_one_mixture(quantity: Quantity, mixture: Mixture, x: np.ndarray) -> np.ndarray:
    """A quantity at samples `(N, D)` of the type of the mixture, float32 or float64."""
    shapes, device = tuple(leaf.shape for leaf in mixture.arrays), default_device()
    answers = _room(quantity, mixture, len(x), x.dtype)
    in_flight: list[tuple[int, Array]] = []

    def store() -> None:
        offset, found = in_flight.pop(0)
        room = answers[offset : offset + len(found)]
        room[...] = np.asarray(found)[: len(room)]

    with jax.enable_x64(True):
        own = _factors_of_one(mixture)
        for offset, size in cut(len(x), _shortest(x.dtype), longest(mixture), _cost(mixture)):
            program = _of_piece(quantity, x.dtype, shapes, size, device)
            found = program(own, _filled_up(x[offset : offset + size], size))
            in_flight.append((offset, found))
            if len(in_flight) > _IN_FLIGHT:
                store()
        while in_flight:
            store()
    return answers


def of_each(quantity: Quantity, mixture: Mixture, data: Batch, dtype: np.dtype) -> np.ndarray:
    """A quantity at all samples of B data sets, concatenated, each under its own mixture of `(B, K, …)`.

    `dtype`, float32 or float64, is the precision of the computation.
    """
    places = np.cumsum(data.lengths) - data.lengths
    answers = _room(quantity, mixture, int(np.sum(data.lengths)), dtype)
    in_flight: list[tuple[np.ndarray, np.ndarray, Array]] = []

    def store() -> None:
        first, lengths, found = in_flight.pop(0)
        put(answers, first, lengths, np.asarray(found)[: len(first)])

    with jax.enable_x64(True):
        for owners, offsets, lengths, size in _pieces(mixture, data, dtype):
            pieces = Batch(data.samples, data.first[owners] + offsets, lengths, is_single=False)
            for start, n in _chunks(mixture, len(owners), size):
                some = np.arange(start, min(start + n, len(owners)))
                filled_up = np.resize(some, n)
                own = mixture.of(owners[filled_up]).map(lambda leaf: leaf.astype(dtype, copy=False))
                is_shared = np.all(pieces.first[some] == pieces.first[start])
                x = padded(data.samples, pieces, filled_up[:1] if is_shared else filled_up, size)
                x = x.astype(dtype, copy=False)
                found = at_once(_at_each, at_once(_factors_of, own), x[0] if is_shared else x, quantity=quantity)
                in_flight.append((places[owners[some]] + offsets[some], lengths[some], found))
                if len(in_flight) > _IN_FLIGHT:
                    store()
        while in_flight:
            store()
    return answers


def _room(quantity: Quantity, mixture: Mixture, n_samples: int, dtype: np.dtype) -> np.ndarray:
    return np.empty((n_samples, *quantity.trailing(mixture.n_components)), np.int64 if quantity.is_integer else dtype)


def _filled_up(x: np.ndarray, size: int) -> np.ndarray:
    """Samples padded with zeros to a size."""
    if len(x) == size:
        return x
    rows = np.zeros((size, x.shape[1]), x.dtype)
    rows[: len(x)] = x
    return rows


def _pieces(mixture: Mixture, data: Batch, dtype: np.dtype) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, int]]:
    """Pieces of data sets by padded size: the data set, offset and length of each piece, and the padded size."""
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
    order = np.argsort(data.lengths, kind="stable")
    distinct, first = np.unique(data.lengths[order], return_index=True)
    for length, members in zip(distinct.tolist(), np.split(order, first[1:]), strict=True):
        for offset, size in cut(length, _shortest(dtype), longest(mixture), _cost(mixture) * len(members)):
            offsets, lengths, sizes = (np.full(len(members), n) for n in (offset, min(size, length - offset), size))
            found.append((members, offsets, lengths, sizes))
    if not found:
        return []
    owners, offsets, lengths, sizes = (np.concatenate(column) for column in zip(*found, strict=True))
    groups = ((np.flatnonzero(sizes == size), int(size)) for size in np.unique(sizes))
    return [(owners[group], offsets[group], lengths[group], size) for group, size in groups]


def _chunks(mixture: Mixture, n_pieces: int, size: int) -> list[tuple[int, int]]:
    """The first piece of each chunk, and the number of pieces it has room for."""
    most = power_of_two_below(2 * _held() // (size * sum(mixture.means.shape[1:])))
    return cut(n_pieces, 1, most, _cost(mixture) * size)


def cut(n: int, shortest: int, longest: int, cost: int) -> list[tuple[int, int]]:
    """Offsets and sizes of pieces of `n`: powers of two that need little padding, or padding that costs little."""
    pieces, offset = [], 0
    while offset < n:
        rest = n - offset
        size = min(max(power_of_two_above(rest), shortest), longest)
        if size > shortest and size - rest > n // 8 and (size - rest) * cost > _TOLERATED:
            size //= 2
        pieces.append((offset, size))
        offset += size
    return pieces


def _cost(mixture: Mixture) -> int:
    """Approximate number of operations for a sample."""
    n_components, n_features = mixture.means.shape[-2:]
    return n_components * (n_features * (1 if mixture.is_diagonal else 1 + n_features // 2) + 8)


def _held() -> int:
    return _HELD if jax.default_backend() == "cpu" else _HELD_BY_GPU


def _shortest(dtype: np.dtype) -> int:
    """The fewest samples of a piece."""
    return _VECTOR // dtype.itemsize


def longest(mixture: Mixture) -> int:
    """The number of samples processed at a time: a power of two."""
    held, (n_components, n_features) = _held(), mixture.means.shape[-2:]
    most = min(held // (n_components + n_features), 4 * held // (n_components * n_features), held // 8)
    return max(_VECTOR // 4, power_of_two_below(most))


# Shapes of the weights, means and covariances of a mixture.
_Shapes = tuple[tuple[int, ...], ...]


class _OnePiece(NamedTuple):
    """How samples of one shape are processed in one piece.

    Attributes:
        size: number of samples with padding.
        program: function from factors and samples to the quantity.
        devices: where its arguments may be, if they are JAX arrays.
    """

    size: int
    program: Any
    devices: set[Any]


@functools.lru_cache(maxsize=_KEPT_PROGRAMS)
def _one_piece(
    quantity: Quantity, dtype: np.dtype, shapes: _Shapes, x: tuple[int, ...], device: Any
) -> _OnePiece | None:
    """The piece for samples of the shape `x`; None if there have to be more, or if the shapes do not match."""
    if len(shapes[0]) != 1 or len(x) != 2 or x[0] == 0:
        return None
    mixture = _abstract(shapes, dtype)
    check_mixture(mixture, x)
    (_, size), *others = cut(x[0], _shortest(dtype), longest(mixture), _cost(mixture))
    if others:
        return None
    program = _of_piece(quantity, dtype, shapes, size, device)
    return _OnePiece(size, program, program.input_shardings[0][-1].device_set)


@functools.lru_cache(maxsize=_KEPT_PROGRAMS)
def _of_piece(quantity: Quantity, dtype: np.dtype, shapes: _Shapes, size: int, device: Any) -> Any:
    """The program of one mixture and one piece, for the default device."""
    mixture = _abstract(shapes, dtype)
    with jax.enable_x64(True):
        own = jax.eval_shape(factors, mixture)
    return _compiled(
        *(_at_one, *_flat((own, jax.ShapeDtypeStruct((size, mixture.n_features), dtype))), device), quantity=quantity
    )


def _abstract(shapes: _Shapes, dtype: np.dtype) -> Mixture:
    return Mixture(*(jax.ShapeDtypeStruct(shape, dtype) for shape in shapes))


def at_once(function: Any, *arguments: Any, **static: Any) -> Any:
    """Calls a jitted function on concrete arrays, even while a user's own program is being traced."""
    shapes = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), arguments)
    return _compiled(function, *_flat(shapes), default_device(), **static)(*arguments)


def _flat(shapes: Any) -> tuple[Any, tuple[Any, ...]]:
    """The structure and the leaves of a tree: records with equal shapes are not equal themselves."""
    leaves, structure = jax.tree.flatten(shapes)
    return structure, tuple(leaves)


@functools.lru_cache(maxsize=_KEPT_PROGRAMS)
def _compiled(function: Any, structure: Any, leaves: tuple[Any, ...], _device: Any, **static: Any) -> Any:
    with jax.enable_x64(True):
        return function.lower(*jax.tree.unflatten(structure, leaves), **static).compile()


@functools.lru_cache(maxsize=_KEPT)
def _kept_factors(contents: tuple[bytes, ...], shapes: _Shapes, dtype: np.dtype, _device: Any) -> Factors:
    """Factors of one mixture, on the default device."""
    leaves = zip(contents, shapes, strict=True)
    return _factors_of_one(Mixture(*(np.frombuffer(leaf, dtype).reshape(shape) for leaf, shape in leaves)))


def _factors_of_one(mixture: Mixture) -> Factors:
    found = jax.device_get(at_once(_factors_of, mixture.map(lambda array: array[None])))
    with jax.ensure_compile_time_eval():
        return jax.device_put(Factors(*(leaf[0] for leaf in found)))


@functools.partial(jax.jit, compiler_options=compiler_options("quickly"))
@jax.vmap
def _factors_of(mixture: Mixture) -> Factors:
    return factors(mixture)


@functools.partial(jax.jit, static_argnames=("quantity",), compiler_options=compiler_options("well"))
def _at_one(own: Factors, x: Float[Array, "n d"], *, quantity: Quantity) -> Any:
    """A quantity for one mixture."""
    return quantity.of(log_joint_from(own, x), own)


@functools.partial(jax.jit, static_argnames=("quantity",), compiler_options=compiler_options("well"))
def _at_each(own: Factors, x: Float[Array, "*c n d"], *, quantity: Quantity) -> Any:
    """A quantity for each of several mixtures at its own samples, or at samples that all share."""

    def of_one(own: Factors, x: Array) -> Any:
        return quantity.of(log_joint_from(own, x), own)

    return jax.vmap(of_one, in_axes=(0, 0 if x.ndim == 3 else None))(own, x)
