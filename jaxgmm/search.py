"""All runs of a chunk, in the precisions that were asked for.

In mixed precision float32 searches and float64 finishes. Float32 runs find out which start of a data set is best, and
float64 takes that run to its end. Runs that leave what float32 can represent are judged by float64 as well. Where a
data set has one start only, there is nothing to search, and float64 does all of it.

Where only some starts are to be finalists, all make a few iterations first, and the best go on from there.
"""

import functools
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxgmm.em import run as em
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.em.expectation import Data, Tiles, as_data
from jaxgmm.em.statistics import SufficientStatistics
from jaxgmm.engine.slots import Kind, run_queue, where_leading
from jaxgmm.engine.standardize import Standardization
from jaxgmm.mixture import Mixture
from jaxgmm.status import Status

# Float32 cannot tell smaller gains of the mean log-likelihood from rounding.
SEARCH_TOL = 1e-6

# Iterations after which the finalists among the starts are chosen.
SHORT = 12

# Iterations that a search leaves to float64 where max_iter ends it, to correct its rounding.
RESERVED = 10

# What must be left of a variance after cancellation, in machine epsilons. Below SOUND its digits are noise. A float32
# search that float64 will finish can ask for more: above ACCURATE the log-likelihood is right to 1e-4 nats per sample.
SOUND = 64
ACCURATE = 1024

_Tree = TypeVar("_Tree")


class Program(NamedTuple):
    """What programs are compiled for.

    Attributes:
        n_components: K that arrays have room for.
        has_absent: whether fewer components may be present (`Options.n_components`), so that several K share programs.
        covariance_type: name of the family.
        init: name of an initialiser, or `"mixture"`, `"responsibilities"` or `"labels"` for explicit starts.
        n_init: R; 1 for explicit starts.
        n_finalists: starts of each data set that are taken to their ends; the others end after `SHORT` iterations.
        precision: `"mixed"`, `"float32"` or `"float64"`.
        search_dtype: type of the search among starts in mixed precision.
        n_history: length of the recorded history; 0 when none is asked for.
        n_slots: slots for single runs.
        n_stacked_slots: slots that each hold a data set with all its starts, or 0 where starts take slots of their own.
        tile: samples that an E-step reads at a time, or 0 for all.
    """

    n_components: int
    has_absent: bool
    covariance_type: str
    init: str
    n_init: int
    n_finalists: int
    precision: str
    search_dtype: str
    n_history: int
    n_slots: int
    n_stacked_slots: int
    tile: int


