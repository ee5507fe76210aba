"""Runs in GPU kernels: each run occupies a few lanes of a GPU, which hold its parameters.

XLA compiles a step to a dozen kernels, each of which reads and writes intermediate values for every sample. Here a
kernel makes many steps, and reads only samples between them, which stay in a core's cache. In the *narrow* layout
several runs share a warp; in the *wide* layout a run has a block of 128 threads, each with a component. Numbers that a
step needs only after it has read all samples lie in shared memory, so that more runs fit on a core.

A kernel ends with its last run, and runs need very different numbers of steps. So a kernel makes only some steps; then
the unfinished runs are collected and continue in fewer kernels. A kernel's computation is passed to it as a function of
plain JAX (`jaxgmm.em.fused`): this module does not know what a run is.

Kernels are written for Mosaic GPU, the kernel language of JAX that is here to stay, although it has changed with every
version. `why_not` says where it can be used; elsewhere `jaxgmm.engine.slots` does the same work.
"""

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxgmm.engine.rows import numbers_of
from jaxgmm.numerics.lanes import Arrays, Store

# First and last versions of jax whose Mosaic is known, and the lowest compute capability that it supports.
KNOWN = ((0, 11), (0, 12))
CAPABILITY = 9.0

# Threads of a warp, and warps of a block: the fewest that Mosaic supports.
WARP, WARPS = 32, 4

# Threads that keep a GPU busy. Fewer may wait for each other, since nothing else needs their places.
FILLING = 2**16


# More steps than any run makes.
_ALL = 2**30


class Lanes(NamedTuple):
    """How runs are laid out in kernels.

    Attributes:
        group: runs launched together, a power of two; a multiple of those of a block.
        width: lanes of a warp for each run, or, wide, for each sample; a power of two.
        is_wide: whether a run has a block, with a component in each of `width` lanes.
        centred: whether components may be narrower than raw moments can represent; see `jaxgmm.em.fused`.
    """

    group: int
    width: int
    is_wide: bool = False
    centred: bool = False

    @property
    def runs(self) -> int:
        """Runs of a block."""
        return 1 if self.is_wide else WARPS * WARP // self.width

    @property
    def samples(self) -> int:
        """Samples of a run read at a time."""
        return WARPS * WARP // self.width if self.is_wide else self.width

    @property
    def filling(self) -> int:
        """Runs that keep a GPU busy."""
        return FILLING // (WARPS * WARP) * self.runs


# From fixed and moving rows of numbers, a store, a function that loads a block of samples, the numbers of blocks and of
# steps, and how arrays relate, to the new moving rows, the state of the store, and the number of steps made.
Life = Callable[[list[Any], list[Any], Store, Callable[[Any], list[Any]], Any, Any, Arrays], tuple[list[Any], Any, Any]]


def why_not(device: Any) -> str | None:
    """Why kernels cannot be made for a device of JAX; None if they can."""
    capability = str(getattr(device, "compute_capability", ""))
    # A ROCm device calls itself a GPU too, but names an architecture.
    if device.platform not in ("gpu", "cuda") or not re.fullmatch(r"\d+\.\d+", capability):
        return f"{device.device_kind} is not a CUDA device"
    if float(capability) < CAPABILITY:
        return f"{device.device_kind} has compute capability {capability}, and {CAPABILITY} is needed"
    if not KNOWN[0] <= jax.__version_info__[:2] <= KNOWN[1]:
        first, last = (".".join(map(str, version)) for version in KNOWN)
        return f"jax is {jax.__version__}, and {first} to {last} are known"
    try:
        _narrow_layouts(Lanes(1, 16))
        _wide_layouts(Lanes(1, 8, is_wide=True))
    except Exception as error:
        return f"jax.experimental.pallas.mosaic_gpu is not as expected: {error!r}"
    return None


class Problem(NamedTuple):
    """Runs `(Q,)` and the data that they read.

    Attributes:
        fixed: numbers of runs that do not change, a row of all runs for each; wide, each with one for every lane.
        moving: numbers of runs that change.
        stored: numbers that change and are needed only between two passes over the samples.
        samples: features of samples and, last, their weights, of S data sets.
        row: the data set of each run.
        n_used: number of samples of each data set that count; later samples have weight 0.
    """

    fixed: Float[Array, "f q *k"]
    moving: Float[Array, "m q *k"]
    stored: Float[Array, "r q *k"]
    samples: Float[Array, "s d n"]
    row: Int[Array, " q"]
    n_used: Int[Array, " s"]


