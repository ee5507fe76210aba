"""Plain EM: the next parameters are those of the M-step.

A step evaluates the E-step at the current parameters, which also gives their log-likelihood, and then decides whether
to stop. So a finished run has made `n_iter` M-steps and `n_iter + 1` E-steps, and its log-likelihood belongs to the
parameters it returns.

The gain of one iteration says little of what is left to gain: a slow run stops far from its limit. The memory of a run
is its last gain.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgmm.em.covariance import Family
from jaxgmm.em.e_steps import E_STEPS, EStep
from jaxgmm.em.maximization import m_step
from jaxgmm.em.methods import common
from jaxgmm.em.state import RunState, Settings
from jaxgmm.em.statistics import SufficientStatistics


def init(record: RunState, settings: Settings, *, e_step: EStep = E_STEPS["products"]) -> RunState:
    """Runs about to make their next step; `DEGENERATE` where the mixture is not sound."""
    state = common.begun(record, settings, e_step)
    return state._replace(memory=jnp.full_like(state.gap, jnp.inf))


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
    """The rest of a step: decision and M-step, from the results of the E-step."""
    origins = state.mixture.means if e_step.about_means else None
    proposal = m_step(statistics, family, settings.ridge, settings.present, origins)
    natural, is_sound = common.checked(proposal, settings, e_step)
    # With a ridge the likelihood can fall on the way to the fixed point, so a loss does not mean convergence.
    change = jnp.abs(log_likelihood - state.log_likelihood) / total_weight
    has_converged = (change < settings.tol) & (settings.tol > 0)
    status = common.status_of(log_likelihood, has_converged, is_sound, state.n_iter, settings.max_iter)
    step = common.Step(
        best=state.mixture,
        following=proposal,
        natural=natural,
        log_likelihood=log_likelihood,
        gap=gap_of(change, state.memory, state.gap),
        status=status,
        memory=change,
    )
    return common.advanced(state, step, settings)


def gap_of(change: Float[Array, "*s"], before: Float[Array, "*s"], gap: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """How much is left to gain, from the last two gains; the earlier estimate where there is only one.

    It is infinite where gains rise. This is Aitken's estimate (McLachlan and Krishnan, 2008, "The EM algorithm and
    extensions", section 4.9): gains go on to fall by the same ratio.
    """
    ratio = change / before
    known = jnp.where(ratio < 1, change * ratio / (1 - ratio), jnp.where(change > 0, jnp.inf, 0.0))
    return jnp.where(before < jnp.inf, known, gap)
