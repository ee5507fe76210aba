"""What one device can do, and whether its answers are right. Run by `benchmarks.gpu`, in a process of its own.

Ceilings are measured, not read off a data sheet: a large copy on the device, counting bytes read and written, and a
large matrix product in float32 at full precision, which is what EM asks for.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.measure import Plan, measure
from benchmarks.scenarios import SCENARIOS, problem
from benchmarks.systems import systems

# One row for each shape of work; all are small enough for float64 NumPy.
CHECKED = {"steps-1d": 64, "steps-2d": 64, "steps-8d": 8, "cells": 64, "markers": 32}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.card")
    parser.add_argument("out", type=Path)
    parser.add_argument("--small", action="store_true", help="sizes for a dry run")
    options = parser.parse_args()
    device = jax.local_devices()[0]
    card = {"platform": device.platform, "device_kind": device.device_kind, "n_devices": jax.local_device_count()}
    if device.platform != "cpu" or options.small:
        card |= ceilings(2**16 if options.small else 2**29, 128 if options.small else 8192)
        options.out.write_text(json.dumps(card))
        card["checks"] = check(
            {"steps-1d": 4} if options.small else CHECKED, "jaxgmm float32" if options.small else "jaxgmm"
        )
    options.out.write_text(json.dumps(card))


def ceilings(n_numbers: int, size: int) -> dict[str, float]:
    """Bytes per second of a copy on the device and of one to it, and float32 operations per second."""
    host = np.random.default_rng(0).standard_normal(n_numbers, dtype=np.float32)
    x = jnp.asarray(host)
    left, right = (jax.random.normal(jax.random.key(seed), (size, size), jnp.float32) for seed in (1, 2))

    def product(precision: lax.Precision) -> float:
        multiply = jax.jit(lambda a, b: jnp.matmul(a, b, precision=precision))
        return 2 * size**3 / _seconds(lambda: multiply(left, right))

    negate = jax.jit(jnp.negative)
    return {
        "copy_bytes_per_second": 2 * host.nbytes / _seconds(lambda: negate(x)),
        "host_to_device_bytes_per_second": host.nbytes / _seconds(lambda: jax.device_put(host), repeats=3),
        "float32_flops": product(lax.Precision.HIGHEST),
        "default_precision_flops": product(lax.Precision.DEFAULT),
    }


def check(n_data_sets: dict[str, int], name: str) -> list[dict]:
    """Largest differences of the mean log-likelihood from NumPy's in float64, on the CPU."""
    found = []
    for scenario_name, n in n_data_sets.items():
        scenario = SCENARIOS[scenario_name]._replace(n_data_sets=n, start="given")
        contenders = [system for system in systems() if system.name.startswith((name, "NumPy float64"))]
        rows = measure(problem(scenario), contenders, Plan(repeats=1, seconds=0.0))
        wanted = ("scenario", "system", "max_difference", "failures", "error")
        found += [
            {key: row[key] for key in wanted if key in row} for row in rows if not row["system"].startswith("NumPy")
        ]
    return found


def _seconds(work: Callable[[], jax.Array], repeats: int = 10) -> float:
    for _ in range(2):
        work().block_until_ready()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work().block_until_ready()
        times.append(time.perf_counter() - began)
    return median(times)


if __name__ == "__main__":
    main()