def run_in_rounds(
    problem: Problem,
    waiting: Bool[Array, " q"],
    life: Life,
    is_running: Callable[[Array], Array],
    lanes: Lanes,
    n_steps: Int[Array, ""],
) -> tuple[Float[Array, "m q *k"], Int[Array, ""]]:
    """Takes the waiting runs to their ends.

    Args:
        problem: the runs.
        waiting: which of them to advance.
        life: makes a number of steps of a run.
        is_running: from `moving` rows, which of their runs have not ended.
        lanes: how runs are laid out.
        n_steps: maximum number of steps of a kernel, as long as the remaining runs keep a GPU busy.

    Returns:
        `moving`, with waiting runs at their ends, and the total number of steps of their lanes.
    """
    fixed, moving, stored, samples, row, n_used = problem
    n_runs, group = len(row), lanes.group
    samples = jnp.pad(samples, ((0, 0), (0, 0), (0, -samples.shape[2] % lanes.samples)))
    kernel = _kernel(life, lanes)

    def launch(
        carry: tuple[list[Array], Array, Array], order: Array, n_left: Array
    ) -> tuple[list[Array], Array, Array]:
        changing, first, executed = carry
        place = first + jnp.arange(group, dtype=jnp.int32)
        # A block is padded with a run of the same launch, so that it does not wait for another run.
        runs, inside = order[jnp.minimum(place, n_left - 1)], place < n_left
        own = row[runs]
        longest = jnp.max(jnp.where(inside, n_used[own], 0).reshape(-1, lanes.runs), axis=1)
        to_make = jnp.where(n_left > lanes.filling, n_steps, _ALL)
        # A block without a run makes no step.
        limits = jnp.stack([-(-longest // lanes.samples), jnp.where(longest > 0, to_make, 0)]).astype(jnp.int32)
        *after, made = kernel(limits, _in_blocks(samples, own, lanes), *(rows[:, runs] for rows in (fixed, *changing)))
        places = jnp.where(inside, runs, n_runs)
        changing = [
            rows.at[:, places].set(new, mode="drop", wrap_negative_indices=False)
            for rows, new in zip(changing, after, strict=True)
        ]
        return changing, first + group, executed + lanes.runs * jnp.sum(made, dtype=executed.dtype)

    def one_round(carry: tuple[list[Array], Array, Array, Array]) -> tuple[list[Array], Array, Array, Array]:
        changing, order, n_left, executed = carry
        changing, _, executed = lax.while_loop(
            lambda carry: carry[1] < n_left,
            lambda carry: launch(carry, order, n_left),
            (changing, jnp.zeros((), jnp.int32), executed),
        )
        return changing, *numbers_of(waiting & is_running(changing[0])), executed

    executed = jnp.zeros((), jax.dtypes.canonicalize_dtype(jnp.int64))
    start = ([moving, stored], *numbers_of(waiting & is_running(moving)), executed)
    (moving, _), _, _, executed = lax.while_loop(lambda carry: carry[2] > 0, one_round, start)
    return moving, executed


def _in_blocks(samples: Float[Array, "s d n"], row: Int[Array, " g"], lanes: Lanes) -> Float[Array, "b t d *w"]:
    """Samples of the runs of each block, in the order in which its lanes read them."""
    own = samples[row].reshape(len(row), samples.shape[1], -1, lanes.samples)
    if lanes.is_wide:
        return jnp.moveaxis(own, 1, 2)
    return jnp.transpose(own.reshape(-1, lanes.runs, *own.shape[1:]), (0, 3, 2, 1, 4))


def _kernel(life: Life, lanes: Lanes, interpret: Any = None) -> Callable[..., tuple[Array, Array, Array]]:
    """The kernel of a group: from its limits, samples and rows to its new rows, and the steps of each block.

    With parameters of Mosaic's interpreter, it needs no GPU.
    """
    pallas, plgpu = _mosaic()
    layouts = _wide_layouts(lanes) if lanes.is_wide else _narrow_layouts(lanes)

    def body(
        limits: Any, samples: Any, fixed: Any, moving: Any, stored: Any, moved: Any, kept: Any, made: Any, shared: Any
    ) -> None:
        block = lax.axis_index("block")
        place = block if lanes.is_wide else pallas.ds(block * lanes.runs, lanes.runs)

        def loaded(rows: Any) -> list[Any]:
            # One array, of which a lane holds a number of every row, is lowered sooner than many.
            block = plgpu.load(rows, layout=layouts.runs, optimized=False)
            n_rows, n_lanes = block.shape
            return [lax.squeeze(lax.slice(block, (i, 0), (i + 1, n_lanes)), (0,)) for i in range(n_rows)]

        def store(rows: list[Any], at: Any, *place: Any) -> None:
            for i, row in enumerate(rows):
                _store(plgpu, at.at[i, *place], row)

        def load(_state: tuple[()]) -> list[Any]:
            # All threads have written.
            plgpu.commit_smem()
            return loaded(shared)

        def save(_state: tuple[()], rows: list[Any]) -> tuple[()]:
            # All threads have read the earlier rows.
            plgpu.commit_smem()
            store(rows, shared)
            return ()

        def read(i: Any) -> list[Any]:
            parts = [samples.at[block, i, d] for d in range(samples.shape[2])]
            return [layouts.placed(plgpu.load(part, layout=layouts.samples, optimized=False)) for part in parts]

        in_shared = Store(save((), loaded(stored.at[:, place])), load, save)
        own = loaded(fixed.at[:, place]), loaded(moving.at[:, place])
        rows, _, n_made = life(*own, in_shared, read, limits[0, block], limits[1, block], layouts.arrays)
        store(rows, moved, place)
        store(load(()), kept, place)
        _store(plgpu, made.at[block], n_made)

    def call(limits: Array, samples: Array, fixed: Array, moving: Array, stored: Array) -> tuple[Array, Array, Array]:
        n_blocks = limits.shape[1]
        out = [jax.ShapeDtypeStruct(rows.shape, rows.dtype) for rows in (moving, stored)]
        out.append(jax.ShapeDtypeStruct((n_blocks,), jnp.int32))
        shared = plgpu.SMEM((len(stored), lanes.width if lanes.is_wide else lanes.runs), stored.dtype)
        # Only `shared` is both read and written. Loading and saving it wait for all threads, which make the same turns.
        options = plgpu.CompilerParams(
            approx_math=True, lowering_semantics=plgpu.LoweringSemantics.Lane, unsafe_no_auto_barriers=True
        )
        grid = {"grid": (n_blocks,), "grid_names": ("block",), "scratch_types": [shared]}
        kernel = plgpu.kernel(body, out_type=out, **grid, interpret=interpret, compiler_params=options)
        moved, kept, made = kernel(limits, samples, fixed, moving, stored)
        return moved, kept, made

    return call


class _Layouts(NamedTuple):
    """The layouts of a kernel's numbers.

    Attributes:
        runs: layout of arrays of runs.
        samples: layout of loaded samples.
        placed: from there to the layout for arithmetic.
        arrays: how arrays relate.
    """

    runs: Any
    samples: Any
    placed: Callable[[Any], Any]
    arrays: Arrays


def _narrow_layouts(lanes: Lanes) -> _Layouts:
    """Runs `(R,)`, samples `(R, W)`: each run has `W` lanes of one warp, so that sums stay inside it."""
    _, plgpu = _mosaic()
    shape, of_warp = (lanes.runs, lanes.width), lanes.runs // WARPS
    both = _tiled(shape, (of_warp, lanes.width))
    added, larger = functools.partial(functools.reduce, jnp.add), functools.partial(functools.reduce, jnp.maximum)

    def spread(a: Any) -> Any:
        return plgpu.layout_cast(lax.broadcast_in_dim(a, shape, (0,)), both)

    arrays = Arrays(spread, lambda a: jnp.sum(a, axis=1), larger, added, added, larger)
    return _Layouts(both.reduce(1), both, lambda a: a, arrays)


def _wide_layouts(lanes: Lanes) -> _Layouts:
    """Components `(K,)` of one run, samples `(W, K)`: a component for each lane, so that most sums stay in it."""
    _, plgpu = _mosaic()
    shape = (lanes.samples, lanes.width)
    both = _tiled(shape, (lanes.samples // WARPS, lanes.width))

    def down(a: Any) -> Any:
        return plgpu.layout_cast(lax.broadcast_in_dim(a, shape, (1,)), both)

    def across(a: Any) -> Any:
        return plgpu.layout_cast(lax.broadcast_in_dim(a, shape, (0,)), both)

    def of_all(reduce: Callable[..., Any]) -> Callable[[Sequence[Any]], Any]:
        return lambda rows: across(reduce(rows[0], axis=1))

    def of_runs(reduce: Callable[..., Any]) -> Callable[[Sequence[Any]], Any]:
        # All rows are the same.
        return lambda rows: jnp.max(across(reduce(down(rows[0]), axis=1)), axis=0)

    reductions = (of_all(jnp.max), of_all(jnp.sum), of_runs(jnp.sum), of_runs(jnp.max))
    arrays = Arrays(down, lambda a: jnp.sum(a, axis=0), *reductions)
    return _Layouts(both.reduce(0), both.reduce(1), across, arrays)


def _tiled(shape: tuple[int, int], of_warp: tuple[int, int]) -> Any:
    """The layout of an array in the registers of a block: a tile for each warp, with an element for each lane."""
    _, plgpu = _mosaic()
    fragmented_array = import_module("jax.experimental.mosaic.gpu.fragmented_array")
    tiling = fragmented_array.Tiling((shape, of_warp, (1,)))
    layout = fragmented_array.TiledLayout(
        tiling, warp_dims=(-5,), lane_dims=(-3, -2), vector_dim=-1, _check_canonical=False
    ).canonicalize()
    return plgpu.Layout.TILED(
        layout.tiling, warp_dims=layout.warp_dims, lane_dims=layout.lane_dims, vector_dim=layout.vector_dim
    )


def _store(plgpu: ModuleType, place: Any, value: Any) -> None:
    # From 0.12 on, it must be told that each lane stores one number.
    if hasattr(plgpu, "store") and "optimized" in inspect.signature(plgpu.store).parameters:
        plgpu.store(place, value, optimized=False)
    else:
        place[...] = value


@functools.cache
def _mosaic() -> tuple[ModuleType, ModuleType]:
    """Pallas and its Mosaic for GPUs. The import fails if jax lacks them."""
    return import_module("jax.experimental.pallas"), import_module("jax.experimental.pallas.mosaic_gpu")
