"""What is compiled, and how data sets are cut into chunks: everything that is decided by shape.

A program costs seconds to compile, and padding costs time in every iteration. Stacks have programs of their own shape,
since one stack is seldom alone. Data sets of many lengths share a few programs instead, as far as what they are padded
by costs less than another program would. The constants come from `benchmarks/NOTES.md`.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from jaxgmm.elimination import MOST_ENTRIES, UNROLLED_SIZE
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.em.fused import KNOWN_FAMILIES
from jaxgmm.em.initialization import INITIALIZERS, TURN
from jaxgmm.engine.batch import Batch, padded_lengths
from jaxgmm.engine.devices import (
    FEWEST_SLOTS,
    SLOTS_IN_TURN,
    Machine,
    chunk_size,
    n_slots,
    n_starting,
    power_of_two_above,
    power_of_two_below,
)
from jaxgmm.engine.fused import FILLING, WARP, Lanes
from jaxgmm.kernels import are_known
from jaxgmm.program import Combination, Layout, Options, Program, Slots, Way, models_of

# What a core needs for one sample, component and iteration, and how many iterations a run usually makes.
SECONDS = 2e-9
ITERATIONS = 50

# What the programs for another shape cost.
COMPILATION = 3.0

# Below so much work a search in float32 is not worth a program of its own.
SHORT_SEARCH = 0.1

# The same where runs have kernels, which make float32 so much faster than float64 that it pays sooner.
SHORT_SEARCH_OF_KERNELS = 0.002

# So little, at `ITERATIONS` for each run, that even a call made again and again hardly notices how it was compiled:
# runs quickly, and what is done once for each at once.
LITTLE = 0.004

# So little work on small data sets, in seconds of one core, is done sooner by one core than by several that meet in
# XLA's one pool of threads.
INDIVISIBLE = 0.01

# So much work takes workers unequal time, in seconds, that more chunks pay, of so many runs for each slot where idle
# ones cost as much as others.
UNEVEN = 0.2
RUNS_OF_A_SLOT = 32

# Steps between two looks for ended runs: a look costs a fraction of a step, a late one wastes half the stride. A run of
# one component that starts from clusters finds out with its second step that the first has changed nothing, and most
# runs that a search has brought near their ends make few more.
STRIDE, STRIDE_OF_SHORT_RUNS = 4, 2

# Runs for each slot of a GPU where they differ in length: simulated, not measured, and between what is best for 2-D and
# for 8-D.
RUNS_OF_A_GPU_SLOT = 4

# Numbers of components that programs shared by several K have room for; larger ones double.
ROOMS = (5, 10, 20)

# An E-step of so few features, components and samples is faster by vectors than by matrix products. More samples, XLA
# would hand to several threads at a time, which it cannot do within one kernel; more components take long to compile.
FEW_FEATURES = 10
FEW_COMPONENTS = 8
FEW_SAMPLES = 1024

# Kernels of a GPU are for so many samples at most: more are enough for matrix products. Numbers of 32 bits that the
# registers of a lane have room for: parameters of all components of a run where that shares a warp, and of one
# component where it has a block, with so many components at most.
KERNEL_SAMPLES = 2**14
NARROW_NUMBERS = 48
WIDE_NUMBERS = 60
WIDE_COMPONENTS = 32

# Samples that a lane of such a kernel should have at least, and bytes that the samples of one launch may take.
SAMPLES_OF_A_LANE = 24
LAUNCH_BYTES = 2**27


class Job(NamedTuple):
    """Models that share programs.

    Attributes:
        models: their numbers.
        program: what is compiled.
        options: what the programs are told, the models among it.
        n_samples: the padded length of data sets.
    """

    models: np.ndarray
    program: Program
    options: Options
    n_samples: int


class Chunk(NamedTuple):
    """Data sets that are fitted together.

    Attributes:
        data_sets: their numbers.
        size: as many as the programs are compiled for; what is missing is filled up.
        jobs: what is fitted to each.
    """

    data_sets: np.ndarray
    size: int
    jobs: tuple[Job, ...]

    @property
    def filled_up(self) -> np.ndarray:
        """Numbers of data sets `(size,)`: those of the chunk, and its first again for each that is missing."""
        missing = self.size - len(self.data_sets)
        return np.concatenate([self.data_sets, np.repeat(self.data_sets[:1], missing)])

    def halves(self) -> "list[Chunk]":
        """The same work in two chunks of half the size; none where it cannot be cut."""
        size = -(-self.size // 2) if self.size > 1 else 0
        parts = [self.data_sets[:size], self.data_sets[size:]] if size else []
        return [self._replace(data_sets=part, size=size) for part in parts if len(part)]


def chunks(
    data: Batch,
    models: Sequence[Combination],
    wanted: Program,
    options: Options,
    machine: Machine,
    *,
    by_components: bool = False,
) -> list[Chunk]:
    """Chunks of data sets of one padded length, sized for the machine.

    Args:
        data: the data sets.
        models: what is fitted to each.
        wanted: what to compile; what depends on shapes (`layout` but for `n_init` and its last two fields,
            `search_dtype`, `effort`, `search`, `finish`, `centred`) is decided here.
        options: tolerance and limits; models and ridges are filled in here.
        machine: its memory and cores.
        by_components: whether models of different K are jobs of their own, fewest components first.
    """
    # For one sample and component. Whatever max_iter is: changing it should compile nothing.
    seconds = SECONDS * wanted.layout.n_init * ITERATIONS / machine.n_cores
    n_components = sum(k for k, _, _ in models)
    tolerated = int(COMPILATION / (seconds * n_components))
    lengths = padded_lengths(data, tolerated)
    work = seconds * n_components * float(np.sum(lengths))
    wanted = wanted._replace(
        search_dtype="float64" if work < SHORT_SEARCH else "float32",
        effort="well" if not machine.is_cpu else "at once" if work < LITTLE else "quickly",
    )
    jobs = _jobs(data, models, wanted, options, seconds * len(data.samples), by_components)
    if machine.has_kernels and work >= SHORT_SEARCH_OF_KERNELS:
        jobs = [_searched_by_kernels(job, int(np.max(lengths)), data.samples.shape[1]) for job in jobs]
    uneven, indivisible = options.tol > 0 and work >= UNEVEN, work * machine.n_cores < INDIVISIBLE
    planned = []
    for length in np.unique(lengths):
        of_length = np.flatnonzero(lengths == length)
        planned += _of_one_length(of_length, int(length), data, jobs, machine, uneven=uneven, indivisible=indivisible)
    return planned


def _jobs(
    data: Batch,
    models: Sequence[Combination],
    wanted: Program,
    options: Options,
    seconds: float,
    by_components: bool,
) -> list[tuple[np.ndarray, Program, Options]]:
    """Models in groups that share programs, given what a component of all data sets costs."""
    rooms = np.array([k for k, _, _ in models])
    for size, next_larger in pairwise(np.unique(rooms)):
        joining = rooms == size
        if seconds * int(np.sum(joining)) * int(next_larger - size) <= COMPILATION:
            rooms = np.where(joining, next_larger, rooms)
    with_absent = set()
    if data.is_ragged and wanted.init in INITIALIZERS:
        # Who calls once with ragged data calls again, with another K, even if this one happens to fill the room.
        shared = np.array([_room(int(room)) for room in rooms])
        rooms = np.where(seconds * (shared - rooms) < COMPILATION, shared, rooms)
        with_absent |= set(rooms[(rooms == shared) & (seconds * rooms < COMPILATION)].tolist())
    rooms = rooms.tolist()
    with_absent |= {room for (k, _, _), room in zip(models, rooms, strict=True) if k < room}
    groups: dict[tuple, list[int]] = {}
    for number, ((k, family, _), room) in enumerate(zip(models, rooms, strict=True)):
        groups.setdefault((k if by_components else 0, FAMILIES[family].diagonal, room), []).append(number)
    jobs = []
    for (_, _, room), numbers in sorted(groups.items()):
        families, ridges, traced = models_of([models[number] for number in numbers])
        layout = wanted.layout._replace(
            families=families, n_components=room, has_absent=wanted.layout.has_absent or room in with_absent
        )
        jobs.append(
            (np.array(numbers), wanted._replace(layout=layout), options._replace(reg_covar=ridges, models=traced))
        )
    return jobs


def _of_one_length(
    data_sets: np.ndarray,
    length: int,
    data: Batch,
    jobs: list[tuple[np.ndarray, Program, Options]],
    machine: Machine,
    *,
    uneven: bool,
    indivisible: bool,
) -> list[Chunk]:
    sized, sizes = [], []
    # Starts on one data set are chunks of their own: on a CPU that costs little, and their number changes no program.
    one_by_one = data.is_single and machine.is_cpu
    # As many as may share the slots of a device, by powers of two as chunks are.
    n_together = 1 if one_by_one else power_of_two_above(-(-len(data_sets) // machine.n_devices))
    for models, wanted, options in jobs:
        program, n_samples, n_bytes, least = _sized(length, n_together, data, wanted, options, machine)
        sized.append(Job(models, program, options, n_samples))
        enough = _evening_out(program.search, len(options.models.form) * program.layout.n_init) if uneven else 0
        if indivisible and isinstance(program.search, Slots) and program.search.by_vectors:
            least = len(data_sets)
        sizes.append(chunk_size(len(data_sets), n_bytes, least, machine, enough=enough))
    size = 1 if one_by_one else min(sizes)
    parts = (data_sets[first : first + size] for first in range(0, len(data_sets), size))
    return [Chunk(part, size, tuple(sized)) for part in parts]


def _sized(
    n_samples: int, n_together: int, data: Batch, program: Program, options: Options, machine: Machine
) -> tuple[Program, int, int, int]:
    """Tiles and slots of a program, the length it pads to, bytes for a data set, and how many fill the slots."""
    layout, n_features = program.layout, data.samples.shape[1]
    n_components, n_models = layout.n_components, len(options.models.form)
    n_runs, n_forms = n_models * layout.n_init, len(layout.kinds) * len(options.reg_covar)
    n_rows = _n_rows(n_features, layout)
    sample_bytes = _sample_bytes(n_rows, n_components)
    # Slots that are read in turn share the features of all data sets, which others make of their own.
    tile, n_held = 0, n_rows if machine.is_cpu else n_features
    if n_samples * sample_bytes > machine.working_set:
        tile = power_of_two_below(max(1, machine.working_set // sample_bytes))
        n_samples, n_held = -(-n_samples // tile) * tile, n_features
    # Beside the runs: samples in three forms, features, and what initialisation holds, in float64.
    data_set_bytes = 8 * n_samples * (n_features + n_forms * (2 * n_features + 2) + n_held + 3 * n_components + 6)
    data_set_bytes += 8 * n_runs * (program.n_history + (3 + program.n_snapshots) * n_components * n_rows)
    # A start reads samples, seeds or centres, and the distances and memberships of each component, in float64.
    group = n_starting(8 * n_samples * (2 * n_features + 3 * n_components), machine)
    # A core makes one after another; on a GPU, what is done for few costs as much as for many.
    together = 1 if machine.is_cpu else min(-(-n_models * layout.n_init // TURN), group)
    program = program._replace(layout=layout._replace(tile=tile, group=group, together=together))
    slots = (
        *_slots(n_samples, n_together, tile, n_features, program, options, machine),
        _centred_slots(n_samples, tile, n_rows, n_features, n_components, n_runs * n_together, machine),
    )
    search, finish, centred = _ways(slots, n_samples, n_together, n_features, program, options, machine)
    program = program._replace(search=search, finish=finish, centred=centred)
    return program, n_samples, data_set_bytes, _filling(search, n_runs)


def _filling(way: Way, n_runs: int) -> int:
    """Data sets, of so many runs each, that fill a device."""
    if isinstance(way, Lanes):
        return -(-way.group // n_runs)
    # Empty slots are left out where runs are read in turn.
    return 1 if way.by_vectors else -(-way.number // n_runs)


def _evening_out(way: Way, n_runs: int) -> int:
    """Data sets of a chunk in whose slots the last few runs are cheap; 0 where that is no matter."""
    if isinstance(way, Lanes):
        return 0
    return 1 if way.by_vectors else -(-RUNS_OF_A_SLOT * way.number // n_runs)


def _ways(
    slots: tuple[Slots, Slots, Slots],
    n_samples: int,
    n_together: int,
    n_features: int,
    program: Program,
    options: Options,
    machine: Machine,
) -> tuple[Way, Way, Way]:
    """The ways of the search, of float64 in mixed precision and of centred runs: kernels where suited, else slots."""
    layout, n_fits = program.layout, n_together * len(options.models.form)
    if not machine.has_kernels or layout.tile or _is_recorded(program):
        return slots
    is_mixed, n_runs = program.precision == "mixed", n_fits * layout.n_init
    search_dtype = program.search_dtype if is_mixed else program.precision
    # One run of each fit is finished, and few are centred. Where float64 searches, one program does both.
    finishing = n_fits if is_mixed and search_dtype == "float32" else n_runs
    wanted = ((search_dtype, n_runs), ("float64", finishing), ("float64", n_fits))
    search, finish, centred = (
        _lanes(n_samples, n_runs, n_features, layout, dtype) or way
        for way, (dtype, n_runs) in zip(slots, wanted, strict=True)
    )
    return search, finish, centred._replace(centred=True)


def _searched_by_kernels(
    job: tuple[np.ndarray, Program, Options], n_samples: int, n_features: int
) -> tuple[np.ndarray, Program, Options]:
    """The same, with a search in float32 where runs have kernels for it."""
    models, program, options = job
    if _is_recorded(program) or not _lanes(n_samples, 1, n_features, program.layout, "float32"):
        return job
    return models, program._replace(search_dtype="float32"), options


def _is_recorded(program: Program) -> bool:
    """Whether more is kept of runs than kernels hold."""
    return bool(program.n_history or program.n_snapshots or program.layout.ends_with_m_step)


def _lanes(n_samples: int, n_runs: int, n_features: int, layout: Layout, dtype: str) -> Lanes | None:
    """How runs of a shape are laid out in kernels; None where these are not for it."""
    n_components, n_rows, size = layout.n_components, _n_rows(n_features, layout), np.dtype(dtype).itemsize
    if n_samples > KERNEL_SAMPLES or not KNOWN_FAMILIES.keys() >= set(layout.families):
        return None
    words = n_rows * size // 4
    if words * n_components <= NARROW_NUMBERS:
        width = power_of_two_below(max(2, n_samples // SAMPLES_OF_A_LANE))
        while width < WARP and n_runs * width < FILLING and 2 * width <= n_samples:
            width *= 2
        lanes = Lanes(group=1, width=min(width, WARP))
    elif words <= WIDE_NUMBERS and n_components <= WIDE_COMPONENTS:
        lanes = Lanes(group=1, width=power_of_two_above(max(2, n_components)), is_wide=True)
    else:
        return None
    within = power_of_two_below(max(1, LAUNCH_BYTES // (size * (n_features + 1) * n_samples)))
    return lanes._replace(group=max(lanes.runs, min(power_of_two_above(n_runs), within)))


def _slots(
    n_samples: int, n_together: int, tile: int, n_features: int, program: Program, options: Options, machine: Machine
) -> tuple[Slots, Slots]:
    """Slots of the search, and of float64 in mixed precision."""
    layout, n_models = program.layout, len(options.models.form)
    n_components, n_rows = layout.n_components, _n_rows(n_features, layout)
    in_one_kernel = machine.is_cpu and are_known()
    by_vectors = (
        in_one_kernel
        and tile == 0
        and n_rows <= FEW_FEATURES
        and n_components <= FEW_COMPONENTS
        and n_samples <= FEW_SAMPLES
    )
    number = 1
    if tile == 0:
        number = SLOTS_IN_TURN if by_vectors else n_slots(n_samples * _sample_bytes(n_rows, n_components), machine)
        # No more slots than runs. On a GPU idle slots cost as much as busy ones, and when the queue is empty most are.
        of_a_slot = 1 if machine.is_cpu or options.tol == 0 else RUNS_OF_A_GPU_SLOT
        number = min(number, power_of_two_above(-(-n_together * n_models * layout.n_init // of_a_slot)))
    most = MOST_ENTRIES // (n_components * n_features**2)
    as_one_kernel = (
        in_one_kernel and not layout.diagonal and n_features > UNROLLED_SIZE and most >= min(number, FEWEST_SLOTS)
    )
    if as_one_kernel:
        number = min(number, power_of_two_below(most))
    stride = STRIDE_OF_SHORT_RUNS if n_components == 1 else STRIDE
    search = Slots(number, stride, by_vectors=by_vectors, as_one_kernel=as_one_kernel)
    if program.precision == "mixed":
        finish = search._replace(stride=STRIDE_OF_SHORT_RUNS)
        if program.search_dtype == "float64":
            return finish, finish
        # One run of each fit is finished. The idle slots of a CPU cost too little for a program more.
        fewer = number if machine.is_cpu else min(number, power_of_two_above(n_together * n_models))
        return search, finish._replace(number=fewer)
    return search, search


def _centred_slots(
    n_samples: int, tile: int, n_rows: int, n_features: int, n_components: int, n_runs: int, machine: Machine
) -> Slots:
    """Slots of runs that are centred on each component: in float64, and seldom many."""
    if tile:
        return Slots(1, STRIDE_OF_SHORT_RUNS, centred=True)
    run_bytes = 8 * n_samples * (n_rows + n_components * (2 + 2 * n_features))
    number = min(n_slots(run_bytes, machine), power_of_two_above(n_runs))
    return Slots(number, STRIDE_OF_SHORT_RUNS, centred=True)


def _n_rows(n_features: int, layout: Layout) -> int:
    """Quadratic features of a sample."""
    return 1 + 2 * n_features if layout.diagonal else 1 + n_features + n_features * (n_features + 1) // 2


def _sample_bytes(n_rows: int, n_components: int) -> int:
    """What a run reads and writes for a sample: features, logits and responsibilities, in the main in float32."""
    return 4 * (n_rows + 2 * n_components)


def _room(n_components: int) -> int:
    room = next((room for room in ROOMS if room >= n_components), ROOMS[-1])
    while room < n_components:
        room *= 2
    return room
