"""Detection of forks after which JAX cannot compute: its threads do not survive a fork.

A child forked from a process that has computed inherits JAX's data, but none of the threads that work on them: it would
wait for ever. Forks are detected from the import of the package on. In such a child, the package's modules hold an
object that raises in place of `jax`, so that every public function raises without a check of its own. Inner functions
that need only `jax.numpy` are not guarded.
"""

import os
import sys
from types import ModuleType
from typing import Any


class ForkedError(RuntimeError):
    """This process was forked from one in which JAX had started its threads: it cannot compute."""


_forked_from: int | None = None


def check() -> None:
    """Raises ForkedError if a computation would wait for ever."""
    if _forked_from is not None:
        raise ForkedError(
            f"this process was forked from process {_forked_from} after JAX had started there, and JAX's threads "
            "do not survive a fork; start processes with 'spawn' or 'forkserver', for example with "
            "ProcessPoolExecutor(mp_context=multiprocessing.get_context('spawn')) or "
            "multiprocessing.set_start_method('forkserver'), or fork before anything is computed."
        )


def withdraw_jax() -> None:
    """In a child that cannot compute, replaces JAX in the imported modules of the package."""
    if _forked_from is None:
        return
    for name, module in list(sys.modules.items()):
        if name.startswith("jaxgmm.") and isinstance(vars(module).get("jax"), ModuleType):
            vars(module)["jax"] = _refusing


def _refuse(_: str) -> Any:
    check()


_refusing = ModuleType("jax")
_refusing.__getattr__ = _refuse  # pyright: ignore[reportAttributeAccessIssue]


def _after_fork() -> None:
    global _forked_from  # noqa: PLW0603 (what a fork has done to a process belongs to the process)
    if _forked_from is None and _has_begun():
        _forked_from = os.getppid()
        withdraw_jax()


def _has_begun() -> bool:
    """Whether JAX has begun to create its backend, with its threads.

    JAX's own `backends_are_initialized` takes a lock, which after a fork may be held by a thread that no longer exists.
    """
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bool(getattr(bridge, "_at_fork_handler_installed", False) or getattr(bridge, "_backends", False))


# Windows cannot fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
