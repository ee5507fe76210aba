"""A chunk of data sets, from raw samples to their chosen fits.

    standardise each data set and make its starts (`jaxgmm.driver.prepare`)  →  all runs (`jaxgmm.driver.search`)  →
    the best of each, in data units (`jaxgmm.driver.choose`)

Everything outside the runs is float64.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array

from jaxgmm.driver.choose import BEST_OF, ChunkFits, Values, scaled, whole, without_fits
from jaxgmm.driver.prepare import PREPARED, statuses_of_too_few, within_range
from jaxgmm.driver.program import Options, Program
from jaxgmm.driver.search import all_runs
from jaxgmm.engine.transfer import fetched
from jaxgmm.mixture import Mixture


class Inputs(NamedTuple):
    """All inputs of the fits of a chunk. With NumPy arrays, they can be pickled and fitted in another process.

    Attributes:
        x: samples `(C, N, D)` in data units, padded.
        lengths: number of samples of each data set `(C,)`.
        sample_weight: weights `(C, N)`, or None for 1.
        start: explicit starts of one model, of the kind in `program.init`: mixtures, responsibilities `(C, N, K)` or
            labels `(C, N)`. If that names an initialiser, mixtures `(C M, K, …)` that replace the last start of each
            fit, except those that are NaN.
        options: values that may change from call to call.
        program: the static part, for which programs are compiled.
    """

    x: np.ndarray | Array
    lengths: np.ndarray
    sample_weight: np.ndarray | None
    start: Mixture | np.ndarray | Array | None
    options: Options
    program: Program


def fit_chunk(inputs: Inputs) -> ChunkFits:
    """Fits every model to every data set of a chunk. Float64 must be enabled."""
    x, lengths, sample_weight, start, options, program = inputs
    statuses = statuses_of_too_few(x, lengths, sample_weight, options.models)
    if statuses is not None:
        return without_fits(statuses, program, x.shape[-1])
    # The number of snapshots must not compile this again.
    told = options._replace(snapshots=None)
    sample_weight, exponents = within_range(sample_weight, lengths)
    prepared, best_of = PREPARED[program.effort], BEST_OF[program.effort]
    sets, begun, status, wanted, models = prepared(
        x, lengths, sample_weight, start, told, layout=program.layout, init=program.init
    )
    runs = all_runs(sets, begun, wanted, options._replace(models=models), program)
    findings, scores, _ = runs.judgement
    best = best_of(sets.described, status, runs.states, findings, scores, runs.finished, models)
    fits = whole(fetched(best), runs, Values(x, lengths, sample_weight).nearest, len(options.models.form))
    return fits if exponents is None else scaled(fits, exponents)
