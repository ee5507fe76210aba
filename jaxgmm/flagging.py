"""flags(): which fits to distrust, and why.

A status says how a run of EM ended, not whether to believe it. A flag is a reason for a second look; a fit without
flags has an answer that none of these checks speaks against.
"""

from typing import Any

import numpy as np

from jaxgmm.diagnosis import diagnose
from jaxgmm.doubts import of_fits, of_residuals
from jaxgmm.fit_result import FitResult
from jaxgmm.selection.sweep_result import Sweep


def flags(result: Any, x: Any = None, sample_weight: Any = None) -> dict[str, np.ndarray]:
    """Which fits to distrust, by reason.

    Args:
        result: the result of `fit` or `sweep`, for B data sets; or the fits of B groups of a frame, or of one, which
            have samples and weights of their own.
        x: the samples, as for `fit`; without them residuals are not checked.
        sample_weight: as for `fit`.

    Returns:
        `(B,)` for each reason in `FLAGS`, whether it holds: `no_answer`; `max_iter`; `far_from_converged` (`gap` is
        above 1e-4); `degenerate`; `spurious`; `ridge_dominated`; `start_passed_over`; `few_agreeing` (K > 1, and one
        start of at least four reached the log-likelihood of the fit, to within 1e-3 nats per sample); of a sweep,
        `at_largest_k` and `passed_over`; `overlapping` (for two components, ∫ √(p q) is above 0.8); and with x
        `misfit` (a distance of `jaxgmm.diagnose` is above 0.05, and its p-value, times the number of them, below
        0.001).

    Raises:
        ValueError: not a result, or samples that do not match it.
    """
    if x is None and hasattr(result, "flags"):
        return result.flags()
    if hasattr(result, "sweep"):
        result = result.result if result.sweep is None else result.sweep
    fits = result.best if isinstance(result, Sweep) else result
    if not isinstance(fits, FitResult):
        raise ValueError(f"result must be a jaxgmm.FitResult or Sweep; got {type(result).__name__}.")
    found = of_fits(fits)
    if isinstance(result, Sweep):
        found |= _of_choice(result)
    if x is not None:
        found |= of_residuals(found["no_answer"], diagnose(fits, x, sample_weight))
    return found


def _of_choice(sweep: Sweep) -> dict[str, np.ndarray]:
    """Flags of the choice among models, from the table."""
    n_data_sets, found = len(sweep.best.status) if np.ndim(sweep.best.status) else 1, {}
    for name in ("at_largest_k", "passed_over"):
        rows = sweep.table["data_set"][sweep.table[name]]
        found[name] = (np.bincount(rows, minlength=n_data_sets) > 0).reshape(np.shape(sweep.best.status))
    return found
