"""Slots on a toy run that needs no statistics: count up to a target."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import at_once

from jaxgmm.engine.slots import Busy, Routine, run_queue

STRIDE = 4


class Counter(NamedTuple):
    value: jax.Array
    steps: jax.Array


State = tuple[jax.Array, Counter, jax.Array]


def count_up(targets: list[int], queue: list[int], n_queued: int, n_slots: int) -> tuple[Counter, int]:
    targets = jnp.asarray(targets, jnp.int32)

    def load(run: jax.Array) -> tuple[jax.Array, jax.Array]:
        return targets[run], run.astype(jnp.int32)

    def begin(runs: jax.Array) -> State:
        return targets[runs] <= 0, Counter(10 * runs, jnp.zeros_like(runs)), targets[runs]

    def read(targets: jax.Array, states: State, _: Busy) -> jax.Array:
        return states[1].steps + 1 >= targets

    def advance(state: State, reaches: jax.Array) -> State:
        done, counter, target = state
        counter = jax.tree.map(lambda n: jnp.where(done, n, n + 1), counter)
        return done | reaches, counter, target

    results = Counter(jnp.full(len(targets), -1, jnp.int32), jnp.full(len(targets), -1, jnp.int32))
    routine = Routine(load, begin, read, advance, is_finished=lambda state: state[0], unload=lambda state: state[1])

    @at_once
    def run(queue: jax.Array, n_queued: jax.Array) -> tuple[Counter, jax.Array]:
        return run_queue(queue, n_queued, routine, results, n_slots, STRIDE)

    return run(np.asarray(queue, np.int32), np.asarray(n_queued))


@pytest.mark.parametrize("n_slots", [1, 2, 3, 8, 16])
def test_every_run_ends_as_it_would_alone(n_slots: int) -> None:
    targets = [3, 50, 1, 0, 7, 20, 2, 2]
    results, _ = count_up(targets, list(range(8)), 8, n_slots)
    assert results.steps.tolist() == targets
    assert results.value.tolist() == [10 * run + target for run, target in enumerate(targets)]


@pytest.mark.parametrize("n_slots", [1, 2, 8])
def test_only_queued_runs_are_touched(n_slots: int) -> None:
    results, _ = count_up([3, 4, 5, 6], [2, 0, 1, 3], 2, n_slots)
    assert results.steps.tolist() == [3, -1, 5, -1]


def test_empty_queue_does_nothing() -> None:
    results, executed = count_up([3, 4], [0, 1], 0, 2)
    assert results.steps.tolist() == [-1, -1]
    assert executed == 0


def test_refilled_slots_do_not_wait_for_the_slowest() -> None:
    targets = [64, *[8] * 56]
    _, executed = count_up(targets, list(range(57)), 57, 8)
    assert sum(targets) == 512
    # A mapped while_loop over groups of 8 would need 64 + 7 × 8 steps of 8 slots; full slots need 512.
    assert executed <= 512 + 8 * 3 * STRIDE


def test_results_do_not_depend_on_the_neighbours() -> None:
    alone, _ = count_up([5], [0], 1, 4)
    together, _ = count_up([5, 100, 3, 9], [3, 1, 0, 2], 4, 4)
    np.testing.assert_array_equal(together.value[0], alone.value[0])


def test_idle_slots_are_not_counted_where_they_are_free() -> None:
    targets = jnp.asarray([4, 40, 8, 4, 12], jnp.int32)

    def read(problems: jax.Array, states: tuple[jax.Array, jax.Array], busy: Busy) -> jax.Array:
        is_busy = jnp.zeros(4, bool).at[jnp.where(jnp.arange(4) < busy.number, busy.slots, 4)].set(True, mode="drop")
        # An idle slot gets what no run may see.
        return jnp.where(is_busy, states[1] + 1 >= problems, True)

    def advance(state: tuple[jax.Array, jax.Array], reaches: jax.Array) -> tuple[jax.Array, jax.Array]:
        done, steps = state
        return done | reaches, jnp.where(done, steps, steps + 1)

    routine = Routine(
        load=lambda run: (targets[run], jnp.zeros((), jnp.int32)),
        begin=lambda steps: (jnp.zeros_like(steps, bool), steps),
        read=read,
        advance=advance,
        is_finished=lambda state: state[0],
        unload=lambda state: state[1],
        idle_is_free=True,
    )
    queue = jnp.arange(5, dtype=jnp.int32)
    steps, executed = run_queue(queue, jnp.asarray(5), routine, jnp.full(5, -1, jnp.int32), 4, STRIDE)
    assert steps.tolist() == targets.tolist()
    # The four idle slots beside the last of the long run cost nothing.
    assert executed == sum(-(-int(target) // STRIDE) * STRIDE for target in targets)
