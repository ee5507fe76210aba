"""All runs of a chunk, in the precisions that were asked for.

In mixed precision float32 searches and float64 finishes. Float32 runs find out which start of a data set is best, and
float64 takes that run to its end. Runs that leave what float32 can represent are judged by float64 as well. Where a
data set has one start only, there is nothing to search, and float64 does all of it.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
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
        n_slots: runs that step together.
    """

    n_components: int
    covariance_type: str
    init: str
    n_init: int
    precision: str
    n_history: int
    n_slots: int


class DataSets(NamedTuple):
    """A chunk of standardised data sets.

    Attributes:
        z: `(C, D, N)`.
        weights: `(C, N)`, 0 for padding.
        ridge: `(C, D, D)` or `(C, D)`.
        units: the way back to data units, `(C, …)`.
        status: `RUNNING`, or why the data set is not fitted at all, `(C,)`.
    """

    z: Float[Array, "c d n"]
    weights: Float[Array, "c n"]
    ridge: Float[Array, "c d d"] | Float[Array, "c d"]
    units: Standardization
    status: Int[Array, " c"]


class Runs(NamedTuple):
    """The runs of a chunk, ended.

    Attributes:
        states: final states `(C, R)`, float64.
        judged: `(C, R)`, whether a run was finished in the precision of the answer, and so may be chosen.
        executed: run-iterations that the slots made.
        useful: those that some run needed.
    """

    states: em.RunState
    judged: Bool[Array, "c r"]
    executed: Int[Array, ""]
    useful: Int[Array, ""]


def all_runs(sets: DataSets, starts: Mixture, tol: Array, max_iter: Array, program: Program) -> Runs:
    """Takes every start `(C, R)` of every sound data set to its end."""
    begun = _begun(jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), starts), program.n_history)
    wanted = jnp.repeat(sets.status == em.RUNNING, program.n_init)
    epsilon = {dtype: float(jnp.finfo(dtype).eps) for dtype in (jnp.float32, jnp.float64)}
    run_in = functools.partial(_run, sets, program)
    if program.precision == "float32":
        runs = run_in(jnp.float32, begun, wanted, tol, max_iter, SOUND * epsilon[jnp.float32])
    elif program.precision == "float64" or program.n_init == 1:
        runs = run_in(jnp.float64, begun, wanted, tol, max_iter, ACCURATE * epsilon[jnp.float64])
    else:
        # The search may spend half the iterations, so that float64 has as many left to correct its rounding.
        search_tol = jnp.maximum(tol, SEARCH_TOL)
        found = run_in(jnp.float32, begun, wanted, search_tol, max_iter // 2, ACCURATE * epsilon[jnp.float32])

        def finish(begun: em.RunState, wanted: Array) -> Runs:
            return run_in(jnp.float64, begun, wanted, tol, max_iter, ACCURATE * epsilon[jnp.float64])

        runs = _finished(begun, found, wanted, len(sets.status), finish)
    by_set = functools.partial(
        jax.tree.map, lambda leaf: leaf.reshape(len(sets.status), program.n_init, *leaf.shape[1:])
    )
    return runs._replace(states=by_set(runs.states), judged=by_set(runs.judged))


def _finished(
    begun: em.RunState, found: Runs, wanted: Array, n_sets: int, finish: Callable[[em.RunState, Array], Runs]
) -> Runs:
    """Takes the most promising runs of a float32 search to their end in float64.

    They are the best run of each data set, and every run whose components became too narrow for float32. Should none of
    a data set's runs prove sound, the next best follow.
    """
    searched = found.states
    lost = searched.status == Status.DEGENERATE
    # A run that never made a step goes back to its start, in full precision.
    resumed = begun._replace(
        mixture=_where(searched.n_iter > 0, searched.mixture, begun.mixture),
        n_iter=searched.n_iter,
        history=searched.history,
    )
    promise = jnp.where(lost, -jnp.inf, searched.log_likelihood)

    def unsettled(carry: tuple[Runs, Array]) -> Array:
        return jnp.any(carry[1])

    def next_best(carry: tuple[Runs, Array]) -> tuple[Runs, Array]:
        runs, pending = carry
        score = jnp.where(pending, promise, -jnp.inf).reshape(n_sets, -1)
        best = jnp.arange(score.shape[1])[None, :] == jnp.argmax(score, axis=1)[:, None]
        candidates = pending & (best.reshape(-1) | lost)
        finals = finish(resumed, candidates)
        runs = Runs(
            states=_where(candidates, finals.states, runs.states),
            judged=runs.judged | candidates,
            executed=runs.executed + finals.executed,
            useful=runs.useful + finals.useful,
        )
        sound = runs.judged & (runs.states.status != Status.DEGENERATE)
        settled = jnp.any(sound.reshape(n_sets, -1), axis=1)
        return runs, pending & ~candidates & ~jnp.repeat(settled, score.shape[1])

    found = found._replace(judged=jnp.zeros_like(wanted))
    return lax.while_loop(unsettled, next_best, (found, wanted))[0]


def _run(
    sets: DataSets,
    program: Program,
    dtype: type,
    begun: em.RunState,
    wanted: Bool[Array, " q"],
    tol: Array,
    max_iter: Array,
    variance_floor: float,
) -> Runs:
    """Takes the wanted runs to their ends in one precision; float64 in and out. Other runs keep the state they have."""
    family = FAMILIES[program.covariance_type]
    z, weights, ridge, records = _cast((sets.z, sets.weights, sets.ridge, begun), dtype)
    tol, max_iter = tol.astype(dtype), max_iter.astype(jnp.int32)

    def load(run: Array) -> tuple[tuple[Data, em.Settings], em.RunState]:
        data_set = run // program.n_init
        data = Data(features(z[data_set], diagonal=family.diagonal), weights[data_set])
        settings = em.Settings(ridge[data_set], tol, max_iter, jnp.asarray(variance_floor, dtype))
        record = jax.tree.map(lambda leaf: leaf[run], records)
        return (data, settings), em.init(record.mixture, settings, record.n_iter, record.history)

    def step(problem: tuple[Data, em.Settings], state: em.RunState) -> em.RunState:
        data, settings = problem
        return em.step(data, state, family, settings)

    def unload(state: em.RunState) -> em.RunState:
        return state._replace(natural=None)

    queue = jnp.argsort(~wanted, stable=True).astype(jnp.int32)
    ended, executed = run_queue(queue, jnp.sum(wanted), load, step, em.is_finished, unload, records, program.n_slots)
    # Every run also makes an E-step after its last M-step.
    useful = jnp.sum(jnp.where(wanted, ended.n_iter - records.n_iter + 1, 0), dtype=jnp.int32)
    return Runs(_cast(ended, jnp.float64), wanted, executed, useful)


def _begun(starts: Mixture, n_history: int) -> em.RunState:
    """Records of runs `(Q, …)` that have made no step yet."""
    n_runs, dtype = len(starts.weights), starts.means.dtype
    return em.RunState(
        mixture=starts,
        natural=None,
        log_likelihood=jnp.full((n_runs,), jnp.nan, dtype),
        n_iter=jnp.zeros((n_runs,), jnp.int32),
        status=jnp.full((n_runs,), em.RUNNING, jnp.int32),
        history=jnp.full((n_runs, n_history), jnp.nan, dtype) if n_history else None,
    )


def _cast(tree: _Tree, dtype: type) -> _Tree:
    """Floating-point leaves in another precision."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)


def _where(condition: Bool[Array, " q"], new: _Tree, old: _Tree) -> _Tree:
    return jax.tree.map(lambda a, b: jnp.where(condition.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, old)
