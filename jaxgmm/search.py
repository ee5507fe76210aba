"""All runs of a chunk, in the precisions that were asked for.

In mixed precision float32 searches and float64 finishes. Float32 runs find out which start of a data set is best, and
float64 takes that run to its end. Runs that leave what float32 can represent are judged by float64 as well. Where a
data set has one start only, there is nothing to search, and float64 does all of it.

Where only some starts are to be finalists, all make a few iterations first, and the best go on from there.
"""

import functools
from collections.abc import Sequence
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
from jaxgmm.engine.slots import STRIDE, Busy, Kind, run_queue, where_leading
from jaxgmm.engine.standardize import Standardization
from jaxgmm.kernels import QUICKLY, WELL
from jaxgmm.mixture import Mixture
from jaxgmm.status import Status

# Float32 cannot tell smaller gains of the mean log-likelihood from rounding.
SEARCH_TOL = 1e-6

# What the order of components changes in a log-likelihood of float64, in nats per sample.
ROUNDING = 1e-12

# Iterations after which the finalists among the starts are chosen.
SHORT = 9

# Starts whose mean log-likelihoods then differ by less, in nats, are likely to be on their way to the same optimum.
DISTINCT = 0.02

# Iterations that a search leaves to float64 where max_iter ends it, to correct its rounding.
RESERVED = 10

# Steps of a run of one component that starts from clusters: the first makes an M-step, which changes nothing, and the
# second finds that out.
STEPS_OF_ONE = 2

# What must be left of a variance after cancellation, in machine epsilons. Below SOUND its digits are noise. A float32
# search that float64 will finish can ask for more: above ACCURATE the log-likelihood is right to 1e-4 nats per sample.
SOUND = 64
ACCURATE = 1024

# Number of components, name of the family, and ridge: a model as users say it.
Combination = tuple[int, str, float]

_Tree = TypeVar("_Tree")


class Layout(NamedTuple):
    """What all programs of a chunk are compiled for.

    Attributes:
        families: names of the families; they agree in `diagonal`, so that their runs share programs.
        n_components: K that arrays have room for.
        has_absent: whether models may have fewer components.
        n_init: R; 1 for explicit starts.
        tile: samples that an E-step reads at a time, or 0 for all.
        group: data sets whose starts are made at the same time, a power of two.
        absolute_ridge: whether ridges are in squared data units.
        ends_with_m_step: whether a run that ends takes the M-step of its last E-step; see `jaxgmm.em.run.advance`.
    """

    families: tuple[str, ...]
    n_components: int
    has_absent: bool
    n_init: int
    tile: int
    group: int = 1
    absolute_ridge: bool = False
    ends_with_m_step: bool = False

    @property
    def diagonal(self) -> bool:
        """Whether components are axis-aligned."""
        return FAMILIES[self.families[0]].diagonal

    @property
    def kinds(self) -> tuple[str, ...]:
        """The ways in which the families want data sets standardised."""
        return tuple(dict.fromkeys(FAMILIES[name].closed_under for name in self.families))


class Slots(NamedTuple):
    """What sits in slots, and how those step.

    Attributes:
        number: S of them.
        stacked: whether a slot holds a data set with all its starts, rather than a single run.
        by_vectors: whether slots make their E-steps one after another; see `jaxgmm.em.vectors`.
        as_one_kernel: whether covariances are inverted by one kernel; see `jaxgmm.elimination`.
    """

    number: int
    stacked: bool = False
    by_vectors: bool = False
    as_one_kernel: bool = False


class Program(NamedTuple):
    """What programs are compiled for, and which of them are run.

    Attributes:
        layout: what they have in common.
        init: name of an initialiser, or `"mixture"`, `"responsibilities"` or `"labels"` for explicit starts.
        n_finalists: starts of each fit that are taken to their ends; the others end after `SHORT` iterations.
        precision: `"mixed"`, `"float32"` or `"float64"`.
        search_dtype: type of the search among starts in mixed precision.
        quickly: whether runs are too little work to be compiled well; see `jaxgmm.kernels`.
        n_history: length of the recorded history; 0 when none is asked for.
        n_snapshots: iterations after which the parameters are recorded; 0 likewise.
        single: slots of passes over some of the starts.
        together: slots of the pass over all of them: stacked where that pays, else as `single`.
    """

    layout: Layout
    init: str
    n_finalists: int
    precision: str
    search_dtype: str
    quickly: bool
    n_history: int
    n_snapshots: int
    single: Slots
    together: Slots


