"""The commands and their options. The code that does a command's work is imported only when the command is given."""

import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from jaxgmm import settings
from jaxgmm.cli import console
from jaxgmm.cli import options as of

_FAMILIES = ", ".join(settings.FAMILIES)

app = typer.Typer(
    name="jaxgmm",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    no_args_is_help=True,
)


@app.callback()
def _root(
    version: console.Version = False,
) -> None:
    """Gaussian mixtures in bulk: thousands to millions of fits in one call.

    Exit codes: 0 done; 1 no group ended CONVERGED or MAX_ITER, or `jaxgmm doctor` found something wrong; 2 misuse,
    reported in one line; 130 interrupted.
    """


@app.command("fit")
def _fit(
    *,
    file: of.Table,
    by: of.By = None,
    features: of.Features,
    components: Annotated[str, typer.Option(help="Number of components.", metavar="K", show_default=False)],
    out: of.Out,
    covariance: Annotated[str, typer.Option(help=f"Family of covariances: {_FAMILIES}.", metavar="FAMILY")] = "full",
    starts: of.Starts = 10,
    finalists: of.Finalists = None,
    seed: of.Seed = 0,
    tol: of.Tol = 1e-5,
    max_iter: of.MaxIter = 1000,
    reg_covar: Annotated[
        float,
        typer.Option(
            help="Ridge on variances, as a fraction of the variance of the bulk of the group.", min=0, metavar="RATIO"
        ),
    ] = 1e-12,
    allow_spurious: of.AllowSpurious = False,
    weights: of.Weights = None,
    order_by: of.OrderBy = "mean",
    precision: of.Precision = "mixed",
    separator: of.SeparatorOfBoth = ",",
    resume: of.Resume = False,
    as_csv: of.Csv = False,
    as_json: of.Json = False,
) -> None:
    """Fit a mixture to every group of a table, or one to the whole table.

    Separate several columns by commas, or repeat the option. Rows whose key is missing form a group of their own.

    Example: `jaxgmm fit cells.parquet --by plate,well --features red,green --components 3 --out fits`

    Example: `jaxgmm fit cells.csv --features red,green --components 3 --out fits --csv`

    Without `--by`, one mixture is fitted to all rows, and the tables have no key columns. With `--csv`, a CSV file is
    written beside each of them.

    `DIR/fits.parquet` has a row for every group, sorted by key: the key columns, n_samples, log_likelihood (nats),
    n_iter, spurious (how many components rest on a few samples or on equal values), ridge_dominated (how many owe more
    than a tenth of a variance to the ridge), start_passed_over (whether a likelier start was passed over because it had
    spurious components or a degenerate end), flags (names of the reasons to distrust the fit), status, and explanation,
    a sentence that says what the status means.

    `DIR/components.parquet` has a row for every component of every group: the key columns, component (from 0), weight,
    mean_F for every feature F, and then variance_F (families diag and spherical) or the lower triangle of the
    covariance matrix: covariance_F_F, and covariance_G_F where --features names F before G; and flags, those of the
    fit, of which overlapping and ridge_dominated stand only at the components that they concern.

    A fit without an answer has nulls, and its status says why. `jaxgmm sweep` chooses the number of components.

    Exit codes: 0 done; 1 no group ended CONVERGED or MAX_ITER, and the tables say why; 2 misuse; 130 interrupted.

    Parquet files may be larger than memory: they are read in parts of whole groups. (Without `--by`, memory must hold
    the columns that are fitted.) If the rows are not sorted by key,
    they are first sorted into files in DIR, which takes as much disk space again. Each finished part is kept: after an
    interrupt, a crash or a power cut, the same command with `--resume` continues the job.

    Compiled programs are kept for later runs in the user's cache (`~/.cache/jaxgmm`, or in XDG_CACHE_HOME), or in
    JAX_COMPILATION_CACHE_DIR if that is set.
    """
    from jaxgmm.cli import fit
    from jaxgmm.cli.request import requested

    models = {"n_components": of.whole_number(components), "covariance_type": covariance, "reg_covar": reg_covar}
    options = of.of_runs(starts, finalists, seed, tol, max_iter, precision, allow_spurious=allow_spurious)
    request = requested(file, separator, by, features, weights, order_by, "fit", models, options)
    if not fit.run(request, out, resume=resume, as_csv=as_csv, as_json=as_json):
        raise typer.Exit(1)


