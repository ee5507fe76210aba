"""The engine that does the parts of a job as tasks of a Ray cluster.

Tasks count the groups of ranges of rows, merge these counts by ranges of keys, and sort the rows into parts, if that is
needed. Then they fit one part each, which they read from the sorted files and keep in the job's directory. Little but
numbers passes through Ray: all nodes must see the table and that directory. A part is kept by renaming, so that it may
be begun several times, by nodes that are lost meanwhile.
"""

import os
import re
import shutil
import socket
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from threading import Event
from typing import Any, NoReturn

import numpy as np

import jaxgmm
from jaxgmm.engine import caches, cores
from jaxgmm.jobs import ways
from jaxgmm.jobs.engine import Engine, Finished, Progress
from jaxgmm.jobs.request import TableRequest
from jaxgmm.jobs.work import Work
from jaxgmm.tables import parts, shuffle
from jaxgmm.tables.counting import check_features
from jaxgmm.tables.parts import Plan
from jaxgmm.tables.ranges import Ranges, bounds_of
from jaxgmm.tables.rows import Rows
from jaxgmm.tables.wording import shortened

# A task is begun again as often as its process or its node is lost. Without a limit, one that ends its process each
# time would never be told.
_RETRIES = 20

# Tasks in flight: many more than there are cores, and few enough that each answer is found at once.
_IN_FLIGHT = 1000

# Seconds after which a host is taken not to answer.
_TIMEOUT = 10

_NO_CLUSTER = (
    "no Ray cluster answers at {!r}; start one (ray start --head) and give its address as HOST:PORT, or give local. "
    "If it asks for a token, set RAY_AUTH_MODE=token."
)

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


def by_absolute_paths(request: TableRequest, out: Path) -> tuple[TableRequest, Path]:
    """The same job for processes that have another working directory."""
    return request._replace(file=request.file.absolute()), out.absolute()


def check_reach(request: TableRequest, rows: Rows) -> None:
    """Raises ValueError for a table that tasks could not read in parts."""
    if not request.by:
        raise ValueError("a cluster fits groups, and no column makes a key; name one, or fit the table here.")
    if rows.table is not None:
        raise ValueError("a cluster reads Parquet, not CSV; convert the table, as by `pyarrow.csv`.")


@contextmanager
def on_ray(address: str | None) -> Iterator[Engine]:
    """All is done by tasks of a cluster, to which this process connects as soon as there is anything to do."""
    with ExitStack() as stack:

        def count(request: TableRequest, rows: Rows, directory: Path) -> Plan:
            stack.enter_context(connected(address))
            return _counted(request, rows, directory / "counted")

        def fit(work: Work, wanted: Sequence[int], progress: Progress, waits: Event) -> Iterator[Finished]:
            if not wanted:
                return
            stack.enter_context(connected(address))
            yield from _fitted(work, wanted, progress, waits)

        yield Engine(count, fit)


def _counted(request: TableRequest, rows: Rows, aside: Path) -> Plan:
    """The plan of a table; of its keys, the driver holds those of samples, and of the ends of ranges and parts."""
    ray = _imported()
    check_features(rows, request.by, request.features)
    counting = shuffle.Counting(rows, request.by, request.weights, bounds_of(rows, len(request.columns)), aside)
    samples = _all(shuffle.sample, ray.put(counting), shuffle.sampled(counting))
    first_keys = shuffle.divided(samples, int(counting.bounds[-1]))
    shared = ray.put(counting._replace(first_keys=first_keys))
    counted = _all(shuffle.count, shared, range(counting.n_ranges))
    found = Ranges(counting.bounds, np.cumsum([0, *(own.n_rows for own in counted)]))
    rows_per_part = request.rows_per_part(int(found.before[-1]))
    merging = shuffle.Merging(request.by, aside, found.with_rows, rows_per_part)
    plans = _all(shuffle.merge, ray.put(merging), range(first_keys.num_rows + 1))
    shutil.rmtree(aside, ignore_errors=True)
    return parts.successive(plans, found, is_in_order=shuffle.are_in_order(counted))


