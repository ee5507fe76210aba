"""Kernels of a CPU program: what is compiled together, and what apart.

XLA runs a program on a CPU as a sequence of kernels, roughly one for each operation over whole arrays, and gives some
of them to a pool of threads. Where arrays fit a core's first cache, starting kernels and meeting in the pool costs as
much as the arithmetic. A call marked here is compiled to one kernel, its loops included, on the thread it is called
from.

The marks change no result, and platforms other than a CPU ignore them. Within one kernel XLA vectorises elementwise
loops and products of a matrix and a vector, but neither products of matrices nor sums along the last axis, and it has
no scatter and no sort. All that enters a marked call must be read in it, and none of it may be a constant of the
program: XLA ends the process where it finds an argument without use.
"""

from collections.abc import Callable
from importlib import metadata
from typing import Any

import jax
from jax.experimental.xla_metadata import set_xla_metadata

# The marks are no public interface of XLA. These versions of jaxlib, from first to last, are known to understand them.
_KNOWN = ((0, 8), (0, 11))


def are_known() -> bool:
    """Whether the marks are known to work in this version of jaxlib."""
    major, minor = metadata.version("jaxlib").split(".")[:2]
    return _KNOWN[0] <= (int(major), int(minor)) <= _KNOWN[1]


def in_one_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, compiled to one kernel."""
    return _marked(function, inlineable="false", xla_cpu_small_call="true")


def apart(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, its result computed once and kept, rather than again in each operation that reads it."""
    return _marked(function, inlineable="false")


def _marked(function: Callable[..., Any], **marks: str) -> Callable[..., Any]:
    compiled = jax.jit(function)

    def call(*args: Any) -> Any:
        return set_xla_metadata(compiled(*args), **marks)

    return call
