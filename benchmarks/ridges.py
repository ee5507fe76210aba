"""Which ridge should the answer have by default?

    python -m benchmarks.ridges

Ordinary data sets (those of `benchmarks.honesty`) and awkward ones (rounded, repeated, censored, collinear, with heavy
tails, sentinels or narrow clusters) are fitted with ridges from 1e-6 to 0. For each ridge: how many fits and starts
have failed, have spurious components or components dominated by the ridge, and how long it took.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import jaxgmm
from benchmarks.environment import RESULTS, environment, write
from benchmarks.honesty import QUICK, drawn
from jaxgmm import FitResult, Status

RIDGES = (1e-6, 1e-8, 1e-10, 1e-12, 1e-14, 0.0)

N_ORDINARY, N_OF_A_KIND, N_SAMPLES, K = 48, 64, 200, 3


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ridges")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls, of which the median counts")
    parser.add_argument("--out", type=Path, default=RESULTS / "ridges.json")
    options = parser.parse_args()
    results = {"environment": environment(), "rows": measured(options.repeats)}
    write(options.out, results)
    print("\n".join(table(results)))


def measured(n_repeats: int) -> list[dict]:
    """A row for each ridge and group of data sets."""
    ordinary = [(drawn(stack, N_ORDINARY)[0], stack.n_components, stack.family) for stack in QUICK]
    kinds = awkward()
    groups = {"ordinary": ordinary} | {name: [(x, K, "full")] for name, x in kinds.items()}
    return [_row(name, ridge, problems, n_repeats) for name, problems in groups.items() for ridge in RIDGES]


def awkward() -> dict[str, np.ndarray]:
    """Stacks `(B, N, 2)` of kinds of data on which a likelihood has no bound, or components are narrow."""
    rng = np.random.default_rng(0)
    shape = (N_OF_A_KIND, N_SAMPLES, 2)
    plain = rng.normal(size=shape) + 4 * rng.integers(0, 3, size=(N_OF_A_KIND, N_SAMPLES, 1))
    line = rng.normal(size=shape)
    line[..., 1] = 2 * line[..., 0]
    sentinels = plain.copy()
    sentinels[:, :4] = -9999.0
    narrow = plain.copy()
    narrow[:, :60] = rng.normal(size=(N_OF_A_KIND, 1, 2)) + 1e-4 * rng.normal(size=(N_OF_A_KIND, 60, 2))
    return {
        "rounded": plain.round(),
        "repeated": np.repeat(plain[:, : N_SAMPLES // 4], 4, axis=1),
        "censored": np.clip(plain, 0.0, 8.0),
        "many zeros": np.where(rng.random(shape) < 0.4, 0.0, plain),
        "collinear": line,
        "heavy tails": rng.standard_t(1.5, size=shape),
        "sentinels": sentinels,
        "narrow": narrow,
    }


def _row(name: str, ridge: float, problems: Sequence[tuple[np.ndarray, int, str]], n_repeats: int) -> dict:
    def fitted() -> list[FitResult]:
        return [jaxgmm.fit(x, k, covariance_type=family, reg_covar=ridge) for x, k, family in problems]

    fits, seconds = fitted(), []
    for _ in range(n_repeats):
        began = time.perf_counter()
        fitted()
        seconds.append(time.perf_counter() - began)

    def share(of_fit: str, is_so: str) -> float:
        found = np.concatenate([np.ravel(getattr(fit, of_fit)) for fit in fits])
        return float(np.mean(found == Status.DEGENERATE if is_so == "degenerate" else found > 0))

    return {
        "data": name,
        "reg_covar": ridge,
        "n_data_sets": sum(len(x) for x, _, _ in problems),
        "degenerate": share("status", "degenerate"),
        "degenerate_starts": share("start_status", "degenerate"),
        "spurious": share("spurious", "above 0"),
        "spurious_starts": share("start_spurious", "above 0"),
        "ridge_dominated": share("ridge_dominated", "above 0"),
        "seconds": float(np.median(seconds)),
    }


def table(results: dict) -> list[str]:
    """The rows as Markdown; times are relative to those of the largest ridge."""
    lines = [
        "| data | ridge | DEGENERATE | starts that are | spurious | starts that are | dominated by the ridge | time |",
        "|---|---|---|---|---|---|---|---|",
    ]
    slowest = {row["data"]: row["seconds"] for row in results["rows"] if row["reg_covar"] == RIDGES[0]}
    for row in results["rows"]:
        shares = ("degenerate", "degenerate_starts", "spurious", "spurious_starts", "ridge_dominated")
        told = " | ".join(f"{row[name]:.1%}" for name in shares)
        lines.append(f"| {row['data']} | {row['reg_covar']:g} | {told} | {row['seconds'] / slowest[row['data']]:.2f} |")
    return lines


if __name__ == "__main__":
    main()
