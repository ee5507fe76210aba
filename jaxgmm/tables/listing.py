"""Which files are in a directory, match a pattern, or lie below one root: at places of any kind."""

import glob
import os
import posixpath
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePath, PurePosixPath

from pyarrow import fs

from jaxgmm.tables.places import Place, Remote, located, place, reached, relative


def files_below(directory: Place) -> list[Place]:
    """The files in a directory, at any depth."""
    files, _ = _listed(directory, is_recursive=True)
    return files


def matching(pattern: str) -> tuple[Place, list[Place], list[Place]]:
    """What matches a pattern.

    Args:
        pattern: a path or URI with `*`, `?`, `[…]`, or `**` for any folders.

    Returns:
        the directory that is named before the first of these, and the files and the directories that match.
    """
    path = place(pattern)
    fixed = next(i for i, part in enumerate(path.parts) if glob.has_magic(part))
    if isinstance(path, Remote):
        root = path._replace(below=PurePosixPath(*path.parts[:fixed]))
        return root, *_matching(root, path.parts[fixed:])
    found = [Path(own) for own in glob.glob(pattern, recursive=True)]
    return Path(*path.parts[:fixed]), [own for own in found if own.is_file()], [own for own in found if own.is_dir()]


def is_match(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the parts of a path match those of a pattern, of which `**` stands for any number."""
    if not pattern:
        return not parts
    first, *others = pattern
    if first == "**":
        return any(is_match(parts[i:], others) for i in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], first) and is_match(parts[1:], others)


def below_one_root(found: Sequence[tuple[Place, Sequence[Place]]]) -> tuple[Place, list[PurePath]]:
    """The directory below which all files lie, and their paths from there, each file once.

    Args:
        found: directories, and files in each.

    Raises:
        ValueError: they are neither all on this machine nor all in one store.
    """
    first, *others = [root for root, _ in found]
    for other in others:
        if _store(first) != _store(other):
            raise ValueError(
                f"{first} and {other} are not in one store; name tables of one, with the same options in each URI."
            )
    if isinstance(first, Path):
        return _below_one_path([(str(directory), list(map(str, own))) for directory, own in found])
    common = posixpath.commonpath(["/".join(own.parts) for own, _ in found])
    root = first._replace(below=PurePosixPath(common))
    return root, list(dict.fromkeys(relative(path, root) for _, own in found for path in own))


def _below_one_path(found: Sequence[tuple[str, Sequence[str]]]) -> tuple[Path, list[PurePath]]:
    root = Path(os.path.commonpath([os.path.abspath(own) for own, _ in found]))
    below = {Path(os.path.abspath(path)).relative_to(root) for _, own in found for path in own}
    if not os.path.isabs(found[0][0]):
        root = Path(os.path.relpath(root))
    each: dict[str, PurePath] = {}
    # A link to a directory above itself makes many paths to one file.
    for path in sorted(below, key=lambda path: (len(path.parts), path)):
        each.setdefault(os.path.realpath(root / path), path)
    return root, list(each.values())


def _store(place: Place) -> str | None:
    """The store of a remote place; None on this machine."""
    return place.store if isinstance(place, Remote) else None


def _matching(root: Remote, pattern: Sequence[str]) -> tuple[list[Place], list[Place]]:
    """The files and directories that match a pattern below a directory, which is listed once."""
    files, directories = _listed(root, is_recursive=len(pattern) > 1 or pattern[0] == "**")
    # Some stores list no directories.
    above = [own for file in files for own in file.parents if root == own or root in own.parents]
    several = files, list(dict.fromkeys([*directories, *above]))
    files, directories = ([own for own in some if is_match(relative(own, root).parts, pattern)] for some in several)
    return files, directories


def _listed(directory: Place, *, is_recursive: bool) -> tuple[list[Place], list[Place]]:
    """The files and the directories in a directory; none if it is not there."""
    system, base = located(directory)
    with reached(directory):
        entries = system.get_file_info(fs.FileSelector(base, allow_not_found=True, recursive=is_recursive))

    def of(kind: fs.FileType) -> list[Place]:
        paths = [PurePosixPath(entry.path) for entry in entries if entry.type == kind]
        return [directory / str(path.relative_to(PurePath(base).as_posix())) for path in paths]

    return of(fs.FileType.File), of(fs.FileType.Directory)
