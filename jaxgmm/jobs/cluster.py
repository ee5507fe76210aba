"""The engine that does the parts of a job as tasks of a Ray cluster.

The driver counts groups and cuts the table. Tasks sort ranges of its rows into parts, if that is needed, and then fit
one part each, which they read from the sorted files and keep in the job's directory. Only numbers of parts pass through
Ray: all nodes must see the table and that directory. A part is kept by renaming, so that it may be begun several times,
by nodes that are lost meanwhile.
"""

import os
import re
import socket
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any, NoReturn

import numpy as np

import jaxgmm
from jaxgmm.engine import caches, cores
from jaxgmm.jobs import ways
from jaxgmm.jobs.finished import Finished, Progress
from jaxgmm.jobs.request import Request
from jaxgmm.jobs.work import Work
from jaxgmm.tables import parts
from jaxgmm.tables.rows import Rows

# A task is begun again as often as its process or its node is lost. Without a limit, one that ends its process each
# time would never be told.
_RETRIES = 20

# Tasks in flight: many more than there are cores, and few enough that each answer is found at once.
_IN_FLIGHT = 1000

# Seconds after which a host is taken not to answer.
_TIMEOUT = 10

_NO_CLUSTER = "no Ray cluster answers at {!r}; start one (ray start --head) and give its address, or give local."

_is_settled = False


@contextmanager
def connected(address: str | None = None) -> Iterator[None]:
    """Connects to a cluster, unless this process is connected already.

    Args:
        address: that of a cluster; `"auto"` for the one that this machine belongs to; None or `"local"` to start one
            here, with the cores that jaxgmm may use.

    Raises:
        ImportError: Ray is not installed.
        OSError: no cluster is there.
    """
    ray = _imported()
    if ray.is_initialized():
        yield
        return
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address in (None, "local"):
            here = {"_node_ip_address": "127.0.0.1", "include_dashboard": False}
            with warnings.catch_warnings():
                # Ray starts programs of its own, in which JAX does not go on.
                warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
                ray.init(address="local", num_cpus=cores.n_cores(), **here, **quiet)
        else:
            check_answers(str(address))
            ray.init(address=address, **quiet)
    # An address of no known form is a ValueError.
    except (ConnectionError, ValueError) as error:
        raise OSError(_NO_CLUSTER.format(address)) from error
    try:
        yield
    finally:
        ray.shutdown()


def check_answers(address: str) -> None:
    """Raises OSError if an address is that of a host and a port at which nothing answers. Ray would try for minutes."""
    found = re.fullmatch(r"\[?([^/]+?)\]?:(\d+)", address)
    if found is None:
        return
    try:
        socket.create_connection((found[1], int(found[2])), _TIMEOUT).close()
    except (OSError, OverflowError) as error:
        raise OSError(_NO_CLUSTER.format(address)) from error


def by_absolute_paths(request: Request, out: Path) -> tuple[Request, Path]:
    """The same job for processes that have another working directory."""
    return request._replace(file=request.file.absolute()), out.absolute()


def check_reach(request: Request, rows: Rows) -> None:
    """Raises ValueError for a table that tasks could not read in parts."""
    if not request.by:
        raise ValueError("a cluster fits groups, and no column makes a key; name one, or fit the table here.")
    if rows.table is not None:
        raise ValueError("a cluster reads Parquet, not CSV; convert the table, as by `pyarrow.csv`.")


def on_ray(work: Work, wanted: Sequence[int], progress: Progress, waits: Event) -> Iterator[Finished]:
    """Parts are tasks of the cluster to which this process is connected, the largest first.

    A task has one core, and a GPU if the cluster has any. If no part is wanted, there need not be a cluster.
    """
    if not len(wanted):
        return
    ray = _imported()
    has_gpus = ray.cluster_resources().get("GPU", 0) >= 1
    shared = ray.put(work)
    waits.set()
    if work.cut.is_sorted_first:
        for _ in _answers(_sort, shared, range(parts.n_ranges(work.cut, work.request.columns)), n_gpus=0):
            pass
    waits.clear()
    n_rows = np.diff(work.cut.ends)
    for finished in _answers(_fit, shared, sorted(wanted, key=lambda part: -n_rows[part]), n_gpus=int(has_gpus)):
        progress(finished.part, 1, 1)
        yield finished


def _answers(task: Any, shared: Any, numbers: Sequence[int], n_gpus: int) -> Iterator[Any]:
    """What a task answers for each number, in the order of arrival. An error ends all, and names the number."""
    ray = _imported()
    # XLA's threads and Ray's count of cores agree, as each task keeps to one.
    remote = ray.remote(task).options(num_cpus=1, num_gpus=n_gpus, max_retries=_RETRIES, retry_exceptions=False)
    waiting, running = list(reversed(numbers)), {}
    try:
        while waiting or running:
            while waiting and len(running) < _IN_FLIGHT:
                number = waiting.pop()
                running[remote.remote(shared, number)] = number
            ready, _ = ray.wait(list(running))
            for reference in ready:
                number = running.pop(reference)
                try:
                    yield ray.get(reference)
                except ray.exceptions.RayError as error:
                    _refuse(task, number, error)
    finally:
        for reference in running:
            ray.cancel(reference)


def _refuse(task: Any, number: int, error: Exception) -> NoReturn:
    """Raises what a task has raised, with the number of the part."""
    cause = getattr(error, "cause", None) or error
    what = f"part {number}" if task is _fit else f"range {number} of the rows"
    sentence = f"{what} could not be done: {cause}"
    for kind in (ValueError, OSError):
        if isinstance(cause, kind):
            raise kind(sentence) from error
    raise RuntimeError(f"{what} could not be done ({type(cause).__name__}): {cause}") from error


def _sort(work: Work, number: int) -> None:
    """Sorts one range of rows into the parts."""
    parts.sort(work.rows, work.cut, work.request.columns, [number], work.aside)


def _fit(work: Work, part: int) -> Finished:
    """Fits one part and keeps it."""
    _settle()
    began = time.perf_counter()
    (groups,) = ways.read(work, [part])
    read = time.perf_counter()
    notes = ways.fit(work, part, groups, lambda *_: None)
    seconds = {"read": round(read - began, 3), "fit": round(time.perf_counter() - read, 3)}
    return Finished(part, notes, {"host": os.uname().nodename, "process": os.getpid(), "seconds": seconds})


def _settle() -> None:
    """Prepares a worker process before JAX starts; programs stay in it from one part to the next."""
    global _is_settled  # noqa: PLW0603 (a process starts once)
    if _is_settled:
        return
    _is_settled = True
    if not os.environ.get("CUDA_VISIBLE_DEVICES"):
        cores.keep_to_one()
    directory = caches.of_node()
    if directory is not None:
        jaxgmm.keep_programs(directory)


def _imported() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray would warn that tasks without a GPU will no longer be kept from seeing one.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray  # noqa: PLC0415 (optional)
    except ImportError:
        raise ImportError("the engine 'ray' needs Ray: pip install 'jaxgmm[ray]'.") from None
    return ray
