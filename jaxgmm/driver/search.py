"""The search for the best run of every fit: which runs advance how far, in which precision.

In mixed precision float32 searches and float64 finishes. Runs in float32 find the best start of a data set, and float64
takes that run to its end. Runs that float32 cannot represent are judged in float64 as well. A single start is also
brought near its end in float32, which is twice as fast; but all of its iterations are in float64 if the user asks for
a fixed number of them (a `tol` of 0) or a history, or if they are few or little work.

If only some starts are to be finalists, all make a few iterations first, and the best continue from there.
"""

import numpy as np
from jaxtyping import Bool, Float

from jaxgmm.driver.passes import DataSets, Given, Limits
from jaxgmm.driver.program import Options, Program
from jaxgmm.driver.runs import SOUND, Begun, Passes, Runs, Wanted, recorded
from jaxgmm.soundness import first_best, is_sound
from jaxgmm.status import Status

# Float32 cannot tell what is left to gain, in nats per sample, from rounding below this.
LEAST_IN_FLOAT32 = 1e-6

# Effect of the order of components on a log-likelihood in float64, in nats per sample.
ROUNDING = 1e-12

# Iterations after which the finalists among the starts are chosen.
SHORT = 9

# Starts whose mean log-likelihoods then differ by less than this, in nats, probably lead to the same optimum.
DISTINCT = 0.02

# Iterations that a search leaves to float64, to correct its rounding, if max_iter ends it.
RESERVED = 10

# What must be left of a variance after cancellation in float32, in machine epsilons. Below SOUND its digits are noise.
# A search that float64 will finish can require more: above ACCURATE the log-likelihood is right to 1e-4 nats a sample.
ACCURATE = 1024

# The ridge that float32 needs, as a fraction of the variance. A search adds it to the ridge of the answer.
RIDGE_OF_FLOAT32 = 1e-6


def all_runs(sets: DataSets, begun: Begun, wanted: Wanted, options: Options, program: Program) -> Runs:
    """Advances every start of every possible fit to its end, or until it falls behind.

    Args:
        sets: C standardised data sets.
        begun: `(C M R,)`, the runs before their first step: starts in the coordinates of the data sets, float64.
        wanted: `(C M R,)`, which of them are of models that can be fitted to their data sets.
        options: tolerance, limits and models.
        program: precision, and the static part of programs.

    Returns:
        the runs.
    """
    n_init = program.layout.n_init
    given = Given(sets, begun.states.mixture, options.models, options.avoids_spurious)
    passes = Passes(given, options, program)
    searches = has_search(options, program)
    in_float32 = program.search_dtype == "float32" if searches else program.precision == "float32"
    max_iter = options.max_iter - RESERVED if searches else options.max_iter
    # What the tolerance, or rounding, leaves open; starts that differ by less are equal.
    margin = max(options.tol, LEAST_IN_FLOAT32 if in_float32 else ROUNDING)

    def take_on(found: Runs, wanted: Wanted, max_iter: int) -> Runs:
        if not in_float32:
            # In mixed precision float64 has one program, whether it finishes runs or makes all of their iterations.
            way = program.finish if program.precision == "mixed" else program.search
            return passes.in_float64(found, wanted, wanted, (options.tol, max_iter), way)
        tol = max(options.tol, LEAST_IN_FLOAT32) if options.tol > 0 else 0.0
        # Nothing finishes runs of float32 alone, so they may go as far as their digits mean anything.
        limits = Limits(tol, max_iter, ACCURATE, RIDGE_OF_FLOAT32) if searches else Limits(tol, max_iter, SOUND)
        return passes.in_float32(found, wanted, limits, program.search)

    found = Runs(recorded(begun.states, program), begun.judgement, np.zeros(len(wanted), bool), 0, 0)
    if program.n_finalists < n_init and max_iter > SHORT:
        found = take_on(found, wanted, SHORT)
        known = found.fetch_known()
        is_degenerate = known.status.reshape(-1, n_init) == Status.DEGENERATE
        is_finalist = _among_best(known.by_fit(n_init), is_degenerate, program.n_finalists, margin)
        wanted = np.asarray(wanted) & is_finalist.ravel()
    found = take_on(found, wanted, max_iter)
    return _finished(passes, found, wanted, margin) if searches else found._replace(finished=wanted)


def has_search(options: Options, program: Program) -> bool:
    """Whether there is a search, for float64 to finish."""
    if program.precision != "mixed" or options.max_iter <= 2 * RESERVED:
        return False
    one_is_searched = program.search_dtype == "float32" and options.tol > 0 and program.n_history == 0
    return program.layout.n_init > 1 or one_is_searched


def _among_best(
    score: Float[np.ndarray, "g r"], degenerate: Bool[np.ndarray, "g r"], n_finalists: int, margin: float
) -> Bool[np.ndarray, "g r"]:
    """Which runs are the finalists of their fit.

    Degenerate runs come after others, distinct runs before repetitions of a better one, and among equal runs the first.
    """
    order = np.lexsort((-np.round(score / margin), degenerate), axis=1)
    in_order, is_last = (np.take_along_axis(row, order, axis=1) for row in (score, degenerate))
    is_repetition, kept = np.zeros_like(degenerate), np.full(len(score), np.inf)
    for r, own in enumerate(in_order.T):
        is_repetition[:, r] = (kept - DISTINCT < own) & (own < kept + DISTINCT)
        kept = np.where(is_repetition[:, r], kept, own)
    order = np.take_along_axis(order, np.argsort(2 * is_last + is_repetition, axis=1, stable=True), axis=1)
    is_finalist = np.zeros_like(degenerate)
    np.put_along_axis(is_finalist, order[:, :n_finalists], True, axis=1)
    return is_finalist


def _finished(passes: Passes, found: Runs, wanted: Wanted, margin: float) -> Runs:
    """Takes the best run of each fit to its end in float64, and every run that became too narrow for a search.

    A sound run that the search's own ridge has widened is also finished, since its score in the search cannot be
    compared with others.

    If the best run ends degenerate, or with spurious components, and so below its score in the search, the next best
    runs follow until none has a higher score in the search.
    """
    options, n_init = passes.options, passes.program.layout.n_init
    limits, way = (options.tol, options.max_iter), passes.program.finish
    if n_init == 1:
        # There is nothing to choose, and so nothing that the host has to know.
        return passes.in_float64(found, wanted, wanted, limits, way)._replace(finished=wanted)
    wanted, known = np.asarray(wanted), found.fetch_known()
    status, spurious, ridge_dominated, _ = known
    lost = (status == Status.DEGENERATE) | (is_sound(status, spurious) & (ridge_dominated > 0))
    promise, pending = known.by_fit(n_init), wanted

    def highest(score: np.ndarray, runs: np.ndarray) -> np.ndarray:
        return np.max(np.where(runs.reshape(score.shape), score, -np.inf), axis=1)

    while np.any(pending):
        # Rounding must not choose.
        first = first_best(promise, (pending & ~lost).reshape(promise.shape), margin)
        is_best = np.arange(n_init) == first[:, None]
        candidates = pending & (is_best.ravel() | lost)
        found = passes.in_float64(found, candidates, pending | found.finished, limits, way)
        found = found._replace(finished=found.finished | candidates)
        pending = pending & ~candidates
        if not np.any(pending):
            break
        known = found.fetch_known()
        acceptable = found.finished & (known.status != Status.DEGENERATE)
        reached = highest(known.by_fit(n_init), acceptable)
        settled = (reached > -np.inf) & (reached >= highest(promise, pending & ~lost) - margin)
        pending = pending & ~np.repeat(settled, n_init)
    return found
