"""`jaxgmm plot`: pictures of fits."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import matplotlib.pyplot as plt
import numpy as np
import pyarrow as pa
import typer
from rich.console import Console

import jaxgmm
from jaxgmm import groups, job, plot, tables
from jaxgmm.cli import console, use
from jaxgmm.cli import options as of
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
        str | None, typer.Option(help="One group, such as A7, or plate=1,well=A7; the first by default.", metavar="KEY")
    ] = None,
    by: Annotated[By, typer.Option(help="What the groups of an overview are chosen by.")] = _STATUS,
    n: Annotated[int, typer.Option("--panels", "-n", help="Groups in an overview.", min=1, metavar="N")] = 24,
    as_json: of.Json = False,
) -> None:
    """Draw an overview of many fits, or one group's mixture, pairs of features, diagnosis or criterion.

    Example: `jaxgmm plot overview fits --data cells.parquet --by misfit --out worst.png`

    Example: `jaxgmm plot criterion fits --group plate=1,well=A7 --out bic.png`

    The table is read whole. `jaxgmm plot criterion` needs the directory of a sweep.
    """
    if out.suffix not in _KINDS:
        raise ValueError(f"--out must end in {', '.join(_KINDS)}; got {out}.")
    if out.exists():
        raise FileExistsError(f"{out} exists already; remove it, or name another file.")
    if (data is None) != (kind == Kind.criterion):
        remedy = "leave out" if data else "give"
        raise ValueError(f"jaxgmm plot {kind} {'takes no' if data else 'needs the fitted'} table; {remedy} --data.")
    fitted = use.read_fits(fits)
    drawn = _criterion(fits, fitted, group) if data is None else _of_samples(kind, fitted, data, group, by, n)
    figure = np.ravel(np.asarray(drawn))[0].figure
    figure.savefig(out, dpi=150)
    plt.close(figure)
    if as_json:
        console.print_json({"file": str(out)})
        return
    Console().print(f"drew {out}", highlight=False)


def _of_samples(kind: Kind, fitted: use.Fitted, data: Path, group: str | None, by: By, n: int) -> Any:
    """The kinds of picture that show samples."""
    keys = fitted.keys
    table = tables.read_table(data, [*keys.column_names, *fitted.features])
    fitted_to = groups.group(table, keys.column_names, fitted.features)
    if not fitted_to.keys.cast(keys.schema.remove_metadata()).equals(keys.replace_schema_metadata(None)):
        raise ValueError(f"{data} holds other groups than were fitted; give --data the table that was.")
    if kind == Kind.overview:
        names = [" ".join(map(str, row.values())) for row in keys.to_pylist()]
        return plot.overview(fitted_to.x, _result(fitted), by=by.value, n=n, names=names)
    b = _numbered(keys, group)
    own, x = jaxgmm.Mixture(*(leaf[b] for leaf in fitted.mixture)), fitted_to.x[b]
    x = x[np.all(np.isfinite(x), axis=1)]
    if kind == Kind.diagnosis:
        return plot.diagnosis(jaxgmm.diagnose(own, x), names=fitted.features)
    return (plot.mixture if kind == Kind.mixture else plot.pairs)(own, x, names=fitted.features)


def _criterion(directory: Path, fitted: use.Fitted, group: str | None) -> Any:
    """The criterion of one group's models."""
    path = directory / "models.parquet"
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; jaxgmm sweep writes it, jaxgmm fit does not.")
    description = job.description_of(path) or {}
    models = tables.read_table(path, tables.column_names(path))
    own = use.group_of(models.select(fitted.keys.column_names), fitted.keys) == _numbered(fitted.keys, group)
    table = {name: np.array(models[name].filter(pa.array(own)).to_pylist()) for name in models.column_names}
    numeric = ("reg_covar", description["criterion"])
    table |= {name: table[name].astype(float) for name in numeric} | {"data_set": np.zeros(own.sum(), int)}
    return plot.criterion(table, description["criterion"])


def _numbered(keys: pa.Table, group: str | None) -> int:
    """The number of the group that a text such as plate=1,well=A7 names."""
    if group is None:
        return 0
    names = keys.column_names
    wanted = {names[0]: group} if len(names) == 1 and not group.startswith(f"{names[0]}=") else {}
    for piece in [] if wanted else group.split(","):
        name, _, value = piece.partition("=")
        wanted[name.strip()] = value.strip()
    if set(wanted) != set(names):
        raise ValueError(f"--group must give each of {', '.join(names)}, as in {names[0]}=1; got {group!r}.")
    matches = np.all([[str(value) == wanted[name] for value in keys[name].to_pylist()] for name in names], axis=0)
    if not np.any(matches):
        raise ValueError(f"no group is called {group!r}; fits.parquet lists them all.")
    return int(np.argmax(matches))


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
