"""All models fitted to the data sets of a chunk, those of fewer components first if others wait for them."""

from itertools import groupby
from typing import NamedTuple

import jax
import numpy as np

from jaxgmm.driver.chunk import ChunkFits, fit_chunk
from jaxgmm.driver.dispatch import inputs_of
from jaxgmm.driver.plan import Chunk, ModelSet
from jaxgmm.mixture import Mixture, unknown, with_room
from jaxgmm.selection.choice import at_smallest_ridge, fair_score
from jaxgmm.selection.criteria import CRITERIA, Evidence
from jaxgmm.selection.held_out import densities_of
from jaxgmm.selection.splitting import split_widest
from jaxgmm.selection.sweep_request import SweepRequest
from jaxgmm.soundness import n_agreeing
from jaxgmm.status import Status

# By name, each `(C, M)`.
Columns = dict[str, np.ndarray]


class Fitted(NamedTuple):
    """Some models of the C data sets of a chunk.

    Attributes:
        models: their numbers `(M,)`.
        fits: their fits `(C, M, …)`.
        columns: of the sweep's table, and others from which models are chosen and notes made.
    """

    models: np.ndarray
    fits: ChunkFits
    columns: Columns


class _Course(NamedTuple):
    """How far K has been raised for each of C data sets.

    Attributes:
        active: whether further K are fitted.
        lowest: the lowest score so far.
        n_worse: how many consecutive K have not been better.
    """

    active: np.ndarray
    lowest: np.ndarray
    n_worse: np.ndarray


def fitted_models(chunk: Chunk, asked: SweepRequest, left_out: np.ndarray | None) -> list[Fitted]:
    """Fits all models to the data sets of a chunk.

    Args:
        chunk: C data sets.
        asked: the models.
        left_out: total nats of held-out samples, `(C, M)`, or None.
    """
    fitted: list[Fitted] = []
    n_data_sets, weights = len(chunk.data_sets), asked.data.weights(chunk.data_sets, chunk.model_sets[0].n_samples)
    n_samples = np.nansum(weights, axis=1, keepdims=True).astype(float if asked.data.is_weighted else int)
    n_weighted = np.sum(weights > 0, axis=1, keepdims=True)
    course = _Course(np.ones(n_data_sets, bool), np.full(n_data_sets, np.inf), np.zeros(n_data_sets, int))

    def evidence_of(raw: ChunkFits, log_likelihood: np.ndarray, model_set: ModelSet) -> Evidence:
        evidence = Evidence(log_likelihood, asked.n_parameters[model_set.models], n_samples)
        if left_out is not None:
            # Held-out scores of models that are not fitted to all samples are not used.
            scores = np.where(np.isnan(log_likelihood), np.nan, left_out[:, model_set.models])
            evidence = evidence._replace(held_out=scores)
        if "log_assignment" in asked.reads:
            own = asked.data.weights(chunk.data_sets, model_set.n_samples)
            densities = densities_of(raw, chunk, model_set, asked.data, own)
            evidence = evidence._replace(log_assignment=densities.log_assignment)
        return evidence

    def fit(model_set: ModelSet) -> Fitted:
        last = _split_starts(model_set, chunk, asked, fitted) if asked.split else None
        raw = fit_chunk(inputs_of(chunk, model_set, asked.data, active=course.active, last_start=last))
        fits = _by_model(raw, chunk, model_set)
        of_data_sets = {"n_samples": n_samples, "n_weighted": n_weighted, "fitted": course.active[:, None]}
        columns = {name: np.broadcast_to(column, fits.status.shape) for name, column in of_data_sets.items()}
        columns |= _columns(fits, evidence_of(raw, fits.log_likelihood, model_set), asked.criteria)
        return Fitted(model_set.models, fits, columns)

    def step(model_set: ModelSet) -> int:
        return asked.models[model_set.models[0]][0] if asked.by_components else 0

    for _, model_sets in groupby(chunk.model_sets, step):
        new = [fit(model_set) for model_set in model_sets]
        fitted += new
        if asked.patience is not None:
            course = _raised(course, asked.patience, _best_of(new, fitted, asked))
    return fitted


