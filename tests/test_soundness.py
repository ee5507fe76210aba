"""One rule says which run, and which model, is chosen."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxgmm.soundness import eligible, first_best, is_sound
from jaxgmm.status import Status

OK, BAD = int(Status.CONVERGED), int(Status.DEGENERATE)


@pytest.mark.parametrize(
    ("known", "status", "expected"),
    [
        ([1, 1, 1], [OK, OK, OK], [1, 1, 1]),
        ([1, 1, 1], [BAD, OK, OK], [0, 1, 1]),
        ([1, 1, 0], [BAD, BAD, OK], [1, 1, 0]),
        ([0, 0, 0], [OK, OK, OK], [0, 0, 0]),
    ],
)
@pytest.mark.parametrize("xp", [np, jnp])
def test_a_degenerate_run_is_eligible_only_where_all_are(xp, known, status, expected) -> None:
    found = eligible(xp.asarray(known, bool), xp.asarray(status))
    assert found.tolist() == np.array(expected, bool).tolist()
    assert isinstance(found, xp.ndarray)


@pytest.mark.parametrize("xp", [np, jnp])
def test_the_first_of_equals_is_the_best(xp) -> None:
    score = xp.asarray([[1.0, 3.0 - 1e-3, 3.0, 9.0], [np.nan, -np.inf, -5.0, 2.0]])
    is_eligible = xp.asarray([[True, True, True, False], [False, True, True, False]])
    assert first_best(score, is_eligible, 1e-2).tolist() == [1, 2]
    assert first_best(score, is_eligible, 1e-4).tolist() == [2, 2]


def test_sound_is_neither_degenerate_nor_spurious() -> None:
    status, spurious = np.array([OK, BAD, OK, int(Status.MAX_ITER)]), np.array([0, 0, 1, 0])
    assert is_sound(status, spurious).tolist() == [True, False, False, True]
