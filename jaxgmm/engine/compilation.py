"""Whether JAX is compiling right now, so that a progress bar can say so.

JAX reports the ends of tracing, of lowering, and of the compilation itself. So a thread compiles from the end of
lowering to the end of compilation, and, where a new program is expected, from the beginning. The end of tracing says
nothing: what is traced for its shapes alone is never compiled.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident

_BEGUN = "/jax/core/compile/jaxpr_to_mlir_module_duration"
_ENDED = "/jax/core/compile/backend_compile_duration"

# Threads that are compiling.
_threads: set[int] = set()


def watch() -> None:
    """From here on `is_compiling` knows.

    What was lowered before and never compiled is forgotten.
    """
    _listen()
    _threads.clear()


@functools.cache
def _listen() -> None:
    # Whoever imports this does not import JAX yet.
    from jax import monitoring  # noqa: PLC0415

    monitoring.register_event_duration_secs_listener(_heard)  # pyright: ignore[reportArgumentType]


@contextmanager
def expected() -> Iterator[None]:
    """What is done here begins with a compilation."""
    _threads.add(get_ident())
    try:
        yield
    finally:
        _threads.discard(get_ident())


def is_compiling() -> bool:
    """Whether a thread of this process is compiling."""
    return bool(_threads)


def _heard(event: str, _seconds: float, **_: object) -> None:
    if event == _BEGUN:
        _threads.add(get_ident())
    elif event == _ENDED:
        _threads.discard(get_ident())
