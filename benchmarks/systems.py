"""jaxgmm, the NumPy reference, and the machine's limit. scikit-learn and the peers have files of their own."""

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

import jaxgmm
from benchmarks import reference
from benchmarks.environment import CORES
from benchmarks.outcome import Fits, Outcome, System
from benchmarks.scenarios import REG_COVAR, Problem, Scenario, padded, starts

LIMIT = Path(__file__).with_name("fused_em_limit.c")
FLAGS = ["-O3", "-march=native", "-ffast-math", "-fopenmp"]
WIDE_VECTORS = "-mprefer-vector-width=512"


def systems() -> list[System]:
    """All of them, on the device that JAX uses by default."""
    device = jax.local_devices()[0]
    where = "cpu" if device.platform == "cpu" else device.device_kind
    own = [
        System(f"jaxgmm {precision}", where, precision, _always, _jaxgmm(precision))
        for precision in ("float32", "mixed", "float64")
    ]
    on_card = [
        System(f"jaxgmm on the card, {precision}", where, precision, _is_stack, _jaxgmm(precision, on_device=True))
        for precision in ("float32", "mixed")
        if device.platform != "cpu"
    ]
    numpy = [
        System(f"NumPy {dtype}", "cpu", dtype, _always, _numpy(dtype), sample=32) for dtype in ("float32", "float64")
    ]
    return [*own, *on_card, *numpy, System("C limit", "cpu", "float32", _has_limit, _limit)]


def tolerance(scenario: Scenario) -> float:
    """That of jaxgmm: a fixed number of iterations, or its own, which leaves less to gain than the scenario's."""
    return 0.0 if scenario.tol == 0 else jaxgmm.settings.TOL


def _always(_: Scenario) -> bool:
    return True


def _is_stack(scenario: Scenario) -> bool:
    return isinstance(scenario.n_samples, int)


def _has_limit(scenario: Scenario) -> bool:
    """The C program makes a fixed number of iterations of the full family."""
    return scenario.tol == 0 and scenario.models[0].covariance_type == "full"


def _jaxgmm(precision: str, *, on_device: bool = False) -> Callable[[Problem], Callable[[], Outcome]]:
    def prepare(problem: Problem) -> Callable[[], Outcome]:
        scenario = problem.scenario
        inits = [_init(problem, model.n_components) for model in scenario.models]
        data = jax.device_put(problem.data) if on_device else problem.data

        def run() -> Outcome:
            results = [
                jaxgmm.fit(
                    data,
                    model.n_components,
                    covariance_type=model.covariance_type,
                    init=init,
                    n_init=scenario.n_init,
                    tol=tolerance(scenario),
                    max_iter=scenario.max_iter,
                    reg_covar=REG_COVAR,
                    precision=precision,
                    key=scenario.seed,
                )
                for model, init in zip(scenario.models, inits, strict=True)
            ]
            return Outcome([_fits(result, scenario) for result in results])

        return run

    return prepare


def _init(problem: Problem, n_components: int) -> str | jaxgmm.Mixture:
    if problem.scenario.start != "given":
        return problem.scenario.start
    return jaxgmm.Mixture(*(leaf[:, 0] for leaf in starts(problem, n_components)))


def _fits(result: jaxgmm.FitResult, scenario: Scenario) -> Fits:
    codes, counts = np.unique(result.status, return_counts=True)
    statuses = Counter({jaxgmm.Status(code).name: int(count) for code, count in zip(codes, counts, strict=True)})
    iterations = result.n_iter
    if scenario.n_init > 1:
        # n_iter is the chosen start's; only a fixed number of iterations tells that of the others.
        iterations = np.full(len(iterations), scenario.n_init * scenario.max_iter) if scenario.tol == 0 else None
    return Fits(*result.mixture.arrays, statuses, iterations, result.efficiency)


def _numpy(dtype: str) -> Callable[[Problem], Callable[[], Outcome]]:
    def prepare(problem: Problem) -> Callable[[], Outcome]:
        scenario = problem.scenario
        x, present = padded(problem.data)
        begin = [starts(problem, model.n_components) for model in scenario.models]
        options = {"tol": scenario.tol, "max_iter": scenario.max_iter, "reg_covar": REG_COVAR, "dtype": dtype}

        def run() -> Outcome:
            models = zip(scenario.models, begin, strict=True)
            return Outcome([_best(reference.em(x, present, start, model, **options)) for model, start in models])

        return run

    return prepare


def _best(fit: reference.ReferenceFit) -> Fits:
    """The start with the highest log-likelihood among those that kept their components, of each data set."""
    sound = (fit.status != "DEGENERATE") & np.isfinite(fit.log_likelihood)
    best = np.argmax(np.where(sound, fit.log_likelihood, -np.inf), axis=1)
    rows = np.arange(len(best))
    return Fits(
        *(leaf[rows, best] for leaf in fit.start), Counter(fit.status[rows, best].tolist()), fit.n_iter.sum(axis=1)
    )


def _limit(problem: Problem) -> Callable[[], Outcome]:
    """Hand-written C on random data of the scenario's shape, compiled for its D and K."""
    scenario = problem.scenario
    n_samples, threads = int(problem.lengths[0]), CORES
    runs = len(problem.data) * scenario.n_init
    if runs < threads:
        # One run has one thread, so a single data set is cut in pieces; joining their sums would cost nothing.
        runs, n_samples = runs * threads, n_samples // threads
    program = Path(tempfile.mkdtemp()) / "limit"
    sizes = [f"-DD={scenario.n_features}", f"-DK={scenario.models[0].n_components}"]
    _compile(program, sizes)
    command = [str(program), str(runs), str(n_samples), str(scenario.max_iter)]
    # It fits whole vectors of 16 samples.
    scale = n_samples / (n_samples // 16 * 16)

    def run() -> Outcome:
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        iterations = np.full(len(problem.data), scenario.max_iter * scenario.n_init)
        unknown = (np.empty((0, 0)), np.empty((0, 0, 0)), np.empty((0, 0, 0, 0)))
        seconds = float(re.search(r": ([0-9.]+) s,", printed)[1])
        return Outcome([Fits(*unknown, Counter(), iterations)], seconds * scale)

    return run


def _compile(program: Path, sizes: list[str]) -> None:
    """Builds the limit; compilers that do not know wide vectors do without."""
    for flags in ([*FLAGS, WIDE_VECTORS], FLAGS):
        command = ["cc", *flags, *sizes, str(LIMIT), "-o", str(program), "-lm"]
        built = subprocess.run(command, check=False, capture_output=True, text=True)
        if built.returncode == 0:
            return
    raise RuntimeError(f"cc failed: {built.stderr.strip()[:300]}")
