"""Sweeps over K and families: jaxgmm at once, scikit-learn with joblib on all cores on the first data sets.

    python -m benchmarks.sweeps

1,000 data sets of 200 × 2, K = 1…5, four families, 5 starts: 100,000 runs to convergence, scikit-learn's at tol 1e-5.
"""

import argparse
import json
import time
import warnings
from pathlib import Path
from statistics import median

import jax
import numpy as np
from joblib import Parallel, delayed
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

import jaxgmm
from benchmarks.environment import CORES, RESULTS, environment, write
from benchmarks.scenarios import REG_COVAR, Scenario, clusters, problem
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.em.spurious import FEW, NARROWEST

KS, N_INIT, TOL, MAX_ITER, REPEATS = range(1, 6), 5, 1e-5, 1000, 5
# Nats per sample that count as a difference: at this tolerance runs stop so far from their optimum.
NOTICEABLE = 1e-3
MOST_PROGRAMS = 12


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweeps")
    parser.add_argument("--data-sets", type=int, default=1000)
    parser.add_argument("--compared", type=int, default=24, help="data sets that scikit-learn is given")
    parser.add_argument("--out", type=Path, default=RESULTS / "sweep.json")
    options = parser.parse_args()
    scenario = Scenario("sweep", "K and family", options.data_sets, 200, 2, (), clusters(3, distance=1.5), {})
    x = problem(scenario).data
    own, table = measured(x)
    other = compared(x[: options.compared], table)
    other["seconds_for_all"] = other["seconds"] * len(x) / options.compared
    results = {"environment": environment(), "n_data_sets": len(x), "jaxgmm": own, "scikit-learn, joblib": other}
    results["times"] = other["seconds_for_all"] / own["seconds"]["median"]
    write(options.out, results)
    print(json.dumps(results, indent=1))


def measured(x: np.ndarray) -> tuple[dict, dict]:
    """Time of the whole sweep, warm, the programs it compiles when cold, and its table."""
    n_programs = 0

    def count(event: str, _: float, **__: object) -> None:
        nonlocal n_programs
        n_programs += event == "/jax/core/compile/backend_compile_duration"

    jax.monitoring.register_event_duration_secs_listener(count)
    times = []
    for _ in range(1 + REPEATS):
        began = time.perf_counter()
        sweep = jaxgmm.sweep(x, KS, covariance_type=tuple(FAMILIES), n_init=N_INIT, max_iter=MAX_ITER)
        times.append(time.perf_counter() - began)
    first, *warm = times
    seconds = {"median": median(warm), "min": min(warm), "max": max(warm)}
    chosen = sweep.chosen
    return {
        "first_seconds": first,
        "seconds": seconds,
        "n_programs": n_programs,
        "most_programs": MOST_PROGRAMS,
        "efficiency": sweep.best.efficiency,
        "chosen_n_components": np.bincount(chosen["n_components"]).tolist(),
        "spurious_starts_passed_over": int(np.sum(sweep.table["start_passed_over"])),
    }, sweep.table


def compared(x: np.ndarray, table: dict) -> dict:
    """Time of scikit-learn on some data sets, and how its log-likelihoods compare with those of the table."""
    jobs = [(own.astype(np.float64), k, family) for own in x for k in KS for family in FAMILIES]
    with Parallel(n_jobs=CORES) as parallel:
        parallel(delayed(_fit)(*job) for job in jobs[:CORES])
        began = time.perf_counter()
        fits = parallel(delayed(_fit)(*job) for job in jobs)
        seconds = time.perf_counter() - began
    theirs, spiky = np.array([fit[0] for fit in fits]), np.array([fit[1] for fit in fits])
    difference = table["log_likelihood"][: len(jobs)] / x.shape[1] - theirs
    known = np.isfinite(difference)
    return {
        "n_measured": len(x),
        "seconds": seconds,
        "raised": int(np.sum(~np.isfinite(theirs))),
        "mean_difference": float(np.mean(difference[known])),
        "share_jaxgmm_better": float(np.mean(difference[known] > NOTICEABLE)),
        "share_jaxgmm_worse": float(np.mean(difference[known] < -NOTICEABLE)),
        "of_these_scikit_learn_has_spikes": float(np.mean(spiky[known & (difference < -NOTICEABLE)] > 0))
        if np.any(known & (difference < -NOTICEABLE))
        else None,
        "mean_difference_without_spikes": float(np.mean(difference[known & (spiky == 0)])),
        "worst_without_spikes": float(np.min(difference[known & (spiky == 0)])),
    }


def _fit(x: np.ndarray, k: int, family: str) -> tuple[float, int]:
    """Mean log-likelihood per sample in nats, and how many components are spikes."""
    ridge = REG_COVAR * x.var(axis=0).mean()
    model = GaussianMixture(
        k, covariance_type=family, n_init=N_INIT, tol=TOL, max_iter=MAX_ITER, reg_covar=ridge, random_state=0
    )
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        try:
            model.fit(x)
        except ValueError:
            return np.nan, 0
    n_features, covariances = x.shape[1], model.covariances_
    if family == "tied":
        covariances = np.broadcast_to(covariances, (k, n_features, n_features))
    elif family != "full":
        covariances = np.reshape(covariances, (k, -1))[..., None] * np.eye(n_features)
    whitening = np.linalg.inv(np.linalg.cholesky(np.cov(x.T)))
    narrowest = np.linalg.eigvalsh(whitening @ covariances @ whitening.T)[:, 0]
    size = model.weights_ * len(x) / (n_features + 1)
    spikes = ((narrowest < NARROWEST**2) & (size < FEW)) | (size < 1)
    return model.score(x), int(np.sum(spikes))


if __name__ == "__main__":
    main()
