"""sweep(): the choice of K, family and ridge for every data set at once.

    data sets × models  →  chunks (`jaxgmm.driver.plan`)  →  fits  →  criteria  →  the best sound model of each data set

Models whose runs can share programs are runs of one queue; see `jaxgmm.driver.plan`.
"""

import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from jaxgmm.driver.arguments import checked_key, finalists, ridge_in, sizes_of_job, weighted
from jaxgmm.driver.dispatch import on_chunks
from jaxgmm.driver.plan import Chunk
from jaxgmm.driver.program import Request
from jaxgmm.em.initialization import INITIALIZERS
from jaxgmm.engine.batch import batch
from jaxgmm.engine.cores import n_cores
from jaxgmm.engine.progress import progress_bar
from jaxgmm.fit_result import FitResult, empty_result, store_chosen
from jaxgmm.record import status_names
from jaxgmm.selection.choice import choice
from jaxgmm.selection.criteria import CRITERIA
from jaxgmm.selection.held_out import held_out
from jaxgmm.selection.likelihood_ratio import distance, p_values
from jaxgmm.selection.models import Columns, Fitted, compared, fitted_models, joined
from jaxgmm.selection.notes import notes_on
from jaxgmm.selection.sweep_request import SweepRequest
from jaxgmm.selection.sweep_result import Sweep
from jaxgmm.settings import (
    TOL,
    Method,
    Precision,
    check_choice,
    check_flag,
    check_integer,
    check_model,
    check_progress,
    check_runs,
    check_test,
    is_integer,
    method_for,
)
from jaxgmm.status import Status

# Columns of a sweep's table before and after those of criteria, in their order.
_FIRST_COLUMNS = ("data_set", "n_components", "covariance_type", "reg_covar", "n_samples", "n_parameters")
_FIRST_COLUMNS += ("log_likelihood",)
_LAST_COLUMNS = ("gap", "n_iter", "status", "spurious", "ridge_dominated", "n_agreeing")
_LAST_COLUMNS += ("start_passed_over", "passed_over", "chosen", "at_largest_k")


