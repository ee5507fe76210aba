"""How fast are the kernels of small mixtures alone, and with how many lanes and steps of a round?

    PYTHONPATH=. python -m benchmarks.kernels      needs a GPU that has kernels, jax with CUDA, and jaxtyping

Data and starts are made on the card, so that nothing but passes is timed: rounds, gathers, statuses and weights
included, and neither preparation nor copies. Every shape is run by the layouts that may suit it, for a fixed number of
iterations, and to convergence with rounds of several lengths. What `jaxgmm.driver.ways` and `jaxgmm.em.fused` choose is
marked; if another row is faster, `SAMPLES_OF_A_LANE` or the `round` of a method should change.
"""

import argparse
import functools
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.environment import RESULTS, environment, error_of, write
from jaxgmm.driver import ways
from jaxgmm.driver.runs import SOUND
from jaxgmm.em import fused as em
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.em.fused import rows
from jaxgmm.em.state import RUNNING, RunState, Settings
from jaxgmm.engine import fused
from jaxgmm.engine.devices import power_of_two_above
from jaxgmm.mixture import Mixture
from jaxgmm.status import Status

FAMILY = "full"

# Iterations where their number is fixed, and where runs converge the most of them and what may be left to gain.
FIXED, MOST = 50, 1000
TOL = {"float32": 1e-6, "float64": 1e-9}

# Steps between two collections of unfinished runs.
ROUNDS = (8, 12, 16, 24)

# Standard deviation of the centres of clusters whose own is 1.
SPREAD = 2.0

MINUTES, REPEATS = 3.0, 5


class Case(NamedTuple):
    """Runs of one shape, each with a data set of its own.

    Attributes:
        name: the scenario of `benchmarks.scenarios` that has this shape.
        n_runs: in float32; a fifth of them in float64.
        n_samples: N.
        n_features: D.
        n_components: K.
        widths: lanes of a run that are tried where several share a warp.
        is_wide: whether a run may also have a block.
    """

    name: str
    n_runs: int
    n_samples: int
    n_features: int
    n_components: int
    widths: tuple[int, ...]
    is_wide: bool

    @property
    def layouts(self) -> Iterator[fused.Lanes]:
        """Those that are tried, each for one launch of a block."""
        for width in self.widths:
            yield fused.Lanes(1, width)
        if self.is_wide:
            yield fused.Lanes(1, power_of_two_above(max(2, self.n_components)), is_wide=True)


CASES = (
    Case("steps-2d-many", 100_000, 300, 2, 3, (4, 8, 16, 32), is_wide=False),
    Case("scaling-1000000", 1_000_000, 100, 1, 2, (2, 4, 8), is_wide=False),
    Case("tiles", 40_000, 256, 3, 4, (8, 16, 32), is_wide=True),
    Case("steps-8d-many", 8_192, 2_000, 8, 8, (), is_wide=True),
)

