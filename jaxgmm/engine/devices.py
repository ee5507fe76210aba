"""Chunks of data sets over devices and cores, within a memory budget.

XLA works through small batched operations on one core, so on a CPU one Python thread per core each runs a chunk of its
own; JAX releases the interpreter lock meanwhile. On GPUs a thread per device does.

All sizes that depend on the machine are chosen here.
"""

import os
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import cycle
from threading import Lock
from typing import Any, NamedTuple, TypeVar

import jax

Device = Any  # a jax.Device, whose type its stubs do not export
Chunk = TypeVar("Chunk")

# Programs, each with its device, that this process has compiled.
_COMPILED: set[tuple[Hashable, Device]] = set()


class Machine(NamedTuple):
    """What sizes are chosen from.

    Attributes:
        devices: the device of each worker; a CPU device appears once for every core.
        working_set: bytes that the slots of one worker may fill, so that they stay in its cache, or fill a GPU.
        chunk_budget: bytes that a worker's chunk may take in all.
    """

    devices: list[Device]
    working_set: int
    chunk_budget: int


def machine() -> Machine:
    """All local devices of the platform that JAX uses by default."""
    devices = jax.local_devices()
    if devices[0].platform == "cpu":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return Machine(devices[:1] * cores, working_set=2**20, chunk_budget=192 * 2**20)
    return Machine(devices, working_set=256 * 2**20, chunk_budget=4 * 2**30)


def n_slots(run_bytes: int, machine: Machine) -> int:
    """How many runs step together: a power of two whose working set fits, 64 at most on a CPU.

    At 64, arithmetic over slots fills whole vector registers on any CPU. Fewer leave a remainder that compilers round
    differently, and a run's last bits may then depend on the slot it sat in.
    """
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
    work: Callable[[Chunk], int],
    chunks: Iterable[Chunk],
    program_of: Callable[[Chunk], Hashable],
    machine: Machine,
    report: Callable[[int], None],
) -> None:
    """Does `work` on every chunk, on all devices, with float64 enabled.

    An exception, the user's interrupt included, stops the chunks not yet begun.

    Args:
        work: what to do; returns how many runs it has done.
        chunks: the chunks.
        program_of: what is compiled for a chunk. Of the chunks that need a program not met before, one goes ahead, and
            the others find it compiled.
        machine: the devices to work on.
        report: is told what each call of `work` returned.
    """
    chunks = list(chunks)
    devices = cycle(machine.devices)
    compiling = {(program_of(chunk), device): Lock() for chunk in chunks for device in set(machine.devices)}

    def on_device(chunk: Chunk, device: Device) -> int:
        program = (program_of(chunk), device)
        # All settings are local to a thread. NaN is an answer here, and no cause to stop the other data sets.
        with jax.enable_x64(True), jax.default_device(device), jax.debug_nans(False), jax.debug_infs(False):
            if program in _COMPILED:
                return work(chunk)
            with compiling[program]:
                if program not in _COMPILED:
                    n_done = work(chunk)
                    _COMPILED.add(program)
                    return n_done
            return work(chunk)

    if len(chunks) == 1:
        report(on_device(chunks[0], machine.devices[0]))
        return
    pool = ThreadPoolExecutor(len(machine.devices), thread_name_prefix="jaxgmm")
    try:
        for future in as_completed([pool.submit(on_device, *job) for job in zip(chunks, devices, strict=False)]):
            report(future.result())
    finally:
        # Chunks that are under way cannot be stopped, but need not be waited for.
        pool.shutdown(wait=False, cancel_futures=True)


def _power_of_two_below(n: int) -> int:
    return 1 << (n.bit_length() - 1)
