"""What a system leaves behind, and how good it is by a measure that no system shares."""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from benchmarks.scenarios import Problem, Scenario

# Samples that are scored together, so that scoring a large data set needs little memory.
TILE = 100_000


class Fits(NamedTuple):
    """One model, fitted to B data sets.

    Attributes:
        weights: `(B, K)`; NaN where a system gave up.
        means: `(B, K, D)`.
        covariances: `(B, K, D, D)`.
        statuses: how many data sets ended how.
        run_iterations: iterations of all runs of each data set `(B,)`, or None where a system does not tell.
        efficiency: of the iterations executed, the share that some run needed, or None.
    """

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    statuses: Counter[str]
    run_iterations: np.ndarray | None
    efficiency: float | None = None


class Outcome(NamedTuple):
    """Fits of every model of a scenario, and seconds where the system keeps its own clock."""

    fits: list[Fits]
    seconds: float | None = None


def _tol_of_scenario(scenario: Scenario) -> float:
    return scenario.tol


class System(NamedTuple):
    """Something that fits mixtures.

    Attributes:
        name: as results call it.
        device: where it runs.
        dtype: precision of its iterations.
        handles: whether a scenario is within its abilities.
        prepare: lays out a problem as the system wants it, and returns the work that is timed.
        sample: data sets to try first where all might take too long; 0 to always fit all of them.
        tol: with which it stops.
    """

    name: str
    device: str
    dtype: str
    handles: Callable[[Scenario], bool]
    prepare: Callable[[Problem], Callable[[], Outcome]]
    sample: int = 0
    tol: Callable[[Scenario], float] = _tol_of_scenario


def mean_log_likelihoods(problem: Problem, fits: Fits, n_data_sets: int) -> np.ndarray:
    """Mean log-likelihood per sample of the first data sets `(n,)`, in float64, sample by centred sample."""
    parameters = zip(fits.weights, fits.means, fits.covariances, strict=True)
    return np.array(
        [_mean_log_likelihood(x, *own) for x, own, _ in zip(problem.data, parameters, range(n_data_sets), strict=False)]
    )


def _mean_log_likelihood(x: np.ndarray, weights: np.ndarray, means: np.ndarray, covariances: np.ndarray) -> float:
    try:
        inverses = np.linalg.inv(np.linalg.cholesky(covariances.astype(np.float64)))
    except np.linalg.LinAlgError:
        return np.nan
    log_scale = np.log(np.diagonal(inverses, axis1=1, axis2=2)).sum(axis=1) - 0.5 * x.shape[1] * np.log(2 * np.pi)
    with np.errstate(divide="ignore"):
        constant = np.log(weights.astype(np.float64)) + log_scale
    total = 0.0
    for first in range(0, len(x), TILE):
        tile = x[first : first + TILE].astype(np.float64)
        whitened = [(tile - mean) @ inverse.T for mean, inverse in zip(means, inverses, strict=True)]
        total += np.logaddexp.reduce(
            [c - 0.5 * np.sum(z**2, axis=1) for c, z in zip(constant, whitened, strict=True)]
        ).sum()
    return total / len(x)
