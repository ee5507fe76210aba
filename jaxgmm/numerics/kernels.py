"""Kernels of a CPU program: which operations are compiled together or separately, and with how much effort.

XLA runs a program on a CPU as a sequence of kernels, roughly one for each operation over whole arrays, and gives some
of them to a pool of threads. If arrays fit a core's first-level cache, starting kernels and synchronising the pool
costs as much as the arithmetic. A call marked here is compiled to one kernel, its loops included, on the thread it is
called from.

The marks change no result, and platforms other than a CPU ignore them. Within one kernel XLA vectorises elementwise
loops and products of a matrix and a vector, but neither products of matrices nor sums along the last axis, and it has
no scatter and no sort. A marked call must read all of its arguments, and none of them may be a constant of the program:
XLA ends the process if it finds an unused argument.

`compiled` tells the compiler how much effort a program is worth. A call compiled this way cannot be part of another
program, and the last bits of its results depend on the effort.
"""

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
from jax.experimental.xla_metadata import set_xla_metadata
from jaxlib import version

# Neither marks nor options are public interfaces of XLA. First and last versions of jaxlib that support them.
_KNOWN = ((0, 8), (0, 12))
_WITH_OLD_GENERATOR = ((0, 8), (0, 10))

Effort = Literal["well", "quickly", "at once"]
EFFORTS: tuple[Effort, ...] = get_args(Effort)


def are_known() -> bool:
    """Whether the marks are known to work in this version of jaxlib."""
    return _is_within(_KNOWN)


def compiler_options(effort: Effort) -> dict[str, Any]:
    """The options for this version's compiler.

    "well": loops use vectors of 512 bits if the processor has them, which XLA by default leaves half empty.
    "quickly": the older of XLA's code generators compiles in half the time; but outside marked calls, exponentials and
    logarithms are computed one number at a time. "at once": with almost no optimisation, a program compiles in a
    quarter of the time and takes five times as long to run, which suits little work.
    """
    if effort == "well":
        return {"xla_cpu_prefer_vector_width": 512} if are_known() else {}
    options = {"xla_backend_optimization_level": 1 if effort == "quickly" else 0}
    return options | ({"xla_cpu_use_fusion_emitters": False} if _is_within(_WITH_OLD_GENERATOR) else {})


def _is_within(versions: tuple[tuple[int, int], tuple[int, int]]) -> bool:
    major, minor = version.__version__.split(".")[:2]
    return versions[0] <= (int(major), int(minor)) <= versions[1]


def compiled(function: Callable[..., Any], **options: Any) -> dict[Effort, Callable[..., Any]]:
    """The function jitted with each effort, by name; `options` are those of `jax.jit`.

    On platforms other than a CPU use "well", whose options they ignore.
    """
    return {effort: jax.jit(function, compiler_options=compiler_options(effort), **options) for effort in EFFORTS}


def in_one_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, compiled to one kernel."""
    return _marked(function, inlineable="false", xla_cpu_small_call="true")


def apart(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with its result computed once and kept, not recomputed in each operation that reads it."""
    return _marked(function, inlineable="false")


def _marked(function: Callable[..., Any], **marks: str) -> Callable[..., Any]:
    compiled = jax.jit(function)

    def call(*args: Any) -> Any:
        return set_xla_metadata(compiled(*args), **marks)

    return call
