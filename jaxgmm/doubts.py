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
    "far_from_converged": "had more than 1e-4 nats per sample left to gain when it ended, by its own estimate",
    "degenerate": "is degenerate: a component lost its support or its variance",
    "spurious": "has components that fit a few samples, or equal ones, instead of a cluster",
    "ridge_dominated": "has components whose variance comes largely from the ridge, so that their widths are not known",
    "start_passed_over": "was chosen over a likelier start, which has spurious components or is degenerate",
    "few_agreeing": "is the end of a single start: none of the others reached it, so a better one may be missing",
    "at_largest_k": "has the largest K that was tried, and a larger one may be better",
    "passed_over": "was chosen over a model with a lower criterion, which has spurious components or is degenerate",
    "overlapping": "has components that overlap almost entirely, so that their parameters cannot be told apart",
    "misfit": "does not describe its data: residuals are far from uniform",
}

# Nats per sample: a tenth of what tells starts apart.
_FAR = 1e-4
# A single start among fewer than this says little.
_FEWEST_STARTS = 4
# ∫ √(p q) of two Gaussians of equal width 1.3 standard deviations apart. From 2 on they have two modes (0.61).
OVERLAP = 0.8
# Residuals are far from uniform if that is both certain and large.
_P_VALUE, _MISFIT = 0.001, 0.05


