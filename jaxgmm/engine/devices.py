"""Distribution of chunks of data sets to devices and cores, within a memory budget.

XLA runs small batched operations on one core, so on a CPU each core has a Python thread that runs chunks of its own;
JAX releases the interpreter lock meanwhile. A GPU has two threads: one chunk is copied while another is computed.

All sizes that depend on the machine are chosen here.
"""

import functools
import os
import warnings
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from threading import Event, Lock
from typing import Any, NamedTuple, TypeVar

import jax

from jaxgmm import forking
from jaxgmm.engine import compilation, fused
from jaxgmm.engine.cores import n_cores

Device = Any  # a jax.Device, whose type its stubs do not export
Item = TypeVar("Item")
Value = TypeVar("Value")

# Programs that this process has compiled, each with its device.
_COMPILED: set[tuple[Hashable, Device]] = set()


class Machine(NamedTuple):
    """The properties of the machine from which sizes are chosen.

    Attributes:
        devices: the device of each worker; a device appears once for each of its workers.
        working_set: bytes that the slots of one worker may fill, so that they stay in its cache, or fill a GPU.
        chunk_budget: total bytes that a worker's chunk may take.
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
    def speed(self) -> int:
        """How many times as fast as one core of a CPU it is, by a guess, to estimate how long work will take.

        Other cores do not count: answers, which depend on types and padded lengths, would depend on their number.
        """
        return 1 if self.is_cpu else _CORES_OF_A_GPU * self.n_devices


FEWEST_SLOTS, _MOST_SLOTS = 2, 64
_MOST_SLOTS_OF_A_GPU = 2**16
_TOLERATED_IMBALANCE, _TOLERATED_IMBALANCE_OF_GPUS = 1.15, 1.5
_MOST_HALVINGS = 4
_CHUNKS_IF_UNEVEN = 4

# The environment variable by which users turn kernels off.
SWITCH = "JAXGMM_KERNELS"

# Padding up to this many data sets takes a GPU negligible time.
_FEW_OF_A_GPU = 4096

# Number of slots whose runs are read one after another. Empty slots cost almost nothing, and work done for all slots
# together costs less for each, the more there are.
SLOTS_IN_TURN = 128

# Seconds between two looks for a signal that arrived just before the wait for a chunk began, and so did not end it.
_GLANCE = 0.1

# A guess that only has to distinguish work of seconds from work of minutes.
_CORES_OF_A_GPU = 64


def machine(threads: int | None = None) -> Machine:
    """All local devices of the platform that JAX uses by default.

    Args:
        threads: maximum number of cores of a CPU; None for `JAXGMM_THREADS`, or else all that the process may use.

    Raises:
        ForkedError: the process was forked from one that had computed.
        ValueError: the environment variable holds no positive integer.
    """
    # Checked here too, for modules that a forked process has imported itself.
    forking.check()
    devices = jax.local_devices()
    if devices[0].platform == "cpu":
        return Machine(devices[:1] * n_cores(threads), working_set=2**20, chunk_budget=192 * 2**20)
    # Larger chunks use a GPU better, as long as two fit beside the user's own data.
    memory = min((device.memory_stats() or {}).get("bytes_limit", 2**35) for device in devices)
    return Machine(
        devices * 2,
        working_set=256 * 2**20,
        chunk_budget=min(8 * 2**30, memory // 8),
        has_kernels=all(map(_has_kernels, devices)),
    )


@functools.cache
def _has_kernels(device: Device) -> bool:
    """Whether runs have kernels of their own on a device; if not, warns once why."""
    if os.environ.get(SWITCH) == "0":
        return False
    reason = fused.why_not(device)
    if reason is not None:
        warnings.warn(
            "Small mixtures are fitted by XLA on this device, not by jaxgmm's own kernels, which are several times as "
            f"fast: {reason}.",
            stacklevel=2,
        )
    return reason is None


def n_slots(run_bytes: int, machine: Machine) -> int:
    """How many runs step together, a power of two.

    On a CPU enough to fill half the working set, because the other slots are idle during the last runs of a chunk; but
    at least `FEWEST_SLOTS`, because products of a single run use a core less well.
    """
    if machine.is_cpu:
        wanted = min(_MOST_SLOTS, max(FEWEST_SLOTS, machine.working_set // (2 * run_bytes)))
    else:
        wanted = min(_MOST_SLOTS_OF_A_GPU, max(1, machine.working_set // run_bytes))
    return power_of_two_below(wanted)


def n_starting(start_bytes: int, machine: Machine) -> int:
    """For how many data sets starts are made at the same time, a power of two: as many as fill the working set."""
    return power_of_two_below(machine.working_set // start_bytes)


def chunk_size(n_data_sets: int, data_set_bytes: int, least: int, machine: Machine, *, enough: int = 0) -> int:
    """The number of data sets in a chunk: a round number within the budget, small enough to keep all workers busy.

    It is a power of two, whose programs serve other numbers of data sets too; for many data sets on a GPU, where
    padding costs as much as data sets, it is a number that needs at most an eighth of padding.

    Fewer than `least` leave slots empty. A nonzero `enough` means that data sets take unequal time, and is the number
    of data sets from which on the end of a chunk, a few slow runs among empty slots, is cheap: then several chunks for
    each worker balance the load.
    """
    within_budget = power_of_two_below(machine.chunk_budget // data_set_bytes)
    # On a GPU, idle slots during the last runs of a chunk cost as much as busy ones. So it gets few chunks, if possible
    # one, even though it has two workers.
    n_workers = len(machine.devices) if machine.is_cpu else machine.n_devices
    tolerated = _TOLERATED_IMBALANCE if machine.is_cpu else _TOLERATED_IMBALANCE_OF_GPUS
    # One chunk for each worker is best, unless rounding to a power of two would leave some workers idle.
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
    """The largest power of two that is not above n, at least 1."""
    return 1 << (max(n, 1).bit_length() - 1)


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
    """Calls `work` on every chunk, on any free device, with float64 enabled.

    An exception, including the user's interrupt, stops the chunks not yet begun.

    Args:
        work: the function to call.
        chunks: the chunks.
        program_of: identifies the program of a chunk. Among chunks that need a new program, one goes first, and the
            others find it compiled.
        halves: divides a chunk into two, which replace it when the device runs out of memory; an empty list if it
            cannot be divided.
        machine: the devices to work on.

    Yields:
        chunks as they are done, each with what `work` made of it. Nothing of it is kept here.
    """
    waiting, stopped = deque(chunks), Event()
    # Finished chunks, the error of a worker, or None from a worker that has ended.
    done: SimpleQueue[Any] = SimpleQueue()
    compiling: dict[tuple[Hashable, Device], Lock] = {}

    def compiled_once(chunk: Item, device: Device) -> Value:
        program = (program_of(chunk), device)
        if program in _COMPILED:
            return work(chunk)
        with compiling.setdefault(program, Lock()):
            if program not in _COMPILED:
                with compilation.expected():
                    value = work(chunk)
                _COMPILED.add(program)
                return value
        return work(chunk)

    def on_device(chunk: Item, device: Device) -> None:
        # All settings are local to a thread. NaN is an answer here, not a reason to stop the other data sets.
        with jax.enable_x64(True), jax.default_device(device), jax.debug_nans(False), jax.debug_infs(False):
            try:
                value = compiled_once(chunk, device)
            except (MemoryError, jax.errors.JaxRuntimeError) as error:
                parts = halves(chunk) if is_out_of_memory(error) else []
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
        # Running chunks cannot be stopped, but need not be waited for.
        stopped.set()
        pool.shutdown(wait=False, cancel_futures=True)


def _until_ended(done: "SimpleQueue[Any]", n_workers: int) -> Iterator[Any]:
    """Yields what workers put into a queue until all have ended; raises the error of a worker."""
    while n_workers:
        try:
            item = done.get(timeout=_GLANCE)
        except Empty:
            continue
        if isinstance(item, BaseException):
            raise item
        if item is None:
            n_workers -= 1
        else:
            yield item


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device or the host had no memory left."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)
