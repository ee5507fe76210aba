"""The choice among starts and among models, by likelihood or criterion, and never of what is not sound without need."""

import numpy as np

from jaxgmm.chunk import ChunkFits
from jaxgmm.fitting import FitResult
from jaxgmm.mixture import Mixture, full_covariances
from jaxgmm.status import Status

# Starts whose mean log-likelihoods per sample differ by less have led to the same optimum: at the default `tol`, slow
# runs stop so far from it.
SAME_OPTIMUM = 1e-3


def of_starts(fits: ChunkFits, n_samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many starts agree with the chosen one, and whether one that is not sound has a higher log-likelihood."""
    gain = fits.start_log_likelihood - fits.log_likelihood[..., None]
    margin = SAME_OPTIMUM * n_samples[:, None, None]
    agrees = np.abs(gain) <= margin
    unsound = (fits.start_spurious > 0) | (fits.start_status == Status.DEGENERATE)
    return np.sum(agrees, axis=-1), np.any(unsound & (gain > margin), axis=-1)


def choice(score: np.ndarray, status: np.ndarray, spurious: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which model of each data set is chosen, and which would have been, were they sound; both `(C, M)`.

    A degenerate model is chosen only where all are, and one with spikes only where there is none with fewer.
    """
    is_known = ~np.isnan(score)
    kept = is_known & (status != Status.DEGENERATE)
    eligible = np.where(np.any(kept, axis=1, keepdims=True), kept, is_known)
    n_spikes = np.where(eligible, spurious, np.iinfo(np.int32).max)
    eligible &= n_spikes == np.min(n_spikes, axis=1, keepdims=True)
    lowest = np.min(np.where(eligible, score, np.inf), axis=1, keepdims=True)
    # Rounding must not choose between models that are the same, as all families are for one feature and K = 1.
    with np.errstate(invalid="ignore"):
        first = np.argmax(eligible & (score <= lowest + 1e-9 * (1 + np.abs(lowest))), axis=1)
    chosen = (np.arange(score.shape[1]) == first[:, None]) & np.any(eligible, axis=1, keepdims=True)
    return chosen, is_known & ~eligible & (score < lowest)


def store_chosen(fits: ChunkFits, chosen: np.ndarray, data_sets: np.ndarray, best: FitResult) -> None:
    """Copies the chosen of some models to their data sets; `chosen` is `(C, M)`."""
    c, m = np.nonzero(chosen)
    if len(c) == 0:
        return
    rows = data_sets[c]
    for name in set(FitResult._fields) & set(ChunkFits._fields) - {"mixture", "history", "snapshots"}:
        getattr(best, name)[rows] = getattr(fits, name)[c, m]
    mixture = Mixture(*(leaf[c, m] for leaf in fits.mixture))
    if best.mixture.covariances.ndim > mixture.covariances.ndim:
        mixture = mixture._replace(covariances=full_covariances(mixture))
    room = min(mixture.n_components, best.mixture.n_components)
    n_features = mixture.n_features
    unit = np.ones(n_features) if mixture.is_diagonal else np.eye(n_features)
    for leaf, new, absent in zip(best.mixture, mixture, (0.0, 0.0, unit), strict=True):
        present = mixture.weights[:, :room].reshape(len(c), room, *[1] * (new.ndim - 2)) != 0
        leaf[rows] = absent
        leaf[rows, :room] = np.where(present, new[:, :room], absent)
