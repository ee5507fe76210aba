"""The commands. The code that does a command's work is imported only when the command is given."""

import time
from pathlib import Path
from typing import Annotated

import typer

from jaxgmm.cli import console, jobs, of_fits
from jaxgmm.cli import options as of
from jaxgmm.engine import cores

app = typer.Typer(
    name="jaxgmm",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    no_args_is_help=True,
)


@app.callback()
def _root(
    version: console.Version = False,  # noqa: ARG001 (printed before)
) -> None:
    """Gaussian mixtures in bulk: thousands to millions of fits in one call.

    Exit codes: 0 done; 1 no group ended CONVERGED or MAX_ITER, or `jaxgmm doctor` found something wrong; 2 misuse,
    reported in one line; 130 interrupted.
    """
    # Before JAX starts its threads.
    cores.keep_to()


# In the order in which the help lists them; the others follow.
for _command in (jobs.fit, jobs.sweep, of_fits.predict, of_fits.sample, of_fits.plot, of_fits.report):
    app.command(_command.__name__)(_command)


@app.command("info")
def _info(
    *,
    path: Annotated[
        str,
        typer.Argument(
            help="A table, in one file or a directory, a directory of fits, or a .safetensors file.",
            metavar="PATH",
            show_default=False,
        ),
    ],
    by: Annotated[
        list[str] | None, typer.Option(help="Columns to count the groups of a table by.", metavar="COLUMNS")
    ] = None,
    separator: of.Separator = ",",
    as_json: of.Json = False,
) -> None:
    """Say what a table, a directory of fits or a saved file holds.

    Example: `jaxgmm info cells.parquet --by plate,well`

    Example: `jaxgmm info fits`
    """
    from jaxgmm.cli import info

    info.info(path, separator, by, as_json=as_json)


@app.command("demo")
def _demo(
    *,
    out: Annotated[Path, typer.Option(help="Directory for tables and pictures, new or empty.", metavar="DIR")] = Path(
        "jaxgmm-demo"
    ),
) -> None:
    """Choose a mixture for each of 384 wells of made-up cells, and draw the results.

    Example: `jaxgmm demo --out demo`

    Every command is shown as you would type it. Three wells have bad data, to show how these are reported.
    """
    from jaxgmm.cli import demo

    demo.demo(out, lambda words: app(args=words, prog_name="jaxgmm", standalone_mode=False))


@app.command("doctor")
def _doctor(*, as_json: of.Json = False) -> None:
    """Test this machine: versions, devices, whether fits are right, and how fast they are.

    Example: `jaxgmm doctor`

    The test takes five seconds. The first time it also compiles, which may take another minute; it gives up after two.
    The exit code is 1 if something is wrong or unfinished after that time.
    """
    began = time.perf_counter()
    from jaxgmm.cli import doctor, interrupts

    if not interrupts.interruptible(lambda: doctor.doctor(began, as_json=as_json)):
        raise typer.Exit(1)