def of_fits(fits: Any, overlap: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """`(B,)` for each reason that the fields of fits may show, whether it holds.

    Args:
        fits: B fits.
        overlap: `(B,)`, their largest overlaps, if they are known already.
    """
    status, mixture = np.asarray(fits.status), fits.mixture
    has_answer = np.all(np.isfinite(np.asarray(mixture.weights)), axis=-1)
    return {
        "no_answer": ~has_answer,
        "max_iter": status == Status.MAX_ITER,
        "far_from_converged": has_answer & _is_far(fits.gap),
        "degenerate": has_answer & (status == Status.DEGENERATE),
        "spurious": np.asarray(fits.spurious) > 0,
        "ridge_dominated": np.asarray(fits.ridge_dominated) > 0,
        "start_passed_over": np.asarray(fits.start_passed_over, bool),
        "few_agreeing": has_answer & _stands_alone(fits),
        "overlapping": has_answer & ((largest_overlap(mixture) if overlap is None else overlap) > OVERLAP),
    }


def _is_far(gap: Any) -> np.ndarray:
    # Where it is infinite, the last steps did not say.
    return (np.asarray(gap) > _FAR) & np.isfinite(gap)


def _far_from_uniform(misfits: np.ndarray, p_values: np.ndarray) -> np.ndarray:
    """`(B,)`, whether residuals are, by the distances and p-values `(B, T)` of `jaxgmm.Diagnosis`."""
    return np.any((misfits > _MISFIT) & (p_values * p_values.shape[-1] < _P_VALUE), axis=-1)


def of_residuals(no_answer: np.ndarray, checked: Any) -> dict[str, np.ndarray]:
    """The same for the reasons that a diagnosis shows, anything with the fields of `jaxgmm.Diagnosis`."""
    return {"misfit": ~no_answer & _far_from_uniform(checked.misfits, checked.p_values)}


def component_flags(fits: Any, found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Flags of the components of B fits, `(B, K)` for each reason: those of the fit that may concern the component.

    `overlapping` holds for those components that overlap another, and `ridge_dominated` for the narrowest, compared
    with the ridge, of which the fit says how many there are. Every other reason concerns the whole fit, or it is not
    known which component gave it.

    Args:
        fits: B fits, with a batch axis.
        found: `(B,)` for each reason, as `jaxgmm.flags` returns them.
    """
    n_components = fits.mixture.n_components
    flags = {name: np.repeat(values[:, None], n_components, axis=1) for name, values in found.items()}
    for name in _CONCERNED.keys() & found.keys():
        # Few fits have these flags.
        rows = np.flatnonzero(found[name])
        if len(rows):
            flags[name][rows] = _CONCERNED[name](fits, rows)
    return flags


def model_flags(table: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Flags of the models of a sweep, `(M,)` for each reason.

    A chosen model has all flags of its data set's fit. The mixtures and starts of others are not kept; they have those
    flags that their rows show.

    Args:
        table: `jaxgmm.Sweep.table`, with M rows.
        found: `(B,)` for each reason, as `jaxgmm.flags` returns them.
    """
    has_answer = np.isfinite(table["log_likelihood"])
    shown = {
        "no_answer": ~has_answer,
        "max_iter": table["status"] == Status.MAX_ITER.name,
        "far_from_converged": has_answer & _is_far(table["gap"]),
        "degenerate": has_answer & (table["status"] == Status.DEGENERATE.name),
        "spurious": table["spurious"] > 0,
        "ridge_dominated": table["ridge_dominated"] > 0,
        "start_passed_over": table["start_passed_over"],
    }
    nothing, data_set = np.zeros(len(has_answer), bool), table["data_set"]
    return {
        name: np.where(table["chosen"], values[data_set], shown.get(name, nothing)) for name, values in found.items()
    }


def combined(found: Mapping[str, np.ndarray]) -> tuple[np.ndarray, list[str]]:
    """Flags as numbers of texts, and these texts: names separated by commas, no text where there are none.

    Args:
        found: arrays of one shape, whether each reason holds; at most 31 reasons.
    """
    codes = sum(np.asarray(values).astype(np.int32) << bit for bit, values in enumerate(found.values()))
    # Few combinations occur.
    combinations, number = np.unique(codes, return_inverse=True)
    texts = [", ".join(name for bit, name in enumerate(found) if code >> bit & 1) for code in combinations.tolist()]
    return number.reshape(np.shape(codes)), texts


def flag_texts(found: Mapping[str, np.ndarray]) -> np.ndarray:
    """`(B,)`, the names of the flags of each fit, separated by commas; empty where there are none."""
    number, texts = combined(found)
    return np.array(texts, dtype=str)[number]


def largest_overlap(mixture: Any) -> np.ndarray:
    """`(…,)`, the largest ∫ √(p q) of two components of each mixture, whatever their weights; 0 for one component."""
    return np.max(overlaps(mixture), axis=-1, initial=0)


def overlaps(mixture: Any) -> np.ndarray:
    """`(…, K)`, the largest ∫ √(p q) of each component and another; 0 for one that is absent, NaN or alone."""
    mixture = mixture.map(np.asarray)
    largest = np.zeros(mixture.weights.shape)
    for i in range(mixture.n_components):
        for j in range(i):
            pair = mixture.components([i, j])
            distance = _bhattacharyya(pair)
            are_present = np.all(np.isfinite(pair.weights) & (pair.weights != 0), axis=-1)
            overlap = np.where(are_present, np.exp(-distance), 0)
            for k in (i, j):
                largest[..., k] = np.maximum(largest[..., k], overlap)
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


def _overlaps(fits: Any, rows: np.ndarray) -> np.ndarray:
    """`(R, K)`, which components of some fits overlap another almost entirely."""
    return overlaps(fits.mixture.of(rows)) > OVERLAP


def _is_narrowest(fits: Any, rows: np.ndarray) -> np.ndarray:
    """`(R, K)`, which components owe most to the ridge, as many as `ridge_dominated` says."""
    mixture, scales = fits.mixture.of(rows), np.sqrt(fits.ridge[rows])[:, None, :]
    with np.errstate(all="ignore"):
        if mixture.is_diagonal:
            widths = np.min(mixture.covariances / scales**2, axis=-1)
        else:
            widths = _least_eigenvalues(mixture.covariances / scales[..., None] / scales[..., None, :])
    widths = np.where(mixture.weights > 0, widths, np.inf)
    rank = np.argsort(np.argsort(widths, axis=-1, kind="stable"), axis=-1)
    return rank < np.asarray(fits.ridge_dominated)[rows, None]


def _least_eigenvalues(matrices: np.ndarray) -> np.ndarray:
    """`(…,)`, the least eigenvalue of each matrix; infinite where it is not finite."""
    is_finite = np.all(np.isfinite(matrices), axis=(-2, -1))
    least = np.linalg.eigvalsh(np.where(is_finite[..., None, None], matrices, 0.0))[..., 0]
    return np.where(is_finite, least, np.inf)


# Flags of which it is known which components they concern.
_CONCERNED = {"overlapping": _overlaps, "ridge_dominated": _is_narrowest}


def _stands_alone(fits: Any) -> np.ndarray:
    several = np.sum(np.asarray(fits.mixture.weights) != 0, axis=-1) > 1
    # Starts that were no finalists ended early, and could not agree.
    n_ended = np.sum(np.asarray(fits.start_status) == Status.CONVERGED, axis=-1)
    return several & (fits.n_agreeing == 1) & (n_ended >= _FEWEST_STARTS)
