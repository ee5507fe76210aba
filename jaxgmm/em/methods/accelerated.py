"""What accelerations of EM share: steps that are longer than EM's, taken back where they lose, and a stop.

With θ all parameters and M the map of one iteration, r(θ) = M(θ) - θ is EM's step. An acceleration says, from the last
step s and the fall y of r along it, in which direction d a run goes on. Every step costs one E-step. Its length is
limited in the metric of the complete data (`jaxgmm.em.methods.metric`). A step that loses noticeable likelihood is
taken back. What it has shown of the curvature says how to go on from where it began, where EM's step is r + y: an
acceleration that reads any step tries a second one from there. If that loses too, or promises less than EM's own step,
the latter follows. It is known already, and always accepted.

½ <r, d> estimates how much of the mean log-likelihood is left to gain. A run has converged if that is below the
tolerance twice in succession. The estimate is made twice, the second time without covariances whose steps are no more
than rounding, and the smaller one counts.

With a ridge, EM's steps may lose likelihood, which is then not what they raise. From the first such step on, a step is
also kept if r has not turned against it, and a run ends at the same fixed points as EM.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxgmm.em.covariance import Family
from jaxgmm.em.e_steps import E_STEPS, EStep
from jaxgmm.em.maximization import m_step
from jaxgmm.em.methods import common
from jaxgmm.em.methods.metric import difference, inner_products, moved, rounding, share_within_limits
from jaxgmm.em.state import RunState, Settings
from jaxgmm.em.statistics import SufficientStatistics

# Loss of the mean log-likelihood, in nats, with which a step is kept all the same.
SLACK = {"float32": 1e-6, "float64": 1e-7}

# Loss that is more than rounding, so that EM makes it only because of a ridge.
LOSS = {"float32": 1e-6, "float64": 1e-10}

# What is left to gain cannot be told from rounding below this, in nats per sample.
LEAST_GAP = 1e-13

# Smallest curvature of the likelihood along a step, relative to that of the complete data's.
LEAST_CURVATURE = 1e-6

# What is left to gain, as a multiple of ½ <r, r>, where the curvature is not known.
FAR = 1e4

# Number of estimates below the tolerance, one after another, with which a run has converged.
IN_SUCCESSION = 2


class Products(NamedTuple):
    """Inner products of r, EM's step; s, the last step; and y, the fall of r along it."""

    rr: Float[Array, "*s"]
    rs: Float[Array, "*s"]
    ry: Float[Array, "*s"]
    ss: Float[Array, "*s"]
    sy: Float[Array, "*s"]
    yy: Float[Array, "*s"]

    def at_beginning(self) -> "Products":
        """With EM's step where s began, r + y, in place of r."""
        rr, rs, ry, ss, sy, yy = self
        return Products(rr + 2 * ry + yy, rs + sy, ry + yy, ss, sy, yy)


class Direction(NamedTuple):
    """Where to go on.

    Attributes:
        along: its coefficients of r, s and y.
        promise: ½ <r, d>, the gain to be expected, in nats per sample.
        is_known: whether it comes from the curvature along the last step, so that no more is left to gain.
    """

    along: Sequence[Float[Array, "*s"]]
    promise: Float[Array, "*s"]
    is_known: Bool[Array, "*s"]


# The square root of a device.
Root = Callable[[Array], Array]


class Acceleration(NamedTuple):
    """What distinguishes an acceleration.

    Attributes:
        direction: from the inner products, and the square root to use, to the direction.
        n_em_steps: the number of EM's steps before each other step. What is left to gain is estimated after these. If
            there are none, the last step may be any, also one that was taken back.
    """

    direction: Callable[[Products, Root], Direction]
    n_em_steps: int


class Memory(NamedTuple):
    """What a run keeps from one step to the next.

    Attributes:
        mixture: the last accepted parameters.
        em_step: EM's step from there.
        has_moved: whether any parameters have been accepted yet.
        falls: whether a step of EM has lost likelihood, as only a ridge makes it do.
        n_em_steps: the number of EM's steps that led to the current parameters, one after another; 1 for a start, and
            after a step was taken back. Parameters to which EM's step leads are accepted in any case.
        is_sound: whether every component of the current ones keeps its support and its variance.
        is_second: whether these were tried after others had been taken back.
        n_small: number of estimates below the tolerance, one after another.
    """

    mixture: Any
    em_step: Any
    has_moved: Bool[Array, "*s"]
    falls: Bool[Array, "*s"]
    n_em_steps: Int[Array, "*s"] | Float[Array, "*s"]
    is_sound: Bool[Array, "*s"]
    is_second: Bool[Array, "*s"]
    n_small: Int[Array, "*s"] | Float[Array, "*s"]


