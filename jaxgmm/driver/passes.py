"""One compiled pass over the runs of a chunk: it advances the wanted runs to their ends, in one precision.

There are two ways, with the same arguments and results: slots that step together (`jaxgmm.engine.slots`), on any
machine, and kernels that hold a few runs each (`jaxgmm.engine.fused`), on a GPU that supports them. A run continues
from its state before the pass, or from its start if it has made no step; other runs keep their state. Inputs and
outputs are float64.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxgmm.driver.program import Layout, Models, Slots, Way
from jaxgmm.driver.standardize import Standardization
from jaxgmm.em import fused
from jaxgmm.em import state as em
from jaxgmm.em.covariance import one_of
from jaxgmm.em.e_steps import E_STEPS, Form
from jaxgmm.em.fused import rows
from jaxgmm.em.methods import METHODS
from jaxgmm.em.statistics import SufficientStatistics
from jaxgmm.engine.fused import Lanes, Problem, run_in_rounds
from jaxgmm.engine.rows import quotient_and_rest, rows_of
from jaxgmm.engine.slots import Busy, Routine, run_queue, where_leading
from jaxgmm.mixture import Mixture, with_harmless_absent

_Tree = TypeVar("_Tree")

# More iterations than a pass makes, and fewer than float32 can count.
_MOST_ITERATIONS = 2**23


class DataSets(NamedTuple):
    """A chunk of data sets in all their forms; row `c P + p` is form `p` of data set `c`.

    Attributes:
        z: standardised samples `(C P, D, N)`; None where samples are not needed.
        weights: `(C P, N)`, 0 for padding; the largest of a data set is 1. None where samples are not needed.
        total_weight: `(C P,)`, their sum.
        n_effective: `(C P,)`, the effective number of samples, (Σ w)² / Σ w².
        weight_scale: `(C P,)`, the factor by which weights were divided.
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

    @property
    def described(self) -> "DataSets":
        """The data sets without their samples."""
        return self._replace(z=None, weights=None)


class Given(NamedTuple):
    """The inputs of the runs of a chunk; run `(c M + m) R + r` is start `r` of model `m` on data set `c`.

    Attributes:
        sets: the data sets.
        starts: `(Q, K, …)`, where runs begin, float64.
        models: the models that they fit.
        avoids_spurious: whether spurious components lower the scores by which runs are compared.
    """

    sets: DataSets
    starts: Mixture
    models: Models
    avoids_spurious: Any


class Limits(NamedTuple):
    """How far a pass advances runs.

    Attributes:
        tol: what may be left to gain of the mean log-likelihood when a run stops; see `jaxgmm.em.methods`.
        max_iter: maximum number of iterations, including those made before the pass.
        variance_floor: what must be left of a variance after cancellation, in machine epsilons of the pass.
        extra_ridge: what is added to every variance in addition to the ridge, in standardised units.
        snapshots: `(P,)`, iterations after which the parameters are kept; None for none.
    """

    tol: float
    max_iter: int
    variance_floor: int
    extra_ridge: float = 0.0
    snapshots: Any = None


class PassProgram(NamedTuple):
    """The static part of a pass, for which it is compiled.

    Attributes:
        layout: shared with other programs of the chunk.
        method: how runs advance, a name among `jaxgmm.em.methods.METHODS`.
        way: slots or kernels.
        dtype: the precision.
    """

    layout: Layout
    method: str
    way: Way
    dtype: str


def form_of(fit: Any, n_fits: int, n_rows: int, models: Models) -> Any:
    """The row of `DataSets`, which has `n_rows`, that the fit `c M + m`, one of `n_fits`, reads."""
    n_models = len(models.form)
    n_forms = n_rows * n_models // n_fits
    data_set, model = quotient_and_rest(fit, n_models)
    return data_set * n_forms + rows_of(models.form, model).astype(fit.dtype)


