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
from jaxgmm.em.expectation import Data, Tiles, as_data
from jaxgmm.em.initialization import INITIALIZERS, from_responsibilities
from jaxgmm.engine.slots import where_leading
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
    x: np.ndarray | Array,
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
    sets, starts = _begin(
        *(x, lengths, sample_weight, start, options.reg_covar, options.key, options.n_components),
        covariance_type=program.covariance_type,
        init=program.init,
        n_init=program.n_init,
        room=program.n_components,
        tile=program.tile,
    )
    runs = all_runs(sets, starts, options, program)
    described = sets._replace(z=None, weights=None)
    fits = jax.device_get(_chosen(described, runs.states, runs.judged, n_init=program.n_init))
    best = np.take_along_axis(fits.start_log_likelihood, fits.best[:, None], axis=1)[:, 0]
    best = np.where(np.isnan(fits.mixture.weights[:, 0]), np.nan, best)
    return fits._replace(log_likelihood=best, executed=runs.executed, useful=runs.useful)


@functools.partial(jax.jit, static_argnames=("covariance_type", "init", "n_init", "room", "tile"))
def _begin(
    x: Float[Array, "c n d"],
    lengths: Int[Array, " c"],
    sample_weight: Float[Array, "c n"] | None,
    start: Mixture | Array | None,
    reg_covar: Any,
    key: Any,
    n_components: Any,
    *,
    covariance_type: str,
    init: str,
    n_init: int,
    room: int,
    tile: int,
) -> tuple[DataSets, Mixture]:
    """Standardised data sets, and their starts `(C R, K, …)`, where `room` is K and may exceed `n_components`."""
    family = FAMILIES[covariance_type]
    ridge = jnp.asarray(reg_covar, jnp.float64)
    prepare = functools.partial(_prepare, n_components=n_components, family=family, reg_covar=ridge)
    sets = jax.vmap(prepare)(x.astype(jnp.float64), lengths, sample_weight)
    key = key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.key(key)
    present = jnp.arange(room) < n_components
    starts = _starts(sets, start, key, present, family, init, n_init, tile)
    return sets, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), starts)


def _prepare(
    x: Array, length: Array, sample_weight: Array | None, n_components: Array, family: Family, reg_covar: Array
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
    enough = jnp.sum(weights > 0) >= n_components
    z, ridge, units, varies = standardize(x.T, weights, family, reg_covar)
    status = jnp.where(varies, em.RUNNING, int(Status.DEGENERATE))
    status = jnp.where(enough, status, int(Status.TOO_FEW_SAMPLES))
    status = jnp.where(finite, status, int(Status.NONFINITE)).astype(jnp.int32)
    return DataSets(z, weights, jnp.sum(weights), weight_scale, ridge, units, status)


def _starts(
    sets: DataSets,
    start: Mixture | Array | None,
    key: Array,
    present: Bool[Array, " k"],
    family: Family,
    init: str,
    n_init: int,
    tile: int,
) -> Mixture:
    """Starts `(C, R, K, …)` in standardised coordinates."""

    def data_of(sets: DataSets) -> Data | Tiles:
        return as_data(sets.z, sets.weights, tile, diagonal=family.diagonal)

    def from_rows(sets: DataSets, rows: Array) -> Mixture:
        if init == "labels":
            rows = jax.nn.one_hot(rows, len(present), dtype=sets.z.dtype)
        responsibilities = rows.astype(sets.z.dtype).T
        return from_responsibilities(responsibilities, data_of(sets), sets.z.shape[0], present, family, sets.ridge)

    def from_key(sets: DataSets, r: Array) -> Mixture:
        # Neither whitened nor merely scaled features show the clusters of all data sets, so starts take turns.
        x = jnp.where(r % 2 == 0, sets.z, scaled_features(sets.z, sets.units))
        start_key = jax.random.fold_in(key, r)
        return INITIALIZERS[init](start_key, r, x, data_of(sets), present, family, sets.ridge)

    if init == "mixture":
        explicit = jax.vmap(to_standard)(jax.tree.map(lambda leaf: leaf.astype(jnp.float64), start), sets.units)
        return jax.tree.map(lambda leaf: leaf[:, None], explicit)
    if init in ("labels", "responsibilities"):
        return jax.tree.map(lambda leaf: leaf[:, None], jax.vmap(from_rows)(sets, jnp.asarray(start)))
    # One start of every data set after another: only then does memory not grow with R.
    by_start = lax.map(lambda r: jax.vmap(from_key, in_axes=(0, None))(sets, r), jnp.arange(n_init))
    return jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), by_start)


@functools.partial(jax.jit, static_argnames=("n_init",))
def _chosen(sets: DataSets, states: em.RunState, judged: Bool[Array, " q"], *, n_init: int) -> ChunkFits:
    """The best run of each data set, in data units."""
    states, judged = jax.tree.map(lambda leaf: leaf.reshape(-1, n_init, *leaf.shape[1:]), (states, judged))
    offset = (sets.units.log_scale * sets.n_effective)[:, None]
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
        mixture=where_leading(has_answer, mixture, jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), mixture)),
        best=best,
        # Taken from the starts' on the host: compiled twice, the same sum may round differently.
        log_likelihood=None,
        n_iter=jnp.where(fitted, chosen.n_iter, 0),
        status=jnp.where(fitted, jnp.where(has_answer, chosen.status, int(Status.DEGENERATE)), sets.status),
        start_log_likelihood=jnp.where(fitted[:, None], log_likelihoods, jnp.nan),
        start_status=jnp.where(fitted[:, None], states.status, sets.status[:, None]),
        history=None
        if chosen.history is None
        else jnp.where(fitted[:, None], sets.weight_scale[:, None] * (chosen.history - offset), jnp.nan),
        executed=0,
        useful=0,
    )
