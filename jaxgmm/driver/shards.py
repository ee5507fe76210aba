"""Programs of one data set whose samples are divided over devices (`jaxgmm.engine.shards`).

    standardise the samples where they are  →  one run, some iterations at a time  →  findings about it

Every device makes the E-step of its own samples. Sums are added up over devices, and all of them make the same M-step.
What only sums and sorts samples is written for one device, and divided by XLA.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from jaxgmm.driver.findings import CLOSER_LOOK, FirstLook, Judgement, Pass, first_look, none_yet
from jaxgmm.driver.passes import DataSets, Given, cast
from jaxgmm.driver.prepare import prepared
from jaxgmm.driver.program import Layout, Options, Program
from jaxgmm.driver.runs import ACCURATE_IN_FLOAT64, SOUND
from jaxgmm.em import state as em
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.em.e_steps import E_STEPS, Form, summed_over
from jaxgmm.em.methods import METHODS
from jaxgmm.engine.shards import AXIS, Shards
from jaxgmm.engine.transfer import fetched
from jaxgmm.mixture import Mixture
from jaxgmm.numerics.kernels import compiled
from jaxgmm.status import Status

# E-steps of a run in each type, one after another while it ends DEGENERATE, and what must be left of a variance, in
# machine epsilons; as for runs on one device (`jaxgmm.driver.runs`).
_E_STEPS = {
    "float64": (("products", ACCURATE_IN_FLOAT64), ("centred", SOUND)),
    "float32": (("products", SOUND),),
}

_ROWS, _SAME = PartitionSpec(AXIS), PartitionSpec()


class Task(NamedTuple):
    """One run on divided samples.

    Attributes:
        mesh: the devices.
        sets: the data set, `(1, …)`; its samples are divided, all else is on the host.
        options: tolerance, limits and the model.
        program: the static part.
    """

    mesh: Mesh
    sets: DataSets
    options: Options
    program: Program

    @property
    def dtype(self) -> str:
        """The type of its iterations."""
        return "float32" if self.program.precision == "float32" else "float64"


class SpanProgram(NamedTuple):
    """The static part of a span: the run's, and the name of its E-step."""

    mesh: Mesh
    layout: Layout
    method: str
    e_step: str
    dtype: str


def _sampled(
    x: Array, weights: Array | None, n_samples: Int[Array, ""], key: Any, *, mesh: Mesh, size: int
) -> tuple[Float[Array, "n d"], Float[Array, " n"]]:
    """Rows drawn at random from those of positive weight, `size` from each device, and their weights."""

    def own(x: Array, weights: Array) -> tuple[Array, Array]:
        is_positive, places = weights > 0, jnp.arange(size)
        n_positive = jnp.sum(is_positive)
        # One row from each of as many parts of equal length, so that the sample is spread over the rows; or all rows.
        stands_for = jnp.maximum(n_positive.astype(jnp.float64) / size, 1.0)
        uniform = jax.random.uniform(jax.random.fold_in(key, lax.axis_index(AXIS)), (size,), jnp.float64)
        spread = jnp.floor((places.astype(jnp.float64) + uniform) * stands_for).astype(places.dtype)
        number = jnp.where(n_positive > size, spread, places)
        row = jnp.searchsorted(jnp.cumsum(is_positive), number, side="right")
        row = jnp.minimum(row, len(weights) - 1)
        drawn = x[row].astype(jnp.float64), jnp.where(number < n_positive, weights[row] * stands_for, 0.0)
        return lax.all_gather(drawn, AXIS, tiled=True)

    key = key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.key(key)
    divided = jax.shard_map(own, mesh=mesh, in_specs=(_ROWS, _ROWS), out_specs=_SAME, check_vma=False)
    return divided(x, _counted(x, weights, n_samples))


def _counted(x: Array, weights: Array | None, n_samples: Array) -> Float[Array, " n"]:
    """Weights of all rows, 0 for padding."""
    inside = jnp.arange(len(x)) < n_samples
    return jnp.where(inside, 1.0 if weights is None else weights.astype(jnp.float64), 0.0)


class _Standardizing(NamedTuple):
    """The static part of standardisation.

    Attributes:
        mesh: the devices.
        layout: shared with other programs.
        init: how the run begins.
        length: number of rows that each device has room for.
    """

    mesh: Mesh
    layout: Layout
    init: str
    length: int


