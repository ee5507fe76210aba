"""A Ray Dataset as files, which tasks read in parts."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jaxgmm.tables import atomic


@runtime_checkable
class RayDataset(Protocol):
    """What is needed of a `ray.data.Dataset`."""

    context: Any

    def columns(self) -> list[str] | None:
        """The names of its columns."""
        ...

    def select_columns(self, cols: list[str]) -> "RayDataset":
        """The same rows with some of the columns."""
        ...

    def write_parquet(self, path: str) -> None:
        """Writes the rows to a directory, a file for each of its blocks."""
        ...


def staged(rows: RayDataset, wanted: Sequence[str], directory: Path, *, resume: bool) -> Path:
    """Writes some columns of a Ray Dataset to a directory, in its order, unless that has been done before.

    Args:
        rows: the Dataset.
        wanted: names of the columns; others are left out.
        directory: that of the files, which must not exist yet.
        resume: whether to take the files that are there.

    Raises:
        OSError: the directory exists, or the disk refuses.
    """
    # Tasks, which write, have another working directory.
    directory = directory.absolute()
    if directory.exists():
        if not resume:
            raise FileExistsError(f"{directory} exists already; remove it, or name another directory.")
        return directory
    partial = directory.with_name(f"{directory.name}.partial")
    chosen = rows.select_columns([name for name in rows.columns() or [] if name in wanted])
    # Files are named by their tasks, whose order is that of rows only if it is asked for.
    chosen.context.execution_options.preserve_order = True
    with atomic.refusals(directory):
        shutil.rmtree(partial, ignore_errors=True)
        chosen.write_parquet(str(partial))
        partial.rename(directory)
    return directory
