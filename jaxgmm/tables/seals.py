"""Directories whose files are known to be those that were written, by their sizes and digests."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxgmm.tables import atomic

# The record of a directory's files.
PART = "part.json"


def is_whole(directory: Path, mark: Mapping[str, Any], names: set[str]) -> bool:
    """Whether a directory holds the files that were sealed with a mark, unchanged. This reads them."""
    record = kept(directory)
    if record is None or set(record["files"]) != names or any(record.get(name) != mark[name] for name in mark):
        return False
    return all(digest(directory / name) == own["sha256"] for name, own in record["files"].items())


def json_of(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file, or None."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def seal(directory: Path, mark: Mapping[str, Any]) -> None:
    """Records sizes and digests of a directory's files, once they are complete, and whose they are."""
    found = {path.name: {"bytes": path.stat().st_size, "sha256": digest(path)} for path in directory.glob("*.parquet")}
    with atomic.written(directory / PART) as file:
        file.write(json.dumps({**mark, "files": found}).encode())


def kept(directory: Path) -> dict[str, Any] | None:
    """The record of a part's files, or None unless they still have the recorded sizes."""
    record = json_of(directory / PART) or {}
    try:
        same = [
            isinstance(own["sha256"], str) and (directory / name).stat().st_size == own["bytes"]
            for name, own in record["files"].items()
        ]
    except (OSError, KeyError, TypeError, AttributeError):
        return None
    return record if all(same) else None


def digest(path: Path) -> str | None:
    """The SHA-256 of a file, or None if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