# The most important first.
ASKED = (("quasi-newton", "float32"), ("em", "float32"), ("quasi-newton", "float64"), ("em", "float64"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels")
    parser.add_argument("--out", type=Path, default=RESULTS / "kernels.json")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="begin no row after so long")
    options = parser.parse_args()
    device, until = jax.local_devices()[0], time.monotonic() + 60 * options.minutes
    why_not = fused.why_not(device)
    if why_not:
        print(f"There are no kernels here: {why_not}. Nothing was measured.")
        return
    results: dict = {"environment": environment() | {"device": device.device_kind}, "rows": []}
    for method, dtype in ASKED:
        for case in CASES:
            for row in measured(case, method, dtype, until):
                results["rows"].append(row)
                write(options.out, results)
    print("\n".join(table(results)))


def measured(case: Case, method: str, dtype: str, until: float, repeats: int = REPEATS) -> Iterator[dict]:
    """A row for each layout of a case, none where `fit` has no kernel for it.

    Where a layout fails, or no time was left, the row has an error in place of figures.
    """
    n_runs = case.n_runs if dtype == "float32" else -(-case.n_runs // 5)
    choice, x = _choice(case, n_runs, dtype), None
    for layout in case.layouts if choice else ():
        lanes = layout._replace(group=max(layout.runs, choice.group))
        row = {"scenario": case.name, "n_runs": n_runs, "method": method, "dtype": dtype}
        row |= {"width": lanes.width, "is_wide": lanes.is_wide}
        row |= {"is_choice": lanes == choice}
        try:
            if time.monotonic() > until:
                raise TimeoutError("no time was left")
            with jax.enable_x64(True):
                x = _samples(case, n_runs, dtype) if x is None else x
                row |= _timed(case, lanes, x, method, repeats)
        except Exception as error:
            row["error"] = error_of(error)
        yield row


def _choice(case: Case, n_runs: int, dtype: str) -> fused.Lanes | None:
    """The layout that `fit` would have."""
    shape = ways.Shape(
        case.n_samples, case.n_features, case.n_components, 1, 1, n_runs, diagonal=FAMILIES[FAMILY].diagonal
    )
    return ways.lanes_of(shape, n_runs, (FAMILY,), dtype)


def _samples(case: Case, n_runs: int, dtype: str) -> jax.Array:
    """Standardised samples and their weights, `(Q, D + 1, N)`."""

    def of_all(key: jax.Array) -> jax.Array:
        of_centres, of_labels, of_samples = jax.random.split(key, 3)
        shape = (n_runs, case.n_features, case.n_samples)
        centres = SPREAD * jax.random.normal(of_centres, (*shape[:2], case.n_components), dtype)
        labels = jax.random.randint(of_labels, (n_runs, 1, case.n_samples), 0, case.n_components, jnp.int32)
        x = jnp.take_along_axis(centres, labels, axis=2) + jax.random.normal(of_samples, shape, dtype)
        x = (x - jnp.mean(x, axis=2, keepdims=True)) / jnp.std(x, axis=2, keepdims=True)
        return jnp.concatenate([x, jnp.ones_like(x[:, :1])], axis=1)

    return jax.block_until_ready(jax.jit(of_all)(jax.random.key(0)))


def _problem(case: Case, lanes: fused.Lanes, x: jax.Array, method: str, tol: float, max_iter: int) -> fused.Problem:
    """Runs that start with the first K samples as means; lanes without a component have an absent one."""
    n_runs, dtype = len(x), x.dtype.name
    shape, (k, d) = _shape(case, lanes), (case.n_components, case.n_features)
    present = np.arange(shape.n_components) < k
    means = jnp.swapaxes(x[:, :d, :k], 1, 2)
    means = jnp.pad(means, ((0, 0), (0, shape.n_components - k), (0, 0)))
    unit = np.broadcast_to(np.eye(d, dtype=dtype), (n_runs, shape.n_components, d, d))
    start = Mixture(np.broadcast_to((present / k).astype(dtype), (n_runs, shape.n_components)), means, unit)
    unknown = np.full(n_runs, np.inf, dtype)
    begun = RunState(start, None, -unknown, np.zeros(n_runs), np.full(n_runs, RUNNING), None, None, gap=unknown)
    floor = SOUND * float(jnp.finfo(dtype).eps)
    ridge = np.broadcast_to(1e-6 * np.eye(d, dtype=dtype), (n_runs, d, d))
    settings = Settings(ridge, tol, max_iter, floor, np.broadcast_to(present, (n_runs, len(present))))
    settings = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), settings)
    total = jnp.full(n_runs, case.n_samples, dtype)
    fixed = rows.fixed_rows(settings, jnp.zeros(n_runs, jnp.int32), total, shape)
    moving = rows.moving_rows(jax.tree.map(jnp.asarray, begun), shape)
    places = jnp.arange(n_runs, dtype=jnp.int32)
    n_used = jnp.full(n_runs, case.n_samples, jnp.int32)
    return fused.Problem(fixed, moving, em.stored_rows(method, moving, shape), x, places, n_used)


