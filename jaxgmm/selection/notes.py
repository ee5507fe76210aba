"""Notes on the choices of a sweep."""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxgmm.selection.criteria import CRITERIA

# Weights that sum to less than this share of the number of samples with positive weight are not counts of samples.
_FEW_FOR_WEIGHTS = 0.1


class Note(str):
    """A sentence or two on the choice, which may count data sets.

    Attributes:
        sentence: the same, with `{}` in place of the data sets that are counted.
        is_warning: whether the user should act on it.
        is_flagged: whether a flag of each data set says it too; see `jaxgmm.flags`.
    """

    sentence: str = ""
    is_warning: bool = False
    is_flagged: bool = False


def note(sentence: str, of: str = "", *, is_warning: bool = False, is_flagged: bool = False) -> Note:
    """A note from its sentence, and from what stands in place of `{}` there."""
    made = Note(sentence.format(of))
    made.sentence, made.is_warning, made.is_flagged = sentence, is_warning, is_flagged
    return made


def notes_on(
    criterion: str, models: Sequence[tuple[int, str, float]], columns: Mapping[str, np.ndarray]
) -> tuple[Note, ...]:
    """Notes on the choice among M models of B data sets, by the columns `(B, M)` of all."""
    n_samples, n_weighted = columns["n_samples"][:, 0], columns["n_weighted"][:, 0]
    ks, _, ridges = zip(*models, strict=True)
    is_information, score = CRITERIA[criterion].is_information, columns[criterion]
    light = is_information & (n_weighted > 1) & (n_samples < _FEW_FOR_WEIGHTS * n_weighted)
    heavy = is_information & (n_samples > n_weighted / _FEW_FOR_WEIGHTS)
    hopeless = ~np.any(np.isfinite(np.where(columns["fitted"], score, np.inf)), axis=1)
    hopeless &= np.any(np.isposinf(score), axis=1)
    at_largest_k = np.any(columns["at_largest_k"], axis=1)
    notes = []
    if is_information and len(set(ridges)) > 1:
        notes.append(
            note(
                f"K and family are chosen at the smallest ridge that has a sound fit: {criterion} would take the"
                " smallest whatever the data are, as no other has a higher likelihood. criterion='cv' compares ridges."
            )
        )
    of_data_sets = {
        f"The sample weights of {{}} sum to much less than the number of their samples. {criterion} treats weights as"
        " counts, so the number of components that it chooses means little; multiply the weights so that they sum to"
        " the number of samples, or use criterion='cv'.": light,
        f"The sample weights of {{}} sum to much more than the number of their samples. {criterion} treats weights as"
        " counts. If a row does not stand for that many samples, it chooses too many components; multiply the weights"
        " so that they sum to the number of samples.": heavy,
        f"{criterion} is infinite for every model of {{}}, which have too few samples for it; the first model is"
        " chosen.": hopeless,
        f"K = {max(ks)}, the largest that was tried, is chosen for {{}}; a larger K may be better.": at_largest_k,
    }
    for sentence, holds in of_data_sets.items():
        if np.any(holds):
            of = f"{np.count_nonzero(holds)} of {len(holds)} data sets"
            notes.append(note(sentence, of, is_warning=holds is light, is_flagged=holds is at_largest_k))
    return tuple(notes)
