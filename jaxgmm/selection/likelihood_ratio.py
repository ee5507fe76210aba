"""The bootstrap likelihood-ratio test of each K against the next, as a criterion of a sweep."""

import numpy as np

from jaxgmm.driver.program import Request
from jaxgmm.resampling import likelihood_ratio_p_values
from jaxgmm.selection.models import Fitted
from jaxgmm.selection.sweep_request import SweepRequest
from jaxgmm.settings import LEVEL


def p_values(asked: SweepRequest, fitted: list[Fitted], rows: np.ndarray, request: Request) -> np.ndarray:
    """P-values `(C, M)` of each K against the next; NaN beyond the first K that is not rejected."""
    fits_of = {number: (part.fits, m) for part in fitted for m, number in enumerate(part.models)}
    found, undecided = np.full((len(rows), len(asked.models)), np.nan), np.ones(len(rows), bool)
    for number in range(len(asked.models) - 1):
        (smaller, m), (larger, n) = fits_of[number], fits_of[number + 1]
        statistic = 2 * (larger.log_likelihood[:, n] - smaller.log_likelihood[:, m])
        tested = np.flatnonzero(undecided & np.isfinite(statistic))
        if len(tested) == 0:
            break
        k = asked.models[number][0]
        mixture = smaller.mixture.of((tested, m)).components(slice(k))
        data = asked.data.part(rows[tested])
        found[tested, number] = likelihood_ratio_p_values(
            data, mixture, statistic[tested], asked.models[number], asked.n_replicates, request
        )
        undecided = found[:, number] <= LEVEL
    return found


def distance(p_values: np.ndarray, log_likelihood: np.ndarray) -> np.ndarray:
    """A score `(C, M)` that is lowest at the smallest K that was not rejected, or at the largest K if all were."""
    n_rejected = np.sum(p_values <= LEVEL, axis=1)
    from_chosen = np.abs(np.arange(p_values.shape[1]) - n_rejected[:, None]).astype(float)
    return np.where(np.isnan(log_likelihood), np.nan, from_chosen)
