"""How tests compile the functions that they call directly, and what they compile only in the slow suite."""

import functools
from typing import Any

import jax
import pytest

from jaxgmm.em.covariance import FAMILIES
from jaxgmm.numerics.kernels import compiler_options

# Called as they are, functions would compile each of their operations, and some of them again each time. What is
# compiled at once cannot be part of another program.
at_once = functools.partial(jax.jit, compiler_options=compiler_options("at once"))


def slow(*values: Any) -> Any:
    """A case of a parametrized test that the quick suite leaves out."""
    return pytest.param(*values, marks=pytest.mark.slow)


# Each family is a program of its own. Where all of them go the same way, the quick suite has one, or one of each shape.
FULL_AND_OTHERS = ["full", *(slow(name) for name in FAMILIES if name != "full")]
FULL_DIAG_AND_OTHERS = ["full", "diag", slow("tied"), slow("spherical")]
