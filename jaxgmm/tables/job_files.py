"""The files of jobs, as `jaxgmm.tables.job` describes them, and what they say: what is done, and who asked for it."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jaxgmm.tables import seals

UNFINISHED, APART = ".unfinished", "parts"
METADATA = b"jaxgmm"
JOB, TABLES = "job.json", "tables.json"
# A directory that is about to be removed.
REMOVED = ".finished"


def place(directory: Path, part: int) -> Path:
    """The directory of a part."""
    return directory / f"{part:06}"


def mark(part: int, description: Mapping[str, Any]) -> dict[str, Any]:
    """What tells a part from others, also from those of a job whose directory was removed while its tasks ran on."""
    return {"part": part, "job": hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()}


def is_whole(directory: Path, part: int, names: Sequence[str], description: Mapping[str, Any]) -> bool:
    """Whether a part has been kept and is unchanged since. This reads its files."""
    return seals.is_whole(place(directory, part), mark(part, description), {f"{name}.parquet" for name in names})


def is_finished(out: str | Path, names: Sequence[str], description: Mapping[str, Any]) -> bool:
    """Whether all tables of a job are in place. If so, leftovers of a killed process are removed."""
    out, wanted = Path(out), json.loads(json.dumps(description))
    if not all(description_of(out / f"{name}.parquet") == wanted for name in names):
        return False
    for left in (out / UNFINISHED, out / REMOVED):
        shutil.rmtree(left, ignore_errors=True)
    return True


def description_apart(out: str | Path) -> dict[str, Any] | None:
    """The request that made the parts that were left apart, or None if there are none."""
    return seals.json_of(Path(out) / APART / JOB)


def is_left_apart(out: str | Path, names: Sequence[str], description: Mapping[str, Any]) -> bool:
    """Whether all parts of a job have been left apart, and none has changed since. This reads them."""
    directory, wanted = Path(out) / APART, json.loads(json.dumps(description))
    tables = seals.json_of(directory / TABLES)
    if tables is None or description_apart(out) != wanted:
        return False
    return all(is_whole(directory, part, names, wanted) for part in range(tables["parts"]))


def left_apart(out: str | Path) -> tuple[dict[str, Any], tuple[str, ...], int] | None:
    """Of parts that were left apart: their request, the names of the tables, and the number of parts; or None.

    They may be on the way to be joined.
    """
    for directory in (Path(out) / APART, Path(out) / UNFINISHED):
        description, tables = seals.json_of(directory / JOB), seals.json_of(directory / TABLES)
        if description is not None and tables is not None:
            return description, tuple(tables["names"]), tables["parts"]
    return None


def n_done(out: str | Path) -> int:
    """The number of finished parts of an unfinished job, judging by the sizes of their files if these are known."""
    directory = Path(out) / UNFINISHED
    parts = [path for path in directory.iterdir() if path.name.isdecimal()] if directory.is_dir() else []
    # Other versions may record parts differently.
    return sum(seals.kept(path) is not None or not (path / seals.PART).exists() for path in parts if path.is_dir())


def description_of(path: str | Path) -> dict[str, Any] | None:
    """The request that made a table, or None if it is not known."""
    try:
        metadata = pq.read_schema(path).metadata or {}
        return json.loads(metadata[METADATA])
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return None