def _standardized(
    x: Array,
    weights: Array | None,
    n_samples: Int[Array, ""],
    start: Any,
    options: Options,
    *,
    program: _Standardizing,
) -> tuple[DataSets, Mixture, Int[Array, " g"]]:
    """The data set, standardised and padded to a number of rows for each device; its start, and its status."""
    mesh, layout, init, length = program

    def filled_up(rows: Any) -> Any:
        return jax.tree.map(lambda a: jnp.pad(a, ((0, length - len(a)), *[(0, 0)] * (a.ndim - 1))), rows)

    rows = (x, _counted(x, weights, n_samples), None if init == "mixture" else start)
    rows = jax.shard_map(filled_up, mesh=mesh, in_specs=_ROWS, out_specs=_ROWS, check_vma=False)(rows)
    x, weights, own = jax.tree.map(lambda a: a[None], rows)
    lengths = jnp.full(1, x.shape[1])
    # Tiles would cut across devices.
    whole, start = layout._replace(tile=0), start if init == "mixture" else own
    sets, runs, status, *_ = prepared(x, lengths, weights, start, options, layout=whole, init=init)
    samples = lax.with_sharding_constraint((sets.z, sets.weights), _along_samples(mesh))
    others = (sets.described, runs.states.mixture, status)
    sets, starts, status = lax.with_sharding_constraint(others, NamedSharding(mesh, _SAME))
    return sets._replace(z=samples[0], weights=samples[1]), starts, status


def _along_samples(mesh: Mesh) -> tuple[NamedSharding, NamedSharding]:
    """The shardings of samples `(1, D, N)` and weights `(1, N)`."""
    return NamedSharding(mesh, PartitionSpec(None, None, AXIS)), NamedSharding(mesh, PartitionSpec(None, AXIS))


def _begun(record: em.RunState, settings: em.Settings, *, method: str, e_step: str) -> em.RunState:
    return METHODS[method].init(record, settings, e_step=E_STEPS[e_step])


def _span(
    sets: tuple[Array, Array],
    state: em.RunState,
    settings: em.Settings,
    total_weight: Float[Array, " s"],
    last: Int[Array, ""],
    *,
    program: SpanProgram,
) -> em.RunState:
    """A run, one in the trailing axis, advanced to its end or to the iteration `last`."""
    method, layout = METHODS[program.method], program.layout
    e_step, family = summed_over(E_STEPS[program.e_step], AXIS), FAMILIES[layout.families[0]]
    busy = jnp.zeros(1, jnp.int32), jnp.ones((), jnp.int32)

    def of_device(sets: tuple[Array, Array], state: em.RunState, settings: em.Settings, total: Array) -> em.RunState:
        z, weights = (rows.astype(program.dtype) for rows in sets)
        form = Form(z.shape[1], layout.diagonal, layout.tile)
        shared = e_step.share(z, weights, form)
        held = jax.tree.map(lambda leaf: leaf[None], e_step.load(shared, jnp.zeros((), jnp.int32), form))

        def step(state: em.RunState) -> em.RunState:
            sums = e_step.read(shared, held, method.read(state), busy, form)
            return method.advance(state, *sums, total, family, settings, e_step=e_step)

        def goes_on(state: em.RunState) -> Array:
            return jnp.all(~method.is_finished(state) & (state.n_iter < last))

        return lax.while_loop(goes_on, step, state)

    rows = PartitionSpec(None, None, AXIS), PartitionSpec(None, AXIS)
    specs = (rows, _SAME, _SAME, _SAME)
    on_devices = jax.shard_map(of_device, mesh=program.mesh, in_specs=specs, out_specs=_SAME, check_vma=False)
    return on_devices(sets, state, settings, total_weight)


def _first_look(made: Pass, given: Given, *, mesh: Mesh, layout: Layout) -> FirstLook:
    return lax.with_sharding_constraint(first_look(made, given, layout), NamedSharding(mesh, _SAME))


SAMPLED = compiled(_sampled, static_argnames=("mesh", "size"))
STANDARDIZED = compiled(_standardized, static_argnames=("program",))
BEGUN = compiled(_begun, static_argnames=("method", "e_step"))
SPAN = compiled(_span, static_argnames=("program",))
FIRST_LOOK = compiled(_first_look, static_argnames=("mesh", "layout"))


