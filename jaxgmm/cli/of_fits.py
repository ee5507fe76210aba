"""The commands that take fits, `predict`, `sample`, `plot` and `report`: their options and help."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from jaxgmm.cli import options as of


def predict(
    *,
    file: of.Table,
    fits: Annotated[
        Path, typer.Option(help="Directory that jaxgmm fit or sweep has written.", metavar="DIR", show_default=False)
    ],
    out: of.TableOut,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write the probability of every component, too.")
    ] = False,
    p_value: Annotated[
        bool, typer.Option("--p-value", help="Write how unusual the row is, too: near 0 for outliers.")
    ] = False,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            help="Columns of the table to write beside the keys, such as one that identifies rows.", metavar="COLUMNS"
        ),
    ] = None,
    where: of.Where = None,
    separator: of.SeparatorOfBoth = ",",
    overwrite: of.Overwrite = False,
    as_json: of.Json = False,
) -> None:
    """Name the most probable component of every row of a table.

    Example: `jaxgmm predict cells.parquet --fits fits --out components.parquet`

    Example: `jaxgmm predict cells.csv --fits fits --out components.csv --probabilities`

    Example: `jaxgmm predict cells.csv --fits fits --out components.csv --keep cell_id`

    The table needs the key and feature columns of the fits; its rows may differ from those that were fitted. TABLE and
    `--where` are as for `jaxgmm fit`. FILE has one row for each row, or each that satisfies `--where`, in the same
    order: the key columns, those that `--keep` names, component (from 0), probability (of that component), and
    log_density (the logarithm of the mixture's density, in nats). With `--p-value` it also has p_value, the probability
    of a sample at least as far from its component; with `--probabilities`, probability_0, probability_1 and so on,
    which are 0 for components that a group does not have. All are null where a feature is missing or not finite, and
    for groups without a fit.

    A Parquet table, or a CSV table of which no keys and no other columns are written, is read block by block and may be
    larger than memory.
    """
    from jaxgmm.cli import use

    wanted = use.Wanted(keep or [], of.condition(where), p_value, probabilities)
    use.predict(file, separator, fits, out, wanted, overwrite=overwrite, as_json=as_json)


def sample(
    *,
    fits: of.Fits,
    out: of.TableOut,
    n: Annotated[int, typer.Option("--samples", "-n", help="Samples of every group.", min=1, metavar="N")] = 100,
    seed: of.Seed = 0,
    overwrite: of.Overwrite = False,
    as_json: of.Json = False,
) -> None:
    """Draw samples from the mixture of every group.

    Example: `jaxgmm sample fits --samples 100 --out drawn.parquet`

    FILE has N rows for every group that has an answer: the key columns, component (from 0), and the features.
    """
    from jaxgmm.cli import use

    use.sample(fits, out, n, seed, overwrite=overwrite, as_json=as_json)


def plot(
    *,
    kind: Annotated[
        Literal["overview", "mixture", "pairs", "diagnosis", "criterion"],
        typer.Argument(help="What to draw.", show_default=False),
    ],
    fits: of.Fits,
    out: Annotated[
        Path, typer.Option(help="Picture to write: .png, .svg or .pdf.", metavar="FILE", show_default=False)
    ],
    data: Annotated[
        str | None, typer.Option(help="The table that was fitted; all kinds but criterion need it.", metavar="TABLE")
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(help="The group, such as A7, or plate=1,well=A7; the first by default.", metavar="KEY"),
    ] = None,
    order: Annotated[
        Literal["status", "size", "misfit"], typer.Option(help="What the groups of an overview are chosen by.")
    ] = "status",
    by: Annotated[str | None, typer.Option(hidden=True)] = None,
    n: Annotated[int, typer.Option("--panels", "-n", help="Groups in an overview.", min=1, metavar="N")] = 24,
    separator: of.Separator = ",",
    overwrite: of.Overwrite = False,
    as_json: of.Json = False,
) -> None:
    """Draw an overview of many fits, or one group's mixture, pairs of features, diagnosis or criterion.

    Example: `jaxgmm plot overview fits --data cells.parquet --order misfit --out worst.png`

    Example: `jaxgmm plot criterion fits --group plate=1,well=A7 --out bic.png`

    The table is read whole. Give keys that contain commas one by one: `--group plate=1 --group 'well=A,7'`. `jaxgmm
    plot criterion` needs the directory of a sweep.
    """
    if by is not None:
        raise ValueError(f"--by names keys of groups, which the fits know; give an overview --order {by}.")
    from jaxgmm.cli import pictures

    picture = pictures.Picture(kind, group or [], order, n)
    pictures.plot(picture, fits, out, data, separator, overwrite=overwrite, as_json=as_json)


def report(
    *,
    fits: of.Fits,
    data: Annotated[str, typer.Option(help="The table that was fitted.", metavar="TABLE", show_default=False)],
    out: Annotated[Path, typer.Option(help="HTML file to write.", metavar="FILE", show_default=False)],
    title: Annotated[str | None, typer.Option(help="Title of the page.", metavar="TEXT")] = None,
    separator: of.Separator = ",",
    overwrite: of.Overwrite = False,
    as_json: of.Json = False,
) -> None:
    """Write a page for browsing all fits of a directory.

    Example: `jaxgmm report fits --data cells.parquet --out report.html`

    FILE is one HTML file, which a browser opens without a network: a table of all groups that sorts, filters and
    searches; pictures of all of them; plates, where the last key names wells such as A7; and beside these one group:
    its samples and mixture, the criterion, residuals and components. Of each group, 200 samples are drawn at most. The
    table is read whole.
    """
    from jaxgmm.cli.report import report as write

    write(fits, data, separator, out, title, overwrite=overwrite, as_json=as_json)
