"""The runs of a chunk, and one compiled pass that takes some of them on.

`jaxgmm.search` decides which runs go how far in which precision; here that is done, in slots (`jaxgmm.engine.slots`).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxgmm.em import run as em
from jaxgmm.em import vectors
from jaxgmm.em.centred import centred_e_step
from jaxgmm.em.covariance import FAMILIES, one_of
from jaxgmm.em.expectation import Data, Tiles, as_data
from jaxgmm.em.spurious import (
    DOMINATED,
    Findings,
    Support,
    bounded_log_likelihood,
    is_small,
    is_tied,
    may_be_tied,
    owes_to_ridge,
)
from jaxgmm.em.statistics import SufficientStatistics, features
from jaxgmm.engine.slots import Busy, Kind, run_queue, where_leading
from jaxgmm.engine.standardize import Standardization, scaled_features
from jaxgmm.kernels import compiled
from jaxgmm.mixture import Mixture
from jaxgmm.program import Layout, Models, Options, Program, Slots
from jaxgmm.soundness import is_sound, price
from jaxgmm.status import Status

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
        ridge_in_data_units: `(C P, D)`.
        units: the way back to data units, `(C P, …)`.
    """

    z: Any
    weights: Any
    total_weight: Float[Array, " s"]
    n_effective: Float[Array, " s"]
    weight_scale: Float[Array, " s"]
    ridge: Float[Array, "s d d"] | Float[Array, "s d"]
    ridge_in_data_units: Float[Array, "s d"]
    units: Standardization


class Runs(NamedTuple):
    """The runs of a chunk, as far as they have come; run `(c M + m) R + r` is start `r` of model `m` on data set `c`.

    Attributes:
        states: `(C M R,)`, float64.
        findings: `(C M R,)`, how many of a run's components are not to be trusted.
        judged: `(C M R,)`, whether a run was finished in the precision of the answer, and so may be chosen.
        executed: run-iterations that the slots made.
        useful: those that some run needed.
    """

    states: em.RunState
    findings: Findings
    judged: np.ndarray
    executed: int
    useful: int


class Limits(NamedTuple):
    """How far a pass takes runs.

    Attributes:
        tol: smallest gain of the mean log-likelihood to go on for.
        max_iter: iterations at most, those made before the pass included.
        variance_floor: what must be left of a variance after cancellation, in machine epsilons of the pass.
        extra_ridge: what is added to every variance beside the ridge, in standardised units.
    """

    tol: float
    max_iter: int
    variance_floor: int
    extra_ridge: float = 0.0


# What must be left of a variance in float64 for its error to be a ten-millionth of it, and where samples are centred on
# each component, so that nothing cancels, for it to be known at all; in machine epsilons.
ACCURATE_IN_FLOAT64 = 2**22
SOUND = 64

# Numbers that are held at a time where runs are looked at once more.
_JUDGED = 2**17


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
    none = np.zeros(n_runs, np.int32)
    return Runs(states, Findings(none, none, states.log_likelihood), np.zeros(n_runs, bool), 0, 0)