class Decision(NamedTuple):
    """How a run goes on.

    Attributes:
        is_accepted: whether the current parameters are kept. Otherwise it goes on from where the last step began.
        leaps: whether it goes on by a step of the acceleration, not by EM's.
        along: that step from the current parameters: its coefficients of r, s and y.
        gap: how much is left to gain, in nats per sample; infinite if this step does not show it.
        has_converged: whether so little is left that the run ends.
        memory: with the flags and numbers for the next step. Its parameters and its `is_sound` are still those of the
            last one; `step_of` replaces them.
    """

    is_accepted: Bool[Array, "*s"]
    leaps: Bool[Array, "*s"]
    along: Sequence[Float[Array, "*s"]]
    gap: Float[Array, "*s"]
    has_converged: Bool[Array, "*s"]
    memory: Memory


def init(record: RunState, settings: Settings, *, e_step: EStep = E_STEPS["products"]) -> RunState:
    """Runs about to make their next step; `DEGENERATE` where the mixture is not sound."""
    state, no = common.begun(record, settings, e_step), jnp.zeros(record.status.shape, bool)
    nowhere = jax.tree.map(jnp.zeros_like, record.mixture)
    return state._replace(memory=unmoved(record.mixture, nowhere, no, no.astype(jnp.int32)))


def unmoved(mixture: Any, nowhere: Any, no: Any, none: Any) -> Memory:
    """The memory of runs about to begin at some parameters, given a step of zeros, and what false and zero are."""
    return Memory(
        mixture=mixture,
        em_step=nowhere,
        has_moved=no,
        falls=no,
        n_em_steps=none + 1,
        is_sound=~no,
        is_second=no,
        n_small=none,
    )


def advance(
    state: RunState,
    statistics: SufficientStatistics,
    log_likelihood: Float[Array, "*s"],
    total_weight: Float[Array, "*s"],
    family: Family,
    settings: Settings,
    *,
    e_step: EStep = E_STEPS["products"],
    acceleration: Acceleration,
) -> RunState:
    """The rest of a step: whether to accept the current parameters, where to go from there, and whether to stop."""
    here, memory = state.mixture, state.memory
    origins = here.means if e_step.about_means else None
    by_em = m_step(statistics, family, settings.ridge, settings.present, origins)
    steps = steps_from(here, by_em, memory)
    precisions = e_step.precisions(state.natural, here)
    parts = inner_products(steps, here.weights, precisions)
    known = parts.known(here.weights, rounding(here, precisions, about_means=e_step.about_means))
    decision = decided(
        memory,
        (log_likelihood - state.log_likelihood) / total_weight,
        Products(*parts.products(here.weights)),
        gap_of(Products(*known.products(here.weights)), memory.has_moved, acceleration),
        lambda along: share_within_limits(along, parts),
        settings.tol,
        acceleration,
    )
    is_accepted = decision.is_accepted
    back = jax.tree.map(jnp.add, memory.mixture, memory.em_step)
    following = common.select(is_accepted, by_em, back)
    following = common.select(decision.leaps, moved(here, decision.along, steps), following)
    checked = common.checked(following, settings, e_step)
    accepted = common.select(is_accepted, (here, steps[0]), (memory.mixture, memory.em_step))
    step = step_of(decision, state, log_likelihood, settings.max_iter, accepted, following, checked)
    return common.advanced(state, step, settings)


def steps_from(here: Any, by_em: Any, memory: Memory) -> tuple[Any, Any, Any]:
    """EM's step r from the current parameters, the last step s, and the fall y of r along it."""
    em_step = difference(by_em, here)
    return em_step, difference(here, memory.mixture), difference(memory.em_step, em_step)


