"""`jaxgmm doctor`: what this machine has, and whether fits are right and how fast they are."""

import importlib.metadata
import os
import platform
import time
from typing import Any, NamedTuple

import jax
import numpy as np
import typer
from rich.text import Text

import jaxgmm
from jaxgmm.cli import console
from jaxgmm.cli import options as of
from jaxgmm.engine.devices import machine

# Two clusters of R's mixtools, and the log-likelihood of their fit that its mvnormalmixEM gives.
_X = np.array(
    [
        *[(-0.6264538, 0.1836433), (-0.8356286, 1.5952808), (0.3295078, -0.8204684), (0.4874291, 0.7383247)],
        *[(0.5757814, -0.3053884), (1.5117812, 0.3898432), (-0.6212406, -2.2146999), (11.1249309, 9.9550664)],
        *[(9.9838097, 10.9438362), (10.8212212, 10.5939013), (10.9189774, 10.7821363), (10.0745650, 8.0106483)],
        *[(10.6198257, 9.9438713), (9.8442045, 8.5292476), (9.5218499, 10.4179416)],
    ]
)
_LOG_LIKELIHOOD, _TOLERANCE = -46.89499, 1e-4

_SECONDS = 5.0
_PACKAGES = ("jax", "jaxlib", "numpy", "scipy")
_OPTIONAL = ("pyarrow", "narwhals", "pandas", "polars", "scikit-learn", "matplotlib", "safetensors", "rich", "typer")


class Check(NamedTuple):
    """One thing that was tried: what, what came out, and whether that is right."""

    name: str
    found: str
    is_right: bool


def doctor(*, as_json: of.Json = False) -> None:
    """Test this machine: versions, devices, whether fits are right, and how fast they are.

    Example: `jaxgmm doctor`

    The test takes five seconds, and longer where programs have to be compiled first. Exit code 1 if something is wrong.
    """
    console.keep_programs()
    facts = _facts()
    checks = [*_checks(), _rate(facts)]
    is_right = all(check.is_right for check in checks)
    if as_json:
        console.print_json(facts | {"checks": [check._asdict() for check in checks], "is_right": is_right})
    else:
        _print(facts, checks)
    if not is_right:
        raise typer.Exit(1)


def _facts() -> dict[str, Any]:
    """Versions, devices, memory, and where compiled programs are kept."""
    devices = machine().devices
    return {
        "jaxgmm": jaxgmm.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        **{name: _version(name) for name in _PACKAGES},
        "optional": {name: _version(name) for name in _OPTIONAL},
        "platform": devices[0].platform,
        "devices": sorted({f"{device.device_kind} ({device.platform}:{device.id})" for device in devices}),
        "workers": len(devices),
        "memory_gib": _memory(devices[0]),
        "programs_kept_in": jax.config.jax_compilation_cache_dir,  # pyright: ignore[reportAttributeAccessIssue]
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _memory(device: Any) -> float | None:
    """GiB of a GPU, or of the machine; None where it is not known."""
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if limit is None and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None if limit is None else round(limit / 2**30, 1)


def _checks() -> list[Check]:
    """Fits whose answers are known, beside one that must fail alone."""
    checks = []
    stack = np.stack([_X, np.full_like(_X, np.nan), _X])
    for precision in ("float32", "float64"):
        result = jaxgmm.fit(stack, 2, n_init=2, reg_covar=0, tol=1e-7, precision=precision)
        found, statuses = result.log_likelihood, [jaxgmm.Status(code).name for code in result.status]
        said = f"log-likelihood {found[0]:.5f}, published {_LOG_LIKELIHOOD}"
        checks.append(Check(f"known fit, {precision}", said, bool(abs(found[0] - _LOG_LIKELIHOOD) < _TOLERANCE)))
        is_right = statuses == ["CONVERGED", "NONFINITE", "CONVERGED"] and bool(found[0] == found[2])
        checks.append(Check(f"bad neighbour, {precision}", ", ".join(statuses), is_right))
    return checks


def _rate(facts: dict[str, Any]) -> Check:
    """Fits data sets of 300 × 2, K = 3, until the time is over."""
    n_data_sets = 1000 if facts["platform"] == "cpu" else 100_000
    draw = np.random.default_rng(0)
    x = (8 * draw.integers(0, 3, (n_data_sets, 300, 1)) + draw.normal(size=(n_data_sets, 300, 2))).astype(np.float32)

    def timed() -> tuple[float, np.ndarray]:
        began = time.perf_counter()
        status = jaxgmm.fit(x, 3, init="random_from_data", n_init=1, tol=0, max_iter=50, precision="float32").status
        return time.perf_counter() - began, status

    timed()
    began, times, status = time.perf_counter(), [], np.empty(0)
    while not times or time.perf_counter() - began < _SECONDS:
        seconds, status = timed()
        times.append(seconds)
    rate = 50 * n_data_sets / float(np.median(times))
    n_ended = int(np.count_nonzero(status == jaxgmm.Status.MAX_ITER))
    found = f"{rate:,.0f} iterations of whole runs per second ({n_data_sets:,} data sets of 300 × 2, K = 3)"
    return Check("rate", found, n_ended >= 0.9 * n_data_sets)


def _print(facts: dict[str, Any], checks: list[Check]) -> None:
    printed = console.plain()
    table = console.plain_table("this machine", "")
    optional = ", ".join(f"{name} {version}" for name, version in facts["optional"].items() if version)
    missing = ", ".join(name for name, version in facts["optional"].items() if not version)
    memory = facts["memory_gib"]
    table.add_row("jaxgmm", facts["jaxgmm"])
    table.add_row("python", f"{facts['python']}, {facts['system']}")
    table.add_row("packages", ", ".join(f"{name} {facts[name]}" for name in _PACKAGES))
    table.add_row("optional", optional + (f"; not installed: {missing}" if missing else ""))
    table.add_row("devices", f"{', '.join(facts['devices'])}; {facts['workers']} workers")
    table.add_row("memory", "unknown" if memory is None else f"{memory} GiB")
    table.add_row("programs", f"kept in {facts['programs_kept_in']}")
    printed.print(table)
    table = console.plain_table("test", "", "found")
    for check in checks:
        table.add_row(check.name, Text("right", "green") if check.is_right else Text("WRONG", "bold red"), check.found)
    printed.print()
    printed.print(table)
