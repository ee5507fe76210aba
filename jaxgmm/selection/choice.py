"""The choice among models, by a criterion that spurious components do not lower."""

from collections.abc import Sequence

import numpy as np

from jaxgmm.driver.program import Combination
from jaxgmm.soundness import eligible, first_best, is_sound
from jaxgmm.status import Status


def choice(
    score: np.ndarray, lead: np.ndarray, status: np.ndarray, compared: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which model of each data set is chosen, and which have a better score than it; both `(C, M)`.

    Args:
        score: `(C, M)`, lower is better; NaN where there is no answer.
        lead: `(C, M)`, the part of the score owed to spurious components; 0 where there are none.
        status: `(C, M)`, codes of `jaxgmm.Status`.
        compared: `(C, M)`, which models are compared.
    """
    known = compared & ~np.isnan(score)
    fair = fair_score(score, lead, known)
    is_eligible = eligible(known, status)
    # Some models are equal: with one feature and K = 1, all families are.
    lowest = np.min(fair, axis=1, keepdims=True)
    slack = np.where(np.isfinite(lowest), 1e-9 * (1 + np.abs(lowest)), 0.0)
    first = first_best(-fair, is_eligible, slack)
    chosen = (np.arange(score.shape[1]) == first[:, None]) & np.any(is_eligible, axis=1, keepdims=True)
    of_chosen = np.max(np.where(chosen, score, -np.inf), axis=1, keepdims=True)
    return chosen, known & ~chosen & (score < of_chosen - slack)


def fair_score(score: np.ndarray, lead: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The score by which models are compared, `(C, M)`: infinite where it is not known."""
    return np.where(known & ~np.isnan(score), score + lead, np.inf)


def at_smallest_ridge(
    score: np.ndarray, status: np.ndarray, spurious: np.ndarray, models: Sequence[Combination]
) -> np.ndarray:
    """Which of M models of each data set are compared, `(C, M)`: those of the smallest ridge that has a sound fit.

    Where a K and family are degenerate there, they are compared at the next ridge at which they are not.

    Args:
        score: `(C, M)`, NaN where there is no answer.
        status: `(C, M)`, codes of `jaxgmm.Status`.
        spurious: `(C, M)`, numbers of spurious components.
        models: K, family and ridge of each.
    """
    known, ridges = ~np.isnan(score), np.array([ridge for *_, ridge in models])

    sound = known & is_sound(status, spurious)
    sound = np.where(np.any(sound, axis=1, keepdims=True), sound, known)
    of_all = np.min(np.where(sound, ridges, np.inf), axis=1, keepdims=True)
    compared = np.zeros(score.shape, bool)
    for kind in dict.fromkeys(model[:2] for model in models):
        own = np.array([model[:2] == kind for model in models])
        usable = known & own & (status != Status.DEGENERATE) & (ridges >= of_all)
        wanted = np.min(np.where(usable, ridges, np.inf), axis=1, keepdims=True)
        wanted = np.where(np.isfinite(wanted), wanted, of_all)
        compared |= own & (ridges == wanted)
    return compared
