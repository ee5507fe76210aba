"""EM of a run that occupies a few lanes of a GPU: the arithmetic of `jaxgmm.em.run`, written out number by number.

Arrays hold one number of every run, or of every sample, as `jaxgmm.em.lanes` has them. All of it is plain JAX, and runs
on any device; `jaxgmm.engine.fused` makes kernels of it.

Logarithms are to base 2, which the card computes directly. Samples are centred on each component, as in
`jaxgmm.em.centred`, so that almost nothing cancels:

    log2 w_k N(x | μ_k, Σ_k) = c_k - |V_k (x - μ_k)|²,    V_k = (½ log2 e)^½ L_k⁻¹,    Σ_k = L_k L_kᵀ.
"""

import functools
import math
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxgmm.em.centred import MEAN_ROUNDINGS
from jaxgmm.em.expectation import ABSENT
from jaxgmm.em.lanes import (
    Asked,
    Component,
    Elementary,
    Lanes,
    Machine,
    Natural,
    OfRuns,
    OfSamples,
    Read,
    Shape,
    State,
    of_rows,
    to_rows,
)
from jaxgmm.em.maximization import ROUNDINGS
from jaxgmm.em.methods.common import status_of
from jaxgmm.em.methods.plain import gap_of
from jaxgmm.em.state import RUNNING
from jaxgmm.status import Status

# Blocks of samples read in one turn of a loop, so that loads overlap with arithmetic.
UNROLLED = 4

_LN_2 = math.log(2.0)
_LOG2_2PI = math.log2(2 * math.pi)

# Number of roots of pivots that are multiplied before taking the logarithm.
_FACTORS = 2

_SCALE = math.sqrt(0.5 * math.log2(math.e))


def life(
    fixed: Sequence[OfRuns], moving: Sequence[OfRuns], read: Read, n_blocks: Any, n_steps: Any, machine: Machine
) -> tuple[list[OfRuns], Array]:
    """`steps` from rows of numbers to rows of numbers, in the order of `jaxgmm.em.lanes`."""
    end, n_made = steps(*of_rows(fixed, moving, machine.shape), read, n_blocks, n_steps, machine)
    return to_rows(end), n_made


def steps(state: State, asked: Asked, read: Read, n_blocks: Any, n_steps: Any, machine: Machine) -> tuple[State, Array]:
    """Advances runs to their ends, or by `n_steps` steps; see `jaxgmm.em.run.step`.

    Args:
        state: the state of the runs; `natural` is not read.
        asked: their settings.
        read: loads a block of samples.
        n_blocks: number of blocks.
        n_steps: maximum number of steps.
        machine: the static part.

    Returns:
        where they are then, and how many steps the longest of them made.
    """
    natural, unsound = _checked(state.components, asked, machine)
    # A run whose start is not sound ends at once.
    is_lost = (unsound > 0) & (state.status == RUNNING)
    state = state._replace(
        natural=natural,
        log_likelihood=jnp.where(is_lost, jnp.nan, state.log_likelihood),
        status=jnp.where(is_lost, float(Status.DEGENERATE), state.status),
    )

    advance = METHODS[machine.method]

    def body(carry: tuple[State, Array, Array]) -> tuple[State, Array, Array]:
        state, count, _ = carry
        state = advance(state, *e_step(state, read, n_blocks, machine), asked, machine)
        return state, count + 1, _any_running(state)

    def unfinished(carry: tuple[State, Array, Array]) -> Array:
        _, count, any_running = carry
        return (any_running > 0) & (count < n_steps)

    return lax.while_loop(unfinished, body, (state, jnp.int32(0), _any_running(state)))[:2]


def e_step(state: State, read: Read, n_blocks: Any, machine: Machine) -> tuple[list[Component], OfRuns]:
    """Sums about the current means, laid out as components are, and log-likelihoods in nats."""
    (lanes, elementary, shape, *_), components = machine, state.components
    means = [[lanes.spread(m) for m in component.mean] for component in components]
    constants = [lanes.spread(natural.constant) for natural in state.natural]
    whiteners = [[lanes.spread(v) for v in natural.whitener] for natural in state.natural]

    def of_block(block: Sequence[OfSamples]) -> list[OfSamples]:
        """All sums of one block; the last is the log-likelihood, to base 2."""
        *x, weight = block
        centred = [[own - m for own, m in zip(x, mean, strict=True)] for mean in means]
        log_joint = [_log_joint(*parts, shape) for parts in zip(constants, whiteners, centred, strict=True)]
        most = lanes.most(log_joint)
        joint = [elementary.exp2(row - most) for row in log_joint]
        density = lanes.sum(joint)
        scale = weight * elementary.reciprocal(density)
        sums = []
        for row, d in zip(joint, centred, strict=True):
            part = row * scale
            first = [part * own for own in d]
            sums += [part, *first, *(first[i] * d[j] for i, j in shape.entries)]
        return [*sums, weight * (most + elementary.log2(density))]

    def add(block: Any, sums: list[OfSamples]) -> list[OfSamples]:
        return [a + b for a, b in zip(sums, of_block(read(block)), strict=True)]

    def add_several(turn: Any, sums: list[OfSamples]) -> list[OfSamples]:
        for i in range(UNROLLED):
            sums = add(turn * UNROLLED + i, sums)
        return sums

    # From a finite number, so that it has the layout of other numbers of runs.
    zero = lanes.spread(0 * state.n_iter)
    sums = [zero] * (len(components) * shape.n_own + 1)
    n_turns = n_blocks // UNROLLED
    sums = lax.fori_loop(0, n_turns, add_several, sums)
    *sums, log_likelihood = lax.fori_loop(n_turns * UNROLLED, n_blocks, add, sums)
    totals = iter([lanes.total(row) for row in sums])
    d, v = shape.n_features, len(shape.entries)
    found = [Component(next(totals), [next(totals) for _ in range(d)], [next(totals) for _ in range(v)]) for _ in means]
    return found, _LN_2 * lanes.total(log_likelihood)


