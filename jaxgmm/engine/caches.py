"""Where compiled programs are kept where the user has not said. This module imports no JAX."""

import os
import platform
import sys
from pathlib import Path


def of_user() -> Path | None:
    """The system's usual cache directory for jaxgmm's programs, made if needed; None if it cannot be written."""
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
    return _made(cache / "jaxgmm" / "programs")


def of_node() -> Path | None:
    """A directory for the programs of this machine alone, in JAX_COMPILATION_CACHE_DIR or in the user's cache.

    Machines of a cluster may share a home, but not all processors run the same programs.
    """
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    directory = Path(chosen) if chosen else of_user()
    return None if directory is None else _made(directory / platform.node())


def _made(directory: Path) -> Path | None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return directory if os.access(directory, os.W_OK | os.X_OK) else None
