"""Where tables are: paths on this machine, and URIs of whatever else `pyarrow.fs` opens, such as `s3://bucket/cells`.

A `Remote` has those methods of a `Path` by which tables are found and read, so that both are read by the same code.
`located` is where Arrow takes over. A `file:` URI is a path.
"""

import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePath, PurePosixPath
from typing import NamedTuple, TypeVar
from urllib.parse import unquote
from urllib.request import url2pathname

import pyarrow as pa
from pyarrow import fs

from jaxgmm.tables.wording import quoted, shortened

Found = TypeVar("Found")

# A query is what `name=value` follows; any other `?` is a wildcard.
_URI = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]+)://(?:(?P<user>[^/]*)@)?(?P<host>[^/?]*)(?P<path>.*?)(?P<query>\?[\w.-]+=[^?]*)?",
    re.IGNORECASE | re.DOTALL,
)
# The start of a URI, also where a `Path` has made one slash of two.
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):/", re.IGNORECASE)
# Requests to a store at a time. A request takes long, and is hardly any work.
_REQUESTS = 16


class Stat(NamedTuple):
    """What is known of a file at a URI, by the names that `os.stat_result` has for it.

    Attributes:
        st_size: in bytes.
        st_mtime: seconds since 1970.
        st_mtime_ns: nanoseconds since 1970.
        st_ino: 0; there are no inodes.
    """

    st_size: int
    st_mtime: float
    st_mtime_ns: int
    st_ino: int = 0


