"""EM of a run that occupies a few lanes of a GPU: the arithmetic of `jaxgmm.em.run`, written out number by number.

A GPU kernel has no small matrices. So each array here holds one number of a run, or of a sample: arrays of runs have an
element for every run in the kernel (or, wide, for every component of the only run), and arrays of samples have one for
every lane. `Lanes` says how the two relate, and whether the components of a run are a list of arrays or the last axis
of one array. All of it is plain JAX, and runs on any device; `jaxgmm.engine.fused` makes kernels of it.

Logarithms are to base 2, which the card computes directly. Samples are centred on each component, as in
`jaxgmm.em.centred`, so that almost nothing cancels:

    log2 w_k N(x | μ_k, Σ_k) = c_k - |V_k (x - μ_k)|²,    V_k = (½ log2 e)^½ L_k⁻¹,    Σ_k = L_k L_kᵀ.

Triangles of symmetric matrices are lists, row after row; those of axis-aligned families have the diagonal only.
"""

import functools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxgmm.em.centred import MEAN_ROUNDINGS
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.em.expectation import ABSENT
from jaxgmm.em.maximization import ROUNDINGS
from jaxgmm.em.methods.common import status_of
from jaxgmm.em.methods.plain import gap_of
from jaxgmm.em.state import RUNNING, RunState, Settings
from jaxgmm.mixture import Mixture
from jaxgmm.numerics.elementary import exp2_in_float64, log2_in_float64, rsqrt_in_float64
from jaxgmm.status import Status

# One number of every run, of every sample, and lists of such.
OfRuns = Array
OfSamples = Array

# The last of the moving rows of runs.
LOG_LIKELIHOOD, CHANGE, GAP, N_ITER, STATUS = -5, -4, -3, -2, -1

# Blocks of samples read in one turn of a loop, so that loads overlap with arithmetic.
UNROLLED = 4

_LN_2 = math.log(2.0)
_LOG2_2PI = math.log2(2 * math.pi)

# Number of roots of pivots that are multiplied before taking the logarithm.
_FACTORS = 2

_SCALE = math.sqrt(0.5 * math.log2(math.e))


class Elementary(NamedTuple):
    """The elementary functions of a device.

    Attributes:
        exp2: for arguments up to 0.
        log2: for positive arguments.
        rsqrt: for positive arguments.
        reciprocal: for positive arguments.
    """

    exp2: Callable[[Array], Array]
    log2: Callable[[Array], Array]
    rsqrt: Callable[[Array], Array]
    reciprocal: Callable[[Array], Array]


# A kernel has no reciprocal instruction, but one for the reciprocal root.
ELEMENTARY = {
    "float32": Elementary(jnp.exp2, jnp.log2, lax.rsqrt, lambda x: lax.rsqrt(x) * lax.rsqrt(x)),
    "float64": Elementary(exp2_in_float64, log2_in_float64, rsqrt_in_float64, lambda x: 1.0 / x),
}


class Lanes(NamedTuple):
    """How arrays of runs and of samples relate.

    Attributes:
        spread: from runs to samples.
        total: the sum over samples, of runs.
        most: the largest of the components, of samples, from their list.
        sum: the sum over the components, of samples, from their list.
        sum_of_runs: the same of runs.
        most_of_runs: the largest of the components, of runs.
    """

    spread: Callable[[OfRuns], OfSamples]
    total: Callable[[OfSamples], OfRuns]
    most: Callable[[Sequence[OfSamples]], OfSamples]
    sum: Callable[[Sequence[OfSamples]], OfSamples]
    sum_of_runs: Callable[[Sequence[OfRuns]], OfRuns]
    most_of_runs: Callable[[Sequence[OfRuns]], OfRuns]


class Shape(NamedTuple):
    """The static shape of a kernel.

    Attributes:
        n_components: K.
        n_features: D.
        families: names of the families; they agree in `diagonal`.
        is_wide: whether components are the last axis of arrays instead of a list of arrays.
    """

    n_components: int
    n_features: int
    families: tuple[str, ...]
    is_wide: bool

    @property
    def n_listed(self) -> int:
        """Components in lists."""
        return 1 if self.is_wide else self.n_components

    @property
    def diagonal(self) -> bool:
        """Whether components are axis-aligned."""
        return FAMILIES[self.families[0]].diagonal

    @property
    def entries(self) -> list[tuple[int, int]]:
        """Rows and columns of the stored entries of a covariance."""
        d = range(self.n_features)
        return [(i, i) for i in d] if self.diagonal else [(i, j) for i in d for j in range(i + 1)]

    @property
    def n_own(self) -> int:
        """Numbers of a component: its weight, mean and covariance."""
        return 1 + self.n_features + len(self.entries)


class Component(NamedTuple):
    """The parameters of one component, of all runs."""

    weight: OfRuns
    mean: list[OfRuns]
    covariance: list[OfRuns]


class Natural(NamedTuple):
    """The parameters of a component that the E-step reads in addition to its mean: c and V."""

    constant: OfRuns
    whitener: list[OfRuns]


class State(NamedTuple):
    """Runs between two steps; see `jaxgmm.em.state.RunState`. Iterations and status are floating-point too.

    `change` is that of the mean log-likelihood in the last iteration.
    """

    components: list[Component]
    natural: list[Natural]
    log_likelihood: OfRuns
    change: OfRuns
    gap: OfRuns
    n_iter: OfRuns
    status: OfRuns