def sweep(
    x: Any,
    n_components: Iterable[int] | int = range(1, 7),
    *,
    covariance_type: str | Sequence[str] = "full",
    reg_covar: float | Sequence[float] = 1e-12,
    criterion: str | Sequence[str] = "bic",
    init: str = "k-means++",
    n_init: int = 10,
    n_finalists: int | None = None,
    n_folds: int = 5,
    n_replicates: int = 199,
    patience: int | None = None,
    split: bool = False,
    avoid_spurious: bool = True,
    tol: float = TOL,
    max_iter: int = 1000,
    sample_weight: Any = None,
    key: Any = 0,
    precision: Precision = "mixed",
    method: Method | None = None,
    part_of: Any = None,
    threads: int | None = None,
    progress: bool | Callable[[int, int], None] = False,
) -> Sweep:
    """Fits every combination of K, family and ridge to every data set, and chooses among them.

    The model with the lowest criterion is chosen. What a model gains by spurious components (see `FitResult.spurious`)
    does not count: it is compared by the likelihood it would have if these were as wide as the data, unless
    `avoid_spurious` is False. A degenerate model is chosen only if all are degenerate.

    Args:
        x: as for `fit`.
        n_components: the numbers of components to try, or one.
        covariance_type: families to try, or one.
        reg_covar: ridges to try, or one; as for `fit`. A smaller ridge never has a lower likelihood, so information
            criteria choose K and family at the smallest ridge that has a sound fit, or, if a K is degenerate there, at
            the next ridge at which it is not; `"cv"` compares ridges.
        criterion: the criterion of the choice, lower being better: `"bic"`, `"aic"`, `"aicc"`, `"icl"` (BIC of the
            classified data) or `"cv"` (-2 log-likelihood of held-out folds); or `"lrt"`, which takes the smallest K
            that a bootstrap likelihood-ratio test does not reject against K + 1 at a level of 0.05, and whose column
            holds the p-values. If several are given, the first chooses; all are in the table.
        init: name of an initialiser, as for `fit`.
        n_init: R, starts for every model.
        n_finalists: as for `fit`.
        n_folds: number of folds, for cross-validation. Data sets of one length are divided alike.
        n_replicates: samples drawn from the fit of K for each test; testing stops at the first K that is not rejected.
            Tests need consecutive K, one family and one ridge.
        patience: stop raising K for a data set after this many consecutive K that are not better than the best before
            them; degenerate models count as worse, and those with spurious components are compared as in the choice.
            Models not fitted have no row. None fits all. For `"cv"`, all K are cross-validated first.
        split: add one start to every model: the fit of the previous K with its widest component split; for the first K,
            and in cross-validation, one more start of the usual kind.
        avoid_spurious: as for `fit`; False chooses by criterion and likelihood alone.
        tol: as for `fit`.
        max_iter: as for `fit`.
        sample_weight: as for `fit`. Criteria take the sum of the weights as the number of samples.
        key: as for `fit`.
        precision: as for `fit`.
        method: as for `fit`.
        part_of: as for `fit`. The replicates of `"lrt"` are drawn for the data sets of `x` alone.
        threads: as for `fit`.
        progress: show a progress bar (needs rich); or a function that receives the numbers of finished and of all runs.
            Replicates of the likelihood-ratio test are not counted.

    Returns:
        the table of all fits, and the best fit of every data set.

    Raises:
        ValueError: wrong shapes or options. It is raised before anything is computed.
        ImportError: a package that an option needs is not installed.

    Warns:
        UserWarning: an information criterion, and weights that sum to much less than the number of samples.

    Example:
        >>> import numpy as np, jaxgmm
        >>> x = np.random.default_rng(0).normal(size=100) + np.where(np.arange(100) < 60, -4, 4)
        >>> sweep = jaxgmm.sweep(x[:, None], range(1, 4), n_init=3)
        >>> sweep.chosen["n_components"].tolist()
        [2]
        >>> sweep.best.mixture.weights.round(3).tolist()
        [0.4, 0.6, 0.0]
    """
    began = time.perf_counter()
    names = _several(criterion, str, "criterion")
    # One K after another, so that the fits of smaller K are known.
    ks = _several(n_components, (int, np.integer), "n_components")
    ks = sorted(ks) if all(map(is_integer, ks)) else ks
    models = [
        (k, family, ridge)
        for k in ks
        for family in _several(covariance_type, str, "covariance_type")
        for ridge in _several(reg_covar, (int, float, np.number), "reg_covar")
    ]
    for model in models:
        check_model(*model)
    check_runs(n_init, n_finalists, tol, max_iter, precision, method)
    check_flag("avoid_spurious", avoid_spurious)
    check_progress(progress)
    check_choice(names, n_folds, patience, split)
    _check_drawn(init, n_replicates)
    if any(CRITERIA[name].is_test for name in names):
        check_test(names, models, sample_weight, patience, split)
    data = weighted(batch(x), sample_weight)
    models = list(dict.fromkeys((int(k), family, ridge_in(precision, ridge)) for k, family, ridge in models))
    asked = SweepRequest(data, sizes_of_job(part_of, data), models, names, patience, split, int(n_replicates))
    starts = int(n_init) + bool(split)
    request = Request(
        init=init,
        n_init=starts,
        n_finalists=finalists(n_finalists, starts),
        precision=precision,
        tol=float(tol),
        max_iter=int(max_iter),
        key=checked_key(key),
        avoids_spurious=bool(avoid_spurious),
        method=method_for(method, tol),
        threads=n_cores(threads),
    )
    is_cross_validated = "held_out" in asked.reads
    n_times = 1 + int(n_folds) if is_cross_validated else 1
    with progress_bar(data.n_data_sets * len(models) * starts * n_times, shown=progress) as report:
        left_out = None
        if is_cross_validated:
            left_out = held_out(data, models, int(n_folds), request, report, asked.sizes)
        columns, best = _swept(asked, request, left_out, report)
    notes = notes_on(names[0], models, columns)
    for note in notes:
        if note.is_warning:
            warnings.warn(note, UserWarning, stacklevel=2)
    best = replace(best.of(0) if data.is_single else best, seconds=time.perf_counter() - began)
    return Sweep(_table(asked, columns), best, notes)