class Remote(NamedTuple):
    """A file or directory at a URI. As text, it has neither credentials nor options.

    Attributes:
        store: URI of the file system, with the credentials and options that were given.
        below: path in it.
    """

    store: str
    below: PurePosixPath

    def __str__(self) -> str:
        return f"{shown(self.store)}{'' if self.below == PurePosixPath() else self.below}"

    def __repr__(self) -> str:
        return f"Remote({str(self)!r})"

    def __truediv__(self, other: str | PurePath) -> "Remote":
        return self._replace(below=self.below.joinpath(*PurePath(other).parts))

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.below.name

    @property
    def suffixes(self) -> list[str]:
        """The endings of the name, each with its point."""
        return self.below.suffixes

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the path."""
        return self.below.parts

    @property
    def parent(self) -> "Remote":
        """The directory in which this lies."""
        return self._replace(below=self.below.parent)

    @property
    def parents(self) -> "list[Remote]":
        """The directories in which this lies, from the last to the first."""
        return [self._replace(below=own) for own in self.below.parents]

    def absolute(self) -> "Remote":
        """The same: a URI is absolute."""
        return self

    def exists(self) -> bool:
        """Whether something is there."""
        return self._info().type != fs.FileType.NotFound

    def is_file(self) -> bool:
        """Whether a file is there."""
        return self._info().type == fs.FileType.File

    def is_dir(self) -> bool:
        """Whether a directory is there, or names begin with this one and `/`."""
        return self._info().type == fs.FileType.Directory

    def stat(self) -> Stat:
        """Size and time of change.

        Raises:
            OSError: no such file, or the store does not answer: then it is a ConnectionError.
        """
        info = self._info()
        if info.type == fs.FileType.NotFound:
            raise FileNotFoundError(f"{self} does not exist; check the URI.")
        modified = info.mtime_ns or 0
        seconds, rest = divmod(modified, 10**9)
        # Rounded as `Path.stat` rounds.
        return Stat(info.size or 0, seconds + 1e-9 * rest, modified)

    def _info(self) -> fs.FileInfo:
        system, path = located(self)
        with reached(self):
            return system.get_file_info(path)


Place = Path | Remote


def place(named: str | Path | Remote) -> Place:
    """The place that a path or a URI names.

    Raises:
        ValueError: it begins like a URI, and is none.
    """
    found = _URI.fullmatch(named) if isinstance(named, str) else None
    if found is None:
        return Path(named) if isinstance(named, str) else named
    scheme, user, host, path, query = (found[own] or "" for own in ("scheme", "user", "host", "path", "query"))
    if scheme.lower() == "file":
        if host not in ("", "localhost") or query:
            raise ValueError(
                f"{named} is no file: URI; it begins with three slashes, as in file:///data/cells.parquet."
            )
        return Path(url2pathname(path))
    if re.search(r":(?!\d+$)", host):
        # It is not quoted: this may be a part of the secret.
        raise ValueError(
            f"a URI of {scheme}: has ':' in its host; give credentials by the environment, or write / in them as %2F."
        )
    user = f"{user}@" if user else ""
    return Remote(f"{scheme.lower()}://{user}{host}/{query}", PurePosixPath(unquote(path).strip("/")))


def as_path(named: str | Path) -> str:
    """The path that a `file:` URI names; any other name as it is.

    Raises:
        ValueError: it is no URI, but was meant as one.
    """
    if isinstance(named, Path) and (found := _SCHEME.match(str(named))) and not named.exists():
        raise ValueError(f"a Path keeps one of the two slashes after {found[1]}:, so name a URI as text.")
    is_file = isinstance(named, str) and named.lower().startswith("file://")
    return str(place(named) if is_file else named)


def local(path: str | Path) -> Path:
    """The path of an output.

    Raises:
        ValueError: it is a URI, or no path at all.
    """
    if not isinstance(path, str | Path):
        raise ValueError(f"output is named by a path; got {quoted(path)}.")
    if found := _SCHEME.match(str(path)):
        raise ValueError(
            f"output is written to this machine's directories, and {found[1]}: begins a URI; "
            "name a directory, and copy from there."
        )
    return Path(path)


def shown(named: str) -> str:
    """A name as it may be printed and recorded: a URI without credentials and options."""
    found = _URI.fullmatch(named)
    if found is None:
        return named
    # In Azure's URIs, the container stands where others have the user.
    container = (found["user"] or "").partition(":")[0] if found["scheme"].lower().startswith("abfs") else ""
    return f"{found['scheme']}://{container}{'@' if container else ''}{found['host']}{found['path']}"


def located(place: Place) -> tuple[fs.FileSystem, str]:
    """The file system of a place, and its path there.

    Raises:
        OSError: the store does not answer.
        ValueError: Arrow knows no such URI.
    """
    if isinstance(place, Path):
        return fs.LocalFileSystem(), str(place)
    system, base = opened(place.store)
    path = posixpath.join(base, *place.parts)
    return system, path.rstrip("/") or path


@lru_cache
def opened(store: str) -> tuple[fs.FileSystem, str]:
    """The file system of a URI, and the path in it that the URI names; see `located`."""
    try:
        with reached(shown(store)):
            return fs.FileSystem.from_uri(store)
    except (ValueError, pa.ArrowException) as error:
        reason = _reason(error).replace(store, shown(store))
    # Not with the cause, which quotes the URI.
    raise ValueError(
        f"{shown(store)} cannot be opened ({reason}); name a path, or a URI such as s3://bucket/cells.parquet."
    )


def relative(place: Place, root: Place) -> PurePath:
    """The path from a directory to a place in it."""
    return PurePath(*place.parts).relative_to(PurePath(*root.parts))


def stream(place: Place) -> pa.NativeFile:
    """Opens a file to be read from its beginning; one that is compressed, by its name, is decompressed."""
    system, path = located(place)
    return system.open_input_stream(path)


def each(function: Callable[[Place], Found], places: Sequence[Place]) -> Iterator[Found]:
    """What a function finds of each place, in their order. A store is asked for several at a time."""
    if all(isinstance(own, Path) for own in places):
        yield from map(function, places)
        return
    with ThreadPoolExecutor(_REQUESTS) as pool:
        yield from pool.map(function, places)


@contextmanager
def reached(what: Place | str) -> Iterator[None]:
    """Says that a store does not answer, or refuses. Errors of paths are left as they are.

    Raises:
        ConnectionError: it does.
    """
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        if isinstance(what, Path) or isinstance(error, ValueError | NotImplementedError):
            raise
        raise ConnectionError(
            f"{what} cannot be reached ({_reason(error)}); check its name, the network, and the credentials in the "
            "environment."
        ) from error


def _reason(error: Exception) -> str:
    """What Arrow says, in one line."""
    return shortened(str(error).strip().partition("\n")[0].rstrip("."))
