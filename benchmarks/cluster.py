"""Groups of a table on a Ray cluster: what it costs beside one process, and what would give way on larger ones.

python -m benchmarks.cluster

Each way is a process of its own, which fits the table several times; the first time compiles. Times are those of
`fit_table`, from the file to its parts: counting, sorting, fitting and writing. The simulation schedules parts, as they
were measured here, on more cores.
"""

import hashlib
import heapq
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import jaxgmm
from benchmarks.environment import CORES, RESULTS, environment, memory, write
from jaxgmm.distributed import fit_table, join
from jaxgmm.engine import caches
from jaxgmm.engine import cores as limits
from jaxgmm.jobs.cluster import connected
from jaxgmm.tables import parts, shuffle
from jaxgmm.tables.rows import open_rows

Value = TypeVar("Value")

BY, FEATURES = ["plate", "well"], ["red", "green"]
N_GROUPS, LARGEST, N_LARGE, LARGE = 20_000, 2_000, 4, 50_000
N_COMPONENTS, N_INIT, REPEATS = 3, 10, 3
# Engine and cores of each way.
WAYS = [("process", 1), ("ray", 1), ("process", CORES), ("ray", CORES)]
NODES, CORES_OF_A_NODE, MANY, LARGEST_PART = (1, 8, 64, 512), 16, 10**8, 2**20


def main() -> None:
    if len(sys.argv) > 1:
        engine, cores, path = sys.argv[1:]
        print(json.dumps(fitted(engine, int(cores), Path(path))))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells.parquet"
        table = {"groups": N_GROUPS + N_LARGE, "rows": write_table(path)}
        ways = [in_a_process(engine, cores, path) for engine, cores in WAYS]
        costs = rates(path, path.parent / f"ray-{CORES}", ways[-1]["tasks_per_second"])
    for way in ways:
        alone = next(own for own in ways if (own["engine"], own["cores"]) == ("process", way["cores"]))
        way["overhead"] = round(way["seconds"] / alone["seconds"] - 1, 3)
    results = {"environment": environment(), "table": table, "ways": ways}
    results |= {"costs": costs, "simulation": simulated(costs)}
    write(RESULTS / "cluster.json", results)
    print(json.dumps(results, indent=1))


def write_table(path: Path) -> int:
    """Groups of three clusters, most of them small, in no order; returns the number of rows."""
    rng = np.random.default_rng(0)
    small = np.clip(30 * (1 - rng.random(N_GROUPS)) ** (-1 / 1.45), 30, LARGEST).astype(int)
    sizes = np.concatenate([small, np.full(N_LARGE, LARGE)])
    group = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    x = rng.normal(size=(len(group), 2)) + 4 * rng.integers(3, size=(len(group), 1))
    columns = {
        "plate": [f"P{i // 384:02}" for i in range(len(sizes))],
        "well": [f"W{i % 384:03}" for i in range(len(sizes))],
    }
    table = pa.table({name: pa.array(values).take(pa.array(group)) for name, values in columns.items()})
    table = table.append_column("red", pa.array(x[:, 0])).append_column("green", pa.array(x[:, 1]))
    pq.write_table(table, path, row_group_size=2**18)
    return len(group)


def in_a_process(engine: str, cores: int, path: Path) -> dict:
    words = [sys.executable, "-m", "benchmarks.cluster", engine, str(cores), str(path)]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def fitted(engine: str, cores: int, path: Path) -> dict:
    """Seconds of the first time and of the others, the peak of this process's memory, and what came of it."""
    limits.keep_to(cores)
    if engine == "ray":
        with connected("local"):
            return measured(engine, cores, path) | {"tasks_per_second": tasks_per_second()}
    jaxgmm.keep_programs(caches.of_node() or path.parent)
    return measured(engine, cores, path)


def measured(engine: str, cores: int, path: Path) -> dict:
    seconds, out = [], path.parent / f"{engine}-{cores}"
    for _ in range(REPEATS):
        shutil.rmtree(out, ignore_errors=True)
        began = time.perf_counter()
        found = fit_table(path, BY, FEATURES, N_COMPONENTS, out=out, engine=engine, n_init=N_INIT)
        seconds.append(time.perf_counter() - began)
    fits = pa.concat_tables([pq.read_table(own) for own in found.paths("fits")])
    first, *others = seconds
    return {
        "engine": engine,
        "cores": cores,
        "seconds": median(others),
        "spread": [min(others), max(others)],
        "first_seconds": first,
        "parts": len(found.paths("fits")),
        # Equal where all bits are.
        "bits": hashlib.sha256(fits["log_likelihood"].to_numpy().tobytes()).hexdigest()[:16],
        "log_likelihood": float(np.sum(fits["log_likelihood"].to_numpy())),
        "status": {row["values"]: row["counts"] for row in fits["status"].value_counts().to_pylist()},
        "peak_mb": round(memory("VmHWM") / 2**20),
    }


def tasks_per_second(n_tasks: int = 2000) -> float:
    """How many tasks that do nothing are begun and answered in a second."""
    import ray  # noqa: PLC0415 (not in every process)

    task = ray.remote(lambda: None)
    ray.get(task.remote())
    began = time.perf_counter()
    ray.get([task.remote() for _ in range(n_tasks)])
    return n_tasks / (time.perf_counter() - began)


