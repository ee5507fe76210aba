"""Methods that follow the gradient of the likelihood, with directions by optax: L-BFGS and Adam.

The gradient of the log-likelihood is that of the expected complete log-likelihood at the same parameters (Fisher's
identity), which is linear in the sufficient statistics. So these methods see no samples either, and a step costs one
E-step.

Coordinates are those of `jaxgmm.em.unconstrained`, relative to the current mixture, so that a step along the gradient
is EM's own to first order, and steps and gradients at different mixtures are compared in frames that are orthonormal
in EM's metric. optax is given their sums and differences as if the coordinates were the same everywhere (as in
L-BFGS on a manifold: Huang, Gallivan and Absil, 2015, "A Broyden class of quasi-Newton methods for Riemannian
optimization").

A run begins with `FIRST` steps of EM. L-BFGS's direction (Liu and Nocedal, 1989) is followed as far as no component
changes much. A step that gains less than a small share of what the slope promises is shortened, which costs one more
E-step each time; after `MOST_TRIALS` of them EM's own step follows, which is always accepted, and what has been learnt
of the curvature is forgotten. Pairs along which the likelihood is not concave are left out. Half the slope along the
whole direction, the Newton decrement, estimates how much of the mean log-likelihood is left to gain. A run has
converged if that is below the tolerance twice in succession; where the likelihood was not concave along the last step,
the estimate supposes the smallest curvature. So does a second one, of what of the gradient is more than rounding; the
smaller one counts. Adam's steps (Kingma and Ba, 2015) are accepted whatever they gain, and its estimate always supposes
that.

With a ridge R, EM's fixed points are those at which the gradient vanishes if n_k R is added to the second moments. What
that adds to the gradient is not quite the gradient of anything, as n_k depends on the parameters; what it adds to the
gain of a step is computed with the mean of n_k before and after.
"""

import functools
import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxgmm.em.covariance import Family, Ridge
from jaxgmm.em.e_steps import E_STEPS, EStep
from jaxgmm.em.maximization import m_step
from jaxgmm.em.methods import common
from jaxgmm.em.methods.accelerated import FAR, IN_SUCCESSION, LEAST_CURVATURE, LEAST_GAP
from jaxgmm.em.methods.metric import rounding
from jaxgmm.em.state import RunState, Settings
from jaxgmm.em.statistics import SufficientStatistics
from jaxgmm.em.unconstrained import Point, Reference, coordinates, gradient, in_family, mixture_at, reference
from jaxgmm.mixture import Mixture
from jaxgmm.numerics.traces import total

# Pairs of steps that L-BFGS keeps, and the length of Adam's steps.
MEMORY, RATE = 10, 0.05

# Steps of EM with which a run begins.
FIRST = 4

# Share of the gain that the slope promises with which a step is kept, and what rounding may take of it, in nats.
ARMIJO = 1e-4
SLACK = {"float32": 1e-6, "float64": 1e-12}

# Number of steps in one direction, each shorter than the one before, after which EM's own follows; and by how much.
MOST_TRIALS = 4
SHORTEST, LONGEST_AGAIN = 0.1, 0.5

# Largest change of a component in a step, in its own coordinates: of the logarithm of its weight, of its mean in
# standard deviations, and of its factor relative to itself.
LONGEST = 1.0


class Rule(NamedTuple):
    """How directions are made.

    Attributes:
        transform: makes optax's transformation of gradients.
        rate: the length of its steps.
        is_newton: whether the slope along a direction is what Newton's method would gain, twice, so that a step has to
            gain its share of it.
        without_pair: from the transformation's states, the coordinates and the gradient to states that learn nothing
            of the step between; None if they learn no curvature.
    """

    transform: Callable[[], Any]
    rate: float
    is_newton: bool
    without_pair: Callable[[Any, Point, Point], Any] | None = None


