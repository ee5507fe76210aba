"""What a run is between two steps, and what it is asked to do."""

from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float, Int

from jaxgmm.em.covariance import Ridge
from jaxgmm.mixture import Mixture

RUNNING = -1


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
        memory: what else the method keeps from one step to the next; None for plain EM, and in the record of a run that
            has left its slot.
    """

    mixture: Mixture
    natural: Any
    log_likelihood: Float[Array, "*s"]
    n_iter: Int[Array, "*s"]
    status: Int[Array, "*s"]
    history: Float[Array, "t *s"] | None
    snapshots: Mixture | None
    memory: Any = None
