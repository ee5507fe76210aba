"""`jaxgmm fit` and `jaxgmm sweep`: a mixture for every group of a table, part by part."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer

import jaxgmm
from jaxgmm import job, parts, tables, tabular
from jaxgmm.cli import console
from jaxgmm.cli import options as of
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.engine.progress import bar
from jaxgmm.groups import check_named, group
from jaxgmm.program import Combination
from jaxgmm.settings import LRT, check_options, check_test

Item = TypeVar("Item")

# A part is some seconds of work: what may be lost when a process is killed. Runs times samples, and bounds on samples.
_RUNS_TIMES_ROWS = 2**23
_ROWS = (2**16, 2**20)
# Numbers of a part, and so its memory.
_NUMBERS = 2**24

_FAMILIES = ", ".join(FAMILIES)
_BIC = of.Criterion.bic
_MIXED = of.Precision.mixed


class Request(NamedTuple):
    """What one call of the command asks for.

    Attributes:
        file: the table.
        by: its key columns.
        features: its columns to be fitted.
        weights: its column of sample weights, or None.
        call: `jaxgmm.fit` or `jaxgmm.sweep`, by name.
        models: `n_components`, `covariance_type` and `reg_covar`, each one value or a list, and for a sweep what
            belongs to its choice.
        options: further options of both.
    """

    file: Path
    by: list[str]
    features: list[str]
    weights: str | None
    call: str
    models: dict[str, Any]
    options: dict[str, Any]

    @property
    def criterion(self) -> str | None:
        """What models are chosen by, or None where there is one."""
        return self.models.get("criterion")

    @property
    def combinations(self) -> list[Combination]:
        """The models that every group is fitted with."""
        several = (self.models[name] for name in ("n_components", "covariance_type", "reg_covar"))
        return list(product(*(values if isinstance(values, list) else [values] for values in several)))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the tables to be written; the last is placed last."""
        return ("components", "fits") if self.criterion is None else ("models", "components", "fits")

    @property
    def columns(self) -> list[str]:
        """The columns to be read."""
        return list(dict.fromkeys([*self.by, *self.features, *([self.weights] if self.weights else [])]))

    @property
    def description(self) -> dict[str, Any]:
        """The same as it is written into outputs; a changed file is another file."""
        size, changed = self.file.stat().st_size, datetime.fromtimestamp(self.file.stat().st_mtime, UTC)
        described = {
            "jaxgmm": jaxgmm.__version__,
            "file": self.file.name,
            "bytes": size,
            "modified": changed.isoformat(),
        }
        described |= {"call": self.call, "by": self.by, "features": self.features, "weights": self.weights}
        return described | self.models | self.options


def fit_file(
    *,
    file: of.Table,
    by: of.By,
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
        typer.Option(help="Ridge on variances, as a fraction of the group's own variance.", min=0, metavar="RATIO"),
    ] = 1e-6,
    weights: of.Weights = None,
    precision: of.PrecisionOption = _MIXED,
    resume: of.Resume = False,
    as_json: of.Json = False,
) -> None:
    """Fit a mixture to every group of a table.

    Give several columns separated by commas, or repeat the option. Rows whose key is missing are a group of their own.

    Example: `jaxgmm fit cells.parquet --by plate,well --features red,green --components 3 --out fits`

    `DIR/fits.parquet` has a row for every group, sorted by key: the key columns, n_samples, log_likelihood (nats),
    n_iter, spurious (components that are spikes), status, and explanation, a sentence that says what the status means.

    `DIR/components.parquet` has a row for every component of every group: the key columns, component (from 0), weight,
    mean_F for every feature F, and then variance_F (families diag and spherical) or the lower triangle of the
    covariance matrix: covariance_F_F, and covariance_G_F where --features names F before G.

    A fit without an answer has nulls, and its status says why. `jaxgmm sweep` chooses the number of components.

    Parquet files may be larger than memory: they are read in parts of whole groups. If the rows are not in the order of
    their keys, they are first sorted into files in DIR, which takes as much room there. Each part that is done is kept:
    after an interrupt, or anything worse, the same command with `--resume` goes on.

    Compiled programs are kept for the next time, in the user's application directory, or where
    JAX_COMPILATION_CACHE_DIR says.
    """
    models = {"n_components": _one(components), "covariance_type": covariance, "reg_covar": reg_covar}
    options = _options(starts, finalists, seed, tol, max_iter, precision)
    _run(_request(file, by, features, weights, "fit", models, options), out, resume=resume, as_json=as_json)