class Work(NamedTuple):
    """What all passes over the runs of a chunk have in common."""

    sets: DataSets
    starts: Mixture
    options: Options
    program: Program

    def in_float32(self, found: Runs, wanted: Bool[np.ndarray, " q"], limits: Limits, slots: Slots) -> Runs:
        """Takes the wanted runs on from where they were `found`; others keep what they have."""
        return self._take_on(found, wanted, limits, slots, "float32")

    def in_float64(
        self,
        found: Runs,
        wanted: Bool[np.ndarray, " q"],
        rivals: Bool[np.ndarray, " q"],
        limits: tuple[float, int],
        slots: Slots,
    ) -> Runs:
        """The same, with components as narrow as float64 can tell: about their own means where they need that.

        What has become too narrow on a few samples is spurious, and ends there if a rival of the same fit is sound and
        better. `limits` are tolerance and most iterations.
        """
        before = self.scores(found)
        found = self._take_on(found, wanted, Limits(*limits, ACCURATE_IN_FLOAT64), slots, "float64")
        status, spurious = np.asarray(found.states.status), found.findings.spurious
        lost = wanted & (status == Status.DEGENERATE)
        if self.options.avoids_spurious:
            # A run that was centred before is lost at once, and is worth what it was worth then.
            scores, is_rival = np.maximum(self.scores(found), before), rivals & is_sound(status, spurious)
            best = np.max(np.where(is_rival.reshape(scores.shape), scores, -np.inf), axis=1, keepdims=True)
            is_worse = (scores > -np.inf) & (scores < best)
            lost &= (spurious == 0) | ~is_worse.ravel()
        if not np.any(lost):
            return found
        return self._take_on(found, lost, Limits(*limits, SOUND), self.program.centred, "float64")

    def _take_on(self, found: Runs, wanted: Bool[np.ndarray, " q"], limits: Limits, slots: Slots, dtype: str) -> Runs:
        layout, models = self.program.layout, self.options.models
        states, executed, useful = _run["quickly" if self.program.effort == "at once" else "well"](
            *(self.sets, self.starts, found.states, wanted, models, limits, self.options.snapshots),
            layout=layout,
            slots=slots,
            dtype=dtype,
        )
        findings = _found_in(states, self.sets, limits.extra_ridge, models, self.program)
        # Other runs have the ridge of the pass that they ended in.
        findings = jax.tree.map(lambda new, old: np.where(wanted, new, old), findings, found.findings)
        return Runs(states, findings, found.judged, found.executed + int(executed), found.useful + int(useful))

    def scores(self, found: Runs) -> Float[np.ndarray, "g r"]:
        """What every start of every fit is compared by, in nats per sample of weight 1; -inf where there is nothing."""
        layout = self.program.layout
        score = np.asarray(score_of(found, self.sets, self.options, layout))
        total_weights = _total_weights(len(score), self.sets, self.options, layout.n_init)
        mean = (score / np.maximum(total_weights, 1.0)).reshape(-1, layout.n_init)
        return np.where(np.isnan(mean), -np.inf, mean)


def score_of(found: Runs, sets: DataSets, options: Options, layout: Layout) -> Any:
    """What runs `(Q,)` of one fit are chosen by, in nats: log-likelihoods, or what `jaxgmm.soundness` makes of them."""
    if not options.avoids_spurious:
        return found.states.log_likelihood
    n_runs, n_features = found.states.mixture.means.shape[0], found.states.mixture.n_features
    families = [FAMILIES[name].n_parameters for name in layout.families]
    # Weight, mean, and what of the covariance is its own.
    own = np.array([1 + n_features + free(2, n_features) - free(1, n_features) for free in families])
    fit = np.arange(n_runs) // layout.n_init
    n_parameters = own[options.models.family[fit % len(options.models.family)]]
    prices = price(n_parameters, _total_weights(n_runs, sets, options, layout.n_init))
    return np.asarray(found.findings.bounded) - prices * np.asarray(found.findings.spurious)


