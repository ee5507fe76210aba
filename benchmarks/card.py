"""What one device can do, and whether its answers are right. Run by `benchmarks.gpu`, in a process of its own.

Ceilings are measured, not read off a data sheet: a large copy on the device, counting bytes read and written, and a
large matrix product in float32 at full precision, which is what EM asks for.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.environment import error_of, write

# Work of a narrow shape and of a wide one, small enough for float64 NumPy. The tests look at more.
CHECKED = {"steps-2d": 64, "steps-8d": 8}

# How float32 matrices are multiplied: as EM asks for it now, and in several passes of tensor cores; names of
# `lax.DotAlgorithmPreset`.
ALGORITHMS = ("F32_F32_F32", "TF32_TF32_F32_X3", "BF16_BF16_F32_X6", "BF16_BF16_F32_X9")

# Components, features of samples and samples of the E-step's product with which they are tried: those of `one-large`.
E_STEP = (32, 153, 2**18)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.card")
    parser.add_argument("out", type=Path)
    parser.add_argument("--small", action="store_true", help="sizes for a dry run")
    options = parser.parse_args()
    device = jax.local_devices()[0]
    card = {"platform": device.platform, "device_kind": device.device_kind, "n_devices": jax.local_device_count()}
    write(options.out, card)
    if device.platform != "cpu" or options.small:
        card["errors"] = {}
        for name, ceiling in ceilings(2**16 if options.small else 2**28, 128 if options.small else 8192).items():
            try:
                card[name] = ceiling()
            except Exception as error:
                card["errors"][name] = error_of(error)
            write(options.out, card)
        card["products"] = {}
        for name in ALGORITHMS:
            try:
                card["products"][name] = product_by(name, *((4, 10, 256) if options.small else E_STEP))
            except Exception as error:
                card["errors"][name] = error_of(error)
            write(options.out, card)
        card["checks"] = []
        for name, n in ({"steps-1d": 4} if options.small else CHECKED).items():
            try:
                card["checks"] += check(name, n, "jaxgmm float32" if options.small else "jaxgmm mixed")
            except Exception as error:
                card["checks"].append({"scenario": name, "system": "all", "error": error_of(error)})
            write(options.out, card)


def ceilings(n_numbers: int, size: int) -> dict[str, Callable[[], float]]:
    """Bytes per second of a copy on the device and of one to it, and float32 operations per second."""

    def host() -> np.ndarray:
        return np.random.default_rng(0).standard_normal(n_numbers, dtype=np.float32)

    def copy() -> float:
        x, negate = jnp.asarray(host()), jax.jit(jnp.negative)
        return 2 * x.nbytes / _seconds(lambda: negate(x))

    def copy_in() -> float:
        x = host()
        return x.nbytes / _seconds(lambda: jax.device_put(x), repeats=3)

    def product(precision: lax.Precision) -> float:
        return _flops(*_normal((size, size), (size, size)), precision)

    return {
        "float32_flops": lambda: product(lax.Precision.HIGHEST),
        "default_precision_flops": lambda: product(lax.Precision.DEFAULT),
        "copy_bytes_per_second": copy,
        "host_to_device_bytes_per_second": copy_in,
    }


def product_by(algorithm: str, n_components: int, n_rows: int, n_samples: int) -> dict[str, float]:
    """Operations per second of the product of an E-step, and its largest error relative to the largest entry."""
    left, right = _normal((n_components, n_rows), (n_rows, n_samples))
    precision = lax.DotAlgorithmPreset[algorithm]
    exact = np.asarray(left, np.float64) @ np.asarray(right, np.float64)
    errors = np.abs(np.asarray(jnp.matmul(left, right, precision=precision)) - exact)
    return {
        "flops": _flops(left, right, precision),
        "largest_error": float(np.max(errors) / np.max(np.abs(exact))),
    }


def check(name: str, n_data_sets: int, of: str) -> list[dict]:
    """Largest differences of the mean log-likelihood from NumPy's in float64, on the CPU."""
    # What jaxgmm lacks should not cost the ceilings, so it is imported here.
    from benchmarks.measure import Plan, measure  # noqa: PLC0415
    from benchmarks.scenarios import SCENARIOS, problem  # noqa: PLC0415
    from benchmarks.systems import systems  # noqa: PLC0415

    scenario = SCENARIOS[name]._replace(n_data_sets=n_data_sets, start="given")
    contenders = [system for system in systems() if system.name.startswith((of, "NumPy float64"))]
    rows = measure(problem(scenario), contenders, Plan(repeats=1, seconds=0.0))
    wanted = ("scenario", "system", "max_difference", "failures", "error")
    return [{key: row[key] for key in wanted if key in row} for row in rows if not row["system"].startswith("NumPy")]


def _normal(*shapes: tuple[int, int]) -> list[jax.Array]:
    return [jax.random.normal(jax.random.key(seed), shape, jnp.float32) for seed, shape in enumerate(shapes)]


def _flops(left: jax.Array, right: jax.Array, precision: lax.Precision | lax.DotAlgorithmPreset) -> float:
    """Operations per second of a product."""
    multiply = jax.jit(lambda a, b: jnp.matmul(a, b, precision=precision))
    return 2 * left.size * right.shape[1] / _seconds(lambda: multiply(left, right))


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
