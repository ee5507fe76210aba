"""How runs in lanes get from one E-step to the next parameters: the rows of `jaxgmm.em.methods`, number by number.

What does not depend on how parameters are laid out is decided by the same functions as there.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxgmm.em.fused.parameters import SCALE, checked, m_step, whitened
from jaxgmm.em.fused.rows import Asked, Component, Kernel, Natural, Shape, State
from jaxgmm.em.methods import accelerated, common, plain
from jaxgmm.em.methods.accelerated import Acceleration, Products
from jaxgmm.em.methods.metric import (
    LONGEST_OF_COVARIANCE,
    LONGEST_OF_MEAN,
    LONGEST_OF_WEIGHT,
    difference,
    rounding_of,
)
from jaxgmm.em.methods.quasi_newton import QUASI_NEWTON
from jaxgmm.em.methods.squarem import SQUAREM
from jaxgmm.em.state import RUNNING
from jaxgmm.numerics.lanes import OfRuns
from jaxgmm.numerics.traces import pairs, total

_Tree = TypeVar("_Tree")


class Method(NamedTuple):
    """The functions of a method.

    Attributes:
        memory: from the shape to what runs keep from one step to the next, as it is when they begin: a number for all
            runs in place of each array.
        advance: from states, a function that loads the memory, the results of the E-step, settings and the static part
            to the next states and memory; those of finished runs are unchanged.
        round: steps after which finished runs are sorted out: fewer for a method whose runs are short. Sorting costs
            as much as two steps; the rest of a round is wasted on a run that ends in it (`benchmarks/NOTES.md`).
    """

    memory: Callable[[Shape], Any]
    advance: Callable[[State, Callable[[], Any], list[Component], OfRuns, Asked, Kernel], tuple[State, Any]]
    round: int


def _no_change(_shape: Shape) -> float:
    """The memory is the last change of the mean log-likelihood."""
    return jnp.inf


def _advance_plainly(
    state: State,
    load: Callable[[], OfRuns],
    sums: list[Component],
    log_likelihood: OfRuns,
    asked: Asked,
    kernel: Kernel,
) -> tuple[State, OfRuns]:
    """See `jaxgmm.em.methods.plain.advance`."""
    before = load()
    proposal = m_step(state.components, sums, asked, kernel)
    natural, unsound = checked(proposal, asked, kernel)
    change = jnp.abs(log_likelihood - state.log_likelihood) / asked.total_weight
    has_converged = (change < asked.tol) & (asked.tol > 0)
    status = common.status_of(log_likelihood, has_converged, unsound == 0, state.n_iter, asked.max_iter)
    step = common.Step(
        best=state.components,
        following=proposal,
        natural=natural,
        log_likelihood=log_likelihood,
        gap=plain.gap_of(change, before, state.gap),
        status=status,
        memory=change,
    )
    return _advanced(state, before, step)


def _nowhere(shape: Shape) -> accelerated.Memory:
    """See `jaxgmm.em.methods.accelerated.init`. Flags are numbers, as all rows are."""
    zero: Any = 0.0
    nothing = [Component(zero, [zero] * shape.n_features, [zero] * len(shape.entries))] * shape.n_listed
    return accelerated.unmoved(nothing, nothing, np.False_, zero)


def _advance_accelerated(
    state: State,
    load: Callable[[], accelerated.Memory],
    sums: list[Component],
    log_likelihood: OfRuns,
    asked: Asked,
    kernel: Kernel,
    *,
    acceleration: Acceleration,
) -> tuple[State, accelerated.Memory]:
    """See `jaxgmm.em.methods.accelerated.advance`. The memory is loaded for each use, and not held in between."""
    here = state.components
    by_em = m_step(here, sums, asked, kernel)
    sqrt, known_gap = kernel.elementary.sqrt, None
    if kernel.centred:
        # Others are not so narrow that rounding is worth more than `tol`, and with 13 registers more, fewer runs fit on
        # a core.
        before = load()
        known = _products(accelerated.steps_from(here, by_em, before), state, kernel, roundings(state, kernel.shape))
        known_gap = accelerated.gap_of(known, before.has_moved > 0, acceleration, sqrt)
    before = load()
    products = _products(accelerated.steps_from(here, by_em, before), state, kernel)

    def share_within(along: Sequence[OfRuns]) -> OfRuns:
        step = _combined(along, accelerated.steps_from(here, by_em, load()))
        return _share_within_limits(step, state, kernel)

    decision = accelerated.decided(
        _with_flags(before),
        (log_likelihood - state.log_likelihood) / asked.total_weight,
        products,
        known_gap,
        share_within,
        asked.tol,
        acceleration,
        sqrt,
    )
    is_accepted = decision.is_accepted
    before = load()
    following = common.select(is_accepted, by_em, jax.tree.map(jnp.add, before.mixture, before.em_step))
    leap = _combined(decision.along, accelerated.steps_from(here, by_em, before))
    following = common.select(decision.leaps, _moved(here, leap, kernel), following)
    natural, unsound = checked(following, asked, kernel)
    before = load()
    accepted = common.select(is_accepted, (here, difference(by_em, here)), (before.mixture, before.em_step))
    checks = natural, unsound == 0
    step = accelerated.step_of(decision, state, log_likelihood, asked.max_iter, accepted, following, checks)
    return _advanced(state, before, step)


def _combined(coefficients: Sequence[OfRuns], steps: Sequence[list[Component]]) -> list[Component]:
    return jax.tree.map(lambda *own: total(map(jnp.multiply, coefficients, own)), *steps)


def _products(
    steps: Sequence[list[Component]], state: State, kernel: Kernel, rounding: list[OfRuns] | None = None
) -> Products:
    """See `jaxgmm.em.methods.metric.inner_products`; with `rounding`, of what is known beyond it."""
    rows, shape = [], kernel.shape
    for k, (*own, component, parameters) in enumerate(zip(*steps, state.components, state.natural, strict=True)):
        turned = [_turned(step, component, parameters, kernel) for step in own]
        half = 0.5 * component.weight
        if rounding is not None:
            half = jnp.where(half * _trace(turned[0], turned[0], shape) > rounding[k], half, 0.0)
        places = [(turned[i], turned[j]) for i, j in pairs(len(own))]
        rows.append([component.weight * _inner(a, b) + half * _trace(a, b, shape) for a, b in places])
    return Products(*(kernel.arrays.sum_of_runs(list(row)) for row in zip(*rows, strict=True)))


def roundings(state: State, shape: Shape) -> list[OfRuns]:
    """See `jaxgmm.em.methods.metric.rounding`. Sums are about the means."""
    rows = []
    for component, parameters in zip(state.components, state.natural, strict=True):
        variances = [c for (i, j), c in zip(shape.entries, component.covariance, strict=True) if i == j]
        # Of V, the squares of column d add up to the precision of feature d.
        parts = [v * v * variances[j] for (_, j), v in zip(shape.entries, parameters.whitener, strict=True)]
        rows.append(rounding_of(component.weight, total(parts) * SCALE**-2))
    return rows


def _inner(a: Component, b: Component) -> OfRuns:
    """The part of weights and means."""
    return a.weight * b.weight + total(map(jnp.multiply, a.mean, b.mean))


def _trace(a: Component, b: Component, shape: Shape) -> OfRuns:
    """Of a product of symmetric matrices."""
    entries = zip(shape.entries, a.covariance, b.covariance, strict=True)
    return total((1 if i == j else 2) * x * y for (i, j), x, y in entries)


def _turned(step: Component, component: Component, natural: Natural, kernel: Kernel) -> Component:
    """A step in coordinates in which the metric is a sum of squares: w⁻¹ a_w, L⁻¹ a_μ and L⁻¹ a_Σ L⁻ᵀ."""
    inverse = kernel.elementary.reciprocal(jnp.where(component.weight > 0, component.weight, 1.0))
    mean = whitened(natural.whitener, step.mean, kernel.shape)
    covariance = _whitened_twice(natural.whitener, step.covariance, kernel.shape)
    return Component(step.weight * inverse, [m / SCALE for m in mean], [c / SCALE**2 for c in covariance])


def _whitened_twice(whitener: list[OfRuns], covariance: list[OfRuns], shape: Shape) -> list[OfRuns]:
    """V A Vᵀ."""
    if shape.diagonal:
        return [v * v * own for v, own in zip(whitener, covariance, strict=True)]
    v, a = (dict(zip(shape.entries, own, strict=True)) for own in (whitener, covariance))
    # V A, of which the lower triangle is enough, since V is one.
    half = {(i, j): total(v[i, q] * a[max(q, j), min(q, j)] for q in range(i + 1)) for i, j in shape.entries}
    return [total(half[i, q] * v[j, q] for q in range(j + 1)) for i, j in shape.entries]


def _share_within_limits(step: list[Component], state: State, kernel: Kernel) -> OfRuns:
    """See `jaxgmm.em.methods.metric.share_within_limits`."""
    squares = []
    for own, component, parameters in zip(step, state.components, state.natural, strict=True):
        turned = _turned(own, component, parameters, kernel)
        parts = (
            turned.weight * turned.weight * LONGEST_OF_WEIGHT**-2,
            total(m * m for m in turned.mean) * LONGEST_OF_MEAN**-2,
            _trace(turned, turned, kernel.shape) * LONGEST_OF_COVARIANCE**-2,
        )
        squares.append(functools.reduce(jnp.maximum, parts))
    return 1 / jnp.maximum(kernel.elementary.sqrt(kernel.arrays.most_of_runs(squares)), 1)


def _moved(here: list[Component], step: list[Component], kernel: Kernel) -> list[Component]:
    """See `jaxgmm.em.methods.metric.moved`."""
    there = jax.tree.map(jnp.add, here, step)
    inverse_total = kernel.elementary.reciprocal(kernel.arrays.sum_of_runs([own.weight for own in there]))
    return [own._replace(weight=own.weight * inverse_total) for own in there]


def _with_flags(memory: accelerated.Memory) -> accelerated.Memory:
    """With flags in place of ones and zeros."""
    names = ("has_moved", "falls", "is_sound", "is_second")
    return memory._replace(**{name: getattr(memory, name) > 0 for name in names})


def _advanced(state: State, memory: _Tree, step: common.Step) -> tuple[State, _Tree]:
    """States and memory after a step; see `jaxgmm.em.methods.common.advanced`."""
    is_running = state.status == RUNNING
    goes_on = is_running & (step.status == RUNNING)

    def row(new: Array, old: Array) -> Array:
        number = jnp.where(new, jnp.ones_like(old), 0.0) if new.dtype == bool else new.astype(old.dtype)
        return jnp.where(is_running, number, old)

    following = State(
        components=common.select(goes_on, step.following, common.select(is_running, step.best, state.components)),
        # Nobody reads those of finished runs.
        natural=step.natural,
        log_likelihood=row(step.log_likelihood, state.log_likelihood),
        gap=row(step.gap, state.gap),
        n_iter=jnp.where(goes_on, state.n_iter + 1, state.n_iter),
        status=row(step.status, state.status),
    )
    return following, jax.tree.map(row, step.memory, memory)


def _accelerated(acceleration: Acceleration) -> Method:
    return Method(_nowhere, functools.partial(_advance_accelerated, acceleration=acceleration), 12)


# In the order of `jaxgmm.em.methods.METHODS`; the others have no kernels.
METHODS = {
    "quasi-newton": _accelerated(QUASI_NEWTON),
    "squarem": _accelerated(SQUAREM),
    "em": Method(_no_change, _advance_plainly, 24),
}
