"""sweep(): the choice of K, family and ridge for every data set at once.

    data sets × models  →  chunks (`jaxgmm.driver.plan`)  →  fits  →  criteria  →  the best sound model of each data set

Models whose runs can share programs are runs of one queue; see `jaxgmm.driver.plan`.
"""

import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxgmm.driver.arguments import checked_key, finalists, sizes_of_job, weighted
from jaxgmm.driver.chunk import ChunkFits, fit_chunk
from jaxgmm.driver.plan import Chunk, ModelSet
from jaxgmm.driver.program import Combination, Request
from jaxgmm.em.covariance import n_parameters
from jaxgmm.em.initialization import INITIALIZERS
from jaxgmm.engine.batch import Batch, Sizes, batch
from jaxgmm.engine.cores import n_cores
from jaxgmm.engine.progress import progress_bar
from jaxgmm.fit_result import FitResult, empty_result, store_chosen
from jaxgmm.fitting import inputs_of, on_chunks, ridge_in
from jaxgmm.mixture import Mixture, unknown, with_room
from jaxgmm.record import status_names
from jaxgmm.resampling import likelihood_ratio_p_values
from jaxgmm.selection.choice import at_smallest_ridge, choice, fair_score
from jaxgmm.selection.criteria import CRITERIA, INFORMATION, Evidence
from jaxgmm.selection.held_out import densities_of, held_out
from jaxgmm.selection.splitting import split_widest
from jaxgmm.selection.sweep_result import Sweep
from jaxgmm.settings import (
    LRT,
    TOL,
    Method,
    Precision,
    check_choice,
    check_flag,
    check_integer,
    check_options,
    check_test,
    is_integer,
    method_for,
)
from jaxgmm.soundness import SAME_OPTIMUM
from jaxgmm.status import Status

# Columns of a sweep's table, in their order.
_COUNTS = ("n_iter", "spurious", "ridge_dominated")
_FLAGS = ("start_passed_over", "passed_over", "chosen", "at_largest_k")

LEVEL = 0.05

# Weights that sum to less than this share of the number of samples with positive weight are not counts of samples.
_FEW_FOR_WEIGHTS = 0.1


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
    for k, family, ridge in models:
        check_options(k, family, n_init, n_finalists, tol, max_iter, ridge, precision, method)
    check_flag("avoid_spurious", avoid_spurious)
    check_choice(names, n_folds, patience, split)
    _check_drawn(init, n_replicates)
    if LRT in names:
        check_test(names, models, sample_weight, patience, split)
    data = weighted(batch(x), sample_weight)
    models = list(dict.fromkeys((int(k), family, ridge_in(precision, ridge)) for k, family, ridge in models))
    asked = _Asked(data, sizes_of_job(part_of, data), models, names, patience, split, int(n_replicates))
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
    n_replicates = 1 + int(n_folds) if "cv" in names else 1
    with progress_bar(data.n_data_sets * len(models) * starts * n_replicates, shown=progress) as report:
        left_out = None
        if "cv" in names:
            left_out = held_out(data, models, int(n_folds), request, report, asked.sizes)
        swept = _swept(asked, request, left_out, report)
    return replace(swept, best=replace(swept.best, seconds=time.perf_counter() - began))


class _Asked(NamedTuple):
    """The request of a sweep.

    Attributes:
        data: B data sets.
        sizes: those of all data sets of the job of which these are a part.
        models: M combinations of K, family and ridge.
        criteria: names, of which the first chooses.
        patience: the number of consecutive K without improvement after which raising K stops; None for no limit.
        split: whether the fit of one K provides a start for the next.
        n_replicates: R of the likelihood-ratio test.
    """

    data: Batch
    sizes: Sizes
    models: list[Combination]
    criteria: list[str]
    patience: int | None
    split: bool
    n_replicates: int

    @property
    def ridges(self) -> np.ndarray | None:
        """Ridge `(M,)` of each model if ridges are not compared with each other, else None."""
        return np.array([ridge for *_, ridge in self.models]) if self.criteria[0] in INFORMATION else None

    @property
    def n_parameters(self) -> np.ndarray:
        """Free parameters of each model, `(M,)`."""
        n_features = self.data.samples.shape[1]
        return np.array([n_parameters(k, n_features, family) for k, family, _ in self.models])

    @property
    def by_components(self) -> bool:
        """Whether the models of one K must wait for those of the previous K."""
        return self.patience is not None or self.split


