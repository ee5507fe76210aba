"""What methods share: how a run begins, when it ends, and what is recorded of it."""

from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxgmm.em.e_steps import EStep
from jaxgmm.em.state import RUNNING, RunState, Settings
from jaxgmm.mixture import Mixture
from jaxgmm.status import Status

_Tree = TypeVar("_Tree")


class Step(NamedTuple):
    """What a step comes to.

    Attributes:
        best: the parameters that a run returns if it ends here.
        following: the parameters at which it goes on.
        natural: the form of these that the E-step reads.
        log_likelihood: total nats, of `best`.
        gap: how much is left to gain from there, in nats per sample.
        status: whether the run goes on, or how it ends.
        memory: what the method keeps.
    """

    best: Any
    following: Any
    natural: Any
    log_likelihood: Float[Array, "*s"]
    gap: Float[Array, "*s"]
    status: Int[Array, "*s"]
    memory: Any = None


def begun(record: RunState, settings: Settings, e_step: EStep) -> RunState:
    """Runs about to make their next step, without memory; `DEGENERATE` where the mixture is not sound."""
    natural, sound = checked(record.mixture, settings, e_step)
    return record._replace(
        natural=natural,
        log_likelihood=jnp.where(sound, -jnp.inf, jnp.nan).astype(natural.dtype),
        status=jnp.where(sound, RUNNING, int(Status.DEGENERATE)).astype(jnp.int32),
    )


def read(state: RunState) -> Array:
    """The parameters that the E-step reads."""
    return state.natural


def status_of(log_likelihood: Array, has_converged: Array, is_sound: Array, n_iter: Array, max_iter: Array) -> Array:
    """Whether runs continue, or how they end, given whether the next parameters are sound."""
    status = jnp.where(is_sound, RUNNING, int(Status.DEGENERATE))
    status = jnp.where(n_iter >= max_iter, int(Status.MAX_ITER), status)
    status = jnp.where(has_converged, int(Status.CONVERGED), status)
    return jnp.where(jnp.isnan(log_likelihood), int(Status.DEGENERATE), status).astype(jnp.int32)


def advanced(state: RunState, step: Step, settings: Settings) -> RunState:
    """States after a step, with what is recorded of it; finished ones are unchanged."""
    goes_on = step.status == RUNNING
    history = state.history
    if history is not None:
        history = history.at[(state.n_iter, *jnp.indices(state.n_iter.shape))].set(step.log_likelihood)
    snapshots = state.snapshots
    if snapshots is not None:
        is_asked_for = settings.snapshots == state.n_iter[None]
        snapshots = jax.tree.map(lambda kept, new: _where_rows(is_asked_for, new, kept), snapshots, step.best)
    new = RunState(
        mixture=select(goes_on, step.following, step.best),
        natural=select(goes_on, step.natural, state.natural),
        log_likelihood=step.log_likelihood,
        gap=step.gap,
        n_iter=state.n_iter + goes_on.astype(jnp.int32),
        status=step.status,
        history=history,
        snapshots=snapshots,
        memory=step.memory,
    )
    return select(is_finished(state), state, new)


def is_finished(state: RunState) -> Array:
    """Whether the run has ended."""
    return state.status != RUNNING


def checked(mixture: Mixture, settings: Settings, e_step: EStep) -> tuple[Array, Array]:
    """The parameters that the E-step reads, and whether every component keeps its support and its variance."""
    natural, remaining = e_step.parameters(mixture, settings.ridge)
    sound = (mixture.weights > jnp.finfo(natural.dtype).eps) & (remaining > jnp.asarray(settings.variance_floor)[None])
    return natural, jnp.all(sound if settings.present is None else sound | ~settings.present, axis=0)


def select(condition: Bool[Array, "*s"], new: _Tree, old: _Tree) -> _Tree:
    """`jnp.where` for every leaf `(…, *S)` of two trees."""

    def choose(a: Array, b: Array) -> Array:
        return jnp.where(condition.reshape(*[1] * (a.ndim - condition.ndim), *condition.shape), a, b)

    return jax.tree.map(choose, new, old)


def _where_rows(condition: Bool[Array, "p *s"], new: Array, old: Array) -> Array:
    """Rows `(P, …, *S)`, replaced by one new value `(…, *S)` where a condition holds."""
    n_rows, *runs = condition.shape
    return jnp.where(condition.reshape(n_rows, *[1] * (new.ndim - len(runs)), *runs), new[None], old)
