"""Kernels of a CPU program: what is compiled together, what apart, and how well.

XLA runs a program on a CPU as a sequence of kernels, roughly one for each operation over whole arrays, and gives some
of them to a pool of threads. Where arrays fit a core's first cache, starting kernels and meeting in the pool costs as
much as the arithmetic. A call marked here is compiled to one kernel, its loops included, on the thread it is called
from.

The marks change no result, and platforms other than a CPU ignore them. Within one kernel XLA vectorises elementwise
loops and products of a matrix and a vector, but neither products of matrices nor sums along the last axis, and it has
no scatter and no sort. All that enters a marked call must be read in it, and none of it may be a constant of the
program: XLA ends the process where it finds an argument without use.

`compiled` tells the compiler how much effort a program is worth. A call that is compiled so cannot be part of another,
and the last bits of its results depend on it.
"""

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
from jax.experimental.xla_metadata import set_xla_metadata
from jaxlib import version

# Neither marks nor options are public interfaces of XLA. Versions of jaxlib, from first to last, that know them.
_KNOWN = ((0, 8), (0, 12))
_WITH_OLD_GENERATOR = ((0, 8), (0, 10))

Effort = Literal["well", "quickly", "at once"]
EFFORTS: tuple[Effort, ...] = get_args(Effort)


def are_known() -> bool:
    """Whether the marks are known to work in this version of jaxlib."""
    return _is_within(_KNOWN)


def compiler_options(effort: Effort) -> dict[str, Any]:
    """What this version's compiler is told.

    Compiled well, loops use vectors of 512 bits where the processor has them, which XLA else leaves half empty.
    Compiled quickly, by the older of XLA's code generators, a program is ready in half the time; but outside marked
    calls its exponentials and logarithms are computed one number at a time. Compiled at once, hardly anything is made
    faster, and a program is ready in a quarter of the time and takes five times as long: for what is little work.
    """
    if effort == "well":
        return {"xla_cpu_prefer_vector_width": 512} if are_known() else {}
    options = {"xla_backend_optimization_level": 1 if effort == "quickly" else 0}
    return options | ({"xla_cpu_use_fusion_emitters": False} if _is_within(_WITH_OLD_GENERATOR) else {})


def _is_within(versions: tuple[tuple[int, int], tuple[int, int]]) -> bool:
    major, minor = version.__version__.split(".")[:2]
    return versions[0] <= (int(major), int(minor)) <= versions[1]


def compiled(function: Callable[..., Any], **options: Any) -> dict[Effort, Callable[..., Any]]:
    """The function, compiled with each effort where it is called with that; `options` are those of `jax.jit`.

    Other platforms than a CPU want "well", whose options they ignore.
    """
    return {effort: jax.jit(function, compiler_options=compiler_options(effort), **options) for effort in EFFORTS}


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