class Memory(NamedTuple):
    """What a run keeps from one step to the next.

    Attributes:
        mixture: the last accepted parameters.
        by_em: EM's parameters from there.
        reference: what coordinates there are relative to.
        gradient: of the mean log-likelihood there, with the ridge's part.
        support: the counts of components there, as shares of the total weight.
        pressure: ½ tr R Σ_k⁻¹ there.
        direction: the direction that is followed from there.
        share: how far.
        travelled: the sum of all accepted steps.
        optimizer: the state of optax's transformation.
        is_em: whether the current parameters are EM's, which are accepted in any case.
        is_sound: whether every component of the current ones keeps its support and its variance.
        n_first: number of steps of EM that are still to be made, and the E-step at the start.
        n_trials: number of steps in this direction.
        n_small: number of estimates below the tolerance, one after another.
    """

    mixture: Mixture
    by_em: Mixture
    reference: Reference
    gradient: Point
    support: Float[Array, "k *s"]
    pressure: Float[Array, "k *s"]
    direction: Point
    share: Float[Array, "*s"]
    travelled: Point
    optimizer: Any
    is_em: Bool[Array, "*s"]
    is_sound: Bool[Array, "*s"]
    n_first: Int[Array, "*s"]
    n_trials: Int[Array, "*s"]
    n_small: Int[Array, "*s"]


def lbfgs(memory_size: int = MEMORY) -> Rule:
    """L-BFGS, with this many pairs of steps."""
    return Rule(
        transform=lambda: _optax("scale_by_lbfgs", memory_size),
        rate=1.0,
        is_newton=True,
        without_pair=lambda state, point, loss: state._replace(params=point, updates=loss),
    )


def adam(rate: float = RATE) -> Rule:
    """Adam, with steps of this length in every coordinate."""
    return Rule(transform=lambda: _optax("scale_by_adam"), rate=rate, is_newton=False)


class _Way(NamedTuple):
    """The way on.

    Attributes:
        direction: where to.
        share: how far, so that no component changes too much.
        is_up: whether the likelihood rises.
        gap: how much is left to gain, in nats per sample.
        travelled: the sum of all steps so far.
        optimizer: the next state of optax's transformation.
    """

    direction: Point
    share: Float[Array, "*s"]
    is_up: Bool[Array, "*s"]
    gap: Float[Array, "*s"]
    travelled: Point
    optimizer: Any


def by(rule: Rule) -> tuple[Callable[..., RunState], Callable[..., RunState]]:
    """The functions `init` and `advance` of the method that makes directions by a rule."""
    return functools.partial(init, rule), functools.partial(advance, rule)


def init(rule: Rule, record: RunState, settings: Settings, *, e_step: EStep = E_STEPS["products"]) -> RunState:
    """Runs about to make their next step; `DEGENERATE` where the mixture is not sound."""
    state, no = common.begun(record, settings, e_step), jnp.zeros(record.status.shape, bool)
    here, none = record.mixture, no.astype(jnp.int32)
    nowhere = Point(*(jnp.zeros_like(leaf) for leaf in here.arrays))
    memory = Memory(
        mixture=here,
        by_em=here,
        reference=reference(here),
        gradient=nowhere,
        support=nowhere.weights,
        pressure=nowhere.weights,
        direction=nowhere,
        share=jnp.zeros_like(state.gap),
        travelled=nowhere,
        optimizer=_fresh(rule, nowhere),
        is_em=~no,
        is_sound=~no,
        n_first=none + FIRST + 1,
        n_trials=none,
        n_small=none,
    )
    return state._replace(memory=memory)


