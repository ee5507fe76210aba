"""Files: checks before reading, and writing completely or not at all."""

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

from jaxgmm.tables.places import Place

File = TypeVar("File", bound=Place)

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
    """The attributes by which a change of a file is detected.

    Attributes:
        size: in bytes.
        modified: nanoseconds since 1970.
        inode: differs if the file was replaced.
    """

    size: int
    modified: int
    inode: int


def state(path: Place) -> State | None:
    """The state of a file, or None if it does not exist.

    Raises:
        ConnectionError: it is in a store that does not answer.
    """
    try:
        found = path.stat()
    except ConnectionError:
        raise
    except OSError:
        return None
    return State(found.st_size, found.st_mtime_ns, found.st_ino)


def readable(path: File, kind: str) -> File:
    """Checks that a file can be read, and returns it.

    Args:
        path: the file.
        kind: what errors suggest instead, such as "one Parquet or CSV file".

    Raises:
        OSError: it does not exist, or may not be read.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; check the path.")
    if not path.is_file():
        raise IsADirectoryError(f"{path} is not a file; name {kind}.")
    if isinstance(path, Path) and not os.access(path, os.R_OK):
        raise PermissionError(f"{path} may not be read; change its permissions.")
    return path


@contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Turns the system's refusal to write to a path into a one-line error with the remedy.

    Raises:
        OSError: the system refuses.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            # The error is already in words.
            raise
        remedy = _REMEDIES.get(error.errno, _ROOM)
        raise OSError(f"{path} cannot be written ({os.strerror(error.errno)}); {remedy}.") from error


@contextmanager
def written(path: str | Path) -> Iterator[BinaryIO]:
    """Opens a file for writing. It gets its name, and replaces an existing file, when it is complete and on the disk.

    A process that is killed leaves a hidden file beside it, whose name ends in `.partial`.

    Raises:
        OSError: the disk refuses. Nothing is left then, as after any other exception.
    """
    path = Path(path)
    # Another process, or another thread, may be writing the same file: the last to finish replaces it.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
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
