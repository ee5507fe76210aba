"""What a machine can do: EM written by hand for one D and K, in C for a CPU and in CUDA C++ for an NVIDIA card.

Each program makes a fixed number of iterations on random data of the scenario's shape, and keeps its own clock: no copy
and no compilation counts.
"""

import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from benchmarks.environment import CORES
from benchmarks.outcome import Fits, Outcome, System
from benchmarks.scenarios import Problem, Scenario

FOR_A_CPU, FOR_A_CARD = (Path(__file__).with_name(f"fused_em_limit.{kind}") for kind in ("c", "cu"))
FLAGS = ["-O3", "-march=native", "-ffast-math", "-fopenmp"]
WIDE_VECTORS = "-mprefer-vector-width=512"

# Of the CUDA program: samples of a run in the registers of its lanes, and bytes in the shared memory of its block.
MOST_IN_REGISTERS, MOST_SHARED = 512, 220_000


def systems() -> list[System]:
    device = jax.local_devices()[0]
    of_card = System("CUDA limit", device.device_kind, "float32", _suits_card, _of_card)
    return [System("C limit", "cpu", "float32", _is_counted, _of_cpu), *([of_card] if device.platform == "gpu" else [])]


def _is_counted(scenario: Scenario) -> bool:
    """The programs make a fixed number of iterations of the full family."""
    return scenario.tol == 0 and scenario.models[0].covariance_type == "full"


def _suits_card(scenario: Scenario) -> bool:
    n, d, k = scenario.n_samples, scenario.n_features, scenario.models[0].n_components
    if not _is_counted(scenario) or not isinstance(n, int):
        return False
    if d < 4:
        return n <= MOST_IN_REGISTERS
    # A component has a lane, and samples are copied four numbers at a time.
    return k in (4, 8, 16, 32) and n * d % 4 == 0 and 4 * n * d <= MOST_SHARED


def _of_cpu(problem: Problem) -> Callable[[], Outcome]:
    scenario = problem.scenario
    n_samples, runs = int(problem.lengths[0]), len(problem.data) * scenario.n_init
    if runs < CORES:
        # One run has one thread, so a single data set is cut in pieces; joining their sums would cost nothing.
        runs, n_samples = runs * CORES, n_samples // CORES
    program = Path(tempfile.mkdtemp()) / "limit"
    sizes = [f"-DD={scenario.n_features}", f"-DK={scenario.models[0].n_components}"]
    built = [*sizes, str(FOR_A_CPU), "-o", str(program), "-lm"]
    # Compilers that do not know wide vectors do without.
    _compile([["cc", *flags, *built] for flags in ([*FLAGS, WIDE_VECTORS], FLAGS)])
    # It fits whole vectors of 16 samples.
    scale = n_samples / (n_samples // 16 * 16)
    return _run(problem, [str(program), str(runs), str(n_samples), str(scenario.max_iter)], scale)


def _of_card(problem: Problem) -> Callable[[], Outcome]:
    scenario, program = problem.scenario, Path(tempfile.mkdtemp()) / "limit"
    compile_for_card(
        program,
        {"D": scenario.n_features, "K": scenario.models[0].n_components, "N": int(problem.lengths[0])},
        jax.local_devices()[0].compute_capability,
    )
    return _run(problem, [str(program), str(len(problem.data) * scenario.n_init), str(scenario.max_iter)], 1.0)


def compile_for_card(program: Path, sizes: dict[str, int], compute_capability: str) -> None:
    """Builds the CUDA program; no card is needed.

    Raises:
        RuntimeError: there is no CUDA compiler, or it fails.
    """
    compiler = cuda_compiler()
    if compiler is None:
        raise RuntimeError("no nvcc was found, neither on the PATH nor beside JAX's CUDA libraries")
    defined = [f"-D{name}={size}" for name, size in sizes.items()]
    target = f"-arch=sm_{compute_capability.replace('.', '')}"
    _compile([[str(compiler), "-O3", target, "-cudart", "static", *defined, str(FOR_A_CARD), "-o", str(program)]])


def cuda_compiler() -> Path | None:
    """`nvcc` on the PATH, or that of the packages from which JAX takes its CUDA libraries."""
    on_path, packages = shutil.which("nvcc"), importlib.util.find_spec("nvidia")
    places = (packages and packages.submodule_search_locations) or ()
    beside = (found for place in places for found in Path(place).glob("*/bin/nvcc"))
    return Path(on_path) if on_path else next(beside, None)


def _compile(commands: list[list[str]]) -> None:
    """Runs compilers in turn until one succeeds."""
    for command in commands:
        built = subprocess.run(command, check=False, capture_output=True, text=True)
        if built.returncode == 0:
            return
    raise RuntimeError(f"{Path(command[0]).name} failed: {built.stderr.strip()[:300]}")


def _run(problem: Problem, command: list[str], scale: float) -> Callable[[], Outcome]:
    """Runs a program and reads the seconds that it prints."""
    scenario = problem.scenario

    def run() -> Outcome:
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        iterations = np.full(len(problem.data), scenario.max_iter * scenario.n_init)
        unknown = (np.empty((0, 0)), np.empty((0, 0, 0)), np.empty((0, 0, 0, 0)))
        seconds = float(re.search(r": ([0-9.]+) s,", printed)[1])
        return Outcome([Fits(*unknown, Counter(), iterations)], seconds * scale)

    return run
