"""Files: read where they can be, and written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def readable(path: str | Path, kind: str) -> Path:
    """The path of a file that may be read.

    Args:
        path: the file.
        kind: what to name instead, such as "one Parquet or CSV file".

    Raises:
        OSError: there is none, or it may not be read.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; check the path.")
    if not path.is_file():
        raise IsADirectoryError(f"{path} is not a file; name {kind}.")
    if not os.access(path, os.R_OK):
        raise PermissionError(f"{path} may not be read; change its permissions.")
    return path


@contextmanager
def written(path: str | Path, *, aside: Path | None = None) -> Iterator[BinaryIO]:
    """A file to be written. It gets its name, and replaces one that has it, when it is complete and on the disk.

    Args:
        path: the file.
        aside: directory, on the same disk, for what is not complete yet; that of the file by default.

    Raises:
        OSError: the disk refuses. Nothing is left then, as after any other exception.
    """
    path = Path(path)
    partial = (aside or path.parent) / f".{path.name}.partial"
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            raise OSError(f"{path} cannot be written ({reason}); free some room, or name another place.") from error
        raise
