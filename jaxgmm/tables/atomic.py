"""Files: read where they can be, and written whole or not at all."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

_ROOM, _PLACE = "free some room, or name another place", "change its permissions, or name another place"
_REMEDIES = {
    errno.ENOENT: "it or a directory above it was removed: leave it in its place, and begin anew",
    errno.EACCES: _PLACE,
    errno.EPERM: _PLACE,
    errno.EROFS: "name another place",
    errno.EEXIST: "something else is in its place: remove that, or name another place",
    errno.ENOTDIR: "something else is in its place: remove that, or name another place",
    errno.EMFILE: "allow more open files, as by ulimit -n",
    errno.ENFILE: "close other programs, which have too many files open",
    errno.ENAMETOOLONG: "give it a shorter name",
}


class State(NamedTuple):
    """By what a change of a file is noticed.

    Attributes:
        size: in bytes.
        modified: nanoseconds since 1970.
        inode: another one where a file was replaced.
    """

    size: int
    modified: int
    inode: int


def state(path: Path) -> State | None:
    """The state of a file, or None if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return State(found.st_size, found.st_mtime_ns, found.st_ino)


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
def refusals(path: Path) -> Iterator[None]:
    """Says in one line, with the remedy, that the system refuses to write to a path.

    Raises:
        OSError: it does.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            # It has been said in words already.
            raise
        remedy = _REMEDIES.get(error.errno, _ROOM)
        raise OSError(f"{path} cannot be written ({os.strerror(error.errno)}); {remedy}.") from error


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
    with refusals(path):
        try:
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
