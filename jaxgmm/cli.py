"""The command `jaxgmm`: a mixture for every group of a table, from file to file.

What the user can put right, from a misspelt column to a full disk, ends with one line on stderr and exit code 2; an
interrupt ends with 130. Nothing has been written then.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

import jax
import numpy as np

import jaxgmm
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.status import Status

try:
    import typer
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from jaxgmm import frames, tables
except ImportError as missing:
    # This module is a program, and the one line is its whole output.
    print(f"jaxgmm: the command needs more packages ({missing}); pip install 'jaxgmm[cli]'", file=sys.stderr)  # noqa: T201
    raise SystemExit(2) from None

Answer = TypeVar("Answer")

_OUTPUTS = ("components", "fits", "models")
_INTERRUPTED = 130
# More numbers of components than anyone fits, in one range.
_MOST_NUMBERS = 1000
_MISUSE = 2
# Click's, or that of the copy which newer typers carry.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]  # pyright: ignore[reportAssignmentType]

app = typer.Typer(name="jaxgmm", add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")


class Criterion(StrEnum):
    """What models are chosen by; lower is better."""

    bic = "bic"
    aic = "aic"
    aicc = "aicc"
    icl = "icl"
    cv = "cv"
    lrt = "lrt"


class Precision(StrEnum):
    """The floating-point numbers that EM computes with."""

    mixed = "mixed"
    float32 = "float32"
    float64 = "float64"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: what follows the program's name; those of this process by default.

    Returns:
        the exit code: 0, 2 for misuse, 130 for an interrupt.
    """
    try:
        code = app(args=None if arguments is None else list(arguments), prog_name="jaxgmm", standalone_mode=False)
    except _UsageError as error:
        return _refuse(_usage(error))
    except (ValueError, OSError) as error:
        return _refuse(str(error))
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    if code == _INTERRUPTED:
        _say_interrupted()
    return code if isinstance(code, int) else 0