class Asked(NamedTuple):
    """The settings of runs, all as arrays of runs; see `jaxgmm.em.state.Settings`.

    Attributes:
        present: 1 for a present component, else 0.
        ridge: in the layout of a covariance.
        family: its number among the families.
        total_weight: Σ w.
        tol: smallest change of the mean log-likelihood for which a run continues.
        max_iter: maximum number of iterations.
        variance_floor: smallest share of its raw second moment that a variance may keep.
    """

    present: list[OfRuns]
    ridge: list[OfRuns]
    family: OfRuns
    total_weight: OfRuns
    tol: OfRuns
    max_iter: OfRuns
    variance_floor: OfRuns


# From the number of a block of samples to the features of these and, last, their weights.
Read = Callable[[Any], Sequence[OfSamples]]


class Machine(NamedTuple):
    """The static part of the arithmetic.

    Attributes:
        lanes: how numbers are laid out.
        elementary: functions of the device.
        shape: of the problem.
        centred: whether components may be as narrow as `jaxgmm.em.centred` has them, rather than only as narrow as
            `jaxgmm.em.expectation.natural_parameters` can represent. By default a run ends in the same way here as
            there.
        method: how runs advance, a name among `METHODS`.
    """

    lanes: Lanes
    elementary: Elementary
    shape: Shape
    centred: bool = False
    method: str = "em"


def life(
    fixed: Sequence[OfRuns], moving: Sequence[OfRuns], read: Read, n_blocks: Any, n_steps: Any, machine: Machine
) -> tuple[list[OfRuns], Array]:
    """`steps` from rows of numbers to rows of numbers, in the order of `fixed_rows` and `moving_rows`."""
    shape, given, asked = machine.shape, iter(moving), iter(fixed)

    def several(rows: Iterator[OfRuns], number: int) -> list[OfRuns]:
        return [next(rows) for _ in range(number)]

    n_entries = len(shape.entries)
    components = [
        Component(next(given), several(given, shape.n_features), several(given, n_entries))
        for _ in range(shape.n_listed)
    ]
    start = State(components, [], *given)
    present, ridge = several(asked, shape.n_listed), several(asked, n_entries)
    end, n_made = steps(start, Asked(present, ridge, *asked), read, n_blocks, n_steps, machine)
    own = jax.tree.leaves(end.components)
    return [*own, end.log_likelihood, end.change, end.gap, end.n_iter, end.status], n_made


def moving_rows(state: RunState, shape: Shape) -> Float[Array, "m q *k"]:
    """The moving rows of runs `(Q,)`: parameters and the rest of their states, a row of all runs for each number."""
    dtype = state.mixture.weights.dtype
    of_run = [state.log_likelihood, state.memory, state.gap, state.n_iter, state.status]
    return _rows(_numbers(state.mixture, shape), [row.astype(dtype) for row in of_run], shape)


def fixed_rows(settings: Settings, family: Int[Array, " q"], total_weight: Float[Array, " q"], shape: Shape) -> Array:
    """The fixed rows of runs `(Q,)`: their settings `Asked`, a row of all runs for each number."""
    dtype = total_weight.dtype
    ridge = [settings.ridge[:, i] if shape.diagonal else settings.ridge[:, i, j] for i, j in shape.entries]
    rest = [family, total_weight, settings.tol, settings.max_iter, settings.variance_floor]
    of_run = [*ridge, *(jnp.broadcast_to(row, family.shape).astype(dtype) for row in rest)]
    present = settings.present
    if present is None:
        present = jnp.ones((len(family), shape.n_components), bool)
    return _rows([present.astype(dtype)], of_run, shape)


def mixtures_of(rows: Float[Array, "m q *k"], shape: Shape) -> Mixture:
    """The parameters in `moving_rows`, `(Q, K, …)`."""
    own = rows[: shape.n_listed * shape.n_own]
    if not shape.is_wide:
        own = jnp.moveaxis(own.reshape(shape.n_components, shape.n_own, -1), 0, 2)
    weight, mean, covariance = jnp.split(own, [1, 1 + shape.n_features])
    if shape.diagonal:
        covariances = jnp.moveaxis(covariance, 0, -1)
    else:
        place, d = {entry: number for number, entry in enumerate(shape.entries)}, range(shape.n_features)
        matrix = jnp.stack([jnp.stack([covariance[place[max(i, j), min(i, j)]] for j in d]) for i in d])
        covariances = jnp.moveaxis(matrix, (0, 1), (-2, -1))
    return Mixture(weight[0], jnp.moveaxis(mean, 0, -1), covariances)


def _numbers(mixture: Mixture, shape: Shape) -> list[Array]:
    """Those of all components, each `(Q, K)`."""
    weights, means, covariances = mixture.arrays
    entries = [covariances[..., i] if shape.diagonal else covariances[..., i, j] for i, j in shape.entries]
    return [weights, *(means[..., i] for i in range(shape.n_features)), *entries]


def _rows(numbers: list[Array], of_runs: list[Array], shape: Shape) -> Array:
    """Rows of numbers: of one component after another, or with the components as the last axis."""
    if shape.is_wide:
        return jnp.stack([*numbers, *(jnp.broadcast_to(row[:, None], numbers[0].shape) for row in of_runs)])
    return jnp.stack([*(number[:, k] for k in range(shape.n_components) for number in numbers), *of_runs])


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


# Other methods have no kernels; see `jaxgmm.em.methods.METHODS`.
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
