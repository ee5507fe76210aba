"""The files of a table: one, several, those of a directory, or those that match a pattern.

Rows are those of one file after another, in the order of their paths, in which numbers are ordered by size. In a path
such as `data/plate=7/well=A01/x.parquet`, folders below the directory that was named are columns, as Hive writes them.
"""

import glob
import hashlib
import json
import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any, NamedTuple
from urllib.parse import unquote

import pyarrow as pa

from jaxgmm.tables import atomic, files, listing, places
from jaxgmm.tables.places import Place
from jaxgmm.tables.wording import quoted

# Of files and folders that other programs write beside tables, such as `_SUCCESS`.
_HIDDEN = (".", "_")
# In a path, where a key is null.
_NULL = "__HIVE_DEFAULT_PARTITION__"


# Tables that a job writes.
_WRITTEN = ("fits.parquet", "components.parquet", "models.parquet")


class Dataset(NamedTuple):
    """The files of a table.

    Attributes:
        named: what was named: files, directories and patterns; URIs without credentials and options.
        root: the directory below which folders are columns.
        paths: of the files, sorted.
    """

    named: tuple[str, ...]
    root: Place
    paths: tuple[Place, ...]

    def __str__(self) -> str:
        return self._and_others(self.named[0])

    @property
    def name(self) -> str:
        """What they are called, without the directories above: the same wherever the user is."""
        return self._and_others(Path(os.path.abspath(self.named[0])).name)

    @property
    def is_parquet(self) -> bool:
        """Whether these are Parquet files, which all are or none."""
        return files.is_parquet(self.paths[0])

    @property
    def folders(self) -> pa.Table:
        """The columns that folders make: texts, or null; a row for each file."""
        found = [_columns_of(places.relative(path, self.root)) for path in self.paths]
        return pa.Table.from_pylist(found, pa.schema([(name, pa.string()) for name in found[0]]))

    def column_names(self, separator: str = ",") -> list[str]:
        """The names of the columns of the first file and of folders, in order; see `jaxgmm.tables.files.column_names`.

        Raises:
            OSError: no such file, or it may not be read.
            ValueError: not a table, or an invalid separator.
        """
        names = files.column_names(self.paths[0], separator)
        return names + [name for name in self.folders.column_names if name not in names]

    @property
    def description(self) -> dict[str, Any]:
        """What tells these files from others, or from themselves after a change: names, sizes, and times of changes."""
        states = list(places.each(lambda path: path.stat(), self.paths))
        changed = datetime.fromtimestamp(max(state.st_mtime for state in states), UTC)
        size = sum(state.st_size for state in states)
        described = {"file": self.name, "bytes": size, "modified": changed.isoformat()}
        if self.is_one_file:
            return described
        each = [
            (places.relative(path, self.root).as_posix(), state.st_size, state.st_mtime_ns)
            for path, state in zip(self.paths, states, strict=True)
        ]
        digest = hashlib.sha256(json.dumps(each).encode()).hexdigest()
        return described | {"files": len(self.paths), "digest": digest}

    @property
    def is_one_file(self) -> bool:
        """Whether this is a single file that was named as such."""
        return self.named == (str(self.paths[0]),)

    def _and_others(self, first: str) -> str:
        return f"{first} and {len(self.named) - 1} more" if len(self.named) > 1 else first

    def absolute(self) -> "Dataset":
        """The same files, for processes that have another working directory."""
        root, paths = self.root.absolute(), tuple(path.absolute() for path in self.paths)
        return Dataset((str(paths[0]),) if self.is_one_file else self.named, root, paths)

    def check_outside(self, out: Path) -> None:
        """Raises ValueError if tables would lie in a directory that is read: next time, they would be read, too."""
        for directory in filter(os.path.isdir, self.named):
            if Path(os.path.realpath(out)).is_relative_to(os.path.realpath(directory)):
                raise ValueError(f"{out} lies in {directory}, which is read; name another place for the output.")
        for pattern in filter(glob.has_magic, self.named if isinstance(self.root, Path) else ()):
            if _would_match(pattern, Path(os.path.abspath(out))):
                raise ValueError(f"{pattern} would match what is in {out}; name another place for the output.")


