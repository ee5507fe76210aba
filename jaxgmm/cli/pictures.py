"""`jaxgmm plot`: pictures of fits."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import matplotlib.pyplot as plt
import numpy as np
import pyarrow as pa
import typer

import jaxgmm
from jaxgmm import files, groups, job, plot, tables
from jaxgmm.cli import console, options, use
from jaxgmm.status import Status

_KINDS = (".png", ".svg", ".pdf")


class Kind(StrEnum):
    """What is drawn."""

    overview = "overview"
    mixture = "mixture"
    pairs = "pairs"
    diagnosis = "diagnosis"
    criterion = "criterion"


class By(StrEnum):
    """What the groups of an overview are chosen by."""

    status = "status"
    size = "size"
    misfit = "misfit"


_STATUS = By.status


def plot_file(
    *,
    kind: Annotated[Kind, typer.Argument(help="What to draw.", show_default=False)],
    fits: use.Fits,
    out: Annotated[
        Path, typer.Option(help="Picture to write: .png, .svg or .pdf.", metavar="FILE", show_default=False)
    ],
    data: Annotated[
        Path | None, typer.Option(help="The table that was fitted; all kinds but criterion need it.", metavar="TABLE")
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(help="One group, such as A7, or plate=1,well=A7; the first by default.", metavar="KEY"),
    ] = None,
    by: Annotated[By, typer.Option(help="What the groups of an overview are chosen by.")] = _STATUS,
    n: Annotated[int, typer.Option("--panels", "-n", help="Groups in an overview.", min=1, metavar="N")] = 24,
    as_json: options.Json = False,
) -> None:
    """Draw an overview of many fits, or one group's mixture, pairs of features, diagnosis or criterion.

    Example: `jaxgmm plot overview fits --data cells.parquet --by misfit --out worst.png`

    Example: `jaxgmm plot criterion fits --group plate=1,well=A7 --out bic.png`

    The table is read whole. Keys that hold commas are given one by one: `--group plate=1 --group 'well=A,7'`. `jaxgmm
    plot criterion` needs the directory of a sweep.
    """
    use.check_absent(out, _KINDS)
    if (data is None) != (kind == Kind.criterion):
        remedy = "leave out" if data else "give"
        raise ValueError(f"jaxgmm plot {kind} {'takes no' if data else 'needs the fitted'} table; {remedy} --data.")
    fitted = use.read_fits(fits)
    b = _numbered(fitted.keys, group or [])
    drawn = _criterion(fits, fitted, b) if data is None else _of_samples(kind, fitted, data, b, by, n)
    figure = np.ravel(np.asarray(drawn))[0].figure
    try:
        with files.written(out) as file:
            figure.savefig(file, dpi=150, format=out.suffix[1:])
    finally:
        plt.close(figure)
    if as_json:
        console.print_json({"file": str(out)})
        return
    of = "" if kind == Kind.overview else f" of {_name(fitted.keys, b)}"
    console.plain().print(f"drew the {kind}{of}: {out}", soft_wrap=True)


def _of_samples(kind: Kind, fitted: use.Fitted, data: Path, b: int, by: By, n: int) -> Any:
    """The kinds of picture that show samples."""
    keys, weights = fitted.keys, fitted.weights
    columns = [*keys.column_names, *fitted.features]
    columns += [weights] if weights and weights not in columns else []
    samples = groups.group(tables.read_table(data, columns), keys.column_names, fitted.features, weights)
    same = np.array_equal(samples.n_samples, fitted.table["n_samples"].to_numpy())
    if not same or np.any(use.group_of(samples.keys.cast(keys.schema), keys) != np.arange(keys.num_rows)):
        raise ValueError(f"{data} holds other groups than were fitted; give --data the table that was.")
    if kind == Kind.overview:
        names = [_name(keys, row) for row in range(keys.num_rows)]
        given = {"by": by.value, "n": n, "names": names, "sample_weight": samples.sample_weight}
        return plot.overview(samples.x, _result(fitted), **given)
    own = jaxgmm.Mixture(*(leaf[b] for leaf in fitted.mixture))
    if np.isnan(own.weights[0]):
        status = fitted.table["status"][b].as_py()
        raise ValueError(f"{_name(keys, b)} has no answer, but the status {status}; name another group.")
    weight = None if samples.sample_weight is None else samples.sample_weight[b]
    if kind == Kind.diagnosis:
        return plot.diagnosis(jaxgmm.diagnose(own, samples.x[b], weight), names=fitted.features)
    draw = plot.mixture if kind == Kind.mixture else plot.pairs
    return draw(own, samples.x[b], names=fitted.features, sample_weight=weight)


def _name(keys: pa.Table, row: int) -> str:
    return " ".join(str(keys[name][row].as_py()) for name in keys.column_names)


def _criterion(directory: Path, fitted: use.Fitted, b: int) -> Any:
    """The criterion of one group's models."""
    path = directory / "models.parquet"
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; jaxgmm sweep writes it, jaxgmm fit does not.")
    description = job.description_of(path) or {}
    models = tables.read_table(path, tables.column_names(path))
    own = use.group_of(models.select(fitted.keys.column_names), fitted.keys) == b
    table = {name: np.array(models[name].filter(pa.array(own)).to_pylist()) for name in models.column_names}
    numeric = ("reg_covar", description["criterion"])
    table |= {name: table[name].astype(float) for name in numeric} | {"data_set": np.zeros(own.sum(), int)}
    return plot.criterion(table, description["criterion"])


def _numbered(keys: pa.Table, group: list[str]) -> int:
    """The number of the group that texts such as plate=1,well=A7, or plate=1 and well=A7, name."""
    if not group:
        return 0
    names = keys.column_names
    if len(names) == 1 and len(group) == 1:
        pieces = [group[0] if group[0].startswith(f"{names[0]}=") else f"{names[0]}={group[0]}"]
    else:
        pieces = group[0].split(",") if len(group) == 1 else group
    wanted = {name.strip(): value for name, _, value in (piece.partition("=") for piece in pieces)}
    if set(wanted) != set(names):
        example = ",".join(f"{name}=…" for name in names)
        raise ValueError(f"--group must give each of {', '.join(names)}, as in {example}; got {','.join(group)!r}.")
    matches = np.all([_are_called(keys[name], wanted[name]) for name in names], axis=0)
    if not np.any(matches):
        raise ValueError(f"no group is called {','.join(group)!r}; fits.parquet lists them all.")
    return int(np.argmax(matches))


def _are_called(column: pa.ChunkedArray, text: str) -> list[bool]:
    """Which values a text means: as they are printed, or the number that it is; null for null."""
    is_number = pa.types.is_floating(column.type)
    return [
        text == ("null" if value is None else str(value)) or (is_number and value is not None and text == f"{value:g}")
        for value in column.to_pylist()
    ]


def _result(fitted: use.Fitted) -> jaxgmm.FitResult:
    """The fits as `jaxgmm.fit` would return them, without those of the starts."""
    codes = {status.name: int(status) for status in Status}
    table, none = fitted.table, np.empty((fitted.table.num_rows, 0))
    return jaxgmm.FitResult(
        mixture=fitted.mixture,
        log_likelihood=groups.numbers(table["log_likelihood"], "log_likelihood"),
        n_iter=table["n_iter"].to_numpy(),
        status=np.array([codes[name] for name in table["status"].to_pylist()], np.int32),
        spurious=table["spurious"].to_numpy(),
        start_log_likelihood=none,
        start_status=none.astype(np.int32),
        start_spurious=none.astype(np.int32),
        history=None,
        snapshots=None,
        efficiency=float("nan"),
    )
