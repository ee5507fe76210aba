"""Which optima ten starts find: jaxgmm's and scikit-learn's on all data sets of `converge-2d`, and what finalists lose.

    python -m benchmarks.optima

Of few data sets one may decide the mean difference, and whether a start finds its optimum is chance. So this asks for
all 1,000, and for several seeds of both.
"""

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np

import jaxgmm
from benchmarks.environment import RESULTS, environment, write
from benchmarks.measure import NOTICEABLE
from benchmarks.outcome import mean_log_likelihoods
from benchmarks.run import chosen
from benchmarks.scenarios import SCENARIOS, Problem, problem
from jaxgmm.driver import chunk
from jaxgmm.driver.runs import Runs

SCENARIO = SCENARIOS["converge-2d"]
MANY_STARTS, N_FINALISTS, REPEATS = 50, 5, 5


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.optima")
    parser.add_argument("--seeds", type=int, default=10, help="seeds of jaxgmm's starts")
    parser.add_argument("--compared", type=int, default=2, help="seeds of scikit-learn's, one at least")
    parser.add_argument("--out", type=Path, default=RESULTS / "optima.json")
    options = parser.parse_args()
    results = {"environment": environment(), **measured(problem(SCENARIO), options.seeds, options.compared)}
    write(options.out, results)
    print(json.dumps(results, indent=1))


def measured(given: Problem, n_seeds: int, n_compared: int) -> dict:
    """Answers of so many seeds of jaxgmm's and of scikit-learn's starts, and the finalists among more of them."""
    first, *others = [_scores("scikit-learn, joblib", given, seed) for seed in range(n_compared)]
    own = [_scores("jaxgmm mixed", given, seed) for seed in range(n_seeds)]
    return {
        "scenario": given.scenario.name,
        "n_data_sets": len(given.data),
        "scikit-learn, other seeds": [_compared(scores, first) for scores in others],
        "jaxgmm": [_compared(scores, first) for scores in own],
        "finalists": _finalists(given),
    }


def _scores(name: str, given: Problem, seed: int) -> np.ndarray:
    """Mean log-likelihood per sample of what a system returns for each data set `(B,)`."""
    (system,) = chosen([name])
    mine = given._replace(scenario=given.scenario._replace(seed=seed))
    (fits,) = system.prepare(mine)().fits
    return mean_log_likelihoods(mine, fits, len(given.data))


def _compared(scores: np.ndarray, others: np.ndarray) -> dict:
    """In nats per sample."""
    difference = scores - others
    known = difference[np.isfinite(difference)]
    return {
        "mean_difference": float(np.mean(known)),
        "share_better": float(np.mean(known > NOTICEABLE)),
        "share_worse": float(np.mean(known < -NOTICEABLE)),
        "failures": int(np.sum(~np.isfinite(scores))),
    }


def _finalists(given: Problem) -> dict:
    """Many starts of which a few are finalists, and a third of the starts, beside all of the many."""
    everything, iterations, seconds = _fitted(given, MANY_STARTS)
    rows = {}
    for name, n_init, n_finalists in (("finalists", MANY_STARTS, N_FINALISTS), ("fewer", MANY_STARTS // 3, None)):
        found, own_iterations, own_seconds = _fitted(given, n_init, n_finalists)
        rows[name] = {
            "n_init": n_init,
            "n_finalists": n_finalists,
            "share_same": float(np.mean(found > everything - NOTICEABLE)),
            "share_of_iterations": own_iterations / iterations,
            "share_of_seconds": own_seconds / seconds,
        }
    return {"n_init": MANY_STARTS, "seconds": seconds, **rows}


def _fitted(given: Problem, n_init: int, n_finalists: int | None = None) -> tuple[np.ndarray, int, float]:
    """Mean log-likelihoods per sample `(B,)`, iterations of all runs, and the median of some warm calls' seconds."""
    scenario, times = given.scenario, []
    for _ in range(1 + REPEATS):
        with _counted() as iterations:
            began = time.perf_counter()
            result = jaxgmm.fit(
                given.data,
                scenario.models[0].n_components,
                n_init=n_init,
                n_finalists=n_finalists,
                max_iter=scenario.max_iter,
            )
            times.append(time.perf_counter() - began)
    return result.log_likelihood / given.lengths, sum(iterations), median(times[1:])


@contextmanager
def _counted() -> Iterator[list[int]]:
    """Run-iterations of each chunk that is fitted meanwhile. A result tells those of the chosen starts only."""
    all_runs, iterations = chunk.all_runs, []

    def counted(*arguments: Any) -> Runs:
        runs = all_runs(*arguments)
        iterations.append(runs.useful)
        return runs

    with mock.patch.object(chunk, "all_runs", counted):
        yield iterations


if __name__ == "__main__":
    main()
