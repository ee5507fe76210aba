"""All runs of a chunk, in the precisions that were asked for.

In mixed precision float32 searches and float64 finishes. Float32 runs find out which start of a data set is best, and
float64 takes that run to its end. Runs that leave what float32 can represent are judged by float64 as well. Where a
data set has one start only, there is nothing to search, and float64 does all of it.
"""

import functools
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxgmm.em import run as em
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.em.expectation import Data
from jaxgmm.em.statistics import features
from jaxgmm.engine.slots import run_queue
from jaxgmm.engine.standardize import Standardization
from jaxgmm.mixture import Mixture
from jaxgmm.status import Status

# Float32 cannot tell smaller gains of the mean log-likelihood from rounding.
SEARCH_TOL = 1e-6

# Iterations that a search leaves to float64 where max_iter ends it, to correct its rounding.
RESERVED = 10

# What must be left of a variance after cancellation, in machine epsilons. Below SOUND its digits are noise. A float32
# search that float64 will finish can ask for more: above ACCURATE the log-likelihood is right to 1e-4 nats per sample.
SOUND = 64
ACCURATE = 1024

_Tree = TypeVar("_Tree")


class Program(NamedTuple):
    """What a program is compiled for.

    Attributes:
        n_components: K.
        covariance_type: name of the family.
        init: name of an initialiser, or `"mixture"`, `"responsibilities"` or `"labels"` for explicit starts.
        n_init: R; 1 for explicit starts.
        precision: `"mixed"`, `"float32"` or `"float64"`.
        n_history: length of the recorded history; 0 when none is asked for.
        n_slots: slots for single runs.
        n_stacked_slots: slots that each hold a data set with all its starts, or 0 where starts take slots of their own.
    """

    n_components: int
    covariance_type: str
    init: str
    n_init: int
    precision: str
    n_history: int
    n_slots: int
    n_stacked_slots: int


class DataSets(NamedTuple):
    """A chunk of standardised data sets.

    Attributes:
        z: `(C, D, N)`.
        weights: `(C, N)`, 0 for padding; the largest of a data set is 1.
        weight_scale: `(C,)`, what they were divided by.
        ridge: `(C, D, D)` or `(C, D)`.
        units: the way back to data units, `(C, …)`.
        status: `RUNNING`, or why the data set is not fitted at all, `(C,)`.
    """

    z: Float[Array, "c d n"]
    weights: Float[Array, "c n"]
    weight_scale: Float[Array, " c"]
    ridge: Float[Array, "c d d"] | Float[Array, "c d"]
    units: Standardization
    status: Int[Array, " c"]


class Options(NamedTuple):
    """What a compiled program is told: changing it compiles nothing.

    Attributes:
        tol: smallest gain of the mean log-likelihood to go on for.
        max_iter: iterations at most.
        reg_covar: ridge, as a fraction of each feature's variance.
        key: random key.
    """

    tol: float
    max_iter: int
    reg_covar: float
    key: Array


class Runs(NamedTuple):
    """The runs of a chunk, ended; run `c R + r` is start `r` of data set `c`.

    Attributes:
        states: final states `(C R,)`, float64.
        judged: `(C R,)`, whether a run was finished in the precision of the answer, and so may be chosen.
        executed: run-iterations that the slots made.
        useful: those that some run needed.
    """

    states: em.RunState
    judged: np.ndarray
    executed: int
    useful: int


def all_runs(sets: DataSets, starts: Mixture, options: Options, program: Program) -> Runs:
    """Takes every start of every sound data set to its end.

    Args:
        sets: C standardised data sets.
        starts: `(C R, K, …)`, in their coordinates, float64.
        options: tolerance and limits.
        program: precision, and what programs are compiled for.

    Returns:
        the runs.
    """
    wanted = np.repeat(np.asarray(sets.status) == em.RUNNING, program.n_init)
    begun = _begun(starts, len(wanted), program.n_history)
    limits = (options.tol, options.max_iter)
    stacked = program.n_stacked_slots > 0
    run = functools.partial(_run, sets, starts, covariance_type=program.covariance_type, n_init=program.n_init)
    singly = functools.partial(run, n_slots=program.n_slots, stacked=False)
    all_starts = functools.partial(run, n_slots=program.n_stacked_slots, stacked=True) if stacked else singly
    search, finish = functools.partial(all_starts, dtype="float32"), functools.partial(singly, dtype="float64")
    if program.precision == "float32":
        states, *counts = search(begun, wanted, *limits, SOUND)
        return Runs(states, wanted, *map(int, counts))
    if program.precision == "float64" or program.n_init == 1 or options.max_iter <= 2 * RESERVED:
        states, *counts = all_starts(begun, wanted, *limits, ACCURATE, dtype="float64")
        return Runs(states, wanted, *map(int, counts))

    limits_of_search = (max(options.tol, SEARCH_TOL), options.max_iter - RESERVED)
    states, *counts = search(begun, wanted, *limits_of_search, ACCURATE)
    found = Runs(states, np.zeros_like(wanted), *map(int, counts))
    lost = np.asarray(states.status) == Status.DEGENERATE
    promise = np.asarray(states.log_likelihood)
    margin = limits_of_search[0] * np.asarray(jnp.sum(sets.weights, axis=1))[:, None]
    pending = wanted
    # The best run of each data set, and every run whose components became too narrow for float32, go on in float64.
    # Should none of a data set's runs prove sound, the next best follow.
    while np.any(pending):
        score = np.where(pending & ~lost, promise, -np.inf).reshape(-1, program.n_init)
        # Starts that tol cannot tell apart are equal, and the first of them goes on: rounding must not choose.
        first = np.argmax(score >= np.max(score, axis=1, keepdims=True) - margin, axis=1)
        is_best = np.arange(program.n_init) == first[:, None]
        candidates = pending & (is_best.ravel() | lost)
        states, *counts = finish(found.states, candidates, *limits, ACCURATE)
        found = Runs(states, found.judged | candidates, found.executed + int(counts[0]), found.useful + int(counts[1]))
        sound = found.judged & (np.asarray(states.status) != Status.DEGENERATE)
        settled = np.any(sound.reshape(-1, program.n_init), axis=1)
        pending = pending & ~candidates & ~np.repeat(settled, program.n_init)
    return found