class _Results(NamedTuple):
    """The results for B data sets: those of a chunk, or all.

    Attributes:
        columns: of the table, each `(B, M)`.
        n_samples: `(B,)`, number of samples, or the sum of their weights.
        n_weighted: `(B,)`, number of samples with positive weight.
        best: the chosen fits.
    """

    columns: dict[str, np.ndarray]
    n_samples: np.ndarray
    n_weighted: np.ndarray
    best: FitResult


def _swept(asked: _Asked, request: Request, left_out: np.ndarray | None, report: Callable[[int], None]) -> Sweep:
    """Fits all models, and chooses."""
    data = asked.data

    def chosen_of(chunk: Chunk) -> tuple[_Results, np.ndarray]:
        return _fit_and_choose(chunk, asked, request, left_out)

    arguments = (data, asked.models, request, report)
    results, efforts = _no_results(data.n_data_sets, asked, request), np.zeros(2, int)
    plan = {"sizes": asked.sizes, "by_components": asked.by_components}
    for chunk, (own, own_efforts) in on_chunks(chosen_of, *arguments, **plan):
        _put(own, chunk.data_sets, results)
        efforts += own_efforts
    executed, useful = efforts
    best = replace(results.best, efficiency=useful / max(1, executed))
    unanswered = ~np.any(results.columns["chosen"], axis=1)
    best.status[unanswered] = results.columns["status"][unanswered, 0]
    best.start_status[unanswered] = best.status[unanswered, None]
    notes = _notes(asked, results)
    return Sweep(_table(asked, results), best.of(0) if data.is_single else best, notes)


def _no_results(n_data_sets: int, asked: _Asked, request: Request) -> _Results:
    return _Results(
        columns=_empty_columns((n_data_sets, len(asked.models)), asked.criteria),
        n_samples=np.zeros(n_data_sets, float if asked.data.is_weighted else int),
        n_weighted=np.zeros(n_data_sets, int),
        best=empty_result(n_data_sets, asked.data.samples.shape[1], asked.models, request),
    )


def _put(own: _Results, data_sets: np.ndarray, results: _Results) -> None:
    """Copies the results of a chunk to the rows of its data sets."""
    for name, column in own.columns.items():
        results.columns[name][data_sets] = column
    results.n_samples[data_sets], results.n_weighted[data_sets] = own.n_samples, own.n_weighted
    for leaf, rows in zip(jax.tree.leaves(results.best), jax.tree.leaves(own.best), strict=True):
        # Except the efficiency, which is one number.
        if isinstance(leaf, np.ndarray):
            leaf[data_sets] = rows


