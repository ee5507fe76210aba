"""EM as in scikit-learn, from all starts at once."""

from dataclasses import replace

import jax
import numpy as np

from jaxgmm.driver.arguments import checked_key
from jaxgmm.driver.program import Request
from jaxgmm.engine.batch import batch
from jaxgmm.engine.devices import power_of_two_above
from jaxgmm.fit_result import FitResult
from jaxgmm.fitting import fit_batch
from jaxgmm.mixture import Mixture
from jaxgmm.status import Status

# A history is carried through every iteration, so it is no longer than all but a few runs.
_SHORTEST_HISTORY, _LONGEST_HISTORY = 128, 1024


def fit_starts(
    x: np.ndarray,
    starts: Mixture,
    covariance_type: str,
    tol: float,
    max_iter: int,
    reg_covar: float,
    sample_weight: np.ndarray | None = None,
) -> FitResult:
    """EM as in scikit-learn, from each of R starts on one data set.

    Unlike in `jaxgmm.fit`, the ridge is absolute, and a run makes the M-step of its last E-step before it ends. There
    is no choice among the starts.

    Args:
        x: `(N, D)`, float64.
        starts: `(R, K, …)`, in data units; their weights need not sum to 1.
        covariance_type: as for `fit`.
        tol: as for the method `"em"` of `fit`.
        max_iter: at least 1.
        reg_covar: ridge added to every component variance, in squared data units.
        sample_weight: `(N,)`, float64, not negative; None for 1.

    Returns:
        one row for each start. `n_iter` counts the last M-step; `log_likelihood`, and the last entry of `history`, are
        those of the parameters before it.
    """
    # Repeated, the data set is still a single one: it shares programs with others of its length.
    data = batch(x).weighted(sample_weight).repeated(len(starts.weights))._replace(is_single=True)
    model = (starts.n_components, covariance_type, float(reg_covar))

    def fitted(starts: Mixture, tol: float, max_iter: int, longest: int) -> FitResult:
        # Programs are compiled for the length of the history, so few lengths are used.
        n_history = power_of_two_above(max(_SHORTEST_HISTORY, longest))
        request = Request(
            *("mixture", 1, 1, "float64", tol, max_iter, checked_key(0)),
            n_history=n_history,
            absolute_ridge=True,
            method="em",
        )
        return fit_batch(data, starts, model, request, lambda _: None)

    most, length = int(max_iter) - 1, min(int(max_iter), _LONGEST_HISTORY)
    result = fitted(starts, float(tol), most, length)
    longest = int(np.max(result.n_iter)) + 1
    if longest > _LONGEST_HISTORY:
        result = fitted(starts, float(tol), most, longest)
    return _with_m_step_of(fitted(result.mixture, 0.0, 1, length), result)


def _with_m_step_of(one_more: FitResult, result: FitResult) -> FitResult:
    """Runs after the M-step that follows the E-step they ended with; `DEGENERATE` where that is not sound."""
    has_ended = np.isin(result.status, (Status.CONVERGED, Status.MAX_ITER))
    is_made = has_ended & (one_more.n_iter == 1)
    status = np.where(has_ended & ~is_made, Status.DEGENERATE, result.status).astype(np.int32)

    def after(new: np.ndarray, old: np.ndarray) -> np.ndarray:
        return np.where(is_made.reshape(-1, *[1] * (old.ndim - 1)), new, old)

    return replace(
        result,
        mixture=jax.tree.map(after, one_more.mixture, result.mixture),
        n_iter=result.n_iter + is_made,
        status=status,
        start_status=status[:, None],
    )
