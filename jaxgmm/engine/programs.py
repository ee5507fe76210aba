"""keep_programs(): compiled programs are kept from one process to the next."""

import importlib
import os
import sys
import time
import zlib
from importlib.util import find_spec
from pathlib import Path

import jax

from jaxgmm.engine import caches

# Programs that compile faster than this are not worth a file.
_WORTH_A_FILE = 0.1

# Its time is that of the last check for truncated files. A file that is younger than some seconds may still be written.
_CHECKED, _WRITING = ".checked-by-jaxgmm", 10.0

# The first bytes of what zstd compressed.
_ZSTD = b"\x28\xb5\x2f\xfd"


def keep_programs(directory: str | Path) -> None:
    """Keeps compiled programs in a directory, where this and later processes find them again.

    A first `fit` then takes a fraction of a second instead of seconds. This is the persistent cache of JAX
    (`jax_compilation_cache_dir`), set so that it holds programs as small as jaxgmm's too; it concerns everything that
    the process compiles. Files can be deleted at any time, and several processes may share a directory. A file that
    was truncated, by a process that was killed or by a full disk, would be found unreadable by every later process;
    such files are removed here.

    Args:
        directory: where to keep them; created if needed.

    Example:
        >>> import jaxgmm, tempfile
        >>> jaxgmm.keep_programs(tempfile.mkdtemp())
    """
    _remove_truncated(Path(directory))
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _WORTH_A_FILE)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def _remove_truncated(directory: Path) -> None:
    """Removes programs that cannot be decompressed, among those written since the last check."""
    checked, now = directory / _CHECKED, time.time()
    try:
        since = checked.stat().st_mtime if checked.exists() else 0.0
        for path in directory.glob("*-cache"):
            if since <= path.stat().st_mtime < now - _WRITING and _is_truncated(path.read_bytes()):
                path.unlink(missing_ok=True)
        if directory.is_dir():
            checked.touch()
            os.utime(checked, (now - _WRITING, now - _WRITING))
    except OSError:
        # Another process removed a file, or the directory cannot be written: then nothing is kept there either.
        return


def _is_truncated(entry: bytes) -> bool:
    """Whether a file of JAX's cache is not complete. JAX compresses by zstd where it finds it, and else by zlib."""
    if not entry.startswith(_ZSTD):
        decompress, error = zlib.decompress, zlib.error
    elif find_spec("zstandard"):
        module = importlib.import_module("zstandard")
        decompress, error = module.ZstdDecompressor().decompress, module.ZstdError
    elif sys.version_info >= (3, 14):
        module = importlib.import_module("compression.zstd")
        decompress, error = module.decompress, module.ZstdError
    else:
        return False
    try:
        decompress(entry)
    except error:
        return True
    return False


def keep_for_next_time() -> None:
    """Keeps programs in the directory that the user has set, or else in the user's cache if that is writable."""
    chosen = kept_in()
    if chosen is not None:
        keep_programs(chosen)
        return
    directory = caches.of_user()
    if directory is not None:
        keep_programs(directory)


def kept_in() -> str | None:
    """Where programs are kept, by this module or JAX_COMPILATION_CACHE_DIR; None if they are not."""
    return jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