def _log_joint(constant: OfSamples, whitener: list[OfSamples], centred: list[OfSamples], shape: Shape) -> OfSamples:
    """log2 w N(x | μ, Σ) of one component."""
    entries = list(zip(shape.entries, whitener, strict=True))
    whitened = [_sum([v * centred[j] for (row, j), v in entries if row == i]) for i in range(shape.n_features)]
    return _less(constant, [own * own for own in whitened])


def advance(state: State, sums: list[Component], log_likelihood: OfRuns, asked: Asked, machine: Machine) -> State:
    """The rest of a step of plain EM: decision and M-step. Finished runs are unchanged."""
    proposal = _m_step(state.components, sums, asked, machine)
    natural, unsound = _checked(proposal, asked, machine)
    change = jnp.abs(log_likelihood - state.log_likelihood) / asked.total_weight
    status = status_of(
        log_likelihood, (change < asked.tol) & (asked.tol > 0), unsound == 0, state.n_iter, asked.max_iter
    )
    status = status.astype(state.status.dtype)
    is_running = state.status == RUNNING
    goes_on = is_running & (status == RUNNING)

    def kept(new: Array, old: Array) -> Array:
        return jnp.where(goes_on, new, old)

    return State(
        components=jax.tree.map(kept, proposal, state.components),
        natural=jax.tree.map(kept, natural, state.natural),
        log_likelihood=jnp.where(is_running, log_likelihood, state.log_likelihood),
        change=jnp.where(is_running, change, state.change),
        gap=jnp.where(is_running, gap_of(change, state.change, state.gap), state.gap),
        n_iter=jnp.where(goes_on, state.n_iter + 1, state.n_iter),
        status=jnp.where(is_running, status, state.status),
    )


# The fastest first. Other methods have no kernels; see `jaxgmm.em.methods.METHODS`.
METHODS = {"em": advance}


def _m_step(components: list[Component], sums: list[Component], asked: Asked, machine: Machine) -> list[Component]:
    """See `jaxgmm.em.maximization.m_step`."""
    lanes, elementary, shape, *_ = machine
    counts = [own.weight for own in sums]
    inverse_total = elementary.reciprocal(lanes.sum_of_runs(counts))
    weights = [count * inverse_total for count in counts]
    inverses = [elementary.reciprocal(jnp.where(count > 0, count, 1.0)) for count in counts]
    moved = [[first * inverse for first in own.mean] for own, inverse in zip(sums, inverses, strict=True)]
    spread = [
        [second * inverse - step[i] * step[j] for (i, j), second in zip(shape.entries, own.covariance, strict=True)]
        for own, inverse, step in zip(sums, inverses, moved, strict=True)
    ]
    covariances = _covariances(weights, spread, asked, lanes, shape)
    # If a mean moves far, a variance about the old mean loses digits.
    lost = _rounding(moved, lanes)
    covariances = [
        [c + lost if i == j else c for (i, j), c in zip(shape.entries, own, strict=True)] for own in covariances
    ]
    proposal = []
    for component, weight, step, covariance, present in zip(
        components, weights, moved, covariances, asked.present, strict=True
    ):
        is_present = present > 0
        means = [jnp.where(is_present, m + s, 0.0) for m, s in zip(component.mean, step, strict=True)]
        own = [jnp.where(is_present, c, float(i == j)) for (i, j), c in zip(shape.entries, covariance, strict=True)]
        proposal.append(Component(weight, means, own))
    return proposal


def _covariances(
    weights: list[OfRuns], spread: list[list[OfRuns]], asked: Asked, lanes: Lanes, shape: Shape
) -> list[list[OfRuns]]:
    """The covariances of a family from second central moments, with the ridge; see `jaxgmm.em.covariance`."""
    found = [KNOWN_FAMILIES[name](weights, spread, lanes) for name in shape.families]
    chosen = found[0]
    for number, other in enumerate(found[1:], start=1):
        is_other = asked.family == number
        chosen = jax.tree.map(lambda new, old, is_other=is_other: jnp.where(is_other, new, old), other, chosen)
    return [[c + r for c, r in zip(own, asked.ridge, strict=True)] for own in chosen]


