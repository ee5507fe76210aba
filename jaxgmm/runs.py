"""The runs of a chunk, and what is found out about them as they are taken on.

`jaxgmm.search` decides which runs go how far in which precision; `jaxgmm.passes` takes them there.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxgmm.em import run as em
from jaxgmm.em.covariance import FAMILIES
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
from jaxgmm.engine.standardize import scaled_features
from jaxgmm.kernels import compiled
from jaxgmm.mixture import Mixture
from jaxgmm.passes import DataSets, Limits, form_of, take_to_ends
from jaxgmm.program import Layout, Models, Options, Program, Way
from jaxgmm.soundness import is_sound, price
from jaxgmm.status import Status


class Runs(NamedTuple):
    """The runs of a chunk, as far as they have come; run `(c M + m) R + r` is start `r` of model `m` on data set `c`.

    Attributes:
        states: `(C M R,)`, float64.
        findings: `(C M R,)`, how many of a run's components are not to be trusted.
        scores: `(C M R,)`, what the runs of a fit are compared by, in nats: log-likelihoods, or what
            `jaxgmm.soundness` makes of them.
        mean_scores: `(C M R,)`, the same per sample of weight 1; -inf where there is nothing.
        judged: `(C M R,)`, whether a run was finished in the precision of the answer, and so may be chosen.
        executed: run-iterations that were made.
        useful: those that some run needed.
    """

    states: em.RunState
    findings: Findings
    scores: Float[Array | np.ndarray, " q"]
    mean_scores: Float[Array | np.ndarray, " q"]
    judged: np.ndarray
    executed: int
    useful: int

    def by_fit(self, n_init: int) -> Float[np.ndarray, "g r"]:
        """`mean_scores` of the starts of each fit."""
        return np.asarray(self.mean_scores).reshape(-1, n_init)


# What must be left of a variance in float64 for its error to be a ten-millionth of it, and where samples are centred on
# each component, so that nothing cancels, for it to be known at all; in machine epsilons.
ACCURATE_IN_FLOAT64 = 2**22
SOUND = 64

# Numbers that are held at a time where runs are looked at once more.
_JUDGED = 2**17


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
    findings = Findings(none, none, states.log_likelihood)
    no_scores = full(-np.inf, np.float64, n_runs)
    return Runs(states, findings, states.log_likelihood, no_scores, np.zeros(n_runs, bool), 0, 0)


class Work(NamedTuple):
    """What all passes over the runs of a chunk have in common."""

    sets: DataSets
    starts: Mixture
    options: Options
    program: Program

    def in_float32(self, found: Runs, wanted: Bool[np.ndarray, " q"], limits: Limits, way: Way) -> Runs:
        """Takes the wanted runs on from where they were `found`; others keep what they have."""
        return self._take_on(found, wanted, limits, way, "float32")

    def in_float64(
        self,
        found: Runs,
        wanted: Bool[np.ndarray, " q"],
        rivals: Bool[np.ndarray, " q"],
        limits: tuple[float, int],
        way: Way,
    ) -> Runs:
        """The same, with components as narrow as float64 can tell: about their own means where they need that.

        What has become too narrow on a few samples is spurious, and ends there if a rival of the same fit is sound and
        better. `limits` are tolerance and most iterations.
        """
        n_init = self.program.layout.n_init
        before = found.by_fit(n_init)
        found = self._take_on(found, wanted, Limits(*limits, ACCURATE_IN_FLOAT64), way, "float64")
        status, spurious = np.asarray(found.states.status), np.asarray(found.findings.spurious)
        lost = wanted & (status == Status.DEGENERATE)
        if not np.any(lost):
            return found
        if self.options.avoids_spurious:
            # A run that was centred before is lost at once, and is worth what it was worth then.
            scores, is_rival = np.maximum(found.by_fit(n_init), before), rivals & is_sound(status, spurious)
            best = np.max(np.where(is_rival.reshape(scores.shape), scores, -np.inf), axis=1, keepdims=True)
            is_worse = (scores > -np.inf) & (scores < best)
            lost &= (spurious == 0) | ~is_worse.ravel()
            if not np.any(lost):
                return found
        return self._take_on(found, lost, Limits(*limits, SOUND), self.program.centred, "float64")

    def _take_on(self, found: Runs, wanted: Bool[np.ndarray, " q"], limits: Limits, way: Way, dtype: str) -> Runs:
        (sets, starts, options, program), models = self, self.options.models
        states, useful, executed = take_to_ends(
            *(sets, starts, found.states, wanted, models, limits, options.snapshots),
            effort="quickly" if program.effort == "at once" else "well",
            layout=program.layout,
            way=way,
            dtype=dtype,
        )
        flags, bounded = _found_in(states, sets, limits.extra_ridge, models, program)
        findings, scores, mean_scores = _judged[program.effort](
            *(flags, bounded, states.log_likelihood, found.findings, wanted),
            *(sets.total_weight, models, options.avoids_spurious),
            n_features=starts.n_features,
            layout=program.layout,
        )
        executed, useful = found.executed + int(executed), found.useful + int(useful)
        return Runs(states, findings, scores, mean_scores, found.judged, executed, useful)


class _Flags(NamedTuple):
    """Components of runs `(Q, K)` that are not to be trusted; see `jaxgmm.em.spurious.Findings`."""

    spurious: Bool[Array, "q k"]
    ridge_dominated: Bool[Array, "q k"]


def _found_in(
    states: em.RunState, sets: DataSets, extra_ridge: float, models: Models, program: Program
) -> tuple[_Flags, Float[Array, " q"]]:
    """Components of all runs `(Q,)` that are not to be trusted, and what is left of log-likelihoods without these.

    Programs that few data sets need are compiled where one does: for equal values, and for spurious components.
    """
    layout, effort, described = program.layout, program.effort, sets._replace(z=None, weights=None)
    flags, suspect, (some_small, some_suspect) = _flags[effort](
        states.mixture, described, extra_ridge, models, layout=layout
    )
    bounded, some_spurious = states.log_likelihood, bool(some_small)
    if some_suspect:
        spurious, some_spurious = _tied[effort](states.mixture, sets, flags.spurious, suspect, models, layout=layout)
        flags = flags._replace(spurious=spurious)
    if some_spurious:
        bounded = _bounded[effort](states.mixture, bounded, sets, flags.spurious, models, layout=layout)
    return flags, bounded


_compiled = functools.partial(compiled, static_argnames=("layout",))


@functools.partial(compiled, static_argnames=("n_features", "layout"))
def _judged(
    flags: _Flags,
    bounded: Float[Array, " q"],
    log_likelihood: Float[Array, " q"],
    before: Findings,
    wanted: Bool[Array, " q"],
    total_weight: Float[Array, " s"],
    models: Models,
    avoids_spurious: Bool[Array, ""],
    *,
    n_features: int,
    layout: Layout,
) -> tuple[Findings, Float[Array, " q"], Float[Array, " q"]]:
    """Findings after a pass, scores and mean scores."""
    counts = [jnp.sum(flag, axis=1, dtype=jnp.int32) for flag in flags]
    # Other runs have the ridge of the pass that they ended in.
    findings = jax.tree.map(lambda new, old: jnp.where(wanted, new, old), Findings(*counts, bounded), before)
    models, fit = jax.tree.map(jnp.asarray, models), jnp.arange(len(wanted)) // layout.n_init
    families = [FAMILIES[name].n_parameters for name in layout.families]
    # Weight, mean, and what of the covariance is its own.
    own = jnp.array([1 + n_features + free(2, n_features) - free(1, n_features) for free in families], jnp.float64)
    total = total_weight[form_of(fit, len(wanted) // layout.n_init, len(total_weight), models)]
    prices = price(own[models.family[fit % len(models.family)]], total)
    scores = jnp.where(
        avoids_spurious, findings.bounded - prices * findings.spurious.astype(prices.dtype), log_likelihood
    )
    means = scores / jnp.maximum(total, 1.0)
    return findings, scores, jnp.where(jnp.isnan(means), -jnp.inf, means)


@_compiled
def _flags(
    mixtures: Mixture, sets: DataSets, extra_ridge: Array, models: Models, *, layout: Layout
) -> tuple[_Flags, Bool[Array, "q k"], tuple[Bool[Array, ""], Bool[Array, ""]]]:
    """Which components are small, which dominated by the ridge, and which may be of equal values.

    Last, whether any is small, and whether any may be of equal values.
    """
    models, n_features = jax.tree.map(jnp.asarray, models), mixtures.n_features
    row, fit = _rows(mixtures, sets, models, layout)
    least = jnp.array([FAMILIES[name].least_samples(n_features) for name in layout.families], jnp.float64)
    least = least[models.family[fit % len(models.family)]]
    small = jax.vmap(is_small)(mixtures, Support(sets.n_effective[row], sets.total_weight[row], least))
    unit = jnp.ones(n_features) if layout.diagonal else jnp.eye(n_features)
    ridge = sets.ridge[row] + extra_ridge * unit[None]
    dominated = jax.vmap(lambda mixture, ridge: owes_to_ridge(mixture, ridge, DOMINATED))(mixtures, ridge)
    suspect = jax.vmap(may_be_tied)(mixtures, ridge) & ~small
    return _Flags(small, dominated), suspect, (jnp.any(small), jnp.any(suspect))


@_compiled
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
    row, _ = _rows(mixtures, sets, jax.tree.map(jnp.asarray, models), layout)

    def tied(run: Array) -> Bool[Array, " k"]:
        mixture = jax.tree.map(lambda leaf: leaf[run], mixtures)
        own = jax.tree.map(lambda leaf: leaf[row[run]], sets)
        return is_tied(mixture, own.z, scaled_features(own.z, own.units), own.weights)

    spurious = small | (suspect & _for_some(tied, jnp.any(suspect, axis=1), suspect, _at_a_time(mixtures, sets)))
    return spurious, jnp.any(spurious)


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