def joined(fitted: list[Fitted]) -> tuple[np.ndarray, Columns]:
    """The numbers `(M,)` of some models, ascending, and their columns `(C, M)`."""
    models = np.concatenate([part.models for part in fitted])
    order = np.argsort(models)
    columns = {
        name: np.concatenate([part.columns[name] for part in fitted], axis=1)[:, order] for name in fitted[0].columns
    }
    return models[order], columns


def compared(asked: SweepRequest, models: np.ndarray, score: np.ndarray, columns: Columns) -> np.ndarray:
    """Which of some models of each data set are compared with each other, `(C, M)`."""
    if asked.compares_ridges:
        return np.ones(score.shape, bool)
    combinations = [asked.models[number] for number in models]
    return at_smallest_ridge(score, columns["status"], columns["spurious"], combinations)


def _columns(fits: ChunkFits, evidence: Evidence, criteria: list[str]) -> Columns:
    """The columns that differ between models."""
    names = ("log_likelihood", "gap", "n_iter", "spurious", "ridge_dominated", "status", "start_passed_over")
    columns = {name: getattr(fits, name) for name in names}
    functions = {name: CRITERIA[name].of_evidence for name in criteria}
    columns |= {name: of_evidence(evidence) for name, of_evidence in functions.items() if of_evidence}
    columns["lead"] = 2 * (fits.log_likelihood - fits.bounded_log_likelihood)
    agreeing = n_agreeing(fits.start_log_likelihood, fits.log_likelihood, evidence.n_samples)
    columns["n_agreeing"] = agreeing.astype(np.int32)
    return columns


def _raised(course: _Course, patience: int, score: np.ndarray) -> _Course:
    """The course after another K, whose best model has this score `(C,)`."""
    n_worse = np.where(score < course.lowest, 0, course.n_worse + 1)
    return _Course(course.active & (n_worse < patience), np.minimum(course.lowest, score), n_worse)


def _best_of(new: list[Fitted], fitted: list[Fitted], asked: SweepRequest) -> np.ndarray:
    """The lowest score `(C,)` of the new models among those fitted, infinite where none has an answer."""
    models, columns = joined(fitted)
    score = columns[asked.criteria[0]]
    usable = (columns["status"] != Status.DEGENERATE) & np.isin(models, np.concatenate([part.models for part in new]))
    return np.min(fair_score(score, columns["lead"], usable & compared(asked, models, score, columns)), axis=1)


def _split_starts(model_set: ModelSet, chunk: Chunk, asked: SweepRequest, before: list[Fitted]) -> Mixture:
    """Starts `(C M, K, …)` from the fits of fewer components of the same family and ridge; NaN without such fits."""
    layout, n_features = model_set.program.layout, asked.data.samples.shape[1]
    shape = (chunk.size, len(model_set.models))
    starts = unknown(shape, layout.n_components, n_features, is_diagonal=layout.diagonal)
    for m, number in enumerate(model_set.models):
        wanted, *kind = asked.models[number]
        smaller = [
            (asked.models[other][0], part.fits.mixture, position)
            for part in before
            for position, other in enumerate(part.models)
            if asked.models[other][1:] == tuple(kind)
        ]
        if smaller:
            k, mixture, position = max(smaller, key=lambda item: item[0])
            for leaf, known in zip(starts.arrays, mixture.arrays, strict=True):
                leaf[: len(known), m, :k] = known[:, position, :k]
            grown = starts.of((slice(None), m))
            for n_present in range(k, wanted):
                grown = split_widest(grown, n_present)
            grown.weights[:, wanted:] = 0
            for leaf, own in zip(starts.arrays, with_room(grown, layout.n_components).arrays, strict=True):
                leaf[:, m] = own
    return starts.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]))


def _by_model(fits: ChunkFits, chunk: Chunk, model_set: ModelSet) -> ChunkFits:
    """The same with leading axes `(C, M)`, without the padding of the chunk."""

    def cut(leaf: np.ndarray) -> np.ndarray:
        return leaf.reshape(chunk.size, len(model_set.models), *leaf.shape[1:])[: len(chunk.data_sets)]

    return jax.tree.map(lambda leaf: cut(leaf) if isinstance(leaf, np.ndarray) else leaf, fits)