@functools.partial(jax.jit, static_argnames=("covariance_type", "n_init", "n_slots", "stacked", "dtype"))
def _run(
    sets: DataSets,
    starts: Mixture,
    before: em.RunState,
    wanted: Bool[Array, " q"],
    tol: Any,
    max_iter: Any,
    variance_floor: Any,
    *,
    covariance_type: str,
    n_init: int,
    n_slots: int,
    stacked: bool,
    dtype: str,
) -> tuple[em.RunState, Int[Array, ""], Int[Array, ""]]:
    """Takes the wanted runs to their ends in one precision; others keep the state they have. Float64 in and out.

    A run goes on from where it was `before`, or from its start if it has made no step. Stacked, a slot holds all starts
    of one data set: their E-steps are one larger matrix product, but the slot waits for the slowest.
    """
    family = FAMILIES[covariance_type]
    z, weights, ridge, starts, records = _cast((sets.z, sets.weights, sets.ridge, starts, before), dtype)
    floor = jnp.asarray(variance_floor, dtype) * jnp.finfo(dtype).eps.astype(dtype)
    tol, max_iter = jnp.asarray(tol, dtype), jnp.asarray(max_iter, jnp.int32)

    def problem(data_set: Array) -> tuple[Data, em.Settings]:
        data = Data(features(z[data_set], diagonal=family.diagonal), weights[data_set])
        return data, em.Settings(ridge[data_set], tol, max_iter, floor)

    def begin(run: Array, settings: em.Settings) -> em.RunState:
        record, start = jax.tree.map(lambda leaf: leaf[run], (records, starts))
        begins = jax.tree.map(lambda s, m: jnp.where(record.n_iter > 0, m, s), start, record.mixture)
        return em.init(begins, settings, record.n_iter, record.history)

    def step(problem: tuple[Data, em.Settings], state: em.RunState) -> em.RunState:
        data, settings = problem
        return em.step(data, state, family, settings)

    def load(run: Array) -> tuple[tuple[Data, em.Settings], em.RunState]:
        loaded = problem(run // n_init)
        return loaded, begin(run, loaded[1])

    def load_stack(data_set: Array) -> tuple[tuple[Data, em.Settings], em.RunState]:
        loaded = problem(data_set)
        runs = n_init * data_set + jnp.arange(n_init, dtype=data_set.dtype)
        return loaded, jax.vmap(begin, in_axes=(0, None))(runs, loaded[1])

    def unload(state: em.RunState) -> em.RunState:
        return state._replace(natural=None)

    if stacked:
        step_stack = jax.vmap(step, in_axes=(None, 0))
        rows = jax.tree.map(lambda leaf: leaf.reshape(-1, n_init, *leaf.shape[1:]), records)
        waiting = jnp.any(wanted.reshape(-1, n_init), axis=1)
        parts = (load_stack, step_stack, lambda states: jnp.all(em.is_finished(states)), unload, rows)
    else:
        waiting, parts = wanted, (load, step, em.is_finished, unload, records)
    queue = jnp.argsort(~waiting, stable=True).astype(jnp.int32)
    ended, executed = run_queue(queue, jnp.sum(waiting), *parts, n_slots)
    if stacked:
        ended, executed = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), ended), executed * n_init
    # Every run also makes an E-step after its last M-step.
    useful = jnp.sum(jnp.where(wanted, ended.n_iter - records.n_iter + 1, 0), dtype=jnp.int32)
    # Rows that were not run must not lose digits on their way through a narrower type.
    kept = jax.tree.map(
        lambda new, old: jnp.where(wanted.reshape(-1, *[1] * (new.ndim - 1)), new, old),
        _cast(ended, "float64"),
        before,
    )
    return kept, executed, useful


def _begun(starts: Mixture, n_runs: int, n_history: int) -> em.RunState:
    """Records of runs `(Q, …)` that have made no step yet."""
    return em.RunState(
        mixture=starts,
        natural=None,
        log_likelihood=jnp.asarray(np.full(n_runs, np.nan)),
        n_iter=jnp.asarray(np.zeros(n_runs, np.int32)),
        status=jnp.asarray(np.full(n_runs, em.RUNNING, np.int32)),
        history=jnp.asarray(np.full((n_runs, n_history), np.nan)) if n_history else None,
    )


def _cast(tree: _Tree, dtype: str) -> _Tree:
    """Floating-point leaves in another precision."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)