def _shape(case: Case, lanes: fused.Lanes) -> rows.Shape:
    n_components = lanes.width if lanes.is_wide else case.n_components
    return rows.Shape(n_components, case.n_features, (FAMILY,), lanes.is_wide)


def _timed(case: Case, lanes: fused.Lanes, x: jax.Array, method: str, repeats: int) -> dict[str, Any]:
    """Useful run-iterations per second, and how runs end."""
    dtype = x.dtype.name
    life = em.life_of(_shape(case, lanes), dtype, method, centred=False)

    def is_running(moving: jax.Array) -> jax.Array:
        return rows.row_of(moving, rows.STATUS) == RUNNING

    run = jax.jit(functools.partial(fused.run_in_rounds, life=life, is_running=is_running, lanes=lanes))
    waiting = jnp.ones(len(x), bool)

    def told(tol: float, max_iter: int, n_steps: int) -> tuple[dict[str, float], jax.Array]:
        problem = _problem(case, lanes, x, method, tol, max_iter)
        call = functools.partial(run, problem, waiting, n_steps=jnp.int32(n_steps))
        began = time.perf_counter()
        moving, executed = jax.block_until_ready(call())
        first, seconds = time.perf_counter() - began, []
        for _ in range(repeats):
            began = time.perf_counter()
            jax.block_until_ready(call())
            seconds.append(time.perf_counter() - began)
        # Every run also makes an E-step after its last M-step.
        useful = int(jnp.sum(rows.row_of(moving, rows.N_ITER).astype(int) + 1))
        rates = {"run_iterations_per_second": useful / median(seconds), "useful": useful / int(executed)}
        return rates | {"spread": max(seconds) / min(seconds) - 1, "first_seconds": first}, moving

    fixed = told(0.0, FIXED, MOST)[0]
    # The first call compiles; later ones are the same program.
    row: dict[str, Any] = {"fixed": fixed["run_iterations_per_second"], "compile_seconds": fixed["first_seconds"]}
    row["rounds"] = {}
    for n_steps in ROUNDS:
        row["rounds"][n_steps], moving = told(TOL[dtype], MOST, n_steps)
    status, reached = np.asarray(rows.row_of(moving, rows.STATUS)), np.asarray(rows.row_of(moving, rows.LOG_LIKELIHOOD))
    has_converged = status == Status.CONVERGED
    return row | {
        "round_of_choice": em.METHODS[method].round,
        "mean_iterations": float(jnp.mean(rows.row_of(moving, rows.N_ITER))),
        "converged": float(np.mean(has_converged)),
        "degenerate": float(np.mean(status == Status.DEGENERATE)),
        "log_likelihood": float(np.sum(reached, where=has_converged, dtype=np.float64))
        / max(1, np.sum(has_converged))
        / case.n_samples,
    }


def table(results: dict) -> list[str]:
    """The rows as Markdown; rates are millions of useful run-iterations per second, and stars mark what is chosen."""
    lines = [
        f"| | lanes | {FIXED} steps | {' | '.join(f'rounds of {n}' for n in ROUNDS)} | iterations | converged |",
        "|---|---|---|" + "---|" * (len(ROUNDS) + 2),
    ]
    for row in results["rows"]:
        name = f"{row['scenario']}, {row['method']}, {row['dtype']}"
        width = "wide" if row["is_wide"] else f"{row['width']}"
        lanes = f"**{width}**" if row["is_choice"] else width
        if "error" in row:
            lines.append(f"| {name} | {lanes} | {row['error']} |" + " |" * (len(ROUNDS) + 2))
            continue
        rates = [
            f"{own['run_iterations_per_second'] / 1e6:,.3g}{'*' if int(n) == row['round_of_choice'] else ''}"
            for n, own in row["rounds"].items()
        ]
        ends = f"{row['mean_iterations']:.1f} | {row['converged']:.1%}"
        lines.append(f"| {name} | {lanes} | {row['fixed'] / 1e6:,.3g} | {' | '.join(rates)} | {ends} |")
    return lines


if __name__ == "__main__":
    main()
