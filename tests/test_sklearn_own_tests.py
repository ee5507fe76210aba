"""scikit-learn's own tests of its GaussianMixture, from the installed version, with only the import changed."""

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import sklearn

ORIGINAL = "sklearn.mixture.tests.test_gaussian_mixture"
IMPORT = "from sklearn.mixture import GaussianMixture\n"
CHANGED = "from jaxgmm.sklearn import GaussianMixture\n"

# Tests that do not speak of behaviour that is claimed, and the first version of scikit-learn that has them.
SKIPPED = {
    "test_gaussian_mixture_all_init_does_not_estimate_gaussian_parameters": (
        "1.3",
        "counts the calls of a private function of scikit-learn, of which the engine makes none",
    ),
    "test_gaussian_mixture_array_api_compliance": ("1.8", "the array API is not supported, as the docstring says"),
}

# Every test has shapes of its own for every family, each of which is compiled. These are of few.
QUICK = {f"test_{name}" for name in ("gaussian_mixture_attributes", "check_weights", "check_means")}

# scikit-learn's own settings apply to its tests, not this suite's: a fit that does not converge warns.
pytestmark = pytest.mark.filterwarnings("default")


def with_import_changed() -> ModuleType:
    spec = importlib.util.find_spec(ORIGINAL)
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).read_text()
    assert source.count(IMPORT) == 1
    module = ModuleType("scikit_learn_with_jaxgmm")
    exec(compile(source.replace(IMPORT, CHANGED), spec.origin, "exec"), module.__dict__)
    return module


def with_lists(test: Callable) -> Callable:
    """The same test where its parameters come from generators, of which pytest 9 disapproves."""
    test.pytestmark = [
        pytest.mark.parametrize(mark.args[0], list(mark.args[1]), **mark.kwargs).mark
        if mark.name == "parametrize"
        else mark
        for mark in getattr(test, "pytestmark", [])
    ]
    return test


THEIRS = {name: value for name, value in vars(with_import_changed()).items() if name.startswith("test_")}
globals().update({name: with_lists(test) for name, test in THEIRS.items() if name not in SKIPPED})
for name in THEIRS.keys() - QUICK:
    pytest.mark.slow(THEIRS[name])


@pytest.mark.parametrize("name", SKIPPED)
def test_skipped(name: str) -> None:
    pytest.skip(SKIPPED[name][1])


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def global_dtype(request: pytest.FixtureRequest) -> type:
    return request.param


@pytest.fixture
def global_random_seed() -> int:
    return 42


def test_whatever_is_skipped_is_there() -> None:
    version = tuple(map(int, re.findall(r"\d+", sklearn.__version__)[:2]))
    for name, (since, _) in SKIPPED.items():
        assert name in THEIRS or version < tuple(map(int, since.split("."))), f"{name} is no longer there"


def test_their_tests_are_collected() -> None:
    assert len(THEIRS) > 30
    assert THEIRS.keys() >= QUICK
