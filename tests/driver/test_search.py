"""Which runs go on, and which are left behind."""

import numpy as np
import pytest

from jaxgmm.driver import plan
from jaxgmm.driver.program import Request
from jaxgmm.driver.search import DISTINCT, _among_best, has_search
from jaxgmm.engine.batch import batch
from jaxgmm.engine.devices import machine

MARGIN = 1e-6


@pytest.mark.parametrize(
    ("score", "unsound", "finalists"),
    [
        ([-3.0, -1.0, -2.0, -4.0], [], [1, 2]),
        ([-3.0, -1.0, -2.0, -np.inf], [1, 2], [0, 3]),
        ([-3.0, -1.0, -2.0, -4.0], [0, 1, 2], [3, 1]),
        ([-2.0, -2.0, -2.0, -2.0], [], [0, 1]),
        ([-2.0, -2.0, -2.0 + MARGIN / 3, -4.0], [], [0, 3]),
        ([-2.0, -2.0 + DISTINCT / 2, -1.0, -1.0 - DISTINCT / 2], [], [2, 1]),
        ([-2.5 * DISTINCT - 1e-5, -2.5 * DISTINCT, -2.0, -3.0], [], [1, 2]),
        ([-1.0, -1.0 + DISTINCT / 2, -3.0, -2.0], [1], [0, 3]),
        ([-np.inf, -np.inf, -np.inf, -np.inf], [], [0, 1]),
    ],
    ids=[
        "best",
        "sound first",
        "unsound last",
        "all alike",
        "equal",
        "distinct",
        "close",
        "distinct and sound",
        "none",
    ],
)
def test_finalists_are_sound_and_distinct_before_they_are_best(
    score: list[float], unsound: list[int], finalists: list[int]
) -> None:
    # Beside a fit that would choose otherwise, were rows mixed up.
    scores = np.array([[-4.0, -3.0, -2.0, -1.0], score])
    is_unsound = np.zeros((2, 4), bool)
    is_unsound[1, unsound] = True
    found = _among_best(scores, is_unsound, 2, MARGIN)
    assert np.flatnonzero(found[0]).tolist() == [2, 3]
    assert np.flatnonzero(found[1]).tolist() == sorted(finalists)


@pytest.mark.parametrize(
    ("expected", "changes"),
    [
        (True, {}),
        (True, {"n_init": 1}),
        (True, {"tol": 0.0}),
        (True, {"n_history": 1001}),
        (True, {"search_dtype": "float64"}),
        (False, {"n_init": 1, "tol": 0.0}),
        (False, {"n_init": 1, "n_history": 1001}),
        (False, {"n_init": 1, "search_dtype": "float64"}),
        (False, {"max_iter": 20}),
        (True, {"max_iter": 21}),
        (False, {"precision": "float32"}),
        (False, {"precision": "float64"}),
    ],
)
def test_what_is_searched(expected: bool, changes: dict) -> None:
    asked = {"n_init": 10, "precision": "mixed", "n_history": 0, "tol": 1e-5, "max_iter": 1000} | changes
    search_dtype = asked.pop("search_dtype", "float32")
    request = Request("k-means++", n_finalists=asked["n_init"], key=np.int64(0), **asked)
    sizes = batch(np.zeros((5, 60, 2))).sizes
    model_set = plan.plan_for(sizes, [(3, "full", 1e-12)], request, machine()).buckets[0].model_sets[0]
    assert has_search(model_set.options, model_set.program._replace(search_dtype=search_dtype)) is expected
