"""The commands `fit` and `sweep`: their options and help."""

from typing import Annotated

import typer

from jaxgmm import settings
from jaxgmm.cli import options as of
from jaxgmm.engine import cores

_FAMILIES = ", ".join(settings.FAMILIES)


def fit(
    *,
    file: of.Table,
    by: of.By = None,
    where: of.Where = None,
    features: of.Features,
    components: Annotated[str, typer.Option(help="Number of components.", metavar="K", show_default=False)],
    out: of.Out,
    covariance: Annotated[str, typer.Option(help=f"Family of covariances: {_FAMILIES}.", metavar="FAMILY")] = "full",
    starts: of.Starts = 10,
    finalists: of.Finalists = None,
    seed: of.Seed = 0,
    tol: of.Tol = settings.TOL,
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
    method: of.Method = None,
    passes: of.Passes = None,
    separator: of.SeparatorOfBoth = ",",
    threads: of.Threads = None,
    ray: of.Ray = None,
    resume: of.Resume = False,
    as_csv: of.Csv = False,
    as_json: of.Json = False,
) -> None:
    """Fit a mixture to every group of a table, or one to the whole table.

    Separate several columns by commas, or repeat the option. Rows whose key is missing form a group of their own.

    Example: `jaxgmm fit cells.parquet --by plate,well --features red,green --components 3 --out fits`

    Example: `jaxgmm fit cells.csv --features red,green --components 3 --out fits --csv`

    Example: `jaxgmm fit data --where "plate = 7 and well in ('A01', 'A02')" --by well --features red --components 3
    --out fits`

    TABLE is a file, several files, a directory of files or a pattern in quotes, such as `'data/*.parquet'`, on this
    machine or at a URI that Arrow opens, such as `s3://bucket/data?region=eu-west-1`; credentials belong in the
    environment. In a path such as `data/plate=7/x.parquet`, plate is a column. `--where` compares columns with values
    or other columns by `=`, `<>`, `<`, `<=`, `>`, `>=`, `in`, `not in`, `is null` and `is not null`, joined by `and`,
    `or`, `not` and `( )`. Texts are in single quotes, and names with other characters than letters, digits and `_` in
    double ones.

    Without `--by`, one mixture is fitted to all rows, and the tables have no key columns. With `--csv`, a CSV file is
    written beside each of them.

    `DIR/fits.parquet` has a row for every group, sorted by key: the key columns, n_samples, log_likelihood (nats),
    gap (nats per sample that were left to gain, by the run's own estimate), n_iter, spurious (how many components rest
    on a few samples or on equal values), ridge_dominated (how many owe more than a tenth of a variance to the ridge),
    start_passed_over (whether a likelier start was passed over because it had spurious components or a degenerate end),
    flags (names of the reasons to distrust the fit), status, and explanation, a sentence that says what the status
    means.

    `DIR/components.parquet` has a row for every component of every group: the key columns, component (from 0), weight,
    mean_F for every feature F, and then variance_F (families diag and spherical) or the lower triangle of the
    covariance matrix: covariance_F_F, and covariance_G_F where --features names F before G; and flags, those of the
    fit, of which overlapping and ridge_dominated stand only at the components that they concern.

    A fit without an answer has nulls, and its status says why. `jaxgmm sweep` chooses the number of components.

    Exit codes: 0 done; 1 no group ended CONVERGED or MAX_ITER, and the tables say why; 2 misuse; 130 interrupted.

    Parquet files may be larger than memory: they are read in parts of whole groups. Without `--by`, memory must hold
    the columns that are fitted, unless `--passes` is given: then a sample of 65,536 rows is fitted with all starts, and
    the table is read batch by batch, once for the sample and once for every pass. Its flags are those of the sample. If
    the rows are not sorted by key, they are first sorted into files in DIR, which takes as much disk space again. Each
    finished part is kept: after an interrupt, a crash or a power cut, the same command with `--resume` continues the
    job.

    With `--ray`, parts are tasks of a Ray cluster, all of whose machines must see the table, in Parquet files, and DIR:
    `--ray auto` means the cluster that this machine belongs to, and `--ray local` starts one here.

    Compiled programs are kept for later runs in the user's cache (`~/.cache/jaxgmm`, or in XDG_CACHE_HOME), or in
    JAX_COMPILATION_CACHE_DIR if that is set.
    """
    from jaxgmm.cli.fit import Table, requested, run

    models = {"n_components": of.whole_number(components), "covariance_type": covariance, "reg_covar": reg_covar}
    cores.keep_to(threads)
    options = of.of_runs(starts, finalists, seed, tol, max_iter, precision, method, allow_spurious=allow_spurious)
    options |= {} if passes is None else {"passes": passes}
    table = Table(file, separator, by, features, weights, where)
    request = requested(table, "fit", models, options, order_by)
    if not run(request, out, ray, resume=resume, as_csv=as_csv, as_json=as_json):
        raise typer.Exit(1)


def sweep(
    *,
    file: of.Table,
    by: of.By = None,
    where: of.Where = None,
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
    replicates: Annotated[
        int,
        typer.Option(
            help=f"Samples drawn for each test of the criterion lrt, which tests at a level of {settings.LEVEL}.",
            min=1,
            metavar="N",
        ),
    ] = 199,
    seed: of.Seed = 0,
    tol: of.Tol = settings.TOL,
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
    method: of.Method = None,
    separator: of.SeparatorOfBoth = ",",
    threads: of.Threads = None,
    ray: of.Ray = None,
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
    covariance_type, reg_covar, n_samples, n_parameters, log_likelihood, the criterion, gap, n_iter, status, spurious
    and ridge_dominated (numbers of such components), n_agreeing (starts that reached the same optimum),
    start_passed_over and passed_over (whether a start, or this model, has a better likelihood or criterion, but only
    because of spurious components or a degenerate end), chosen, at_largest_k, and flags: those of the fit for the model
    that was chosen, and for others those that their rows show.

    TABLE, `--where`, large files, `--csv`, `--resume`, `--ray`, compiled programs and exit codes are as for
    `jaxgmm fit`.
    """
    from jaxgmm.cli.fit import Table, requested, run

    models = {
        "n_components": of.whole_numbers(components),
        "covariance_type": of.names(covariance),
        "reg_covar": of.ridges(reg_covar),
        "criterion": criterion,
        "patience": patience,
        "split": split,
        "n_folds": folds,
        "n_replicates": replicates,
    }
    cores.keep_to(threads)
    options = of.of_runs(starts, finalists, seed, tol, max_iter, precision, method, allow_spurious=allow_spurious)
    table = Table(file, separator, by, features, weights, where)
    request = requested(table, "sweep", models, options, order_by)
    if not run(request, out, ray, resume=resume, as_csv=as_csv, as_json=as_json):
        raise typer.Exit(1)
