"""`jaxgmm info` and `jaxgmm doctor`: what a file holds, and what this machine does."""

from typing import Annotated

import typer

import jaxgmm


def _version(shown: bool) -> bool:
    if shown:
        typer.echo(f"jaxgmm {jaxgmm.__version__}")
        raise typer.Exit
    return shown


Version = Annotated[bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)]


def info() -> None:
    """Say."""


def doctor() -> None:
    """Say."""