class DataSets(NamedTuple):
    """A chunk of standardised data sets.

    Attributes:
        z: `(C, D, N)`; None where only what describes the data sets is needed.
        weights: `(C, N)`, 0 for padding; the largest of a data set is 1. None likewise.
        n_effective: `(C,)`, their sum.
        weight_scale: `(C,)`, what they were divided by.
        ridge: `(C, D, D)` or `(C, D)`.
        units: the way back to data units, `(C, …)`.
        status: `RUNNING`, or why the data set is not fitted at all, `(C,)`.
    """

    z: Any
    weights: Any
    n_effective: Float[Array, " c"]
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
        key: random key, or seed.
        n_components: components that are present.
    """

    tol: float
    max_iter: int
    reg_covar: float
    key: Array | np.int64
    n_components: int


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


class _Slot(NamedTuple):
    """What a slot holds beside the data: a run, or all runs of a data set in a leading axis."""

    state: em.RunState
    settings: em.Settings
    total_weight: Float[Array, ""]


def all_runs(sets: DataSets, starts: Mixture, options: Options, program: Program) -> Runs:
    """Takes every start of every sound data set to its end, or to the place where it falls behind.

    Args:
        sets: C standardised data sets.
        starts: `(C R, K, …)`, in their coordinates, float64.
        options: tolerance and limits.
        program: precision, and what programs are compiled for.

    Returns:
        the runs.
    """
    wanted = np.repeat(np.asarray(sets.status) == em.RUNNING, program.n_init)
    in_one_precision = program.precision != "mixed" or program.n_init == 1 or options.max_iter <= 2 * RESERVED
    if in_one_precision:
        dtype = "float32" if program.precision == "float32" else "float64"
        tol, max_iter = options.tol, options.max_iter
    else:
        dtype = program.search_dtype
        tol, max_iter = max(options.tol, SEARCH_TOL), options.max_iter - RESERVED
    # Nothing finishes what float32 alone has begun, so there it may go as far as its digits are worth anything.
    floor = SOUND if program.precision == "float32" else ACCURATE
    work = _Work(sets, starts, options, program)
    # What an iteration at this tolerance can change; starts that differ by less are equal.
    margin = tol * np.maximum(np.asarray(sets.n_effective), 1.0)

    found = _begun(starts, program.n_history)
    if program.n_finalists < program.n_init and max_iter > SHORT:
        found = work.run(found, wanted, tol, SHORT, floor, dtype)
        wanted = _among_best(found.states, wanted, margin, program)
    found = work.run(found, wanted, tol, max_iter, floor, dtype, stacked=program.n_stacked_slots > 0)
    if in_one_precision:
        return found._replace(judged=wanted)
    return _finished(work, found, wanted, margin)


def _among_best(states: em.RunState, wanted: np.ndarray, margin: np.ndarray, program: Program) -> np.ndarray:
    """Which of the wanted runs are the finalists of their data set. Of runs that are equal, the first go on."""
    score = np.asarray(states.log_likelihood).reshape(-1, program.n_init)
    score = np.where(np.isnan(score), -np.inf, score)
    if np.all(margin > 0):
        score = np.round(score / margin[:, None])
    order = np.argsort(-score, axis=1, kind="stable")
    is_finalist = np.zeros_like(order, bool)
    np.put_along_axis(is_finalist, order[:, : program.n_finalists], True, axis=1)
    return wanted & is_finalist.ravel()


def _finished(work: "_Work", found: Runs, wanted: np.ndarray, margin: np.ndarray) -> Runs:
    """Takes the best run of each data set to its end in float64, and every run that became too narrow for a search.

    Should none of a data set's runs prove sound, the next best follow.
    """
    options, n_init = work.options, work.program.n_init
    lost = np.asarray(found.states.status) == Status.DEGENERATE
    promise = np.asarray(found.states.log_likelihood)
    pending = wanted
    while np.any(pending):
        score = np.where(pending & ~lost, promise, -np.inf).reshape(-1, n_init)
        # Rounding must not choose.
        first = np.argmax(score >= np.max(score, axis=1, keepdims=True) - margin[:, None], axis=1)
        is_best = np.arange(n_init) == first[:, None]
        candidates = pending & (is_best.ravel() | lost)
        found = work.run(found, candidates, options.tol, options.max_iter, ACCURATE, "float64")
        found = found._replace(judged=found.judged | candidates)
        sound = found.judged & (np.asarray(found.states.status) != Status.DEGENERATE)
        settled = np.any(sound.reshape(-1, n_init), axis=1)
        pending = pending & ~candidates & ~np.repeat(settled, n_init)
    return found


class _Work(NamedTuple):
    """What all passes over the runs of a chunk have in common."""

    sets: DataSets
    starts: Mixture
    options: Options
    program: Program

    def run(
        self,
        found: Runs,
        wanted: np.ndarray,
        tol: float,
        max_iter: int,
        floor: int,
        dtype: str,
        *,
        stacked: bool = False,
    ) -> Runs:
        """Takes the wanted runs on from where they were `found`; others keep what they have."""
        program = self.program
        states, executed, useful = _run(
            *(self.sets, self.starts, found.states, wanted, tol, max_iter, floor, self.options.n_components),
            covariance_type=program.covariance_type,
            n_init=program.n_init,
            n_slots=program.n_stacked_slots if stacked else program.n_slots,
            stacked=stacked,
            has_absent=program.has_absent,
            tile=program.tile,
            dtype=dtype,
        )
        return Runs(states, found.judged, found.executed + int(executed), found.useful + int(useful))


@functools.partial(
    jax.jit,
    static_argnames=("covariance_type", "n_init", "n_slots", "stacked", "has_absent", "tile", "dtype"),
)
def _run(
    sets: DataSets,
    starts: Mixture,
    before: em.RunState,
    wanted: Bool[Array, " q"],
    tol: Any,
    max_iter: Any,
    variance_floor: Any,
    n_components: Any,
    *,
    covariance_type: str,
    n_init: int,
    n_slots: int,
    stacked: bool,
    has_absent: bool,
    tile: int,
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
    present = jnp.arange(starts.weights.shape[-1]) < n_components if has_absent else None

    # A slot holds one run, or all runs of a data set in a leading axis.
    def load(item: Array) -> tuple[Data | Tiles, _Slot]:
        data_set = item if stacked else item // n_init
        runs = n_init * item + jnp.arange(n_init, dtype=item.dtype) if stacked else item
        record, start = jax.tree.map(lambda leaf: leaf[runs], (records, starts))
        mixture = where_leading(record.n_iter > 0, record.mixture, start)
        data = as_data(z[data_set], weights[data_set], tile, diagonal=family.diagonal)
        settings = em.Settings(ridge[data_set], tol, max_iter, floor, present)
        return data, _Slot(record._replace(mixture=mixture), settings, jnp.sum(weights[data_set]))

    def begin(slot: _Slot) -> _Slot:
        def one(record: em.RunState) -> em.RunState:
            return em.init(record.mixture, slot.settings, record.n_iter, record.history)

        return slot._replace(state=(jax.vmap(one) if stacked else one)(slot.state))

    def read(data: Data | Tiles, slot: _Slot) -> tuple[SufficientStatistics, Array]:
        return em.read(data, slot.state, family)

    def advance(slot: _Slot, sums: tuple[SufficientStatistics, Array]) -> _Slot:
        def one(state: em.RunState, sums: tuple[SufficientStatistics, Array]) -> em.RunState:
            return em.advance(state, *sums, slot.total_weight, family, slot.settings)

        return slot._replace(state=(jax.vmap(one) if stacked else one)(slot.state, sums))

    def is_finished(slot: _Slot) -> Array:
        return jnp.all(em.is_finished(slot.state))

    def unload(slot: _Slot) -> em.RunState:
        return slot.state._replace(natural=None)

    runs_per_slot = n_init if stacked else 1
    rows = jax.tree.map(lambda leaf: leaf.reshape(-1, n_init, *leaf.shape[1:]), records) if stacked else records
    waiting = jnp.any(wanted.reshape(-1, runs_per_slot), axis=1)
    queue = jnp.argsort(~waiting, stable=True).astype(jnp.int32)
    kind = Kind(load, begin, read, advance, is_finished, unload)
    ended, executed = run_queue(queue, jnp.sum(waiting), kind, rows, n_slots)
    ended = jax.tree.map(lambda leaf, record: leaf.reshape(record.shape), ended, records)
    # Every run also makes an E-step after its last M-step.
    useful = jnp.sum(jnp.where(wanted, ended.n_iter - records.n_iter + 1, 0), dtype=jnp.int32)
    # Rows that were not run must not lose digits on their way through a narrower type.
    kept = where_leading(wanted, _cast(ended, "float64"), before)
    return kept, executed * runs_per_slot, useful


def _begun(starts: Mixture, n_history: int) -> Runs:
    """Runs `(Q,)` that have made no step yet. Made on the host: that spares a dispatch for each array."""
    n_runs = len(starts.weights)

    def full(value: float, dtype: type, *shape: int) -> Any:
        return np.full(shape, value, dtype)

    states = em.RunState(
        mixture=starts,
        natural=None,
        log_likelihood=full(np.nan, np.float64, n_runs),
        n_iter=full(0, np.int32, n_runs),
        status=full(em.RUNNING, np.int32, n_runs),
        history=full(np.nan, np.float64, n_runs, n_history) if n_history else None,
    )
    return Runs(states, np.zeros(n_runs, bool), 0, 0)


def _cast(tree: _Tree, dtype: str) -> _Tree:
    """Floating-point leaves in another precision."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)
