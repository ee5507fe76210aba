"""Reasons to distrust a fit that its own fields show, and how they are named.

Here fits are anything with the fields of `jaxgmm.FitResult`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxgmm.status import Status

# What each flag means, as the end of a sentence whose subject is the fit.
FLAGS = {
    "no_answer": "has no mixture; its status says why",
    "max_iter": "had not converged after max_iter iterations",
    "degenerate": "is degenerate: a component lost its support or its variance",
    "spurious": "has components that fit a few samples, or equal ones, instead of a cluster",
    "ridge_dominated": "has components that owe much of a variance to the ridge, so that their widths are not known",
    "start_passed_over": "was chosen over a likelier start, which has spurious components or is degenerate",
    "few_agreeing": "is the end of a single start: none of the others reached it, so a better one may be missing",
    "at_largest_k": "has the largest K that was tried, and a larger one may be better",
    "passed_over": "was chosen over a model with a lower criterion, which has spurious components or is degenerate",
    "overlapping": "has components that overlap almost entirely, so that their parameters are not to be told apart",
    "misfit": "does not describe its data: residuals are far from uniform",
}

# A single start among fewer than this says little.
_FEWEST_STARTS = 4
# ∫ √(p q) of two Gaussians of equal width 1.3 standard deviations apart. From 2 on they have two modes (0.61).
OVERLAP = 0.8
# Residuals are far from uniform if that is both certain and large.
_P_VALUE, _MISFIT = 0.001, 0.05


def of_fits(fits: Any) -> dict[str, np.ndarray]:
    """`(B,)` for each reason that the fields of fits may show, whether it holds."""
    status, mixture = np.asarray(fits.status), fits.mixture
    has_answer = np.all(np.isfinite(np.asarray(mixture.weights)), axis=-1)
    return {
        "no_answer": ~has_answer,
        "max_iter": status == Status.MAX_ITER,
        "degenerate": has_answer & (status == Status.DEGENERATE),
        "spurious": np.asarray(fits.spurious) > 0,
        "ridge_dominated": np.asarray(fits.ridge_dominated) > 0,
        "start_passed_over": np.asarray(fits.start_passed_over, bool),
        "few_agreeing": has_answer & _stands_alone(fits),
        "overlapping": has_answer & (largest_overlap(mixture) > OVERLAP),
    }


def far_from_uniform(misfits: np.ndarray, p_values: np.ndarray) -> np.ndarray:
    """`(B,)`, whether residuals are, by the distances and p-values `(B, T)` of `jaxgmm.Diagnosis`."""
    return np.any((misfits > _MISFIT) & (p_values * p_values.shape[-1] < _P_VALUE), axis=-1)


def flag_texts(found: Mapping[str, np.ndarray]) -> np.ndarray:
    """`(B,)`, the names of the flags of each fit, separated by commas; empty where there are none."""
    names = np.array(list(found))
    rows = np.stack([np.atleast_1d(values) for values in found.values()], axis=-1)
    # Few combinations occur.
    combinations, number = np.unique(rows, axis=0, return_inverse=True)
    texts = np.array([", ".join(names[row]) for row in combinations], dtype=str)
    return texts[number.ravel()].reshape(np.shape(next(iter(found.values()))))


def largest_overlap(mixture: Any) -> np.ndarray:
    """`(…,)`, the largest ∫ √(p q) of two components of each mixture, whatever their weights; 0 for one component."""
    mixture = mixture.map(np.asarray)
    largest = np.zeros(mixture.weights.shape[:-1])
    for i in range(mixture.n_components):
        for j in range(i):
            pair = mixture.components([i, j])
            distance = _bhattacharyya(pair)
            are_present = np.all(np.isfinite(pair.weights) & (pair.weights != 0), axis=-1)
            largest = np.maximum(largest, np.where(are_present, np.exp(-distance), 0))
    return largest


def _bhattacharyya(pair: Any) -> np.ndarray:
    """Bhattacharyya distances of the components of mixtures `(…, 2, …)`, in nats."""
    gap = pair.means[..., 0, :] - pair.means[..., 1, :]
    with np.errstate(all="ignore"):
        if pair.is_diagonal:
            own, both = np.sum(np.log(pair.covariances), axis=-1), np.mean(pair.covariances, axis=-2)
            return np.sum(gap**2 / both, axis=-1) / 8 + (np.sum(np.log(both), axis=-1) - np.mean(own, axis=-1)) / 2
        covariances = np.where(np.isfinite(pair.covariances), pair.covariances, np.eye(pair.n_features))
        both = np.mean(covariances, axis=-3)
        own = np.linalg.slogdet(covariances)[1]
        square = np.sum(gap * np.linalg.solve(both, gap[..., None])[..., 0], axis=-1)
        return square / 8 + (np.linalg.slogdet(both)[1] - np.mean(own, axis=-1)) / 2


def _stands_alone(fits: Any) -> np.ndarray:
    several = np.sum(np.asarray(fits.mixture.weights) != 0, axis=-1) > 1
    # Starts that were no finalists ended early, and could not agree.
    n_ended = np.sum(np.asarray(fits.start_status) == Status.CONVERGED, axis=-1)
    return several & (fits.n_agreeing == 1) & (n_ended >= _FEWEST_STARTS)
