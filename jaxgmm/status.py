"""How a run ended: a code, and a sentence that says what to do."""

from enum import IntEnum


class Status(IntEnum):
    """Outcome of a run or a fit. ``Status(code).sentence`` explains it and proposes the remedy.

    When several outcomes apply, problems of the data take precedence: ``NONFINITE``, then ``TOO_FEW_SAMPLES``, then how
    EM ended.
    """

    CONVERGED = 0
    MAX_ITER = 1
    DEGENERATE = 2
    NONFINITE = 3
    TOO_FEW_SAMPLES = 4

    @property
    def sentence(self) -> str:
        """What the outcome means and what to do about it."""
        return _SENTENCES[self]


_SENTENCES = {
    Status.CONVERGED: "The mean log-likelihood per sample had stopped rising, to within tol, by the method's rule.",
    Status.MAX_ITER: (
        "The mean log-likelihood per sample was not known to be within tol of its limit after max_iter iterations, or "
        "all passes over a stream; allow more, or raise tol."
    ),
    Status.DEGENERATE: (
        "A component lost its support or its variance, and the last sound parameters, if any, are returned; use fewer "
        "components or a simpler covariance_type, raise reg_covar, or drop constant features."
    ),
    Status.NONFINITE: "The data or their weights hold NaN or infinity; remove such samples or give them weight 0.",
    Status.TOO_FEW_SAMPLES: "Fewer samples with positive weight than components; use fewer components or merge groups.",
}