@app.command("sweep")
def _sweep(
    *,
    file: of.Table,
    by: of.By = None,
    features: of.Features,
    out: of.Out,
    components: Annotated[
        str, typer.Option(help="Numbers of components to choose from, such as 1-6, or 2,4,8.", metavar="K")
    ] = "1-6",
    covariance: Annotated[
        str, typer.Option(help=f"Families of covariances to choose from: {_FAMILIES}.", metavar="FAMILIES")
    ] = "full",
    criterion: Annotated[settings.Criterion, typer.Option(help="What to choose by.")] = "bic",
    starts: of.Starts = 10,
    finalists: of.Finalists = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after this many K without improvement.", min=1, metavar="N")
    ] = None,
    split: Annotated[
        bool, typer.Option("--split", help="Add a start that splits a component of the fit with the previous K.")
    ] = False,
    folds: Annotated[int, typer.Option(help="Folds of the criterion cv.", min=2, metavar="N")] = 5,
    seed: of.Seed = 0,
    tol: of.Tol = 1e-5,
    max_iter: of.MaxIter = 1000,
    reg_covar: Annotated[
        str,
        typer.Option(
            help="Ridges on variances, as fractions of the variance of the bulk of the group. Of several ridges, "
            "information criteria take the smallest that has a sound fit; the criterion cv compares them.",
            metavar="RATIOS",
        ),
    ] = "1e-12",
    allow_spurious: of.AllowSpurious = False,
    weights: of.Weights = None,
    order_by: of.OrderBy = "mean",
    precision: of.Precision = "mixed",
    separator: of.SeparatorOfBoth = ",",
    resume: of.Resume = False,
    as_csv: of.Csv = False,
    as_json: of.Json = False,
) -> None:
    """Fit several mixtures to every group of a table, or to the whole table, and choose among them.

    Separate several columns by commas, or repeat the option. Rows whose key is missing form a group of their own.

    Example: `jaxgmm sweep cells.parquet --by plate,well --features red,green --components 1-6 --covariance full,diag
    --criterion bic --out fits`

    `DIR/fits.parquet` and `DIR/components.parquet` are as for `jaxgmm fit`; fits.parquet also has the choice for every
    group: n_components, covariance_type, at_largest_k (whether K is the largest of several that were tried) and the
    criterion. If axis-aligned families are tried together with others, all components have covariances.

    `DIR/models.parquet` has a row for every model fitted to every group: the key columns, n_components,
    covariance_type, reg_covar, n_samples, n_parameters, log_likelihood, the criterion, n_iter, status, spurious
    and ridge_dominated (numbers of such components), n_agreeing (starts that reached the same optimum),
    start_passed_over and passed_over (whether a start, or this model, has a better likelihood or criterion, but only
    because of spurious components or a degenerate end), chosen, at_largest_k, and flags: those of the fit for the model
    that was chosen, and for others those that their rows show.

    Large files, `--csv`, `--resume`, compiled programs and exit codes are as for `jaxgmm fit`.
    """
    from jaxgmm.cli import fit
    from jaxgmm.cli.request import requested

    models = {
        "n_components": of.whole_numbers(components),
        "covariance_type": of.names(covariance),
        "reg_covar": of.ridges(reg_covar),
        "criterion": criterion,
        "patience": patience,
        "split": split,
        "n_folds": folds,
    }
    options = of.of_runs(starts, finalists, seed, tol, max_iter, precision, allow_spurious=allow_spurious)
    request = requested(file, separator, by, features, weights, order_by, "sweep", models, options)
    if not fit.run(request, out, resume=resume, as_csv=as_csv, as_json=as_json):
        raise typer.Exit(1)


@app.command("predict")
def _predict(
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
    separator: of.SeparatorOfBoth = ",",
    overwrite: of.Overwrite = False,
    as_json: of.Json = False,
) -> None:
    """Name the most probable component of every row of a table.

    Example: `jaxgmm predict cells.parquet --fits fits --out components.parquet`

    Example: `jaxgmm predict cells.csv --fits fits --out components.csv --probabilities`

    Example: `jaxgmm predict cells.csv --fits fits --out components.csv --keep cell_id`

    The table needs the key and feature columns of the fits; its rows may differ from those that were fitted. FILE has
    one row for each of its rows, in the same order: the key columns, those that `--keep` names, component (from 0),
    probability (of that component), and log_density (the logarithm of the mixture's density, in nats). With `--p-value`
    it also has p_value, the probability of a sample at least as far from its component; with `--probabilities`,
    probability_0, probability_1 and so on, which are 0 for components that a group does not have. All are null where a
    feature is missing or not finite, and for groups without a fit.

    A Parquet table, or a CSV table of which no keys and no other columns are written, is read block by block and may be
    larger than memory.
    """
    from jaxgmm.cli import use

    flags = {"p_values": p_value, "probabilities": probabilities, "overwrite": overwrite, "as_json": as_json}
    use.predict(file, separator, fits, out, keep or [], **flags)


@app.command("sample")
def _sample(
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


@app.command("plot")
def _plot(
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
        Path | None, typer.Option(help="The table that was fitted; all kinds but criterion need it.", metavar="TABLE")
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

    pictures.plot(kind, fits, out, data, separator, group or [], order, n, overwrite=overwrite, as_json=as_json)


@app.command("report")
def _report(
    *,
    fits: of.Fits,
    data: Annotated[Path, typer.Option(help="The table that was fitted.", metavar="TABLE", show_default=False)],
    out: Annotated[Path, typer.Option(help="HTML file to write.", metavar="FILE", show_default=False)],
    title: Annotated[str | None, typer.Option(help="Title of the page.", metavar="TEXT")] = None,
    separator: of.Separator = ",",
    overwrite: of.Overwrite = False,
    as_json: of.Json = False,
) -> None:
    """Write a page to walk through all fits of a directory.

    Example: `jaxgmm report fits --data cells.parquet --out report.html`

    FILE is one HTML file, which a browser opens without a network: a table of all groups that sorts, filters and
    searches; pictures of all of them; plates, where the last key names wells such as A7; and beside these one group:
    its samples and mixture, the criterion, residuals and components. Of each group, 200 samples are drawn at most. The
    table is read whole.
    """
    from jaxgmm.cli import report

    report.report(fits, data, separator, out, title, overwrite=overwrite, as_json=as_json)


@app.command("info")
def _info(
    *,
    path: Annotated[
        Path, typer.Argument(help="A table, a directory of fits, or a .safetensors file.", show_default=False)
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