def find(*named: str | Path) -> Dataset:
    """Finds the files of a table. A file that is named twice is read once.

    Args:
        named: files, directories, and patterns such as `data/*.parquet`, in which `**` stands for any folders; paths,
            or URIs of one store, such as `s3://bucket/data`. Of a directory, its Parquet files are taken, at any depth,
            or else its CSV files, but none that begin with `.` or `_`.

    Raises:
        OSError: nothing is there, or a store does not answer.
        ValueError: files of two kinds, or of none; something else than paths and URIs.
    """
    if not named:
        raise ValueError("no table is named; name at least one file, directory or pattern.")
    for one in named:
        # An integer would be taken for a file that this process has opened.
        if not isinstance(one, str | Path):
            raise ValueError(f"a table is named by paths and patterns; got {quoted(one)}.")
    names = [places.as_path(own) for own in named]
    if len(names) == 1 and os.path.isfile(names[0]):
        path = Path(names[0])
        return Dataset((str(path),), path.parent, (path,))
    root, below = listing.below_one_root([_matching(own, is_only=len(names) == 1) for own in names])
    paths = tuple(root / path for path in sorted(below, key=_in_order))
    dataset = Dataset(tuple(str(places.place(own)) for own in names), root, paths)
    _check_kinds(paths)
    _check_folders(dataset)
    return dataset


def _matching(named: str, *, is_only: bool) -> tuple[Place, list[Place]]:
    """The directory below which folders are columns, and the files, of one name or pattern."""
    path = places.place(named)
    if path.is_dir():
        return path, _within(path)
    if not any(map(glob.has_magic, path.parts)) or path.exists():
        if not is_only and not path.exists():
            raise FileNotFoundError(
                f"{path} does not exist; check the path, or separate columns by commas, as in --by plate,well."
            )
        return path.parent, [atomic.readable(path, "a Parquet or CSV file, or a directory of these")]
    root, *matching = listing.matching(named)
    found, directories = ([own for own in some if not _is_hidden(places.relative(own, root))] for some in matching)
    # Of a pattern that also matches what is in a directory, only this is meant.
    parents = {parent for own in found for parent in own.parents}
    for directory in directories:
        if directory not in parents:
            found += _within(directory)
    if not found:
        raise FileNotFoundError(f"no file matches {places.shown(named)!r}; check the pattern.")
    return root, found


def _would_match(pattern: str, out: Path) -> bool:
    """Whether a pattern matches a table in a directory, or a directory above it, whose tables are read."""
    tables = [out / place / name for place in ("", "parts/000000") for name in _WRITTEN]
    parts = Path(os.path.abspath(pattern)).parts
    return any(listing.is_match(path.parts, parts) for path in (*tables, out / "parts", out, *out.parents))


def _within(directory: Place) -> list[Place]:
    """The Parquet files of a directory, or else its CSV files."""
    paths = [path for path in listing.files_below(directory) if not _is_hidden(places.relative(path, directory))]
    found = [path for path in paths if files.is_parquet(path)]
    # A text beside tables is hardly one.
    found = found or [path for path in paths if path.name.lower().endswith(files.KINDS) and ".txt" not in path.suffixes]
    if not found:
        raise FileNotFoundError(f"{directory} holds no Parquet or CSV file; name a directory that does.")
    return found


def _is_hidden(path: PurePath) -> bool:
    return any(part.startswith(_HIDDEN) for part in path.parts)


def _check_kinds(paths: Sequence[Place]) -> None:
    """Raises ValueError unless all files are Parquet files, or all are CSV files."""
    for path in paths:
        files.check_kind(path)
    parquet = [path for path in paths if files.is_parquet(path)]
    if 0 < len(parquet) < len(paths):
        other = next(path for path in paths if path not in parquet)
        raise ValueError(f"{parquet[0]} is a Parquet file, and {other} is not; name files of one kind.")


def _check_folders(dataset: Dataset) -> None:
    """Raises ValueError unless the folders of all files make the same columns."""
    first, *others = dataset.paths
    names = set(_columns_of(places.relative(first, dataset.root)))
    for path in others:
        for name in names ^ set(_columns_of(places.relative(path, dataset.root))):
            one, other = (first, path) if name in names else (path, first)
            raise ValueError(
                f"{one} is in a folder {name}=…, and {other} is not; name files that all are, or none of which is."
            )


def _in_order(path: PurePath) -> list[tuple[list[str | int], str]]:
    """What paths are ordered by, folder after folder: `plate=7` is before `plate=10`."""
    return [([int(own) if own.isdecimal() else own for own in re.split(r"(\d+)", part)], part) for part in path.parts]


def _columns_of(path: PurePath) -> dict[str, str | None]:
    """The columns that the folders of a path make."""
    pairs = [part.split("=", 1) for part in path.parent.parts if "=" in part]
    return {unquote(name): None if value == _NULL else unquote(value) for name, value in pairs}
