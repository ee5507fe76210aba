"""One run: EM from one start on one data set, to its end.

`init`, `step` and `is_finished` say what a run is; `run` joins them in a loop of its own, and the engine joins those of
many runs, `step` in its two halves, in one loop (`jaxgmm.engine.slots`). Everything here is pure: it works under `jit`,
`vmap` and, for `run`, under `grad` and `jvp`.

In `init` and `advance` all arrays may have further trailing axes, of runs that step together: arithmetic on the small
arrays of a run is vectorised only over many runs, and only where these are the last axis.

A step evaluates the E-step at the current parameters, whose log-likelihood is thereby known, and decides there whether
to stop. So a finished run has made `n_iter` M-steps and one E-step more, and its log-likelihood belongs to the
parameters it returns.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

from jaxgmm.em import expectation
from jaxgmm.em.covariance import Family, Ridge
from jaxgmm.em.e_steps import E_STEPS, EStep
from jaxgmm.em.expectation import Data, Tiles, natural_parameters
from jaxgmm.em.maximization import m_step
from jaxgmm.em.statistics import SufficientStatistics
from jaxgmm.mixture import Mixture
from jaxgmm.status import Status

RUNNING = -1

_MAX_SERIES = 100_000
_Tree = TypeVar("_Tree")


class Settings(NamedTuple):
    """What a run is asked to do. All of it is traced: changing it compiles nothing.

    Attributes:
        ridge: added to every covariance: `(D, D)`, or `(D,)` for an axis-aligned family; standardised units.
        tol: stop when the mean log-likelihood per sample changes by less in one iteration; 0 never stops early.
        max_iter: iterations at most.
        variance_floor: smallest share of its raw second moment that a variance may keep; see `natural_parameters` and
            `centred_parameters`.
        present: which components there are, `(K,)`; None for all. The others keep weight 0.
        snapshots: iterations `(P,)` after which the parameters are kept; None for none.
    """

    ridge: Ridge
    tol: Float[Array, "*s"]
    max_iter: Int[Array, "*s"]
    variance_floor: Float[Array, "*s"]
    present: Bool[Array, "k *s"] | None = None
    snapshots: Int[Array, "p *s"] | None = None


class RunState(NamedTuple):
    """A run between two steps.

    Attributes:
        mixture: current parameters, always sound once the run has made a step.
        natural: what the E-step reads of them, `(K, F)`: their natural parameters, or those of `jaxgmm.em.centred`;
            kept because checking a covariance already inverts it. None in the record of a run that has left its slot.
        log_likelihood: total nats; of `mixture` when the run has ended, of the parameters one iteration before while it
            runs, -inf before the first step.
        n_iter: iterations made.
        status: `RUNNING`, or a `Status`.
        history: log-likelihood of the start and after each iteration, `(max_iter + 1,)`, NaN where there was none; or
            None when it was not asked for.
        snapshots: the parameters after the iterations that `Settings.snapshots` names, `(P, K, …)`, NaN where there
            were none; or None.
    """

    mixture: Mixture
    natural: Any
    log_likelihood: Float[Array, "*s"]
    n_iter: Int[Array, "*s"]
    status: Int[Array, "*s"]
    history: Float[Array, "t *s"] | None
    snapshots: Mixture | None


def init(
    start: Mixture,
    settings: Settings,
    n_iter: Int[Array, "*s"] | None = None,
    history: Float[Array, "t *s"] | None = None,
    snapshots: Mixture | None = None,
    *,
    e_step: EStep = E_STEPS["products"],
) -> RunState:
    """A run about to make its first step, or the next of one resumed; `DEGENERATE` where the start is not sound."""
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


def step(data: Data | Tiles, state: RunState, family: Family, settings: Settings) -> RunState:
    """One iteration: E-step, decision, M-step. A finished run stays as it is."""
    total = jnp.sum(data.weights)
    return advance(state, *read(data, state, family), total, family, settings)


def read(data: Data | Tiles, state: RunState, family: Family) -> tuple[SufficientStatistics, Float[Array, ""]]:
    """The part of a step that reads samples: the E-step at the current parameters."""
    return expectation.e_step(data, state.natural, state.mixture.n_features, diagonal=family.diagonal)


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
    """The rest of a step: decision and M-step, from what the E-step found."""
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
    """Whether runs go on, or how they end, given log-likelihoods now and before and whether the next step is sound."""
    # A ridge can make the likelihood fall on the way to the fixed point, so a loss is not yet convergence.
    change = jnp.abs(log_likelihood - before) / total_weight
    converged = (change < tol) & (tol > 0)
    status = jnp.where(sound, RUNNING, int(Status.DEGENERATE))
    status = jnp.where(n_iter >= max_iter, int(Status.MAX_ITER), status)
    status = jnp.where(converged, int(Status.CONVERGED), status)
    return jnp.where(jnp.isnan(log_likelihood), int(Status.DEGENERATE), status).astype(jnp.int32)


def is_finished(state: RunState) -> Array:
    """Whether the run has ended."""
    return state.status != RUNNING


def run(data: Data | Tiles, start: Mixture, family: Family, settings: Settings) -> RunState:
    """EM from a start to its end.

    Derivatives are those of the fixed point θ = M(E(θ)) that a converged run has reached, by the implicit function
    theorem, so they cost no memory per iteration and none flow to the start: converge tightly before using them.

    Args:
        data: features `(F, N)` and weights `(N,)` of a standardised data set.
        start: mixture to begin from, in the same coordinates.
        family: a row of `jaxgmm.em.covariance.FAMILIES`.
        settings: ridge, tolerance and limits.

    Returns:
        The final state.
    """

    def em_map(mixture: Mixture) -> Mixture:
        natural, _ = natural_parameters(mixture)
        statistics, _ = expectation.e_step(data, natural, mixture.n_features, diagonal=family.diagonal)
        return m_step(statistics, family, settings.ridge, settings.present)

    def residual(mixture: Mixture) -> Mixture:
        return jax.tree.map(jnp.subtract, mixture, em_map(mixture))

    def solve(_: object, start: Mixture) -> tuple[Mixture, tuple[Array, Array]]:
        state = lax.while_loop(
            lambda state: ~is_finished(state),
            lambda state: step(data, state, family, settings),
            init(start, settings),
        )
        # custom_root differentiates what comes along too, and integers have no tangents.
        dtype = state.log_likelihood.dtype
        return state.mixture, (state.n_iter.astype(dtype), state.status.astype(dtype))

    mixture, (n_iter, status) = lax.custom_root(residual, start, solve, _solve_linearised, has_aux=True)
    natural, _ = natural_parameters(mixture)
    _, log_likelihood = expectation.e_step(data, natural, mixture.n_features, diagonal=family.diagonal)
    return RunState(mixture, natural, log_likelihood, n_iter.astype(jnp.int32), status.astype(jnp.int32), None, None)


def _checked(mixture: Mixture, settings: Settings, e_step: EStep) -> tuple[Array, Array]:
    """What the E-step reads, and whether every component keeps its support and its variance."""
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


def _solve_linearised(matvec: Callable[[Mixture], Mixture], rhs: Mixture) -> Mixture:
    # As one vector: its transpose needs every part to depend on what is differentiated, and a ridge leaves the weights'
    # part alone.
    flat, unravel = ravel_pytree(rhs)

    def flat_matvec(vector: Array) -> Array:
        return ravel_pytree(matvec(unravel(vector)))[0]

    return unravel(lax.custom_linear_solve(flat_matvec, flat, solve=_neumann_series, transpose_solve=_neumann_series))


def _neumann_series(matvec: Callable[[Array], Array], rhs: Float[Array, " p"]) -> Float[Array, " p"]:
    """Solves (I - J) u = v by u ← v + J u, which converges where EM does, and as fast."""
    eps = jnp.finfo(rhs.dtype).eps

    def body(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        solution, _, count = carry
        residual = rhs - matvec(solution)
        solution = solution + residual
        return solution, jnp.max(jnp.abs(residual)) / jnp.max(jnp.abs(solution)), count + 1

    def unfinished(carry: tuple[Array, Array, Array]) -> Array:
        _, change, count = carry
        return (change > 8 * eps) & (count < _MAX_SERIES)

    return lax.while_loop(unfinished, body, (rhs, jnp.ones_like(rhs[0]), jnp.zeros((), jnp.int32)))[0]
