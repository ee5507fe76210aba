"""Chunks of data sets over devices and cores, within a memory budget.

XLA works through small batched operations on one core, so on a CPU one Python thread per core each runs a chunk of its
own; JAX releases the interpreter lock meanwhile. A GPU has two: of several chunks, one is copied while another is
computed.

All sizes that depend on the machine are chosen here.
"""

import functools
import os
import warnings
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event, Lock
from typing import Any, NamedTuple, TypeVar

import jax

from jaxgmm import forking
from jaxgmm.engine import fused

Device = Any  # a jax.Device, whose type its stubs do not export
Item = TypeVar("Item")
Value = TypeVar("Value")

# Programs, each with its device, that this process has compiled.
_COMPILED: set[tuple[Hashable, Device]] = set()


class Machine(NamedTuple):
    """What sizes are chosen from.

    Attributes:
        devices: the device of each worker; one appears as often as it has workers.
        working_set: bytes that the slots of one worker may fill, so that they stay in its cache, or fill a GPU.
        chunk_budget: bytes that a worker's chunk may take in all.
        has_kernels: whether runs can have kernels of their own; see `jaxgmm.engine.fused`.
    """

    devices: list[Device]
    working_set: int
    chunk_budget: int
    has_kernels: bool = False

    @property
    def is_cpu(self) -> bool:
        """Whether workers are cores."""
        return self.devices[0].platform == "cpu"

    @property
    def n_devices(self) -> int:
        """Devices, each counted once. The cores of a CPU are one."""
        return len(set(self.devices))

    @property
    def n_cores(self) -> int:
        """Cores that the devices are worth, to judge how long work will take."""
        return len(self.devices) if self.is_cpu else _CORES_OF_A_GPU * self.n_devices


FEWEST_SLOTS, _MOST_SLOTS = 2, 64
_MOST_SLOTS_OF_A_GPU = 2**16
_TOLERATED_IMBALANCE, _TOLERATED_IMBALANCE_OF_GPUS = 1.15, 1.5
_MOST_HALVINGS = 4
_CHUNKS_IF_UNEVEN = 4

# Users may do without kernels.
SWITCH = "JAXGMM_KERNELS"

# Filling up so few data sets takes a GPU no time to speak of.
_FEW_OF_A_GPU = 4096

# Slots whose runs are read one after another. Empty ones cost next to nothing, and what is done for all together costs
# less for each, the more there are.
SLOTS_IN_TURN = 128

# A guess that only has to tell work for seconds from work for minutes.
_CORES_OF_A_GPU = 64


