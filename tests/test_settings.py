"""Names that users may ask for are those that there are."""

import subprocess
import sys
from typing import get_args

import numpy as np
import pytest

import jaxgmm
from jaxgmm import settings
from jaxgmm.em import covariance, methods
from jaxgmm.selection import criteria


def test_names_are_those_of_the_tables() -> None:
    assert tuple(covariance.FAMILIES) == settings.FAMILIES
    # Order counts: the first is the default.
    assert tuple(methods.METHODS) == settings.METHODS
    assert get_args(settings.Criterion) == tuple(criteria.CRITERIA)


@pytest.mark.parametrize("name", settings.BY_OPTAX)
def test_a_method_that_needs_optax_says_so_in_one_sentence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optax", None)
    with pytest.raises(ImportError, match=rf"^method='{name}' needs optax: pip install 'jaxgmm\[optax\]'\.$"):
        jaxgmm.fit(np.zeros((3, 1)), 1, method=name)


def test_names_are_known_without_numpy_or_jax() -> None:
    program = "import sys, jaxgmm.settings; assert not {'numpy', 'jax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("tol", [0, 1e-3, np.float32(1e-3), np.float64(0), np.int64(1)])
def test_numbers_of_any_real_type_are_taken(tol: object) -> None:
    settings.check_runs(1, None, tol, 10, "mixed")


@pytest.mark.parametrize("tol", [-1, float("nan"), float("inf"), 1j, np.complex64(1), "1", None, np.zeros(1)])
def test_what_is_no_finite_number_is_refused(tol: object) -> None:
    with pytest.raises(ValueError, match="tol must be a finite number of at least 0"):
        settings.check_runs(1, None, tol, 10, "mixed")
