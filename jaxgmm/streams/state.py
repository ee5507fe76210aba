"""What is kept of a stream: sums over its samples, and where they lead."""

from dataclasses import replace
from typing import Any

import numpy as np

from jaxgmm.driver.streams import Held
from jaxgmm.em.statistics import SufficientStatistics
from jaxgmm.mixture import Mixture, components_of
from jaxgmm.record import Block, Record, counted, field_names, record, span, status_names, statuses
from jaxgmm.settings import FAMILIES
from jaxgmm.status import Status


@record
class Passage(Record):
    """Where an unfinished pass of `jaxgmm.fit_stream` stands; what a checkpoint needs to go on.

    Attributes:
        n_passes: passes that have been finished.
        n_rows: rows that this one has read.
        n_samples: Σ w of these.
        log_likelihood: their total nats.
        counts, first, second: sums of their statistics.
        last_log_likelihood: mean nats per sample of the last pass; -inf before the first has ended.
        last_counts, last_first, last_second: means of its statistics.
    """

    n_passes: Any
    n_rows: Any
    n_samples: Any
    log_likelihood: Any
    counts: Any
    first: Any
    second: Any
    last_log_likelihood: Any
    last_counts: Any
    last_first: Any
    last_second: Any

    @property
    def _batch(self) -> tuple[int, ...]:
        return ()

    def _described(self) -> tuple[str, list[Block]]:
        rows = [["passes", f"{self.n_passes}"], ["rows of the next", f"{self.n_rows:,}"]]
        return "Passage", [Block(rows)]


@record
class Stream(Record):
    """Mixtures of B data sets whose samples arrive in batches. NumPy arrays; for one data set the B axis is absent.

    It holds no sample. `jaxgmm.update` returns another one, with new samples; `jaxgmm.storage` keeps it in a file.

    Attributes:
        mixture: weights `(B, K)`, means `(B, K, D)`, covariances `(B, K, D, D)`, or variances `(B, K, D)` for `"diag"`
            and `"spherical"`, in data units. NaN where there is no answer.
        status: `(B,)`, codes of `jaxgmm.Status`: how the fit from which the stream began ended, or that of
            `fit_stream`. From the first samples on that were left out, the reason: `NONFINITE`, or `DEGENERATE` where a
            component would have lost its support or its variance.
        log_likelihood: `(B,)`, total nats. Of `fit_stream`, those of all samples at the mixture: counted at the
            parameters of the last pass, plus what the step after it is predicted to gain. Of `update`, those of every
            batch at the parameters before it, added to those of the samples before.
        gap: `(B,)`, nats per sample that the last step of `fit_stream` was predicted to gain; infinite where the first
            samples were no guide to it. NaN where the last samples came by `update`.
        n_samples: `(B,)`, number of samples, or the sum of their weights.
        n_rows: `(B,)`, number of samples, whatever their weights.
        n_batches: `(B,)`, number of batches, or of passes.
        n_refused: `(B,)`, number of samples that were left out.
        counts: `(B, K)`, means of the statistics over samples of weight 1: of the responsibilities.
        first: `(B, K, D)`, of responsibility times sample, in the coordinates x = shift + scale z.
        second: `(B, K, D, D)` or `(B, K, D)`, of responsibility times products of the sample, likewise.
        shift: `(B, D)`, of these coordinates: where the bulk of the first samples lies.
        scale: `(B, D, D)`, lower-triangular, or `(B, D)` for `"diag"` and `"spherical"`: how far it extends.
        ridge: `(B, D, D)` or `(B, D)`, what is added to every covariance, in these coordinates.
        unit: `(B,)`, the weight of the first samples.
        family: number of the covariance family among `"full"`, `"tied"`, `"diag"` and `"spherical"`.
        exponent: the exponent α of the step sizes of `update`; see there.
        passage: where an unfinished pass of `fit_stream` stands, in its checkpoints; else None.
    """

    mixture: Mixture
    status: np.ndarray
    log_likelihood: np.ndarray
    gap: np.ndarray
    n_samples: np.ndarray
    n_rows: np.ndarray
    n_batches: np.ndarray
    n_refused: np.ndarray
    counts: np.ndarray
    first: np.ndarray
    second: np.ndarray
    shift: np.ndarray
    scale: np.ndarray
    ridge: np.ndarray
    unit: np.ndarray
    family: int
    exponent: float
    passage: Passage | None = None

    @property
    def covariance_type(self) -> str:
        """Name of the covariance family."""
        return FAMILIES[int(self.family)]

    @property
    def converged(self) -> np.ndarray:
        """`(B,)`, whether the status is `CONVERGED`."""
        return np.asarray(self.status) == Status.CONVERGED

    @property
    def status_names(self) -> np.ndarray:
        """`(B,)`, names of the statuses, such as `"CONVERGED"`."""
        return status_names(self.status)

    @property
    def _batch(self) -> tuple[int, ...]:
        return np.shape(self.status)

    def _described(self) -> tuple[str, list[Block]]:
        of = f"K = {self.mixture.n_components}, D = {self.mixture.n_features}, {self.covariance_type}"
        rows = [["samples", span(self.n_rows, ",")], ["log-likelihood", span(self.log_likelihood)]]
        if np.any(self.n_refused):
            rows.append(["samples left out", span(self.n_refused, ","), ".n_refused"])
        if self._batch:
            return f"Stream: {counted(len(self), 'data set')}, {of}", [statuses(self.status, "data set"), Block(rows)]
        rows = [["status", Status(int(self.status)).name], *rows]
        return f"Stream: {of}", [Block(rows), components_of(self.mixture)]


# Fields without a batch axis.
_OF_ALL = ("family", "exponent", "passage")


def with_axis(stream: Stream) -> Stream:
    """The stream of one data set with a batch axis."""
    return _mapped(stream, lambda array: np.asarray(array)[None])


def without_axis(stream: Stream) -> Stream:
    """The only stream of a batch, without its axis."""
    return _mapped(stream, lambda array: array[0])


def _mapped(stream: Stream, function: Any) -> Stream:
    names = [name for name in field_names(stream) if name not in ("mixture", *_OF_ALL)]
    own = {name: function(getattr(stream, name)) for name in names}
    return replace(stream, mixture=stream.mixture.map(function), **own)


def statistics_of(counts: Any, first: Any, second: Any) -> SufficientStatistics:
    """Statistics as programs read them; NumPy arrays are as good as JAX's."""
    return SufficientStatistics(counts, first, second)


def held_by(stream: Any) -> Held:
    """What programs read of a stream."""
    statistics = statistics_of(stream.counts, stream.first, stream.second)
    return Held(*(stream.mixture, statistics, stream.shift, stream.scale, stream.ridge, stream.unit, stream.n_samples))
