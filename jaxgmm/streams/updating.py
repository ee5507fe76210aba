"""start_stream() and update(): mixtures of groups whose samples arrive in batches, by stepwise EM."""

from collections.abc import Callable
from numbers import Real
from typing import Any

import jax
import numpy as np

from jaxgmm.driver.arguments import checked_key, ridge_in, weighted
from jaxgmm.driver.dispatch import inputs_of, on_chunks
from jaxgmm.driver.plan import Chunk
from jaxgmm.driver.prepare import PREPARED, within_range
from jaxgmm.driver.program import Combination, Request
from jaxgmm.driver.streams import FIRST_SUMS, UPDATED, Updated
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.engine.batch import Batch, batch
from jaxgmm.engine.transfer import fetched
from jaxgmm.fit_result import FitResult
from jaxgmm.fitting import fit
from jaxgmm.settings import FAMILIES as FAMILY_NAMES
from jaxgmm.status import Status
from jaxgmm.streams.state import Stream, held_by, with_axis, without_axis

# Every sample counts alike; see `jaxgmm.em.stepwise`.
EXPONENT = 1.0


def start_stream(
    x: Any,
    n_components: int,
    *,
    covariance_type: str = "full",
    reg_covar: float = 1e-12,
    sample_weight: Any = None,
    precision: Any = "mixed",
    exponent: float = EXPONENT,
    **options: Any,
) -> Stream:
    """Begins the streams of one data set or many by fitting their first samples; `update` goes on with others.

    The first samples are kept as sums only. They also determine the coordinates, and the ridge, of all that follow, so
    they should be many, and like those to come.

    Args:
        x: the first samples, as for `jaxgmm.fit`.
        n_components: K.
        covariance_type: as for `jaxgmm.fit`.
        reg_covar: as for `jaxgmm.fit`; a fraction of the variances of the first samples.
        sample_weight: as for `jaxgmm.fit`.
        precision: of the fit, as for `jaxgmm.fit`.
        exponent: α, above 1/2 and at most 1, of the step sizes of `update`.
        **options: of `jaxgmm.fit`: `init`, `n_init`, `key` and so on.

    Returns:
        the streams, with the mixtures that `jaxgmm.fit` finds.

    Raises:
        ValueError: wrong shapes or options.

    Example:
        >>> import numpy as np, jaxgmm
        >>> samples = np.random.default_rng(0).normal(size=(3, 400, 2))
        >>> stream = jaxgmm.start_stream(samples[:, :100], 1)
        >>> stream = jaxgmm.update(stream, samples[:, 100:])
        >>> stream.n_samples
        array([400., 400., 400.])
        >>> bool(np.allclose(stream.mixture.means[:, 0], samples.mean(axis=1)))
        True
    """
    check_exponent(exponent)
    result = fit(
        *(x, n_components),
        covariance_type=covariance_type,
        reg_covar=reg_covar,
        sample_weight=sample_weight,
        precision=precision,
        **options,
    )
    model = (int(n_components), covariance_type, ridge_in(precision, reg_covar))
    data = weighted(batch(x), sample_weight)
    stream = begun(data, model, result, float(exponent))
    return without_axis(stream) if data.is_single else stream


def update(stream: Stream, more: Any, sample_weight: Any = None) -> Stream:
    """The streams after new samples, by stepwise EM (Cappé and Moulines, 2009); no old sample is read.

    New samples are read once, at the current mixture. Then the means of the statistics move towards theirs, and the
    M-step follows. With the default exponent α = 1 every sample counts alike, whenever it came. With a smaller one the
    stream forgets: it follows a drift, and its answer depends on the order of the samples.

    Args:
        stream: B streams.
        more: new samples, as for `jaxgmm.fit`: `(N, D)` for the stream of one data set, else `(B, N, D)` or a sequence
            of B arrays `(N_i, D)`, of which any may be empty.
        sample_weight: as for `jaxgmm.fit`.

    Returns:
        the new streams. Those of data sets without new samples are unchanged, bit for bit. So are those whose new
        samples hold NaN or infinity, would make a component lose its support or its variance, or have no mixture to
        begin with; `status` and `n_refused` say so.

    Raises:
        ValueError: wrong shapes, or an unfinished `fit_stream`.
    """
    if not isinstance(stream, Stream):
        raise ValueError(f"stream must be a jaxgmm.Stream, as start_stream returns it; got {type(stream).__name__}.")
    if stream.passage is not None:
        raise ValueError("this stream is the checkpoint of an unfinished fit_stream; call that again with the file.")
    is_single = not np.shape(stream.status)
    if not is_single and isinstance(more, (list, tuple)) and len(more) == len(stream):
        # An empty list has no features of its own.
        none = np.empty((0, stream.mixture.n_features))
        more = [item if np.size(item) else none for item in more]
    data = weighted(batch(more), sample_weight)
    streams = with_axis(stream) if is_single else stream
    n_features = streams.mixture.n_features
    if is_single != data.is_single or data.n_data_sets != len(streams) or data.samples.shape[1] != n_features:
        wanted = f"(N, {n_features})" if is_single else f"({len(streams)}, N, {n_features}), or {len(streams)} arrays"
        shape = data.samples.shape if data.is_single else (data.n_data_sets, "N", data.samples.shape[1])
        raise ValueError(f"more must be {wanted}, as the stream has; got {'×'.join(map(str, shape))}.")
    updated = _updated(streams, data)
    return without_axis(updated) if is_single else updated


