"""The compiled program: a chunk of data sets, from raw samples to their chosen fits.

    standardise each data set  →  its starts  →  all runs (`jaxgmm.search`)  →  the best run of each  →  data units

Everything outside the runs is float64.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxgmm.em import run as em
from jaxgmm.em.covariance import FAMILIES, Family
from jaxgmm.em.expectation import Data
from jaxgmm.em.initialization import INITIALIZERS, from_responsibilities
from jaxgmm.em.statistics import features
from jaxgmm.engine.standardize import standardize, to_data_units, to_standard
from jaxgmm.mixture import Mixture
from jaxgmm.search import DataSets, Program, Runs, all_runs
from jaxgmm.status import Status


class Options(NamedTuple):
    """What a compiled program is told: traced scalars, and the random key."""

    tol: Float[Array, ""]
    max_iter: Int[Array, ""]
    reg_covar: Float[Array, ""]
    key: Array


class ChunkFits(NamedTuple):
    """Fits of a chunk, in data units; field by field those of `jaxgmm.FitResult`.

    `executed` and `useful` count run-iterations: those the slots made, and those some run needed.
    """

    mixture: Mixture
    log_likelihood: Float[Array, " c"]
    n_iter: Int[Array, " c"]
    status: Int[Array, " c"]
    start_log_likelihood: Float[Array, "c r"]
    start_status: Int[Array, "c r"]
    history: Float[Array, "c t"] | None
    executed: Int[Array, ""]
    useful: Int[Array, ""]


@functools.partial(jax.jit, static_argnames=("program",))
def fit_chunk(
    x: Float[Array, "c n d"],
    lengths: Int[Array, " c"],
    sample_weight: Float[Array, "c n"] | None,
    start: Mixture | Array | None,
    options: Options,
    program: Program,
) -> ChunkFits:
    """Fits every data set of a chunk. Float64 must be enabled.

    Args:
        x: samples in data units, padded.
        lengths: number of samples of each data set.
        sample_weight: weights, or None for 1.
        start: explicit starts as `program.init` says: mixtures, responsibilities `(C, N, K)` or labels `(C, N)`.
        options: what may change from call to call.
        program: what the program is compiled for.

    Returns:
        the fits.
    """
    family = FAMILIES[program.covariance_type]
    sets = jax.vmap(functools.partial(_prepare, program=program, family=family, reg_covar=options.reg_covar))(
        x.astype(jnp.float64), lengths, sample_weight
    )
    starts = _starts(sets, start, options, program, family)
    runs = all_runs(sets, starts, options.tol, options.max_iter, program)
    return _chosen(sets, runs)


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
    x = jnp.where(jnp.isfinite(x), x, 0.0)
    enough = jnp.sum(weights > 0) >= program.n_components
    z, ridge, units, varies = standardize(x.T, weights, family, reg_covar)
    status = jnp.where(varies, em.RUNNING, int(Status.DEGENERATE))
    status = jnp.where(enough, status, int(Status.TOO_FEW_SAMPLES))
    status = jnp.where(finite, status, int(Status.NONFINITE)).astype(jnp.int32)
    return DataSets(z, weights, ridge, units, status)


def _starts(
    sets: DataSets, start: Mixture | Array | None, options: Options, program: Program, family: Family
) -> Mixture:
    """Starts `(C, R, K, …)` in standardised coordinates."""

    def data_of(sets: DataSets) -> Data:
        return Data(features(sets.z, diagonal=family.diagonal), sets.weights)

    def from_rows(sets: DataSets, rows: Array) -> Mixture:
        if program.init == "labels":
            rows = jax.nn.one_hot(rows, program.n_components, dtype=sets.z.dtype)
        responsibilities = rows.astype(sets.z.dtype).T
        return from_responsibilities(responsibilities, data_of(sets), sets.z.shape[0], family, sets.ridge)

    def from_key(sets: DataSets, key: Array) -> Mixture:
        return INITIALIZERS[program.init](key, sets.z, data_of(sets), program.n_components, family, sets.ridge)

    if program.init == "mixture":
        explicit = jax.vmap(to_standard)(jax.tree.map(lambda leaf: leaf.astype(jnp.float64), start), sets.units)
        return jax.tree.map(lambda leaf: leaf[:, None], explicit)
    if program.init in ("labels", "responsibilities"):
        return jax.tree.map(lambda leaf: leaf[:, None], jax.vmap(from_rows)(sets, start))
    keys = jax.vmap(lambda r: jax.random.fold_in(options.key, r))(jnp.arange(program.n_init))
    # One start of every data set after another: only then does memory not grow with R.
    by_start = lax.map(lambda key: jax.vmap(from_key, in_axes=(0, None))(sets, key), keys)
    return jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), by_start)


def _chosen(sets: DataSets, runs: Runs) -> ChunkFits:
    """The best run of each data set, in data units."""
    states = runs.states
    log_likelihoods = states.log_likelihood - (sets.units.log_scale * jnp.sum(sets.weights, axis=1))[:, None]
    # A run that lost a component wins only where no other is sound.
    sound = runs.judged & (states.status != Status.DEGENERATE)
    eligible = jnp.where(jnp.any(sound, axis=1, keepdims=True), sound, runs.judged)
    score = jnp.where(eligible & jnp.isfinite(log_likelihoods), log_likelihoods, -jnp.inf)
    best = jnp.argmax(score, axis=1)
    chosen = jax.vmap(lambda states, r: jax.tree.map(lambda leaf: leaf[r], states))(states, best)

    fitted = sets.status == em.RUNNING
    has_answer = fitted & jnp.isfinite(chosen.log_likelihood)
    mixture = jax.vmap(to_data_units)(chosen.mixture, sets.units)
    offset = (sets.units.log_scale * jnp.sum(sets.weights, axis=1))[:, None]
    return ChunkFits(
        mixture=jax.tree.map(lambda leaf: _masked(has_answer, leaf, jnp.nan), mixture),
        log_likelihood=_masked(has_answer, jnp.take_along_axis(log_likelihoods, best[:, None], axis=1)[:, 0], jnp.nan),
        n_iter=_masked(fitted, chosen.n_iter, 0),
        status=jnp.where(fitted, chosen.status, sets.status),
        start_log_likelihood=_masked(fitted, log_likelihoods, jnp.nan),
        start_status=jnp.where(fitted[:, None], states.status, sets.status[:, None]),
        history=None if chosen.history is None else _masked(fitted, chosen.history - offset, jnp.nan),
        executed=runs.executed,
        useful=runs.useful,
    )


def _masked(condition: Array, leaf: Array, otherwise: float) -> Array:
    return jnp.where(condition.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, otherwise)
