"""Which of several runs, or models, is chosen: one rule for starts, models, searches and pictures.

A run is sound where it is not degenerate and has no spurious components. What runs are compared by is a likelihood that
spurious components do not raise (`jaxgmm.em.spurious.bounded_log_likelihood`), which for sound runs is their own; and a
degenerate one is chosen only where all are.

Models pay for all of their components by a criterion. The starts of one model have as many each, but those that are
spurious say nothing: a start pays for each of its own (`price`), and so is chosen over a sound one only where it
describes the data much better, as where it alone has kept a heap of sentinels apart.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgmm.status import Status

# Starts whose mean log-likelihoods per sample differ by less have led to the same optimum: at the default `tol`, slow
# runs stop so far from it.
SAME_OPTIMUM = 1e-3


def is_sound(status: Any, spurious: Any) -> Any:
    """Whether runs are sound, given their statuses and their numbers of spurious components."""
    return (status != Status.DEGENERATE) & (spurious == 0)


def passed_over(status: Any, spurious: Any, gains: Any, n_samples: Any) -> Any:
    """Whether an unsound start `(…, R)` was likelier than what was chosen `(…)`.

    `gains` are the differences of their log-likelihoods, and `n_samples` the sum of the weights.
    """
    return np.any(~is_sound(status, spurious) & (gains > SAME_OPTIMUM * np.asarray(n_samples)[..., None]), axis=-1)


def eligible(known: Any, status: Any) -> Any:
    """Which of the candidates in the last axis may be chosen, given which have an answer, and their statuses."""
    xp = jnp if isinstance(known, jax.Array) else np
    kept = known & (status != Status.DEGENERATE)
    return xp.where(xp.any(kept, axis=-1, keepdims=True), kept, known)


def price(n_parameters: Any, n_samples: Any) -> Any:
    """What a component costs by BIC, in nats: half the logarithm of the number of samples for each free parameter."""
    return 0.5 * n_parameters * jnp.log(jnp.maximum(n_samples, 1.0))


def first_best(score: Any, is_eligible: Any, slack: Any) -> Any:
    """The first of the eligible candidates in the last axis whose score is the highest, or less by no more than slack.

    Rounding must not choose between candidates that are the same. 0 where none is eligible.
    """
    xp = jnp if isinstance(score, jax.Array) else np
    score = xp.where(is_eligible, score, -np.inf)
    return xp.argmax(is_eligible & (score >= xp.max(score, axis=-1, keepdims=True) - slack), axis=-1)