def _total_weights(n_runs: int, sets: DataSets, options: Options, n_init: int) -> Float[np.ndarray, " q"]:
    """Σ w of the data set that each run reads."""
    total_weight, n_fits = np.asarray(sets.total_weight), n_runs // n_init
    return np.repeat(total_weight[form_of(np.arange(n_fits), n_fits, len(total_weight), options.models)], n_init)


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
) -> tuple[em.RunState, Int[Array, ""], Int[Array, ""]]:
    """Takes the wanted runs to their ends in one precision; others keep the state they have. Float64 in and out.

    A run goes on from where it was `before`, or from its start if it has made no step. Stacked, a slot holds all starts
    of one data set: their E-steps are one larger matrix product, but the slot waits for the slowest.
    """
    n_init, n_fits, n_rows = layout.n_init, len(wanted) // layout.n_init, len(sets.n_effective)
    diagonal, stacked = layout.diagonal, slots.stacked
    models = jax.tree.map(jnp.asarray, models)
    unit = jnp.ones(sets.z.shape[1]) if diagonal else jnp.eye(sets.z.shape[1])
    ridges = sets.ridge + limits.extra_ridge * unit[None]
    z, weights, ridge, starts, records = _cast((sets.z, sets.weights, ridges, starts, before), dtype)
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
        present = None
        if layout.has_absent:
            present = (jnp.arange(layout.n_components, dtype=jnp.int32) < model.n_components) & (start.weights != 0)
        settings = em.Settings(ridge[row], tol, max_iter, floor, present, snapshots)
        return data, _Slot(record._replace(mixture=mixture), settings, model.family, jnp.sum(weights[row]))

    def begin(slot: _Slot) -> _Slot:
        def one(record: em.RunState) -> em.RunState:
            recorded = (record.n_iter, record.history, record.snapshots)
            return em.init(record.mixture, slot.settings, *recorded, **arithmetic)

        return slot._replace(state=(jax.vmap(one) if stacked else one)(slot.state))

    arithmetic = {"as_one_kernel": slots.as_one_kernel, "centred": slots.centred}

    def read(data: Data | Tiles, slot: _Slot) -> tuple[SufficientStatistics, Array]:
        if slots.centred:
            return centred_e_step(data, slot.state.natural, z.shape[1], diagonal=diagonal)
        return em.read(data, slot.state, FAMILIES[layout.families[0]])

    def read_busy(rows: Array, in_slots: _Slot, busy: Busy) -> tuple[SufficientStatistics, Array]:
        return vectors.e_steps(all_data, rows, in_slots.state.natural, *busy, z.shape[1], diagonal=diagonal)

    def advance(slot: _Slot, sums: tuple[SufficientStatistics, Array]) -> _Slot:
        family = one_of(layout.families, slot.family)

        def one(state: em.RunState, sums: tuple[SufficientStatistics, Array]) -> em.RunState:
            return em.advance(
                *(state, *sums, slot.total_weight, family, slot.settings),
                ends_with_m_step=layout.ends_with_m_step,
                **arithmetic,
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
    return kept, executed * runs_per_slot, useful


def _found_in(states: em.RunState, sets: DataSets, extra_ridge: float, models: Models, program: Program) -> Findings:
    """Components of all runs `(Q,)` that are not to be trusted.

    Programs that few data sets need are compiled where one does: for equal values, and for spurious components.
    """
    layout, effort, described = program.layout, program.effort, sets._replace(z=None, weights=None)
    flags = _flags[effort](states.mixture, described, extra_ridge, models, layout=layout)
    small, suspect, dominated = flags
    spurious, bounded = np.asarray(small), states.log_likelihood
    if np.any(suspect):
        spurious = spurious | np.asarray(_tied[effort](states.mixture, sets, suspect, models, layout=layout))
    if np.any(spurious):
        bounded = _bounded[effort](states.mixture, states.log_likelihood, sets, spurious, models, layout=layout)
    n_spurious = np.count_nonzero(spurious, axis=1).astype(np.int32)
    n_dominated = np.count_nonzero(dominated, axis=1).astype(np.int32)
    return Findings(n_spurious, n_dominated, bounded)


_compiled = functools.partial(compiled, static_argnames=("layout",))


@_compiled
def _flags(
    mixtures: Mixture, sets: DataSets, extra_ridge: Array, models: Models, *, layout: Layout
) -> tuple[Bool[Array, "q k"], Bool[Array, "q k"], Bool[Array, "q k"]]:
    """Which components are small, which may be of equal values, and which are dominated by the ridge."""
    models, n_features = jax.tree.map(jnp.asarray, models), mixtures.n_features
    row, fit = _rows(mixtures, sets, models, layout)
    least = jnp.array([FAMILIES[name].least_samples(n_features) for name in layout.families], jnp.float64)
    least = least[models.family[fit % len(models.family)]]
    small = jax.vmap(is_small)(mixtures, Support(sets.n_effective[row], sets.total_weight[row], least))
    unit = jnp.ones(n_features) if layout.diagonal else jnp.eye(n_features)
    ridge = sets.ridge[row] + extra_ridge * unit[None]
    dominated = jax.vmap(lambda mixture, ridge: owes_to_ridge(mixture, ridge, DOMINATED))(mixtures, ridge)
    return small, jax.vmap(may_be_tied)(mixtures, ridge) & ~small, dominated


@_compiled
def _tied(
    mixtures: Mixture, sets: DataSets, suspect: Bool[Array, "q k"], models: Models, *, layout: Layout
) -> Bool[Array, "q k"]:
    """Which of the components that may be of equal values are."""
    row, _ = _rows(mixtures, sets, jax.tree.map(jnp.asarray, models), layout)

    def tied(run: Array) -> Bool[Array, " k"]:
        mixture = jax.tree.map(lambda leaf: leaf[run], mixtures)
        own = jax.tree.map(lambda leaf: leaf[row[run]], sets)
        return is_tied(mixture, own.z, scaled_features(own.z, own.units), own.weights)

    return suspect & _for_some(tied, jnp.any(suspect, axis=1), suspect, _at_a_time(mixtures, sets))


@_compiled
def _bounded(
    mixtures: Mixture,
    log_likelihoods: Float[Array, " q"],
    sets: DataSets,
    spurious: Bool[Array, "q k"],
    models: Models,
    *,
    layout: Layout,
) -> Float[Array, " q"]:
    """Log-likelihoods where spurious components are as wide as the data, if lower; of runs without any, their own."""
    row, _ = _rows(mixtures, sets, jax.tree.map(jnp.asarray, models), layout)

    def bounded(run: Array) -> Float[Array, ""]:
        mixture = jax.tree.map(lambda leaf: leaf[run], mixtures)
        z, weights = sets.z[row[run]], sets.weights[row[run]]
        return bounded_log_likelihood(mixture, spurious[run], z, weights)

    wanted = jnp.any(spurious, axis=1)
    return jnp.minimum(log_likelihoods, _for_some(bounded, wanted, log_likelihoods, _at_a_time(mixtures, sets)))


def _rows(mixtures: Mixture, sets: DataSets, models: Models, layout: Layout) -> tuple[Array, Array]:
    """The row of `sets` that each run reads, and the number of its fit."""
    n_runs = len(mixtures.weights)
    fit = jnp.arange(n_runs) // layout.n_init
    return form_of(fit, n_runs // layout.n_init, len(sets.n_effective), models), fit


def _at_a_time(mixtures: Mixture, sets: DataSets) -> int:
    n_runs, n_components, n_features = mixtures.means.shape
    return max(1, min(n_runs, _JUDGED // (n_components * n_features * sets.z.shape[2])))


def _for_some(of_one: Callable[[Array], Array], wanted: Bool[Array, " q"], default: Array, at_a_time: int) -> Array:
    """Rows `(Q, …)` computed where they are wanted, which they seldom are, so many at a time; others by default."""
    queue = jnp.argsort(~wanted, stable=True).astype(jnp.int32)
    n_wanted = jnp.sum(wanted, dtype=jnp.int32)
    at_once = jnp.arange(at_a_time, dtype=jnp.int32)

    def body(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        first, rows = carry
        own = queue[jnp.minimum(first + at_once, len(queue) - 1)]
        place = jnp.where(first + at_once < n_wanted, own, len(rows))
        return first + at_a_time, rows.at[place].set(jax.vmap(of_one)(own), mode="drop")

    zero = jnp.zeros((), jnp.int32)
    return lax.while_loop(lambda carry: carry[0] < n_wanted, body, (zero, default))[1]


_run = compiled(_to_ends, static_argnames=("layout", "slots", "dtype"))


def _cast(tree: _Tree, dtype: str) -> _Tree:
    """Floating-point leaves in another precision."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)