def _notes(asked: _Asked, results: _Results) -> tuple[str, ...]:
    """Notes on the choice; those that the user can act on are also warnings."""
    notes, criterion, columns = [], asked.criteria[0], results.columns
    if asked.ridges is not None and len(set(asked.ridges.tolist())) > 1:
        notes.append(
            f"K and family are chosen at the smallest ridge that has a sound fit: {criterion} would take the smallest "
            "whatever the data are, as no other has a higher likelihood. criterion='cv' compares ridges."
        )
    light = (results.n_weighted > 1) & (results.n_samples < _FEW_FOR_WEIGHTS * results.n_weighted)
    if criterion in INFORMATION and np.any(light):
        notes.append(
            f"The sample weights of {np.count_nonzero(light)} of {len(light)} data sets sum to much less than the"
            f" number of their samples. {criterion} treats weights as counts, so the number of components that it"
            " chooses means little; multiply the weights so that they sum to the number of samples, or use"
            " criterion='cv'."
        )
        warnings.warn(notes[-1], UserWarning, stacklevel=4)
    heavy = results.n_samples > results.n_weighted / _FEW_FOR_WEIGHTS
    if criterion in INFORMATION and np.any(heavy):
        notes.append(
            f"The sample weights of {np.count_nonzero(heavy)} of {len(light)} data sets sum to much more than the"
            f" number of their samples. {criterion} treats weights as counts. If a row does not stand for that many"
            " samples, it chooses too many components; multiply the weights so that they sum to the number of samples."
        )
    hopeless = ~np.any(np.isfinite(np.where(columns["fitted"], columns[criterion], np.inf)), axis=1)
    hopeless &= np.any(np.isposinf(columns[criterion]), axis=1)
    if np.any(hopeless):
        notes.append(
            f"{criterion} is infinite for every model of {np.count_nonzero(hopeless)} of {len(light)} data sets, which"
            " have too few samples for it; the first model is chosen."
        )
    n_largest, largest = np.count_nonzero(columns["at_largest_k"]), max(k for k, _, _ in asked.models)
    if n_largest:
        notes.append(
            f"K = {largest}, the largest that was tried, is chosen for {n_largest} of {len(light)} data sets; a larger"
            " K may be better."
        )
    return tuple(notes)


def _fit_and_choose(
    chunk: Chunk, asked: _Asked, request: Request, left_out: np.ndarray | None
) -> tuple[_Results, np.ndarray]:
    """Fits all models to the data sets of a chunk and chooses for each; also returns executed and useful iterations."""
    n_data_sets, fitted, efforts = len(chunk.data_sets), [], np.zeros(2, int)
    weights = asked.data.weights(chunk.data_sets, chunk.model_sets[0].n_samples)
    results = _no_results(n_data_sets, asked, request)
    results.n_samples[:], results.n_weighted[:] = np.nansum(weights, axis=1), np.sum(weights > 0, axis=1)
    columns, left_out = results.columns, None if left_out is None else left_out[chunk.data_sets]
    active, lowest = np.ones(n_data_sets, bool), np.full(n_data_sets, np.inf)
    n_worse = np.zeros(n_data_sets, int)
    for _, model_sets in groupby(
        chunk.model_sets, lambda model_set: asked.models[model_set.models[0]][0] if asked.by_components else None
    ):
        first_new = len(fitted)
        for model_set in model_sets:
            last = _split_starts(model_set, chunk, asked, fitted) if asked.split else None
            raw = fit_chunk(inputs_of(chunk, model_set, asked.data, active=active, last_start=last))
            efforts += [raw.executed, raw.useful]
            fitted.append(_Fitted(model_set.models, _by_model(raw, chunk, model_set)))
            evidence = Evidence(
                fitted[-1].fits.log_likelihood, asked.n_parameters[model_set.models], results.n_samples[:, None]
            )
            if left_out is not None:
                # Held-out scores of models that are not fitted to all samples are not used.
                unknown = np.isnan(evidence.log_likelihood)
                evidence = evidence._replace(held_out=np.where(unknown, np.nan, left_out[:, model_set.models]))
            if "icl" in asked.criteria:
                own = asked.data.weights(chunk.data_sets, model_set.n_samples)
                densities = densities_of(raw, chunk, model_set, asked.data, own)
                evidence = evidence._replace(log_assignment=densities.log_assignment)
            _fill_columns(results, fitted[-1], evidence, active, asked.criteria)
        if asked.patience is not None:
            score = _best_of_new(asked, columns, fitted, first_new)
            n_worse = np.where(score < lowest, 0, n_worse + 1)
            lowest, active = np.minimum(lowest, score), active & (n_worse < asked.patience)
    if LRT in asked.criteria:
        columns[LRT][:] = _p_values(asked, fitted, chunk.data_sets, request)
    score, lead, status = (columns[name] for name in (asked.criteria[0], "lead", "status"))
    if asked.criteria[0] == LRT:
        score = _rejected(score, columns["log_likelihood"])
        # The score is a distance between numbers of components, which no likelihood may outweigh.
        lead = len(asked.models) * np.sign(lead)
    compared = _compared(asked, score, columns["spurious"], status, np.arange(len(asked.models)))
    columns["chosen"][:], columns["passed_over"][:] = choice(score, lead, status, compared)
    ks = np.array([k for k, _, _ in asked.models])
    columns["at_largest_k"][:] = columns["chosen"] & (ks == max(ks)) & (max(ks) > min(ks))
    for part in fitted:
        own = asked.n_parameters[part.models]
        store_chosen(part.fits, columns["chosen"][:, part.models], own, results.best)
    return results, efforts


