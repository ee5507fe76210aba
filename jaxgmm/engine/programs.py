"""Compiled programs, kept from one process to the next."""

from pathlib import Path

import jax

# Programs that compile faster than this are not worth a file.
_WORTH_A_FILE = 0.1


def keep_programs(directory: str | Path) -> None:
    """Keeps compiled programs in a directory, where this and later processes find them again.

    A first `fit` then takes a fraction of a second instead of seconds. This is the persistent cache of JAX
    (`jax_compilation_cache_dir`), set so that it holds programs as small as jaxgmm's too; it concerns everything that
    the process compiles. Files can be deleted at any time.

    Args:
        directory: where to keep them; made if need be.

    Example:
        >>> import jaxgmm, tempfile
        >>> jaxgmm.keep_programs(tempfile.mkdtemp())
    """
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _WORTH_A_FILE)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
