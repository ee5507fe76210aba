"""How the best run of every fit is found: which runs go how far, in which precision.

In mixed precision float32 searches and float64 finishes. Float32 runs find out which start of a data set is best, and
float64 takes that run to its end. Runs that leave what float32 can represent are judged by float64 as well. A single
start is brought near its end by float32 too, as that is twice as fast; but float64 makes all of its iterations where
these are what the user asks for (a `tol` of 0, or a history), or where they are few or little work.

Where only some starts are to be finalists, all make a few iterations first, and the best go on from there.
"""

import numpy as np
from jaxtyping import Bool, Float

from jaxgmm.mixture import Mixture
from jaxgmm.program import Options, Program
from jaxgmm.runs import DataSets, Limits, Runs, Work, begun
from jaxgmm.status import Status

# Float32 cannot tell smaller gains of the mean log-likelihood from rounding.
SEARCH_TOL = 1e-6

# What the order of components changes in a log-likelihood of float64, in nats per sample.
ROUNDING = 1e-12

# Iterations after which the finalists among the starts are chosen.
SHORT = 9

# Starts whose mean log-likelihoods then differ by less, in nats, are likely to be on their way to the same optimum.
DISTINCT = 0.02

# Iterations that a search leaves to float64 where max_iter ends it, to correct its rounding.
RESERVED = 10

# What must be left of a variance after cancellation, in machine epsilons. Below SOUND its digits are noise. A float32
# search that float64 will finish can ask for more: above ACCURATE the log-likelihood is right to 1e-4 nats per sample.
SOUND = 64
ACCURATE = 1024


def all_runs(
    sets: DataSets, starts: Mixture, sound: Bool[np.ndarray, " g"], options: Options, program: Program
) -> Runs:
    """Takes every start of every fit that is to be made to its end, or to the place where it falls behind.

    Args:
        sets: C standardised data sets.
        starts: `(C M R, K, …)`, in their coordinates, float64.
        sound: `(C M,)`, which models can be fitted to which data sets.
        options: tolerance, limits and models.
        program: precision, and what programs are compiled for.

    Returns:
        the runs.
    """
    n_init = program.layout.n_init
    wanted = np.repeat(sound, n_init)
    searches = has_search(options, program)
    if searches:
        dtype = program.search_dtype
        tol, max_iter = max(options.tol, SEARCH_TOL), options.max_iter - RESERVED
    else:
        dtype = "float32" if program.precision == "float32" else "float64"
        tol, max_iter = options.tol, options.max_iter
    # Float64 has one program in mixed precision, whether it finishes runs or makes all of their iterations.
    slots = program.finish if program.precision == "mixed" and dtype == "float64" else program.search
    # Nothing finishes what float32 alone has begun, so there it may go as far as its digits are worth anything.
    floor = SOUND if program.precision == "float32" else ACCURATE
    work = Work(sets, starts, options, program)
    # What an iteration at this tolerance, or rounding, can change; starts that differ by less are equal.
    margin = max(tol, ROUNDING if dtype == "float64" else SEARCH_TOL)

    found = begun(starts, program)
    if program.n_finalists < n_init and max_iter > SHORT:
        found = work.take_on(found, wanted, Limits(tol, SHORT, floor), slots, dtype)
        unsound = (np.asarray(found.spikes) > 0) | (np.asarray(found.states.status) == Status.DEGENERATE)
        score = work.mean_log_likelihoods(found)
        wanted = wanted & _among_best(score, unsound.reshape(score.shape), program.n_finalists, margin).ravel()
    found = work.take_on(found, wanted, Limits(tol, max_iter, floor), slots, dtype)
    return _finished(work, found, wanted, margin) if searches else found._replace(judged=wanted)


def has_search(options: Options, program: Program) -> bool:
    """Whether there is a search, for float64 to finish."""
    if program.precision != "mixed" or options.max_iter <= 2 * RESERVED:
        return False
    one_is_searched = program.search_dtype == "float32" and options.tol > 0 and program.n_history == 0
    return program.layout.n_init > 1 or one_is_searched


def _among_best(
    score: Float[np.ndarray, "g r"], unsound: Bool[np.ndarray, "g r"], n_finalists: int, margin: float
) -> Bool[np.ndarray, "g r"]:
    """Which runs are the finalists of their fit, by mean log-likelihoods per sample.

    Sound ones come before others, distinct ones before repetitions of a better one, and of equal ones the first.
    """
    order = np.lexsort((-np.round(score / margin), unsound), axis=1)
    in_order, is_unsound = (np.take_along_axis(row, order, axis=1) for row in (score, unsound))
    is_repetition, kept = np.zeros_like(unsound), np.full(len(score), np.inf)
    for r, own in enumerate(in_order.T):
        is_repetition[:, r] = (kept - DISTINCT < own) & (own < kept + DISTINCT)
        kept = np.where(is_repetition[:, r], kept, own)
    order = np.take_along_axis(order, np.argsort(2 * is_unsound + is_repetition, axis=1, stable=True), axis=1)
    is_finalist = np.zeros_like(unsound)
    np.put_along_axis(is_finalist, order[:, :n_finalists], True, axis=1)
    return is_finalist


def _finished(work: Work, found: Runs, wanted: np.ndarray, margin: float) -> Runs:
    """Takes the best run of each fit to its end in float64, and every run that became too narrow for a search.

    Should that be degenerate or have spikes, the next best follow. Runs that the search found spikes in are asked only
    where there is no other.
    """
    options, n_init = work.options, work.program.layout.n_init
    lost = np.asarray(found.states.status) == Status.DEGENERATE
    spiky = np.asarray(found.spikes) > 0
    promise = work.mean_log_likelihoods(found)
    pending = wanted

    def of_fit(flags: np.ndarray) -> np.ndarray:
        return np.any(flags.reshape(-1, n_init), axis=1)

    while np.any(pending):
        promising = pending & ~lost & ~spiky
        eligible = np.where(np.repeat(of_fit(promising), n_init), promising, pending & ~lost)
        score = np.where(eligible.reshape(promise.shape), promise, -np.inf)
        # Rounding must not choose.
        first = np.argmax(score >= np.max(score, axis=1, keepdims=True) - margin, axis=1)
        is_best = np.arange(n_init) == first[:, None]
        candidates = pending & (is_best.ravel() | lost)
        limits = Limits(options.tol, options.max_iter, ACCURATE)
        found = work.take_on(found, candidates, limits, work.program.finish, "float64")
        found = found._replace(judged=found.judged | candidates)
        acceptable = found.judged & (np.asarray(found.states.status) != Status.DEGENERATE)
        sound = acceptable & (np.asarray(found.spikes) == 0)
        settled = of_fit(sound) | (of_fit(acceptable) & ~of_fit(promising & ~candidates))
        pending = pending & ~candidates & ~np.repeat(settled, n_init)
    return found
