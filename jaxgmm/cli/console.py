"""What the command says, and how it is interrupted."""

import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Annotated, Any, TypeVar

import jax
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import jaxgmm
from jaxgmm.status import Status

Answer = TypeVar("Answer")

MISUSE = 2
INTERRUPTED = 130
# Click's, or that of the copy which newer typers carry.
usage_error: type[Exception] = typer.BadParameter.__bases__[0]  # pyright: ignore[reportAssignmentType]


def _version(shown: bool) -> bool:
    if shown:
        typer.echo(f"jaxgmm {jaxgmm.__version__}")
        raise typer.Exit
    return shown


Version = Annotated[bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)]


class Interrupted(Exception):  # noqa: N818
    """The user's interrupt, with a sentence on what is kept, and whether work is still going on in a thread."""

    def __init__(self, kept: str, *, is_running: bool) -> None:
        super().__init__(kept)
        self.is_running = is_running


def plain() -> Console:
    """Standard output, where texts of the user's are printed as they are."""
    return Console(markup=False, highlight=False)


def say(text: str) -> None:
    """Prints a line on stderr."""
    typer.echo(text, err=True)


def keep_programs() -> None:
    """Keeps compiled programs for the next time, unless the user has said where."""
    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        jaxgmm.keep_programs(Path(typer.get_app_dir("jaxgmm")) / "programs")


def print_json(value: Mapping[str, Any]) -> None:
    """Prints one JSON object on stdout, for scripts."""
    typer.echo(json.dumps(value, indent=1))


def interruptible(work: Callable[[], Answer], kept: Callable[[], str]) -> Answer:
    """What `work` returns. An interrupt is heard at once, where compiled code would first run to its end.

    Args:
        work: what to do.
        kept: says, after an interrupt, what has been kept.

    Raises:
        Interrupted: the user has interrupted the program.
    """
    answer: Future[Answer] = Future()

    def run() -> None:
        try:
            answer.set_result(work())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return answer.result()
    except KeyboardInterrupt:
        Console(stderr=True).show_cursor()
        raise Interrupted(kept(), is_running=not answer.done()) from None


def print_statuses(counts: Mapping[str, int]) -> None:
    """Prints how the fits ended."""
    table = plain_table("status", "fits", "meaning")
    table.columns[1].justify = "right"
    for code in Status:
        if counts.get(code.name):
            table.add_row(code.name, f"{counts[code.name]:,}", code.sentence)
    plain().print(table)


def print_choice(n_components: np.ndarray, covariance_type: np.ndarray) -> None:
    """Prints how often which model was chosen: K down, families across."""
    families = list(dict.fromkeys(covariance_type.tolist()))
    table = plain_table("components", *families)
    for column in table.columns:
        column.justify = "right"
    for k in np.unique(n_components).tolist():
        of_k = covariance_type[n_components == k]
        table.add_row(str(k), *(f"{np.count_nonzero(of_k == family):,}" for family in families))
    plain().print("\ngroups by the model chosen", style="bold")
    plain().print(table)


def plain_table(*headers: str) -> Table:
    """A table without lines."""
    return Table(*headers, box=None, pad_edge=False, header_style="bold")