def machine() -> Machine:
    """All local devices of the platform that JAX uses by default.

    Raises:
        ForkedError: the process was forked from one that had computed.
    """
    # Asked here too, for modules that such a process has imported by itself.
    forking.check()
    devices = jax.local_devices()
    if devices[0].platform == "cpu":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return Machine(devices[:1] * cores, working_set=2**20, chunk_budget=192 * 2**20)
    # The larger a chunk the better a GPU is used, as long as two fit beside what the user keeps there.
    memory = min((device.memory_stats() or {}).get("bytes_limit", 2**35) for device in devices)
    return Machine(
        devices * 2,
        working_set=256 * 2**20,
        chunk_budget=min(8 * 2**30, memory // 8),
        has_kernels=all(map(_has_kernels, devices)),
    )


@functools.cache
def _has_kernels(device: Device) -> bool:
    """Whether runs have kernels of their own on a device; if they cannot, says once why."""
    if os.environ.get(SWITCH) == "0":
        return False
    reason = fused.why_not(device)
    if reason is not None:
        warnings.warn(
            "Small mixtures are fitted by XLA on this device, and not by kernels of their own, which are several times "
            f"as fast: {reason}.",
            stacklevel=2,
        )
    return reason is None


def n_slots(run_bytes: int, machine: Machine) -> int:
    """How many runs step together, a power of two.

    On a CPU enough to fill half the working set, as the last runs of a chunk have the other slots idle beside them;
    but `FEWEST_SLOTS`, since products of a single run do not use a core as well.
    """
    if machine.is_cpu:
        wanted = min(_MOST_SLOTS, max(FEWEST_SLOTS, machine.working_set // (2 * run_bytes)))
    else:
        wanted = min(_MOST_SLOTS_OF_A_GPU, max(1, machine.working_set // run_bytes))
    return power_of_two_below(wanted)


def n_starting(start_bytes: int, machine: Machine) -> int:
    """How many data sets get their starts at the same time, a power of two: as many as fill the working set."""
    return power_of_two_below(max(1, machine.working_set // start_bytes))


def chunk_size(n_data_sets: int, data_set_bytes: int, least: int, machine: Machine, *, enough: int = 0) -> int:
    """How many data sets make a chunk: a round number within the budget, small enough to keep all workers busy.

    That is a power of two, whose programs serve other numbers of data sets too; for many on a GPU, where what fills up
    costs as much as data sets, a number that leaves no more than an eighth to be filled up.

    Fewer than `least` leave slots empty. `enough`, if not 0, says that data sets take unequal time, and how many make
    the end of a chunk cheap, which are a few slow runs among empty slots: several chunks for each worker then even it
    out.
    """
    within_budget = power_of_two_below(max(1, machine.chunk_budget // data_set_bytes))
    # A GPU's idle slots beside the last runs of a chunk cost as much as busy ones. So it has few chunks, if possible
    # one, even though it has two workers.
    n_workers = len(machine.devices) if machine.is_cpu else machine.n_devices
    tolerated = _TOLERATED_IMBALANCE if machine.is_cpu else _TOLERATED_IMBALANCE_OF_GPUS
    # One for each worker is best, unless that is rounded to a power of two so much that some workers would be idle.
    share = -(-n_data_sets // n_workers)
    if enough:
        share = min(share, max(enough, -(-share // _CHUNKS_IF_UNEVEN)))
    rounded = power_of_two_above if machine.is_cpu else _round_above
    for _ in range(_MOST_HALVINGS):
        size = rounded(share)
        busiest = size * -(-n_data_sets // (size * n_workers))
        if busiest * n_workers <= tolerated * n_data_sets:
            break
        share = -(-share // 2)
    return min(within_budget, rounded(max(share, min(least, n_data_sets))))


def power_of_two_below(n: int) -> int:
    """The largest power of two that is not above n."""
    return 1 << (n.bit_length() - 1)


def power_of_two_above(n: int) -> int:
    """The smallest power of two that is not below n."""
    return 1 << max(0, n - 1).bit_length()


def _round_above(n: int) -> int:
    """A power of two up to `_FEW_OF_A_GPU`; beyond, the smallest number not below n of the form 2^i (8 + j), j < 8."""
    step = power_of_two_below(n) // 8
    return power_of_two_above(n) if n <= _FEW_OF_A_GPU else -(-n // step) * step


def map_chunks(
    work: Callable[[Item], Value],
    chunks: Sequence[Item],
    program_of: Callable[[Item], Hashable],
    halves: Callable[[Item], list[Item]],
    machine: Machine,
) -> Iterator[tuple[Item, Value]]:
    """Does `work` on every chunk, on whichever device is free, with float64 enabled.

    An exception, the user's interrupt included, stops the chunks not yet begun.

    Args:
        work: what to do.
        chunks: the chunks.
        program_of: what is compiled for a chunk. Of the chunks that need a program not met before, one goes ahead, and
            the others find it compiled.
        halves: a chunk in two parts, which take its place when the device's memory does not suffice; none where it
            cannot be cut.
        machine: the devices to work on.

    Yields:
        chunks as they are done, each with what `work` made of it. Nothing of it is kept here.
    """
    waiting, stopped = deque(chunks), Event()
    # Chunks that are done, the error of a worker, or None from one that has ended.
    done: SimpleQueue[Any] = SimpleQueue()
    compiling: dict[tuple[Hashable, Device], Lock] = {}

    def compiled_once(chunk: Item, device: Device) -> Value:
        program = (program_of(chunk), device)
        if program in _COMPILED:
            return work(chunk)
        with compiling.setdefault(program, Lock()):
            if program not in _COMPILED:
                value = work(chunk)
                _COMPILED.add(program)
                return value
        return work(chunk)

    def on_device(chunk: Item, device: Device) -> None:
        # All settings are local to a thread. NaN is an answer here, and no cause to stop the other data sets.
        with jax.enable_x64(True), jax.default_device(device), jax.debug_nans(False), jax.debug_infs(False):
            try:
                value = compiled_once(chunk, device)
            except (MemoryError, jax.errors.JaxRuntimeError) as error:
                parts = halves(chunk) if _is_out_of_memory(error) else []
                if not parts:
                    raise
                waiting.extendleft(parts)
                return
        done.put((chunk, value))

    def drain(device: Device) -> None:
        try:
            while not stopped.is_set():
                try:
                    chunk = waiting.popleft()
                except IndexError:
                    break
                on_device(chunk, device)
        except BaseException as error:
            done.put(error)
        else:
            done.put(None)

    if len(chunks) == 1 and machine.is_cpu:
        drain(machine.devices[0])
        yield from _until_ended(done, 1)
        return
    pool = ThreadPoolExecutor(len(machine.devices), thread_name_prefix="jaxgmm")
    try:
        for device in machine.devices:
            pool.submit(drain, device)
        yield from _until_ended(done, len(machine.devices))
    finally:
        # Chunks that are under way cannot be stopped, but need not be waited for.
        stopped.set()
        pool.shutdown(wait=False, cancel_futures=True)


def _until_ended(done: "SimpleQueue[Any]", n_workers: int) -> Iterator[Any]:
    """What workers put into a queue, until all of them have ended, or one with an error, which is raised."""
    while n_workers:
        item = done.get()
        if isinstance(item, BaseException):
            raise item
        if item is None:
            n_workers -= 1
        else:
            yield item


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)
