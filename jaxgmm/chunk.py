"""A chunk of data sets, from raw samples to their chosen fits.

    standardise each data set  →  its starts  →  all runs (`jaxgmm.search`)  →  the best run of each  →  data units

Everything outside the runs is float64.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxgmm.em import run as em
from jaxgmm.em.covariance import FAMILIES, Family
from jaxgmm.em.expectation import Data
from jaxgmm.em.initialization import INITIALIZERS, from_responsibilities
from jaxgmm.em.statistics import features
from jaxgmm.engine.standardize import scaled_features, standardize, to_data_units, to_standard
from jaxgmm.mixture import Mixture
from jaxgmm.search import DataSets, Options, Program, all_runs
from jaxgmm.status import Status


class ChunkFits(NamedTuple):
    """Fits of a chunk, in data units; field by field those of `jaxgmm.FitResult`.

    `best` is the start that won; `executed` and `useful` count run-iterations: those the slots made, and those some run
    needed.
    """

    mixture: Mixture
    best: Int[Array, " c"]
    log_likelihood: Float[Array, " c"] | None
    n_iter: Int[Array, " c"]
    status: Int[Array, " c"]
    start_log_likelihood: Float[Array, "c r"]
    start_status: Int[Array, "c r"]
    history: Float[Array, "c t"] | None
    executed: int
    useful: int


def fit_chunk(
    x: np.ndarray,
    lengths: np.ndarray,
    sample_weight: np.ndarray | None,
    start: Mixture | np.ndarray | None,
    options: Options,
    program: Program,
) -> ChunkFits:
    """Fits every data set of a chunk. Float64 must be enabled.

    Args:
        x: samples `(C, N, D)` in data units, padded.
        lengths: number of samples of each data set `(C,)`.
        sample_weight: weights `(C, N)`, or None for 1.
        start: explicit starts as `program.init` says: mixtures, responsibilities `(C, N, K)` or labels `(C, N)`.
        options: what may change from call to call.
        program: what programs are compiled for.

    Returns:
        the fits.
    """
    # What the first stage does not depend on must not compile it again.
    plan = program._replace(precision="", n_history=0, n_slots=0, n_stacked_slots=0)
    sets, starts = _begin(x, lengths, sample_weight, start, options.reg_covar, options.key, program=plan)
    runs = all_runs(sets, starts, options, program)
    fits = _chosen(sets, runs.states, runs.judged, n_init=program.n_init)
    fits = jax.device_get(fits)
    best = np.take_along_axis(fits.start_log_likelihood, fits.best[:, None], axis=1)[:, 0]
    best = np.where(np.isnan(fits.mixture.weights[:, 0]), np.nan, best)
    return fits._replace(log_likelihood=best, executed=runs.executed, useful=runs.useful)


@functools.partial(jax.jit, static_argnames=("program",))
def _begin(
    x: Float[Array, "c n d"],
    lengths: Int[Array, " c"],
    sample_weight: Float[Array, "c n"] | None,
    start: Mixture | Array | None,
    reg_covar: Any,
    key: Array,
    *,
    program: Program,
) -> tuple[DataSets, Mixture]:
    """Standardised data sets, and their starts `(C R, K, …)`."""
    family = FAMILIES[program.covariance_type]
    prepare = functools.partial(_prepare, program=program, family=family, reg_covar=jnp.asarray(reg_covar, jnp.float64))
    sets = jax.vmap(prepare)(x.astype(jnp.float64), lengths, sample_weight)
    starts = _starts(sets, start, key, program, family)
    return sets, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), starts)


def _prepare(
    x: Array, length: Array, sample_weight: Array | None, program: Program, family: Family, reg_covar: Array
) -> DataSets:
    """Standardises one data set, or says why it cannot be fitted."""
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
    weights = weights / weight_scale
    x = jnp.where(jnp.isfinite(x), x, 0.0)
    enough = jnp.sum(weights > 0) >= program.n_components
    z, ridge, units, varies = standardize(x.T, weights, family, reg_covar)
    status = jnp.where(varies, em.RUNNING, int(Status.DEGENERATE))
    status = jnp.where(enough, status, int(Status.TOO_FEW_SAMPLES))
    status = jnp.where(finite, status, int(Status.NONFINITE)).astype(jnp.int32)
    return DataSets(z, weights, weight_scale, ridge, units, status)


def _starts(sets: DataSets, start: Mixture | Array | None, key: Array, program: Program, family: Family) -> Mixture:
    """Starts `(C, R, K, …)` in standardised coordinates."""

    def data_of(sets: DataSets) -> Data:
        return Data(features(sets.z, diagonal=family.diagonal), sets.weights)

    def from_rows(sets: DataSets, rows: Array) -> Mixture:
        if program.init == "labels":
            rows = jax.nn.one_hot(rows, program.n_components, dtype=sets.z.dtype)
        responsibilities = rows.astype(sets.z.dtype).T
        return from_responsibilities(responsibilities, data_of(sets), sets.z.shape[0], family, sets.ridge)

    def from_key(sets: DataSets, r: Array) -> Mixture:
        # Neither whitened nor merely scaled features show the clusters of all data sets, so starts take turns.
        x = jnp.where(r % 2 == 0, sets.z, scaled_features(sets.z, sets.units))
        start_key = jax.random.fold_in(key, r)
        return INITIALIZERS[program.init](start_key, r, x, data_of(sets), program.n_components, family, sets.ridge)

    if program.init == "mixture":
        explicit = jax.vmap(to_standard)(jax.tree.map(lambda leaf: leaf.astype(jnp.float64), start), sets.units)
        return jax.tree.map(lambda leaf: leaf[:, None], explicit)
    if program.init in ("labels", "responsibilities"):
        return jax.tree.map(lambda leaf: leaf[:, None], jax.vmap(from_rows)(sets, jnp.asarray(start)))
    # One start of every data set after another: only then does memory not grow with R.
    by_start = lax.map(lambda r: jax.vmap(from_key, in_axes=(0, None))(sets, r), jnp.arange(program.n_init))
    return jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), by_start)


@functools.partial(jax.jit, static_argnames=("n_init",))
def _chosen(sets: DataSets, states: em.RunState, judged: Bool[Array, " q"], *, n_init: int) -> ChunkFits:
    """The best run of each data set, in data units."""
    states, judged = jax.tree.map(lambda leaf: leaf.reshape(-1, n_init, *leaf.shape[1:]), (states, judged))
    offset = (sets.units.log_scale * jnp.sum(sets.weights, axis=1))[:, None]
    log_likelihoods = sets.weight_scale[:, None] * (states.log_likelihood - offset)
    # A run that lost a component wins only where no other is sound.
    sound = judged & (states.status != Status.DEGENERATE)
    eligible = jnp.where(jnp.any(sound, axis=1, keepdims=True), sound, judged)
    score = jnp.where(eligible & jnp.isfinite(log_likelihoods), log_likelihoods, -jnp.inf)
    best = jnp.argmax(score, axis=1)
    chosen = jax.vmap(lambda states, r: jax.tree.map(lambda leaf: leaf[r], states))(states, best)

    fitted = sets.status == em.RUNNING
    mixture = jax.vmap(to_data_units)(chosen.mixture, sets.units)
    # Squared data units may leave what float64 can represent, though the data do not.
    variances = mixture.covariances if mixture.is_diagonal else jnp.diagonal(mixture.covariances, axis1=-2, axis2=-1)
    representable = jnp.all(jnp.isfinite(variances) & (variances > 0), axis=(-2, -1))
    has_answer = fitted & jnp.isfinite(chosen.log_likelihood) & representable
    return ChunkFits(
        mixture=jax.tree.map(lambda leaf: _masked(has_answer, leaf, jnp.nan), mixture),
        best=best,
        # Taken from the starts' on the host: compiled twice, the same sum may round differently.
        log_likelihood=None,
        n_iter=_masked(fitted, chosen.n_iter, 0),
        status=jnp.where(fitted, jnp.where(has_answer, chosen.status, int(Status.DEGENERATE)), sets.status),
        start_log_likelihood=_masked(fitted, log_likelihoods, jnp.nan),
        start_status=jnp.where(fitted[:, None], states.status, sets.status[:, None]),
        history=None
        if chosen.history is None
        else _masked(fitted, sets.weight_scale[:, None] * (chosen.history - offset), jnp.nan),
        executed=0,
        useful=0,
    )


def _masked(condition: Array, leaf: Array, otherwise: float) -> Array:
    return jnp.where(condition.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, otherwise)
