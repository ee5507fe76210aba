"""The choice among runs or models: one rule for starts, models, searches and pictures.

A run is sound if it is not degenerate and has no spurious components. Runs are compared by a likelihood that spurious
components do not raise (`jaxgmm.em.spurious.bounded_log_likelihood`); for sound runs it is their own. A degenerate run
is chosen only if all are degenerate.

A criterion penalises models for all of their components. The starts of one model all have the same number of
components, so a start is penalised only for its spurious ones (`price`). It is then chosen over a sound start only if
it describes the data much better, for example because it alone has separated a group of sentinels.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgmm.status import Status

# Starts whose mean log-likelihoods per sample differ by less than this have reached the same optimum. Those of starts
# that were not chosen are a search's, in float32: its ridge and its rounding may change them by a few 1e-4.
SAME_OPTIMUM = 1e-3


def is_sound(status: Any, spurious: Any) -> Any:
    """Whether runs are sound, given their statuses and their numbers of spurious components."""
    return (status != Status.DEGENERATE) & (spurious == 0)


def n_agreeing(start_log_likelihood: Any, log_likelihood: Any, n_samples: Any) -> Any:
    """`(…,)`, how many of the starts `(…, R)` have reached the optimum of the chosen one."""
    gaps = np.abs(start_log_likelihood - np.asarray(log_likelihood)[..., None])
    return np.sum(gaps <= SAME_OPTIMUM * np.asarray(n_samples)[..., None], axis=-1)


def passed_over(status: Any, spurious: Any, gains: Any, n_samples: Any) -> Any:
    """Whether an unsound start `(…, R)` was likelier than the chosen one `(…)`.

    `gains` are the differences of their log-likelihoods, and `n_samples` the sum of the weights.
    """
    return np.any(~is_sound(status, spurious) & (gains > SAME_OPTIMUM * np.asarray(n_samples)[..., None]), axis=-1)


def eligible(known: Any, status: Any) -> Any:
    """Which of the candidates in the last axis may be chosen, given which have an answer, and their statuses."""
    xp = jnp if isinstance(known, jax.Array) else np
    kept = known & (status != Status.DEGENERATE)
    return xp.where(xp.any(kept, axis=-1, keepdims=True), kept, known)


def price(n_parameters: Any, n_samples: Any) -> Any:
    """The BIC penalty of a component, in nats: half the logarithm of the number of samples for each free parameter."""
    return 0.5 * n_parameters * jnp.log(jnp.maximum(n_samples, 1.0))


def first_best(score: Any, is_eligible: Any, slack: Any) -> Any:
    """The first eligible candidate in the last axis whose score is within slack of the highest; 0 if none is eligible.

    The slack keeps rounding from choosing between equal candidates.
    """
    xp = jnp if isinstance(score, jax.Array) else np
    score = xp.where(is_eligible, score, -np.inf)
    return xp.argmax(is_eligible & (score >= xp.max(score, axis=-1, keepdims=True) - slack), axis=-1)
