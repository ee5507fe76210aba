"""fit_stream(): one mixture of samples that are read batch by batch, in one pass or a few.

    the first samples, or a sample of all, are fitted with all starts (`jaxgmm.fit`)  →  every pass sums the statistics
    of all samples at fixed parameters  →  the step after it uses the first samples as a guide (`jaxgmm.em.surrogate`)

Because the parameters are fixed during a pass, neither the order of the samples nor the cut into batches matters.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgmm.checkpoint import Checkpoint, digest, in_words
from jaxgmm.driver.streams import BY_EM, STEPPED, TILE_SUMS, Sums, tile_of
from jaxgmm.em.statistics import SufficientStatistics
from jaxgmm.em.surrogate import Solved
from jaxgmm.engine.devices import machine
from jaxgmm.engine.transfer import fetched
from jaxgmm.settings import check_at_least_zero, check_integer
from jaxgmm.status import Status
from jaxgmm.streams.reading import Rows, first_rows, in_order, opener, rows_in, tiles
from jaxgmm.streams.state import Passage, Stream, held_by, statistics_of
from jaxgmm.streams.updating import EXPONENT, check_exponent, start_stream, update

# Samples that are read at a time, and of the first ones.
TILE = 2**16
FIRST = 2**16
# Tiles between two checkpoints.
_EVERY = 64
# Loss of the mean log-likelihood, in nats, that is more than rounding: a step is taken back.
_LOSS = 1e-9


class _Course(NamedTuple):
    """How passes are made.

    Attributes:
        passes: the most.
        tol: a pass whose step was predicted to gain less is the last, in nats per sample.
        kept: where the state is kept.
        n_workers: number of tiles in work at a time.
        progress: called with the numbers of passes made and of samples read in this one.
    """

    passes: int
    tol: float
    kept: Checkpoint[Stream]
    n_workers: int
    progress: Callable[[int, int], None]


def fit_stream(
    batches: Any,
    n_components: int | None = None,
    *,
    passes: int = 1,
    covariance_type: str = "full",
    tol: float = 1e-6,
    reg_covar: float = 1e-12,
    sample: Any = None,
    stream: Stream | None = None,
    exponent: float = EXPONENT,
    checkpoint: str | Path | None = None,
    every: int = _EVERY,
    threads: int | None = None,
    progress: Callable[[int, int], None] = lambda _passes, _rows: None,
    **options: Any,
) -> Stream:
    """Fits one mixture to samples that are read batch by batch; memory holds one batch, and the first 65,536 samples.

    All starts are made on the first samples, by `jaxgmm.fit`. Every pass then sums the statistics of all samples at
    fixed parameters, and the step after it uses the first samples as a guide to how these sums change with the
    parameters (see `jaxgmm.em.surrogate`). What one pass leaves of the distance to the optimum falls with the number of
    first samples, as 1 / √n. The answer does not depend on how samples are cut into batches, and hardly on their
    order, as long as the first ones are like the others; if rows are sorted, pass a `sample`.

    Args:
        batches: an iterable of arrays `(N_i, D)`, or of tuples of these and sample weights `(N_i,)`. For several passes
            one that can be iterated again, such as a list, or a function that returns an iterator. Or whatever has a
            shape `(N, D)` and is read by slices of rows: a memory map, a frame, a data set of h5py or zarr.
        n_components: K; None with `stream`.
        passes: maximum number of passes over the samples.
        covariance_type: as for `jaxgmm.fit`.
        tol: stop after a pass whose step was predicted to gain less, in nats per sample.
        reg_covar: ridge, as for `jaxgmm.fit`, but of the variances of the first samples.
        sample: `(n, D)`, or a pair of it and weights, in place of the first samples; best drawn at random from all. It
            is not counted.
        stream: go on from this stream of one data set with new batches, by `update`: stepwise EM, in one pass, which
            never reads old samples.
        exponent: of the stream, for later updates; see `start_stream`.
        checkpoint: a file of `jaxgmm.storage` in which the state is kept now and then, completely or not at all. If it
            exists, the call goes on from there: with the same batches from their beginning it gives the same answer,
            bit for bit, as without an interruption. The request and the first samples (or the sample; with `stream`,
            the first batch) must be those of the file, and are read even if it is finished; batches that follow are not
            compared.
        every: number of tiles of 65,536 samples, or with `stream` of batches, between two checkpoints.
        threads: maximum number of cores of a CPU, as for `jaxgmm.fit`.
        progress: called with the numbers of passes made and of samples read in this one.
        **options: of `jaxgmm.fit`, for the first samples.

    Returns:
        the stream of one data set. Its status is `CONVERGED` if the last step was predicted to gain less than `tol`,
        else `MAX_ITER`. NaN or infinity in a sample of positive weight ends the call with `NONFINITE` and without a
        mixture: a pass needs all samples. `n_refused` is the number that had been read by then. Give such samples
        weight 0. `DEGENERATE` and `TOO_FEW_SAMPLES` are those of `jaxgmm.fit`.

    Raises:
        ValueError: wrong shapes or options, batches that cannot be read again, a checkpoint of another request or of
            other first samples.

    Example:
        >>> import numpy as np, jaxgmm
        >>> rng = np.random.default_rng(0)
        >>> batches = [np.where(rng.random((500, 1)) < 0.3, -4, 4) + rng.normal(size=(500, 1)) for _ in range(20)]
        >>> stream = jaxgmm.fit_stream(batches, 2, passes=2)
        >>> sorted(stream.mixture.weights.round(1).tolist()), int(stream.n_rows)
        ([0.3, 0.7], 10000)
    """
    check_integer("passes", passes, 1)
    check_integer("every", every, 1)
    check_at_least_zero("tol", tol)
    check_exponent(exponent)
    if not callable(progress):
        raise ValueError(f"progress must be a function of two numbers; got {progress!r}.")
    if "sample_weight" in options:
        raise ValueError("weights come with their samples: leave out sample_weight, and pass batches (x, weights).")
    open_pass = opener(batches, passes, TILE)
    if stream is not None:
        if not isinstance(stream, Stream) or np.shape(stream.status):
            raise ValueError("stream must be the jaxgmm.Stream of one data set; jaxgmm.update takes those of many.")
        if n_components is not None or passes > 1 or sample is not None or threads is not None or options:
            raise ValueError(
                "with stream, new batches are read once: leave out n_components, passes, sample, threads and "
                "options of fit."
            )
        return _followed(open_pass(), stream, checkpoint, every, progress)
    check_integer("n_components", n_components, 1)
    model = {"covariance_type": covariance_type, "reg_covar": reg_covar, "exponent": exponent}
    first_pass = open_pass()
    if sample is None:
        first, first_pass = first_rows(first_pass, FIRST)
    else:
        first = rows_in(sample)
    described = {"n_components": n_components, "passes": passes, "tol": tol, **model, **options}
    described = {} if checkpoint is None else in_words(described | {"first samples": first})
    kept = Checkpoint(Stream, checkpoint, every, described)
    began = kept.read()
    if began is not None and began.passage is None:
        return began
    if began is None:
        fitted = start_stream(first.x, n_components, sample_weight=first.weights, threads=threads, **model, **options)  # pyright: ignore[reportArgumentType]
        began = replace(fitted, passage=_begun(fitted))
    if not np.all(np.isfinite(began.mixture.weights)):
        return replace(began, passage=None)
    course = _Course(passes, tol, kept, len(machine(threads).devices), progress)
    return _passed(began, first, first_pass, open_pass, course)


def _followed(
    batches: Iterator[Any],
    stream: Stream,
    checkpoint: str | Path | None,
    every: int,
    progress: Callable[[int, int], None],
) -> Stream:
    """A stream after new batches, by stepwise EM."""
    coming = (rows_in(batch, stream.mixture.n_features) for batch in batches)
    # An iterator may read the next batch into the same array, so the first one is described before that.
    first = list(islice(coming, 1))
    described = {} if checkpoint is None else {"from": digest(stream), "first batch": digest(first)}
    kept = Checkpoint(Stream, checkpoint, every, described)
    began, stream = stream, kept.read() or stream
    n_read, n_done = 0, int(stream.n_rows + stream.n_refused - began.n_rows - began.n_refused)
    for number, rows in enumerate(chain(first, coming), start=1):
        n_read += len(rows.x)
        if n_read <= n_done:
            continue
        stream = update(stream, rows.x, rows.weights)
        progress(0, n_read)
        if number % kept.every == 0:
            kept.keep(stream)
    kept.keep(stream)
    return stream


def _begun(stream: Stream) -> Passage:
    """Before the first pass."""
    none = (np.zeros_like(stream.counts), np.zeros_like(stream.first), np.zeros_like(stream.second))
    return Passage(np.int64(0), np.int64(0), np.float64(0), np.float64(0), *none, np.float64(-np.inf), *none)


def _passed(
    stream: Stream,
    first: Rows,
    first_pass: Iterator[Any],
    open_pass: Callable[[], Iterator[Any]],
    course: _Course,
) -> Stream:
    """The stream after all passes, or those that are left."""
    coming: Iterator[Any] | None = first_pass
    course.kept.keep(stream)
    while stream.passage is not None:
        stream = _one_pass(stream, open_pass() if coming is None else coming, course)
        coming = None
        stream = _after(stream, first, course.passes, course.tol)
        course.kept.keep(stream)
    return stream


def _one_pass(stream: Stream, batches: Iterator[Any], course: _Course) -> Stream:
    """The stream with the sums of a whole pass."""
    passage, held, mixture = stream.passage, held_by(stream), stream.mixture
    assert passage is not None
    tile = tile_of(mixture.n_features, mixture.n_components, TILE, diagonal=mixture.is_diagonal)

    def sums_of(item: tuple[Rows, int]) -> Sums:
        with jax.enable_x64(True):
            return fetched(TILE_SUMS["well"](*item[0], held, tile=tile))

    coming = tiles(batches, TILE, mixture.n_features, int(passage.n_rows))
    for number, ((_, n), sums) in enumerate(in_order(sums_of, coming, course.n_workers), start=1):
        passage = _added(passage, sums, n)
        if not sums.is_finite:
            break
        course.progress(int(passage.n_passes), int(passage.n_rows))
        if number % course.kept.every == 0:
            course.kept.keep(replace(stream, passage=passage))
    return replace(stream, passage=passage)


def _added(passage: Passage, sums: Sums, n: int) -> Passage:
    """A passage after another tile; NaN if samples are not finite."""
    lost = 0.0 if sums.is_finite else np.nan
    return replace(
        passage,
        n_rows=passage.n_rows + n,
        n_samples=passage.n_samples + sums.weight,
        log_likelihood=passage.log_likelihood + sums.log_likelihood + lost,
        counts=passage.counts + sums.statistics.counts,
        first=passage.first + sums.statistics.first,
        second=passage.second + sums.statistics.second,
    )


def _after(stream: Stream, first: Rows, passes: int, tol: float) -> Stream:
    """The stream after the step that ends a pass; without a passage if it was the last."""
    passage, held = stream.passage, held_by(stream)
    assert passage is not None
    if passage.n_passes and passage.n_rows != stream.n_rows:
        raise ValueError(
            f"batches held {stream.n_rows:,} samples in one pass and {passage.n_rows:,} in another; pass the same ones."
        )
    if passage.n_samples == 0 and np.isfinite(passage.log_likelihood):
        raise ValueError("batches hold no samples of positive weight.")
    mean = float(passage.log_likelihood / passage.n_samples)
    if np.isnan(mean):
        unknown = stream.mixture.map(lambda leaf: np.full_like(leaf, np.nan))
        nothing = {"mixture": unknown, "log_likelihood": np.float64(np.nan), "gap": np.float64(np.nan)}
        counts = {"n_rows": passage.n_rows, "n_refused": passage.n_rows}
        return replace(stream, **nothing, **counts, status=np.int32(Status.NONFINITE), passage=None)
    sums = statistics_of(passage.counts, passage.first, passage.second)
    means, family = jax.tree.map(lambda total: total / passage.n_samples, sums), stream.covariance_type
    last = statistics_of(passage.last_counts, passage.last_first, passage.last_second)
    # EM's own step is never taken back, nor one that was predicted to lose: with a ridge these lead to the fixed point.
    is_worse = mean < passage.last_log_likelihood - _LOSS and 0 < stream.gap < np.inf
    with jax.enable_x64(True):
        if is_worse:
            mean, means = float(passage.last_log_likelihood), last
            mixture = fetched(BY_EM["well"](held, last, family=family))
            step = Solved(mixture, last, *map(jnp.asarray, (np.inf, np.inf, True)))
        else:
            step = _stepped(first, held, means, family)
    n_passes = passage.n_passes + 1
    # With a ridge a step may lose likelihood, which does not mean convergence.
    is_small, is_sound = abs(float(step.gap)) < tol, bool(step.is_sound)
    ends = n_passes == passes or is_small or not is_sound
    status = Status.CONVERGED if is_small else Status.MAX_ITER
    following = replace(
        _begun(stream),
        n_passes=n_passes,
        last_log_likelihood=np.float64(mean),
        last_counts=means.counts,
        last_first=means.first,
        last_second=means.second,
    )
    if is_sound:
        counts, moments, products = step.statistics
        stream = replace(stream, mixture=step.mixture, counts=counts, first=moments, second=products)
    return replace(
        stream,
        status=np.int32(status if is_sound else Status.DEGENERATE),
        log_likelihood=passage.n_samples * (mean + (float(step.gain) if np.isfinite(step.gain) else 0.0)),
        gap=np.float64(step.gap),
        n_samples=passage.n_samples,
        n_rows=passage.n_rows,
        n_batches=n_passes,
        passage=None if ends else following,
    )


def _stepped(first: Rows, held: Any, means: SufficientStatistics, family: str) -> Solved:
    tile = tile_of(first.x.shape[1], held.mixture.n_components, TILE, diagonal=held.mixture.is_diagonal)
    padded = first.filled_up(-(-len(first.x) // tile) * tile)
    return fetched(STEPPED["well"](*padded, held, means, family=family, tile=tile))
