"""How runs in lanes get from one E-step to the next parameters: the rows of `jaxgmm.em.methods`, number by number.

What does not depend on how parameters are laid out is decided by the same functions as there.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from jaxgmm.em.fused.parameters import SCALE, checked, m_step, whitened
from jaxgmm.em.fused.rows import Asked, Component, Machine, Natural, Shape, State
from jaxgmm.em.methods import accelerated, common, plain
from jaxgmm.em.methods.accelerated import Acceleration, Products
from jaxgmm.em.methods.metric import LONGEST_OF_COVARIANCE, LONGEST_OF_MEAN, LONGEST_OF_WEIGHT
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
        advance: from states, memory, the results of the E-step, settings and the static part to the next states and
            memory; those of finished runs are unchanged.
    """

    memory: Callable[[Shape], Any]
    advance: Callable[[State, Any, list[Component], OfRuns, Asked, Machine], tuple[State, Any]]


class _Parts(NamedTuple):
    """The parts of the inner products of steps of one component; see `jaxgmm.em.methods.metric.Parts`."""

    of_weight: list[OfRuns]
    of_mean: list[OfRuns]
    of_covariance: list[OfRuns]


def _no_change(_shape: Shape) -> float:
    """The memory is the last change of the mean log-likelihood."""
    return jnp.inf


def _advance_plainly(
    state: State, memory: OfRuns, sums: list[Component], log_likelihood: OfRuns, asked: Asked, machine: Machine
) -> tuple[State, OfRuns]:
    """See `jaxgmm.em.methods.plain.advance`."""
    proposal = m_step(state.components, sums, asked, machine)
    natural, unsound = checked(proposal, asked, machine)
    change = jnp.abs(log_likelihood - state.log_likelihood) / asked.total_weight
    has_converged = (change < asked.tol) & (asked.tol > 0)
    status = common.status_of(log_likelihood, has_converged, unsound == 0, state.n_iter, asked.max_iter)
    step = common.Step(
        best=state.components,
        following=proposal,
        natural=natural,
        log_likelihood=log_likelihood,
        gap=plain.gap_of(change, memory, state.gap),
        status=status,
        memory=change,
    )
    return _advanced(state, memory, step)


def _nowhere(shape: Shape) -> accelerated.Memory:
    """See `jaxgmm.em.methods.accelerated.init`. Flags and numbers are floating-point, as all rows are."""
    nothing = Component(0.0, [0.0] * shape.n_features, [0.0] * len(shape.entries))
    parameters = [nothing] * shape.n_listed
    return accelerated.Memory(
        mixture=parameters,
        em_step=parameters,
        has_moved=0.0,
        falls=0.0,
        n_em_steps=1.0,
        is_sound=1.0,
        is_second=0.0,
        n_small=0.0,
    )


def _advance_accelerated(
    state: State,
    before: accelerated.Memory,
    sums: list[Component],
    log_likelihood: OfRuns,
    asked: Asked,
    machine: Machine,
    *,
    acceleration: Acceleration,
) -> tuple[State, accelerated.Memory]:
    """See `jaxgmm.em.methods.accelerated.advance`."""
    here, memory = state.components, _with_flags(before)
    by_em = m_step(here, sums, asked, machine)
    em_step = _difference(by_em, here)
    steps = em_step, _difference(here, memory.mixture), _difference(memory.em_step, em_step)
    parts = [
        _parts(own, component, natural, machine)
        for *own, component, natural in zip(*steps, here, state.natural, strict=True)
    ]
    decision = accelerated.decided(
        memory,
        (log_likelihood - state.log_likelihood) / asked.total_weight,
        _products(parts, here, machine),
        lambda along: _share_within_limits(along, parts, machine),
        asked.tol,
        acceleration,
        machine.elementary.sqrt,
    )
    is_accepted, leaps = decision.is_accepted, decision.leaps
    following = _select(is_accepted, by_em, jax.tree.map(jnp.add, memory.mixture, memory.em_step))
    following = _select(leaps, _moved(here, decision.along, steps, machine), following)
    natural, unsound = checked(following, asked, machine)
    log_likelihood = jnp.where(is_accepted, log_likelihood, state.log_likelihood)
    mixture, em_step = _select(is_accepted, (here, em_step), (memory.mixture, memory.em_step))
    is_sound = unsound == 0
    status = common.status_of(log_likelihood, decision.has_converged, is_sound | leaps, state.n_iter, asked.max_iter)
    step = common.Step(
        best=mixture,
        following=following,
        natural=natural,
        log_likelihood=log_likelihood,
        gap=jnp.where(decision.gap < jnp.inf, decision.gap, state.gap),
        status=status,
        memory=decision.memory._replace(mixture=mixture, em_step=em_step, is_sound=is_sound),
    )
    return _advanced(state, before, step)


