"""Which fits to distrust, and why."""

import numpy as np

import jaxgmm
from jaxgmm.report.models import Models

# Names, sentences, and whether a flag speaks against the fit itself.
FLAGS = (
    ("no answer", "There are no parameters; the status says why.", True),
    ("spurious", "A component rests on a few samples, or on equal values.", True),
    ("misfit", "The samples do not look like the mixture: the adjusted p-value of the residuals is below 0.01.", True),
    ("ridge", "A component owes more than a tenth of a variance to the ridge.", False),
    ("K at limit", "The largest K that was tried was chosen; a larger one might describe the samples better.", False),
    ("close call", "Another K is within 2 of the criterion.", False),
    ("lone start", "Of several starts only one reached this optimum; there may be a better one.", False),
    ("overlap", "Two components overlap by more than 0.8; they may describe one cluster.", False),
    ("passed over", "A likelier start, or a better model by the criterion, was not taken: it is not sound.", False),
)
MISFIT, CLOSE, OVERLAP = 0.01, 2.0, 0.8


def flagged(
    result: "jaxgmm.FitResult",
    models: Models | None,
    n_samples: np.ndarray,
    p_value: np.ndarray,
    overlap: np.ndarray,
) -> dict[str, np.ndarray]:
    """Whether each flag is raised for each of B fits.

    Args:
        result: the fits, or the chosen ones. It may hold no starts.
        models: those that were tried, or None.
        n_samples: `(B,)`, numbers of samples, or sums of their weights.
        p_value: `(B,)`, adjusted p-values of the residuals; NaN where there is no answer.
        overlap: `(B,)`, the largest overlap of two components; NaN where there is no answer.

    Returns:
        arrays `(B,)` of bool by the names of `FLAGS`, in their order.
    """
    has_answer = np.isfinite(result.mixture.weights).all(axis=1)
    nothing = np.zeros(len(has_answer), dtype=bool)
    found = {
        "no answer": ~has_answer,
        "spurious": result.spurious > 0,
        "misfit": p_value < MISFIT,
        "ridge": result.ridge_dominated > 0,
        "K at limit": nothing,
        "close call": nothing,
        "lone start": has_answer & (_n_agreeing(result, n_samples) == 1),
        "overlap": overlap > OVERLAP,
        "passed over": result.start_passed_over,
    }
    if models is not None:
        found["K at limit"] = models.of_chosen(models.at_largest_k, False)
        found["close call"] = models.lead < CLOSE
        # If no starts agree anywhere, each model had only one.
        of_several = np.any(models.n_agreeing > 1) & (models.of_chosen(models.k, 0) > 1)
        found["lone start"] = has_answer & of_several & (models.of_chosen(models.n_agreeing, 0) == 1)
        found["passed over"] = result.start_passed_over | models.any_of_group(models.passed_over)
    return found


def _n_agreeing(result: "jaxgmm.FitResult", n_samples: np.ndarray) -> np.ndarray:
    """`(B,)`, how many starts reached the same optimum, as in `jaxgmm.Sweep.table`; 0 of fewer than two starts."""
    from jaxgmm.soundness import SAME_OPTIMUM  # noqa: PLC0415 (imports JAX)

    starts = result.start_log_likelihood
    if starts.shape[1] < 2:
        return np.zeros(len(starts), dtype=np.int64)
    gaps = np.abs(result.log_likelihood[:, None] - starts)
    return np.sum(gaps <= SAME_OPTIMUM * n_samples[:, None], axis=1)
