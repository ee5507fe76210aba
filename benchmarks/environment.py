"""What figures depend on beside the code, and the files that both are written to."""

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
RESULTS = Path(__file__).with_name("results")
PACKAGES = (
    "jax",
    "jaxlib",
    "ray",
    "jax-cuda12-plugin",
    "jax-cuda13-plugin",
    "numpy",
    "scipy",
    "scikit-learn",
    "joblib",
)
PACKAGES += ("gmmx", "gmm-gpu", "pomegranate", "torch")


def environment() -> dict:
    """What the figures depend on beside the code."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        # Where the code was copied without its history, whoever copied it may say.
        "commit": os.environ.get("JAXGMM_COMMIT") or _git("rev-parse", "--short", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--", "jaxgmm", "benchmarks/*.py")),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cpu": _cpu_model(),
        "cores": CORES,
        "load_before": os.getloadavg()[0],
        "versions": versions,
    }


def write(path: Path, results: dict) -> None:
    """Replaces a file of results whole: who watches it, or stops the program, never finds half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(results, indent=1) + "\n")
    part.replace(path)


def memory(name: str) -> int:
    """Bytes of this process, as Linux tells: `VmRSS` now, `VmHWM` at most.

    `getrusage` would tell of the process that started this one, too.
    """
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


def error_of(error: Exception) -> str:
    """An error as results tell it."""
    return f"{type(error).__name__}: {error}"[:500]


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
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
