"""Quasi-Newton acceleration of EM (Lange, 1995; Jamshidian and Jennrich, 1997).

With θ all parameters and M the map of one iteration, EM's step r(θ) = M(θ) - θ is, to first order near a fixed point,
the gradient of the mean log-likelihood in the metric of the complete data's information (`jaxgmm.em.methods.metric`).
So L-BFGS (Liu and Nocedal, 1989) with inner products in this metric begins with EM's own step and learns from the last
one how far EM has still to go. With s the last step and y the fall of r along it, the direction is

    d = γ (r - α y) + (α - ρ γ <y, r - α y>) s,    ρ = 1 / <s, y>,  α = ρ <s, r>,  γ = max(1, <s, y> / <y, y>),

and the Newton decrement ½ <r, d> estimates how much of the mean log-likelihood is left to gain. A run has converged if
that is below the tolerance twice in succession.

Every step costs one E-step. Its length is limited in the same metric, which keeps covariances positive definite. A step
that loses noticeable likelihood is taken back, and EM's own step, which is known already, follows. That one is always
accepted. Where r grows along s, near a saddle, EM's step is lengthened instead.

With a ridge, EM's steps may lose likelihood, which is then not what they raise. From the first such step on, a step is
also kept if r has not turned against it, and a run ends at the same fixed points as EM.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxgmm.em.covariance import Family
from jaxgmm.em.e_steps import E_STEPS, EStep
from jaxgmm.em.maximization import m_step
from jaxgmm.em.methods import common
from jaxgmm.em.methods.metric import Parts, difference, inner_products, moved, share_within_limits
from jaxgmm.em.state import RunState, Settings
from jaxgmm.em.statistics import SufficientStatistics
from jaxgmm.mixture import Mixture

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


class Memory(NamedTuple):
    """What a run keeps from one step to the next.

    Attributes:
        mixture: the last accepted parameters.
        em_step: EM's step from there.
        has_moved: whether any parameters have been accepted yet.
        falls: whether a step of EM has lost likelihood, as only a ridge makes it do.
        is_em: whether the current parameters are EM's, which are accepted in any case.
        is_sound: whether every component of the current ones keeps its support and its variance.
        n_small: number of estimates below the tolerance, one after another.
    """

    mixture: Mixture
    em_step: Mixture
    has_moved: Bool[Array, "*s"]
    falls: Bool[Array, "*s"]
    is_em: Bool[Array, "*s"]
    is_sound: Bool[Array, "*s"]
    n_small: Int[Array, "*s"]


def init(record: RunState, settings: Settings, *, e_step: EStep = E_STEPS["products"]) -> RunState:
    """Runs about to make their next step; `DEGENERATE` where the mixture is not sound."""
    state, no = common.begun(record, settings, e_step), jnp.zeros(record.status.shape, bool)
    nowhere = jax.tree.map(jnp.zeros_like, record.mixture)
    return state._replace(memory=Memory(record.mixture, nowhere, no, no, ~no, ~no, no.astype(jnp.int32)))


def advance(
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
    here, memory = state.mixture, state.memory
    origins = here.means if e_step.about_means else None
    by_em = m_step(statistics, family, settings.ridge, settings.present, origins)
    em_step = difference(by_em, here)
    steps = em_step, difference(here, memory.mixture), difference(memory.em_step, em_step)
    parts = inner_products(steps, here.weights, e_step.precisions(state.natural, here))
    products = Products(*parts.products(here.weights))
    dtype = log_likelihood.dtype.name
    gain = (log_likelihood - state.log_likelihood) / total_weight
    falls = memory.falls | (memory.is_em & (gain < -LOSS[dtype]))
    # The integral of r along s, by the trapezoidal rule, is what the step has gained of whatever EM raises.
    keeps = (gain >= -SLACK[dtype]) | (falls & (products.rs + 0.5 * products.sy >= 0))
    is_accepted = memory.is_em | (memory.is_sound & keeps)
    direction = _direction(products, parts, is_accepted & memory.has_moved)
    is_small = (direction.gap < jnp.maximum(settings.tol, LEAST_GAP)) & (settings.tol > 0)
    n_small = jnp.where(is_accepted & is_small, memory.n_small + 1, 0)

    is_em = ~direction.is_better
    back = jax.tree.map(jnp.add, memory.mixture, memory.em_step)
    following = common.select(is_accepted, by_em, back)
    following = common.select(is_em, following, moved(here, direction.along, steps))
    natural, is_sound = common.checked(following, settings, e_step)

    log_likelihood = jnp.where(is_accepted, log_likelihood, state.log_likelihood)
    has_converged = n_small >= IN_SUCCESSION
    status = common.status_of(log_likelihood, has_converged, is_sound | ~is_em, state.n_iter, settings.max_iter)
    mixture, em_step = common.select(is_accepted, (here, em_step), (memory.mixture, memory.em_step))
    step = common.Step(
        best=mixture,
        following=following,
        natural=natural,
        log_likelihood=log_likelihood,
        gap=jnp.where(is_accepted & (direction.gap < jnp.inf), direction.gap, state.gap),
        status=status,
        memory=Memory(mixture, em_step, jnp.ones_like(is_em), falls, is_em, is_sound, n_small),
    )
    return common.advanced(state, step, settings)


class Products(NamedTuple):
    """Inner products of r, EM's step; s, the last step; and y, the fall of r along it."""

    rr: Float[Array, "*s"]
    rs: Float[Array, "*s"]
    ry: Float[Array, "*s"]
    ss: Float[Array, "*s"]
    sy: Float[Array, "*s"]
    yy: Float[Array, "*s"]


class _Direction(NamedTuple):
    """The direction and length of a step.

    Attributes:
        along: its coefficients of r, s and y.
        gap: how much is left to gain, in nats per sample.
        is_better: whether it promises more than EM's step.
    """

    along: list[Float[Array, "*s"]]
    gap: Float[Array, "*s"]
    is_better: Bool[Array, "*s"]


def _direction(products: Products, parts: Parts, has_pair: Bool[Array, "*s"]) -> _Direction:
    rr, rs, ry, ss, sy, yy = products
    yy = jnp.maximum(yy, jnp.finfo(yy.dtype).tiny)
    is_known = has_pair & (sy > LEAST_CURVATURE * ss)
    rho = 1 / jnp.where(is_known, sy, 1)
    alpha, gamma = rho * rs, jnp.maximum(sy / yy, 1)
    along = gamma, alpha - rho * gamma * (ry - alpha * yy), -gamma * alpha
    decrement = 0.5 * (along[0] * rr + along[1] * rs + along[2] * ry)
    is_known &= decrement > 0
    longer = jnp.maximum(jnp.sqrt(ss / yy), 1)
    along = [jnp.where(is_known, own, other) for own, other in zip(along, (longer, 0.0, 0.0), strict=True)]
    promise = jnp.where(is_known, decrement, 0.5 * longer * rr)
    share = share_within_limits(along, parts)
    gap = jnp.where(is_known, jnp.maximum(decrement, 0.5 * rr), 0.5 * FAR * rr)
    return _Direction([share * own for own in along], gap, has_pair & (share * promise > 0.5 * rr))
