"""Times systems in turn, and says beside every time what came of it."""

import ctypes
import gc
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from benchmarks.environment import CORES, error_of, memory
from benchmarks.outcome import Outcome, System, mean_log_likelihoods
from benchmarks.scenarios import Problem

# Data sets whose log-likelihood is computed anew, and the difference in nats per sample that counts as one.
N_SCORED = 200
NOTICEABLE = 1e-4

# A system whose first call, compilation included, took less than this is called once before every timed call.
WARMED = 15.0
SOUND = ("CONVERGED", "MAX_ITER")


class Plan(NamedTuple):
    """How long measuring may take.

    Attributes:
        repeats: times every system is timed.
        seconds: for the timed calls of one system; at least one is made.
        sample_seconds: for one repeat of a system that may be measured on the first data sets only.
    """

    repeats: int = 5
    seconds: float = 15.0
    sample_seconds: float = 1.0


class Contender(NamedTuple):
    """A system at work on a problem, or as much of it as time allows."""

    system: System
    problem: Problem
    job: Callable[[], Outcome]
    outcome: Outcome
    first_seconds: float
    peak_bytes: int | None
    times: list[float]


def measure(problem: Problem, systems: list[System], plan: Plan) -> list[dict]:
    """Rows of results, one for each system that handles the scenario; one that fails is a row with its error."""
    contenders, rows = [], []
    for system in systems:
        if system.handles(problem.scenario):
            try:
                contenders.append(_ready(system, problem, plan))
            except Exception as error:
                rows.append({**_about(problem, system), "error": error_of(error)})
    for _ in range(plan.repeats):
        for contender in tuple(contenders):
            if sum(contender.times) < plan.seconds or not contender.times:
                try:
                    contender.times.append(_timed_warm(contender)[0])
                except Exception as error:
                    contenders = [other for other in contenders if other is not contender]
                    rows.append({**_about(problem, contender.system), "error": error_of(error)})
    scores = _scores(contenders)
    return [*(_row(problem, contender, scores) for contender in contenders), *rows]


def _ready(system: System, problem: Problem, plan: Plan) -> Contender:
    """Lays out the problem, makes the first call, and, if it was quick, one for the memory."""
    measured = _affordable(system, problem, plan)
    job = system.prepare(measured)
    peak, (first_seconds, outcome) = _with_peak(lambda: _timed(job))
    if first_seconds < plan.seconds / 3:
        peak, _ = _with_peak(job)
    # Where nothing is compiled, a call longer than the time for all of them stands for itself.
    times = [first_seconds] if system.sample and first_seconds > plan.seconds > 0 else []
    return Contender(system, measured, job, outcome, first_seconds, peak, times)


def _affordable(system: System, problem: Problem, plan: Plan) -> Problem:
    """As many data sets as one repeat has time for, judged by the first few."""
    n_data_sets = len(problem.data)
    if not system.sample or system.sample >= n_data_sets:
        return problem
    trial = system.prepare(problem.first(system.sample))
    seconds, _ = _timed(trial)
    if seconds < 10 * plan.sample_seconds:
        seconds, _ = _timed(trial)
    fitting = int(system.sample * plan.sample_seconds / seconds)
    return problem.first(min(n_data_sets, max(system.sample, fitting)))


def _timed(job: Callable[[], Outcome]) -> tuple[float, Outcome]:
    began = time.perf_counter()
    outcome = job()
    seconds = time.perf_counter() - began
    return (outcome.seconds or seconds), outcome


def _timed_warm(contender: Contender) -> tuple[float, Outcome]:
    """Times a call; where it is short, after one that brings caches and threads back from the system before."""
    if contender.first_seconds < WARMED:
        contender.job()
    return _timed(contender.job)


