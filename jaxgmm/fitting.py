"""fit(): mixtures of thousands of data sets, with one number of components and one covariance family."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxgmm.driver.arguments import (
    checked_history,
    checked_key,
    checked_start,
    finalists,
    ridge_in,
    sizes_of_job,
    weighted,
)
from jaxgmm.driver.chunk import ChunkFits, fit_chunk
from jaxgmm.driver.dispatch import inputs_of, on_chunks
from jaxgmm.driver.plan import Chunk
from jaxgmm.driver.program import Combination, Request
from jaxgmm.engine.batch import Batch, Sizes, batch
from jaxgmm.engine.cores import n_cores
from jaxgmm.engine.progress import progress_bar
from jaxgmm.engine.shards import shards_of
from jaxgmm.fit_result import FitResult, collected
from jaxgmm.mixture import Mixture
from jaxgmm.settings import TOL, Method, Precision, check_flag, check_model, check_progress, check_runs, method_for
from jaxgmm.sharded import check_alone, fit_shards


def fit(
    x: Any,
    n_components: int,
    *,
    covariance_type: str = "full",
    init: Any = "k-means++",
    n_init: int = 10,
    n_finalists: int | None = None,
    tol: float = TOL,
    max_iter: int = 1000,
    reg_covar: float = 1e-12,
    avoid_spurious: bool = True,
    sample_weight: Any = None,
    key: Any = 0,
    precision: Precision = "mixed",
    method: Method | None = None,
    history: bool | Sequence[int] = False,
    devices: int | Sequence[Any] | None = None,
    checkpoint: str | Path | None = None,
    part_of: Any = None,
    threads: int | None = None,
    progress: bool | Callable[[int, int], None] = False,
) -> FitResult:
    """Fits a Gaussian mixture to every data set by expectation-maximisation (Dempster, Laird and Rubin, 1977).

    The contents of a data set change no other's answer; the number of data sets may, within what `tol` leaves open. Bad
    data never raise: `status` says what is wrong with which data set, and `jaxgmm.Status(code).sentence` what to do
    about it.

    Args:
        x: one data set `(N, D)`, a stack `(B, N, D)`, or a sequence of `(N_i, D)`. NumPy or JAX arrays.
        n_components: K, at least 1.
        covariance_type: `"full"` (each component its own covariance), `"tied"` (one for all), `"diag"` (axis-aligned)
            or `"spherical"` (one variance for each component).
        init: `"k-means++"`, `"kmeans"`, `"random"` (responsibilities) or `"random_from_data"` (samples as means); or
            explicit starts, one run for each data set: a `Mixture` with or without batch axis, responsibilities
            `(…, N, K)`, or integer labels `(…, N)` numbered from 0. EM begins with an M-step from the last two.
        n_init: R, the number of starts. An explicit start counts as one.
        n_finalists: run only this many starts of each data set to their ends, the best after 9 iterations; the others
            stop there, as `MAX_ITER` unless they have ended before. A start whose likelihood differs from those of
            better starts is preferred to one that probably leads to the same optimum. None runs all to their ends, and
            so does `max_iter` of 9 or less. (Biernacki, Celeux and Govaert, 2003, "Choosing starting values for the EM
            algorithm".)
        tol: stop where the mean log-likelihood per sample is estimated to be within this of its limit; 0 never stops
            early. `method` says what the estimate is; it can be trusted near the limit, so at a `tol` above 1e-7 much
            more may be left. Float32 estimates nothing below 1e-6.
        max_iter: maximum number of iterations; one iteration is an E-step, then the M-step or another step.
        reg_covar: ridge added to every component variance, as a fraction of that feature's variance in the data set
            (of their mean for `"spherical"`). Values more than 4 standard deviations from the others are left out of
            that variance, so that sentinels such as -9999, in up to 6% of the samples, do not widen all components.
            `"float32"` uses at least 1e-6, which it needs; `FitResult.ridge` says what was added.
        avoid_spurious: compare starts with spurious components by the likelihood they would have if these components
            were as wide as the data, less what BIC charges for each (half the logarithm of the number of samples for
            each free parameter; weights count relative to the largest), so that none is chosen for having shrunk onto
            a few samples. False chooses by likelihood alone, degenerate ends aside.
        sample_weight: not negative, with the shape of `x` without its last axis. Weight 0 removes a sample, weight 2
            counts it twice.
        key: seed or JAX random key. Every data set draws from the same key, whatever its place.
        precision: `"mixed"` runs all starts nearly to their ends in float32 and finishes the best start of every data
            set in float64. All iterations are in float64 if there is little work: few data, a `max_iter` of 20 or less,
            or one start with a history or with `tol` 0. `"float32"` and `"float64"` make all iterations in one
            precision. Preparation and results are always float64.
        method: `"quasi-newton"` accelerates EM by what its last steps say of the likelihood's curvature (Lange, 1995;
            Jamshidian and Jennrich, 1997), and takes a tenth of its iterations where components overlap. It stops when
            the Newton decrement is below `tol` twice in succession. `"squarem"` extrapolates every two steps of EM
            (Varadhan and Roland, 2008); it is the simpler method, and takes about twice as many. `"em"` is plain EM,
            and stops when the mean log-likelihood gains less than `tol` in one iteration (or, with a ridge, loses
            less), which may be far from its limit. `"lbfgs"` and `"adam"` follow the gradient of the same objective,
            with directions by optax (see `jaxgmm.em.methods.gradient`). None is `"quasi-newton"`, or `"em"` with a
            `tol` of 0.
        history: record the log-likelihood of every iteration; a sequence of iteration numbers, such as `(0, 1, 5)`,
            also records the parameters after exactly these, in `snapshots`.
        devices: divides the samples of one data set `(N, D)` that is too large for one device over these: a number of
            devices of this process, or a sequence of them. A JAX array whose rows are on several devices already, of
            this process or of many (`jax.distributed`), needs no `devices`. Then all starts are made on a random sample
            of 65,536 rows, and the best one goes on over all samples in float64 (in float32 if that is the precision):
            `n_iter`, `history`, `snapshots` and `efficiency` are those of this run, and what the other starts lack
            against it is estimated by the sample. An explicit start needs no sample.
        checkpoint: with samples on several devices, a file of `jaxgmm.storage` in which the first process keeps the fit
            so far every 25 iterations, completely or not at all. If it exists, the call goes on from there. All
            processes must be able to read it.
        part_of: `(B_all,)`, the numbers of samples of all data sets of a job, if `x` is one of several parts of it.
            Programs are chosen for the whole job then, so that its parts share them, and have the answers, bit for bit,
            that one call for all has. Order does not matter; `(2, S)`, distinct numbers of samples and how many data
            sets have each, says the same in less memory.
        threads: maximum number of cores of a CPU that work on chunks; None for the environment variable
            `JAXGMM_THREADS`, or else for all cores. XLA may divide a large operation among others: to limit these too,
            limit the process before JAX starts, as the command does.
        progress: show a progress bar (needs rich); or a function that receives the numbers of finished and of all runs.

    Returns:
        the best run of every data set, and how all runs ended.

    Raises:
        ValueError: wrong shapes or options. Nothing has been computed then.
        PeerLostError: another process that holds samples of this fit has been lost; `result` is the fit so far.
        ImportError: a package that an option needs is not installed.

    Example:
        >>> import numpy as np, jaxgmm
        >>> x = np.concatenate([np.full(60, -3.0), np.full(40, 3.0)]) + np.tile([-1.0, 1.0], 50)
        >>> result = jaxgmm.fit(x[:, None], 2)
        >>> sorted(result.mixture.weights.round(3).tolist())
        [0.4, 0.6]
        >>> jaxgmm.Status(result.status).name
        'CONVERGED'
    """
    began = time.perf_counter()
    check_model(n_components, covariance_type, reg_covar)
    check_runs(n_init, n_finalists, tol, max_iter, precision, method)
    check_flag("avoid_spurious", avoid_spurious)
    check_progress(progress)
    shards = shards_of(x, sample_weight, devices)
    check_alone(shards, checkpoint, part_of)
    data = weighted(batch(x), sample_weight) if shards is None else shards.as_batch
    sizes = sizes_of_job(part_of, data)
    init_name, start = checked_start(init, data, n_components, covariance_type)
    n_init, (n_history, snapshots) = int(n_init) if start is None else 1, checked_history(history, max_iter)
    request = Request(
        init=init_name,
        n_init=n_init,
        n_finalists=finalists(n_finalists, n_init),
        precision=precision,
        tol=float(tol),
        max_iter=int(max_iter),
        key=checked_key(key),
        avoids_spurious=bool(avoid_spurious),
        n_history=n_history,
        snapshots=snapshots,
        method=method_for(method, tol),
        threads=n_cores(threads),
    )
    model = (int(n_components), covariance_type, ridge_in(precision, reg_covar))
    n_runs = data.n_data_sets * n_init + (shards is not None and start is None)
    with progress_bar(n_runs, shown=progress) as report:
        if shards is None:
            result = fit_batch(data, start, model, request, report, sizes)
            result = result.of(0) if data.is_single else result
        else:
            result = fit_shards(shards, checkpoint, fit_batch, start, model, request, report)
    return replace(result, seconds=time.perf_counter() - began)


def fit_batch(
    data: Batch,
    start: Any,
    model: Combination,
    request: Request,
    report: Callable[[int], None],
    sizes: Sizes | None = None,
) -> FitResult:
    """Fits one model to every data set of a batch; what `fit` does when it has read its arguments."""
    if isinstance(start, Mixture) and np.any(start.weights == 0):
        request = request._replace(has_absent=True)

    def fits_of(chunk: Chunk) -> ChunkFits:
        return fit_chunk(inputs_of(chunk, chunk.model_sets[0], data, start))

    fitted = on_chunks(fits_of, data, [model], request, report, sizes=sizes)
    parts = ((chunk.data_sets, fits) for chunk, fits in fitted)
    return collected(parts, data.n_data_sets, data.samples.shape[1], model, request)