def _best_of_new(asked: _Asked, columns: dict[str, np.ndarray], fitted: "list[_Fitted]", first_new: int) -> np.ndarray:
    """The lowest score `(C,)` of the models fitted last, infinite where none has an answer."""
    models = np.concatenate([part.models for part in fitted])
    score, lead, status, spurious = (
        columns[name][:, models] for name in (asked.criteria[0], "lead", "status", "spurious")
    )
    usable = (status != Status.DEGENERATE) & _compared(asked, score, spurious, status, models)
    usable[:, : sum(len(part.models) for part in fitted[:first_new])] = False
    return np.min(fair_score(score, lead, usable), axis=1)


def _compared(
    asked: _Asked, score: np.ndarray, spurious: np.ndarray, status: np.ndarray, models: np.ndarray
) -> np.ndarray:
    """Which of some models of each data set are compared with each other, `(C, M)`."""
    if asked.ridges is None:
        return np.ones(score.shape, bool)
    return at_smallest_ridge(score, status, spurious, [asked.models[number] for number in models])


def _fill_columns(
    results: _Results, part: "_Fitted", evidence: Evidence, active: np.ndarray, criteria: Sequence[str]
) -> None:
    """Fills the columns of some models; only `active` data sets were fitted."""
    columns, fits, models = results.columns, part.fits, part.models
    columns["fitted"][:, models] = active[:, None]
    for name in ("log_likelihood", "gap", *_COUNTS, "status", "start_passed_over"):
        columns[name][:, models] = getattr(fits, name)
    columns["lead"][:, models] = 2 * (fits.log_likelihood - fits.bounded_log_likelihood)
    gaps = np.abs(fits.start_log_likelihood - fits.log_likelihood[..., None])
    columns["n_agreeing"][:, models] = np.sum(gaps <= SAME_OPTIMUM * results.n_samples[:, None, None], axis=-1)
    for name in set(criteria) & set(CRITERIA):
        columns[name][:, models] = CRITERIA[name](evidence)


class _Fitted(NamedTuple):
    """Some models, by their numbers, and their fits `(C, M, …)`."""

    models: np.ndarray
    fits: ChunkFits


def _split_starts(model_set: ModelSet, chunk: Chunk, asked: _Asked, before: list[_Fitted]) -> Mixture:
    """Starts `(C M, K, …)` from the fits of fewer components of the same family and ridge; NaN without such fits."""
    layout, n_models, models, n_features = (
        model_set.program.layout,
        len(model_set.models),
        asked.models,
        asked.data.samples.shape[1],
    )
    starts = unknown((chunk.size, n_models), layout.n_components, n_features, is_diagonal=layout.diagonal)
    for m, number in enumerate(model_set.models):
        smaller = [
            (models[other][0], part.fits.mixture, position)
            for part in before
            for position, other in enumerate(part.models)
            if models[other][1:] == models[number][1:]
        ]
        if smaller:
            k, mixture, position = max(smaller, key=lambda item: item[0])
            for leaf, known in zip(starts.arrays, mixture.arrays, strict=True):
                leaf[: len(known), m, :k] = known[:, position, :k]
            grown = starts.of((slice(None), m))
            for n_present in range(k, models[number][0]):
                grown = split_widest(grown, n_present)
            grown.weights[:, models[number][0] :] = 0
            for leaf, own in zip(starts.arrays, with_room(grown, layout.n_components).arrays, strict=True):
                leaf[:, m] = own
    return starts.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]))


