"""The fits of a chunk: the best run of each, converted to data units."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxgmm.driver.passes import DataSets, form_of
from jaxgmm.driver.program import Models, Program
from jaxgmm.driver.runs import Runs
from jaxgmm.driver.search import ROUNDING
from jaxgmm.driver.standardize import to_data_units
from jaxgmm.em import state as em
from jaxgmm.em.spurious import Findings
from jaxgmm.engine.rows import rows_of
from jaxgmm.engine.slots import where_leading
from jaxgmm.engine.transfer import Packed, packed
from jaxgmm.mixture import Mixture, unknown
from jaxgmm.numerics.kernels import compiled
from jaxgmm.soundness import eligible, first_best, passed_over
from jaxgmm.status import Status

# Roundings by which a mean may be off after the conversion to data units, and the standard deviation, in roundings,
# from which on that does not matter.
_ROUNDINGS_OF_MEANS, _NOTICEABLE = 8, 2**16


class ChunkFits(NamedTuple):
    """Fits of a chunk, in data units; row `c M + m` is model `m` on data set `c`, field by field as `jaxgmm.FitResult`.

    Models are compared by `bounded_log_likelihood` (`jaxgmm.soundness`). `executed` and `useful` count run-iterations:
    those that were made, and those that some run needed.
    """

    mixture: Mixture
    log_likelihood: Float[np.ndarray, " g"]
    bounded_log_likelihood: Float[np.ndarray, " g"]
    gap: Float[np.ndarray, " g"]
    n_iter: Int[np.ndarray, " g"]
    status: Int[np.ndarray, " g"]
    spurious: Int[np.ndarray, " g"]
    ridge_dominated: Int[np.ndarray, " g"]
    start_passed_over: Bool[np.ndarray, " g"]
    n_samples: Float[np.ndarray, " g"]
    ridge: Float[np.ndarray, "g d"]
    start_log_likelihood: Float[np.ndarray, "g r"]
    start_status: Int[np.ndarray, "g r"]
    start_spurious: Int[np.ndarray, "g r"]
    history: Float[np.ndarray, "g t"] | None
    snapshots: Mixture | None
    executed: int
    useful: int


class Best(NamedTuple):
    """The best run of each fit, in data units.

    Attributes:
        start: the number of its start; None if each fit has one.
        mixture: its parameters, NaN where it has no answer.
        gap: the estimated distance of its log-likelihood from the limit, per sample.
        n_iter: its iterations.
        status: how the fit ended.
        start_log_likelihood: `(G, R)`, of all starts.
        start_bounded: `(G, R)`, the bounded log-likelihoods of all starts, by which models are compared.
        start_status: `(G, R)`, how all starts ended.
        start_spurious: `(G, R)`, numbers of spurious components of all starts.
        ridge_dominated: number of the run's components whose variance comes largely from the ridge.
        has_narrow: whether any component is so narrow that the rounding of its mean is noticeable; see `_snapped`.
        n_samples: Σ w, NaN where no fit was begun.
        ridge: `(G, D)`, added to each variance.
        history: of the run, or None.
        snapshots: of the run, or None.
    """

    start: Any
    mixture: Mixture
    gap: Any
    n_iter: Any
    status: Any
    start_log_likelihood: Any
    start_bounded: Any
    start_status: Any
    start_spurious: Any
    ridge_dominated: Any
    has_narrow: Any
    n_samples: Any
    ridge: Any
    history: Any
    snapshots: Mixture | None


def _best_of(
    sets: DataSets,
    status: Int[Array, " g"],
    states: em.RunState,
    findings: Findings,
    scores: Float[Array, " q"],
    judged: Bool[Array, " q"],
    models: Models,
) -> Packed:
    """The best run of each fit, a `Best` that is packed to be fetched."""
    n_fits, n_rows = len(status), len(sets.n_effective)
    sets = rows_of(sets, form_of(jnp.arange(n_fits, dtype=jnp.int32), n_fits, n_rows, models))
    by_start = jax.tree.map(lambda leaf: leaf.reshape(n_fits, -1, *leaf.shape[1:]), (states, findings, scores, judged))
    states, findings, scores, judged = by_start
    offset = (sets.units.log_scale * sets.total_weight)[:, None]
    log_likelihoods = sets.weight_scale[:, None] * (states.log_likelihood - offset)
    # In standardised units, where nothing cancels. Rounding must not choose among starts that differ only in the order
    # of components.
    may_win = eligible(judged & jnp.isfinite(log_likelihoods), states.status)
    size = jnp.max(jnp.where(may_win, jnp.abs(scores), 0.0), axis=1, keepdims=True)
    start = first_best(scores, may_win, ROUNDING * (size + sets.total_weight[:, None]))
    chosen, of_chosen = jax.vmap(rows_of)((states, findings), start)

    fitted = status == em.RUNNING
    mixture = jax.vmap(to_data_units)(chosen.mixture, sets.units)
    # Squared data units may leave the range of float64 even if the data do not.
    variances = mixture.covariances if mixture.is_diagonal else jnp.diagonal(mixture.covariances, axis1=-2, axis2=-1)
    representable = jnp.all(jnp.isfinite(variances) & (variances > 0), axis=(-2, -1))
    has_answer = fitted & jnp.isfinite(chosen.log_likelihood) & representable

    def answer(mixture: Mixture) -> Mixture:
        return where_leading(has_answer, mixture, jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), mixture))

    answers = answer(mixture)
    best = Best(
        start=None if scores.shape[1] == 1 else start,
        mixture=answers,
        gap=jnp.where(has_answer, chosen.gap, jnp.nan),
        n_iter=jnp.where(fitted, chosen.n_iter, 0),
        status=jnp.where(fitted, jnp.where(has_answer, chosen.status, int(Status.DEGENERATE)), status),
        start_log_likelihood=jnp.where(fitted[:, None], log_likelihoods, jnp.nan),
        start_bounded=jnp.where(fitted[:, None], sets.weight_scale[:, None] * (findings.bounded - offset), jnp.nan),
        start_status=jnp.where(fitted[:, None], states.status, status[:, None]),
        start_spurious=jnp.where(fitted[:, None], findings.spurious, 0),
        ridge_dominated=jnp.where(fitted, of_chosen.ridge_dominated, 0),
        has_narrow=jnp.any(_is_narrow(answers, jnp)),
        n_samples=jnp.where(fitted, sets.weight_scale * sets.total_weight, jnp.nan),
        ridge=jnp.where(fitted[:, None], sets.ridge_in_data_units, jnp.nan),
        history=None
        if chosen.history is None
        else jnp.where(fitted[:, None], sets.weight_scale[:, None] * (chosen.history - offset), jnp.nan),
        snapshots=None
        if chosen.snapshots is None
        else answer(jax.vmap(jax.vmap(to_data_units, (0, None)))(chosen.snapshots, sets.units)),
    )
    return packed(best)


BEST_OF = compiled(_best_of)


# The value of a feature in the samples of a data set that is nearest to a mean: their numbers, and the mean.
Nearest = Callable[[int, int, float], float]


class Values(NamedTuple):
    """Samples of a chunk.

    Attributes:
        x: `(C, N, D)`, padded with arbitrary rows.
        lengths: `(C,)`.
        sample_weight: `(C, N)`, or None for 1.
    """

    x: np.ndarray | Array
    lengths: np.ndarray
    sample_weight: np.ndarray | None

    def nearest(self, data_set: int, feature: int, mean: float) -> float:
        """The value of a feature nearest to a mean, in the samples of positive weight of a data set."""
        # Of JAX arrays, slices of every length would be programs of their own.
        values = np.asarray(self.x[data_set, :, feature], np.float64)[: self.lengths[data_set]]
        if self.sample_weight is not None:
            values = values[self.sample_weight[data_set, : len(values)] > 0]
        return values[np.nanargmin(np.abs(values - mean))].item()


def whole(best: Best, runs: Runs, nearest: Nearest, n_models: int) -> ChunkFits:
    """The fits of M models to a chunk of data sets.

    Values of the best start are looked up, not recomputed: that might round differently.
    """
    n_fits = len(best.status)

    def of_best(rows: np.ndarray) -> np.ndarray:
        return rows[:, 0].copy() if best.start is None else rows[np.arange(n_fits), best.start]

    log_likelihood = of_best(best.start_log_likelihood)
    log_likelihood[np.isnan(best.mixture.weights[:, 0])] = np.nan
    if best.start is None:
        start_passed_over = np.zeros(n_fits, bool)
    else:
        gains = best.start_log_likelihood - log_likelihood[:, None]
        start_passed_over = passed_over(best.start_status, best.start_spurious, gains, best.n_samples)
    return ChunkFits(
        mixture=_snapped(best.mixture, nearest, n_models) if best.has_narrow else best.mixture,
        log_likelihood=log_likelihood,
        bounded_log_likelihood=of_best(best.start_bounded),
        gap=best.gap,
        n_iter=best.n_iter,
        status=best.status,
        spurious=of_best(best.start_spurious),
        ridge_dominated=best.ridge_dominated,
        start_passed_over=start_passed_over,
        n_samples=best.n_samples,
        ridge=best.ridge,
        start_log_likelihood=best.start_log_likelihood,
        start_status=best.start_status,
        start_spurious=best.start_spurious,
        history=best.history,
        snapshots=best.snapshots,
        executed=runs.executed,
        useful=runs.useful,
    )


def scaled(fits: ChunkFits, exponents: Int[np.ndarray, " c"]) -> ChunkFits:
    """The fits for weights that are larger by these powers of two."""
    exponents = np.repeat(exponents, len(fits.log_likelihood) // len(exponents))
    # A sum of such weights may be outside the range of float64.
    with np.errstate(over="ignore", under="ignore"):
        return fits._replace(
            log_likelihood=np.ldexp(fits.log_likelihood, exponents),
            n_samples=np.ldexp(fits.n_samples, exponents),
            bounded_log_likelihood=np.ldexp(fits.bounded_log_likelihood, exponents),
            start_log_likelihood=np.ldexp(fits.start_log_likelihood, exponents[:, None]),
            history=None if fits.history is None else np.ldexp(fits.history, exponents[:, None]),
        )


def without_fits(statuses: Any, program: Program, n_features: int) -> ChunkFits:
    """The answer if no fit can be made, for statuses `(G,)`."""
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
        gap=full(np.nan, np.float64),
        n_iter=full(0, np.int32),
        status=statuses,
        spurious=full(0, np.int32),
        ridge_dominated=full(0, np.int32),
        start_passed_over=full(0, bool),
        n_samples=full(np.nan, np.float64),
        ridge=full(np.nan, np.float64, n_features),
        start_log_likelihood=full(np.nan, np.float64, n_init),
        start_status=full(0, np.int32, n_init) + statuses[:, None],
        start_spurious=full(0, np.int32, n_init),
        history=full(np.nan, np.float64, n_history) if n_history else None,
        snapshots=no_mixtures(n_snapshots) if n_snapshots else None,
        executed=0,
        useful=0,
    )


def _snapped(mixture: Mixture, nearest: Nearest, n_models: int) -> Mixture:
    """The mixture with means of equal values set exactly to these.

    The conversion to data units rounds a mean. Far from all other values, that rounding may be many standard deviations
    of a component whose width is only the ridge.
    """
    rounding, means = _rounding_of(mixture), mixture.means.copy()
    for g, k, d in np.argwhere(_is_narrow(mixture, np)).tolist():
        value = nearest(g // n_models, d, means[g, k, d].item())
        if abs(value - means[g, k, d]) <= rounding[g, k, d]:
            means[g, k, d] = value
    return replace(mixture, means=means)


def _is_narrow(mixture: Mixture, xp: Any) -> Any:
    """`(G, K, D)`, which standard deviations are so small that the rounding of a mean is noticeable; NaN is not."""
    variances = mixture.covariances if mixture.is_diagonal else xp.diagonal(mixture.covariances, axis1=-2, axis2=-1)
    return xp.sqrt(variances) < _NOTICEABLE * _rounding_of(mixture)


def _rounding_of(mixture: Mixture) -> Any:
    """`(G, K, D)`, by how much the conversion to data units may have changed a mean."""
    return _ROUNDINGS_OF_MEANS * np.finfo(np.float64).eps.item() * abs(mixture.means)
