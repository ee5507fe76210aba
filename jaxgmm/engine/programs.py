"""keep_programs(): compiled programs are kept from one process to the next."""

import os
import sys
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
        directory: where to keep them; created if needed.

    Example:
        >>> import jaxgmm, tempfile
        >>> jaxgmm.keep_programs(tempfile.mkdtemp())
    """
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _WORTH_A_FILE)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def keep_for_next_time() -> None:
    """Keeps programs in the directory that the user has set, or else in the user's cache if that is writable."""
    chosen = kept_in()
    if chosen is not None:
        keep_programs(chosen)
        return
    directory = _cache_of_user()
    if directory is not None and _can_be_written(directory):
        keep_programs(directory)


def kept_in() -> str | None:
    """Where programs are kept, by this module or JAX_COMPILATION_CACHE_DIR; None if they are not."""
    return jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]


def _cache_of_user() -> Path | None:
    """The system's usual cache directory for jaxgmm's programs; None if the user has no home."""
    try:
        home = Path.home()
    except RuntimeError:
        return None
    # The XDG Base Directory Specification says to ignore a relative path.
    if Path(xdg := os.environ.get("XDG_CACHE_HOME", "")).is_absolute():
        cache = Path(xdg)
    elif sys.platform == "darwin":
        cache = home / "Library" / "Caches"
    elif sys.platform == "win32":
        cache = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    else:
        cache = home / ".cache"
    return cache / "jaxgmm" / "programs"


def _can_be_written(directory: Path) -> bool:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(directory, os.W_OK | os.X_OK)
