"""Plain EM: the next parameters are those of the M-step.

A step evaluates the E-step at the current parameters, which also gives their log-likelihood, and then decides whether
to stop. So a finished run has made `n_iter` M-steps and `n_iter + 1` E-steps, and its log-likelihood belongs to the
parameters it returns.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxgmm.em.covariance import Family
from jaxgmm.em.e_steps import E_STEPS, EStep
from jaxgmm.em.maximization import m_step
from jaxgmm.em.state import RUNNING, RunState, Settings
from jaxgmm.em.statistics import SufficientStatistics
from jaxgmm.mixture import Mixture
from jaxgmm.status import Status

_Tree = TypeVar("_Tree")


def init(
    start: Mixture,
    settings: Settings,
    n_iter: Int[Array, "*s"] | None = None,
    history: Float[Array, "t *s"] | None = None,
    snapshots: Mixture | None = None,
    *,
    e_step: EStep = E_STEPS["products"],
) -> RunState:
    """A run about to make its first step, or the next step if resumed; `DEGENERATE` if the start is not sound."""
    natural, sound = _checked(start, settings, e_step)
    dtype = natural.dtype
    return RunState(
        mixture=start,
        natural=natural,
        log_likelihood=jnp.where(sound, -jnp.inf, jnp.nan).astype(dtype),
        n_iter=jnp.zeros(sound.shape, jnp.int32) if n_iter is None else n_iter,
        status=jnp.where(sound, RUNNING, int(Status.DEGENERATE)).astype(jnp.int32),
        history=history,
        snapshots=snapshots,
    )


def read(state: RunState) -> Array:
    """The parameters that the E-step reads."""
    return state.natural


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
    natural, sound = _checked(proposal, settings, e_step)

    status = status_of(
        *(log_likelihood, state.log_likelihood, state.n_iter, sound),
        *(total_weight, settings.tol, settings.max_iter),
    )
    goes_on = status == RUNNING
    history = state.history
    if history is not None:
        history = history.at[(state.n_iter, *jnp.indices(state.n_iter.shape))].set(log_likelihood)
    snapshots = state.snapshots
    if snapshots is not None:
        is_asked_for = settings.snapshots == state.n_iter[None]
        snapshots = jax.tree.map(lambda kept, new: _where_rows(is_asked_for, new, kept), snapshots, state.mixture)
    advanced = RunState(
        mixture=_select(goes_on, proposal, state.mixture),
        natural=_select(goes_on, natural, state.natural),
        log_likelihood=log_likelihood,
        n_iter=state.n_iter + goes_on.astype(jnp.int32),
        status=status,
        history=history,
        snapshots=snapshots,
    )
    return _select(is_finished(state), state, advanced)


def status_of(
    log_likelihood: Array,
    before: Array,
    n_iter: Array,
    sound: Array,
    total_weight: Array,
    tol: Array,
    max_iter: Array,
) -> Array:
    """Whether runs continue, or how they end, from log-likelihoods now and before and whether the M-step is sound."""
    # With a ridge the likelihood can fall on the way to the fixed point, so a loss does not mean convergence.
    change = jnp.abs(log_likelihood - before) / total_weight
    converged = (change < tol) & (tol > 0)
    status = jnp.where(sound, RUNNING, int(Status.DEGENERATE))
    status = jnp.where(n_iter >= max_iter, int(Status.MAX_ITER), status)
    status = jnp.where(converged, int(Status.CONVERGED), status)
    return jnp.where(jnp.isnan(log_likelihood), int(Status.DEGENERATE), status).astype(jnp.int32)


def is_finished(state: RunState) -> Array:
    """Whether the run has ended."""
    return state.status != RUNNING


def _checked(mixture: Mixture, settings: Settings, e_step: EStep) -> tuple[Array, Array]:
    """The parameters that the E-step reads, and whether every component keeps its support and its variance."""
    natural, remaining = e_step.parameters(mixture, settings.ridge)
    sound = (mixture.weights > jnp.finfo(natural.dtype).eps) & (remaining > jnp.asarray(settings.variance_floor)[None])
    return natural, jnp.all(sound if settings.present is None else sound | ~settings.present, axis=0)


def _select(condition: Bool[Array, "*s"], new: _Tree, old: _Tree) -> _Tree:
    """`jnp.where` for every leaf `(…, *S)` of two trees."""

    def select(a: Array, b: Array) -> Array:
        return jnp.where(condition.reshape(*[1] * (a.ndim - condition.ndim), *condition.shape), a, b)

    return jax.tree.map(select, new, old)


def _where_rows(condition: Bool[Array, "p *s"], new: Array, old: Array) -> Array:
    """Rows `(P, …, *S)`, replaced by one new value `(…, *S)` where a condition holds."""
    n_rows, *runs = condition.shape
    return jnp.where(condition.reshape(n_rows, *[1] * (new.ndim - len(runs)), *runs), new[None], old)
