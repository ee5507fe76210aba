"""A chunk of data sets, from raw samples to their chosen fits.

    standardise each data set  →  its starts  →  all runs (`jaxgmm.driver.search`)  →  the best of each  →  data units

Everything outside the runs is float64.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxgmm.driver.passes import DataSets, form_of
from jaxgmm.driver.program import Layout, Models, Options, Program
from jaxgmm.driver.search import ROUNDING, all_runs
from jaxgmm.driver.standardize import (
    Bulk,
    Standardization,
    bulks,
    scaled_features,
    standardize,
    to_data_units,
    to_standard,
)
from jaxgmm.em import state as em
from jaxgmm.em.covariance import Coordinates, one_of
from jaxgmm.em.expectation import as_data
from jaxgmm.em.initialization import INITIALIZERS, TURN, Task, from_labels, from_responsibilities
from jaxgmm.em.spurious import Findings
from jaxgmm.engine.slots import where_leading
from jaxgmm.engine.transfer import fetched
from jaxgmm.mixture import Mixture, unknown, with_harmless_absent
from jaxgmm.numerics.kernels import compiled
from jaxgmm.soundness import eligible, first_best, passed_over
from jaxgmm.status import Status

# Roundings that a mean may be off by when it has been brought back to data units, and standard deviations, in these, to
# which that is no matter.
_ROUNDINGS_OF_MEANS, _NOTICEABLE = 8, 2**16

# Powers of two of the largest weight within which sums and squares of weights can be represented.
_MODERATE = 256


class ChunkFits(NamedTuple):
    """Fits of a chunk, in data units; row `c M + m` is model `m` on data set `c`, field by field as `jaxgmm.FitResult`.

    `bounded_log_likelihood` is what models are compared by (`jaxgmm.soundness`). `executed` and `useful` count
    run-iterations: those that were made, and those some run needed.
    """

    mixture: Mixture
    log_likelihood: Float[np.ndarray, " g"]
    bounded_log_likelihood: Float[np.ndarray, " g"]
    n_iter: Int[np.ndarray, " g"]
    status: Int[np.ndarray, " g"]
    spurious: Int[np.ndarray, " g"]
    ridge_dominated: Int[np.ndarray, " g"]
    start_passed_over: Bool[np.ndarray, " g"]
    ridge: Float[np.ndarray, "g d"]
    start_log_likelihood: Float[np.ndarray, "g r"]
    start_status: Int[np.ndarray, "g r"]
    start_spurious: Int[np.ndarray, "g r"]
    history: Float[np.ndarray, "g t"] | None
    snapshots: Mixture | None
    executed: int
    useful: int


class _Best(NamedTuple):
    """The best run of each fit, in data units.

    Attributes:
        start: which start it came from.
        mixture: its parameters, NaN where it has no answer.
        n_iter: its iterations.
        status: how the fit ended.
        log_likelihoods: of all starts.
        bounded: those of them that models are compared by.
        statuses: likewise.
        findings: likewise.
        weight: Σ w.
        ridge: `(G, D)`, added to each variance.
        history: of the run, or None.
        snapshots: likewise.
    """

    start: Any
    mixture: Mixture
    n_iter: Any
    status: Any
    log_likelihoods: Any
    bounded: Any
    statuses: Any
    findings: Any
    weight: Any
    ridge: Any
    history: Any
    snapshots: Mixture | None


class Inputs(NamedTuple):
    """All that a chunk is fitted from. Of NumPy arrays, it can be pickled, and fitted in another process.

    Attributes:
        x: samples `(C, N, D)` in data units, padded.
        lengths: number of samples of each data set `(C,)`.
        sample_weight: weights `(C, N)`, or None for 1.
        start: explicit starts of one model, as `program.init` says: mixtures, responsibilities `(C, N, K)` or labels
            `(C, N)`. Where it names an initialiser, mixtures `(C M, K, …)` that replace the last start of each fit, but
            for those that are NaN.
        options: what may change from call to call.
        program: what programs are compiled for.
    """

    x: np.ndarray | Array
    lengths: np.ndarray
    sample_weight: np.ndarray | None
    start: Mixture | np.ndarray | None
    options: Options
    program: Program


def fit_chunk(inputs: Inputs) -> ChunkFits:
    """Fits every model to every data set of a chunk. Float64 must be enabled."""
    x, lengths, sample_weight, start, options, program = inputs
    statuses = _statuses_of_too_few(x, lengths, sample_weight, options.models)
    if statuses is not None:
        return _without_fits(statuses, program, x.shape[-1])
    # How many snapshots are taken is nothing to compile this for.
    told = options._replace(snapshots=None)
    sample_weight, exponents = _within_range(sample_weight)
    begin, end = _begin[program.effort], _best[program.effort]
    sets, starts, status = begin(x, lengths, sample_weight, start, told, layout=program.layout, init=program.init)
    runs = all_runs(sets, starts, np.asarray(status) == em.RUNNING, options, program)
    described = sets._replace(z=None, weights=None)
    findings, scores, _ = runs.judgement
    best = end(described, status, runs.states, findings, scores, runs.finished, options.models)
    fits = _whole(fetched(best))
    fits = fits._replace(mixture=_snapped(fits.mixture, x), executed=runs.executed, useful=runs.useful)
    return fits if exponents is None else _scaled(fits, exponents)


def _snapped(mixture: Mixture, x: np.ndarray | Array) -> Mixture:
    """The same, with means of equal values exactly these.

    On its way back to data units a mean is rounded. Far from all other values, that may be many standard deviations of
    a component that has nothing but the ridge.
    """
    variances = mixture.covariances if mixture.is_diagonal else np.diagonal(mixture.covariances, axis1=-2, axis2=-1)
    rounding = _ROUNDINGS_OF_MEANS * np.finfo(np.float64).eps * np.abs(mixture.means)
    rounded = np.argwhere(np.sqrt(variances) < _NOTICEABLE * rounding)
    if len(rounded) == 0:
        return mixture
    means, n_models = mixture.means.copy(), len(mixture.means) // len(x)
    for g, k, d in rounded:
        values = np.asarray(x[g // n_models, :, d], np.float64)
        nearest = values[np.nanargmin(np.abs(values - means[g, k, d]))]
        if abs(nearest - means[g, k, d]) <= rounding[g, k, d]:
            means[g, k, d] = nearest
    return mixture._replace(means=means)


def _within_range(sample_weight: np.ndarray | None) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Weights whose sums and squares can be represented, and by which powers of two those of each data set are less.

    On a device even the smallest numbers that float64 has are zero.
    """
    if sample_weight is None:
        return None, None
    largest = np.max(np.where(np.isfinite(sample_weight), sample_weight, 0.0), axis=1, initial=0.0)
    _, exponents = np.frexp(largest)
    exponents = np.where(np.abs(exponents) > _MODERATE, exponents, 0)
    if not np.any(exponents):
        return sample_weight, None
    return np.ldexp(sample_weight, -exponents[:, None]), exponents


