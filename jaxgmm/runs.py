"""The runs of a chunk, and one compiled pass that takes some of them on.

`jaxgmm.search` decides which runs go how far in which precision; here that is done, in slots (`jaxgmm.engine.slots`).
"""

import functools
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxgmm.em import run as em
from jaxgmm.em import vectors
from jaxgmm.em.covariance import FAMILIES, one_of
from jaxgmm.em.expectation import Data, Tiles, as_data
from jaxgmm.em.spurious import n_spikes
from jaxgmm.em.statistics import SufficientStatistics, features
from jaxgmm.engine.slots import Busy, Kind, run_queue, where_leading
from jaxgmm.engine.standardize import Standardization
from jaxgmm.kernels import QUICKLY, WELL
from jaxgmm.mixture import Mixture
from jaxgmm.program import Layout, Models, Options, Program, Slots

_Tree = TypeVar("_Tree")


class DataSets(NamedTuple):
    """A chunk of data sets in all their forms; row `c P + p` is form `p` of data set `c`.

    Attributes:
        z: standardised samples `(C P, D, N)`; None where only what describes the data sets is needed.
        weights: `(C P, N)`, 0 for padding; the largest of a data set is 1. None likewise.
        total_weight: `(C P,)`, their sum.
        n_effective: `(C P,)`, the effective number of samples, (Σ w)² / Σ w².
        weight_scale: `(C P,)`, what they were divided by.
        ridge: `(C P, D, D)` or `(C P, D)`.
        units: the way back to data units, `(C P, …)`.
    """

    z: Any
    weights: Any
    total_weight: Float[Array, " s"]
    n_effective: Float[Array, " s"]
    weight_scale: Float[Array, " s"]
    ridge: Float[Array, "s d d"] | Float[Array, "s d"]
    units: Standardization


class Runs(NamedTuple):
    """The runs of a chunk, as far as they have come; run `(c M + m) R + r` is start `r` of model `m` on data set `c`.

    Attributes:
        states: `(C M R,)`, float64.
        spikes: `(C M R,)`, how many of a run's components are spikes.
        judged: `(C M R,)`, whether a run was finished in the precision of the answer, and so may be chosen.
        executed: run-iterations that the slots made.
        useful: those that some run needed.
    """

    states: em.RunState
    spikes: Int[Array, " q"] | np.ndarray
    judged: np.ndarray
    executed: int
    useful: int


class Limits(NamedTuple):
    """How far a pass takes runs.

    Attributes:
        tol: smallest gain of the mean log-likelihood to go on for.
        max_iter: iterations at most, those made before the pass included.
        variance_floor: what must be left of a variance after cancellation, in machine epsilons of the pass.
    """

    tol: float
    max_iter: int
    variance_floor: int


class _Slot(NamedTuple):
    """What slots hold beside the data: a run, or all runs of a data set in a leading axis. Slots are the last axis."""

    state: em.RunState
    settings: em.Settings
    family: Int[Array, "*s"]
    total_weight: Float[Array, "*s"]


def form_of(fit: Any, n_fits: int, n_rows: int, models: Models) -> Any:
    """The row of `DataSets`, which has `n_rows`, that the fit `c M + m`, one of `n_fits`, reads."""
    n_models = len(models.form)
    n_forms = n_rows * n_models // n_fits
    return fit // n_models * n_forms + models.form[fit % n_models].astype(fit.dtype)


def begun(starts: Mixture, program: Program) -> Runs:
    """Runs `(Q,)` that have made no step yet. Made on the host: that spares a dispatch for each array."""
    n_runs, n_history, n_snapshots = len(starts.weights), program.n_history, program.n_snapshots

    def full(value: float, dtype: type, *shape: int) -> Any:
        return np.full(shape, value, dtype)

    states = em.RunState(
        mixture=starts,
        natural=None,
        log_likelihood=full(np.nan, np.float64, n_runs),
        n_iter=full(0, np.int32, n_runs),
        status=full(em.RUNNING, np.int32, n_runs),
        history=full(np.nan, np.float64, n_runs, n_history) if n_history else None,
        snapshots=Mixture(*(full(np.nan, np.float64, n_runs, n_snapshots, *leaf.shape[1:]) for leaf in starts))
        if n_snapshots
        else None,
    )
    return Runs(states, np.zeros(n_runs, np.int32), np.zeros(n_runs, bool), 0, 0)


