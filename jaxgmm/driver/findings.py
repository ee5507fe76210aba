"""Findings about runs after a pass: components that cannot be trusted, and the scores by which runs are compared.

A first look is part of the pass's program and reads only parameters. If it finds components that are small, or that may
be of equal values, a closer look reads the samples again, in a program that few calls need.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxgmm.driver.passes import DataSets, Given, of_runs
from jaxgmm.driver.program import Layout
from jaxgmm.driver.standardize import scaled_features
from jaxgmm.em import state as em
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.em.expectation import as_data
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
from jaxgmm.engine.rows import for_some, rows_of
from jaxgmm.mixture import Mixture
from jaxgmm.numerics.kernels import compiled
from jaxgmm.soundness import price


class Judgement(NamedTuple):
    """Findings and scores of runs `(Q,)`.

    Attributes:
        findings: how many of a run's components cannot be trusted.
        scores: the scores by which the runs of a fit are compared, in nats: log-likelihoods, or those adjusted as in
            `jaxgmm.soundness`.
        mean_scores: the same per sample of weight 1; -inf where there is none.
    """

    findings: Findings
    scores: Float[Array | np.ndarray, " q"]
    mean_scores: Float[Array | np.ndarray, " q"]


class Pass(NamedTuple):
    """A pass to be judged.

    Attributes:
        states: runs `(Q,)` after a pass.
        wanted: the runs that the pass advanced. Others are unchanged, with the ridge of the pass in which they ended.
        before: earlier findings about the runs.
        extra_ridge: what was added to every variance in addition to the ridge.
    """

    states: em.RunState
    wanted: Bool[Array | np.ndarray, " q"]
    before: Findings
    extra_ridge: Any


class FirstLook(NamedTuple):
    """Findings from the parameters of runs `(Q,)` alone.

    Attributes:
        small: `(Q, K)`, which components are narrow and small, or of too few samples.
        suspect: `(Q, K)`, which may be of equal values.
        any_small: whether any is small.
        any_suspect: whether any may be of equal values.
        judgement: the judgement if no component is either.
    """

    small: Bool[Array, "q k"]
    suspect: Bool[Array, "q k"]
    any_small: Bool[Array, ""]
    any_suspect: Bool[Array, ""]
    judgement: Judgement


def none_yet(n_runs: int, xp: Any = np) -> Judgement:
    """The judgement before the first pass, as arrays of NumPy or, in a program, of JAX."""
    counts, nothing = xp.zeros(n_runs, xp.int32), xp.full(n_runs, xp.nan, xp.float64)
    return Judgement(Findings(counts, counts, nothing), nothing, xp.full(n_runs, -xp.inf, xp.float64))


def first_look(made: Pass, given: Given, layout: Layout) -> FirstLook:
    """The first look, without the samples, which are read only if their weights differ."""
    mixtures, sets = made.states.mixture, given.sets
    n_features = mixtures.n_features
    row, model = of_runs(len(mixtures.weights), len(sets.n_effective), given.models, layout)
    least = jnp.array([FAMILIES[name].least_samples(n_features) for name in layout.families], jnp.float64)
    sizes = mixtures.weights * rows_of(sets.n_effective, row)[:, None]
    if layout.is_weighted:
        sizes = _sizes(made, sizes, sets, row, layout)
    wanted = jnp.asarray(made.wanted)[:, None]
    small = wanted & jax.vmap(is_small)(mixtures, sizes, rows_of(least, model.family))
    unit = jnp.ones(n_features) if layout.diagonal else jnp.eye(n_features)
    own_ridge = rows_of(sets.ridge, row)
    ridge = own_ridge + made.extra_ridge * unit[None]
    suspect = wanted & jax.vmap(may_be_tied)(mixtures, ridge) & ~small
    # The ridge that a search adds is not part of the answer. So after a search, test the effect of that ridge alone.
    asked_of = jnp.where(jnp.asarray(made.extra_ridge) > 0, made.extra_ridge * unit[None], own_ridge)
    dominated = jax.vmap(lambda mixture, ridge: owes_to_ridge(mixture, ridge, DOMINATED))(mixtures, asked_of)
    counts = jnp.zeros(len(row), jnp.int32), jnp.sum(dominated, axis=1, dtype=jnp.int32)
    judgement = _concluded(made, Findings(*counts, made.states.log_likelihood), given, layout)
    return FirstLook(small, suspect, jnp.any(small), jnp.any(suspect), judgement)


def _closer_look(made: Pass, first: FirstLook, given: Given, *, layout: Layout, has_suspects: bool) -> Judgement:
    """The judgement of runs after a pass, some of whose components are small, or may be of equal values."""
    mixtures, sets, spurious = made.states.mixture, given.sets, first.small
    row, _ = of_runs(len(mixtures.weights), len(sets.n_effective), given.models, layout)

    def of(run: Array) -> tuple[Mixture, DataSets]:
        return rows_of(mixtures, run), rows_of(sets, rows_of(row, run))

    def tied(run: Array) -> Bool[Array, " k"]:
        mixture, own = of(run)
        return is_tied(mixture, own.z, scaled_features(own.z, own.units), own.weights)

    if has_suspects:
        found = for_some(tied, jnp.any(first.suspect, axis=1), first.suspect, layout.group)
        spurious = spurious | (first.suspect & found)

    def bounded(run: Array) -> Float[Array, ""]:
        mixture, own = of(run)
        return bounded_log_likelihood(mixture, rows_of(spurious, run), own.z, own.weights)

    # Runs without spurious components keep their own log-likelihood.
    log_likelihoods = made.states.log_likelihood
    lowered = for_some(bounded, jnp.any(spurious, axis=1), log_likelihoods, layout.group)
    counts = jnp.sum(spurious, axis=1, dtype=jnp.int32), first.judgement.findings.ridge_dominated
    return _concluded(made, Findings(*counts, jnp.minimum(log_likelihoods, lowered)), given, layout)


CLOSER_LOOK = compiled(_closer_look, static_argnames=("layout", "has_suspects"))


def _sizes(made: Pass, shares: Array, sets: DataSets, row: Array, layout: Layout) -> Float[Array, "q k"]:
    """Effective numbers of samples of components; if all weights are equal, their shares of the samples."""

    def own(run: Array) -> Float[Array, " k"]:
        z, weights = rows_of((sets.z, sets.weights), rows_of(row, run))
        data = as_data(z, weights, layout.tile, diagonal=layout.diagonal)
        return effective_sizes(rows_of(made.states.mixture, run), data)

    # The largest weight of a data set is 1.
    differ = jnp.any((sets.weights > 0) & (sets.weights < 1), axis=1)
    return for_some(own, jnp.asarray(made.wanted) & rows_of(differ, row), shares, layout.group)


def _concluded(made: Pass, found: Findings, given: Given, layout: Layout) -> Judgement:
    """Findings and scores; those of runs that the pass did not advance are unchanged."""
    wanted, n_features, sets = jnp.asarray(made.wanted), made.states.mixture.n_features, given.sets
    log_likelihoods = made.states.log_likelihood
    found = found._replace(bounded=jnp.where(given.avoids_spurious, found.bounded, log_likelihoods))
    findings = jax.tree.map(lambda new, old: jnp.where(wanted, new, old), found, made.before)
    row, model = of_runs(len(wanted), len(sets.n_effective), given.models, layout)
    families = [FAMILIES[name].n_parameters for name in layout.families]
    # Weight, mean, and the covariance parameters that a component does not share.
    own = jnp.array([1 + n_features + free(2, n_features) - free(1, n_features) for free in families], jnp.float64)
    total = rows_of(sets.total_weight, row)
    prices = price(rows_of(own, model.family), total) * findings.spurious.astype(total.dtype)
    scores = jnp.where(given.avoids_spurious, findings.bounded - prices, log_likelihoods)
    means = scores / jnp.maximum(total, 1.0)
    return Judgement(findings, scores, jnp.where(jnp.isnan(means), -jnp.inf, means))