def _whole(best: _Best) -> ChunkFits:
    """The fits. What is known of starts is looked up, not computed again: that might round differently."""

    def of_best(rows: np.ndarray) -> np.ndarray:
        return np.take_along_axis(rows, best.start[:, None], axis=1)[:, 0]

    log_likelihood = np.where(np.isnan(best.mixture.weights[:, 0]), np.nan, of_best(best.log_likelihoods))
    gains = best.log_likelihoods - log_likelihood[:, None]
    return ChunkFits(
        mixture=best.mixture,
        log_likelihood=log_likelihood,
        bounded_log_likelihood=of_best(best.bounded),
        n_iter=best.n_iter,
        status=best.status,
        spurious=of_best(best.findings.spurious),
        ridge_dominated=of_best(best.findings.ridge_dominated),
        start_passed_over=passed_over(best.statuses, best.findings.spurious, gains, best.weight),
        ridge=best.ridge,
        start_log_likelihood=best.log_likelihoods,
        start_status=best.statuses,
        start_spurious=best.findings.spurious,
        history=best.history,
        snapshots=best.snapshots,
        executed=0,
        useful=0,
    )


def _scaled(fits: ChunkFits, exponents: Int[np.ndarray, " c"]) -> ChunkFits:
    """The same where weights are so many powers of two larger."""
    exponents = np.repeat(exponents, len(fits.log_likelihood) // len(exponents))
    # A sum of such weights may be none that float64 has.
    with np.errstate(over="ignore", under="ignore"):
        return fits._replace(
            log_likelihood=np.ldexp(fits.log_likelihood, exponents),
            bounded_log_likelihood=np.ldexp(fits.bounded_log_likelihood, exponents),
            start_log_likelihood=np.ldexp(fits.start_log_likelihood, exponents[:, None]),
            history=None if fits.history is None else np.ldexp(fits.history, exponents[:, None]),
        )


def _statuses_of_too_few(
    x: np.ndarray | Array, lengths: np.ndarray, sample_weight: np.ndarray | None, models: Models
) -> Int[np.ndarray, " g"] | None:
    """Why no fit of a chunk can be made, where all data sets have fewer samples than any model components; else None.

    These are the statuses that `_begin` would find; told by the host, they cost no compilation.
    """
    fewest = np.min(models.n_components)
    if sample_weight is None and np.max(lengths) >= fewest:
        return None
    inside = np.arange(x.shape[1]) < lengths[:, None]
    weights = np.where(inside, 1.0 if sample_weight is None else sample_weight, 0.0)
    counted = np.isfinite(weights) & (weights > 0)
    if np.max(np.sum(counted, axis=1)) >= fewest:
        return None
    is_finite = np.all(np.isfinite(weights), axis=1)
    is_finite &= np.all(np.isfinite(np.asarray(x)) | ~counted[..., None], axis=(1, 2))
    statuses = np.where(is_finite, Status.TOO_FEW_SAMPLES, Status.NONFINITE).astype(np.int32)
    return np.repeat(statuses, len(models.n_components))


def _without_fits(statuses: Any, program: Program, n_features: int) -> ChunkFits:
    """The answer where no fit can be made, for statuses `(G,)`."""
    n_fits, layout = len(statuses), program.layout
    n_init, n_history, n_snapshots = layout.n_init, program.n_history, program.n_snapshots

    def full(value: float, dtype: type, *shape: int) -> Any:
        return np.full((n_fits, *shape), value, dtype)

    def no_mixtures(*axes: int) -> Mixture:
        return unknown((n_fits, *axes), layout.n_components, n_features, is_diagonal=layout.diagonal)

    return ChunkFits(
        mixture=no_mixtures(),
        log_likelihood=full(np.nan, np.float64),
        bounded_log_likelihood=full(np.nan, np.float64),
        n_iter=full(0, np.int32),
        status=statuses,
        spurious=full(0, np.int32),
        ridge_dominated=full(0, np.int32),
        start_passed_over=full(0, bool),
        ridge=full(np.nan, np.float64, n_features),
        start_log_likelihood=full(np.nan, np.float64, n_init),
        start_status=full(0, np.int32, n_init) + statuses[:, None],
        start_spurious=full(0, np.int32, n_init),
        history=full(np.nan, np.float64, n_history) if n_history else None,
        snapshots=no_mixtures(n_snapshots) if n_snapshots else None,
        executed=0,
        useful=0,
    )


@functools.partial(compiled, static_argnames=("layout", "init"))
def _begin(
    x: Float[Array, "c n d"],
    lengths: Int[Array, " c"],
    sample_weight: Float[Array, "c n"] | None,
    start: Any,
    options: Options,
    *,
    layout: Layout,
    init: str,
) -> tuple[DataSets, Mixture, Int[Array, " g"]]:
    """Standardised data sets, starts `(C M R, K, …)`, and for every fit `RUNNING` or why it cannot be made."""
    ridges = jnp.asarray(options.reg_covar, jnp.float64)
    samples = jax.vmap(_read)(x.astype(jnp.float64), lengths, sample_weight)
    bulk = bulks(samples.x, samples.weights, layout.group)

    def all_forms(samples: _Samples, bulk: Bulk) -> tuple[DataSets, Array]:
        of_kinds = [
            jax.vmap(lambda ridge, coordinates=coordinates: _prepare(samples, bulk, coordinates, ridge, layout))(ridges)
            for coordinates in layout.coordinates
        ]
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *of_kinds)

    sets, status = jax.vmap(all_forms)(samples, bulk)
    models = jax.tree.map(jnp.asarray, options.models)
    n_positive = jnp.sum(sets.weights[:, 0] > 0, axis=-1, dtype=jnp.int32)
    too_few = n_positive[:, None] < models.n_components[None, :]
    # Bad numbers are said before too few of them, and these before numbers that do not vary.
    status = status[:, models.form]
    status = jnp.where(too_few & (status != int(Status.NONFINITE)), int(Status.TOO_FEW_SAMPLES), status)
    key: Any = options.key
    key = key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.key(key)
    starts = _starts(sets, start, key, models, init, layout)
    starts = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[3:]), starts)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), sets), starts, status.ravel()


