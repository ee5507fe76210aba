"""The project's targets, each with what was measured, all in one run.

python -m benchmarks.targets                 measure, then print
python -m benchmarks.targets FILE.json       print from an earlier run, such as that of all scenarios
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.environment import RESULTS
from benchmarks.measure import NOTICEABLE
from benchmarks.scenarios import SCALING, SCENARIOS, TARGETS

# Time per data set may grow by a tenth from a thousand data sets to a million.
LINEAR = 1.1
NAMES = [*(scenario.name for scenario in TARGETS), "one-large", *(scenario.name for scenario in SCALING[1:])]
SYSTEMS = ["jaxgmm", "scikit-learn", "C limit", "NumPy float64"]
Rows = dict[tuple[str, str], dict]


class Target(NamedTuple):
    """A figure to reach: `measured` works it out from rows by (scenario, system)."""

    text: str
    bound: float
    at_least: bool
    measured: Callable[[Rows], float]


def _speedup(scenario: str, system: str, over: str) -> Callable[[Rows], float]:
    return lambda rows: rows[scenario, over]["seconds_for_all"] / rows[scenario, system]["seconds_for_all"]


def _rate(scenario: str, system: str, over: str) -> Callable[[Rows], float]:
    """By iterations, of which a run that fails early makes fewer."""
    name = "run_iterations_per_second"
    return lambda rows: rows[scenario, system][name] / rows[scenario, over][name]


def _steps(scenario: str, of_scikit_learn: float, of_limit: float) -> list[Target]:
    own = "jaxgmm float32"
    return [
        Target(f"{scenario}: times scikit-learn", of_scikit_learn, True, _rate(scenario, own, "scikit-learn")),
        Target(f"{scenario}: of the C limit", of_limit, True, _rate(scenario, own, "C limit")),
    ]


def _converge(scenario: str, of_joblib: float) -> list[Target]:
    own = "jaxgmm mixed"
    on_all_cores = "scikit-learn, joblib"
    return [
        Target(f"{scenario}: times scikit-learn on all cores", of_joblib, True, _speedup(scenario, own, on_all_cores)),
        Target(
            f"{scenario}: nats per sample behind scikit-learn",
            NOTICEABLE,
            False,
            lambda rows: rows[scenario, on_all_cores]["mean_difference"] - rows[scenario, own]["mean_difference"],
        ),
        Target(f"{scenario}: efficiency", 0.8, True, lambda rows: rows[scenario, own]["efficiency"]),
    ]


def _growth(rows: Rows) -> float:
    """Time per data set of a million, over that of a thousand."""
    few, many = (
        rows[name, "jaxgmm float32"]["seconds_for_all"] / rows[name, "jaxgmm float32"]["n_data_sets"]
        for name in ("scaling-1000", "scaling-1000000")
    )
    return many / few


def _one_large(rows: Rows) -> float:
    """Against scikit-learn with threads within the fit, or without, whichever is faster."""
    return min(_rate("one-large", "jaxgmm float32", own)(rows) for own in ("scikit-learn", "scikit-learn, joblib"))


TABLE = [
    *_steps("steps-2d", 330, 0.4),
    *_steps("steps-1d", 800, 0.6),
    *_steps("steps-8d", 40, 0.45),
    *_steps("steps-2d-starts", 500, 0.5),
    *_steps("steps-8d-starts", 65, 0.7),
    *_converge("converge-2d", 100),
    *_converge("converge-8d", 20),
    Target("one-large: times scikit-learn", 8, True, _one_large),
    Target(
        "one-large: GiB beyond the data",
        2,
        False,
        lambda rows: rows["one-large", "jaxgmm float32"]["peak_bytes"] / 2**30,
    ),
    Target("scaling: time per data set, 10⁶ over 10³", LINEAR, False, _growth),
]


def judge(rows: list[dict]) -> list[str]:
    """One line for each target: what was measured, the bound, and whether it is met."""
    known = {(row["scenario"], row["system"]): row for row in rows if "error" not in row}
    lines = []
    for target in TABLE:
        sign = "≥" if target.at_least else "≤"
        try:
            value = target.measured(known)
            met = value >= target.bound if target.at_least else value <= target.bound
            lines.append(f"{target.text:55}{value:12.4g}   {sign} {target.bound:<8g}{'met' if met else 'MISSED'}")
        except (KeyError, TypeError):
            lines.append(f"{target.text:55}{'-':>12}   {sign} {target.bound:<8g}not measured")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.targets")
    parser.add_argument("file", nargs="?", type=Path, help="results to judge, instead of measuring")
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="NAME", help="measure these scenarios")
    parser.add_argument("--out", type=Path, default=RESULTS / "targets.json")
    options = parser.parse_args()
    if options.file:
        results = json.loads(options.file.read_text())
    else:
        from benchmarks import run  # noqa: PLC0415 (judging a file needs no JAX)

        scenarios = [SCENARIOS[name] for name in options.only or NAMES]
        run.run(scenarios, run.chosen(SYSTEMS), run.FULL, "full", options.out, minutes=120)
        results = json.loads(options.out.read_text())
    about = results["environment"]
    print(f"\n{about['cpu']}, {about['cores']} cores, load before {about['load_before']:.1f}, commit {about['commit']}")
    print("\n".join(judge(results["rows"])))


if __name__ == "__main__":
    main()