def sample_of(shards: Shards, key: Any, size: int) -> tuple[np.ndarray, np.ndarray | None]:
    """About `size` samples of positive weight, or all if there are no more, and their weights, or None for 1.

    Samples `(n, D)` are in float64. Weights are scaled by the number of samples that each one stands for.
    """
    own = min(shards.length, -(-size // shards.mesh.size))
    drawn = SAMPLED["quickly"](shards.x, shards.weights, shards.n_samples, key, mesh=shards.mesh, size=own)
    x, weights = fetched(drawn)
    x, weights = x[weights > 0], weights[weights > 0]
    return x, None if np.all(weights == weights[:1]) else weights


def _nearest(
    x: Array, weights: Array | None, n_samples: Int[Array, ""], feature: Int[Array, ""], mean: Float[Array, ""]
) -> Float[Array, ""]:
    values = jnp.take(x, feature, axis=1).astype(jnp.float64)
    counts = jnp.arange(len(values)) < n_samples
    if weights is not None:
        counts &= weights > 0
    return values[jnp.nanargmin(jnp.where(counts, jnp.abs(values - mean), jnp.nan))]


NEAREST = compiled(_nearest)


def nearest_value(shards: Shards, feature: int, mean: float) -> float:
    """The value of a feature nearest to a mean, in the samples of positive weight."""
    own = shards.x, shards.weights, np.int64(shards.n_samples), np.int64(feature), np.float64(mean)
    return fetched(NEAREST["at once"](*own)).item()


def standardized(
    shards: Shards, start: Any, options: Options, program: Program, init: str, length: int
) -> tuple[Task, Mixture, np.ndarray]:
    """The run to be made, its start `(1, K, …)`, and `RUNNING` or why it cannot be made."""
    told = options._replace(snapshots=None)
    rows = (shards.x, shards.weights, shards.n_samples)
    sets, starts, status = STANDARDIZED[program.effort](
        *rows, start, told, program=_Standardizing(shards.mesh, program.layout, init, length)
    )
    described, starts, status = fetched((sets.described, starts, status))
    sets = described._replace(z=sets.z, weights=sets.weights)
    return Task(shards.mesh, sets, options, program), starts, status


def spans(task: Task, record: em.RunState, every: int) -> Iterator[em.RunState]:
    """A run `(1, …)` after every so many iterations, and at its end; on the host, in float64."""
    samples, total = (task.sets.z, task.sets.weights), cast(task.sets.total_weight, task.dtype)
    effort = "quickly" if task.program.effort == "at once" else "well"
    for e_step, floor in _E_STEPS[task.dtype]:
        program = SpanProgram(task.mesh, task.program.layout, task.program.method, e_step, task.dtype)
        before, settings = cast((_trailing(record), _settings(task, record, floor)), task.dtype)
        state = fetched(BEGUN[effort](before, settings, method=program.method, e_step=e_step))
        while state.status[0] == em.RUNNING:
            last = np.int32(state.n_iter[0] + every)
            state = fetched(SPAN[effort](samples, state, settings, total, last, program=program))
            if state.status[0] == em.RUNNING:
                yield _leading(state)
        record = _leading(state)
        if state.status[0] != Status.DEGENERATE:
            break
    yield record


def judged(task: Task, record: em.RunState, starts: Mixture) -> Judgement:
    """Findings about a run that has ended; on the host."""
    layout = task.program.layout._replace(tile=0)
    made = Pass(record._replace(history=None, snapshots=None), np.ones(1, bool), none_yet(1).findings, 0.0)
    given = Given(task.sets, starts, task.options.models, task.options.avoids_spurious)
    first = FIRST_LOOK[task.program.effort](made, given, mesh=task.mesh, layout=layout)
    is_small, is_suspect = fetched((first.any_small, first.any_suspect))
    if not (is_small or is_suspect):
        return fetched(first.judgement)
    return fetched(CLOSER_LOOK[task.program.effort](made, first, given, layout=layout, has_suspects=bool(is_suspect)))


def _settings(task: Task, record: em.RunState, floor: int) -> em.Settings:
    """The settings of the run, in the trailing axis."""
    options, weights = task.options, record.mixture.weights
    # On the host, where programs take them from.
    own: dict[str, Any] = {
        "ridge": np.moveaxis(np.asarray(task.sets.ridge), 0, -1),
        "tol": np.full(1, options.tol),
        "max_iter": np.full(1, options.max_iter, np.int32),
        "variance_floor": np.full(1, floor * np.finfo(task.dtype).eps),
        "present": (weights[0] != 0)[:, None] if task.program.layout.has_absent else None,
        "snapshots": None if options.snapshots is None else options.snapshots[:, None],
    }
    return em.Settings(**own)


def _trailing(record: em.RunState) -> em.RunState:
    return jax.tree.map(lambda leaf: np.moveaxis(leaf, 0, -1), record)


def _leading(state: em.RunState) -> em.RunState:
    """The record of a run, in float64."""
    record = state._replace(natural=None, memory=None)
    return cast(jax.tree.map(lambda leaf: np.moveaxis(leaf, -1, 0), record), "float64")
