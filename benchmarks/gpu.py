"""Everything to be known of a machine with a GPU, by one command, in a few minutes.

    PYTHONPATH=. python -m benchmarks.gpu                 needs jax with CUDA and jaxtyping; no network
    PYTHONPATH=. python -m benchmarks.gpu --dry-run       the same path in small, on any machine

Most of the time programs compile. So all stages run once beside each other, each with a share of the card's memory, to
fill a cache of programs; then they are timed one after another, with the card to themselves and the same share, on
which the sizes of programs depend. The most important scenarios come first. A process is watched: a scenario that takes
too long is stopped, and the rest goes on. Whatever fails is in the file, with its error.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from benchmarks.environment import RESULTS, environment, error_of, write

NEEDED = ("jax", "numpy", "jaxtyping")
MIXED, FLOAT32 = "jaxgmm mixed", "jaxgmm float32"
SWEEP, LIMIT, PEER = "sweep of jaxgmm, mixed", "CUDA limit", "gmm-gpu on the card"
MIXED_ON_CARD, FLOAT32_ON_CARD = "jaxgmm on the card, mixed", "jaxgmm on the card, float32"

# Minutes for all, seconds for the card and for one scenario, characters of what a process said before it failed.
MINUTES, CARD, GUARD, TAIL = 8.0, 100.0, 90.0, 400

# Processes beside each other, and the share of the card's memory that JAX is told each of them has.
TOGETHER = 3
SHARE = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.28"}


class Stage(NamedTuple):
    """Scenarios to run with some systems in one process."""

    names: tuple[str, ...]
    systems: tuple[str, ...]
    guard: float = GUARD


STAGES = [
    Stage(("million", "cells"), (MIXED,)),
    Stage(("steps-2d-many",), (FLOAT32, FLOAT32_ON_CARD, MIXED_ON_CARD, LIMIT, PEER)),
    Stage(("converge-2d", "tiles", "cytometry"), (MIXED,)),
    Stage(("steps-8d-many", "scaling-1000000"), (FLOAT32, FLOAT32_ON_CARD, LIMIT, PEER)),
    Stage(("one-large",), (MIXED, FLOAT32)),
    Stage(("gene-pairs", "markers", "survey", "converge-8d"), (MIXED,)),
    Stage(("gene-pairs-million",), (SWEEP,), guard=240.0),
]
DRY = [Stage(("steps-1d",), (FLOAT32,)), Stage(("converge-2d",), (FLOAT32,))]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("--dry-run", action="store_true", help="go through all of it in small, GPU or not")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu.json")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="stop after so long")
    options = parser.parse_args()
    small, began = options.dry_run, time.monotonic()
    lacking = [name for name in NEEDED if find_spec(name) is None]
    if lacking:
        sys.exit(f"jaxgmm needs {' and '.join(lacking)}, which this Python does not have. Nothing was measured.")
    stages, until = DRY if small else STAGES, began + 60 * options.minutes
    results: dict = {"environment": {**environment(), "size": "dry run" if small else "full"}, "rows": []}
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(TOGETHER) as pool:
        folder = Path(name)
        settings = SHARE | {
            "JAX_COMPILATION_CACHE_DIR": str(folder),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            # NumPy's threads would wait for each other more than they compute.
            "OPENBLAS_NUM_THREADS": "4",
            **os.environ,
        }
        card = _card(folder / "card.json", settings, small=small)
        if card.get("platform") not in ("gpu", "cuda", "rocm") and not small:
            print(f"No GPU: JAX sees {card.get('device_kind') or card.get('error')}. Nothing was measured.")
            return
        results["environment"]["gpu"] = card
        for line in card.get("checks", []):
            print(f"check {line['scenario']:18}{line['system']:18}{line.get('max_difference', line.get('error'))}")
        sizes = ["--quick", "--data-sets", "4"] if small else ["--full"]

        def measured(stage: Stage, seconds: str, keep: Callable[[list[dict]], None]) -> list[dict]:
            part = folder / f"{stage.names[0]}.json"
            beside = ["--peers"] if PEER in stage.systems else []
            arguments = [*sizes, *beside, "--seconds", seconds, "--out", str(part), "--systems", *stage.systems]
            try:
                return supervise(stage, arguments, settings, until, part, keep)
            except Exception as error:
                return [{"scenario": stage.names[0], "system": None, "error": error_of(error)}]

        def keep(known: list[dict], new: list[dict]) -> None:
            results["rows"] = [*known, *(_against_ceilings(row, card) if "error" not in row else row for row in new)]
            write(options.out, results)

        # A call for each system, of which only the programs are kept.
        list(pool.map(lambda stage: measured(stage, "0.001", lambda _: None), stages))
        for stage in stages:
            known = results["rows"]
            keep(known, measured(stage, "0.1" if small else "4", lambda new, known=known: keep(known, new)))
    print(f"wrote {options.out.name}: {len(results['rows'])} rows in {time.monotonic() - began:.0f} s")


def supervise(
    stage: Stage,
    arguments: list[str],
    variables: dict[str, str],
    deadline: float,
    part: Path,
    keep: Callable[[list[dict]], None],
) -> list[dict]:
    """Rows of scenarios run in a process that is stopped, and begun again after the culprit, if one takes too long."""
    rows, waiting, log = [], list(stage.names), part.with_suffix(".log")
    while waiting and time.monotonic() < deadline:
        part.unlink(missing_ok=True)
        command = [sys.executable, "-m", "benchmarks.run", *arguments, "--only", *waiting]
        with log.open("w") as errors:
            process = subprocess.Popen(command, env=variables, stderr=errors, start_new_session=True)
            until = deadline, stage.guard
            why = _watched(process, part, until, lambda found, before=tuple(rows): keep([*before, *found]))
        rows += _rows(part)
        finished = {row["scenario"] for row in rows}
        waiting = [name for name in waiting if name not in finished]
        if waiting and why:
            said = log.read_text(errors="replace").strip()[-TAIL:]
            rows.append({"scenario": waiting.pop(0), "system": None, "error": ": ".join(filter(None, (why, said)))})
    return rows + [{"scenario": name, "system": None, "error": "no time was left"} for name in waiting]


def _watched(
    process: subprocess.Popen, part: Path, until: tuple[float, float], keep: Callable[[list[dict]], None]
) -> str | None:
    """Waits for a process, or stops it; says why its next scenario has no rows, or None where it may yet get them.

    `until` is when all must have ended, and how many seconds one scenario may take.
    """
    (deadline, guard), n_rows, last = until, 0, time.monotonic()
    while process.poll() is None:
        found = _rows(part)
        if len(found) > n_rows:
            new, n_rows, last = found[n_rows:], len(found), time.monotonic()
            keep(found)
            # Once a kernel has failed on a GPU, all that follow in the same process may fail.
            if any("error" in row and str(row["system"]).startswith("jaxgmm") for row in new):
                _stop(process)
                return None
        if time.monotonic() > min(deadline, last + guard):
            _stop(process)
            return "took too long"
        time.sleep(0.2)
    return f"its process ended with {process.returncode}" if process.returncode else None


def _stop(process: subprocess.Popen) -> None:
    """Ends a process with those it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _rows(part: Path) -> list[dict]:
    return json.loads(part.read_text())["rows"] if part.exists() else []