def of_runs(n_runs: int, n_rows: int, models: Models, layout: Layout) -> tuple[Int[Array, " q"], Models]:
    """The row of `DataSets`, which has `n_rows`, that each of Q runs reads, and the model that it fits."""
    models = jax.tree.map(jnp.asarray, models)
    fit, _ = quotient_and_rest(jnp.arange(n_runs, dtype=jnp.int32), layout.n_init)
    row = form_of(fit, n_runs // layout.n_init, n_rows, models)
    return row, rows_of(models, quotient_and_rest(fit, len(models.form))[1])


# States `(Q,)` after a pass; and run-iterations that were useful, and executed.
Passed = tuple[em.RunState, Int[Array, ""], Int[Array, ""]]


class _Slot(NamedTuple):
    """The contents of a slot apart from the data. Slots are the last axis."""

    state: em.RunState
    settings: em.Settings
    family: Int[Array | np.ndarray, "*s"]
    total_weight: Float[Array, "*s"]


def in_slots(
    given: Given, before: em.RunState, wanted: Bool[Array, " q"], limits: Limits, program: PassProgram
) -> Passed:
    """A pass in slots that step together."""
    (sets, starts, models, _), (layout, _, slots, dtype) = given, program
    assert isinstance(slots, Slots)
    row, model = of_runs(len(wanted), len(sets.n_effective), models, layout)
    ridges = _ridges(sets, limits, layout)
    z, weights, ridge, starts, records = cast((sets.z, sets.weights, ridges, starts, before), dtype)
    tol, max_iter, floor = _bounds(limits, dtype)
    snapshots = None if limits.snapshots is None else jnp.asarray(limits.snapshots, jnp.int32)

    method = METHODS[program.method]
    e_step, form = E_STEPS[slots.e_step], Form(z.shape[1], layout.diagonal, layout.tile)
    shared = e_step.share(z, weights, form)

    def load(run: Array) -> tuple[Any, _Slot]:
        record, start, own, fitted = rows_of((records, starts, row, model), run)
        mixture = where_leading(record.n_iter > 0, record.mixture, start)
        data = e_step.load(shared, own, form)
        present = _present(start, fitted, layout) if layout.has_absent else None
        settings = em.Settings(rows_of(ridge, own), tol, max_iter, floor, present, snapshots)
        return data, _Slot(record._replace(mixture=mixture), settings, fitted.family, jnp.sum(rows_of(weights, own)))

    def begin(slot: _Slot) -> _Slot:
        return slot._replace(state=method.init(slot.state, slot.settings, e_step=e_step))

    def read(held: Any, slot: _Slot, busy: Busy) -> tuple[SufficientStatistics, Array]:
        return e_step.read(shared, held, method.read(slot.state), busy, form)

    def advance(slot: _Slot, sums: tuple[SufficientStatistics, Array]) -> _Slot:
        family = one_of(layout.families, slot.family)
        state = method.advance(slot.state, *sums, slot.total_weight, family, slot.settings, e_step=e_step)
        return slot._replace(state=state)

    def is_finished(slot: _Slot) -> Array:
        return method.is_finished(slot.state)

    def unload(slot: _Slot) -> em.RunState:
        return slot.state._replace(natural=None, memory=None)

    # Runs with many components need the most iterations, and the longest runs should not come last in the queue.
    queue = jnp.argsort(jnp.where(wanted, -model.n_components, 1), stable=True).astype(jnp.int32)
    routine = Routine(load, begin, read, advance, is_finished, unload, idle_is_free=e_step.idle_is_free)
    ended, executed = run_queue(queue, jnp.sum(wanted), routine, records, slots.number, slots.stride)
    return *_ended(ended, before, wanted), executed


def in_kernels(
    given: Given, before: em.RunState, wanted: Bool[Array, " q"], limits: Limits, program: PassProgram
) -> Passed:
    """A pass in kernels, which record neither a history nor snapshots."""
    (sets, starts, models, _), (layout, method, way, dtype) = given, program
    assert isinstance(way, Lanes)
    n_runs, n_components, n_features = starts.means.shape
    row, model = of_runs(n_runs, len(sets.n_effective), models, layout)
    # A kernel has one lane for each component, rounded up to a power of two.
    missing = way.width - n_components if way.is_wide else 0
    shape = rows.Shape(n_components + missing, n_features, layout.families, way.is_wide)
    present = jnp.ones((n_runs, n_components), bool)
    if layout.has_absent:
        present = jax.vmap(lambda start, model: _present(start, model, layout))(starts, model)
    samples = jnp.concatenate([sets.z, sets.weights[:, None]], axis=1)
    begun = before._replace(
        mixture=_with_lanes(where_leading(before.n_iter > 0, before.mixture, starts), missing),
        log_likelihood=jnp.full(n_runs, -jnp.inf),
        n_iter=jnp.zeros(n_runs, jnp.int32),
        status=jnp.full(n_runs, em.RUNNING, jnp.int32),
    )
    ridge, total_weight = rows_of((_ridges(sets, limits, layout), sets.total_weight), row)
    samples, begun, ridge, total_weight = cast((samples, begun, ridge, total_weight), dtype)
    tol, max_iter, floor = _bounds(limits, dtype)
    left = jnp.clip(max_iter - before.n_iter, 0, _MOST_ITERATIONS)
    present = jnp.pad(present, ((0, 0), (0, missing)))
    settings = em.Settings(ridge, tol, left, floor, present)

    # If all runs make the same number of steps, one round suffices.
    n_steps = jnp.where(tol > 0, fused.METHODS[method].round, _MOST_ITERATIONS)
    n_used = jnp.max(jnp.where(sets.weights > 0, jnp.arange(1, sets.weights.shape[1] + 1), 0), axis=1)
    fixed = rows.fixed_rows(settings, jnp.asarray(model.family), total_weight, shape)
    moving = rows.moving_rows(begun, shape)
    stored = fused.stored_rows(method, moving, shape)
    moving, executed = run_in_rounds(
        Problem(fixed, moving, stored, samples, row, n_used),
        wanted,
        fused.life_of(shape, dtype, method, centred=way.centred),
        lambda moving: rows.row_of(moving, rows.STATUS) == em.RUNNING,
        way,
        n_steps,
    )
    ended = em.RunState(
        mixture=rows.mixtures_of(moving, shape).components(slice(n_components)),
        natural=None,
        log_likelihood=rows.row_of(moving, rows.LOG_LIKELIHOOD),
        n_iter=before.n_iter + rows.row_of(moving, rows.N_ITER).astype(jnp.int32),
        status=rows.row_of(moving, rows.STATUS).astype(jnp.int32),
        history=None,
        snapshots=None,
        gap=rows.row_of(moving, rows.GAP),
    )
    return *_ended(ended, before, wanted), executed


def _present(start: Mixture, model: Models, layout: Layout) -> Bool[Array, " k"]:
    """Which components of a run are present: those of its model that its start has."""
    return (jnp.arange(layout.n_components, dtype=jnp.int32) < model.n_components) & (start.weights != 0)


def _with_lanes(mixture: Mixture, missing: int) -> Mixture:
    """Mixtures `(Q, K, …)` padded with `missing` absent components."""
    padded = jax.tree.map(lambda leaf: jnp.pad(leaf, ((0, 0), (0, missing), *[(0, 0)] * (leaf.ndim - 2))), mixture)
    return jax.vmap(with_harmless_absent)(padded) if missing else mixture


def _ridges(sets: DataSets, limits: Limits, layout: Layout) -> Array:
    """The ridge added to every covariance, of each data set."""
    unit = jnp.ones(sets.z.shape[1]) if layout.diagonal else jnp.eye(sets.z.shape[1])
    return sets.ridge + limits.extra_ridge * unit[None]


def _bounds(limits: Limits, dtype: str) -> tuple[Array, Array, Array]:
    """Tolerance, maximum number of iterations and variance floor."""
    floor = jnp.asarray(limits.variance_floor, dtype) * jnp.finfo(dtype).eps.astype(dtype)
    return jnp.asarray(limits.tol, dtype), jnp.asarray(limits.max_iter, jnp.int32), floor


def _ended(ended: em.RunState, before: em.RunState, wanted: Bool[Array, " q"]) -> tuple[em.RunState, Int[Array, ""]]:
    """States after a pass, and the number of useful iterations."""
    # Every run also makes an E-step after its last M-step, unless its start was not sound.
    n_iter = ended.n_iter - before.n_iter
    made = wanted & ((n_iter > 0) | ~jnp.isnan(ended.log_likelihood))
    useful = jnp.sum(jnp.where(made, n_iter + 1, 0), dtype=jnp.int64)
    # Rows that were not run must not lose digits by conversion to a narrower type.
    return where_leading(wanted, cast(ended, "float64"), before), useful


_WAYS: dict[type, Callable[[Given, em.RunState, Bool[Array, " q"], Limits, PassProgram], Passed]] = {
    Slots: in_slots,
    Lanes: in_kernels,
}


def take_to_ends(
    given: Given, before: em.RunState, wanted: Bool[Array, " q"], limits: Limits, program: PassProgram
) -> Passed:
    """Advances the wanted runs to their ends, or to the limits.

    Args:
        given: data sets, starts and models.
        before: `(Q,)`, the states of the runs before.
        wanted: `(Q,)`, which of them to advance.
        limits: how far.
        program: the static part.

    Returns:
        the states `(Q,)`, and the numbers of useful and of executed run-iterations.
    """
    return _WAYS[type(program.way)](given, before, wanted, limits, program)


def cast(tree: _Tree, dtype: str) -> _Tree:
    """Floating-point leaves in another precision."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)
