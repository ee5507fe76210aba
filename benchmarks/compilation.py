"""What a first call costs, and how many programs a search over numbers of components compiles.

    python -m benchmarks.compilation

Every figure comes from a process of its own, since what one has imported and compiled it keeps.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.environment import RESULTS, environment, write

ROOT = Path(__file__).parents[1]
REPEATS = 3
# Programs that the search may compile: six for each of three lengths or so, not some for each K. Of these, the smallest
# data sets need two, for components that are narrow, or small.
MOST_PROGRAMS = 18

# Texts, not functions: nothing may be imported before the clock starts.
FIRST_FIT = """
import json, time
began = time.perf_counter()
import jax
with_jax = time.perf_counter()
import jaxgmm
with_jaxgmm = time.perf_counter()
import numpy as np
rng = np.random.default_rng(0)
x = rng.standard_normal((300, 2)) + 4 * rng.integers(3, size=(300, 1))
before_fit = time.perf_counter()
fit = jaxgmm.fit(x, 3)
seconds = time.perf_counter() - before_fit
parts = {"import_jax": with_jax - began, "import_jaxgmm": with_jaxgmm - with_jax, "first_fit": seconds}
print(json.dumps({**parts, "total": sum(parts.values()), "status": jaxgmm.Status(int(fit.status)).name}))
"""
SEARCH = """
import json, sys, time
from collections import Counter
import jax, jaxgmm
import numpy as np
n_programs = 0
def count(event, seconds, **_):
    global n_programs
    n_programs += event == "/jax/core/compile/backend_compile_duration"
jax.monitoring.register_event_duration_secs_listener(count)
rng = np.random.default_rng(0)
lengths = np.exp(rng.uniform(np.log(30), np.log(5000), 60)).astype(int)
ragged = [rng.standard_normal((n, 2)) + 4 * rng.integers(3, size=(n, 1)) for n in lengths]
statuses = Counter()
began = time.perf_counter()
for K in range(1, int(sys.argv[1]) + 1):
    fit = jaxgmm.fit(ragged, K, n_init=2, max_iter=30)
    statuses.update(jaxgmm.Status(code).name for code in fit.status.tolist())
print(json.dumps({"seconds": time.perf_counter() - began, "n_programs": n_programs, "statuses": statuses}))
"""


def main() -> None:
    results = {"environment": environment(), "first_fit": {"without_cache": first_fit(None)}}
    with tempfile.TemporaryDirectory() as cache:
        measured(FIRST_FIT, Path(cache))
        results["first_fit"]["with_cache"] = first_fit(Path(cache))
    found = measured(SEARCH, None, "20")
    results["search"] = {**found, "most_programs": MOST_PROGRAMS, "met": found["n_programs"] <= MOST_PROGRAMS}
    write(RESULTS / "compilation.json", results)
    print(json.dumps(results, indent=1))


def first_fit(cache: Path | None) -> dict:
    """Median seconds of importing JAX, of importing jaxgmm beyond it, and of the first fit; and how that fit ended."""
    found = [measured(FIRST_FIT, cache) for _ in range(REPEATS)]
    names = [name for name in found[0] if name != "status"]
    return {name: median(one[name] for one in found) for name in names} | {"status": found[0]["status"]}


def measured(program: str, cache: Path | None, *arguments: str) -> dict:
    """What a program prints in a fresh process, with JAX's compilation cache in a folder, or without one."""
    variables = {name: value for name, value in os.environ.items() if "COMPILATION_CACHE" not in name}
    if cache is not None:
        variables |= {
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
