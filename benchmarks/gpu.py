"""Everything to be known of a machine with a GPU, by one command, within eight minutes.

    PYTHONPATH=. python -m benchmarks.gpu                 needs jax with CUDA, scikit-learn; no network
    PYTHONPATH=. python -m benchmarks.gpu --dry-run       the same path in small, on any machine

Answers are checked against float64 on the CPU, the card's ceilings are measured, then scenarios run on the GPU and on
the CPU, each stage in a process of its own that is watched: a scenario that takes too long is stopped, and the rest
goes on.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.environment import environment

RESULTS = Path(__file__).with_name("results")
ON_GPU = "steps-2d-many steps-8d-many steps-2d steps-8d steps-1d converge-2d converge-8d million cells one-large survey"
ON_GPU += (
    " tiles cytometry markers gene-pairs steps-2d-starts steps-8d-starts scaling-1000 scaling-100000 scaling-1000000"
)
ON_CPU = "steps-2d steps-8d steps-1d converge-2d converge-8d million cells tiles cytometry markers one-large survey"
OWN = ["jaxgmm", "NumPy float64"]
RIVALS = ["jaxgmm float32", "jaxgmm mixed", "scikit-learn", "C limit"]

# Seconds for both stages together leave one minute of the eight for the card and for starting processes.
SECONDS_ON_GPU, SECONDS_ON_CPU, GUARD = 270.0, 140.0, 75.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("--dry-run", action="store_true", help="go through all of it in small, GPU or not")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu.json")
    options = parser.parse_args()
    small = options.dry_run
    with tempfile.TemporaryDirectory() as folder:
        settings = os.environ | {"JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", folder)}
        card = _card(Path(folder) / "card.json", settings, small=small)
        if card.get("platform") not in ("gpu", "cuda", "rocm") and not small:
            print(f"No GPU: JAX sees {card.get('device_kind') or card.get('error')}. Nothing was measured.")
            return
        results = {"environment": {**environment(), "size": "dry run" if small else "full", "gpu": card}, "rows": []}
        _write(options.out, results)
        for line in card.get("checks", []):
            print(f"check {line['scenario']:18}{line['system']:18}{line.get('max_difference', line.get('error'))}")
        sizes = ["--quick", "--data-sets", "4"] if small else ["--full"]
        plan = [*sizes, "--seconds", "0.1" if small else "6", "--sample-seconds", "1"]
        stages = [
            (["steps-1d"] if small else ON_GPU.split(), ["jaxgmm float32"] if small else OWN, settings, SECONDS_ON_GPU),
            ([] if small else ON_CPU.split(), RIVALS, settings | {"JAX_PLATFORMS": "cpu"}, SECONDS_ON_CPU),
        ]
        for number, (names, systems, variables, seconds) in enumerate(stages):
            part = Path(folder) / f"{number}.json"
            arguments = [*plan, "--out", str(part), "--systems", *systems]

            def keep(rows: list[dict]) -> None:
                _write(options.out, results | {"rows": [*results["rows"], *(_against_ceilings(r, card) for r in rows)]})

            rows = supervise(names, arguments, variables, seconds, part, keep)
            results["rows"] += [_against_ceilings(row, card) for row in rows]
            _write(options.out, results)
    print(f"wrote {options.out.name}: {len(results['rows'])} rows")


def supervise(
    names: list[str],
    arguments: list[str],
    variables: dict[str, str],
    seconds: float,
    part: Path,
    keep: Callable[[list[dict]], None],
) -> list[dict]:
    """Rows of scenarios run in a process that is stopped, and begun again after the culprit, if one takes too long."""
    deadline, rows, waiting = time.monotonic() + seconds, [], list(names)
    while waiting and time.monotonic() < deadline:
        part.unlink(missing_ok=True)
        command = [sys.executable, "-m", "benchmarks.run", *arguments, "--only", *waiting]
        process = subprocess.Popen(command, env=variables, start_new_session=True)
        n_rows, last = 0, time.monotonic()
        while process.poll() is None:
            found = _rows(part)
            if len(found) > n_rows:
                n_rows, last = len(found), time.monotonic()
                keep([*rows, *found])
            if time.monotonic() > min(deadline, last + GUARD):
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                break
            time.sleep(0.2)
        rows += _rows(part)
        finished = {row["scenario"] for row in rows}
        waiting = [name for name in waiting if name not in finished]
        if waiting:
            why = "took too long" if process.returncode < 0 else f"its process ended with {process.returncode}"
            rows.append({"scenario": waiting.pop(0), "system": None, "error": why})
    return rows + [{"scenario": name, "system": None, "error": "no time was left"} for name in waiting]


def _rows(part: Path) -> list[dict]:
    return json.loads(part.read_text())["rows"] if part.exists() else []


def _write(path: Path, results: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")


def _card(part: Path, variables: dict, *, small: bool) -> dict:
    """What `benchmarks.card` says, in a process of its own, so that the card's memory is free afterwards."""
    command = [sys.executable, "-m", "benchmarks.card", str(part), *["--small"] * small]
    try:
        subprocess.run(command, env=variables, check=False, timeout=150)
    except subprocess.TimeoutExpired:
        print("measuring the card took too long; what it had is kept")
    return json.loads(part.read_text()) if part.exists() else {"error": "benchmarks.card left nothing"}


def _against_ceilings(row: dict, card: dict) -> dict:
    """Adds what share of the card's ceilings the two matrix products, and their unfused traffic, take of the time."""
    iterations = row.get("run_iterations")
    if not iterations or row["device"].startswith("cpu") or not isinstance(row["n_samples"], int):
        return row
    d, k = row["n_features"], max(row["n_components"])
    n_rows = 1 + d + d * (d + 1) // 2
    samples = iterations * row["n_samples"] / row["seconds"]["median"]
    input_bytes = 4 * row["n_measured"] * row["n_samples"] * d
    return {
        **row,
        "flops_per_second": 4 * n_rows * k * samples,
        "share_of_float32_ceiling": 4 * n_rows * k * samples / card["float32_flops"],
        # Features are read twice, logits and responsibilities written and read; starts of a data set share nothing.
        "share_of_copy_ceiling": 4 * (2 * n_rows + 4 * k) * samples / card["copy_bytes_per_second"],
        "copy_in_seconds": input_bytes / card["host_to_device_bytes_per_second"],
    }


if __name__ == "__main__":
    main()
