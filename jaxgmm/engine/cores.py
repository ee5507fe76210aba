"""How many cores of a CPU jaxgmm uses. This module imports no JAX, as cores are limited best before JAX starts."""

import os
from typing import Any

from jaxgmm.settings import check_integer

# The environment variable that limits cores where no argument does.
VARIABLE = "JAXGMM_THREADS"


def n_cores(threads: Any = None) -> int:
    """The number of cores to use: those that the system allows this process, but no more than asked for.

    Args:
        threads: the maximum number, or None for that of the environment, if any.

    Raises:
        ValueError: a number that is no positive integer.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, _wanted(threads) or allowed)


def keep_to(threads: Any = None) -> None:
    """Keeps this process to so many cores from now on, or to as many as the environment says.

    Threads of XLA, which are started with JAX, are limited by the cores on which the process may run, on systems that
    have such a limit. Elsewhere only jaxgmm's own threads are limited.

    Args:
        threads: the maximum number, or None for that of the environment, if any.

    Raises:
        ValueError: a number that is no positive integer.
    """
    wanted = _wanted(threads)
    if wanted is None:
        return
    os.environ[VARIABLE] = str(wanted)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:wanted])


def _wanted(threads: Any) -> int | None:
    if threads is not None:
        check_integer("threads", threads, 1)
        return int(threads)
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{VARIABLE} must be an integer of at least 1; got {text!r}.")
    return int(text)
