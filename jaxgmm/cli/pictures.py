"""`jaxgmm plot`: pictures of fits."""

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

import jaxgmm
from jaxgmm.cli import console, interrupts
from jaxgmm.cli.fitted import Fitted, read_fits, read_samples
from jaxgmm.cli.inputs import found
from jaxgmm.cli.outputs import check_writable, writing
from jaxgmm.tables import atomic, files, groups, job_files
from jaxgmm.tables.keys import group_of
from jaxgmm.tables.wording import title_of

_KINDS = (".png", ".svg", ".pdf")
# The key of the group stands above these. The panels of other pictures have titles of their own.
_WITH_TITLE = ("mixture", "pairs", "criterion")


class Picture(NamedTuple):
    """The picture to draw.

    Attributes:
        kind: what it shows.
        group: the key of the group, as the user writes it; empty for the first.
        order: what the groups of an overview are chosen by.
        n: how many these are.
    """

    kind: str
    group: list[str]
    order: str
    n: int


def plot(
    picture: Picture, fits: Path, out: Path, data: str | None, separator: str, *, overwrite: bool, as_json: bool
) -> None:
    """Draws a picture of fits into a file."""
    kind = picture.kind
    check_writable(out, _KINDS, overwrite=overwrite)
    if (data is None) != (kind == "criterion"):
        remedy = "leave out" if data else "give"
        raise ValueError(f"jaxgmm plot {kind} {'takes no' if data else 'needs the fitted'} table; {remedy} --data.")
    if data is None:
        _models_path(fits)
    table = None if data is None else found(data, separator=separator)[0]
    fitted = interrupts.interruptible(lambda: read_fits(fits))
    b = _numbered(fitted.keys, picture.group)

    def drawn() -> bytes:
        if table is None:
            axes = _criterion(fits, fitted, b)
        else:
            axes = _of_samples(picture, fitted, read_samples(fitted, table, separator), b)
        if kind in _WITH_TITLE and fitted.keys.num_columns:
            np.ravel(np.asarray(axes))[0].set_title(_verbatim(_name(fitted.keys, b)))
        return _as_file(axes, out.suffix[1:])

    content = interrupts.interruptible(drawn)
    with writing(out), atomic.written(out) as file:
        file.write(content)
    if as_json:
        console.print_json({"file": str(out)})
        return
    of = "" if kind == "overview" or not fitted.keys.num_columns else f" of {_name(fitted.keys, b)}"
    console.plain().print(f"drew the {kind}{of}: {out}", soft_wrap=True)


def _as_file(drawn: Any, kind: str) -> bytes:
    """The figure of some axes as the content of a file. Closes the figure."""
    import matplotlib.pyplot as plt  # noqa: PLC0415 (takes long)

    figure, content = np.ravel(np.asarray(drawn))[0].figure, io.BytesIO()
    try:
        figure.savefig(content, dpi=150, format=kind)
    finally:
        plt.close(figure)
    return content.getvalue()


def _of_samples(picture: Picture, fitted: Fitted, samples: groups.Groups, b: int) -> Any:
    """Draws a kind of picture that shows samples."""
    keys, x, weights = fitted.keys, samples.x, samples.sample_weight
    if picture.kind == "overview":
        names = [_verbatim(_name(keys, row)) for row in range(keys.num_rows)]
        given = {"by": picture.order, "n": picture.n, "names": names, "sample_weight": weights}
        return jaxgmm.plot.overview(fitted.result(), x, **given)
    if not fitted.has_answer[b]:
        status = fitted.table["status"][b].as_py()
        remedy = "; name another group" if keys.num_columns else ""
        raise ValueError(f"{_name(keys, b)} has no answer: its status is {status}{remedy}.")
    own = fitted.mixture().of(b)
    weight, features = None if weights is None else weights[b], list(map(_verbatim, fitted.features))
    if picture.kind == "diagnosis":
        return jaxgmm.plot.diagnosis(jaxgmm.diagnose(own, x[b], weight), names=features)
    draw = jaxgmm.plot.mixture if picture.kind == "mixture" else jaxgmm.plot.pairs
    return draw(own, x[b], names=features, sample_weight=weight)


def _name(keys: pa.Table, row: int) -> str:
    """The key of a group in words."""
    if not keys.num_columns:
        return "the whole table"
    return title_of(keys[name][row].as_py() for name in keys.column_names)


def _verbatim(text: str) -> str:
    """A text that matplotlib draws as it is."""
    from jaxgmm.plot.palette import verbatim  # noqa: PLC0415 (imports matplotlib)

    return verbatim(text)


def _criterion(directory: Path, fitted: Fitted, b: int) -> Any:
    """The criterion of one group's models."""
    path = _models_path(directory)
    description = job_files.description_of(path) or {}
    models = files.read_table(path, files.column_names(path))
    own = group_of(models.select(fitted.keys.column_names), fitted.keys, path, has_types=True) == b
    table = {name: np.array(models[name].filter(pa.array(own)).to_pylist()) for name in models.column_names}
    numeric = ("reg_covar", description["criterion"])
    table |= {name: table[name].astype(float) for name in numeric} | {"data_set": np.zeros(own.sum(), int)}
    return jaxgmm.plot.criterion(table, description["criterion"])


def _models_path(directory: Path) -> Path:
    path = directory / "models.parquet"
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; jaxgmm sweep writes it, jaxgmm fit does not.")
    return path


def _numbered(keys: pa.Table, group: list[str]) -> int:
    """The number of the group named by texts such as plate=1,well=A7, or plate=1 and well=A7."""
    if not group:
        return 0
    names = keys.column_names
    if not names:
        raise ValueError("--group names one of several groups, and these fits are of a whole table; leave out --group.")
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
    """Which values a text denotes: as printed, or as a number; null for null."""
    is_number = pa.types.is_floating(column.type)
    return [
        text == ("null" if value is None else str(value)) or (is_number and value is not None and text == f"{value:g}")
        for value in column.to_pylist()
    ]
