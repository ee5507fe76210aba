"""Which fits to distrust, and why: the flags of `jaxgmm.flags`, also of fits that were read from files."""

import numpy as np

import jaxgmm
from jaxgmm import doubts
from jaxgmm.report.models import Models

# Flags that speak against the fit itself.
_SERIOUS = ("no_answer", "max_iter", "degenerate", "spurious", "misfit")
# Names, sentences, and whether a flag is serious.
FLAGS = tuple((name, f"It {sentence}.", name in _SERIOUS) for name, sentence in doubts.FLAGS.items())
# Adjusted p-values, and leads of the criterion, below which the page says so in words.
MISFIT, CLOSE, OVERLAP = 0.01, 2.0, doubts.OVERLAP


def flagged(
    result: "jaxgmm.FitResult",
    models: Models | None,
    checks: "jaxgmm.Diagnosis",
    texts: list[str] | None,
    overlap: np.ndarray,
) -> dict[str, np.ndarray]:
    """Whether each flag is raised for each of B fits.

    Args:
        result: the fits, or the chosen ones. It may hold no starts.
        models: those that were tried, or None.
        checks: the diagnosis of the fits.
        texts: `(B,)`, the flags of a table of fits that holds no starts, or None.
        overlap: `(B,)`, the largest overlap of two components of each fit.

    Returns:
        arrays `(B,)` of bool by the names of `FLAGS`, in their order.
    """
    found = doubts.of_fits(result, overlap)
    found |= doubts.of_residuals(found["no_answer"], checks)
    if texts is not None:
        # Tables hold no starts, but the flag.
        found["few_agreeing"] = np.array(["few_agreeing" in text.split(", ") for text in texts], bool)
    nothing = np.zeros(len(found["no_answer"]), bool)
    found["at_largest_k"] = nothing if models is None else models.of_chosen(models.at_largest_k, False)
    found["passed_over"] = nothing if models is None else models.any_of_group(models.passed_over)
    return {name: found[name] for name, *_ in FLAGS}