def _with_peak(job: Callable) -> tuple[int | None, object]:
    """Bytes that the process held at most beyond what it held before, where Linux tells, and what the job returned."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before, _ = memory("VmRSS"), memory("VmHWM")
    except (OSError, AttributeError, StopIteration):
        return None, job()
    returned = job()
    return memory("VmHWM") - before, returned


def _scores(contenders: list[Contender]) -> dict[str, list[np.ndarray]]:
    """Mean log-likelihoods per sample of each system and model, for the first data sets."""
    return {
        c.system.name: [mean_log_likelihoods(c.problem, fits, N_SCORED) for fits in c.outcome.fits]
        for c in contenders
        if len(c.outcome.fits[0].weights)
    }


def _reference(problem: Problem, system: System, scores: dict) -> str | None:
    """The float64 answer from the same starts, or, where starts are each system's own, jaxgmm's."""
    own = problem.scenario.start != "given" and system.name.startswith("NumPy")
    order = ["NumPy float64"] if problem.scenario.start == "given" or own else ["jaxgmm float64", "NumPy float64"]
    return next((name for name in order if name in scores), None)


def _about(problem: Problem, system: System) -> dict:
    scenario = problem.scenario
    given_to_numpy = system.name.startswith("NumPy") and scenario.start != "given"
    return {
        "scenario": scenario.name,
        "stands_for": scenario.stands_for,
        "system": system.name,
        "device": system.device,
        "dtype": system.dtype,
        "start": "random_from_data" if given_to_numpy else scenario.start,
        "tol": system.tol(scenario),
        "max_iter": scenario.max_iter,
        "n_data_sets": len(problem.data),
        "n_init": scenario.n_init,
        "n_samples": scenario.n_samples,
        "n_features": scenario.n_features,
        "n_components": [model.n_components for model in scenario.models],
        "covariance_type": [model.covariance_type for model in scenario.models],
        "cores": CORES,
    }


def _row(problem: Problem, contender: Contender, scores: dict) -> dict:
    middle, n_measured = median(contender.times), len(contender.problem.data)
    statuses: Counter[str] = sum((fits.statuses for fits in contender.outcome.fits), Counter())
    only_first = contender.times == [contender.first_seconds]
    efficiencies = [fits.efficiency for fits in contender.outcome.fits if fits.efficiency is not None]
    return {
        **_about(problem, contender.system),
        "n_measured": n_measured,
        "extrapolated": n_measured < len(problem.data),
        "repeats": len(contender.times),
        "seconds": {"median": middle, "min": min(contender.times), "max": max(contender.times)},
        "seconds_for_all": middle * len(problem.data) / n_measured,
        "compile_seconds": None if only_first else max(0.0, contender.first_seconds - middle),
        **_speed(contender, middle),
        "statuses": dict(statuses),
        "failures": sum(count for status, count in statuses.items() if status not in SOUND),
        "efficiency": float(np.mean(efficiencies)) if efficiencies else None,
        "peak_bytes": contender.peak_bytes,
        **_quality(problem, contender.system, scores),
    }


def _speed(contender: Contender, seconds: float) -> dict:
    """Run-iterations, and time for each sample, component and iteration, where all iterations are known."""
    fits, models = contender.outcome.fits, contender.problem.scenario.models
    speed = {"run_iterations": None, "run_iterations_per_second": None, "ns_per_sample_component_iteration": None}
    if any(fit.run_iterations is None for fit in fits):
        return speed
    total = sum(int(np.sum(fit.run_iterations)) for fit in fits)
    work = sum(
        float(np.sum(fit.run_iterations * contender.problem.lengths)) * model.n_components
        for fit, model in zip(fits, models, strict=True)
    )
    values = (total, total / seconds, 1e9 * seconds / work if work else None)
    return dict(zip(speed, values, strict=True))


def _quality(problem: Problem, system: System, scores: dict) -> dict:
    """Log-likelihoods against those of the reference: the largest difference, and who found a better optimum."""
    if system.name not in scores:
        return {"mean_log_likelihood": None, "reference": None}
    own = scores[system.name]
    quality = {"mean_log_likelihood": [_mean(score) for score in own], "n_scored": len(own[0])}
    name = _reference(problem, system, scores)
    if name is None:
        return {**quality, "reference": None}
    pairs = [(a[: len(b)], b[: len(a)]) for a, b in zip(own, scores[name], strict=True)]
    difference = np.concatenate([a - b for a, b in pairs])
    known = difference[np.isfinite(difference)]
    return {
        **quality,
        "reference": name,
        "max_difference": float(np.max(np.abs(known))) if len(known) else None,
        "mean_difference": float(np.mean(known)) if len(known) else None,
        "median_difference": float(np.median(np.abs(known))) if len(known) else None,
        "share_worse": float(np.mean(known < -NOTICEABLE)) if len(known) else None,
        "share_better": float(np.mean(known > NOTICEABLE)) if len(known) else None,
    }


def _mean(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.mean(known)) if len(known) else None