def advance(
    rule: Rule,
    state: RunState,
    statistics: SufficientStatistics,
    log_likelihood: Float[Array, "*s"],
    total_weight: Float[Array, "*s"],
    family: Family,
    settings: Settings,
    *,
    e_step: EStep = E_STEPS["products"],
) -> RunState:
    """The rest of a step: whether to accept the current parameters, where to go from there, and whether to stop."""
    last, here = state.memory, state.mixture
    origins = here.means if e_step.about_means else None
    by_em = m_step(statistics, family, settings.ridge, settings.present, origins)
    own = reference(here)
    step = coordinates(own, last.reference)
    slope = _scaled(gradient(own, _with_ridge(statistics, settings.ridge), origins), 1 / total_weight)
    slope, support = in_family(slope, own, family), statistics.counts / total_weight[None]
    precisions = e_step.precisions(state.natural, here)
    pressure = _pressure(precisions, settings.ridge, state.status.ndim)

    # What the ridge adds to the gain is not the difference of anything.
    by_ridge = jnp.sum(0.5 * (support + last.support) * (last.pressure - pressure), axis=0)
    gain, promised = (log_likelihood - state.log_likelihood) / total_weight + by_ridge, _inner(last.gradient, step)
    is_better = jnp.isfinite(log_likelihood)
    if rule.is_newton:
        is_better &= gain >= ARMIJO * promised - SLACK[log_likelihood.dtype.name]
    is_accepted = last.is_em | (last.is_sound & is_better)
    way = _way(rule, last, step, slope, own, family)
    # What of the slope is not rounding bounds what is left to gain.
    known = _known(slope, rounding(here, precisions, about_means=e_step.about_means))
    gap = jnp.minimum(way.gap, 0.5 * FAR * _inner(known, known))
    is_small = (gap < jnp.maximum(settings.tol, LEAST_GAP)) & (settings.tol > 0)
    n_small = jnp.where(is_accepted, jnp.where(is_small, last.n_small + 1, 0), last.n_small)

    n_first, n_trials = jnp.maximum(last.n_first - 1, 0), jnp.where(is_accepted, 0, last.n_trials + 1)
    has_failed = (n_trials >= MOST_TRIALS) | (is_accepted & ~way.is_up)
    is_em = (n_first > 0) | has_failed
    accepted = last._replace(
        mixture=here,
        by_em=by_em,
        reference=own,
        gradient=slope,
        support=support,
        pressure=pressure,
        direction=way.direction,
        share=way.share,
        travelled=way.travelled,
        optimizer=way.optimizer,
    )
    shortened = last._replace(share=last.share * _shortened(gain, promised))
    memory = common.select(is_accepted, accepted, shortened)
    optimizer = common.select(has_failed, _fresh(rule, way.travelled), memory.optimizer)
    leap = mixture_at(_scaled(memory.direction, memory.share), memory.reference)
    following = common.select(is_em, memory.by_em, leap)
    natural, is_sound = common.checked(following, settings, e_step)

    log_likelihood = jnp.where(is_accepted, log_likelihood, state.log_likelihood)
    has_converged = n_small >= IN_SUCCESSION
    status = common.status_of(log_likelihood, has_converged, is_sound | ~is_em, state.n_iter, settings.max_iter)
    ended = common.Step(
        best=memory.mixture,
        following=following,
        natural=natural,
        log_likelihood=log_likelihood,
        gap=jnp.where(is_accepted & (gap < jnp.inf), gap, state.gap),
        status=status,
        memory=memory._replace(
            optimizer=optimizer, is_em=is_em, is_sound=is_sound, n_first=n_first, n_trials=n_trials, n_small=n_small
        ),
    )
    return common.advanced(state, ended, settings)


def _way(rule: Rule, last: Memory, step: Point, slope: Point, own: Reference, family: Family) -> _Way:
    """The way on from parameters that a step has led to."""
    travelled = jax.tree.map(jnp.add, last.travelled, step)
    loss, fall = jax.tree.map(jnp.negative, slope), jax.tree.map(jnp.subtract, last.gradient, slope)
    optimizer, is_curved = last.optimizer, jnp.zeros_like(last.is_em)
    if rule.without_pair:
        has_moved = last.n_first <= FIRST
        is_curved = has_moved & (_inner(step, fall) > LEAST_CURVATURE * _inner(step, step))
        optimizer = common.select(is_curved, optimizer, rule.without_pair(optimizer, travelled, loss))
    updates, optimizer = _by_optax(rule.transform().update, last.is_em.ndim)(loss, optimizer, travelled)
    direction = in_family(jax.tree.map(lambda part: -rule.rate * part, updates), own, family)
    promise, square = _inner(slope, direction), _inner(slope, slope)
    gap = jnp.where(is_curved, 0.5 * jnp.maximum(promise, square), 0.5 * FAR * square)
    return _Way(direction, _share(direction, own), promise > 0, gap, travelled, optimizer)


