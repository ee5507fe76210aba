"""One mixture of a table that memory need not hold, in passes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import jaxgmm
from jaxgmm.tables.survey import Survey


def fit(
    table: Survey, options: dict[str, Any], passes: int, checkpoint: Path, progress: Callable[[int, int], None]
) -> "jaxgmm.FitResult":
    """The fit of all rows, from that of a sample; it goes on from a checkpoint.

    Fields about starts and spurious components describe the fit of the sample.
    """
    weights = None if table.weights is None else [table.weights]
    found = jaxgmm.fit([table.sample], **options, sample_weight=weights)
    n_rows = int(table.n_samples[0])
    if not np.all(np.isfinite(found.mixture.weights)):
        return found
    stream = jaxgmm.fit_stream(
        table.batches,
        **{name: options[name] for name in ("n_components", "covariance_type", "reg_covar", "precision")},
        passes=passes,
        sample=table.sample if table.weights is None else (table.sample, table.weights),
        init=found.mixture.of(0),
        n_init=1,
        checkpoint=checkpoint,
        progress=lambda done, read: progress(done * n_rows + read, passes * n_rows),
    )
    growth = stream.n_samples / found.n_samples
    behind = (found.start_log_likelihood - found.log_likelihood[:, None]) * growth[:, None]
    return replace(
        found,
        mixture=stream.mixture.map(lambda leaf: leaf[None]),
        log_likelihood=np.array([stream.log_likelihood]),
        gap=np.array([stream.gap]),
        n_iter=found.n_iter + np.int32(stream.n_batches),
        status=np.array([stream.status]),
        n_samples=np.array([stream.n_samples]),
        start_log_likelihood=stream.log_likelihood + behind,
    )
