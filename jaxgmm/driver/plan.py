"""The choice of programs and chunks: everything that is decided by shape.

A program costs seconds to compile, and padding costs time in every iteration. Stacks get programs of their own shape,
since one stack is seldom alone. Data sets of many lengths share a few programs instead, as long as the padding costs
less than another program would. The constants come from `benchmarks/NOTES.md`.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from jaxgmm.driver.program import Combination, Layout, Options, Program, Request, Slots, Way, models_of
from jaxgmm.em import fused
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.em.e_steps import E_STEPS
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
from jaxgmm.numerics.elimination import MOST_ENTRIES, UNROLLED_SIZE
from jaxgmm.numerics.kernels import Effort, are_known

# Seconds of a core for one sample, component and iteration, and the usual number of iterations of a run.
SECONDS = 2e-9
ITERATIONS = 50

# Seconds to compile the programs for another shape.
COMPILATION = 3.0

# Seconds of work below which a search in float32 is not worth a program of its own.
SHORT_SEARCH = 0.1

# The same where runs have kernels, which speed up float32 so much that it pays sooner.
SHORT_SEARCH_OF_KERNELS = 0.002

# Seconds of work, at `ITERATIONS` for each run, below which even repeated calls hardly depend on how well they were
# compiled: then loops are compiled "quickly", and code that runs once for each fit "at once".
LITTLE = 0.004

# Seconds of one core below which work on small data sets is finished sooner by one core than by several that share
# XLA's one pool of threads.
INDIVISIBLE = 0.01

# Seconds of work from which on workers finish at such different times that more chunks pay, and the runs for each slot
# of such a chunk where idle slots cost as much as busy ones.
UNEVEN = 0.2
RUNS_OF_A_SLOT = 32

# Steps between two checks for finished runs: a check costs a fraction of a step, a late one wastes half the stride. A
# run of one component that starts from clusters ends with its second step, as the first has changed nothing, and most
# runs that a search has brought near their ends make few more steps.
STRIDE, STRIDE_OF_SHORT_RUNS = 4, 2

# More slots than there can ever be.
_MOST_SLOTS = 2**30

# Runs for each slot of a GPU if they differ in length: simulated, not measured; between the best values for 2-D and for
# 8-D.
RUNS_OF_A_GPU_SLOT = 4

# Numbers of components for which programs shared by several K have room; beyond these, the room doubles.
ROOMS = (5, 10, 20)

# Up to this many features, components and samples, an E-step is faster by vectors than by matrix products. With more
# samples XLA would use several threads, which it cannot do within one kernel; more components take long to compile.
FEW_FEATURES = 10
FEW_COMPONENTS = 8
FEW_SAMPLES = 1024

# Maximum number of samples for GPU kernels: more are enough for matrix products. Then the 32-bit numbers that fit in
# the registers of a lane: parameters of all components of a run if several runs share a warp (narrow), or of one
# component if a run has a block (wide); and the maximum number of components in the wide layout.
KERNEL_SAMPLES = 2**14
NARROW_NUMBERS = 48
WIDE_NUMBERS = 60
WIDE_COMPONENTS = 32

# Minimum number of samples for a lane of such a kernel, and maximum bytes of the samples of one launch.
SAMPLES_OF_A_LANE = 24
LAUNCH_BYTES = 2**27


class ModelSet(NamedTuple):
    """Models that share programs.

    Attributes:
        models: their numbers.
        program: the static part, for which programs are compiled.
        options: the traced part, including the models.
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
        size: the number of data sets that the programs are compiled for; missing ones are padded.
        model_sets: the models fitted to each.
    """

    data_sets: np.ndarray
    size: int
    model_sets: tuple[ModelSet, ...]

    @property
    def filled_up(self) -> np.ndarray:
        """Numbers of data sets `(size,)`: those of the chunk, and its first again for each that is missing."""
        missing = self.size - len(self.data_sets)
        return np.concatenate([self.data_sets, np.repeat(self.data_sets[:1], missing)])

    @property
    def n_runs(self) -> int:
        """The number of runs of all its data sets."""
        return len(self.data_sets) * sum(
            len(model_set.models) * model_set.program.layout.n_init for model_set in self.model_sets
        )

    def halves(self) -> "list[Chunk]":
        """The same work in two chunks of half the size; an empty list if it cannot be cut."""
        size = -(-self.size // 2) if self.size > 1 else 0
        parts = [self.data_sets[:size], self.data_sets[size:]] if size else []
        return [self._replace(data_sets=part, size=size) for part in parts if len(part)]


class _Shared(NamedTuple):
    """Models that share programs, whatever the length of data sets.

    Attributes:
        numbers: of the models.
        families: names of their families.
        n_components: K that arrays have room for.
        has_absent: whether models may have fewer.
        is_weighted: whether samples have weights of their own.
        options: the traced part of programs.
        search_dtype: type of a search in mixed precision.
    """

    numbers: np.ndarray
    families: tuple[str, ...]
    n_components: int
    has_absent: bool
    is_weighted: bool
    options: Options
    search_dtype: str


class _Shape(NamedTuple):
    """The quantities by which sizes are chosen.

    Attributes:
        n_samples: of a data set, padded.
        n_features: D.
        n_components: K that arrays have room for.
        n_models: M.
        n_init: R.
        n_together: data sets that may share the slots of a device.
        diagonal: whether components are axis-aligned.
    """

    n_samples: int
    n_features: int
    n_components: int
    n_models: int
    n_init: int
    n_together: int
    diagonal: bool

    @property
    def n_fits(self) -> int:
        """Fits of the data sets that may share slots."""
        return self.n_together * self.n_models

    @property
    def n_runs(self) -> int:
        """Their runs."""
        return self.n_fits * self.n_init

    @property
    def n_rows(self) -> int:
        """Quadratic features of a sample."""
        n_products = self.n_features if self.diagonal else self.n_features * (self.n_features + 1) // 2
        return 1 + self.n_features + n_products

    @property
    def sample_bytes(self) -> int:
        """Bytes that a run reads and writes for a sample: features, logits and responsibilities, mainly in float32."""
        return 4 * (self.n_rows + 2 * self.n_components)


def chunks(
    data: Batch, models: Sequence[Combination], request: Request, machine: Machine, *, by_components: bool = False
) -> list[Chunk]:
    """Chunks of data sets of one padded length, sized for the machine.

    Args:
        data: the data sets.
        models: the models fitted to each.
        request: how they are fitted.
        machine: its memory and cores.
        by_components: whether models of different K are sets of their own, fewest components first.
    """
    # For one sample and component, regardless of max_iter: changing it should compile nothing.
    seconds = SECONDS * request.n_init * ITERATIONS / machine.n_cores
    n_components = sum(k for k, _, _ in models)
    tolerated = int(COMPILATION / (seconds * n_components))
    lengths = padded_lengths(data, tolerated)
    work = seconds * n_components * float(np.sum(lengths))
    effort = "well" if not machine.is_cpu else "at once" if work < LITTLE else "quickly"
    search_dtype = "float64" if work < SHORT_SEARCH else "float32"
    shared = _shared(data, models, request, seconds * len(data.samples), search_dtype, by_components=by_components)
    if _may_have_kernels(request, machine) and work >= SHORT_SEARCH_OF_KERNELS:
        longest = int(np.max(lengths))
        shared = [_searched_by_kernels(own, _shape_of(own, longest, 1, data, request)) for own in shared]
    uneven, indivisible = request.tol > 0 and work >= UNEVEN, work * machine.n_cores < INDIVISIBLE
    planned = []
    for length in np.unique(lengths):
        data_sets = np.flatnonzero(lengths == length)
        # Starts on one data set are chunks of their own: on a CPU that costs little, and no program depends on their
        # number.
        one_by_one = data.is_single and machine.is_cpu
        # The number that may share the slots of a device: a power of two, like the sizes of chunks.
        n_together = 1 if one_by_one else power_of_two_above(-(-len(data_sets) // machine.n_devices))
        model_sets, sizes = [], []
        for own in shared:
            shape = _shape_of(own, int(length), n_together, data, request)
            model_set, n_bytes = _sized(own, shape, request, effort, machine)
            model_sets.append(model_set)
            n_runs = shape.n_models * shape.n_init
            least, enough = _filling(model_set.program.search, n_runs), 0
            if uneven:
                enough = _evening_out(model_set.program.search, n_runs)
            if indivisible and isinstance(model_set.program.search, Slots) and _is_in_turn(model_set.program.search):
                least = len(data_sets)
            sizes.append(chunk_size(len(data_sets), n_bytes, least, machine, enough=enough))
        size = 1 if one_by_one else min(sizes)
        parts = (data_sets[first : first + size] for first in range(0, len(data_sets), size))
        planned += [Chunk(part, size, tuple(model_sets)) for part in parts]
    return planned


def _shared(
    data: Batch,
    models: Sequence[Combination],
    request: Request,
    seconds: float,
    search_dtype: str,
    *,
    by_components: bool,
) -> list[_Shared]:
    """Models in groups that share programs, given the seconds that a component costs for all data sets."""
    rooms = np.array([k for k, _, _ in models])
    for size, next_larger in pairwise(np.unique(rooms)):
        joining = rooms == size
        if seconds * int(np.sum(joining)) * int(next_larger - size) <= COMPILATION:
            rooms = np.where(joining, next_larger, rooms)
    with_absent = set()
    if data.is_ragged and request.init in INITIALIZERS:
        # Ragged data are likely to be fitted again, with another K, even if this K happens to fill the room.
        common = np.array([_room(int(room)) for room in rooms])
        rooms = np.where(seconds * (common - rooms) < COMPILATION, common, rooms)
        with_absent |= set(rooms[(rooms == common) & (seconds * rooms < COMPILATION)].tolist())
    rooms = rooms.tolist()
    with_absent |= {room for (k, _, _), room in zip(models, rooms, strict=True) if k < room}
    groups: dict[tuple, list[int]] = {}
    for number, ((k, family, _), room) in enumerate(zip(models, rooms, strict=True)):
        groups.setdefault((k if by_components else 0, FAMILIES[family].diagonal, room), []).append(number)
    shared = []
    for (_, _, room), numbers in sorted(groups.items()):
        families, ridges, traced = models_of([models[number] for number in numbers])
        options = Options(
            *(request.tol, request.max_iter, ridges, request.key, traced, request.snapshots),
            avoids_spurious=request.avoids_spurious,
        )
        has_absent = request.has_absent or room in with_absent
        shared.append(
            _Shared(
                numbers=np.array(numbers),
                families=families,
                n_components=room,
                has_absent=has_absent,
                is_weighted=data.is_weighted,
                options=options,
                search_dtype=search_dtype,
            )
        )
    return shared


def _shape_of(shared: _Shared, n_samples: int, n_together: int, data: Batch, request: Request) -> _Shape:
    diagonal, n_features = FAMILIES[shared.families[0]].diagonal, data.samples.shape[1]
    n_models = len(shared.numbers)
    return _Shape(n_samples, n_features, shared.n_components, n_models, request.n_init, n_together, diagonal)


def _sized(shared: _Shared, shape: _Shape, request: Request, effort: Effort, machine: Machine) -> tuple[ModelSet, int]:
    """The programs for data sets of one length, and the bytes for each data set."""
    # Slots that are read in turn share the features of all data sets; other slots make their own.
    tile, n_held = 0, shape.n_rows if machine.is_cpu else shape.n_features
    if shape.n_samples * shape.sample_bytes > machine.working_set:
        tile = power_of_two_below(max(1, machine.working_set // shape.sample_bytes))
        shape, n_held = shape._replace(n_samples=-(-shape.n_samples // tile) * tile), shape.n_features
    n_samples, n_features, n_components = shape.n_samples, shape.n_features, shape.n_components
    # A start reads samples, seeds or centres, and the distances and memberships of each component, in float64.
    group = n_starting(8 * n_samples * (2 * n_features + 3 * n_components), machine)
    # A core makes one start after another; on a GPU, a few cost as much as many.
    together = 1 if machine.is_cpu else min(-(-shape.n_models * shape.n_init // TURN), group)
    layout = Layout(
        families=shared.families,
        n_components=n_components,
        has_absent=shared.has_absent,
        n_init=request.n_init,
        tile=tile,
        group=group,
        together=together,
        absolute_ridge=request.absolute_ridge,
        is_weighted=shared.is_weighted,
    )
    ways = _ways(shape, layout, request, shared.search_dtype, machine)
    search, finish, centred = ways
    program = Program(
        layout=layout,
        init=request.init,
        n_finalists=request.n_finalists,
        precision=request.precision,
        search_dtype=shared.search_dtype,
        effort=effort,
        n_history=request.n_history,
        n_snapshots=request.n_snapshots,
        method=request.method or _fastest(ways),
        search=search,
        finish=finish,
        centred=centred,
    )
    # In addition to the runs: samples in three forms, features, and the arrays of initialisation, in float64.
    n_forms, n_runs = len(layout.coordinates) * len(shared.options.reg_covar), shape.n_models * shape.n_init
    n_bytes = 8 * n_samples * (n_features + n_forms * (2 * n_features + 2) + n_held + 3 * n_components + 6)
    n_bytes += 8 * n_runs * (request.n_history + (3 + request.n_snapshots) * n_components * shape.n_rows)
    return ModelSet(shared.numbers, program, shared.options, n_samples), n_bytes


def _filling(way: Way, n_runs: int) -> int:
    """The number of data sets, of `n_runs` runs each, that fills a device."""
    if isinstance(way, Lanes):
        return -(-way.group // n_runs)
    # Empty slots are skipped if runs are read in turn.
    return 1 if _is_in_turn(way) else -(-way.number // n_runs)


def _evening_out(way: Way, n_runs: int) -> int:
    """The number of data sets of a chunk with which the last few runs in its slots are cheap; 0 if it is irrelevant."""
    if isinstance(way, Lanes):
        return 0
    return 1 if _is_in_turn(way) else -(-RUNS_OF_A_SLOT * way.number // n_runs)


def _is_in_turn(slots: Slots) -> bool:
    return E_STEPS[slots.e_step].idle_is_free


def _ways(shape: _Shape, layout: Layout, request: Request, search_dtype: str, machine: Machine) -> tuple[Way, Way, Way]:
    """The ways of the search, of float64 in mixed precision and of centred runs: kernels if suitable, else slots."""
    slots = (
        *_slots(shape, layout.tile, request, search_dtype, machine),
        _centred_slots(shape, layout.tile, machine),
    )
    if layout.tile or not _may_have_kernels(request, machine):
        return slots
    is_mixed = request.precision == "mixed"
    if not is_mixed:
        search_dtype = request.precision
    # One run of each fit is finished, and few runs are centred. If float64 searches, one program does both.
    finishing = shape.n_fits if is_mixed and search_dtype == "float32" else shape.n_runs
    wanted = ((search_dtype, shape.n_runs), ("float64", finishing), ("float64", shape.n_fits))
    search, finish, centred = (
        _lanes(shape, n_runs, layout.families, dtype) or way for way, (dtype, n_runs) in zip(slots, wanted, strict=True)
    )
    return search, finish, centred._replace(centred=True) if isinstance(centred, Lanes) else centred


def _fastest(ways: Sequence[Way]) -> str:
    """The fastest method. Kernels, which know only plain EM, gain more than another method does."""
    return "em" if any(isinstance(way, Lanes) for way in ways) else "quasi-newton"


def _may_have_kernels(request: Request, machine: Machine) -> bool:
    """Whether the machine has kernels for this request, regardless of shape."""
    is_known = bool(fused.METHODS) if request.method is None else request.method in fused.METHODS
    return machine.has_kernels and not request.is_recorded and is_known


def _searched_by_kernels(shared: _Shared, shape: _Shape) -> _Shared:
    """The same models, with a search in float32 if runs have kernels for it."""
    return shared._replace(search_dtype="float32") if _lanes(shape, 1, shared.families, "float32") else shared


def _lanes(shape: _Shape, n_runs: int, families: Sequence[str], dtype: str) -> Lanes | None:
    """The layout of runs of a shape in kernels; None if kernels do not support the shape."""
    n_samples, n_components, size = shape.n_samples, shape.n_components, np.dtype(dtype).itemsize
    if n_samples > KERNEL_SAMPLES or not fused.KNOWN_FAMILIES.keys() >= set(families):
        return None
    words = shape.n_rows * size // 4
    if words * n_components <= NARROW_NUMBERS:
        width = power_of_two_below(max(2, n_samples // SAMPLES_OF_A_LANE))
        while width < WARP and n_runs * width < FILLING and 2 * width <= n_samples:
            width *= 2
        lanes = Lanes(group=1, width=min(width, WARP))
    elif words <= WIDE_NUMBERS and n_components <= WIDE_COMPONENTS:
        lanes = Lanes(group=1, width=power_of_two_above(max(2, n_components)), is_wide=True)
    else:
        return None
    within = power_of_two_below(max(1, LAUNCH_BYTES // (size * (shape.n_features + 1) * n_samples)))
    return lanes._replace(group=max(lanes.runs, min(power_of_two_above(n_runs), within)))


def _slots(shape: _Shape, tile: int, request: Request, search_dtype: str, machine: Machine) -> tuple[Slots, Slots]:
    """Slots of the search, and of float64 in mixed precision."""
    suited, number = _suited(shape, tile, machine), 1
    if tile == 0:
        is_in_turn = E_STEPS[suited.e_step].idle_is_free
        number = SLOTS_IN_TURN if is_in_turn else n_slots(shape.n_samples * shape.sample_bytes, machine)
        # No more slots than runs. On a GPU idle slots cost as much as busy ones, and with an empty queue most are idle.
        of_a_slot = 1 if machine.is_cpu or request.tol == 0 else RUNS_OF_A_GPU_SLOT
        number = min(number, power_of_two_above(-(-shape.n_runs // of_a_slot)))
    number = min(number, suited.most_slots(shape))
    search = Slots(number, STRIDE_OF_SHORT_RUNS if shape.n_components == 1 else STRIDE, suited.e_step)
    if request.precision != "mixed":
        return search, search
    finish = search._replace(stride=STRIDE_OF_SHORT_RUNS)
    if search_dtype == "float64":
        return finish, finish
    # One run of each fit is finished. The idle slots of a CPU cost too little for another program.
    fewer = number if machine.is_cpu else min(number, power_of_two_above(shape.n_fits))
    return search, finish._replace(number=fewer)


def _suits_vectors(shape: _Shape, tile: int) -> bool:
    is_small = shape.n_rows <= FEW_FEATURES and shape.n_components <= FEW_COMPONENTS and shape.n_samples <= FEW_SAMPLES
    return is_small and tile == 0


def _suits_one_kernel(shape: _Shape, tile: int) -> bool:
    fewest = 1 if tile or shape.n_runs == 1 else FEWEST_SLOTS
    return not shape.diagonal and shape.n_features > UNROLLED_SIZE and _most_in_one_kernel(shape) >= fewest


def _most_in_one_kernel(shape: _Shape) -> int:
    """The number of runs whose covariances one kernel can invert."""
    return MOST_ENTRIES // (shape.n_components * shape.n_features**2)


class _Suited(NamedTuple):
    """The shapes that an E-step suits.

    Attributes:
        e_step: its name among `jaxgmm.em.e_steps.E_STEPS`.
        suits: whether it is the best for a shape, and a tile or 0, on a CPU.
        most_slots: the maximum number of runs it can process together.
    """

    e_step: str
    suits: Callable[[_Shape, int], bool]
    most_slots: Callable[[_Shape], int]


def _any_number(_shape: _Shape) -> int:
    return _MOST_SLOTS


# Among the E-steps for a CPU, the first that suits is used.
_OF_A_CPU = (
    _Suited("vectors", _suits_vectors, _any_number),
    _Suited("products in one kernel", _suits_one_kernel, lambda shape: power_of_two_below(_most_in_one_kernel(shape))),
)
_OF_ANY_DEVICE = _Suited("products", lambda *_: True, _any_number)


def _suited(shape: _Shape, tile: int, machine: Machine) -> _Suited:
    """The E-step of runs that raw moments can represent."""
    rows = _OF_A_CPU if machine.is_cpu and are_known() else ()
    return next((row for row in rows if row.suits(shape, tile)), _OF_ANY_DEVICE)


def _centred_slots(shape: _Shape, tile: int, machine: Machine) -> Slots:
    """Slots of runs centred on each component: in float64, and seldom many."""
    if tile:
        return Slots(1, STRIDE_OF_SHORT_RUNS, "centred")
    run_bytes = 8 * shape.n_samples * (shape.n_rows + shape.n_components * (2 + 2 * shape.n_features))
    number = min(n_slots(run_bytes, machine), power_of_two_above(shape.n_runs))
    return Slots(number, STRIDE_OF_SHORT_RUNS, "centred")


def _room(n_components: int) -> int:
    room = next((room for room in ROOMS if room >= n_components), ROOMS[-1])
    while room < n_components:
        room *= 2
    return room
