"""Everything to be known of a machine with a GPU, by one command, within eight minutes.

    PYTHONPATH=. python -m benchmarks.gpu                 needs jax with CUDA and jaxtyping; no network
    PYTHONPATH=. python -m benchmarks.gpu --dry-run       the same path in small, on any machine

Answers are checked against float64 on the CPU, the card's ceilings are measured, then scenarios run on the GPU and on
the CPU, each stage in a process of its own that is watched: a scenario that takes too long is stopped, and the rest
goes on. Whatever fails is in the file, with its error.
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
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from benchmarks.environment import RESULTS, environment, error_of, write

NEEDED, WANTED = ("jax", "numpy", "jaxtyping"), ("sklearn", "joblib", "threadpoolctl")
ON_GPU = "steps-2d steps-8d steps-2d-many steps-8d-many steps-1d converge-2d converge-8d million cells one-large survey"
ON_GPU += (
    " tiles cytometry markers gene-pairs steps-2d-starts steps-8d-starts scaling-1000 scaling-100000 scaling-1000000"
)
ON_CPU = "steps-2d steps-8d steps-1d converge-2d converge-8d million cells tiles cytometry markers"
LARGE = "one-large survey"
OWN = ["jaxgmm", "NumPy float64"]
RIVALS = ["jaxgmm float32", "jaxgmm mixed", "scikit-learn", "C limit"]

# Seconds for the card and for one scenario, and characters that are kept of what a process said before it failed.
CARD, GUARD, TAIL = 100.0, 75.0, 400


class Stage(NamedTuple):
    """Scenarios to run with some systems, until so many seconds after the beginning of it all."""

    names: list[str]
    systems: list[str]
    platform: str | None
    until: float


# The last half minute of the eight is for stopping and starting processes.
STAGES = [
    Stage(ON_GPU.split(), OWN, None, 320.0),
    Stage(ON_CPU.split(), RIVALS, "cpu", 420.0),
    # One fit of scikit-learn would take the rest of the time here.
    Stage(LARGE.split(), ["jaxgmm float32", "jaxgmm mixed", "C limit"], "cpu", 450.0),
]
DRY = [Stage(["steps-1d"], ["jaxgmm float32"], None, 320.0), Stage([], RIVALS, "cpu", 450.0)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("--dry-run", action="store_true", help="go through all of it in small, GPU or not")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu.json")
    options = parser.parse_args()
    small, began = options.dry_run, time.monotonic()
    missing = [name for name in (*NEEDED, *WANTED) if find_spec(name) is None]
    lacking = [name for name in NEEDED if name in missing]
    if lacking:
        sys.exit(f"jaxgmm needs {' and '.join(lacking)}, which this Python does not have. Nothing was measured.")
    about = {**environment(), "size": "dry run" if small else "full", "missing": missing}
    with tempfile.TemporaryDirectory() as folder:
        settings = os.environ | {"JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", folder)}
        card = _card(Path(folder) / "card.json", settings, small=small)
        if card.get("platform") not in ("gpu", "cuda", "rocm") and not small:
            print(f"No GPU: JAX sees {card.get('device_kind') or card.get('error')}. Nothing was measured.")
            return
        results = {"environment": {**about, "gpu": card}, "rows": []}
        write(options.out, results)
        for line in card.get("checks", []):
            print(f"check {line['scenario']:18}{line['system']:18}{line.get('max_difference', line.get('error'))}")
        sizes = ["--quick", "--data-sets", "4"] if small else ["--full"]
        plan = [*sizes, "--seconds", "0.1" if small else "6", "--sample-seconds", "1"]
        for number, stage in enumerate(DRY if small else STAGES):
            part = Path(folder) / f"{number}.json"
            arguments = [*plan, "--out", str(part), "--systems", *stage.systems]
            variables = settings | ({"JAX_PLATFORMS": stage.platform} if stage.platform else {})
            known = results["rows"]

            def keep(rows: list[dict], known: list[dict] = known) -> None:
                results["rows"] = [*known, *(_against_ceilings(row, card) for row in rows)]
                write(options.out, results)

            try:
                keep(supervise(stage.names, arguments, variables, began + stage.until, part, keep))
            except Exception as error:
                results["rows"].append({"scenario": f"stage {number}", "system": None, "error": error_of(error)})
                write(options.out, results)
    print(f"wrote {options.out.name}: {len(results['rows'])} rows in {time.monotonic() - began:.0f} s")


def supervise(
    names: list[str],
    arguments: list[str],
    variables: dict[str, str],
    deadline: float,
    part: Path,
    keep: Callable[[list[dict]], None],
) -> list[dict]:
    """Rows of scenarios run in a process that is stopped, and begun again after the culprit, if one takes too long."""
    rows, waiting, log = [], list(names), part.with_suffix(".log")
    while waiting and time.monotonic() < deadline:
        part.unlink(missing_ok=True)
        command = [sys.executable, "-m", "benchmarks.run", *arguments, "--only", *waiting]
        with log.open("w") as errors:
            process = subprocess.Popen(command, env=variables, stderr=errors, start_new_session=True)
            why = _watched(process, part, deadline, lambda found, before=tuple(rows): keep([*before, *found]))
        rows += _rows(part)
        finished = {row["scenario"] for row in rows}
        waiting = [name for name in waiting if name not in finished]
        if waiting and why:
            said = log.read_text(errors="replace").strip()[-TAIL:]
            rows.append({"scenario": waiting.pop(0), "system": None, "error": ": ".join(filter(None, (why, said)))})
    return rows + [{"scenario": name, "system": None, "error": "no time was left"} for name in waiting]


def _watched(process: subprocess.Popen, part: Path, deadline: float, keep: Callable[[list[dict]], None]) -> str | None:
    """Waits for a process, or stops it; says why its next scenario has no rows, or None where it may yet get them."""
    n_rows, last = 0, time.monotonic()
    while process.poll() is None:
        found = _rows(part)
        if len(found) > n_rows:
            new, n_rows, last = found[n_rows:], len(found), time.monotonic()
            keep(found)
            # Once a kernel has failed on a GPU, all that follow in the same process may fail.
            if any("error" in row and str(row["system"]).startswith("jaxgmm") for row in new):
                _stop(process)
                return None
        if time.monotonic() > min(deadline, last + GUARD):
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
