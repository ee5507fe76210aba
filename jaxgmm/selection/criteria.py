"""Criteria for the choice among models, one row of `CRITERIA` each.

Lower is better, as in scikit-learn; mclust's BIC and ICL have the other sign. A criterion is a function of the
`Evidence` of a fit. The likelihood-ratio test has no such function: it compares two fits
(`jaxgmm.selection.likelihood_ratio`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Evidence(NamedTuple):
    """The quantities from which criteria are computed; arrays that broadcast.

    Attributes:
        log_likelihood: total nats of the data.
        n_parameters: free parameters of the model.
        n_samples: number of samples, or the sum of their weights.
        log_assignment: Σ_n log max_k r_nk: zero if every sample clearly belongs to one component. NaN unless needed.
        held_out: total nats of every sample under the model fitted without its fold. NaN unless needed.
    """

    log_likelihood: Any
    n_parameters: Any
    n_samples: Any
    log_assignment: Any = np.nan
    held_out: Any = np.nan


def bic(evidence: Evidence) -> Any:
    """-2 log L + p log n (Schwarz, 1978, "Estimating the dimension of a model")."""
    penalty = evidence.n_parameters * np.log(np.maximum(evidence.n_samples, 1))
    return penalty - 2 * evidence.log_likelihood


def aic(evidence: Evidence) -> Any:
    """-2 log L + 2 p (Akaike, 1974, "A new look at the statistical model identification")."""
    return 2 * (evidence.n_parameters - evidence.log_likelihood)


def aicc(evidence: Evidence) -> Any:
    """AIC + 2 p (p + 1) / (n - p - 1), infinite where n ≤ p + 1 (Hurvich and Tsai, 1989)."""
    p, rest = evidence.n_parameters, evidence.n_samples - evidence.n_parameters - 1.0
    correction = 2 * p * (p + 1) / np.where(rest > 0, rest, 1)
    return np.where(rest > 0, aic(evidence) + correction, np.where(np.isnan(evidence.log_likelihood), np.nan, np.inf))


def icl(evidence: Evidence) -> Any:
    """BIC - 2 Σ log max r: BIC of the classified data (Biernacki, Celeux and Govaert, 2000)."""
    return bic(evidence) - 2 * evidence.log_assignment


def cv(evidence: Evidence) -> Any:
    """-2 log L of samples held out in turn (Smyth, 2000, "Model selection for probabilistic clustering")."""
    return -2 * np.asarray(evidence.held_out)


class Criterion(NamedTuple):
    """What distinguishes a criterion.

    Attributes:
        title: its name in a text.
        of_evidence: the criterion of a fit; None for a test of each K against the next, whose p-values are no scores.
        is_information: whether it penalises a likelihood. The likelihood of a larger ridge is never higher, so such
            criteria cannot compare ridges.
        reads: the field of `Evidence` that it alone needs, beside those that every fit has.
    """

    title: str
    of_evidence: Callable[[Evidence], Any] | None
    is_information: bool = False
    reads: str | None = None

    @property
    def is_test(self) -> bool:
        """Whether it is a test of each K against the next."""
        return self.of_evidence is None


CRITERIA = {
    "bic": Criterion("BIC", bic, is_information=True),
    "aic": Criterion("AIC", aic, is_information=True),
    "aicc": Criterion("AICc", aicc, is_information=True),
    "icl": Criterion("ICL", icl, is_information=True, reads="log_assignment"),
    "cv": Criterion("cross-validation", cv, reads="held_out"),
    "lrt": Criterion("likelihood-ratio test", None),
}
