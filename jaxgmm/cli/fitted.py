"""The fits of a directory that `jaxgmm fit` or `jaxgmm sweep` has written, read back."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

import jaxgmm
from jaxgmm.status import Status
from jaxgmm.tables import files, job_files, tabular
from jaxgmm.tables.dataset import Dataset
from jaxgmm.tables.groups import Groups, group, numbers
from jaxgmm.tables.keys import matched
from jaxgmm.tables.rows import open_rows

# Columns of fits that version 0.1 did not write, and the values they get: its tables have no starts.
_SINCE_0_2 = {
    "gap": pa.scalar(np.nan),
    "ridge_dominated": pa.scalar(-1, pa.int32()),
    "start_passed_over": pa.scalar(False),
    "flags": pa.scalar(""),
}


class Fitted(NamedTuple):
    """The fits of a directory.

    Attributes:
        keys: one row for each of B groups, sorted.
        features: names of the D features.
        weights: name of the column of sample weights, or None.
        where: the condition that rows had to satisfy, or None.
        table: all of `fits.parquet`, with all columns of this version.
        components: all of `components.parquet`.
    """

    keys: pa.Table
    features: list[str]
    weights: str | None
    where: str | None
    table: pa.Table
    components: pa.Table

    @property
    def has_answer(self) -> np.ndarray:
        """`(B,)`, whether groups have mixtures."""
        is_first = self.components["component"].to_numpy() == 0
        return np.isfinite(numbers(self.components["weight"], "weight")[is_first])

    @property
    def n_components(self) -> int:
        """K, the largest of all groups."""
        return int(self.components["component"].to_numpy().max()) + 1

    def mixture(self) -> "jaxgmm.Mixture":
        """Weights `(B, K)` and so on; NaN where a group has no answer. Imports JAX."""
        return tabular.mixture_of(self.components, self.keys.num_rows, self.features)

    def result(self) -> "jaxgmm.FitResult":
        """The fits as `jaxgmm.fit` would return them, without starts and numbers of parameters. Imports JAX."""
        codes = {status.name: int(status) for status in Status}
        table, none = self.table, np.empty((self.table.num_rows, 0))
        return jaxgmm.FitResult(
            mixture=self.mixture(),
            log_likelihood=numbers(table["log_likelihood"], "log_likelihood"),
            gap=numbers(table["gap"], "gap"),
            n_iter=table["n_iter"].to_numpy(),
            status=np.array([codes[name] for name in table["status"].to_pylist()], np.int32),
            spurious=table["spurious"].to_numpy(),
            ridge_dominated=table["ridge_dominated"].to_numpy(),
            start_passed_over=table["start_passed_over"].to_numpy(),
            n_samples=table["n_samples"].to_numpy().astype(np.float64),
            n_parameters=np.full(table.num_rows, -1, np.int32),
            ridge=np.full((table.num_rows, len(self.features)), np.nan),
            start_log_likelihood=none,
            start_status=none.astype(np.int32),
            start_spurious=none.astype(np.int32),
            history=None,
            snapshots=None,
            efficiency=float("nan"),
        )


def read_fits(directory: Path) -> Fitted:
    """Reads a directory that `jaxgmm fit` or `sweep` has written.

    Raises:
        OSError: it is not there.
        ValueError: it was written by something else.
    """
    path = directory / "fits.parquet"
    check_filled(path)
    description = described(path)
    components = directory / "components.parquet"
    if job_files.description_of(components) != description:
        raise ValueError(f"{components} is not of the job that made {path}; fit again.")
    table = files.read_table(path, files.column_names(path))
    rows = files.read_table(components, files.column_names(components))
    if np.count_nonzero(rows["component"].to_numpy() == 0) != table.num_rows:
        raise ValueError(f"{components} does not hold the groups of {path}; fit again.")
    for name, unknown in _SINCE_0_2.items():
        if name not in table.column_names:
            table = table.append_column(name, pa.repeat(unknown, table.num_rows))
    # Rows of other tables may have nulls where the fitted rows could not.
    table = table.cast(pa.schema([pa.field(field.name, field.type) for field in table.schema]))
    keys = table.select(description["by"])
    return Fitted(keys, description["features"], description["weights"], description.get("where"), table, rows)


def tables_of(directory: Path) -> list[Path]:
    """The files that hold the fits of a directory; there may be no table of models."""
    return [directory / f"{name}.parquet" for name in ("fits", "components", "models")]


def read_samples(fitted: Fitted, data: Dataset, separator: str) -> Groups:
    """The samples that were fitted, in the order of the fits.

    Raises:
        OSError: no such table.
        ValueError: the table holds other groups.
    """
    known, weights = fitted.keys, fitted.weights
    by = known.column_names
    columns = [*by, *fitted.features]
    columns += [weights] if weights and weights not in columns else []
    rows = open_rows(data, columns, keys=by, known=known.schema, separator=separator, where=fitted.where)
    table = pa.concat_tables(rows.blocks(columns))
    found, n_samples = group(table, by, fitted.features, weights), fitted.table["n_samples"].to_numpy()
    own = matched(found, known, n_samples, data, has_types=rows.has_types)
    if own is None or found.keys.num_rows != known.num_rows:
        raise ValueError(f"{data} holds other groups than were fitted; give --data the table that was fitted.")
    return own


def check_filled(path: Path) -> None:
    """Raises OSError unless the table of fits exists, in one file."""
    if path.exists():
        return
    if job_files.left_apart(path.parent) is not None:
        raise FileNotFoundError(
            f"the tables in {path.parent} are in parts; join them by jaxgmm.distributed.join, or by jaxgmm fit or "
            "sweep with the same options and --resume."
        )
    raise FileNotFoundError(f"{path} does not exist; name a directory that jaxgmm fit or sweep has written.")


def described(path: Path) -> dict[str, Any]:
    """The request that a table of fits was made by.

    Raises:
        ValueError: it was made by something else.
    """
    description = job_files.description_of(path)
    if not isinstance(description, dict) or not {"call", "by", "features", "weights"} <= set(description):
        raise ValueError(f"{path} was not written by jaxgmm; name a directory that jaxgmm fit or sweep has written.")
    return description
