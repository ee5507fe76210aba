"""Whether JAX is compiling right now, so that a progress bar can say so.

JAX reports the end of each step: tracing, lowering, and the compilation itself. A thread compiles from the end of its
first tracing to the end of the compilation.
"""

import functools
from threading import get_ident

_BEGUN = ("/jax/core/compile/jaxpr_trace_duration", "/jax/core/compile/jaxpr_to_mlir_module_duration")
_ENDED = "/jax/core/compile/backend_compile_duration"

# Threads that are compiling.
_threads: set[int] = set()


@functools.cache
def watch() -> None:
    """From here on `is_compiling` knows."""
    # Whoever imports this does not import JAX yet.
    from jax import monitoring  # noqa: PLC0415

    monitoring.register_event_duration_secs_listener(_heard)


def is_compiling() -> bool:
    """Whether a thread of this process is compiling."""
    return bool(_threads)


def _heard(event: str, _seconds: float, **_: object) -> None:
    if event in _BEGUN:
        _threads.add(get_ident())
    elif event == _ENDED:
        _threads.discard(get_ident())
