"""Runs in slots, refilled inside the compiled loop.

Runs need very different numbers of steps, and a mapped `while_loop` makes all of them wait for the slowest. Here a
queue of runs passes through a fixed number of slots: all slots step together, and every few steps the slots whose run
has ended hand over its result and take the next run of the queue.

This module does not know what a run is; a `Routine` supplies the functions.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int

from jaxgmm.engine.rows import numbers_of, rows_of, with_rows

Result = TypeVar("Result")
Tree = TypeVar("Tree")


class Routine(NamedTuple):
    """The functions that make and advance runs.

    `load` is a function of one run, and is mapped over the slots. The others are called with the states of all slots,
    which are the last axis of every array. States are small, and all have the same shape: arithmetic on them is
    vectorised over slots.

    Attributes:
        load: from the number of a run to its problem and its start.
        begin: from starts to the first states.
        read: the part of a step that reads the problems: its sums for the states, given which slots are `Busy`.
        advance: the rest of the step; finished states are unchanged.
        is_finished: which states have ended.
        unload: the part of finished states to keep.
        idle_is_free: whether slots without a run take no time.
    """

    load: Callable[[Array], tuple[Any, Any]]
    begin: Callable[[Any], Any]
    read: "Callable[[Any, Any, Busy], Any]"
    advance: Callable[[Any, Any], Any]
    is_finished: Callable[[Any], Bool[Array, " s"]]
    unload: Callable[[Any], Any]
    idle_is_free: bool = False


class Busy(NamedTuple):
    """The slots that hold a run.

    Attributes:
        slots: their numbers, then zeros.
        number: how many there are.
    """

    slots: Int[Array, " s"]
    number: Int[Array, ""]


class _Loop(NamedTuple):
    """The carry of the loop: `S` slots, and the results of the runs that have left them."""

    problems: Any
    states: Any
    runs: Int[Array, " s"]
    next: Int[Array, ""]
    results: Any
    n_steps: Int[Array, ""]


def run_queue(
    queue: Int[Array, " q"],
    n_queued: Int[Array, ""],
    routine: Routine,
    results: Result,
    n_slots: int,
    stride: int,
) -> tuple[Result, Int[Array, ""]]:
    """Takes every run of a queue to its end.

    Args:
        queue: numbers of the runs, of which the first `n_queued` count.
        n_queued: length of the queue.
        routine: the functions of a run.
        results: rows `(Q, …)`; row `q` is replaced by the result of run `q`, rows of runs not queued are unchanged.
        n_slots: S, the number of runs that step together.
        stride: steps between two checks for finished slots.

    Returns:
        the results, and the number of steps of all slots together, including idle ones if they cost as much.
    """
    n_queued = n_queued.astype(jnp.int32)
    load_all = jax.vmap(routine.load, out_axes=(0, -1))

    # The barriers separate the transposition to slots-last from arithmetic. If they were fused, compilers would treat
    # the last slots differently, and a run's last bits would depend on its slot.
    def loaded(runs: Array) -> tuple[Any, Any]:
        problems, starts = load_all(runs)
        return problems, routine.begin(lax.optimization_barrier(starts))

    def step(problems: Any, states: Any, busy: Busy) -> Any:
        return routine.advance(states, lax.optimization_barrier(routine.read(problems, states, busy)))

    def refill(loop: _Loop) -> _Loop:
        free = loop.runs < 0
        position = loop.next + jnp.cumsum(free.astype(jnp.int32)) - 1
        waiting = rows_of(queue, position).astype(jnp.int32)
        runs = jnp.where(free, jnp.where(position < n_queued, waiting, -1), loop.runs)
        problems, states = loaded(jnp.maximum(runs, 0))
        return loop._replace(
            problems=problems,
            states=_where_trailing(free, states, loop.states),
            runs=runs,
            next=jnp.minimum(loop.next + jnp.sum(free, dtype=jnp.int32), n_queued),
        )

    def body(loop: _Loop) -> _Loop:
        wanting = jnp.any(loop.runs < 0) & (loop.next < n_queued)
        loop = lax.cond(wanting, refill, lambda loop: loop, loop)
        is_busy = loop.runs >= 0
        busy = Busy(*numbers_of(is_busy))
        states = lax.fori_loop(0, stride, lambda _, states: step(loop.problems, states, busy), loop.states)
        finished = routine.is_finished(states) & is_busy
        # Rows out of range are dropped: a slot without a finished run writes nothing.
        rows = jnp.where(finished, loop.runs, n_rows)
        leavings = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -1, 0), routine.unload(states))
        return loop._replace(
            states=states,
            runs=jnp.where(finished, -1, loop.runs),
            results=with_rows(loop.results, rows, leavings),
            n_steps=loop.n_steps + stride * (busy.number.astype(n_steps.dtype) if routine.idle_is_free else n_slots),
        )

    n_rows = jax.tree.leaves(results)[0].shape[0]
    slots = jax.ShapeDtypeStruct((n_slots,), jnp.int32)
    empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(loaded, slots))
    zero = jnp.zeros((), jnp.int32)
    # As wide as the caller's integers: many runs make more steps than 32 bits can count.
    n_steps = jnp.zeros((), jax.dtypes.canonicalize_dtype(jnp.int64))
    problems, states = empty
    loop = _Loop(problems, states, jnp.full((n_slots,), -1, jnp.int32), zero, results, n_steps)
    loop = lax.while_loop(lambda loop: jnp.any(loop.runs >= 0) | (loop.next < n_queued), body, loop)
    return loop.results, loop.n_steps


def where_leading(condition: Bool[Array, "*s"], new: Tree, old: Tree) -> Tree:
    """`jnp.where` for every leaf of two trees, along the leading axis; or for whole leaves, given a scalar."""

    def choose(a: Array, b: Array) -> Array:
        return jnp.where(condition.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, new, old)


def _where_trailing(condition: Bool[Array, " s"], new: Tree, old: Tree) -> Tree:
    return jax.tree.map(lambda a, b: jnp.where(condition.reshape(*[1] * (a.ndim - 1), -1), a, b), new, old)
