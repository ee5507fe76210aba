"""fit_table() and sweep_table(): a mixture for every group of a table, by all processors of a cluster.

The table is cut into parts of whole groups, and an engine fits these: `"ray"`, as tasks of a Ray cluster, or
`"process"`, here, one after another. Both leave the same files, and either continues what the other has begun.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import numpy as np

try:
    from jaxgmm.jobs.cluster import by_absolute_paths
    from jaxgmm.jobs.engines import ENGINES
    from jaxgmm.jobs.request import TableRequest, check
    from jaxgmm.jobs.running import fit_parts, opened
    from jaxgmm.jobs.staged import RayDataset, staged
    from jaxgmm.jobs.work import Work, planned
    from jaxgmm.tables import files, job, job_files
    from jaxgmm.tables.condition import parsed
    from jaxgmm.tables.dataset import Dataset, find
    from jaxgmm.tables.groups import check_name, check_named, names_in
    from jaxgmm.tables.places import local
except ImportError as missing:
    raise ImportError(f"jaxgmm.distributed needs more packages ({missing}): pip install 'jaxgmm[ray]'.") from None

from jaxgmm.engine.progress import bar
from jaxgmm.settings import TOL, Method, Precision, check_flag, check_progress, is_integer, options_of_runs

__all__ = ["FittedTable", "fit_table", "join", "sweep_table"]

# The files of a request whose options have not been checked yet.
_UNKNOWN = Dataset((), Path(), ())


class FittedTable(NamedTuple):
    """The tables that a job has written.

    Attributes:
        out: their directory.
        names: of the tables: `"components"`, `"fits"`, and after a sweep `"models"`.
        n_groups: the number of all groups.
        n_fitted: how many of them this call has fitted.
        seconds: how long that took, without counting them before.
        notes: notes for the user, a sentence each.
    """

    out: Path
    names: tuple[str, ...]
    n_groups: int
    n_fitted: int
    seconds: float
    notes: tuple[str, ...]

    def paths(self, name: str) -> list[Path]:
        """The Parquet files of a table, in the order of keys: one for each part, or one if parts are joined.

        Raises:
            ValueError: there is no such table.
        """
        if name not in self.names:
            raise ValueError(f"there is no table {name!r}; the tables are {', '.join(map(repr, self.names))}.")
        joined = self.out / f"{name}.parquet"
        return [joined] if joined.exists() else sorted(self.out.glob(f"{job_files.APART}/*/{name}.parquet"))


def fit_table(
    source: str | Path | Sequence[str | Path] | RayDataset,
    by: str | Sequence[str],
    features: str | Sequence[str],
    n_components: int,
    *,
    out: str | Path,
    engine: str = "ray",
    address: str | None = None,
    join: bool = False,
    resume: bool = False,
    weights: str | None = None,
    where: str | None = None,
    order_by: str = "mean",
    covariance_type: str = "full",
    n_init: int = 10,
    n_finalists: int | None = None,
    tol: float = TOL,
    max_iter: int = 1000,
    reg_covar: float = 1e-12,
    avoid_spurious: bool = True,
    key: int = 0,
    precision: Precision = "mixed",
    method: Method | None = None,
    progress: bool | Callable[[float, int], None] = False,
) -> FittedTable:
    """Fits a mixture to every group of a table, on a cluster.

    The table is counted once, and programs are chosen for all groups, so that answers do not depend on how it is cut.
    Those of Ray are, bit for bit, those of the command with `--threads 1` on a machine of the same kind. A bad group
    has a status and changes no other. What is lost with a process or a machine is done again; see `docs/clusters.md`.

    Args:
        source: a Parquet file, a directory of them, a pattern such as `data/*.parquet`, or several of these, with one
            sample in each row: paths, at which all machines of the cluster find them, or URIs that `pyarrow.fs` opens,
            such as `"s3://bucket/data"`. Options stand in the query, as in `?region=eu-west-1`. Credentials belong in
            the environment of every machine; those in a URI are sent to the tasks, and recorded nowhere. Or a
            `ray.data.Dataset`, whose columns are first written, in its order, to a directory beside `out`, of the same
            name with `.rows`. They stay there, and are what a job that is resumed reads.
        by: the columns that make a group's key. Rows whose key is null form a group of their own.
        features: the D numeric columns to fit.
        n_components: K, at least 1.
        out: directory of the tables, which all machines find at this path, too. While the job lasts, it also holds as
            much as the table again if rows are not sorted by key.
        engine: `"ray"`, or `"process"` for this process alone.
        address: of a Ray cluster; `"auto"` for the one that this machine belongs to; None or `"local"` to start one
            here. It is ignored where `ray.init` has been called.
        join: join the tables of all parts, as the command does, into `fits.parquet` and `components.parquet`.
            Otherwise they stay in `parts/`, a directory for each, with `manifest.jsonl`, which says when and where each
            was done; `join` joins them later.
        resume: continue a job of the same arguments that has been begun in this directory, if there is one. What is
            finished is left as it is; only parts are joined if `join` says so.
        weights: a column of sample weights, not negative.
        where: a condition that the rows to be fitted satisfy, such as `"plate = 7"`, as for the command.
        order_by: the order of components: `"mean"`, `"weight"`, `"start"` or a feature; see `jaxgmm.frames.fit_groups`.
        covariance_type: this and the following options are those of `jaxgmm.fit`.
        n_init: see there.
        n_finalists: see there.
        tol: see there.
        max_iter: see there.
        reg_covar: see there.
        avoid_spurious: see there.
        key: a seed.
        precision: see there.
        method: see there.
        progress: show a progress bar (needs rich); or a function that receives the numbers of finished and of all
            groups.

    Returns:
        where the tables are, and how many groups were fitted.

    Raises:
        ValueError: wrong options, not a table, a missing column, or another job in this directory, or this is a URI; or
            a part that cannot be fitted, by its number.
        OSError: the table cannot be read, the directory cannot be written or holds tables already, or no cluster
            answers.
        ImportError: Ray is not installed.
    """
    models = {"n_components": n_components, "covariance_type": covariance_type, "reg_covar": reg_covar}
    options = options_of_runs(n_init, n_finalists, key, tol, max_iter, precision, method, avoid_spurious=avoid_spurious)
    request = _requested(by, features, weights, where, order_by, "fit", models, options)
    return _fitted(source, request, local(out), engine, address, is_joined=join, resume=resume, progress=progress)


def sweep_table(
    source: str | Path | Sequence[str | Path] | RayDataset,
    by: str | Sequence[str],
    features: str | Sequence[str],
    n_components: Iterable[int] | int = range(1, 7),
    *,
    out: str | Path,
    engine: str = "ray",
    address: str | None = None,
    join: bool = False,
    resume: bool = False,
    weights: str | None = None,
    where: str | None = None,
    order_by: str = "mean",
    covariance_type: str | Sequence[str] = "full",
    reg_covar: float | Sequence[float] = 1e-12,
    criterion: str = "bic",
    n_init: int = 10,
    n_finalists: int | None = None,
    n_folds: int = 5,
    n_replicates: int = 199,
    patience: int | None = None,
    split: bool = False,
    avoid_spurious: bool = True,
    tol: float = TOL,
    max_iter: int = 1000,
    key: int = 0,
    precision: Precision = "mixed",
    method: Method | None = None,
    progress: bool | Callable[[float, int], None] = False,
) -> FittedTable:
    """Fits several mixtures to every group of a table and chooses among them, on a cluster.

    Args:
        source: as for `fit_table`, like the following arguments.
        by: see there.
        features: see there.
        n_components: the numbers of components to try; this and the options from `covariance_type` on are those of
            `jaxgmm.sweep`.
        out: as for `fit_table`; there is also a table `models`.
        engine: see there.
        address: see there.
        join: see there.
        resume: see there.
        weights: see there.
        where: see there.
        order_by: see there.
        covariance_type: families to try, or one.
        reg_covar: ridges to try, or one.
        criterion: the criterion of the choice, one.
        n_init: as for `jaxgmm.sweep`.
        n_finalists: see there.
        n_folds: see there.
        n_replicates: see there.
        patience: see there.
        split: see there.
        avoid_spurious: see there.
        tol: see there.
        max_iter: see there.
        key: a seed.
        precision: see there.
        method: see there.
        progress: as for `fit_table`.

    Returns:
        as `fit_table`.

    Raises:
        ValueError: as for `fit_table`.
        OSError: as for `fit_table`.
        ImportError: Ray is not installed.
    """
    ks = _several(n_components)
    models = {
        # Others are refused.
        "n_components": sorted(ks) if all(map(is_integer, ks)) else ks,
        "covariance_type": _several(covariance_type),
        "reg_covar": _several(reg_covar),
        "criterion": criterion,
        "patience": patience,
        "split": split,
        "n_folds": n_folds,
        "n_replicates": n_replicates,
    }
    options = options_of_runs(n_init, n_finalists, key, tol, max_iter, precision, method, avoid_spurious=avoid_spurious)
    request = _requested(by, features, weights, where, order_by, "sweep", models, options)
    return _fitted(source, request, local(out), engine, address, is_joined=join, resume=resume, progress=progress)


def join(out: str | Path) -> None:
    """Joins the tables of all parts that `fit_table` or `sweep_table` has left in `out/parts`, as the command does.

    One process reads and writes all of them.

    Raises:
        OSError: there are no such parts, one is damaged, or the disk refuses.
        ValueError: `out` is a URI.
    """
    out = local(out)
    found = job_files.left_apart(out)
    if found is None:
        raise FileNotFoundError(
            f"{out / job_files.APART} holds no finished job; fit the table first, unless its tables are joined already."
        )
    description, names, n_parts = found
    with job.begun(out, names, description, resume=True) as begun:
        begun.finish(n_parts)


def _fitted(
    source: str | Path | Sequence[str | Path] | RayDataset,
    request: TableRequest,
    out: Path,
    engine: str,
    address: str | None,
    *,
    is_joined: bool,
    resume: bool,
    progress: bool | Callable[[float, int], None],
) -> FittedTable:
    check_flag("join", is_joined)
    check_flag("resume", resume)
    check_progress(progress)
    if engine not in tuple(ENGINES):
        raise ValueError(f"engine must be one of {', '.join(map(repr, ENGINES))}; got {engine!r}.")
    if not isinstance(address, str | None):
        raise ValueError(f"address must be a text, such as 'auto', or None; got {address!r}.")
    check(request)
    request = request._replace(file=_files_of(source, request, out, resume=resume))
    request, out = by_absolute_paths(request, out)
    rows, description = opened(request, out, engine)
    if resume and _is_there(out, request.outputs, description, is_joined=is_joined):
        found = FittedTable(out, request.outputs, 0, 0, 0.0, ())
        return found._replace(n_groups=sum(map(_n_rows, found.paths("fits"))))
    begins = job.begun(out, request.outputs, description, resume=resume)
    with begins as begun, ENGINES[engine].ready(address) as ready:
        work = planned(request, rows, begun, ready.plan)
        wanted = work.wanted
        with _told(work, wanted, progress) as tell:
            done = fit_parts(work, wanted, ready, tell, Event())
        (begun.finish if is_joined else begun.leave_apart)(work.plan.cut.n_parts)
    return FittedTable(out, request.outputs, work.plan.n_all, *done)


def _files_of(
    source: str | Path | Sequence[str | Path] | RayDataset, request: TableRequest, out: Path, *, resume: bool
) -> Dataset:
    if not isinstance(source, RayDataset):
        # The items of a frame would be the names of its columns.
        if hasattr(source, "__dataframe__"):
            raise ValueError("the table is in memory; fit it by jaxgmm.frames.fit_groups, or write it to a file.")
        return find(*_several(source))
    check_named(source.columns() or [], request.by, request.features, request.weights)
    conditions = [] if request.where is None else parsed(request.where).columns
    return find(staged(source, [*request.columns, *conditions], out.with_name(f"{out.name}.rows"), resume=resume))


def _is_there(out: Path, names: Sequence[str], description: dict[str, Any], *, is_joined: bool) -> bool:
    """Whether nothing is left to do. Joined tables are never divided again."""
    return job_files.is_finished(out, names, description) or (
        not is_joined and job_files.is_left_apart(out, names, description)
    )


def _n_rows(path: Path) -> int:
    with files.opened(path) as file:
        return file.metadata.num_rows


def _told(
    work: Work, wanted: Sequence[int], progress: bool | Callable[[float, int], None]
) -> AbstractContextManager[Callable[[float, int], None]]:
    if callable(progress):
        return nullcontext(progress)
    n_all = work.plan.n_all
    return bar(n_all, "groups", n_all - work.plan.n_in(wanted)) if progress else nullcontext(lambda *_: None)


def _requested(
    by: str | Sequence[str],
    features: str | Sequence[str],
    weights: str | None,
    where: str | None,
    order_by: str,
    call: str,
    models: dict[str, Any],
    options: dict[str, Any],
) -> TableRequest:
    condition = None if where is None else parsed(where).text
    check_name("weights", weights)
    columns = names_in("by", by), names_in("features", features), weights
    models, options = _plain(models), _plain(options)
    return TableRequest(_UNKNOWN, ",", *columns, order_by, call, models, options, condition)


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    """Options as a job records them: without NumPy's numbers."""

    def plain(value: Any) -> Any:
        return value.item() if isinstance(value, np.generic) else value

    each = {name: plain(value) for name, value in options.items()}
    return {name: list(map(plain, value)) if isinstance(value, list) else value for name, value in each.items()}


def _several(given: Any) -> list:
    return list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