class Work(NamedTuple):
    """What all passes over the runs of a chunk have in common."""

    sets: DataSets
    starts: Mixture
    options: Options
    program: Program

    def take_on(self, found: Runs, wanted: Bool[np.ndarray, " q"], limits: Limits, slots: Slots, dtype: str) -> Runs:
        """Takes the wanted runs on from where they were `found`; others keep what they have."""
        run = _run_quickly if self.program.quickly else _run
        states, spikes, executed, useful = run(
            *(self.sets, self.starts, found.states, wanted, self.options.models, limits, self.options.snapshots),
            layout=self.program.layout,
            slots=slots,
            dtype=dtype,
        )
        return Runs(states, spikes, found.judged, found.executed + int(executed), found.useful + int(useful))

    def mean_log_likelihoods(self, found: Runs) -> Float[np.ndarray, "g r"]:
        """Of every start of every fit, per sample of weight 1; -inf where there is none."""
        n_init = self.program.layout.n_init
        log_likelihood = np.asarray(found.states.log_likelihood).reshape(-1, n_init)
        total_weight = np.asarray(self.sets.total_weight)
        n_fits = len(log_likelihood)
        total_weight = total_weight[form_of(np.arange(n_fits), n_fits, len(total_weight), self.options.models)]
        mean = log_likelihood / np.maximum(total_weight, 1.0)[:, None]
        return np.where(np.isnan(mean), -np.inf, mean)