def rates(path: Path, out: Path, tasks: float) -> dict:
    """What each phase costs here, on one core, for a row, a group or a part."""
    # These import JAX, which the driver of a cluster does not.
    import jax  # noqa: PLC0415

    from jaxgmm.driver.plan import plan_for  # noqa: PLC0415
    from jaxgmm.driver.program import Request  # noqa: PLC0415
    from jaxgmm.engine.batch import Sizes  # noqa: PLC0415
    from jaxgmm.engine.devices import machine  # noqa: PLC0415

    manifest = [json.loads(line) for line in (out / "parts" / "manifest.jsonl").read_text().splitlines()]
    n_rows, n_groups = (sum(part[name] for part in manifest) for name in ("rows", "groups"))
    rows = open_rows(path, [*BY, *FEATURES], keys=BY)
    plan = parts.plan(rows, BY, FEATURES, None, lambda n: n // len(manifest))
    columns, aside, with_rows = [*BY, *FEATURES], path.parent / "sorted", plan.cut.ranges.with_rows
    is_sorted, _ = timed(lambda: parts.sort(rows, plan.cut, columns, with_rows, aside))
    distinct, n_each = plan.sizes
    sizes = Sizes(distinct, n_rows, len(FEATURES), False, False, n_each)
    request = Request("k-means++", N_INIT, N_INIT, "mixed", 1e-9, 1000, jax.random.key(0))
    choosing, _ = timed(lambda: plan_for(sizes, [(N_COMPONENTS, "full", 1e-12)], request, machine(1)))
    joining, _ = timed(lambda: join(out))
    return {
        **counting_rates(path.parent),
        "sort_seconds_per_row": is_sorted / n_rows,
        "read_seconds_per_row": sum(part["seconds"]["read"] for part in manifest) / n_rows,
        "fit_seconds_per_row": sum(part["seconds"]["fit"] for part in manifest) / n_rows,
        "plan_seconds_per_part": choosing,
        "join_seconds_per_group": joining / n_groups,
        "rows_per_group": n_rows / n_groups,
        "tasks_per_second": tasks,
    }


def counting_rates(folder: Path, n_rows: int = 2**21) -> dict:
    """What counting costs for a row where a range of rows hardly holds two of any group, as in very long tables."""
    path, aside = folder / "many.parquet", folder / "counted"
    keys = np.random.default_rng(0).integers(n_rows, size=n_rows)
    pq.write_table(pa.table({"cell": keys, "x": np.zeros(n_rows)}), path, row_group_size=2**18)
    rows = open_rows(path, ["cell", "x"], keys=["cell"])
    counting = shuffle.Counting(rows, ["cell"], None, np.array([0, n_rows]), aside)
    first_keys = shuffle.divided([shuffle.sample(counting, 0)], n_rows)
    counted, _ = timed(lambda: shuffle.count(counting._replace(first_keys=first_keys), 0))
    merged, _ = timed(lambda: shuffle.merge(shuffle.Merging(["cell"], aside, [0], LARGEST_PART), 0))
    return {"count_seconds_per_row": counted / n_rows, "merge_seconds_per_row": merged / n_rows}


def timed(work: Callable[[], Value]) -> tuple[float, Value]:
    began = time.perf_counter()
    value = work()
    return time.perf_counter() - began, value


def simulated(measured: dict) -> list[dict]:
    """Seconds of each phase for many groups, on clusters of several sizes: parts go to the first free core."""
    n_rows = MANY * measured["rows_per_group"]
    n_parts = int(-(-n_rows // LARGEST_PART))
    rng = np.random.default_rng(0)
    # Parts differ by a tenth or so in work.
    own = n_rows / n_parts * (measured["read_seconds_per_row"] + measured["fit_seconds_per_row"])
    durations = own * (1 + 0.1 * rng.standard_normal(n_parts)) + measured["plan_seconds_per_part"]
    found = []
    for nodes in NODES:
        n_cores = nodes * CORES_OF_A_NODE
        phases = {
            "count": n_rows * (measured["count_seconds_per_row"] + measured["merge_seconds_per_row"]) / n_cores,
            "sort": n_rows * measured["sort_seconds_per_row"] / n_cores,
            "fit": scheduled(durations, n_cores, 1 / measured["tasks_per_second"]),
            "join": MANY * measured["join_seconds_per_group"],
        }
        of_plans = measured["plan_seconds_per_part"] / np.mean(durations)
        found.append(
            {
                "nodes": nodes,
                "parts": n_parts,
                "seconds": {name: round(own, 1) for name, own in phases.items()},
                "share_of_plans_in_fit": round(float(of_plans), 3),
                "first_to_give_way": max(phases, key=phases.__getitem__),
            }
        )
    return found


def scheduled(durations: np.ndarray, n_cores: int, apart: float) -> float:
    """When the last part ends, if each goes to the core that is free first, and they begin at least so far apart."""
    free = [0.0] * n_cores
    for number, duration in enumerate(durations.tolist()):
        heapq.heappush(free, max(heapq.heappop(free), number * apart) + duration)
    return max(free)


if __name__ == "__main__":
    main()
