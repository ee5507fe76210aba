"""The result of `fit`, and how it is put together from chunks."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import jax
import numpy as np

from jaxgmm.doubts import flag_texts, of_fits
from jaxgmm.driver.choose import ChunkFits
from jaxgmm.driver.program import Combination, Request
from jaxgmm.em.covariance import FAMILIES, n_parameters
from jaxgmm.engine.batch import successive
from jaxgmm.mixture import Mixture, components_of, full_covariances, unknown, with_room
from jaxgmm.record import (
    Block,
    Record,
    counted,
    field_names,
    of_the_call,
    record,
    span,
    status_names,
    statuses,
    written,
)
from jaxgmm.selection.criteria import Evidence, aic, aicc, bic
from jaxgmm.soundness import n_agreeing
from jaxgmm.status import Status


@record
class FitResult(Record):
    """Fits of B data sets, with R starts each. NumPy arrays; for one `(N, D)` data set the B axis is absent.

    Attributes:
        mixture: weights `(B, K)`, means `(B, K, D)`, covariances `(B, K, D, D)`, or variances `(B, K, D)` for `"diag"`
            and `"spherical"`. NaN where no sound parameters were found.
        log_likelihood: `(B,)`, total nats of the (weighted) data at the returned parameters.
        gap: `(B,)`, how much log-likelihood the chosen run is estimated to have left to gain, in nats per sample; see
            `tol` of `fit`. Infinite where the last steps did not say, and NaN without an answer.
        n_iter: `(B,)`, iterations of the chosen run.
        status: `(B,)`, codes of `jaxgmm.Status`.
        spurious: `(B,)`, number of spurious components of the chosen run. The size of a component with
            responsibilities r is (Σ w r)² / Σ w² r, which is its number of samples where all weights are equal. Let m
            be the number of samples that determine the parameters a component does not share: D + 1 for `"full"`, at
            most 3 for `"diag"` and `"spherical"`, 1 for `"tied"`. A component is spurious

            - if in some direction it is narrower than a hundredth of the pooled standard deviation within components,
              and its size is below 5 m;
            - if most of its weight lies on equal values of a feature, and most of a variance comes from the ridge. A
              ridge wider than a hundredth of the data is assumed to be intended, and does not count;
            - or if its size is below m.
        ridge_dominated: `(B,)`, number of components of the chosen run that owe more than a tenth of their variance in
            some direction to the ridge, so that part of their width comes from it.
        start_passed_over: `(B,)`, whether a start reached a higher log-likelihood, by more than 1e-3 nats per sample,
            but was not chosen because it had spurious components or a degenerate end.
        n_samples: `(B,)`, number of samples, or the sum of their weights; NaN where no fit was begun.
        n_parameters: `(B,)`, free parameters of the model: weights that sum to 1, means, and those of the covariances.
        ridge: `(B, D)`, what was added to the variance of each feature, in squared data units; NaN where no fit was
            begun.
        start_log_likelihood: `(B, R)`, total nats that each start reached. In mixed precision, those of starts not
            chosen are the float32 values that the search left.
        start_status: `(B, R)`, how each start's run ended.
        start_spurious: `(B, R)`, number of spurious components of each start's run.
        history: `(B, T)`, log-likelihood of the chosen run at its start and after every iteration, NaN beyond its
            end; None unless requested.
        efficiency: from 0 to 1, the share of useful iterations among all that were computed, over all runs. The others
            were made by runs that had ended, while runs beside them went on.
        snapshots: parameters of the chosen run after each of the S iterations that `history` named, in its order, as
            in `mixture`: weights `(B, S, K)`, means `(B, S, K, D)`, covariances `(B, S, K, D, D)` or variances
            `(B, S, K, D)`, in data units. Iteration 0 is the start. NaN where the run had ended before that iteration
            (its end is in `mixture`), or where there is no answer. None unless requested.
        seconds: how long the call of `fit` or `sweep` took, compilation included; NaN where it is not known, as in
            parts.
    """

    mixture: Mixture
    log_likelihood: np.ndarray
    gap: np.ndarray
    n_iter: np.ndarray
    status: np.ndarray
    spurious: np.ndarray
    ridge_dominated: np.ndarray
    start_passed_over: np.ndarray
    n_samples: np.ndarray
    n_parameters: np.ndarray
    ridge: np.ndarray
    start_log_likelihood: np.ndarray
    start_status: np.ndarray
    start_spurious: np.ndarray
    history: np.ndarray | None
    efficiency: float
    snapshots: Mixture | None = None
    seconds: float = of_the_call(default=math.nan)

    @property
    def converged(self) -> np.ndarray:
        """`(B,)`, whether each fit ended `CONVERGED`."""
        return np.asarray(self.status) == Status.CONVERGED

    @property
    def status_names(self) -> np.ndarray:
        """`(B,)`, names of the statuses, such as `"CONVERGED"`."""
        return status_names(self.status)

    @property
    def n_agreeing(self) -> np.ndarray:
        """`(B,)`, number of starts that reached the log-likelihood of the fit, to within 1e-3 nats per sample."""
        return n_agreeing(self.start_log_likelihood, self.log_likelihood, self.n_samples)

    def bic(self) -> np.ndarray:
        """`(B,)`, -2 log L + p log n; lower is better, as in scikit-learn. The samples are those of the fit."""
        return bic(self._evidence)

    def aic(self) -> np.ndarray:
        """`(B,)`, -2 log L + 2 p; lower is better."""
        return aic(self._evidence)

    def aicc(self) -> np.ndarray:
        """`(B,)`, AIC corrected for few samples, infinite where n ≤ p + 1; lower is better."""
        return aicc(self._evidence)

    def summary(self) -> dict[str, np.ndarray]:
        """Columns with a row for each data set, ready for a data frame.

        `data_set`, `status` (a name), `n_components` (those present; 0 without an answer), `n_samples`,
        `n_parameters`, `log_likelihood`, `bic`, `gap`, `n_iter`, `spurious`, `ridge_dominated`, `start_passed_over`,
        `n_agreeing`, and `flags`, the names of the reasons to distrust the fit that its fields show, separated by
        commas (see `jaxgmm.flags`).
        """
        weights = np.atleast_2d(self.mixture.weights)
        names = ("spurious", "ridge_dominated", "start_passed_over", "n_agreeing")
        return {
            "data_set": np.arange(len(weights)),
            "status": np.atleast_1d(self.status_names),
            "n_components": np.sum(weights > 0, axis=-1),
            "n_samples": np.atleast_1d(self.n_samples),
            "n_parameters": np.atleast_1d(self.n_parameters),
            "log_likelihood": np.atleast_1d(self.log_likelihood),
            "bic": np.atleast_1d(self.bic()),
            "gap": np.atleast_1d(self.gap),
            "n_iter": np.atleast_1d(self.n_iter),
            **{name: np.atleast_1d(getattr(self, name)) for name in names},
            "flags": np.atleast_1d(flag_texts(of_fits(self))),
        }

    @property
    def _evidence(self) -> Evidence:
        return Evidence(self.log_likelihood, self.n_parameters, self.n_samples)

    @property
    def _batch(self) -> tuple[int, ...]:
        return np.shape(self.status)

    def _described(self, within: str = "") -> tuple[str, list[Block]]:
        n_starts = self.start_status.shape[-1]
        k = self.mixture.n_components if self._batch else np.count_nonzero(self.mixture.weights)
        of = f"K = {k}, D = {self.mixture.n_features}, {counted(n_starts, 'start')}"
        if self._batch:
            rows = [["iterations", span(self.n_iter)], *numbers_of(self), *remarks(self, within=within)]
            title = f"FitResult: {counted(len(self), 'data set')}, {of}"
            return title, [statuses(self.status, "data set"), Block(rows, is_kept=True)]
        status = Status(int(self.status))
        ended = [] if status == Status.CONVERGED else [written([status.sentence])]
        rows = [
            ["status", f"{status.name} after {counted(self.n_iter, 'iteration')}"],
            *numbers_of(self),
            *remarks(self, within=within),
        ]
        blocks = [Block(rows, is_kept=True), *ended]
        return f"FitResult: {of}", [*blocks, components_of(self.mixture)] if np.isfinite(
            self.log_likelihood
        ) else blocks


# Fields that a chunk has too.
_SHARED = tuple(name for name in field_names(FitResult) if name in ChunkFits._fields)


def numbers_of(result: FitResult) -> list[list[str]]:
    """The log-likelihood of some fits, and the time that they took if it is known, as rows of a description."""
    is_one = not np.ndim(result.status)
    text = f"{result.log_likelihood:,.6g}" if is_one else span(result.log_likelihood)
    return [["log-likelihood", text], *lasted(result)]


def lasted(result: FitResult) -> list[list[str]]:
    """The time that some fits took, as a row of a description; no row if it is not known."""
    return [["seconds", f"{result.seconds:,.2f}"]] if math.isfinite(result.seconds) else []


def remarks(result: FitResult, noun: str = "data set", within: str = "") -> list[list[str]]:
    """What to look at in some fits, as rows of a description: how many, and in which field.

    Args:
        result: the fits.
        noun: what they are fits of.
        within: the field that holds them in what is described, such as `.best`.
    """
    fields = {
        "spurious": "spurious components",
        "ridge_dominated": "components as wide as the ridge",
        "start_passed_over": "likelier start passed over",
    }
    found = {name: np.asarray(getattr(result, name)) for name in fields}
    if not np.ndim(result.status):
        return [[fields[name], str(values), f"{within}.{name}"] for name, values in found.items() if values > 0]
    counts = {name: np.count_nonzero(values > 0) for name, values in found.items()}
    return [[fields[name], counted(n, noun), f"{within}.{name}"] for name, n in counts.items() if n]


def empty_result(n_data_sets: int, n_features: int, models: Sequence[Combination], request: Request) -> FitResult:
    """Arrays with room for any of the models, to be filled chunk by chunk; NaN until then."""
    b, d, r, k = n_data_sets, n_features, request.n_init, max(k for k, _, _ in models)
    is_diagonal = all(FAMILIES[family].diagonal for _, family, _ in models)

    def no_mixtures(*axes: int) -> Mixture:
        return unknown(axes, k, d, is_diagonal=is_diagonal)

    return FitResult(
        mixture=no_mixtures(b),
        log_likelihood=np.full(b, np.nan),
        gap=np.full(b, np.nan),
        n_iter=np.zeros(b, np.int32),
        status=np.zeros(b, np.int32),
        spurious=np.zeros(b, np.int32),
        ridge_dominated=np.zeros(b, np.int32),
        start_passed_over=np.zeros(b, bool),
        n_samples=np.full(b, np.nan),
        n_parameters=np.zeros(b, np.int32),
        ridge=np.full((b, d), np.nan),
        start_log_likelihood=np.full((b, r), np.nan),
        start_status=np.zeros((b, r), np.int32),
        start_spurious=np.zeros((b, r), np.int32),
        history=np.full((b, request.n_history), np.nan) if request.n_history else None,
        efficiency=math.nan,
        snapshots=no_mixtures(b, request.n_snapshots) if request.n_snapshots else None,
    )


def collected(
    parts: Iterable[tuple[np.ndarray, ChunkFits]],
    n_data_sets: int,
    n_features: int,
    model: Combination,
    request: Request,
) -> FitResult:
    """The result of one model from its chunks as they come, each with the numbers of its data sets, ascending."""
    result, executed, useful = None, 0, 0
    for data_sets, fits in parts:
        executed, useful = executed + fits.executed, useful + fits.useful
        own = _with_room(fits, model[0])
        if len(data_sets) == n_data_sets:
            result = _of_only(own, n_data_sets)
            continue
        if result is None:
            result = empty_result(n_data_sets, n_features, [model], request)
        _store(own, data_sets, result)
    assert result is not None
    return _completed(result, model, executed, useful)


def _store(fits: ChunkFits, data_sets: np.ndarray, result: FitResult) -> None:
    """Copies a chunk's rows to their places."""
    places = successive(data_sets)

    def put(rows: np.ndarray, new: np.ndarray) -> None:
        rows[places] = new[: len(data_sets)]

    for name in _SHARED:
        jax.tree.map(put, getattr(result, name), getattr(fits, name))