def _fitted(work: Work, wanted: Sequence[int], progress: Progress, waits: Event) -> Iterator[Finished]:
    """Parts are tasks, the largest first. A task has one core, and a GPU if the cluster has any."""
    ray, cut = _imported(), work.plan.cut
    has_gpus = ray.cluster_resources().get("GPU", 0) >= 1
    shared = ray.put(work)
    waits.set()
    if cut.is_sorted_first:
        _all(_sort, shared, cut.ranges.with_rows)
    waits.clear()
    n_rows = np.diff(cut.ends)
    in_order = sorted(wanted, key=lambda part: -n_rows[part])
    for _, finished in _answers(_fit, shared, in_order, n_gpus=int(has_gpus)):
        progress(finished.part, 1, 1)
        yield finished


def _all(task: Any, shared: Any, numbers: Sequence[int]) -> list[Any]:
    """What a task answers for each number, in their order."""
    answers = dict(_answers(task, shared, numbers, n_gpus=0))
    return [answers[number] for number in numbers]


def _answers(task: Any, shared: Any, numbers: Sequence[int], n_gpus: int) -> Iterator[tuple[int, Any]]:
    """Each number and what a task answers for it, in the order of arrival. An error ends all, and names the number."""
    ray = _imported()
    # XLA's threads and Ray's count of cores agree, as each task keeps to one.
    remote = ray.remote(_done).options(num_cpus=1, num_gpus=n_gpus, max_retries=_RETRIES, retry_exceptions=False)
    of_driver, waiting, running = _versions(), list(reversed(numbers)), {}
    try:
        while waiting or running:
            while waiting and len(running) < _IN_FLIGHT:
                number = waiting.pop()
                running[remote.remote(task, of_driver, shared, number)] = number
            ready, _ = ray.wait(list(running))
            for reference in ready:
                number = running.pop(reference)
                try:
                    yield number, ray.get(reference)
                except ray.exceptions.RayError as error:
                    _refuse(task, number, error)
    finally:
        for reference in running:
            ray.cancel(reference)


def _refuse(task: Any, number: int, error: Exception) -> NoReturn:
    """Raises what a task has raised, with the number of the part."""
    cause = getattr(error, "cause", None) or error
    what = {_fit: "part {}", shuffle.merge: "range {} of the keys"}.get(task, "range {} of the rows").format(number)
    sentence = f"{what} could not be done: {cause}"
    for kind in (ValueError, OSError):
        if isinstance(cause, kind):
            raise kind(sentence) from error
    reason = f"{what} could not be done ({type(cause).__name__}): {shortened(str(cause))}"
    if isinstance(cause, _imported().exceptions.RayError):
        raise OSError(f"{reason}; check that all machines have enough memory, and the same jaxgmm.") from error
    raise RuntimeError(reason) from error


def _done(task: Any, versions: dict[str, str], shared: Any, number: int) -> Any:
    """What a task answers for a number, on a machine with the versions of the driver."""
    check_versions(versions)
    return task(shared, number)


def _sort(work: Work, number: int) -> None:
    """Sorts one range of rows into the parts."""
    parts.sort(work.rows, work.plan.cut, work.request.columns, [number], work.aside)


def _fit(work: Work, part: int) -> Finished:
    """Fits one part and keeps it."""
    _settle()
    began = time.perf_counter()
    (groups,) = ways.read(work, [part])
    read = time.perf_counter()
    notes = ways.fit(work, part, groups, lambda *_: None)
    seconds = {"read": round(read - began, 3), "fit": round(time.perf_counter() - read, 3)}
    return Finished(part, notes, {"host": os.uname().nodename, "process": os.getpid(), "seconds": seconds})


@cache
def _versions() -> dict[str, str]:
    """Those of packages on which the bits of answers depend."""
    return {"jaxgmm": jaxgmm.__version__} | {name: metadata.version(name) for name in ("jax", "jaxlib", "numpy")}


def check_versions(of_driver: dict[str, str]) -> None:
    """Raises ValueError if this machine has other versions of packages than the driver."""
    for name, version in _versions().items():
        if version != of_driver[name]:
            raise ValueError(
                f"{os.uname().nodename} has {name} {version}, and the driver {of_driver[name]}; "
                "install the same versions on all machines."
            )


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
