"""Options that several commands share, and how their texts are parsed."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from jaxgmm import settings
from jaxgmm.tables.condition import parsed
from jaxgmm.tables.wording import shortened

# Upper bound on the values in one range, larger than anyone needs.
_MOST_NUMBERS = 1000


# Not paths, which would make one slash of the two in a URI.
Table = Annotated[
    list[str],
    typer.Argument(
        help="A Parquet or CSV table, one sample in each row: a file or several, a directory, or a pattern in quotes; "
        "paths, or URIs.",
        metavar="TABLE...",
        show_default=False,
    ),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        help="Take only rows that satisfy a condition, such as \"plate = 7 and well in ('A01', 'A02')\"; if repeated, "
        "each of them.",
        metavar="CONDITION",
    ),
]
By = Annotated[
    list[str] | None,
    typer.Option(
        help="Columns that identify the group of a row. Left out, one mixture is fitted to the whole table.",
        metavar="COLUMNS",
    ),
]
Features = Annotated[list[str], typer.Option(help="Numeric columns to fit.", metavar="COLUMNS", show_default=False)]
AllowSpurious = Annotated[
    bool,
    typer.Option(
        "--allow-spurious",
        help="Compare starts by likelihood, and models by criterion, whether or not they have spurious components.",
    ),
]
Separator = Annotated[
    str,
    typer.Option(help="Separator of the fields of a CSV file: a character, or tab (.tsv: tab).", metavar="CHARACTER"),
]
# Of commands that also write CSV files.
SeparatorOfBoth = Annotated[
    str,
    typer.Option(
        "--separator",
        help="Separator of the fields of CSV files, read and written: a character, or tab (.tsv: tab).",
        metavar="CHARACTER",
    ),
]
Fits = Annotated[Path, typer.Argument(help="A directory that jaxgmm fit or sweep has written.", show_default=False)]
Out = Annotated[Path, typer.Option(help="Directory for the output tables.", metavar="DIR", show_default=False)]
TableOut = Annotated[
    Path,
    typer.Option(
        "--out",
        help="Table to write: .parquet, or .csv, .tsv or .txt, or .gz of these.",
        metavar="FILE",
        show_default=False,
    ),
]
Weights = Annotated[str | None, typer.Option(help="Column of sample weights.", metavar="COLUMN")]
Starts = Annotated[int, typer.Option(help="Starts for every model; the best run is kept.", min=1, metavar="R")]
Finalists = Annotated[
    int | None, typer.Option(help="Run only this many of the starts to their ends.", min=1, metavar="R")
]
Seed = Annotated[int, typer.Option(help="Seed of the random draws.", min=0, max=2**32 - 1, metavar="SEED")]
Tol = Annotated[
    float,
    typer.Option(
        help="Stop within so many nats per sample of the limit; 0 makes --max-iter iterations of EM.",
        min=0,
        metavar="NATS",
    ),
]
MaxIter = Annotated[int, typer.Option(help="Maximum iterations of a run.", min=0, max=2**31 - 1, metavar="N")]
Precision = Annotated[settings.Precision, typer.Option(help="mixed: search in float32, finish in float64.")]
Method = Annotated[
    settings.Method | None,
    typer.Option(help="How runs advance; left out, quasi-newton, or em with --tol 0.", show_default=False),
]
Threads = Annotated[
    int | None,
    typer.Option(
        help="Use at most this many cores (JAXGMM_THREADS limits all commands).",
        min=1,
        metavar="N",
        show_default="all",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        help="Fit on a Ray cluster: its address, auto for the one here, or local to start one.",
        metavar="ADDRESS",
        show_default=False,
    ),
]
Passes = Annotated[
    int | None,
    typer.Option(
        help="Without --by: read the table batch by batch, at most so many times, and fit a sample of it first.",
        min=1,
        metavar="N",
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue where an earlier run of this command stopped.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace FILE if it is there.")]
OrderBy = Annotated[
    str,
    typer.Option(
        help="Order of the components of every group: mean (of the first feature), another feature, weight (largest "
        "first), or start (as EM began).",
        metavar="ORDER",
    ),
]
Csv = Annotated[bool, typer.Option("--csv", help="Write each table as a CSV file, too.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables, and no progress.")]


# Options whose names differ from those of the arguments in a request; for others, `_` is `-`.
_TYPED = {
    "n_components": "--components",
    "covariance_type": "--covariance",
    "n_init": "--starts",
    "n_finalists": "--finalists",
    "key": "--seed",
    "n_folds": "--folds",
    "n_replicates": "--replicates",
    "avoid_spurious": "--allow-spurious",
    "sample_weight": "--weights",
}
_ARGUMENTS = re.compile(rf"\b({'|'.join((*_TYPED, 'reg_covar', 'patience', 'split', 'order_by'))})\b")


def as_typed(message: str) -> str:
    """A message of the library with the names of options as the user types them."""
    return _ARGUMENTS.sub(lambda found: _typed(found[0]), message)


def differing(name: str, before: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """How a job begun earlier differs from the wanted one, in the words of the command."""
    was, now = before.get(name), wanted.get(name)
    if name == "call":
        return f"by jaxgmm {was}, not by jaxgmm {now}"
    if name == "file":
        return f"with the file {was}, not {now}"
    if name in ("bytes", "modified", "files"):
        return f"with another {before.get('file')} ({name}: {was}, not {now})"
    if name == "digest":
        return f"with other files of {before.get('file')}"
    option = _typed(name)
    if _value(was) and _value(now):
        return f"with {option} {_value(was)}, not {_value(now)}"
    # A flag is given where the value is not the default.
    had = was not in (None, [], False) or (name == "avoid_spurious" and was is False)
    said = [f"{option} {_value(value)}".rstrip() for value in (was, now)]
    return f"with {said[0]}, not without {option}" if had else f"without {option}, not with {said[1]}"


def _typed(name: str) -> str:
    return _TYPED.get(name, f"--{name.replace('_', '-')}")


def _value(value: Any) -> str:
    """The value of an option as it is typed; a flag has none."""
    values = value if isinstance(value, list) else [value]
    return shortened(",".join(str(own) for own in values if own is not None and not isinstance(own, bool)))


def columns(given: Sequence[str], names: Sequence[str]) -> list[str]:
    """The columns that an option names, split at commas unless the whole text is the name of a column."""
    found: list[str] = []
    for value in given:
        pieces = [value] if value in names else [piece.strip() for piece in value.split(",")]
        if any(pieces) and not all(pieces):
            raise ValueError(f"{value!r} names a column without a name; write names, with a comma between them.")
        found += filter(None, pieces)
    return found


def condition(conditions: list[str] | None) -> str | None:
    """One condition that holds where all of them do; None for none."""
    given = conditions or []
    for one in given:
        # Its parentheses end with it.
        parsed(one)
    return " and ".join(f"({one})" for one in given) if len(given) > 1 else next(iter(given), None)


def keys(given: Sequence[str] | None, names: Sequence[str]) -> list[str]:
    """The columns that --by names; none if it is left out."""
    found = columns(given or [], names)
    # An unset variable in a script must not turn many fits into one.
    if given and not found:
        raise ValueError("--by names no column; name one, or leave out --by to take the whole table as one group.")
    return found


def whole_numbers(text: str) -> list[int]:
    """Numbers of components from a text such as 1-4,8."""
    found: list[int] = []
    for piece in text.split(","):
        first, _, last = piece.partition("-")
        last = last or first
        own = range(int(first), int(last) + 1) if _is_digits(first, last) else range(0)
        if not 0 < len(own) <= _MOST_NUMBERS or own[0] < 1:
            raise ValueError(f"--components must be numbers from 1, such as 3, or 1-6, or 2,4,8; got {text!r}.")
        found += own
    return sorted(set(found))


def whole_number(text: str) -> int:
    """A single number of components."""
    n_components, *others = whole_numbers(text)
    if others:
        raise ValueError(f"jaxgmm fit takes one number of components, not {text}; jaxgmm sweep chooses among several.")
    return n_components


def names(text: str) -> list[str]:
    """Names separated by commas, each once."""
    return list(dict.fromkeys(piece.strip() for piece in text.split(",")))


def ridges(text: str) -> list[float]:
    """Numbers separated by commas, each once."""
    try:
        return list(dict.fromkeys(float(piece) for piece in text.split(",")))
    except ValueError:
        raise ValueError(f"--reg-covar must be numbers such as 1e-12, or 1e-12,1e-3; got {text!r}.") from None


def of_runs(
    starts: int,
    finalists: int | None,
    seed: int,
    tol: float,
    max_iter: int,
    precision: str,
    method: str | None,
    *,
    allow_spurious: bool,
) -> dict[str, Any]:
    """The options of runs for `jaxgmm.fit` and `jaxgmm.sweep`."""
    told = (starts, finalists, seed, tol, max_iter, precision, method)
    return settings.options_of_runs(*told, avoid_spurious=not allow_spurious)


def _is_digits(*texts: str) -> bool:
    return all(text.strip().isdecimal() for text in texts)