def _with_room(fits: ChunkFits, n_components: int) -> ChunkFits:
    """Fits with K components. A program may have had room for more, and absent ones are all alike."""
    if fits.mixture.n_components == n_components and not np.any(fits.mixture.weights == 0):
        return fits
    fits = fits._replace(mixture=with_room(fits.mixture, n_components))
    return fits if fits.snapshots is None else fits._replace(snapshots=with_room(fits.snapshots, n_components))


def _of_only(fits: ChunkFits, n_data_sets: int) -> FitResult:
    """The result of the only chunk. It has the arrays of the chunk, unless these are a device's and so read-only.

    Large ones from a GPU are views of one array for each type; one field of them keeps all of it.
    """

    def own(rows: np.ndarray) -> np.ndarray:
        return rows[:n_data_sets] if rows.flags.writeable else rows[:n_data_sets].copy()

    fields = {name: jax.tree.map(own, getattr(fits, name)) for name in _SHARED}
    return FitResult(**fields, n_parameters=np.zeros(n_data_sets, np.int32), efficiency=math.nan)


def _completed(result: FitResult, model: Combination, executed: int, useful: int) -> FitResult:
    """The result of one model when all chunks are stored, given how many run-iterations were made, and were useful."""
    k, family, _ = model
    weights = result.mixture.weights
    # Absent components are rare, and small rows take long to count.
    n_present = np.sum(weights != 0, axis=-1) if np.any(weights == 0) else k
    own = np.full(len(weights), n_parameters(n_present, result.mixture.n_features, family), np.int32)
    result = replace(result, efficiency=useful / max(1, executed), n_parameters=own)
    if result.history is None:
        return result
    return replace(result, history=result.history[:, : int(np.max(result.n_iter)) + 1].copy())


def store_chosen(
    fits: ChunkFits, chosen: np.ndarray, n_parameters: np.ndarray, data_sets: np.ndarray, best: FitResult
) -> None:
    """Copies the chosen models to their data sets, whose numbers are `(C,)`.

    `chosen` is `(C, M)`, and `n_parameters` of each model, `(M,)`.
    """
    c, m = np.nonzero(chosen)
    if len(c) == 0:
        return
    rows = data_sets[c]
    for name in set(_SHARED) - {"mixture", "history", "snapshots"}:
        getattr(best, name)[rows] = getattr(fits, name)[c, m]
    best.n_parameters[rows] = n_parameters[m]
    mixture = fits.mixture.of((c, m))
    if best.mixture.covariances.ndim > mixture.covariances.ndim:
        mixture = replace(mixture, covariances=full_covariances(mixture))
    for leaf, new in zip(best.mixture.arrays, with_room(mixture, best.mixture.n_components).arrays, strict=True):
        leaf[rows] = new
