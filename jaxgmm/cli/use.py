"""`jaxgmm predict` and `jaxgmm sample`: components of samples, and samples drawn from fits."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

import jaxgmm
from jaxgmm.cli import console, interrupts
from jaxgmm.cli import options as of
from jaxgmm.cli.fitted import Fitted, read_fits, tables_of
from jaxgmm.cli.inputs import found
from jaxgmm.cli.outputs import check_writable, writing
from jaxgmm.engine.progress import bar
from jaxgmm.tables import files
from jaxgmm.tables.dataset import Dataset
from jaxgmm.tables.groups import numbers, taken
from jaxgmm.tables.keys import group_of
from jaxgmm.tables.rows import Rows, open_rows
from jaxgmm.tables.tabular import label_columns
from jaxgmm.tables.wording import counted

# Rows read at a time, and numbers drawn at a time.
_BLOCK = 2**20
_DRAWN = 2**22


class Wanted(NamedTuple):
    """What is written of a table.

    Attributes:
        keep: columns to copy, beside the keys.
        where: the condition that its rows satisfy, or None.
        p_values: whether to write how unusual a row is.
        probabilities: whether to write the probability of every component.
    """

    keep: Sequence[str]
    where: str | None
    p_values: bool
    probabilities: bool


def predict(
    named: Sequence[str], separator: str, fits: Path, out: Path, wanted: Wanted, *, overwrite: bool, as_json: bool
) -> None:
    """Writes the most probable component of every row of a table, and how well it fits."""
    file, names = found(*named, separator=separator)
    check_writable(out, files.KINDS, overwrite=overwrite, read=[*file.paths, *tables_of(fits)])
    file.check_outside(out)
    fitted = interrupts.interruptible(lambda: read_fits(fits))
    by = fitted.keys.column_names
    kept = list(dict.fromkeys([*by, *of.columns(wanted.keep, names)]))
    labels = label_columns(fitted.n_components, probabilities=wanted.probabilities)
    added = [name for name in labels if wanted.p_values or name != "p_value"]
    _check_free(kept, added)

    def opened() -> tuple[Rows, pa.Schema]:
        columns = list(dict.fromkeys([*kept, *fitted.features]))
        # Columns that are kept are read as keys are, so that 001 stays 001.
        own, known = [name for name in kept if name not in fitted.features], fitted.keys.schema
        options = {"separator": separator, "are_numbers": True, "where": wanted.where}
        rows = open_rows(file, columns, keys=own, known=known, **options)
        return rows, pa.schema([rows.schema.field(name) for name in kept])

    with console.reading(file, shown=not as_json):
        rows, of_kept = interrupts.interruptible(opened)
    # Keys are written as they were read: keys of no fitted group may not convert to the type that was fitted.
    schema = pa.schema([pa.field(field.name, field.type) for field in of_kept])
    for name in added:
        schema = schema.append(pa.field(name, pa.int32() if name == "component" else pa.float64()))
    n_rows, n_without, n_unknown = 0, 0, 0
    predicted = _predicted(rows, fitted, kept, schema, probabilities=wanted.probabilities)
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


def _unmatched(file: Dataset, fits: Path, keys: pa.Table) -> str:
    """A warning that no row has the key of a fitted group."""
    example = ", ".join(f"{name}={keys[name][0]}" for name in keys.column_names)
    return (
        f"no row of {file} belongs to a group that was fitted; "
        f"compare its keys with those of {fits}, such as {example}."
    )


def sample(fits: Path, out: Path, n: int, seed: int, *, overwrite: bool, as_json: bool) -> None:
    """Writes samples drawn from the mixture of every group."""
    check_writable(out, files.KINDS, overwrite=overwrite, read=tables_of(fits))
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


def _check_free(names: Sequence[str], written: Sequence[str]) -> None:
    taken = [name for name in written if name in names]
    if taken:
        raise ValueError(
            f"two columns of the output would be called {taken[0]!r}; "
            "rename that of the table, and fit again if it is a key or a feature."
        )


def _predicted(
    rows: Rows, fitted: Fitted, kept: list[str], schema: pa.Schema, *, probabilities: bool
) -> Iterator[tuple[pa.Table, int]]:
    """Predictions for the rows of a table, block by block, and how many of them belong to no fitted group."""
    from jaxgmm.tables.labels import labels  # noqa: PLC0415 (imports JAX)

    console.keep_programs()
    by, features, mixture = fitted.keys.column_names, fitted.features, fitted.mixture()
    for block in rows.blocks(list(dict.fromkeys([*kept, *features])), size=_BLOCK):
        group = group_of(block.select(by), fitted.keys, rows.source, has_types=rows.has_types)
        n_unknown = int(np.count_nonzero(group < 0))
        samples = np.stack([numbers(block[name], name) for name in features], axis=1)
        found = labels(mixture, group, samples, probabilities=probabilities)
        component = pa.array(found["component"], mask=found["component"] < 0)
        # NaN is null.
        others = [pa.array(found[name], from_pandas=True) for name in schema.names[len(kept) + 1 :]]
        yield pa.table([*block.select(kept).columns, component, *others], schema=schema), n_unknown


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