def _with_ridge(statistics: SufficientStatistics, ridge: Ridge) -> SufficientStatistics:
    """The statistics with n_k R added to the second moments."""
    counts, second = statistics.counts, statistics.second
    own = counts.reshape(len(counts), *[1] * (second.ndim - counts.ndim), *counts.shape[1:])
    return statistics._replace(second=second + own * ridge[None])


def _pressure(precisions: Float[Array, "k d ..."], ridge: Ridge, n_axes: int) -> Float[Array, "k *s"]:
    return 0.5 * jnp.sum(precisions * ridge[None], axis=tuple(range(1, precisions.ndim - n_axes)))


def _share(direction: Point, own: Reference) -> Float[Array, "*s"]:
    """The share, at most 1, of a step with which no component changes too much."""
    weights = jnp.where(own.weights > 0, own.weights, 1)
    squares = [jnp.sum(leaf**2, axis=tuple(range(1, 1 + leaf.ndim - weights.ndim))) for leaf in direction]
    largest = jnp.sqrt(jnp.max(jnp.stack(squares) / weights[None], axis=(0, 1)))
    return 1 / jnp.maximum(largest / LONGEST, 1)


def _shortened(gain: Float[Array, "*s"], promised: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """The share of a step at which a parabola through its gain has its maximum."""
    share = 0.5 * promised / (promised - gain)
    return jnp.where(jnp.isfinite(share), jnp.clip(share, SHORTEST, LONGEST_AGAIN), SHORTEST)


def _scaled(step: Point, factor: Float[Array, "*s"]) -> Point:
    return Point(*(leaf * factor.reshape(*[1] * (leaf.ndim - factor.ndim), *factor.shape) for leaf in step))


def _known(slope: Point, rounding: Float[Array, "k *s"]) -> Point:
    """The slope without covariances whose part is no more than rounding."""
    factors = slope.factors
    axes = tuple(range(1, 1 + factors.ndim - rounding.ndim))
    is_known = jnp.sum(factors**2, axis=axes) > rounding
    return slope._replace(factors=jnp.where(jnp.expand_dims(is_known, axes), factors, 0))


def _inner(a: Point, b: Point) -> Float[Array, "*s"]:
    n_axes = a.weights.ndim - 1
    return total(jnp.sum(x * y, axis=tuple(range(x.ndim - n_axes))) for x, y in zip(a, b, strict=True))


def _fresh(rule: Rule, point: Point) -> Any:
    """States of optax's transformation that have seen nothing."""
    return _by_optax(rule.transform().init, point.weights.ndim - 1)(point)


def _by_optax(function: Callable[..., Any], n_axes: int) -> Callable[..., Any]:
    """A function that optax has for one run, for runs along trailing axes and in their precision."""

    def of_all(first: Point, *others: Any) -> Any:
        mapped, dtype = function, first.weights.dtype
        for _ in range(n_axes):
            mapped = jax.vmap(mapped, in_axes=-1, out_axes=-1)
        # It counts on JAX's own rules, which a user may have made stricter, and keeps numbers in the widest type.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            found = mapped(first, *others)
        return jax.tree.map(
            lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, found
        )

    return of_all


def _optax(name: str, *args: Any) -> Any:
    """What a function of optax returns. The package is optional: it is imported when a run needs it."""
    return getattr(importlib.import_module("optax"), name)(*args)
