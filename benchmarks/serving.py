"""What a fitted mixture costs to ask: one row of a served model, many rows, many mixtures, and ever new lengths.

python -m benchmarks.serving
"""

import json
import time
from collections.abc import Callable
from statistics import median, quantiles

import jax
import numpy as np

import jaxgmm
from benchmarks.environment import RESULTS, environment, write

QUESTIONS = (jaxgmm.log_prob, jaxgmm.responsibilities, jaxgmm.predict)
# Components, features, mixtures (0: one, without batch axis), samples of each, and how often they are asked about.
SHAPES = {
    "one row, 2-D": (3, 2, 0, 1, 2000),
    "one row, 8-D": (8, 8, 0, 1, 2000),
    "one row, 16-D": (32, 16, 0, 1, 1000),
    "many rows": (3, 2, 0, 100_000, 20),
    "many mixtures": (3, 2, 1000, 300, 20),
    "few rows each": (3, 2, 100_000, 10, 3),
}
N_LENGTHS = 60


def main() -> None:
    results = {"environment": environment(), "questions": [row for name in SHAPES for row in asked(name)]}
    results["new_lengths"] = new_lengths()
    write(RESULTS / "serving.json", results)
    print(json.dumps(results, indent=1))


def drawn(n_components: int, n_features: int, n_mixtures: int, n_samples: int) -> tuple[jaxgmm.Mixture, np.ndarray]:
    """Mixtures without batch axis for 0, and samples of about their extent."""
    rng, batch = np.random.default_rng(0), (n_mixtures,) if n_mixtures else ()
    factors = rng.standard_normal((*batch, n_components, n_features, n_features))
    mixture = jaxgmm.Mixture(
        rng.dirichlet(np.ones(n_components), size=batch or None),
        rng.standard_normal((*batch, n_components, n_features)),
        factors @ factors.swapaxes(-1, -2) + 0.1 * np.eye(n_features),
    )
    return mixture, rng.standard_normal((*batch, n_samples, n_features))


def asked(name: str) -> list[dict]:
    """Seconds of each question, without compilation, and how far its answer is from SciPy's."""
    *shape, repeats = SHAPES[name]
    mixture, x = drawn(*shape)
    rows = []
    for question in QUESTIONS:
        seconds = timed(lambda question=question: question(mixture, x), repeats)
        low, _, high = quantiles(seconds, n=4)
        rows.append({"shape": name, "question": question.__name__, "seconds": median(seconds), "spread": [low, high]})
    return [{**row, "max_difference": difference(mixture, x)} for row in rows]


def timed(call: Callable[[], object], repeats: int) -> list[float]:
    call()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return seconds


def difference(mixture: jaxgmm.Mixture, x: np.ndarray) -> float:
    """The largest difference from SciPy in the log-density of a few samples of the first mixture, in nats."""
    from scipy.special import logsumexp  # noqa: PLC0415 (not while the clock runs)
    from scipy.stats import multivariate_normal  # noqa: PLC0415

    first = mixture if mixture.weights.ndim == 1 else mixture.of(0)
    found = jaxgmm.log_prob(mixture, x)
    rows, found = (x, found) if x.ndim == 2 else (x[0], found[0])
    rows, found = rows[:100], found[:100]
    joint = [np.log(w) + multivariate_normal(mean, c).logpdf(rows) for w, mean, c in zip(*first.arrays, strict=True)]
    return float(np.max(np.abs(found - logsumexp(np.reshape(joint, (len(joint), -1)), axis=0))))


def new_lengths() -> dict:
    """Seconds and programs for samples of ever new lengths, nothing being compiled before."""
    jax.clear_caches()
    n_programs = 0

    def count(event: str, _seconds: float, **_: object) -> None:
        nonlocal n_programs
        n_programs += event == "/jax/core/compile/backend_compile_duration"

    jax.monitoring.register_event_duration_secs_listener(count)
    # Of another number of features than anything before.
    mixture, x = drawn(4, 3, 0, 5000)
    lengths = np.exp(np.random.default_rng(0).uniform(np.log(30), np.log(5000), N_LENGTHS)).astype(int)
    began = time.perf_counter()
    for n in lengths:
        jaxgmm.log_prob(mixture, x[:n])
    return {"n_lengths": N_LENGTHS, "seconds": time.perf_counter() - began, "n_programs": n_programs}


if __name__ == "__main__":
    main()