def _p_values(asked: _Asked, fitted: list[_Fitted], rows: np.ndarray, request: Request) -> np.ndarray:
    """P-values `(C, M)` of each K against the next; NaN beyond the first K that is not rejected."""
    found = {number: (part, m) for part in fitted for m, number in enumerate(part.models)}
    p_values, undecided = np.full((len(rows), len(asked.models)), np.nan), np.ones(len(rows), bool)
    for number in range(len(asked.models) - 1):
        (smaller, m), (larger, n) = found[number], found[number + 1]
        statistic = 2 * (larger.fits.log_likelihood[:, n] - smaller.fits.log_likelihood[:, m])
        tested = np.flatnonzero(undecided & np.isfinite(statistic))
        if len(tested) == 0:
            break
        k = asked.models[number][0]
        mixture = smaller.fits.mixture.of((tested, m)).components(slice(k))
        data = asked.data.part(rows[tested])
        p_values[tested, number] = likelihood_ratio_p_values(
            data, mixture, statistic[tested], asked.models[number], asked.n_replicates, request
        )
        undecided = p_values[:, number] <= LEVEL
    return p_values


def _rejected(p_values: np.ndarray, log_likelihood: np.ndarray) -> np.ndarray:
    """A score that is lowest at the smallest K that was not rejected, or at the largest K if all were."""
    n_rejected = np.sum(p_values <= LEVEL, axis=1)
    distance = np.abs(np.arange(p_values.shape[1]) - n_rejected[:, None]).astype(float)
    return np.where(np.isnan(log_likelihood), np.nan, distance)


def _by_model(fits: ChunkFits, chunk: Chunk, model_set: ModelSet) -> ChunkFits:
    """The same with leading axes `(C, M)`, without the padding of the chunk."""

    def cut(leaf: np.ndarray) -> np.ndarray:
        return leaf.reshape(chunk.size, len(model_set.models), *leaf.shape[1:])[: len(chunk.data_sets)]

    return jax.tree.map(lambda leaf: cut(leaf) if isinstance(leaf, np.ndarray) else leaf, fits)


def _empty_columns(shape: tuple[int, int], criteria: Sequence[str]) -> dict[str, np.ndarray]:
    columns = {name: np.full(shape, np.nan) for name in ("log_likelihood", "gap", *criteria)}
    columns["lead"] = np.zeros(shape)
    columns |= {name: np.zeros(shape, np.int32) for name in (*_COUNTS, "status", "n_agreeing")}
    return columns | {name: np.zeros(shape, bool) for name in (*_FLAGS, "fitted")}


def _table(asked: _Asked, results: _Results) -> dict[str, np.ndarray]:
    """All columns, without the rows of models that were not fitted."""
    columns = results.columns
    n_data_sets, n_models = columns["status"].shape
    k, family, ridge = (np.array(values) for values in zip(*asked.models, strict=True))
    table = {
        "data_set": np.repeat(np.arange(n_data_sets), n_models),
        "n_components": np.tile(k, n_data_sets),
        "covariance_type": np.tile(family, n_data_sets),
        "reg_covar": np.tile(ridge, n_data_sets),
        "n_samples": np.repeat(results.n_samples, n_models),
        "n_parameters": np.tile(asked.n_parameters, n_data_sets),
    }
    columns["status"] = status_names(columns["status"])
    order = (
        "log_likelihood",
        *asked.criteria,
        "gap",
        "n_iter",
        "status",
        "spurious",
        "ridge_dominated",
        "n_agreeing",
        *_FLAGS,
    )
    table |= {name: columns[name].ravel() for name in order}
    return {name: column[columns["fitted"].ravel()] for name, column in table.items()}


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
