"""Other packages that fit mixtures; optional, and in an environment of their own (`make bench-peers`)."""

import importlib.util
from collections import Counter
from collections.abc import Callable
from types import ModuleType

import numpy as np

from benchmarks.outcome import Fits, Outcome, System
from benchmarks.scenarios import REG_COVAR, Problem, Scenario, starts


def systems() -> list[System]:
    on_card = System("gmm-gpu on the card", "cuda", "float32", _handles, _gmm_gpu("cuda"), sample=1024)
    return [
        System("gmmx, loop", "cpu", "float32", _handles, _gmmx_loop, sample=32),
        System("gmmx, vmap", "cpu", "float32", _handles, _gmmx_vmap, sample=256),
        System("gmm-gpu", "cpu", "float32", _handles, _gmm_gpu("cpu"), sample=256),
        *([on_card] if _torch_sees_a_card() else []),
        System("pomegranate", "cpu", "float32", _handles, _pomegranate, sample=2),
    ]


def _torch_sees_a_card() -> bool:
    return importlib.util.find_spec("torch") is not None and _module("torch").cuda.is_available()


def _handles(scenario: Scenario) -> bool:
    """Only work that all can do alike: a fixed number of iterations from a given start."""
    return scenario.start == "given" and scenario.models[0].covariance_type == "full"


def _gmmx_fit(problem: Problem) -> tuple[Callable, tuple]:
    gmmx = _module("gmmx")
    ridge = REG_COVAR * float(np.mean(problem.data.var(axis=1)))
    fitter = gmmx.EMFitter(max_iter=problem.scenario.max_iter, tol=0.0, reg_covar=ridge)

    def fit(x: object, weights: object, means: object, covariances: object) -> tuple:
        begin = gmmx.GaussianMixtureModelJax.from_squeezed(means=means, covariances=covariances, weights=weights)
        found = fitter.fit(x, begin).gmm
        return found.weights.squeeze((0, 2, 3)), found.means.squeeze((0, 3)), found.covariances.values_dense.squeeze(0)

    return fit, _start(problem)


def _gmmx_loop(problem: Problem) -> Callable[[], Outcome]:
    jax = _module("jax")
    fit, start = _gmmx_fit(problem)
    fit = jax.jit(fit)

    def run() -> Outcome:
        found = [jax.device_get(fit(*own)) for own in zip(problem.data, *start, strict=True)]
        return _outcome(problem, *map(np.array, zip(*found, strict=True)))

    return run


def _gmmx_vmap(problem: Problem) -> Callable[[], Outcome]:
    jax = _module("jax")
    fit, start = _gmmx_fit(problem)
    fit = jax.jit(jax.vmap(fit))
    return lambda: _outcome(problem, *jax.device_get(fit(problem.data, *start)))


def _gmm_gpu(device: str) -> Callable[[Problem], Callable[[], Outcome]]:
    def prepare(problem: Problem) -> Callable[[], Outcome]:
        torch, gmm = _module("torch"), _module("gmm_gpu.gmm")
        weights, means, covariances = (torch.from_numpy(leaf).to(device) for leaf in _start(problem))
        options = {
            "max_iter": problem.scenario.max_iter,
            "tol": 0.0,
            "device": device,
            "reg_covar": REG_COVAR * float(np.mean(problem.data.var(axis=1))),
            "weights_init": weights,
            "means_init": means,
            "precisions_init": torch.linalg.inv(covariances),
        }

        def run() -> Outcome:
            model = gmm.GMM(problem.scenario.models[0].n_components, **options)
            # As for the others, the copies to a card and back count.
            model.fit(torch.from_numpy(problem.data).to(device))
            weights, means, covariances = (
                np.stack([leaf.cpu().numpy() for leaf in leaves], axis=1)
                for leaves in (model._pi, model.means, model.covs)
            )
            return _outcome(problem, weights, means, covariances)

        return run

    return prepare


def _pomegranate(problem: Problem) -> Callable[[], Outcome]:
    torch = _module("torch")
    normal, mixture = _module("pomegranate.distributions").Normal, _module("pomegranate.gmm").GeneralMixtureModel
    start, max_iter = _start(problem), problem.scenario.max_iter

    def fit(x: np.ndarray, weights: np.ndarray, means: np.ndarray, covariances: np.ndarray) -> tuple:
        parts = [normal(torch.tensor(m), torch.tensor(c)) for m, c in zip(means, covariances, strict=True)]
        # Without a lower bound on the gain it stops only at max_iter.
        model = mixture(parts, priors=torch.tensor(weights), max_iter=max_iter, tol=-np.inf)
        model.fit(torch.tensor(x))
        found = [(part.means.detach().numpy(), part.covs.detach().numpy()) for part in model.distributions]
        return model.priors.detach().numpy(), *map(np.array, zip(*found, strict=True))

    def run() -> Outcome:
        found = [fit(*own) for own in zip(problem.data, *start, strict=True)]
        return _outcome(problem, *map(np.array, zip(*found, strict=True)))

    return run


def _start(problem: Problem) -> tuple[np.ndarray, ...]:
    begin = starts(problem, problem.scenario.models[0].n_components)
    return tuple(np.ascontiguousarray(leaf[:, 0], dtype=np.float32) for leaf in begin)


def _outcome(problem: Problem, weights: np.ndarray, means: np.ndarray, covariances: np.ndarray) -> Outcome:
    finite = np.isfinite(means).all(axis=(1, 2))
    statuses = Counter(np.where(finite, "MAX_ITER", "NONFINITE").tolist())
    iterations = np.full(len(problem.data), problem.scenario.max_iter)
    return Outcome([Fits(weights, means, covariances, statuses, iterations)])


def _module(name: str) -> ModuleType:
    """An optional package; a missing one makes a row with its error."""
    return importlib.import_module(name)
