"""Runs scenarios and writes JSON, after each scenario, so that nothing is lost when it is stopped.

    python -m benchmarks.run --quick
    python -m benchmarks.run --full --only cells tiles --systems "jaxgmm mixed" --out results/mine.json
"""

import argparse
import json
import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from benchmarks import peers, scikit, systems
from benchmarks.measure import Plan, measure
from benchmarks.outcome import System
from benchmarks.scenarios import NOT_QUICK, SCENARIOS, problem

RESULTS = Path(__file__).with_name("results")
QUICK = Plan(repeats=5, seconds=4.0, sample_seconds=0.5)
FULL = Plan(repeats=5, seconds=120.0, sample_seconds=4.0)
PACKAGES = ("jax", "jaxlib", "numpy", "scipy", "scikit-learn", "joblib", "gmmx", "gmm-gpu", "pomegranate", "torch")


def main() -> None:
    options = _options()
    names = options.only or [name for name in SCENARIOS if options.full or name not in NOT_QUICK]
    plan = FULL if options.full else QUICK
    run(names, _chosen(options.systems, with_peers=options.peers), plan, options.full, options.out, options.minutes)


def run(names: list[str], contenders: list[System], plan: Plan, full: bool, out: Path, minutes: float) -> list[dict]:
    """Measures scenarios one after another and writes what there is after each."""
    began, rows = time.monotonic(), []
    about = {**environment(), "size": "full" if full else "quick"}
    for name in names:
        if time.monotonic() - began > 60 * minutes:
            rows.append({"scenario": name, "system": None, "error": f"skipped: {minutes:g} minutes had passed"})
        else:
            scenario = SCENARIOS[name] if full else SCENARIOS[name].shrunk()
            print(f"{time.monotonic() - began:6.0f} s  {name}", flush=True)
            rows += measure(problem(scenario), contenders, plan)
            for row in rows:
                if row["scenario"] == name:
                    print("          " + summary(row), flush=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({"environment": about, "rows": rows}, indent=1) + "\n")
    return rows


def summary(row: dict) -> str:
    """A row on one line."""
    if "error" in row:
        return f"{row['system']}: {row['error']}"
    rate = row["run_iterations_per_second"]
    speed = f"{rate:14,.0f} run-iterations/s" if rate else f"{row['n_data_sets'] / row['seconds_for_all']:14,.1f} data sets/s"
    difference = row.get("max_difference")
    against = "" if difference is None else f"  max difference {difference:.1e}"
    sample = f"  (of {row['n_measured']})" if row["extrapolated"] else ""
    return f"{row['system']:22}{row['seconds_for_all']:10.3f} s{speed}  failures {row['failures']}{against}{sample}"


def environment() -> dict:
    """What the figures depend on beside the code."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "commit": _git("rev-parse", "--short", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--", "jaxgmm", "benchmarks/*.py")),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "versions": versions,
    }


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def _chosen(wanted: list[str] | None, *, with_peers: bool) -> list[System]:
    known = [*systems.systems(), *scikit.systems(), *(peers.systems() if with_peers else [])]
    return [system for system in known if not wanted or any(system.name.startswith(name) for name in wanted)]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__.split("\n")[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="small sizes (the default)")
    size.add_argument("--full", action="store_true", help="the sizes of the scenarios; hours on two cores")
    parser.add_argument("--only", nargs="+", choices=list(SCENARIOS), metavar="NAME", help="these scenarios")
    parser.add_argument("--systems", nargs="+", metavar="NAME", help="systems whose names begin so")
    parser.add_argument("--peers", action="store_true", help="also gmmx, gmm-gpu and pomegranate, as far as installed")
    parser.add_argument("--minutes", type=float, default=None, help="begin no scenario after so long (quick: 10)")
    parser.add_argument("--out", type=Path, default=None, help="the JSON file to write")
    options = parser.parse_args()
    options.minutes = options.minutes or (24 * 60 if options.full else 10)
    options.out = options.out or RESULTS / f"{'full' if options.full else 'quick'}.json"
    return options


if __name__ == "__main__":
    main()
