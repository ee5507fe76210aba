"""jaxgmm and the NumPy reference. The machine's limits, scikit-learn and the peers have files of their own."""

from collections import Counter
from collections.abc import Callable

import jax
import numpy as np

import jaxgmm
from benchmarks import reference
from benchmarks.outcome import Fits, Outcome, System
from benchmarks.scenarios import REG_COVAR, Problem, Scenario, padded, starts


def systems() -> list[System]:
    """All of them, on the device that JAX uses by default."""
    device = jax.local_devices()[0]
    where = "cpu" if device.platform == "cpu" else device.device_kind
    own = [
        System(f"jaxgmm {precision}", where, precision, _always, _jaxgmm(precision), tol=tolerance)
        for precision in ("float32", "mixed", "float64")
    ]
    on_card = [
        System(
            *(f"jaxgmm on the card, {precision}", where, precision, _is_stack, _jaxgmm(precision, on_device=True)),
            tol=tolerance,
        )
        for precision in ("float32", "mixed")
        if device.platform != "cpu"
    ]
    numpy = [
        System(f"NumPy {dtype}", "cpu", dtype, _always, _numpy(dtype), sample=32) for dtype in ("float32", "float64")
    ]
    swept = System("sweep of jaxgmm, mixed", where, "mixed", _is_choice_of_k, _swept, tol=tolerance)
    return [*own, *on_card, swept, *numpy]


def tolerance(scenario: Scenario) -> float:
    """That of jaxgmm: a fixed number of iterations, or its own, which leaves less to gain than the scenario's."""
    return 0.0 if scenario.tol == 0 else jaxgmm.settings.TOL


def _always(_: Scenario) -> bool:
    return True


def _is_stack(scenario: Scenario) -> bool:
    return isinstance(scenario.n_samples, int)


def _is_choice_of_k(scenario: Scenario) -> bool:
    return len(scenario.models) > 1 and len({model.covariance_type for model in scenario.models}) == 1


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


def _swept(problem: Problem) -> Callable[[], Outcome]:
    """All models in one call, and the choice among them by ICL; of its fits, only the chosen ones are kept."""
    scenario = problem.scenario
    unknown = (np.empty((0, 0)), np.empty((0, 0, 0)), np.empty((0, 0, 0, 0)))

    def run() -> Outcome:
        sweep = jaxgmm.sweep(
            problem.data,
            [model.n_components for model in scenario.models],
            covariance_type=scenario.models[0].covariance_type,
            criterion="icl",
            n_init=scenario.n_init,
            max_iter=scenario.max_iter,
            reg_covar=REG_COVAR,
            key=scenario.seed,
        )
        statuses = sweep.table["status"].reshape(-1, len(scenario.models))
        return Outcome([Fits(*unknown, Counter(own.tolist()), None, sweep.best.efficiency) for own in statuses.T])

    return run


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
