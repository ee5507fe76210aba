"""Output of the command: lines, tables and JSON."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import jaxgmm
from jaxgmm.status import Status

# Click's, or that of the copy which newer typers carry.
usage_error: type[Exception] = typer.BadParameter.__bases__[0]  # pyright: ignore[reportAssignmentType]
abort = typer.Abort


def _version(shown: bool) -> bool:
    if shown:
        typer.echo(f"jaxgmm {jaxgmm.__version__}")
        raise typer.Exit
    return shown


Version = Annotated[bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)]


def plain() -> Console:
    """Standard output, where the user's texts are printed verbatim."""
    return Console(markup=False, highlight=False)


def say(text: str) -> None:
    """Prints a line on stderr."""
    typer.echo(text, err=True)


@contextmanager
def reading(table: object, *, shown: bool) -> Iterator[None]:
    """While this lasts, a terminal says that a table is read."""
    # Before the first rows are known, there is nothing to count.
    with Console(stderr=True).status(Text(f"reading {table}")) if shown else nullcontext():
        yield


def keep_programs() -> None:
    """Keeps compiled programs for later runs. Call it before anything is compiled: it imports JAX."""
    from jaxgmm.engine import programs  # noqa: PLC0415 (imports JAX)

    programs.keep_for_next_time()


def print_json(value: Mapping[str, Any]) -> None:
    """Prints one JSON object on stdout, for scripts."""
    typer.echo(json.dumps(value, indent=1))


def print_statuses(counts: Mapping[str, int]) -> None:
    """Prints how the fits ended."""
    table = plain_table("status", "fits", "meaning")
    table.columns[1].justify = "right"
    for code in Status:
        if counts.get(code.name):
            table.add_row(code.name, f"{counts[code.name]:,}", code.sentence)
    plain().print(table)


def plain_table(*headers: str) -> Table:
    """A table without lines."""
    return Table(*headers, box=None, pad_edge=False, header_style="bold")