def sweep_file(
    *,
    file: of.Table,
    by: of.By,
    features: of.Features,
    out: of.Out,
    components: Annotated[
        str, typer.Option(help="Numbers of components to choose from, such as 1-6, or 2,4,8.", metavar="K")
    ] = "1-6",
    covariance: Annotated[
        str, typer.Option(help=f"Families of covariances to choose from: {_FAMILIES}.", metavar="FAMILIES")
    ] = "full",
    criterion: Annotated[of.Criterion, typer.Option(help="What to choose by.")] = _BIC,
    starts: of.Starts = 10,
    finalists: of.Finalists = None,
    patience: Annotated[
        int | None, typer.Option(help="End after so many K that were no better.", min=1, metavar="N")
    ] = None,
    split: Annotated[
        bool, typer.Option("--split", help="Add a start that splits a component of the K before.")
    ] = False,
    folds: Annotated[int, typer.Option(help="Folds of the criterion cv.", min=2, metavar="N")] = 5,
    seed: of.Seed = 0,
    tol: of.Tol = 1e-5,
    max_iter: of.MaxIter = 1000,
    reg_covar: Annotated[
        str, typer.Option(help="Ridges on variances, as fractions of the group's own variance.", metavar="RATIOS")
    ] = "1e-6",
    weights: of.Weights = None,
    precision: of.PrecisionOption = _MIXED,
    resume: of.Resume = False,
    as_json: of.Json = False,
) -> None:
    """Fit several mixtures to every group of a table, and choose among them.

    Give several columns separated by commas, or repeat the option. Rows whose key is missing are a group of their own.

    Example: `jaxgmm sweep cells.parquet --by plate,well --features red,green --components 1-6 --covariance full,diag
    --criterion bic --out fits`

    `DIR/fits.parquet` and `DIR/components.parquet` are those of `jaxgmm fit`; fits.parquet also has what was chosen for
    every group: n_components, covariance_type and the criterion. If axis-aligned families and others are tried
    together, all components have covariances.

    `DIR/models.parquet` has a row for every model fitted to every group: the key columns, n_components,
    covariance_type, reg_covar, n_samples, n_parameters, log_likelihood, the criterion, n_iter, status, spurious
    (components that are spikes), n_agreeing (starts that led to the same optimum), start_passed_over and passed_over
    (whether a start, or this model, is better by its number but degenerate or with spikes), and chosen.

    Large files, `--resume` and compiled programs are treated as by `jaxgmm fit`.
    """
    models = {
        "n_components": of.whole_numbers(components),
        "covariance_type": of.names(covariance),
        "reg_covar": of.ridges(reg_covar),
        "criterion": criterion.value,
        "patience": patience,
        "split": split,
        "n_folds": folds,
    }
    options = _options(starts, finalists, seed, tol, max_iter, precision)
    _run(_request(file, by, features, weights, "sweep", models, options), out, resume=resume, as_json=as_json)


def _request(
    file: Path,
    by: list[str],
    features: list[str],
    weights: str | None,
    call: str,
    models: dict[str, Any],
    options: dict[str, Any],
) -> Request:
    names = tables.column_names(file)
    return Request(file, of.columns(by, names), of.columns(features, names), weights, call, models, options)


def _one(components: str) -> int:
    n_components, *others = of.whole_numbers(components)
    if others:
        raise ValueError(
            f"jaxgmm fit takes one number of components, not {components}; jaxgmm sweep chooses among several."
        )
    return n_components


def _options(
    starts: int, finalists: int | None, seed: int, tol: float, max_iter: int, precision: of.Precision
) -> dict[str, Any]:
    return {
        "n_init": starts,
        "n_finalists": finalists,
        "key": seed,
        "tol": tol,
        "max_iter": max_iter,
        "precision": precision.value,
    }


def _run(request: Request, out: Path, *, resume: bool, as_json: bool) -> None:
    """Does the job, or what is left of it, and says how it went."""
    tabular.check_output_columns(request.by, request.features, request.criterion)
    _check_options(request)
    rows = parts.open_rows(request.file, request.columns)
    check_named(request.columns, request.by, request.features, request.weights)
    if resume and job.is_finished(out, request.outputs, request.description):
        _summarise(request, out, None, as_json=as_json)
        return
    with job.begun(out, request.outputs, request.description, resume=resume) as begun:
        console.keep_programs()
        try:
            fitted = console.interruptible(
                lambda: _fit_parts(request, rows, begun, shown=not as_json), lambda: _kept(begun)
            )
        except OSError as error:
            raise OSError(f"{error} ({_kept(begun)})") from error
    _summarise(request, out, fitted, as_json=as_json)


def _check_options(request: Request) -> None:
    """Raises ValueError for what `fit` and `sweep` would refuse, before any row is read."""
    given = request.options
    for k, family, ridge in request.combinations:
        check_options(
            k,
            family,
            given["n_init"],
            given["n_finalists"],
            given["tol"],
            given["max_iter"],
            ridge,
            given["precision"],
        )
    if request.criterion == LRT:
        check_test([LRT], request.combinations, request.weights, request.models["patience"], request.models["split"])


