"""scikit-learn, one fit after another, and on all cores through joblib."""

import warnings
from collections import Counter
from collections.abc import Callable

import numpy as np

from benchmarks.environment import CORES
from benchmarks.outcome import Fits, Outcome, System
from benchmarks.scenarios import REG_COVAR, Model, Problem, Scenario, Start, starts

# Without it the other systems are measured, and its rows say what is missing.
MISSING = None
try:
    from joblib import Parallel, delayed
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits
except ImportError as error:
    MISSING = error

# Entries of a data set below which threads within one fit only make it slower, by tens of times on a busy machine.
SMALL = 2_000_000

# Blocks of data sets that each core is given: the later ones even out how long the earlier ones took.
BLOCKS_PER_CORE = 4


def systems() -> list[System]:
    return [
        System("scikit-learn", "cpu, one process", "float64", _handles, _looped, sample=2),
        System("scikit-learn, joblib", f"cpu, {CORES} processes", "float64", _handles, _on_all_cores, sample=2 * CORES),
    ]


def _handles(_: Scenario) -> bool:
    return True


def _looped(problem: Problem) -> Callable[[], Outcome]:
    jobs = _jobs(problem)
    threads = 1 if problem.lengths.max() * problem.scenario.n_features < SMALL else CORES

    def run() -> Outcome:
        with threadpool_limits(threads):
            return Outcome([_fits([fit_one(*job) for job in model_jobs], problem.scenario) for model_jobs in jobs])

    return run


def _on_all_cores(problem: Problem) -> Callable[[], Outcome]:
    blocks = min(len(problem.data), BLOCKS_PER_CORE * CORES)
    jobs = [[model_jobs[i::blocks] for i in range(blocks)] for model_jobs in _jobs(problem)]

    def run() -> Outcome:
        with Parallel(n_jobs=CORES) as parallel:
            fitted = [parallel(delayed(_fit_block)(block) for block in model_blocks) for model_blocks in jobs]
        return Outcome([_fits(_interleaved(blocks), problem.scenario) for blocks in fitted])

    return run


def _jobs(problem: Problem) -> list[list[tuple]]:
    """Arguments of `fit_one` for every model and data set."""
    if MISSING:
        raise MISSING
    data = [np.asarray(x, np.float64) for x in problem.data]
    jobs = []
    for model in problem.scenario.models:
        given = None if problem.scenario.start != "given" else starts(problem, model.n_components)
        own = [None if given is None else Start(*(leaf[b, 0] for leaf in given)) for b in range(len(data))]
        jobs.append([(x, model, _settings(problem.scenario, x), start) for x, start in zip(data, own, strict=True)])
    return jobs


def _settings(scenario: Scenario, x: np.ndarray) -> dict:
    """Options by scikit-learn's names. Its ridge is one absolute number, so it takes the mean over the features."""
    settings = {"tol": scenario.tol, "max_iter": scenario.max_iter, "reg_covar": REG_COVAR * x.var(axis=0).mean()}
    if scenario.start != "given":
        settings |= {"n_init": scenario.n_init, "init_params": scenario.start, "random_state": scenario.seed}
    return settings


def fit_one(x: np.ndarray, model: Model, settings: dict, start: Start | None) -> tuple:
    """Parameters, iterations, and how the fit ended; scikit-learn raises where a component collapses."""
    given = {}
    if start is not None:
        precisions = np.linalg.inv(start.covariances)
        given = {
            "weights_init": start.weights,
            "means_init": start.means,
            "precisions_init": precisions[0] if model.covariance_type == "tied" else precisions,
            # Given parameters replace what it starts from, but it makes a start all the same: the cheapest one.
            "init_params": "random_from_data",
        }
    mixture = GaussianMixture(model.n_components, covariance_type=model.covariance_type, **settings, **given)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            mixture.fit(x)
        except ValueError:
            k, d = model.n_components, x.shape[1]
            return np.full(k, np.nan), np.full((k, d), np.nan), np.full((k, d, d), np.nan), 0, "RAISED"
    covariances = np.broadcast_to(mixture.covariances_, (model.n_components, x.shape[1], x.shape[1]))
    status = "CONVERGED" if mixture.converged_ else "MAX_ITER"
    return mixture.weights_, mixture.means_, covariances, mixture.n_iter_, status


def _fit_block(jobs: list[tuple]) -> list[tuple]:
    with threadpool_limits(1):
        return [fit_one(*job) for job in jobs]


def _interleaved(blocks: list[list[tuple]]) -> list[tuple]:
    """Undoes `jobs[i::blocks]`."""
    fitted = [None] * sum(map(len, blocks))
    for i, block in enumerate(blocks):
        fitted[i :: len(blocks)] = block
    return fitted


def _fits(fitted: list[tuple], scenario: Scenario) -> Fits:
    weights, means, covariances, n_iter, statuses = zip(*fitted, strict=True)
    iterations = np.array(n_iter)
    if scenario.n_init > 1:
        # It tells the iterations of the best start only.
        iterations = iterations * scenario.n_init if scenario.tol == 0 else None
    return Fits(np.array(weights), np.array(means), np.array(covariances), Counter(statuses), iterations)
