"""How many cores of a CPU jaxgmm uses. This module imports no JAX, as cores are limited best before JAX starts."""

import os
import tempfile
from pathlib import Path
from typing import IO, Any

from jaxgmm.settings import check_integer

try:
    import fcntl
except ImportError:
    # Windows lacks it.
    fcntl = None

# The environment variable that limits cores where no argument does.
VARIABLE = "JAXGMM_THREADS"

# Held open as long as the process lives.
_LOCKS: list[IO] = []


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


def keep_to_one() -> None:
    """Keeps this process to one core from now on, one that no other process has taken in this way, if there is one.

    For workers of an engine that counts cores but does not bind processes to them. The system releases the core when
    the process ends, in whatever way.
    """
    os.environ[VARIABLE] = "1"
    if fcntl is None or not hasattr(os, "sched_setaffinity"):
        return
    directory = Path(tempfile.gettempdir()) / f"jaxgmm-cores-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    for core in sorted(os.sched_getaffinity(0)):
        lock = (directory / str(core)).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        _LOCKS.append(lock)
        os.sched_setaffinity(0, {core})
        return


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