def check_exponent(exponent: Any) -> None:
    """Raises ValueError unless step sizes decrease, but not too fast."""
    if isinstance(exponent, bool) or not isinstance(exponent, Real) or not 0.5 < float(exponent) <= 1:
        raise ValueError(f"exponent must be a number above 0.5 and at most 1; got {exponent!r}.")


def begun(data: Batch, model: Combination, result: FitResult, exponent: float) -> Stream:
    """The streams, with a batch axis, of data sets that have been fitted."""
    k, family, _ = model
    mixture = result.mixture.map(lambda leaf: leaf[None]) if data.is_single else result.mixture
    b, d = data.n_data_sets, data.samples.shape[1]
    spread = (d,) if FAMILIES[family].diagonal else (d, d)

    def unknown(*axes: int) -> np.ndarray:
        return np.full((b, *axes), np.nan)

    stream = Stream(
        mixture=mixture,
        status=np.atleast_1d(result.status).astype(np.int32),
        log_likelihood=np.atleast_1d(result.log_likelihood),
        gap=np.atleast_1d(result.gap),
        n_samples=np.atleast_1d(result.n_samples),
        n_rows=data.lengths.astype(np.int64),
        n_batches=np.ones(b, np.int64),
        n_refused=np.where(np.isnan(np.atleast_1d(result.log_likelihood)), data.lengths, 0).astype(np.int64),
        counts=unknown(k),
        first=unknown(k, d),
        second=unknown(k, *spread),
        shift=unknown(d),
        scale=unknown(*spread),
        ridge=unknown(*spread),
        unit=np.atleast_1d(result.n_samples),
        family=FAMILY_NAMES.index(family),
        exponent=exponent,
    )

    def work(chunk: Chunk) -> Any:
        x, lengths, weights, start, options, program = inputs_of(chunk, chunk.model_sets[0], data, mixture)
        weights, _ = within_range(weights, lengths)
        prepared = PREPARED[program.effort]
        layout = program.layout
        sets, runs, *_ = prepared(x, lengths, weights, start, options, layout=layout, init=program.init)
        sums = FIRST_SUMS[program.effort](sets, runs.states.mixture, tile=layout.tile)
        return fetched((*sums, sets.units.shift, sets.units.scale, sets.ridge))

    names = ("counts", "first", "second", "shift", "scale", "ridge")
    for chunk, found in _of_chunks(work, data, model):
        for name, rows in zip(names, found, strict=True):
            getattr(stream, name)[chunk.data_sets] = rows[: len(chunk.data_sets)]
    return stream


def _of_chunks(work: Callable[[Chunk], Any], data: Batch, model: Combination) -> Any:
    """Work on chunks of data sets, each of which has one run."""
    request = Request("mixture", 1, 1, "float64", 0.0, 1, checked_key(0), method="em")
    return on_chunks(work, data, [model], request, lambda _: None)


def _updated(streams: Stream, data: Batch) -> Stream:
    """Streams after new samples of each."""
    new, some = streams.of(np.arange(len(streams))), np.flatnonzero(data.lengths > 0)
    if not len(some):
        return new
    part, family = data.part(some), streams.covariance_type

    def work(chunk: Chunk) -> Updated:
        x, lengths, weights, _, _, program = inputs_of(chunk, chunk.model_sets[0], part)
        held = held_by(streams.of(some[chunk.filled_up]))
        follow, tile = UPDATED[program.effort], program.layout.tile
        found = fetched(follow(x, lengths, weights, held, streams.exponent, family=family, tile=tile))
        # The rest is padding.
        return jax.tree.map(lambda leaf: leaf[: len(chunk.data_sets)], found)

    for chunk, found in _of_chunks(work, part, (streams.mixture.n_components, family, 0.0)):
        _store(new, some[chunk.data_sets], part.lengths[chunk.data_sets], found)
    return new


def _store(new: Stream, rows: np.ndarray, lengths: np.ndarray, found: Updated) -> None:
    """Copies what an update came to into the streams with these numbers, unless it has to be refused."""
    sums, has_mixture = found.sums, np.isfinite(new.mixture.weights[rows, 0])
    weighs_nothing = sums.is_finite & (sums.weight == 0)
    is_taken = sums.is_finite & ~weighs_nothing & found.is_sound & has_mixture
    is_refused = ~is_taken & ~weighs_nothing
    new.n_rows[rows[~is_refused]] += lengths[~is_refused]
    new.n_refused[rows[is_refused]] += lengths[is_refused]
    reasons = np.where(sums.is_finite, Status.DEGENERATE, Status.NONFINITE)
    new.status[rows[is_refused & has_mixture]] = reasons[is_refused & has_mixture]
    taken = rows[is_taken]
    leaves = (*new.mixture.arrays, new.counts, new.first, new.second)
    for leaf, values in zip(leaves, (*found.mixture.arrays, *found.statistics), strict=True):
        leaf[taken] = values[is_taken]
    new.log_likelihood[taken] += sums.log_likelihood[is_taken]
    new.n_samples[taken] += sums.weight[is_taken]
    new.n_batches[taken] += 1
    new.gap[taken] = np.nan
