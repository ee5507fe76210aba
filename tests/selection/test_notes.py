"""Notes on a sweep: sentences that know which data sets they count."""

import copy
import pickle

import numpy as np

from jaxgmm.selection.notes import Note, note, notes_on

# Of two data sets and two models: the second data set has light weights, and the larger K is chosen for both.
COLUMNS = {
    "n_samples": np.array([[9.0, 9.0], [0.5, 0.5]]),
    "n_weighted": np.full((2, 2), 9),
    "fitted": np.ones((2, 2), bool),
    "bic": np.array([[2.0, 1.0], [2.0, 1.0]]),
    "at_largest_k": np.array([[False, True], [False, True]]),
}


def test_notes_count_data_sets_and_know_what_they_say_without() -> None:
    light, largest = notes_on("bic", [(1, "full", 0.0), (2, "full", 0.0)], COLUMNS)
    assert light.startswith("The sample weights of 1 of 2 data sets sum to much less")
    assert largest.startswith("K = 2, the largest that was tried, is chosen for 2 of 2 data sets;")
    assert [own.sentence.count("{}") for own in (light, largest)] == [1, 1]
    assert [own.is_warning for own in (light, largest)] == [True, False]
    assert [own.is_flagged for own in (light, largest)] == [False, True]


def test_copies_of_a_note_are_notes() -> None:
    known = note("Weights of {}.", "1 of 4 data sets", is_warning=True)
    for again in (pickle.loads(pickle.dumps(known)), copy.deepcopy(known)):
        assert isinstance(again, Note)
        assert (again, again.sentence, again.is_warning, again.is_flagged) == (known, "Weights of {}.", True, False)
