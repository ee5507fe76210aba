"""`jaxgmm report`: a page about all fits of a directory."""

from pathlib import Path

import pyarrow as pa

import jaxgmm
from jaxgmm.cli import console, interrupts
from jaxgmm.cli.fitted import Fitted, described, read_fits, read_samples
from jaxgmm.cli.inputs import found
from jaxgmm.cli.outputs import check_writable, writing
from jaxgmm.tables import atomic, files, job_files
from jaxgmm.tables.groups import Groups
from jaxgmm.tables.wording import counted


def report(
    fits: Path, data: str, separator: str, out: Path, title: str | None, *, overwrite: bool, as_json: bool
) -> None:
    """Writes a page about fits into a file."""
    check_writable(out, (".html", ".htm"), overwrite=overwrite)
    table, _ = found(data, separator=separator)
    fitted = interrupts.interruptible(lambda: read_fits(fits))
    samples = interrupts.interruptible(lambda: read_samples(fitted, table, separator))
    content = interrupts.interruptible(lambda: _content(fits, fitted, samples))
    pieces = interrupts.interruptible(lambda: jaxgmm.report.pieces(content, title))
    with writing(out), atomic.written(out) as file:
        for piece in interrupts.each(pieces):
            file.write(piece)
    if as_json:
        console.print_json({"groups": fitted.keys.num_rows, "bytes": out.stat().st_size, "file": str(out)})
        return
    said = f"{counted(fitted.keys.num_rows, 'group')}, {out.stat().st_size / 1e6:,.1f} MB; wrote {out}, for any browser"
    console.plain().print(said, soft_wrap=True)


def _content(directory: Path, fitted: Fitted, samples: Groups) -> "jaxgmm.report.Content":
    models, criterion = _models(directory)
    console.keep_programs()
    flags = fitted.table["flags"].to_pylist()
    options = (fitted.features, fitted.weights, fitted.result(), models, criterion, flags)
    return jaxgmm.report.content_of_groups(samples, *options)


def _models(directory: Path) -> tuple[pa.Table | None, str | None]:
    """The models that were tried and the criterion of the choice, if `jaxgmm sweep` wrote the directory."""
    description = described(directory / "fits.parquet")
    if "criterion" not in description:
        return None, None
    path = directory / "models.parquet"
    if job_files.description_of(path) != description:
        raise ValueError(f"{path} is not of the job that made {directory / 'fits.parquet'}; fit again.")
    return files.read_table(path, files.column_names(path)), description["criterion"]