def decided(
    memory: Memory,
    gain: Float[Array, "*s"],
    products: Products,
    known_gap: Float[Array, "*s"] | None,
    share_within: Callable[[Sequence[Float[Array, "*s"]]], Float[Array, "*s"]],
    tol: Float[Array, "*s"],
    acceleration: Acceleration,
    sqrt: Root = jnp.sqrt,
) -> Decision:
    """Whether to accept the current parameters, where to go from there, and whether to stop.

    Args:
        memory: what the run has kept.
        gain: of the mean log-likelihood, by the last step.
        products: at the current parameters.
        known_gap: what is left to gain by products without covariances whose part of r is no more than rounding; None
            where none is so narrow.
        share_within: the share of a step, given its coefficients of r, s and y, within the limits of a step's length.
        tol: what may be left to gain.
        acceleration: how it goes on.
        sqrt: the square root.
    """
    dtype, is_em = gain.dtype.name, memory.n_em_steps > 0
    falls = memory.falls | (is_em & (gain < -LOSS[dtype]))
    # The integral of r along s, by the trapezoidal rule, is what the step has gained of whatever EM raises.
    keeps = (gain >= -SLACK[dtype]) | (falls & (products.rs + 0.5 * products.sy >= 0))
    is_accepted = is_em | (memory.is_sound & keeps)

    products = common.select(is_accepted, products, products.at_beginning())
    direction = acceleration.direction(products, sqrt)
    is_due = is_accepted & (memory.n_em_steps >= acceleration.n_em_steps)
    gap = _gap_of(direction, products.rr, memory.has_moved)
    if known_gap is not None:
        # Where <r, r> is not positive, it is nothing but rounding.
        gap = jnp.minimum(jnp.where(products.rr > 0, gap, jnp.inf), known_gap)
    is_small = (gap < jnp.maximum(tol, LEAST_GAP)) & (tol > 0)
    n_small = jnp.where(is_due & is_small, memory.n_small + 1, jnp.where(is_accepted & ~is_due, memory.n_small, 0))

    # Parameters that are not accepted are left for here - s, where EM's step is r + y.
    way_back = jnp.where(is_accepted, 0, 1).astype(dtype)
    of_r, of_s, of_y = direction.along
    along = of_r, of_s, of_y + way_back * of_r
    share = share_within(along)
    is_worthwhile = share * direction.promise > 0.5 * products.rr
    may_leap = is_due & memory.has_moved
    if acceleration.n_em_steps == 0:
        may_leap |= ~is_accepted & memory.is_sound & ~memory.is_second
    leaps = may_leap & is_worthwhile
    of_r, of_s, of_y = (share * own for own in along)
    n_em_steps = jnp.where(leaps, 0, jnp.where(is_accepted, memory.n_em_steps + 1, 1))
    return Decision(
        is_accepted=is_accepted,
        leaps=leaps,
        along=(of_r, of_s - way_back, of_y),
        gap=jnp.where(is_due, gap, jnp.inf),
        has_converged=n_small >= IN_SUCCESSION,
        memory=memory._replace(
            has_moved=is_accepted | memory.has_moved,
            falls=falls,
            n_em_steps=n_em_steps,
            is_second=~is_accepted,
            n_small=n_small,
        ),
    )


def step_of(
    decision: Decision,
    state: Any,
    log_likelihood: Float[Array, "*s"],
    max_iter: Any,
    accepted: tuple[Any, Any],
    following: Any,
    checked: tuple[Any, Bool[Array, "*s"]],
) -> common.Step:
    """What a step comes to after a decision.

    Args:
        decision: the decision.
        state: before the step; `log_likelihood`, `gap` and `n_iter` are read.
        log_likelihood: of the current parameters.
        max_iter: maximum number of iterations.
        accepted: the last accepted parameters, and EM's step from there.
        following: the parameters at which the run goes on.
        checked: the form of these that the E-step reads, and whether they are sound.
    """
    (mixture, em_step), (natural, is_sound) = accepted, checked
    log_likelihood = jnp.where(decision.is_accepted, log_likelihood, state.log_likelihood)
    may_go_on = is_sound | decision.leaps
    return common.Step(
        best=mixture,
        following=following,
        natural=natural,
        log_likelihood=log_likelihood,
        gap=jnp.where(decision.gap < jnp.inf, decision.gap, state.gap),
        status=common.status_of(log_likelihood, decision.has_converged, may_go_on, state.n_iter, max_iter),
        memory=decision.memory._replace(mixture=mixture, em_step=em_step, is_sound=is_sound),
    )


def gap_of(
    products: Products, has_pair: Bool[Array, "*s"], acceleration: Acceleration, sqrt: Root = jnp.sqrt
) -> Float[Array, "*s"]:
    """How much is left to gain, in nats per sample: no less than to EM's next step."""
    return _gap_of(acceleration.direction(products, sqrt), products.rr, has_pair)


def _gap_of(direction: Direction, rr: Float[Array, "*s"], has_pair: Bool[Array, "*s"]) -> Float[Array, "*s"]:
    return jnp.where(direction.is_known & has_pair, jnp.maximum(direction.promise, 0.5 * rr), 0.5 * FAR * rr)