class _Samples(NamedTuple):
    """One data set as it was read.

    Attributes:
        x: `(D, N)`, in data units, zeros for numbers that are none.
        weights: `(N,)`, of which the largest is 1; 0 for padding.
        weight_scale: what they were divided by.
        is_finite: whether all samples that count are numbers, and all weights.
    """

    x: Float[Array, "d n"]
    weights: Float[Array, " n"]
    weight_scale: Float[Array, ""]
    is_finite: Bool[Array, ""]


def _read(x: Float[Array, "n d"], length: Int[Array, ""], sample_weight: Float[Array, " n"] | None) -> _Samples:
    """Reads one data set."""
    inside = jnp.arange(x.shape[0]) < length
    weights = inside.astype(x.dtype)
    if sample_weight is not None:
        weights = jnp.where(inside, sample_weight.astype(x.dtype), 0.0)
    usable = jnp.isfinite(weights)
    finite = jnp.all(usable) & jnp.all(jnp.isfinite(x) | ~(usable & (weights > 0))[:, None])
    weights = jnp.where(usable, weights, 0.0)
    # Only their ratios matter to EM, and these must fit a narrower type.
    weight_scale = jnp.max(weights, initial=0.0)
    weight_scale = jnp.where(weight_scale > 0, weight_scale, 1.0)
    return _Samples(jnp.where(jnp.isfinite(x), x, 0.0).T, weights / weight_scale, weight_scale, finite)


