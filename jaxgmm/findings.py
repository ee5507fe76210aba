"""What is found out about runs after a pass: components that are not to be trusted, and what runs are compared by.

On a CPU this is several programs, of which those that few data sets need are compiled where one does: for equal values,
and for spurious components. On a GPU it is one, since there a program more costs more than what it leaves out.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxgmm.em import run as em
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.em.spurious import (
    DOMINATED,
    Findings,
    bounded_log_likelihood,
    effective_sizes,
    is_small,
    is_tied,
    may_be_tied,
    owes_to_ridge,
)
from jaxgmm.engine.some import for_some
from jaxgmm.engine.standardize import scaled_features
from jaxgmm.kernels import Effort, compiled
from jaxgmm.mixture import Mixture
from jaxgmm.passes import DataSets, of_runs
from jaxgmm.program import Layout, Models
from jaxgmm.soundness import price


class Judgement(NamedTuple):
    """What is known of runs `(Q,)`.

    Attributes:
        findings: how many of a run's components are not to be trusted.
        scores: what the runs of a fit are compared by, in nats: log-likelihoods, or what `jaxgmm.soundness` makes of
            them.
        mean_scores: the same per sample of weight 1; -inf where there is nothing.
    """

    findings: Findings
    scores: Float[Array | np.ndarray, " q"]
    mean_scores: Float[Array | np.ndarray, " q"]


class Pass(NamedTuple):
    """What is to be judged.

    Attributes:
        states: runs `(Q,)` after a pass.
        wanted: those that the pass took on. Others have the ridge of the pass that they ended in, and are as they were.
        before: what was found of runs before.
        extra_ridge: what was added to every variance beside the ridge.
        avoids_spurious: whether spurious components lower scores.
    """

    states: em.RunState
    wanted: Bool[Array | np.ndarray, " q"]
    before: Findings
    extra_ridge: Any
    avoids_spurious: Any


class _Flags(NamedTuple):
    """Components of runs `(Q, K)` that are not to be trusted, as `jaxgmm.em.spurious.Findings` counts them."""

    spurious: Bool[Array, "q k"]
    ridge_dominated: Bool[Array, "q k"]


def none_yet(n_runs: int) -> Judgement:
    """Before the first pass. Made on the host: that spares a dispatch for each array."""
    counts, nothing = np.zeros(n_runs, np.int32), np.full(n_runs, np.nan)
    return Judgement(Findings(counts, counts, nothing), nothing, np.full(n_runs, -np.inf))


def judged(made: Pass, sets: DataSets, models: Models, layout: Layout, effort: Effort) -> Judgement:
    """What is known of runs after a pass."""
    return _JUDGES[effort](made, sets, models, layout=layout)


def _in_one(made: Pass, sets: DataSets, models: Models, *, layout: Layout) -> Judgement:
    mixtures = made.states.mixture
    sizes = _sizes(made, sets, models, layout=layout)
    flags, suspect, _ = _flags(made, sizes, sets, models, layout=layout)
    spurious, _ = _tied(mixtures, sets, flags.spurious, suspect, models, layout=layout)
    bounded = _bounded(mixtures, made.states.log_likelihood, sets, spurious, models, layout=layout)
    flags = flags._replace(spurious=spurious)
    return _concluded(made, flags, bounded, sets.total_weight, models, layout=layout)


def _one_after_another(made: Pass, sets: DataSets, models: Models, *, layout: Layout, effort: Effort) -> Judgement:
    mixtures, bounded = made.states.mixture, made.states.log_likelihood
    described, sizes = sets._replace(z=None, weights=None), None
    if np.any(_are_weighted(np.asarray(sets.total_weight), np.asarray(sets.n_effective))):
        sizes = _PROGRAMS[_sizes][effort](made, sets, models, layout=layout)
    flags, suspect, (some_small, some_suspect) = _PROGRAMS[_flags][effort](
        made, sizes, described, models, layout=layout
    )
    some_spurious = bool(some_small)
    if some_suspect:
        spurious, some_spurious = _PROGRAMS[_tied][effort](
            mixtures, sets, flags.spurious, suspect, models, layout=layout
        )
        flags = flags._replace(spurious=spurious)
    if some_spurious:
        bounded = _PROGRAMS[_bounded][effort](mixtures, bounded, sets, flags.spurious, models, layout=layout)
    return _PROGRAMS[_concluded][effort](made, flags, bounded, sets.total_weight, models, layout=layout)


def _are_weighted(total_weight: Any, n_effective: Any) -> Any:
    """Which data sets have samples of different weights, of which the largest is 1."""
    return total_weight < (1 - 1e-9) * n_effective


def _sizes(made: Pass, sets: DataSets, models: Models, *, layout: Layout) -> Float[Array, "q k"]:
    """Effective numbers of samples of components; where all weights are the same, their shares of the samples."""
    mixtures, z, weights = made.states.mixture, sets.z, sets.weights
    row, _ = of_runs(len(mixtures.weights), len(sets.n_effective), models, layout)

    def own(run: Array) -> Float[Array, " k"]:
        return effective_sizes(jax.tree.map(lambda leaf: leaf[run], mixtures), z[row[run]], weights[row[run]])

    wanted = jnp.asarray(made.wanted) & _are_weighted(sets.total_weight, sets.n_effective)[row]
    return for_some(own, wanted, mixtures.weights * sets.n_effective[row][:, None], layout.group)


def _flags(
    made: Pass, sizes: Float[Array, "q k"] | None, sets: DataSets, models: Models, *, layout: Layout
) -> tuple[_Flags, Bool[Array, "q k"], tuple[Bool[Array, ""], Bool[Array, ""]]]:
    """Which components are small, which dominated by the ridge, and which may be of equal values.

    Last, whether any is small, and whether any may be of equal values. Without sizes, they are shares of the samples.
    """
    mixtures = made.states.mixture
    n_features = mixtures.n_features
    row, model = of_runs(len(mixtures.weights), len(sets.n_effective), models, layout)
    least = jnp.array([FAMILIES[name].least_samples(n_features) for name in layout.families], jnp.float64)
    least = least[model.family]
    wanted = jnp.asarray(made.wanted)[:, None]
    own: Array = mixtures.weights * sets.n_effective[row][:, None] if sizes is None else sizes
    small = wanted & jax.vmap(is_small)(mixtures, own, least)
    unit = jnp.ones(n_features) if layout.diagonal else jnp.eye(n_features)
    ridge = sets.ridge[row] + made.extra_ridge * unit[None]
    dominated = jax.vmap(lambda mixture, ridge: owes_to_ridge(mixture, ridge, DOMINATED))(mixtures, ridge)
    suspect = wanted & jax.vmap(may_be_tied)(mixtures, ridge) & ~small
    return _Flags(small, dominated), suspect, (jnp.any(small), jnp.any(suspect))


def _tied(
    mixtures: Mixture,
    sets: DataSets,
    small: Bool[Array, "q k"],
    suspect: Bool[Array, "q k"],
    models: Models,
    *,
    layout: Layout,
) -> tuple[Bool[Array, "q k"], Bool[Array, ""]]:
    """Which components are small or, of those that may be, of equal values; and whether any is."""
    row, _ = of_runs(len(mixtures.weights), len(sets.n_effective), models, layout)

    def tied(run: Array) -> Bool[Array, " k"]:
        mixture = jax.tree.map(lambda leaf: leaf[run], mixtures)
        own = jax.tree.map(lambda leaf: leaf[row[run]], sets)
        return is_tied(mixture, own.z, scaled_features(own.z, own.units), own.weights)

    spurious = small | (suspect & for_some(tied, jnp.any(suspect, axis=1), suspect, layout.group))
    return spurious, jnp.any(spurious)


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
    row, _ = of_runs(len(mixtures.weights), len(sets.n_effective), models, layout)

    def bounded(run: Array) -> Float[Array, ""]:
        mixture = jax.tree.map(lambda leaf: leaf[run], mixtures)
        z, weights = sets.z[row[run]], sets.weights[row[run]]
        return bounded_log_likelihood(mixture, spurious[run], z, weights)

    wanted = jnp.any(spurious, axis=1)
    return jnp.minimum(log_likelihoods, for_some(bounded, wanted, log_likelihoods, layout.group))


def _concluded(
    made: Pass,
    flags: _Flags,
    bounded: Float[Array, " q"],
    total_weight: Float[Array, " s"],
    models: Models,
    *,
    layout: Layout,
) -> Judgement:
    """Findings and scores."""
    wanted, n_features = jnp.asarray(made.wanted), made.states.mixture.n_features
    spurious, ridge_dominated = (jnp.sum(flag, axis=1, dtype=jnp.int32) for flag in flags)
    findings = jax.tree.map(
        lambda new, old: jnp.where(wanted, new, old), Findings(spurious, ridge_dominated, bounded), made.before
    )
    row, model = of_runs(len(wanted), len(total_weight), models, layout)
    families = [FAMILIES[name].n_parameters for name in layout.families]
    # Weight, mean, and what of the covariance is its own.
    own = jnp.array([1 + n_features + free(2, n_features) - free(1, n_features) for free in families], jnp.float64)
    total = total_weight[row]
    prices = price(own[model.family], total) * findings.spurious.astype(total.dtype)
    scores = jnp.where(made.avoids_spurious, findings.bounded - prices, made.states.log_likelihood)
    means = scores / jnp.maximum(total, 1.0)
    return Judgement(findings, scores, jnp.where(jnp.isnan(means), -jnp.inf, means))


_compiled = functools.partial(compiled, static_argnames=("layout",))
_PROGRAMS = {function: _compiled(function) for function in (_sizes, _flags, _tied, _bounded, _concluded)}
_JUDGES: dict[Effort, Callable[..., Judgement]] = {
    "well": _compiled(_in_one)["well"],
    "quickly": functools.partial(_one_after_another, effort="quickly"),
    "at once": functools.partial(_one_after_another, effort="at once"),
}
