"""Runs scenarios and writes JSON, after each scenario, so that nothing is lost when it is stopped.

Usage:
    python -m benchmarks.run --quick
    python -m benchmarks.run --full --only cells tiles --systems "jaxgmm mixed" --out mine.json
"""

import argparse
import time
from pathlib import Path

from benchmarks import limits, peers, scikit, systems
from benchmarks.environment import RESULTS, environment, error_of, write
from benchmarks.measure import Plan, measure
from benchmarks.outcome import System
from benchmarks.scenarios import NOT_QUICK, ONLY_BY_NAME, SCENARIOS, Scenario, problem

QUICK = Plan(repeats=5, seconds=2.5, sample_seconds=0.3)
FULL = Plan(repeats=5, seconds=30.0, sample_seconds=2.0)


def main() -> None:
    options = _options()
    left_out = ONLY_BY_NAME if options.full else NOT_QUICK
    names = options.only or [name for name in SCENARIOS if name not in left_out]
    plan = FULL if options.full else QUICK
    plan = plan._replace(
        seconds=options.seconds or plan.seconds, sample_seconds=options.sample_seconds or plan.sample_seconds
    )
    scenarios = [SCENARIOS[name] if options.full else SCENARIOS[name].shrunk() for name in names]
    if options.data_sets:
        scenarios = [s._replace(n_data_sets=min(s.n_data_sets, options.data_sets)) for s in scenarios]
    contenders = chosen(options.systems, with_peers=options.peers)
    run(scenarios, contenders, plan, "full" if options.full else "quick", options.out, options.minutes)


def run(
    scenarios: list[Scenario], contenders: list[System], plan: Plan, size: str, out: Path, minutes: float
) -> list[dict]:
    """Measures scenarios one after another and writes what there is after each."""
    began, rows = time.monotonic(), []
    about = {**environment(), "size": size}
    for scenario in scenarios:
        if time.monotonic() - began > 60 * minutes:
            new = [{"scenario": scenario.name, "system": None, "error": f"skipped: {minutes:g} minutes had passed"}]
        else:
            print(f"{time.monotonic() - began:6.0f} s  {scenario.name}", flush=True)
            try:
                new = measure(problem(scenario), contenders, plan)
            except Exception as error:
                new = [{"scenario": scenario.name, "system": None, "error": error_of(error)}]
            print("\n".join(f"{'':10}{summary(row)}" for row in new), flush=True)
        rows += new
        write(out, {"environment": about, "rows": rows})
    return rows


def summary(row: dict) -> str:
    """A row on one line."""
    if "error" in row:
        return f"{row['system']}: {row['error']}"
    rate, unit = row["run_iterations_per_second"], "run-iterations/s"
    if rate is None:
        rate, unit = row["n_data_sets"] / row["seconds_for_all"], "data sets/s"
    speed = f"{rate:14,.{0 if rate > 1000 else 1}f} {unit}"
    difference = row.get("max_difference")
    against = "" if difference is None else f"  max difference {difference:.1e}"
    sample = f"  (of {row['n_measured']})" if row["extrapolated"] else ""
    return f"{row['system']:22}{row['seconds_for_all']:10.3f} s{speed}  failures {row['failures']}{against}{sample}"


def chosen(wanted: list[str] | None, *, with_peers: bool = False) -> list[System]:
    known = [*systems.systems(), *limits.systems(), *scikit.systems(), *(peers.systems() if with_peers else [])]
    return [system for system in known if not wanted or any(system.name.startswith(name) for name in wanted)]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__.split("\n")[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="small sizes (the default)")
    size.add_argument("--full", action="store_true", help="the sizes of the scenarios; a good hour on two cores")
    parser.add_argument("--only", nargs="+", choices=list(SCENARIOS), metavar="NAME", help="these scenarios")
    parser.add_argument("--systems", nargs="+", metavar="NAME", help="systems whose names begin so")
    parser.add_argument("--peers", action="store_true", help="also gmmx, gmm-gpu and pomegranate, as far as installed")
    parser.add_argument("--minutes", type=float, default=None, help="begin no scenario after so long (quick: 8)")
    parser.add_argument("--data-sets", type=int, help="this many data sets at most")
    parser.add_argument("--seconds", type=float, help="for the timed calls of one system on one scenario")
    parser.add_argument("--sample-seconds", type=float, help="for one repeat of a system measured on a sample")
    parser.add_argument("--out", type=Path, default=None, help="the JSON file to write")
    options = parser.parse_args()
    options.minutes = options.minutes or (24 * 60 if options.full else 8)
    options.out = options.out or RESULTS / f"{'full' if options.full else 'quick'}.json"
    return options


if __name__ == "__main__":
    main()
