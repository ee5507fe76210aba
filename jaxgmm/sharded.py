"""One mixture of samples that are divided over many devices; `jaxgmm.fit` calls this.

    all starts on a sample, by one device  →  the best one on all samples, by all devices

The sample is drawn at random from the samples of positive weight. An explicit start needs none.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxgmm.checkpoint import Checkpoint, digest, in_words
from jaxgmm.driver.choose import BEST_OF, whole
from jaxgmm.driver.findings import Judgement, none_yet
from jaxgmm.driver.plan import plan_for
from jaxgmm.driver.program import Combination, Options, Program, Request
from jaxgmm.driver.runs import Runs, begun, recorded
from jaxgmm.driver.shards import Task, judged, nearest_value, sample_of, spans, standardized
from jaxgmm.em import state as em
from jaxgmm.engine.batch import Batch, Sizes, batch
from jaxgmm.engine.devices import is_out_of_memory, machine
from jaxgmm.engine.shards import Shards, agreed, checksum, placed
from jaxgmm.engine.transfer import fetched
from jaxgmm.fit_result import FitResult, collected
from jaxgmm.mixture import Mixture
from jaxgmm.status import Status

# Samples on which all starts are made.
SAMPLE = 2**16

# Iterations between two checkpoints.
EVERY = 25

# From a batch, explicit starts, a model, a request and a function that is told of finished runs to fits; `fit_batch`.
FitBatch = Callable[[Batch, Any, Combination, Request, Callable[[int], None]], FitResult]


class PeerLostError(RuntimeError):
    """Another process that holds samples of the same fit has ended or cannot be reached.

    Attributes:
        result: the fit so far, at most 25 iterations old, with the log-likelihood before the last of them; None where
            there are no parameters yet.
    """

    def __init__(self, message: str, result: FitResult | None = None) -> None:
        super().__init__(message)
        self.result = result


def check_alone(shards: Shards | None, checkpoint: Any, part_of: Any) -> None:
    """Raises ValueError for options that do not go together with where the samples are."""
    if shards is None and checkpoint is not None:
        raise ValueError("checkpoint keeps the fit of one data set that is divided over devices; pass devices, too.")
    if not isinstance(checkpoint, str | Path | None):
        raise ValueError(f"checkpoint must be the path of a file, or None; got {checkpoint!r}.")
    if shards is not None and part_of is not None:
        raise ValueError("part_of is for jobs of many data sets; leave it out where one is divided over devices.")


class _Start(NamedTuple):
    """Where the run on all samples begins.

    Attributes:
        kind: `"mixture"`, `"labels"` or `"responsibilities"`.
        values: a mixture `(1, K, …)`, or rows on the devices.
        fit: of the sample, or the one that a checkpoint holds; None for an explicit start.
        rows: some samples `(1, n, D)`.
        n_iter: iterations that were made before.
    """

    kind: str
    values: Any
    fit: FitResult | None
    rows: np.ndarray
    n_iter: int = 0


def fit_shards(
    shards: Shards,
    path: str | Path | None,
    fit_batch: FitBatch,
    start: Any,
    model: Combination,
    request: Request,
    report: Callable[[int], None],
) -> FitResult:
    """Fits one mixture to samples that are divided over devices.

    Args:
        shards: the samples.
        path: of the checkpoint, or None.
        fit_batch: the engine on one device.
        start: an explicit start, in the layout of a batch of one data set; None for starts by name.
        model: number of components, family and ridge.
        request: how it is fitted.
        report: called with numbers of newly finished runs.

    Raises:
        PeerLostError: another process has been lost.
        ValueError: the checkpoint of another request, or not the same one for all processes.
    """
    so_far = None
    try:
        described = {} if path is None else _described(shards, start, model, request)
        kept = Checkpoint(FitResult, path, EVERY, described)
        so_far = found = _kept(kept, shards)
        if found is not None and not _goes_on(found, request):
            report(1 if start is not None else request.n_init + 1)
            return found
        with jax.enable_x64(True), jax.debug_nans(False), jax.debug_infs(False):
            if found is None:
                begin = _begin(shards, fit_batch, start, model, request, report)
            else:
                begin = _resumed(shards, found, request)
                if start is None:
                    report(request.n_init)
            for so_far in _results(shards, begin, model, request):
                if shards.is_first:
                    kept.keep(so_far)
    except jax.errors.JaxRuntimeError as error:
        if shards.n_processes == 1 or is_out_of_memory(error):
            raise
        raise PeerLostError(_lost(so_far, path), so_far) from error
    report(1)
    assert so_far is not None
    return so_far


def _kept(checkpoint: Checkpoint[FitResult], shards: Shards) -> FitResult | None:
    """What a checkpoint holds, or None."""
    found = checkpoint.read()
    if checkpoint.path is not None and shards.n_processes > 1:
        told = multihost_utils.process_allgather(np.int32(-1 if found is None else found.n_iter))
        # Such processes would wait for each other without end.
        if len(np.unique(told)) > 1:
            raise ValueError(f"{checkpoint.path} is not one file for all processes; name one that they all read.")
    return found


def _begin(
    shards: Shards,
    fit_batch: FitBatch,
    start: Any,
    model: Combination,
    request: Request,
    report: Callable[[int], None],
) -> _Start:
    """The start that was given, or else the best one of a sample."""
    x, weights = sample_of(shards, request.key, SAMPLE)
    if isinstance(start, Mixture):
        return _Start(request.init, start, None, x[None])
    if start is not None:
        return _Start(request.init, placed(start, shards.mesh), None, x[None])
    of_sample = request._replace(n_history=0, snapshots=None)
    fit = fit_batch(batch(x).weighted(weights), None, model, of_sample, report)
    return _Start("mixture", agreed(fit.mixture, shards.mesh), fit.of(0), x[None])


def _resumed(shards: Shards, found: FitResult, request: Request) -> _Start:
    """The start of a run that goes on from a checkpoint."""
    x, _ = sample_of(shards, request.key, SAMPLE)
    mixture = agreed(found.mixture.map(lambda leaf: leaf[None]), shards.mesh)
    return _Start("mixture", mixture, found, x[None], int(found.n_iter))


def _results(shards: Shards, begin: _Start, model: Combination, request: Request) -> Iterator[FitResult]:
    """The fit after every `EVERY` iterations, and at its end."""
    length, program, options = _planned(shards, begin, model, request)
    task, starts, status = standardized(shards, begin.values, options, program, begin.kind, length)
    is_fitted = status[0] == em.RUNNING
    before = recorded(begun(starts).states, program)._replace(n_iter=np.full(1, begin.n_iter, np.int32))
    for record in spans(task, before, EVERY) if is_fitted else [before]:
        has_ended = is_fitted and record.status[0] != em.RUNNING
        judgement = judged(task, record, starts) if has_ended else none_yet(1)
        yield _result(shards, task, record, judgement, status, begin, model, request)


def _planned(shards: Shards, begin: _Start, model: Combination, request: Request) -> tuple[int, Program, Options]:
    """The number of rows on each device, the programs and their options: those for the rows of one device."""
    request = request._replace(init=begin.kind, n_init=1, n_finalists=1)
    if begin.kind == "mixture":
        request = request._replace(has_absent=bool(np.any(begin.values.weights == 0)))
    lengths = np.full(1, shards.length)
    sizes = Sizes(lengths, shards.length, shards.x.shape[1], is_single=True, is_weighted=shards.weights is not None)
    (chunk,) = plan_for(sizes, [model], request, machine(request.threads)).chunks(lengths)
    (model_set,) = chunk.model_sets
    return model_set.n_samples, model_set.program, model_set.options


def _result(
    shards: Shards,
    task: Task,
    record: em.RunState,
    judgement: Judgement,
    status: np.ndarray,
    begin: _Start,
    model: Combination,
    request: Request,
) -> FitResult:
    """The fit that a run has come to."""
    is_running = record.status == em.RUNNING
    states = record._replace(status=np.where(is_running, int(Status.MAX_ITER), record.status).astype(np.int32))
    findings, scores, _ = judgement
    described = (task.sets.described, status, states, findings, scores, np.ones(1, bool), task.options.models)
    best = fetched(BEST_OF[task.program.effort](*described))
    n_e_steps = int(record.n_iter[0]) + 1
    runs = Runs(states, judgement, np.ones(1, bool), n_e_steps, n_e_steps)
    fits = whole(best, runs, lambda _, feature, mean: nearest_value(shards, feature, mean), n_models=1)
    result = collected([(np.arange(1), fits)], 1, begin.rows.shape[-1], model, request._replace(n_init=1)).of(0)
    return result if begin.fit is None else _with_starts(result, begin.fit)


def _with_starts(result: FitResult, fit: FitResult) -> FitResult:
    """The result with all starts: what others lack against the chosen one is estimated by the sample."""
    chosen = int(np.argmin(np.nan_to_num(np.abs(fit.start_log_likelihood - fit.log_likelihood), nan=np.inf)))
    is_begun, is_chosen = np.isfinite(result.n_samples), np.arange(len(fit.start_status)) == chosen
    lacking = (fit.start_log_likelihood - fit.log_likelihood) * (result.n_samples / fit.n_samples)
    own = is_chosen | ~is_begun

    def with_earlier(new: np.ndarray, old: np.ndarray) -> np.ndarray:
        new[: len(old)] = np.where(np.isnan(new[: len(old)]), old, new[: len(old)])
        return new

    recorded = {name: getattr(result, name) for name in ("history", "snapshots")}
    if fit.history is not None:
        # A checkpoint has what was recorded before it.
        recorded = {name: jax.tree.map(with_earlier, new, getattr(fit, name)) for name, new in recorded.items()}
    return replace(
        result,
        **recorded,
        start_log_likelihood=np.where(is_chosen, result.log_likelihood, result.log_likelihood + lacking),
        start_status=np.where(own, result.status, fit.start_status).astype(np.int32),
        start_spurious=np.where(own, result.spurious, fit.start_spurious).astype(np.int32),
        start_passed_over=np.bool_(is_begun and fit.start_passed_over),
    )


def _goes_on(found: FitResult, request: Request) -> bool:
    """Whether the fit of a checkpoint is unfinished."""
    return bool(found.status == Status.MAX_ITER and found.n_iter < request.max_iter)


def _described(shards: Shards, start: Any, model: Combination, request: Request) -> dict[str, Any]:
    """What a checkpoint has to agree with."""
    k, family, ridge = model
    names = ("init", "n_init", "n_finalists", "precision", "tol", "max_iter", "avoids_spurious", "key", "method")
    own = {name: getattr(request, name) for name in names} | {"history": (request.n_history, request.snapshots)}
    shape = {"n_samples": shards.n_samples, "n_features": shards.x.shape[1], "x": checksum(shards)}
    # No process has all rows of a start that is divided over processes.
    is_here = all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(start))
    own["start"] = digest(start) if is_here else None
    return in_words({"n_components": k, "covariance_type": family, "reg_covar": ridge, **shape, **own})


def _lost(so_far: FitResult | None, path: str | Path | None) -> str:
    """What a user is told when a process has been lost."""
    message = "another process that holds samples of this fit has ended or cannot be reached"
    if so_far is None:
        return f"{message}, in the first {EVERY} iterations or before; start all processes again."
    place = "" if path is None else f", and in {path}, from which the same call goes on"
    return f"{message}; the parameters after {so_far.n_iter} iterations are in the `result` of this error{place}."