def _prepare(
    samples: _Samples, bulk: Bulk, coordinates: Coordinates, reg_covar: Array, layout: Layout
) -> tuple[DataSets, Array]:
    """Standardises one data set, or says why it cannot be fitted."""
    x, weights, weight_scale, finite = samples
    found = standardize(x, weights, coordinates, reg_covar, is_absolute=layout.absolute_ridge, bulk=bulk)
    status = jnp.where(found.varies, em.RUNNING, int(Status.DEGENERATE))
    status = jnp.where(finite, status, int(Status.NONFINITE)).astype(jnp.int32)
    total = jnp.sum(weights)
    n_effective = total**2 / jnp.maximum(jnp.sum(weights**2), jnp.finfo(weights.dtype).tiny)
    sizes = (total, n_effective, weight_scale)
    return DataSets(found.z, weights, *sizes, found.ridge, found.ridge_in_data_units, found.units), status


def _starts(sets: DataSets, start: Any, key: Array, models: Models, init: str, layout: Layout) -> Mixture:
    """Starts `(C, M, R, K, …)` in standardised coordinates, of data sets `(C, P, …)`."""
    n_forms = sets.n_effective.shape[1]

    def form(p: Any) -> DataSets:
        # The only form needs no search.
        return jax.tree.map(lambda leaf: leaf[:, 0 if n_forms == 1 and jnp.ndim(p) == 0 else p], sets)

    def task(sets: DataSets, x: Array, m: Array | int) -> Task:
        present = jnp.arange(layout.n_components, dtype=jnp.int32) < models.n_components[m]
        data = as_data(sets.z, sets.weights, layout.tile, diagonal=layout.diagonal)
        return Task(x, sets.z, data, present, one_of(layout.families, models.family[m]), sets.ridge)

    def from_rows(sets: DataSets, rows: Array) -> Mixture:
        own = task(sets, sets.z, 0)
        return from_labels(rows, own) if init == "labels" else from_responsibilities(rows.astype(sets.z.dtype).T, own)

    def from_key(sets: DataSets, m: Array, r: Array) -> Mixture:
        # Neither whitened nor merely scaled features show the clusters of all data sets, so starts take turns.
        x = jnp.where(r % 2 == 0, sets.z, scaled_features(sets.z, sets.units))
        return INITIALIZERS[init](jax.random.fold_in(key, r), r, task(sets, x, m))

    if init == "mixture":
        explicit = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), start)
        explicit = jax.vmap(with_harmless_absent)(jax.vmap(to_standard)(explicit, form(0).units))
        return jax.tree.map(lambda leaf: leaf[:, None, None], explicit)
    if init in ("labels", "responsibilities"):
        explicit = jax.vmap(from_rows)(form(0), jnp.asarray(start))
        return jax.tree.map(lambda leaf: leaf[:, None, None], explicit)

    # Few starts of every data set after others: only then does memory not grow with their number. Of as many data sets
    # at a time as a cache holds.
    def of_all(numbers: tuple[Array, Array]) -> Mixture:
        m, r = numbers
        group = min(max(1, layout.group // layout.together), len(sets.n_effective))
        return lax.map(lambda sets: from_key(sets, m, r), form(models.form[m]), batch_size=group)

    n_models = len(models.form)
    order = np.arange(n_models * layout.n_init)
    if layout.together > 1:
        # They wait for those that take the longest, so those of one kind are neighbours.
        order = np.argsort(order % layout.n_init % TURN, kind="stable")
    m, r = np.divmod(order, layout.n_init)
    made = lax.map(
        of_all, (jnp.asarray(m), jnp.asarray(r)), batch_size=layout.together if layout.together > 1 else None
    )
    if layout.together > 1:
        made = jax.tree.map(lambda leaf: leaf[np.argsort(order)], made)
    shape = (n_models, layout.n_init)
    starts = jax.tree.map(lambda leaf: jnp.moveaxis(leaf.reshape(*shape, *leaf.shape[1:]), 2, 0), made)
    return starts if start is None else _with_last(starts, start, form(models.form).units)


def _with_last(starts: Mixture, last: Mixture, units: Standardization) -> Mixture:
    """Starts `(C, M, R, K, …)`, the last of each fit replaced by a mixture in data units unless that is NaN."""
    last = jax.tree.map(lambda leaf, own: leaf.reshape(own[:, :, 0].shape), last, starts)
    is_given = jnp.all(jnp.isfinite(last.weights), axis=-1)
    last = jax.vmap(jax.vmap(with_harmless_absent))(jax.vmap(jax.vmap(to_standard))(last, units))

    def replaced(own: Array, new: Array) -> Array:
        given = is_given.reshape(*is_given.shape, *[1] * (own.ndim - 3))
        return own.at[:, :, -1].set(jnp.where(given, new, own[:, :, -1]))

    return jax.tree.map(replaced, starts, last)


@compiled
def _best(
    sets: DataSets,
    status: Int[Array, " g"],
    states: em.RunState,
    findings: Findings,
    scores: Float[Array, " q"],
    judged: Bool[Array, " q"],
    models: Models,
) -> _Best:
    """The best run of each fit."""
    n_fits, n_rows = len(status), len(sets.n_effective)
    sets = jax.tree.map(lambda leaf: leaf[form_of(jnp.arange(n_fits), n_fits, n_rows, models)], sets)
    by_start = jax.tree.map(lambda leaf: leaf.reshape(n_fits, -1, *leaf.shape[1:]), (states, findings, scores, judged))
    states, findings, scores, judged = by_start
    offset = (sets.units.log_scale * sets.total_weight)[:, None]
    log_likelihoods = sets.weight_scale[:, None] * (states.log_likelihood - offset)
    # In standardised units, where none of it cancels. Of starts that differ in the order of components alone, rounding
    # must not choose.
    may_win = eligible(judged & jnp.isfinite(log_likelihoods), states.status)
    size = jnp.max(jnp.where(may_win, jnp.abs(scores), 0.0), axis=1, keepdims=True)
    best = first_best(scores, may_win, ROUNDING * (size + sets.total_weight[:, None]))
    chosen = jax.vmap(lambda states, r: jax.tree.map(lambda leaf: leaf[r], states))(states, best)

    fitted = status == em.RUNNING
    mixture = jax.vmap(to_data_units)(chosen.mixture, sets.units)
    # Squared data units may leave what float64 can represent, though the data do not.
    variances = mixture.covariances if mixture.is_diagonal else jnp.diagonal(mixture.covariances, axis1=-2, axis2=-1)
    representable = jnp.all(jnp.isfinite(variances) & (variances > 0), axis=(-2, -1))
    has_answer = fitted & jnp.isfinite(chosen.log_likelihood) & representable

    def answer(mixture: Mixture) -> Mixture:
        return where_leading(has_answer, mixture, jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), mixture))

    return _Best(
        start=best,
        mixture=answer(mixture),
        n_iter=jnp.where(fitted, chosen.n_iter, 0),
        status=jnp.where(fitted, jnp.where(has_answer, chosen.status, int(Status.DEGENERATE)), status),
        log_likelihoods=jnp.where(fitted[:, None], log_likelihoods, jnp.nan),
        bounded=jnp.where(fitted[:, None], sets.weight_scale[:, None] * (findings.bounded - offset), jnp.nan),
        statuses=jnp.where(fitted[:, None], states.status, status[:, None]),
        findings=jax.tree.map(lambda counts: jnp.where(fitted[:, None], counts, 0), findings),
        weight=sets.weight_scale * sets.total_weight,
        ridge=jnp.where(fitted[:, None], sets.ridge_in_data_units, jnp.nan),
        history=None
        if chosen.history is None
        else jnp.where(fitted[:, None], sets.weight_scale[:, None] * (chosen.history - offset), jnp.nan),
        snapshots=None
        if chosen.snapshots is None
        else answer(jax.vmap(jax.vmap(to_data_units, (0, None)))(chosen.snapshots, sets.units)),
    )