class Models(NamedTuple):
    """The M models that are fitted to every data set.

    Attributes:
        n_components: K of each.
        family: its number among `Layout.families`.
        form: its number among the P forms in which a data set is standardised; see `models_of`.
    """

    n_components: Int[Array | np.ndarray, " m"]
    family: Int[Array | np.ndarray, " m"]
    form: Int[Array | np.ndarray, " m"]


class Options(NamedTuple):
    """What a compiled program is told: changing it compiles nothing.

    Attributes:
        tol: smallest gain of the mean log-likelihood to go on for.
        max_iter: iterations at most.
        reg_covar: the ridges, as fractions of each feature's variance unless they are absolute.
        key: random key, or seed.
        models: what is fitted.
        snapshots: `(P,)`, the iterations after which the parameters are recorded; None for none.
    """

    tol: float
    max_iter: int
    reg_covar: Float[Array | np.ndarray, " i"]
    key: Array | np.int64
    models: Models
    snapshots: Int[Array | np.ndarray, " p"] | None


def models_of(combinations: Sequence[Combination]) -> tuple[tuple[str, ...], Float[np.ndarray, " i"], Models]:
    """Families, ridges and models of some combinations of K, family and ridge.

    A data set has a form for each way in which the families want it standardised, and of that one for each ridge.
    """
    families = tuple(dict.fromkeys(family for _, family, _ in combinations))
    kinds = list(dict.fromkeys(FAMILIES[family].closed_under for family in families))
    ridges = list(dict.fromkeys(ridge for _, _, ridge in combinations))
    rows = [
        (k, families.index(family), kinds.index(FAMILIES[family].closed_under) * len(ridges) + ridges.index(ridge))
        for k, family, ridge in combinations
    ]
    return families, np.array(ridges, np.float64), Models(*np.array(rows, np.int32).T)


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
    """The runs of a chunk, ended; run `(c M + m) R + r` is start `r` of model `m` on data set `c`.

    Attributes:
        states: final states `(C M R,)`, float64.
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


def all_runs(
    sets: DataSets, starts: Mixture, sound: Bool[np.ndarray, " g"], options: Options, program: Program
) -> Runs:
    """Takes every start of every fit that is to be made to its end, or to the place where it falls behind.

    Args:
        sets: C standardised data sets.
        starts: `(C M R, K, …)`, in their coordinates, float64.
        sound: `(C M,)`, which models can be fitted to which data sets.
        options: tolerance, limits and models.
        program: precision, and what programs are compiled for.

    Returns:
        the runs.
    """
    n_init = program.layout.n_init
    wanted = np.repeat(sound, n_init)
    in_one_precision = program.precision != "mixed" or n_init == 1 or options.max_iter <= 2 * RESERVED
    if in_one_precision:
        dtype = "float32" if program.precision == "float32" else "float64"
        tol, max_iter = options.tol, options.max_iter
    else:
        dtype = program.search_dtype
        tol, max_iter = max(options.tol, SEARCH_TOL), options.max_iter - RESERVED
    # Nothing finishes what float32 alone has begun, so there it may go as far as its digits are worth anything.
    floor = SOUND if program.precision == "float32" else ACCURATE
    work = _Work(sets, starts, options, program)
    # What an iteration at this tolerance, or rounding, can change; starts that differ by less are equal.
    margin = max(tol, ROUNDING if dtype == "float64" else SEARCH_TOL)

    found = _begun(starts, program)
    if program.n_finalists < n_init and max_iter > SHORT:
        found = work.run(found, wanted, tol, SHORT, floor, dtype)
        unsound = (np.asarray(found.spikes) > 0) | (np.asarray(found.states.status) == Status.DEGENERATE)
        score = work.mean_log_likelihoods(found)
        wanted = wanted & _among_best(score, unsound.reshape(score.shape), program.n_finalists, margin).ravel()
    found = work.run(found, wanted, tol, max_iter, floor, dtype, program.together)
    if in_one_precision:
        return found._replace(judged=wanted)
    return _finished(work, found, wanted, margin)


def _among_best(
    score: Float[np.ndarray, "g r"], unsound: Bool[np.ndarray, "g r"], n_finalists: int, margin: float
) -> Bool[np.ndarray, "g r"]:
    """Which runs are the finalists of their fit, by mean log-likelihoods per sample.

    Sound ones come before others, distinct ones before repetitions of a better one, and of equal ones the first.
    """
    order = np.lexsort((-np.round(score / margin), unsound), axis=1)
    in_order, is_unsound = (np.take_along_axis(row, order, axis=1) for row in (score, unsound))
    is_repetition, kept = np.zeros_like(unsound), np.full(len(score), np.inf)
    for r, own in enumerate(in_order.T):
        is_repetition[:, r] = (kept - DISTINCT < own) & (own < kept + DISTINCT)
        kept = np.where(is_repetition[:, r], kept, own)
    order = np.take_along_axis(order, np.argsort(2 * is_unsound + is_repetition, axis=1, stable=True), axis=1)
    is_finalist = np.zeros_like(unsound)
    np.put_along_axis(is_finalist, order[:, :n_finalists], True, axis=1)
    return is_finalist


def _finished(work: "_Work", found: Runs, wanted: np.ndarray, margin: float) -> Runs:
    """Takes the best run of each fit to its end in float64, and every run that became too narrow for a search.

    Should that be degenerate or have spikes, the next best follow. Runs that the search found spikes in are asked only
    where there is no other.
    """
    options, n_init = work.options, work.program.layout.n_init
    lost = np.asarray(found.states.status) == Status.DEGENERATE
    spiky = np.asarray(found.spikes) > 0
    promise = work.mean_log_likelihoods(found)
    pending = wanted

    def of_fit(flags: np.ndarray) -> np.ndarray:
        return np.any(flags.reshape(-1, n_init), axis=1)

    while np.any(pending):
        promising = pending & ~lost & ~spiky
        eligible = np.where(np.repeat(of_fit(promising), n_init), promising, pending & ~lost)
        score = np.where(eligible.reshape(promise.shape), promise, -np.inf)
        # Rounding must not choose.
        first = np.argmax(score >= np.max(score, axis=1, keepdims=True) - margin, axis=1)
        is_best = np.arange(n_init) == first[:, None]
        candidates = pending & (is_best.ravel() | lost)
        found = work.run(found, candidates, options.tol, options.max_iter, ACCURATE, "float64")
        found = found._replace(judged=found.judged | candidates)
        acceptable = found.judged & (np.asarray(found.states.status) != Status.DEGENERATE)
        sound = acceptable & (np.asarray(found.spikes) == 0)
        settled = of_fit(sound) | (of_fit(acceptable) & ~of_fit(promising & ~candidates))
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
        slots: Slots | None = None,
    ) -> Runs:
        """Takes the wanted runs on from where they were `found`; others keep what they have."""
        program = self.program
        run = _run_quickly if program.quickly else _run
        states, spikes, executed, useful = run(
            *(self.sets, self.starts, found.states, wanted, self.options.models, tol, max_iter, floor),
            self.options.snapshots,
            layout=program.layout,
            slots=slots or program.single,
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
    tol: Any,
    max_iter: Any,
    variance_floor: Any,
    snapshots: Int[Array, " s"] | None,
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
    floor = jnp.asarray(variance_floor, dtype) * jnp.finfo(dtype).eps.astype(dtype)
    tol, max_iter = jnp.asarray(tol, dtype), jnp.asarray(max_iter, jnp.int32)
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
    stride = STEPS_OF_ONE if layout.n_components == 1 else STRIDE
    ended, executed = run_queue(queue, jnp.sum(waiting), kind, rows, slots.number, stride)
    ended = jax.tree.map(lambda leaf, record: leaf.reshape(record.shape), ended, records)
    # Every run also makes an E-step after its last M-step.
    useful = jnp.sum(jnp.where(wanted, ended.n_iter - records.n_iter + 1, 0), dtype=jnp.int32)
    # Rows that were not run must not lose digits on their way through a narrower type.
    kept = where_leading(wanted, _cast(ended, "float64"), before)
    row = form_of(jnp.arange(len(wanted)) // n_init, n_fits, n_rows, models)
    spikes = jax.vmap(n_spikes)(kept.mixture, sets.n_effective[row], sets.total_weight[row], sets.ridge[row])
    return kept, spikes, executed * runs_per_slot, useful


_compile = functools.partial(jax.jit, static_argnames=("layout", "slots", "dtype"))
_run = _compile(_to_ends, compiler_options=WELL)
_run_quickly = _run if QUICKLY == WELL else _compile(_to_ends, compiler_options=QUICKLY)


def _begun(starts: Mixture, program: Program) -> Runs:
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


def _cast(tree: _Tree, dtype: str) -> _Tree:
    """Floating-point leaves in another precision."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)