def _to_ends(
    sets: DataSets,
    starts: Mixture,
    before: em.RunState,
    wanted: Bool[Array, " q"],
    models: Models,
    limits: Limits,
    snapshots: Int[Array, " p"] | None,
    *,
    layout: Layout,
    slots: Slots,
    dtype: str,
) -> tuple[em.RunState, Int[Array, " q"], Int[Array, ""], Int[Array, ""]]:
    """Takes the wanted runs to their ends in one precision; others keep the state they have. Float64 in and out.

    A run goes on from where it was `before`, or from its start if it has made no step. Stacked, a slot holds all starts
    of one data set: their E-steps are one larger matrix product, but the slot waits for the slowest.
    """
    n_init, n_fits, n_rows = layout.n_init, len(wanted) // layout.n_init, len(sets.n_effective)
    diagonal, stacked = layout.diagonal, slots.stacked
    models = jax.tree.map(jnp.asarray, models)
    z, weights, ridge, starts, records = _cast((sets.z, sets.weights, sets.ridge, starts, before), dtype)
    floor = jnp.asarray(limits.variance_floor, dtype) * jnp.finfo(dtype).eps.astype(dtype)
    tol, max_iter = jnp.asarray(limits.tol, dtype), jnp.asarray(limits.max_iter, jnp.int32)
    snapshots = None if snapshots is None else jnp.asarray(snapshots, jnp.int32)

    # By vectors, a slot knows the row of its data set; else it holds a copy. The state in it is that of one run, or of
    # all runs of a fit in a leading axis; slots are the last axis.
    all_data = Data(jax.vmap(lambda z: features(z, diagonal=diagonal))(z), weights)

    def load(item: Array) -> tuple[Data | Tiles | Array, _Slot]:
        fit = item if stacked else item // n_init
        runs = n_init * item + jnp.arange(n_init, dtype=item.dtype) if stacked else item
        record, start = jax.tree.map(lambda leaf: leaf[runs], (records, starts))
        mixture = where_leading(record.n_iter > 0, record.mixture, start)
        row, model = form_of(fit, n_fits, n_rows, models), jax.tree.map(lambda leaf: leaf[fit % len(leaf)], models)
        if slots.by_vectors:
            data = row.astype(jnp.int32)
        else:
            data = as_data(z[row], weights[row], layout.tile, diagonal=diagonal)
        present = jnp.arange(layout.n_components, dtype=jnp.int32) < model.n_components if layout.has_absent else None
        settings = em.Settings(ridge[row], tol, max_iter, floor, present, snapshots)
        return data, _Slot(record._replace(mixture=mixture), settings, model.family, jnp.sum(weights[row]))

    def begin(slot: _Slot) -> _Slot:
        def one(record: em.RunState) -> em.RunState:
            recorded = (record.n_iter, record.history, record.snapshots)
            return em.init(record.mixture, slot.settings, *recorded, as_one_kernel=slots.as_one_kernel)

        return slot._replace(state=(jax.vmap(one) if stacked else one)(slot.state))

    def read(data: Data | Tiles, slot: _Slot) -> tuple[SufficientStatistics, Array]:
        return em.read(data, slot.state, FAMILIES[layout.families[0]])

    def read_busy(rows: Array, in_slots: _Slot, busy: Busy) -> tuple[SufficientStatistics, Array]:
        return vectors.e_steps(all_data, rows, in_slots.state.natural, *busy, z.shape[1], diagonal=diagonal)

    def advance(slot: _Slot, sums: tuple[SufficientStatistics, Array]) -> _Slot:
        family = one_of(layout.families, slot.family)

        def one(state: em.RunState, sums: tuple[SufficientStatistics, Array]) -> em.RunState:
            return em.advance(
                *(state, *sums, slot.total_weight, family, slot.settings),
                ends_with_m_step=layout.ends_with_m_step,
                as_one_kernel=slots.as_one_kernel,
            )

        return slot._replace(state=(jax.vmap(one) if stacked else one)(slot.state, sums))

    def is_finished(slot: _Slot) -> Array:
        finished = em.is_finished(slot.state)
        return jnp.all(finished, axis=0) if stacked else finished

    def unload(slot: _Slot) -> em.RunState:
        return slot.state._replace(natural=None)

    runs_per_slot = n_init if stacked else 1
    rows = jax.tree.map(lambda leaf: leaf.reshape(-1, n_init, *leaf.shape[1:]), records) if stacked else records
    waiting = jnp.any(wanted.reshape(-1, runs_per_slot), axis=1)
    # Runs of many components take the most iterations, and the last of a queue should not be the longest.
    size = jnp.tile(jnp.repeat(models.n_components, n_init // runs_per_slot), n_fits // len(models.form))
    queue = jnp.argsort(jnp.where(waiting, -size, 1), stable=True).astype(jnp.int32)
    kind = Kind(load, begin, read, advance, is_finished, unload, read_busy if slots.by_vectors else None)
    ended, executed = run_queue(queue, jnp.sum(waiting), kind, rows, slots.number, slots.stride)
    ended = jax.tree.map(lambda leaf, record: leaf.reshape(record.shape), ended, records)
    # Every run also makes an E-step after its last M-step.
    useful = jnp.sum(jnp.where(wanted, ended.n_iter - records.n_iter + 1, 0), dtype=jnp.int64)
    # Rows that were not run must not lose digits on their way through a narrower type.
    kept = where_leading(wanted, _cast(ended, "float64"), before)
    row = form_of(jnp.arange(len(wanted)) // n_init, n_fits, n_rows, models)
    spikes = jax.vmap(n_spikes)(kept.mixture, sets.n_effective[row], sets.total_weight[row], sets.ridge[row])
    return kept, spikes, executed * runs_per_slot, useful


_compile = functools.partial(jax.jit, static_argnames=("layout", "slots", "dtype"))
_run = _compile(_to_ends, compiler_options=WELL)
_run_quickly = _run if QUICKLY == WELL else _compile(_to_ends, compiler_options=QUICKLY)


def _cast(tree: _Tree, dtype: str) -> _Tree:
    """Floating-point leaves in another precision."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)
