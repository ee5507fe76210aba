"""The settings of a run, and its state between two steps."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxgmm.em.covariance import Ridge
from jaxgmm.mixture import Mixture

RUNNING = -1


class Settings(NamedTuple):
    """The settings of a run. All of them are traced: changing them compiles nothing.

    Attributes:
        ridge: added to every covariance: `(D, D)`, or `(D,)` for an axis-aligned family; standardised units.
        tol: stop when the method says that so little of the mean log-likelihood is left to gain; 0 never stops early.
        max_iter: maximum number of iterations.
        variance_floor: smallest share of its raw second moment that a variance may keep; see `natural_parameters` and
            `centred_parameters`.
        present: which components are present, `(K,)`; None for all. The others keep weight 0.
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
        natural: the form of the parameters that the E-step reads, `(K, F)`: natural parameters, or those of
            `jaxgmm.em.centred`; kept because checking a covariance already inverts it. None in the record of a run that
            has left its slot.
        log_likelihood: total nats; of `mixture` when the run has ended, of the previous iteration's parameters while it
            runs, -inf before the first step.
        n_iter: iterations made.
        status: `RUNNING`, or a `Status`.
        history: log-likelihood of the start and after each iteration, `(max_iter + 1,)`, NaN where there was none; or
            None if it was not requested.
        snapshots: the parameters after the iterations that `Settings.snapshots` names, `(P, K, …)`, NaN where there
            were none; or None.
        memory: anything else that the method keeps from one step to the next; None in the record of a run that has left
            its slot.
        gap: estimate of how much log-likelihood is left to gain, in nats per sample; of `mixture` when the run has
            ended. Infinite where it is not known.
    """

    mixture: Mixture
    natural: Any
    log_likelihood: Float[Array, "*s"]
    n_iter: Int[Array, "*s"]
    status: Int[Array, "*s"]
    history: Float[Array, "t *s"] | None
    snapshots: Mixture | None
    memory: Any = None
    gap: Any = None


def unstarted(
    start: Mixture, history: Float[Array, "t *s"] | None = None, snapshots: Mixture | None = None
) -> RunState:
    """The record of a run that has made no step."""
    weights = jnp.asarray(start.weights)
    nothing = jnp.zeros(weights.shape[1:], weights.dtype)
    return RunState(
        mixture=start,
        natural=None,
        log_likelihood=nothing - jnp.inf,
        gap=nothing + jnp.inf,
        n_iter=nothing.astype(jnp.int32),
        status=nothing.astype(jnp.int32) + RUNNING,
        history=history,
        snapshots=snapshots,
    )
