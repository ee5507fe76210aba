"""What does it cost to divide one data set over devices?

    python -m benchmarks.sharded

Ten million samples of eight components in four dimensions, by one device and by eight simulated ones, which share the
cores of this machine: how long a fixed number of iterations takes, how much memory, and how far the answers are from
each other. Every way has a process of its own. Devices of their own would divide the time; simulated ones show what
sums over devices, and the division itself, add to it.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import jaxgmm
from benchmarks.environment import RESULTS, environment, memory, write

D, K, N_ITER = 4, 8, 20
# The engine on one device, then as many devices as the samples are divided over.
WAYS = {"one device": None, "divided over 1": 1, "divided over 8": 8}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sharded")
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=3, help="timed calls, of which the median counts")
    parser.add_argument("--way", choices=WAYS, help="measure only this one, and print it")
    parser.add_argument("--out", type=Path, default=RESULTS / "sharded.json")
    options = parser.parse_args()
    if options.way is not None:
        print(json.dumps(measured(options.way, options.samples, options.repeats)))
        return
    about = environment()
    rows = [_in_a_process(way, options.samples, options.repeats) for way in WAYS]
    for row in rows:
        row["relative_difference"] = row["log_likelihood"] / rows[0]["log_likelihood"] - 1
    write(options.out, {"environment": about, "rows": rows})
    print("\n".join(table(rows)))


def measured(way: str, n_samples: int, n_repeats: int) -> dict:
    """A row of the results."""
    rng = np.random.default_rng(0)
    means = rng.normal(0, 3, size=(K, D))
    x = means[rng.integers(0, K, n_samples)] + rng.normal(size=(n_samples, D))
    start = jaxgmm.Mixture(np.full(K, 1 / K), x[:K], np.tile(4 * np.eye(D), (K, 1, 1)))
    before = memory("VmHWM")
    divided = {"precision": "float64"} if WAYS[way] is None else {"devices": WAYS[way]}
    seconds = []
    for _ in range(1 + n_repeats):
        began = time.perf_counter()
        found = jaxgmm.fit(x, K, init=start, method="em", tol=0, max_iter=N_ITER, **divided)
        seconds.append(time.perf_counter() - began)
    return {
        "way": way,
        "n_samples": n_samples,
        "n_iter": int(found.n_iter),
        "status": str(found.status_names),
        "log_likelihood": float(found.log_likelihood),
        "first_seconds": seconds[0],
        "seconds": float(np.median(seconds[1:])),
        "spread": float(np.ptp(seconds[1:])),
        "megabytes_of_samples": x.nbytes / 2**20,
        "megabytes_more_at_most": (memory("VmHWM") - before) / 2**20,
    }


def _in_a_process(way: str, n_samples: int, n_repeats: int) -> dict:
    """The row of a way, measured in a process that has as many devices."""
    flags = f"--xla_force_host_platform_device_count={WAYS[way] or 1}"
    command = [sys.executable, "-m", "benchmarks.sharded", "--way", way]
    command += ["--samples", str(n_samples), "--repeats", str(n_repeats)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | {"XLA_FLAGS": flags})
    return json.loads(done.stdout.splitlines()[-1])


def table(rows: list[dict]) -> list[str]:
    """The rows as Markdown."""
    lines = [
        "| way | seconds | spread | first call | more memory, MB | log-likelihood | difference |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        times = f"{row['seconds']:.1f} | {row['spread']:.1f} | {row['first_seconds']:.1f}"
        answer = f"{row['log_likelihood']:.6f} | {row['relative_difference']:.1e}"
        lines.append(f"| {row['way']} | {times} | {row['megabytes_more_at_most']:.0f} | {answer} |")
    return lines


if __name__ == "__main__":
    main()
