"""The examples in docstrings print what they show."""

import doctest

import pytest

import jaxgmm
from jaxgmm import frames, storage
from jaxgmm.sklearn import GaussianMixture
from jaxgmm.tables import groups, keys

FUNCTIONS = [getattr(jaxgmm, name) for name in jaxgmm.__all__ if callable(getattr(jaxgmm, name))]
FUNCTIONS += [frames.fit_groups, groups.group, keys.typed, storage.save, GaussianMixture]
WITH_EXAMPLE = [
    "diagnose",
    "fit",
    "log_prob",
    "order_components",
    "outlier_p_values",
    "start_stream",
    "fit_stream",
    "fit_groups",
    "group",
    "typed",
    "save",
    "GaussianMixture",
]


def doctests_of(function) -> list[doctest.DocTest]:
    return [test for test in doctest.DocTestFinder(recurse=False).find(function, function.__name__) if test.examples]


def failures(test: doctest.DocTest) -> str:
    """What a doctest prints when it fails; nothing when it holds."""
    report: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=report.append)
    return "".join(report)


def test_the_examples_are_found() -> None:
    assert set(WITH_EXAMPLE) <= {function.__name__ for function in FUNCTIONS if doctests_of(function)}


@pytest.mark.slow
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_examples_print_what_they_show(function) -> None:
    assert "".join(map(failures, doctests_of(function))) == ""


def test_other_output_than_shown_is_noticed() -> None:
    def one() -> None:
        """Example: one and one.

        >>> 1 + 1
        3
        """

    (test,) = doctests_of(one)
    assert "Expected:\n    3\nGot:\n    2\n" in failures(test)