def _fit_parts(request: Request, rows: parts.Rows, begun: job.Job, *, shown: bool) -> tuple[int, float]:
    """Fits the parts that are not done, and joins all; returns how many groups were fitted, and in how many seconds."""
    planned = parts.plan(rows, request.by, request.features, request.weights, _rows_per_part(request))
    wanted = [part for part in range(planned.n_parts) if not begun.is_done(part)]
    if planned.n_parts > 1 and not planned.is_in_order and wanted:
        console.say(
            f"jaxgmm: the rows of {request.file.name} are not in the order of {', '.join(request.by)}; "
            f"sorting them into {len(wanted)} parts in {begun.directory}."
        )
    began, n_done = time.perf_counter(), planned.n_groups(range(planned.n_parts)) - planned.n_groups(wanted)
    n_before = n_done
    n_groups = len(planned.n_samples)
    with bar(n_groups, "groups", n_done) if shown else nullcontext(lambda *_: None) as tell:
        whole = parts.read(rows, planned, request.columns, wanted, begun.directory / "sorted")
        for part, table in zip(wanted, _ahead(whole), strict=True):
            of_part = planned.n_groups([part])

            def progress(done: int, of_all: int, first: int = n_done, of_part: int = of_part) -> None:
                tell(first + of_part * done / of_all, n_groups)

            begun.keep(part, _fitted(request, table, progress))
            n_done += of_part
            tell(n_done, n_groups)
    seconds = time.perf_counter() - began
    begun.finish(planned.n_parts)
    return n_done - n_before, seconds


def _fitted(request: Request, table: pa.Table, progress: Callable[[int, int], None]) -> dict[str, pa.Table]:
    """The output tables of one part."""
    groups = group(table, request.by, request.features, request.weights)
    options = request.models | request.options | {"sample_weight": groups.sample_weight, "progress": progress}
    if request.criterion is None:
        result, chosen, models = jaxgmm.fit(groups.x, **options), None, {}
    else:
        sweep = jaxgmm.sweep(groups.x, **options)
        result = sweep.best
        chosen = tabular.chosen_columns(sweep.table, groups.keys.num_rows, request.criterion)
        models = {"models": tabular.models_table(groups.keys, sweep.table)}
    return models | {
        "components": tabular.components_table(groups.keys, result, request.features),
        "fits": tabular.fits_table(groups.keys, groups.n_samples, result, chosen),
    }


def _rows_per_part(request: Request) -> int:
    """So many rows that a part is some seconds of work, and takes a bounded share of memory."""
    n_runs = request.options["n_init"] * len(request.combinations)
    least, most = _ROWS
    by_work = min(most, max(least, _RUNS_TIMES_ROWS // n_runs))
    return max(1, min(by_work, _NUMBERS // len(request.columns)))


def _ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, each asked for while the one before is worked on."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


def _kept(begun: job.Job) -> str:
    """What is kept when a job ends early."""
    begun.stop()
    if job.is_finished(begun.out, begun.names, begun.description):
        return "all tables were written."
    if begun.n_done == 0:
        return "nothing was written."
    return f"{begun.n_done} parts are kept in {begun.directory}; the same command with --resume goes on."


def _summarise(request: Request, out: Path, fitted: tuple[int, float] | None, *, as_json: bool) -> None:
    """Says how the fits ended, and how long they took."""
    files = [out / f"{name}.parquet" for name in reversed(request.outputs)]
    chosen = ["n_components", "covariance_type"] if request.criterion else []
    with pq.ParquetFile(files[0]) as file:
        fits = file.read(["status", "n_samples", *chosen])
    counts, n_samples = Counter(fits["status"].to_pylist()), int(np.sum(fits["n_samples"].to_numpy()))
    n_fitted, seconds = fitted or (0, 0.0)
    if as_json:
        summary = {"groups": fits.num_rows, "samples": n_samples, "status": dict(counts)}
        summary |= {"fitted": n_fitted, "seconds": round(seconds, 3), "files": [str(path) for path in files]}
        console.print_json(summary)
        return
    printed = console.plain()
    printed.print(f"\n{fits.num_rows:,} groups, {n_samples:,} samples", style="bold")
    console.print_statuses(counts)
    if fitted is None:
        printed.print("all was done before")
    else:
        rest = "" if n_fitted == fits.num_rows else f"; {fits.num_rows - n_fitted:,} had been done before"
        rate = n_fitted / seconds if seconds else 0
        printed.print(f"fitted {n_fitted:,} in {seconds:.1f} s, {rate:,.0f} groups/s{rest}")
    printed.print("wrote " + " and ".join(map(str, files)), soft_wrap=True)
    if request.criterion:
        has_answer = fits.drop_null()
        console.print_choice(has_answer["n_components"].to_numpy(), np.array(has_answer["covariance_type"].to_pylist()))