def _version(shown: bool) -> bool:
    if shown:
        typer.echo(f"jaxgmm {jaxgmm.__version__}")
        raise typer.Exit
    return shown


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Gaussian mixtures in bulk: thousands to millions of fits in one call."""


@app.command("fit")
def fit_file(
    *,
    file: Annotated[Path, typer.Argument(help="A Parquet or CSV table, one sample in each row.")],
    by: Annotated[list[str], typer.Option(help="Columns that say which group a row belongs to.", metavar="COLUMNS")],
    features: Annotated[list[str], typer.Option(help="Columns of numbers to be fitted.", metavar="COLUMNS")],
    components: Annotated[
        str, typer.Option(help="Numbers of components to choose from, such as 3, or 1-6, or 2,4,8.", metavar="K")
    ],
    out: Annotated[Path, typer.Option(help="Directory for the output tables.", metavar="DIR")],
    covariance: Annotated[
        str, typer.Option(help=f"Families of covariances to choose from: {', '.join(FAMILIES)}.", metavar="FAMILIES")
    ] = "full",
    criterion: Annotated[Criterion, typer.Option(help="What to choose by, of several models.")] = Criterion.bic,
    starts: Annotated[int, typer.Option(help="Starts for every group; the best run is kept.", min=1, metavar="R")] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the starts.", min=0, max=2**32 - 1, metavar="SEED")] = 0,
    tol: Annotated[
        float, typer.Option(help="Stop when an iteration gains fewer nats per sample.", min=0, metavar="NATS")
    ] = 1e-5,
    max_iter: Annotated[
        int, typer.Option(help="Iterations of a run at most.", min=0, max=2**31 - 1, metavar="N")
    ] = 1000,
    reg_covar: Annotated[
        float,
        typer.Option(help="Ridge on variances, as a fraction of the group's own variance.", min=0, metavar="RATIO"),
    ] = 1e-6,
    weights: Annotated[str | None, typer.Option(help="Column of sample weights.", metavar="COLUMN")] = None,
    precision: Annotated[
        Precision, typer.Option(help="mixed: search in float32, finish in float64.")
    ] = Precision.mixed,
) -> None:
    """Fit a mixture to every group of a table, and choose its number of components.

    Give several columns separated by commas, or repeat the option. Rows whose key is missing are a group of their own.

    Example: `jaxgmm fit cells.parquet --by plate,well --features red,green --components 3 --out fits`

    Example: `jaxgmm fit cells.parquet --by plate,well --features red,green --components 1-6 --covariance full,diag
    --criterion bic --out fits`

    `DIR/fits.parquet` has a row for every group, sorted by key: the key columns, n_samples, then what was chosen, if
    there was a choice (n_components, covariance_type and the criterion), log_likelihood (nats), n_iter, spurious
    (components that are spikes), status, and explanation, a sentence that says what the status means.

    `DIR/components.parquet` has a row for every component of every group: the key columns, component (from 0), weight,
    mean_F for every feature F, and then variance_F (families diag and spherical only) or the lower triangle of the
    covariance matrix: covariance_F_F, and covariance_G_F where --features names F before G.

    `DIR/models.parquet`, if there was a choice, has a row for every model fitted to every group: the key columns,
    n_components, covariance_type, reg_covar, n_samples, n_parameters, log_likelihood, the criterion, n_iter, status,
    spurious (components that are spikes), n_agreeing (starts that led to the same optimum), start_passed_over and
    passed_over (whether a start, or this model, would have won but for its spikes), and chosen.

    Compiled programs are kept for the next time, in the user's application directory, or where
    JAX_COMPILATION_CACHE_DIR says.

    A fit without an answer has nulls, and its status says why. All tables are written when all is done, or none; one
    that exists already is left alone.
    """
    ks = _numbers(components)
    families = list(dict.fromkeys(piece.strip() for piece in covariance.split(",")))
    is_choice = len(ks) * len(families) > 1
    tables.check_absent(out, _OUTPUTS if is_choice else _OUTPUTS[:2])
    names = tables.column_names(file)
    by, features = _columns(by, names), _columns(features, names)
    frames.check_output_columns(by, features, families, criterion.value if is_choice else None)
    table = tables.read_table(file, list(dict.fromkeys([*by, *features, *([weights] if weights else [])])))
    if table.num_rows == 0:
        raise ValueError(f"{file} is empty; it needs at least one row below its header.")
    groups = frames.group(table, by, features, weights)
    del table
    if getattr(jax.config, "jax_compilation_cache_dir", None) is None:
        jaxgmm.keep_programs(Path(typer.get_app_dir("jaxgmm")) / "programs")

    began = time.perf_counter()
    options = {
        "n_init": starts,
        "tol": tol,
        "max_iter": max_iter,
        "sample_weight": groups.sample_weight,
        "key": seed,
        "precision": precision.value,
        "progress": True,
    }
    if is_choice:
        models = {"covariance_type": families, "reg_covar": reg_covar, "criterion": criterion.value}
        sweep = _interruptible(lambda: jaxgmm.sweep(groups.x, ks, **models, **options))
        result, n_groups = sweep.best, groups.keys.num_rows
        chosen = frames.chosen_columns(sweep.table, n_groups, criterion.value)
        outputs = {"models": frames.models_table(groups.keys, sweep.table)}
    else:
        model = {"covariance_type": families[0], "reg_covar": reg_covar}
        result = _interruptible(lambda: jaxgmm.fit(groups.x, ks[0], **model, **options))
        sweep, chosen, outputs = None, None, {}
    seconds = time.perf_counter() - began
    outputs["components"] = frames.components_table(groups.keys, result, features)
    outputs["fits"] = frames.fits_table(groups.keys, groups.n_samples, result, chosen)
    tables.write_tables(out, outputs)
    _summarise(result.status, len(groups.samples), seconds, [out / f"{name}.parquet" for name in reversed(outputs)])
    if sweep is not None:
        _summarise_choice(sweep.chosen)


def _is_digits(*texts: str) -> bool:
    return all(text.strip().isdecimal() for text in texts)


def _numbers(text: str) -> list[int]:
    """Numbers of components from a text such as 1-4,8."""
    numbers: list[int] = []
    for piece in text.split(","):
        first, _, last = piece.partition("-")
        last = last or first
        own = range(int(first), int(last) + 1) if _is_digits(first, last) else range(0)
        if not 0 < len(own) <= _MOST_NUMBERS or own[0] < 1:
            raise ValueError(f"--components must be numbers from 1, such as 3, or 1-6, or 2,4,8; got {text!r}.")
        numbers += own
    return sorted(set(numbers))


def _columns(given: Sequence[str], names: Sequence[str]) -> list[str]:
    """The columns that an option names, split at commas unless a column is called just that."""
    columns: list[str] = []
    for value in given:
        columns += [value] if value in names else [piece.strip() for piece in value.split(",") if piece.strip()]
    return columns


def _interruptible(work: Callable[[], Answer]) -> Answer:
    """What `work` returns. An interrupt ends the program at once, where compiled code would first run to its end."""
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
        if answer.done():
            raise
        Console(stderr=True).show_cursor()
        _say_interrupted()
        # Threads at work in compiled code cannot be stopped, and an orderly exit would wait for them.
        os._exit(_INTERRUPTED)


def _say_interrupted() -> None:
    typer.echo("\njaxgmm: interrupted; nothing was written.", err=True)


def _summarise(status: np.ndarray, n_samples: int, seconds: float, files: Sequence[Path]) -> None:
    """Prints how the fits ended, and how long they took."""
    n_groups = len(status)
    table = Table("status", "fits", "meaning", box=None, pad_edge=False, header_style="bold")
    table.columns[1].justify = "right"
    for code in Status:
        count = int(np.count_nonzero(status == code))
        if count:
            table.add_row(code.name, f"{count:,}", code.sentence)
    console = Console()
    console.print(f"\n{n_groups:,} groups, {n_samples:,} samples", style="bold", highlight=False)
    console.print(table)
    console.print(f"fitted in {seconds:.1f} s, {n_groups / seconds:,.0f} fits/s", highlight=False)
    console.print(Text("wrote " + " and ".join(map(str, files))))


def _summarise_choice(chosen: dict[str, np.ndarray]) -> None:
    """Prints how often which model was chosen: K down, families across."""
    families = list(dict.fromkeys(chosen["covariance_type"].tolist()))
    table = Table("components", *families, box=None, pad_edge=False, header_style="bold")
    for column in table.columns:
        column.justify = "right"
    for k in np.unique(chosen["n_components"]).tolist():
        of_k = chosen["covariance_type"][chosen["n_components"] == k]
        table.add_row(str(k), *(f"{np.count_nonzero(of_k == family):,}" for family in families))
    console = Console()
    console.print("\ngroups by the model chosen", style="bold", highlight=False)
    console.print(table)


def _usage(error: Exception) -> str:
    message: str = error.format_message()  # pyright: ignore[reportAttributeAccessIssue]
    if message.startswith("Got unexpected extra argument"):
        return f"{message}; separate columns by commas, as in --by plate,well."
    return f"{message.rstrip('.')}; see 'jaxgmm fit --help'."


def _refuse(message: str) -> int:
    """Says in one line what is wrong and what to do, and returns the exit code."""
    typer.echo(f"jaxgmm: error: {' '.join(message.split())}", err=True)
    return _MISUSE