def _swept(
    asked: SweepRequest, request: Request, left_out: np.ndarray | None, report: Callable[[int], None]
) -> tuple[Columns, FitResult]:
    """The columns `(B, M)` of all models and data sets, and the chosen fits."""

    def chosen_of(chunk: Chunk) -> tuple[Columns, list[Fitted]]:
        return _fit_and_choose(chunk, asked, request, left_out)

    data, numbers, found, executed, useful = asked.data, [], [], 0, 0
    best = empty_result(data.n_data_sets, data.samples.shape[1], asked.models, request)
    plan = {"sizes": asked.sizes, "by_components": asked.by_components}
    for chunk, (own, fitted) in on_chunks(chosen_of, data, asked.models, request, report, **plan):
        numbers.append(chunk.data_sets)
        found.append(own)
        for part in fitted:
            chosen, n_parameters = own["chosen"][:, part.models], asked.n_parameters[part.models]
            store_chosen(part.fits, chosen, n_parameters, chunk.data_sets, best)
            executed, useful = executed + part.fits.executed, useful + part.fits.useful
    order = np.argsort(np.concatenate(numbers))
    columns = {name: np.concatenate([own[name] for own in found])[order] for name in found[0]}
    unanswered = ~np.any(columns["chosen"], axis=1)
    status = columns["status"][unanswered, 0]
    # A model that was fitted has no criterion if it could not be fitted without one of the folds.
    has_fit = np.isin(status, (Status.CONVERGED, Status.MAX_ITER))
    best.status[unanswered] = np.where(has_fit, int(Status.DEGENERATE), status)
    best.start_status[unanswered] = best.status[unanswered, None]
    return columns, replace(best, efficiency=useful / max(1, executed))


def _fit_and_choose(
    chunk: Chunk, asked: SweepRequest, request: Request, left_out: np.ndarray | None
) -> tuple[Columns, list[Fitted]]:
    """Fits all models to the data sets of a chunk and chooses for each."""
    fitted = fitted_models(chunk, asked, None if left_out is None else left_out[chunk.data_sets])
    models, columns = joined(fitted)
    columns |= {
        name: p_values(asked, fitted, chunk.data_sets, request) for name in asked.criteria if CRITERIA[name].is_test
    }
    score, lead, ks = columns[asked.criteria[0]], columns["lead"], asked.n_components
    if asked.criterion.is_test:
        score = distance(score, columns["log_likelihood"])
        # The score is a distance between numbers of components, which no likelihood may outweigh.
        lead = len(models) * np.sign(lead)
    chosen, passed_over = choice(score, lead, columns["status"], compared(asked, models, score, columns))
    at_largest_k = chosen & (ks == max(ks)) & (max(ks) > min(ks))
    return columns | {"chosen": chosen, "passed_over": passed_over, "at_largest_k": at_largest_k}, fitted


def _table(asked: SweepRequest, columns: Columns) -> dict[str, np.ndarray]:
    """All columns, without the rows of models that were not fitted."""
    _, families, ridges = zip(*asked.models, strict=True)
    of_models = {
        "n_components": asked.n_components,
        "covariance_type": np.array(families),
        "reg_covar": np.array(ridges),
        "n_parameters": asked.n_parameters,
    }
    is_fitted = columns["fitted"]
    known = of_models | columns | {"status": status_names(columns["status"])}
    known["data_set"] = np.arange(len(is_fitted))[:, None]
    names = (*_FIRST_COLUMNS, *asked.criteria, *_LAST_COLUMNS)
    return {name: np.broadcast_to(known[name], is_fitted.shape)[is_fitted] for name in names}


def _several(values: Any, kind: Any, name: str) -> list:
    """One value or several, each once, in their order."""
    try:
        several = list(dict.fromkeys([values] if isinstance(values, kind) else values))
    except TypeError:
        noun = "name" if kind is str else "integer" if np.integer in kind else "number"
        raise ValueError(f"{name} must be one {noun} or a sequence of {noun}s; got {values!r}.") from None
    if not several:
        raise ValueError(f"{name} must name at least one value; it is empty.")
    return several


def _check_drawn(init: Any, n_replicates: Any) -> None:
    if not isinstance(init, str) or init not in INITIALIZERS:
        raise ValueError(f"init must be one of {', '.join(map(repr, INITIALIZERS))}, the same for all K; got {init!r}.")
    check_integer("n_replicates", n_replicates, 1)