def _card(part: Path, variables: dict, *, small: bool) -> dict:
    """What `benchmarks.card` says, in a process of its own, so that the card's memory is free afterwards."""
    command = [sys.executable, "-m", "benchmarks.card", str(part), *["--small"] * small]
    try:
        subprocess.run(command, env=variables, check=False, timeout=CARD)
    except subprocess.TimeoutExpired:
        print("measuring the card took too long; what it had is kept")
    return json.loads(part.read_text()) if part.exists() else {"error": "benchmarks.card left nothing"}


def _against_ceilings(row: dict, card: dict) -> dict:
    """Adds what share of the card's ceilings the two matrix products, and their unfused traffic, take of the time."""
    iterations = row.get("run_iterations")
    if not iterations or row["device"].startswith("cpu") or not isinstance(row["n_samples"], int):
        return row
    n_features = row["n_features"]
    n_rows = 1 + n_features + n_features * (n_features + 1) // 2
    samples = iterations * row["n_samples"] / row["seconds"]["median"]
    # Counted with each model's own K, where there are several.
    densities = 1e9 / row["ns_per_sample_component_iteration"]
    flops = 4 * n_rows * densities
    # Features are read twice, logits and responsibilities written and read; starts of a data set share nothing.
    traffic = 4 * (2 * n_rows * samples + 4 * densities)
    input_bytes = 4 * row["n_measured"] * row["n_samples"] * n_features

    def over(amount: float, ceiling: str) -> float | None:
        return amount / card[ceiling] if ceiling in card else None

    return {
        **row,
        "flops_per_second": flops,
        "share_of_float32_ceiling": over(flops, "float32_flops"),
        "share_of_copy_ceiling": over(traffic, "copy_bytes_per_second"),
        "copy_in_seconds": over(input_bytes, "host_to_device_bytes_per_second"),
    }


if __name__ == "__main__":
    main()