def _parts(steps: Sequence[Component], component: Component, natural: Natural, machine: Machine) -> _Parts:
    """Those of all pairs, whitened by V, so that they are sums of squares."""
    shape, in_order = machine.shape, pairs(len(steps))
    inverse = machine.elementary.reciprocal(jnp.where(component.weight > 0, component.weight, 1.0))
    weights = [step.weight * inverse for step in steps]
    means = [whitened(natural.whitener, step.mean, shape) for step in steps]
    covariances = [_whitened_twice(natural.whitener, step.covariance, shape) for step in steps]
    return _Parts(
        [weights[i] * weights[j] for i, j in in_order],
        [total(map(jnp.multiply, means[i], means[j])) * SCALE**-2 for i, j in in_order],
        [_inner(covariances[i], covariances[j], shape) * SCALE**-4 for i, j in in_order],
    )


def _whitened_twice(whitener: list[OfRuns], covariance: list[OfRuns], shape: Shape) -> list[OfRuns]:
    """V A Vᵀ."""
    if shape.diagonal:
        return [v * v * own for v, own in zip(whitener, covariance, strict=True)]
    own = dict(zip(shape.entries, covariance, strict=True))
    columns = [[own[max(i, j), min(i, j)] for i in range(shape.n_features)] for j in range(shape.n_features)]
    half = [whitened(whitener, column, shape) for column in columns]
    rows = [whitened(whitener, [column[i] for column in half], shape) for i in range(shape.n_features)]
    return [rows[i][j] for i, j in shape.entries]


def _inner(a: list[OfRuns], b: list[OfRuns], shape: Shape) -> OfRuns:
    """Tr A B of symmetric matrices."""
    return total((1 if i == j else 2) * x * y for (i, j), x, y in zip(shape.entries, a, b, strict=True))


def _products(parts: list[_Parts], here: list[Component], machine: Machine) -> Products:
    """See `jaxgmm.em.methods.metric.Parts.products`."""
    of_components = [
        [component.weight * (w + m + 0.5 * c) for w, m, c in zip(*own, strict=True)]
        for component, own in zip(here, parts, strict=True)
    ]
    return Products(*(machine.arrays.sum_of_runs(list(rows)) for rows in zip(*of_components, strict=True)))


def _share_within_limits(along: Sequence[OfRuns], parts: list[_Parts], machine: Machine) -> OfRuns:
    """See `jaxgmm.em.methods.metric.share_within_limits`."""
    longest = LONGEST_OF_WEIGHT, LONGEST_OF_MEAN, LONGEST_OF_COVARIANCE
    coefficients = [(1 if i == j else 2) * along[i] * along[j] for i, j in pairs(len(along))]
    squares = [
        functools.reduce(
            jnp.maximum,
            [total(map(jnp.multiply, coefficients, part)) * most**-2 for part, most in zip(own, longest, strict=True)],
        )
        for own in parts
    ]
    return 1 / jnp.maximum(machine.elementary.sqrt(machine.arrays.most_of_runs(squares)), 1)


def _moved(
    here: list[Component], along: Sequence[OfRuns], steps: Sequence[list[Component]], machine: Machine
) -> list[Component]:
    """See `jaxgmm.em.methods.metric.moved`."""
    there = jax.tree.map(lambda start, *own: start + total(map(jnp.multiply, along, own)), here, *steps)
    inverse_total = machine.elementary.reciprocal(machine.arrays.sum_of_runs([own.weight for own in there]))
    return [own._replace(weight=own.weight * inverse_total) for own in there]


def _difference(a: list[Component], b: list[Component]) -> list[Component]:
    return jax.tree.map(jnp.subtract, a, b)


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
        components=_select(goes_on, step.following, _select(is_running, step.best, state.components)),
        natural=_select(goes_on, step.natural, state.natural),
        log_likelihood=row(step.log_likelihood, state.log_likelihood),
        gap=row(step.gap, state.gap),
        n_iter=jnp.where(goes_on, state.n_iter + 1, state.n_iter),
        status=row(step.status, state.status),
    )
    return following, jax.tree.map(row, step.memory, memory)


def _select(condition: Bool[Array, "*s"], new: _Tree, old: _Tree) -> _Tree:
    return jax.tree.map(functools.partial(jnp.where, condition), new, old)


def _accelerated(acceleration: Acceleration) -> Method:
    return Method(_nowhere, functools.partial(_advance_accelerated, acceleration=acceleration))


# In the order of `jaxgmm.em.methods.METHODS`; the others have no kernels.
METHODS = {
    "quasi-newton": _accelerated(QUASI_NEWTON),
    "squarem": _accelerated(SQUAREM),
    "em": Method(_no_change, _advance_plainly),
}
