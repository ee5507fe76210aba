"""`jaxgmm predict` and `jaxgmm sample`: components of samples, and samples drawn from fits."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

import jaxgmm
from jaxgmm.cli import console, interrupts
from jaxgmm.engine.progress import bar
from jaxgmm.status import Status
from jaxgmm.tables import files, job, tabular
from jaxgmm.tables.groups import Groups, group, numbers, taken
from jaxgmm.tables.keys import group_of, matched
from jaxgmm.tables.rows import Rows, open_rows
from jaxgmm.tables.tabular import of_components
from jaxgmm.tables.wording import counted

# Rows read at a time, and numbers drawn at a time.
_BLOCK = 2**20
_DRAWN = 2**22
# Columns of fits that version 0.1 did not write, and the values they get: its tables have no starts.
_SINCE_0_2 = {
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
        table: all of `fits.parquet`, with all columns of this version.
        components: all of `components.parquet`.
    """

    keys: pa.Table
    features: list[str]
    weights: str | None
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
    if job.description_of(components) != description:
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
    return Fitted(keys, description["features"], description["weights"], table, rows)


def read_samples(fitted: Fitted, data: Path, separator: str) -> Groups:
    """The samples that were fitted, in the order of the fits.

    Raises:
        OSError: no such table.
        ValueError: the table holds other groups.
    """
    known, weights = fitted.keys, fitted.weights
    by = known.column_names
    columns = [*by, *fitted.features]
    columns += [weights] if weights and weights not in columns else []
    table = files.read_table(data, columns, keys=by, known=known.schema, separator=separator)
    found, n_samples = group(table, by, fitted.features, weights), fitted.table["n_samples"].to_numpy()
    own = matched(found, known, n_samples, data, has_types=files.is_parquet(data))
    if own is None or found.keys.num_rows != known.num_rows:
        raise ValueError(f"{data} holds other groups than were fitted; give --data the table that was fitted.")
    return own