def _rounding(moved: list[list[OfRuns]], lanes: Lanes) -> OfRuns:
    """The amount that rounding may remove from variances; see `jaxgmm.em.maximization`."""
    squares = [functools.reduce(jnp.maximum, [step * step for step in own]) for own in moved]
    # A component without support has not moved.
    squares = [jnp.where(square < jnp.inf, square, 0.0) for square in squares]
    return lanes.most_of_runs(squares) * (ROUNDINGS * len(moved[0]) * float(jnp.finfo(squares[0].dtype).eps))


def _own(_weights: list[OfRuns], spread: list[list[OfRuns]], _lanes: Lanes) -> list[list[OfRuns]]:
    return spread


def _shared(weights: list[OfRuns], spread: list[list[OfRuns]], lanes: Lanes) -> list[list[OfRuns]]:
    weighted = [[weight * s for s in own] for weight, own in zip(weights, spread, strict=True)]
    return [[lanes.sum_of_runs(list(rows)) for rows in zip(*weighted, strict=True)]] * len(spread)


def _round(_weights: list[OfRuns], spread: list[list[OfRuns]], _lanes: Lanes) -> list[list[OfRuns]]:
    return [[_sum(own) * (1 / len(own))] * len(own) for own in spread]


# Other families have no kernels.
KNOWN_FAMILIES = {"full": _own, "tied": _shared, "diag": _own, "spherical": _round}


def _checked(components: list[Component], asked: Asked, machine: Machine) -> tuple[list[Natural], OfRuns]:
    """The parameters that the E-step reads, and the number of components without support or variance."""
    lanes, elementary, shape, centred, _ = machine
    ridges = [r for (i, j), r in zip(shape.entries, asked.ridge, strict=True) if i == j]
    naturals, unsound = [], []
    for (weight, mean, covariance), present in zip(components, asked.present, strict=True):
        roots, pivots, whitener = _whitener(covariance, elementary, shape)
        variances = [c for (i, j), c in zip(shape.entries, covariance, strict=True) if i == j]
        # Written so that NaN is not sound.
        is_sound = weight > float(jnp.finfo(weight.dtype).eps)
        for pivot, variance, m, ridge in zip(pivots, variances, mean, ridges, strict=True):
            if centred:
                rounding = jnp.where(ridge > 0, 0.0, (MEAN_ROUNDINGS * float(jnp.finfo(m.dtype).eps)) * m)
                is_sound &= (pivot > asked.variance_floor * variance) & (pivot > rounding * rounding)
            else:
                is_sound &= pivot > asked.variance_floor * (variance + m * m)
        unsound.append(jnp.where(is_sound, 0.0, present))
        log_weight = jnp.where(weight > 0, elementary.log2(jnp.where(weight > 0, weight, 1.0)), ABSENT)
        # A product of more roots might leave the range of floating-point numbers.
        parts = [functools.reduce(operator.mul, roots[i : i + _FACTORS]) for i in range(0, len(roots), _FACTORS)]
        constant = log_weight + _sum([elementary.log2(part) for part in parts])
        naturals.append(Natural(constant - 0.5 * _LOG2_2PI * shape.n_features, whitener))
    return naturals, lanes.sum_of_runs(unsound)


def _whitener(
    covariance: list[OfRuns], elementary: Elementary, shape: Shape
) -> tuple[list[OfRuns], list[OfRuns], list[OfRuns]]:
    """Reciprocal roots of the pivots, the pivots, and V."""
    n_features = shape.n_features
    if shape.diagonal:
        roots = [elementary.rsqrt(c) for c in covariance]
        return roots, covariance, [_SCALE * root for root in roots]
    entry = dict(zip(shape.entries, covariance, strict=True))
    factor, inverse, roots, pivots = {}, {}, [], []
    for j in range(n_features):
        pivot = _less(entry[j, j], [factor[j, q] * factor[j, q] for q in range(j)])
        pivots.append(pivot)
        roots.append(elementary.rsqrt(pivot))
        for i in range(j + 1, n_features):
            factor[i, j] = _less(entry[i, j], [factor[i, q] * factor[j, q] for q in range(j)]) * roots[j]
    for j in range(n_features):
        inverse[j, j] = _SCALE * roots[j]
        for i in range(j + 1, n_features):
            inverse[i, j] = -(_sum([factor[i, q] * inverse[q, j] for q in range(j, i)]) * roots[i])
    return roots, pivots, [inverse[entry] for entry in shape.entries]


def _any_running(state: State) -> Array:
    return jnp.max(jnp.where(state.status == RUNNING, 1.0, jnp.zeros_like(state.log_likelihood)))


def _sum(terms: Sequence[Array]) -> Array:
    return functools.reduce(operator.add, terms)


def _less(value: Array, terms: Sequence[Array]) -> Array:
    return functools.reduce(operator.sub, terms, value)
