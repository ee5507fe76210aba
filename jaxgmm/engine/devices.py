"""Chunks of data sets over devices and cores, within a memory budget.

XLA works through small batched operations on one core, so on a CPU one Python thread per core each runs a chunk of its
own; JAX releases the interpreter lock meanwhile. On GPUs a thread per device does.

All sizes that depend on the machine are chosen here.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import cycle
from typing import NamedTuple, TypeVar

import jax

Chunk = TypeVar("Chunk")


class Machine(NamedTuple):
    """What sizes are chosen from.

    Attributes:
        devices: the device of each worker; a CPU device appears once for every core.
        working_set: bytes that the slots of one worker may fill, so that they stay in its cache, or fill a GPU.
        chunk_budget: bytes that a worker's chunk may take in all.
    """

    devices: list[jax.Device]
    working_set: int
    chunk_budget: int


def machine() -> Machine:
    """The devices that JAX would use by default."""
    devices = jax.local_devices()
    if devices[0].platform == "cpu":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return Machine(devices[:1] * cores, working_set=512 * 1024, chunk_budget=192 * 2**20)
    return Machine(devices, working_set=256 * 2**20, chunk_budget=4 * 2**30)


def n_slots(run_bytes: int, machine: Machine) -> int:
    """How many runs step together: a power of two whose working set fits, 64 at most on a CPU."""
    most = 64 if machine.devices[0].platform == "cpu" else 2**16
    return _power_of_two_below(min(most, max(1, machine.working_set // run_bytes)))


def chunk_size(n_data_sets: int, data_set_bytes: int, machine: Machine) -> int:
    """How many data sets make a chunk: a power of two within the budget, small enough to keep all workers busy."""
    within_budget = _power_of_two_below(max(1, machine.chunk_budget // data_set_bytes))
    n_workers = len(machine.devices)
    # Several chunks for each worker even out their different lengths.
    shared_out = -(-n_data_sets // (4 * n_workers if n_workers > 1 else 1))
    return min(within_budget, 1 << max(0, shared_out - 1).bit_length())


def map_chunks(
    work: Callable[[Chunk], int], chunks: Iterable[Chunk], machine: Machine, report: Callable[[int], None]
) -> None:
    """Does `work` on every chunk, on all devices; `report` is told what each call returned.

    `work` runs with float64 enabled. An exception, the user's interrupt included, stops the chunks not yet begun.
    """
    chunks = list(chunks)
    jobs = zip(chunks, cycle(range(len(machine.devices))), strict=False)

    def on_device(chunk: Chunk, worker: int) -> int:
        # Both settings are local to a thread.
        with jax.enable_x64(True), jax.default_device(machine.devices[worker]):
            return work(chunk)

    if len(chunks) == 1:
        report(on_device(chunks[0], 0))
        return
    with ThreadPoolExecutor(len(machine.devices), thread_name_prefix="jaxgmm") as pool:
        futures = [pool.submit(on_device, chunk, worker) for chunk, worker in jobs]
        try:
            for future in as_completed(futures):
                report(future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _power_of_two_below(n: int) -> int:
    return 1 << (n.bit_length() - 1)