def check_filled(path: Path) -> None:
    """Raises OSError unless the table of fits exists."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; name a directory that jaxgmm fit or sweep has written.")


def described(path: Path) -> dict[str, Any]:
    """The request that a table of fits was made by.

    Raises:
        ValueError: it was made by something else.
    """
    description = job.description_of(path)
    if not isinstance(description, dict) or not {"call", "by", "features", "weights"} <= set(description):
        raise ValueError(f"{path} was not written by jaxgmm; name a directory that jaxgmm fit or sweep has written.")
    return description


def predict(
    file: Path, separator: str, fits: Path, out: Path, *, p_values: bool, probabilities: bool, as_json: bool
) -> None:
    """Writes the most probable component of every row of a table, and how well it fits."""
    check_absent(out, files.KINDS)
    fitted = interrupts.interruptible(lambda: read_fits(fits))
    by = fitted.keys.column_names
    added = ["component", "uncertainty", "log_density", *(["p_value"] if p_values else [])]
    added += of_components(fitted.n_components) if probabilities else []
    _check_free(by, added)

    def opened() -> tuple[Rows, pa.Schema]:
        columns, known = [*by, *fitted.features], fitted.keys.schema
        rows = open_rows(file, columns, keys=by, known=known, separator=separator, are_numbers=True)
        return rows, next(rows.blocks(by, size=1)).schema

    with console.reading(file, shown=not as_json):
        rows, of_keys = interrupts.interruptible(opened)
    # Keys are written as they were read: keys of no fitted group may not convert to the type that was fitted.
    schema = pa.schema([pa.field(field.name, field.type) for field in of_keys])
    for name in added:
        schema = schema.append(pa.field(name, pa.int32() if name == "component" else pa.float64()))
    n_rows, n_without, n_unknown = 0, 0, 0
    predicted = _predicted(rows, fitted, schema, probabilities=probabilities)
    if not as_json:
        predicted = _shown(predicted, rows.n_rows)
    with writing(out), files.written(out, schema, separator=separator) as writer:
        for table, of_no_group in interrupts.each(predicted):
            writer.write_table(table)
            n_rows, n_without = n_rows + table.num_rows, n_without + table["component"].null_count
            n_unknown += of_no_group
    notes = [_unmatched(file, fits, fitted.keys)] if n_unknown == n_rows else []
    if as_json:
        counts = {"rows": n_rows, "without_answer": n_without, "of_unknown_groups": n_unknown}
        console.print_json(counts | {"notes": notes, "file": str(out)})
        return
    for note in notes:
        console.say(f"jaxgmm: warning: {note}")
    said = f"{counted(n_rows, 'row')}, {n_without:,} of them without an answer"
    said += f", {n_unknown:,} of these in groups that were not fitted" if n_unknown else ""
    console.plain().print(f"{said}; wrote {out}", soft_wrap=True)


def _shown(predicted: Iterator[tuple[pa.Table, int]], n_all: int | None) -> Iterator[tuple[pa.Table, int]]:
    """The same, with a progress bar. It belongs to the thread that predicts, so that an interrupt does not draw it."""
    n_done = 0
    with bar(n_all, "rows", doing=lambda: "predicting") as tell:
        for table, of_no_group in predicted:
            n_done += table.num_rows
            tell(n_done, n_all or n_done)
            yield table, of_no_group


def _unmatched(file: Path, fits: Path, keys: pa.Table) -> str:
    """A warning that no row has the key of a fitted group."""
    example = ", ".join(f"{name}={keys[name][0]}" for name in keys.column_names)
    return (
        f"no row of {file} belongs to a group that was fitted; "
        f"compare its keys with those of {fits}, such as {example}."
    )


def sample(fits: Path, out: Path, n: int, seed: int, *, as_json: bool) -> None:
    """Writes samples drawn from the mixture of every group."""
    check_absent(out, files.KINDS)
    fitted = interrupts.interruptible(lambda: read_fits(fits))
    _check_free([*fitted.keys.column_names, *fitted.features], ("component",))
    has_answer = np.flatnonzero(fitted.has_answer)
    schema = fitted.keys.schema.append(pa.field("component", pa.int32()))
    for name in fitted.features:
        schema = schema.append(pa.field(name, pa.float64()))
    with writing(out), files.written(out, schema) as writer:
        for table in interrupts.each(_drawn(fitted, has_answer, n, seed, schema)):
            writer.write_table(table)
    n_without = fitted.keys.num_rows - len(has_answer)
    if as_json:
        console.print_json({"groups": len(has_answer), "without_answer": n_without, "file": str(out)})
        return
    said = f"{counted(len(has_answer), 'group')}, {counted(n, 'sample')} each"
    if not fitted.keys.num_columns:
        said = counted(n * len(has_answer), "sample")
    said += f"; {counted(n_without, 'group')} without an answer" if n_without else ""
    console.plain().print(f"{said}; wrote {out}", soft_wrap=True)


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """While a new file is being written, an interrupt leaves it complete or absent."""
    interrupts.keeps(lambda: f"{out} was written." if out.exists() else "nothing was written.")
    with interrupts.unwinding():
        yield


def check_absent(out: Path, kinds: Sequence[str]) -> None:
    """Raises ValueError or OSError unless a file of one of these kinds can be written there."""
    if not out.name.lower().endswith(tuple(kinds)):
        raise ValueError(f"--out must name a file that ends in {', '.join(kinds)}; got {out}.")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"{out.parent} does not exist; make it, or name another file.")
    if out.exists():
        raise FileExistsError(f"{out} exists already; remove it, or name another file.")


def _check_free(names: Sequence[str], written: Sequence[str]) -> None:
    taken = [name for name in written if name in names]
    if taken:
        raise ValueError(f"two columns of the output would be called {taken[0]!r}; rename a column, and fit again.")


def _predicted(rows: Rows, fitted: Fitted, schema: pa.Schema, *, probabilities: bool) -> Iterator[tuple[pa.Table, int]]:
    """Predictions for the rows of a table, block by block, and how many of them belong to no fitted group."""
    from jaxgmm.tables.labels import labels  # noqa: PLC0415 (imports JAX)

    console.keep_programs()
    by, features, mixture = fitted.keys.column_names, fitted.features, fitted.mixture()
    for block in rows.blocks([*by, *features], size=_BLOCK):
        keys = block.select(by)
        group = group_of(keys, fitted.keys, rows.path, has_types=rows.has_types)
        n_unknown = int(np.count_nonzero(group < 0))
        samples = np.stack([numbers(block[name], name) for name in features], axis=1)
        found = labels(mixture, group, samples, probabilities=probabilities)
        # Rounding can take a probability above 1.
        found["uncertainty"] = np.maximum(0.0, 1 - found["probability"])
        component = pa.array(found["component"], mask=found["component"] < 0)
        # NaN is null.
        others = [pa.array(found[name], from_pandas=True) for name in schema.names[len(by) + 1 :]]
        yield pa.table([*keys.columns, component, *others], schema=schema), n_unknown


def _drawn(fitted: Fitted, has_answer: np.ndarray, n: int, seed: int, schema: pa.Schema) -> Iterator[pa.Table]:
    """Samples of the groups that have an answer, a few groups at a time."""
    import jax  # noqa: PLC0415 (takes long)

    console.keep_programs()
    mixture = fitted.mixture()
    at_a_time = max(1, _DRAWN // (n * len(fitted.features)))
    for number, first in enumerate(range(0, len(has_answer), at_a_time)):
        groups = has_answer[first : first + at_a_time]
        key = jax.random.fold_in(jax.random.key(seed), number)
        drawn, component = jaxgmm.sample(key, mixture.of(groups), n)
        columns = [*taken(fitted.keys, np.repeat(groups, n)).columns, pa.array(component.ravel().astype(np.int32))]
        columns += [pa.array(np.ascontiguousarray(drawn[..., i]).ravel()) for i in range(len(fitted.features))]
        yield pa.table(columns, schema=schema)
