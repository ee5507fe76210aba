"""`jaxgmm doctor`: what this machine has, whether fits on it are right, and how fast they are."""

import importlib.metadata
import os
import platform
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np
from rich.text import Text

import jaxgmm
from jaxgmm.cli import console
from jaxgmm.engine.devices import machine
from jaxgmm.engine.programs import kept_in

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

# Duration of the whole test, and its limit where programs have to be compiled.
_SECONDS = 5.0
_MOST_SECONDS = 120.0
_PACKAGES = ("jax", "jaxlib", "numpy", "scipy")
_OPTIONAL = ("pyarrow", "narwhals", "pandas", "polars", "scikit-learn", "matplotlib", "safetensors", "rich", "typer")


class Check(NamedTuple):
    """One check: its name, what was found, and whether that is right."""

    name: str
    found: str
    is_right: bool


def doctor(began: float, *, as_json: bool) -> bool:
    """Tests this machine and prints what was found; returns whether all checks passed.

    Args:
        began: when the command began, in seconds of `time.perf_counter`.
        as_json: whether to print JSON.
    """
    console.keep_programs()
    facts = _facts()
    checks = _checks_in_time(began, facts)
    is_right = all(check.is_right for check in checks)
    if as_json:
        console.print_json(facts | {"checks": [check._asdict() for check in checks], "is_right": is_right})
    else:
        _print(facts, checks)
    return is_right


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
        "programs_kept_in": kept_in(),
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


def _checks_in_time(began: float, facts: dict[str, Any]) -> list[Check]:
    """The checks that finish in time, and a failed check if some do not."""
    checks: list[Check] = []
    ended: Future[None] = Future()

    def run() -> None:
        try:
            for check in _checks():
                checks.append(check)
            checks.append(_rate(began, facts))
            ended.set_result(None)
        except BaseException as error:
            ended.set_exception(error)

    # Compilation cannot be stopped, but need not be waited for.
    threading.Thread(target=run, daemon=True).start()
    try:
        ended.result(began + _MOST_SECONDS - time.perf_counter())
    except TimeoutError:
        if ended.done():
            raise
        checks.append(Check("time", f"not done after {_MOST_SECONDS:.0f} s; other programs may be using it", False))
    return checks


def _checks() -> Iterator[Check]:
    """Fits with known answers, beside a bad data set that must not affect them."""
    stack = np.stack([_X, np.full_like(_X, np.nan), _X])
    for precision in ("float32", "float64"):
        result = jaxgmm.fit(stack, 2, n_init=2, reg_covar=0, tol=1e-7, precision=precision)
        found, statuses = result.log_likelihood, result.status_names.tolist()
        said = f"log-likelihood {found[0]:.5f}, published {_LOG_LIKELIHOOD}"
        yield Check(f"known fit, {precision}", said, bool(abs(found[0] - _LOG_LIKELIHOOD) < _TOLERANCE))
        is_right = statuses == ["CONVERGED", "NONFINITE", "CONVERGED"] and bool(found[0] == found[2])
        yield Check(f"bad neighbour, {precision}", ", ".join(statuses), is_right)


def _rate(began: float, facts: dict[str, Any]) -> Check:
    """Fits data sets of 300 × 2, K = 3, until time is up, but at least twice: the first fit may compile."""
    n_data_sets = 1000 if facts["platform"] == "cpu" else 100_000
    draw = np.random.default_rng(0)
    x = (8 * draw.integers(0, 3, (n_data_sets, 300, 1)) + draw.normal(size=(n_data_sets, 300, 2))).astype(np.float32)

    def timed() -> tuple[float, np.ndarray]:
        before = time.perf_counter()
        status = jaxgmm.fit(x, 3, init="random_from_data", n_init=1, tol=0, max_iter=50, precision="float32").status
        return time.perf_counter() - before, status

    timed()
    times, status = [], np.empty(0)
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
    kept = facts["programs_kept_in"]
    table.add_row("programs", f"kept in {kept}" if kept else "not kept: the user's cache cannot be written")
    printed.print(table)
    table = console.plain_table("test", "", "found")
    for check in checks:
        table.add_row(check.name, Text("right", "green") if check.is_right else Text("WRONG", "bold red"), check.found)
    printed.print()
    printed.print(table)
