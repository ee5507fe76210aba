"""The choice of programs and chunks: everything that is decided by shape.

A program costs seconds to compile, and padding costs time in every iteration. Stacks get programs of their own shape,
since one stack is seldom alone. Data sets of many lengths share a few programs instead, as long as the padding costs
less than another program would. The constants come from `benchmarks/NOTES.md`.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jaxgmm.driver.program import Combination, Layout, Options, Program, Request, models_of
from jaxgmm.driver.ways import Shape, evening_out, filling, is_in_turn, lanes_of, may_have_kernels, ways_of
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.em.initialization import INITIALIZERS, TURN
from jaxgmm.engine.batch import Sizes, padded_lengths
from jaxgmm.engine.devices import Machine, chunk_size, n_starting, power_of_two_above, power_of_two_below
from jaxgmm.numerics.kernels import Effort

# Seconds of a core of a CPU for one sample, component and iteration, and the usual number of iterations of a run.
SECONDS = 2e-9
ITERATIONS = 50

# Seconds to compile the programs for another shape.
COMPILATION = 3.0

# Seconds of work below which a search in float32 is not worth a program of its own. Seconds of work are those of one
# core, or of all of a GPU.
SHORT_SEARCH = 0.2

# The same where runs have kernels, which speed up float32 so much that it pays sooner.
SHORT_SEARCH_OF_KERNELS = 0.002

# Seconds of work, at `ITERATIONS` for each run, below which even repeated calls hardly depend on how well they were
# compiled: then loops are compiled "quickly", and code that runs once for each fit "at once".
LITTLE = 0.008

# Seconds of one core below which work on small data sets is finished sooner by one core than by several that share
# XLA's one pool of threads.
INDIVISIBLE = 0.01

# Seconds of work from which on workers finish at such different times that more chunks pay.
UNEVEN = 0.4

# Numbers of components for which programs shared by several K have room; beyond these, the room doubles.
ROOMS = (5, 10, 20)


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


class Bucket(NamedTuple):
    """The programs for data sets of one padded length.

    Attributes:
        n_samples: the longest data set that it holds.
        size: the number of data sets of a chunk.
        model_sets: the models fitted to each.
    """

    n_samples: int
    size: int
    model_sets: tuple[ModelSet, ...]


class Plan(NamedTuple):
    """What is decided once for all data sets of a job, from their sizes.

    Parts of a job that share a plan are fitted by the same programs, to the same answers.

    Attributes:
        buckets: the shortest first.
    """

    buckets: tuple[Bucket, ...]

    def chunks(self, lengths: Int[np.ndarray, " b"]) -> list[Chunk]:
        """Chunks of data sets of these lengths: of all data sets of the job, or of some."""
        own = np.searchsorted([bucket.n_samples for bucket in self.buckets], lengths)
        found = []
        for number, bucket in enumerate(self.buckets):
            data_sets = np.flatnonzero(own == number)
            parts = (data_sets[first : first + bucket.size] for first in range(0, len(data_sets), bucket.size))
            found += [Chunk(part, bucket.size, bucket.model_sets) for part in parts]
        return found


def plan_for(
    sizes: Sizes, models: Sequence[Combination], request: Request, machine: Machine, *, by_components: bool = False
) -> Plan:
    """The programs for data sets of these sizes, and chunks that suit the machine.

    Programs do not depend on the number of cores of a CPU; only the number of data sets of a chunk does.

    Args:
        sizes: of all data sets of a job.
        models: the models fitted to each.
        request: how they are fitted.
        machine: its memory and cores.
        by_components: whether models of different K are sets of their own, fewest components first.
    """
    sizes = sizes.in_short
    # For one sample and component, regardless of max_iter: changing it should compile nothing.
    seconds = SECONDS * request.n_init * ITERATIONS / machine.speed
    n_components = sum(k for k, _, _ in models)
    tolerated = int(COMPILATION / (seconds * n_components))
    lengths = padded_lengths(sizes, tolerated)
    work = seconds * n_components * float(np.sum(lengths * sizes.n_each))
    effort = "well" if not machine.is_cpu else "at once" if work < LITTLE else "quickly"
    search_dtype = "float64" if work < SHORT_SEARCH else "float32"
    shared = _shared(sizes, models, request, seconds * sizes.n_rows, search_dtype, by_components=by_components)
    if may_have_kernels(request, machine) and work >= SHORT_SEARCH_OF_KERNELS:
        longest = int(np.max(lengths))
        shared = [_searched_by_kernels(own, _shape_of(own, longest, 1, sizes, request)) for own in shared]
    is_uneven, is_indivisible = request.tol > 0 and work >= UNEVEN, work * machine.speed < INDIVISIBLE
    # Starts on one data set are chunks of their own: on a CPU that costs little, and no program depends on their
    # number.
    one_by_one = sizes.is_single and machine.is_cpu
    buckets = []
    padded, of_padded = np.unique(lengths, return_inverse=True)
    n_of_each = np.bincount(of_padded, weights=sizes.n_each).astype(int)
    for length, n_data_sets in zip(padded, n_of_each, strict=True):
        # The number that may share the slots of a device: a power of two, like the sizes of chunks.
        n_together = 1 if one_by_one else power_of_two_above(-(-int(n_data_sets) // machine.n_devices))
        model_sets, of_chunks = [], []
        for own in shared:
            shape = _shape_of(own, int(length), n_together, sizes, request)
            model_set, n_bytes = _sized(own, shape, request, effort, machine)
            model_sets.append(model_set)
            way, n_runs = model_set.program.search, shape.n_models * shape.n_init
            least = int(n_data_sets) if is_indivisible and is_in_turn(way) else filling(way, n_runs)
            enough = evening_out(way, n_runs) if is_uneven else 0
            of_chunks.append(chunk_size(int(n_data_sets), n_bytes, least, machine, enough=enough))
        buckets.append(Bucket(int(length), 1 if one_by_one else min(of_chunks), tuple(model_sets)))
    return Plan(tuple(buckets))


def _shared(
    sizes: Sizes,
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
    if sizes.is_ragged and request.init in INITIALIZERS:
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
                is_weighted=sizes.is_weighted,
                options=options,
                search_dtype=search_dtype,
            )
        )
    return shared


def _shape_of(shared: _Shared, n_samples: int, n_together: int, sizes: Sizes, request: Request) -> Shape:
    diagonal, n_models = FAMILIES[shared.families[0]].diagonal, len(shared.numbers)
    return Shape(n_samples, sizes.n_features, shared.n_components, n_models, request.n_init, n_together, diagonal)


def _sized(shared: _Shared, shape: Shape, request: Request, effort: Effort, machine: Machine) -> tuple[ModelSet, int]:
    """The programs for data sets of one length, and the bytes for each data set."""
    # Slots that are read in turn share the features of all data sets; other slots make their own.
    tile, n_held = 0, shape.n_rows if machine.is_cpu else shape.n_features
    if shape.n_samples * shape.sample_bytes > machine.working_set:
        tile = power_of_two_below(machine.working_set // shape.sample_bytes)
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
    search, finish, centred = ways_of(shape, layout, request, shared.search_dtype, machine)
    program = Program(
        layout=layout,
        init=request.init,
        n_finalists=request.n_finalists,
        precision=request.precision,
        search_dtype=shared.search_dtype,
        effort=effort,
        n_history=request.n_history,
        n_snapshots=request.n_snapshots,
        method=request.method,
        search=search,
        finish=finish,
        centred=centred,
    )
    # In addition to the runs: samples in three forms, features, and the arrays of initialisation, in float64.
    n_forms, n_runs = len(layout.coordinates) * len(shared.options.reg_covar), shape.n_models * shape.n_init
    n_bytes = 8 * n_samples * (n_features + n_forms * (2 * n_features + 2) + n_held + 3 * n_components + 6)
    n_bytes += 8 * n_runs * (request.n_history + (3 + request.n_snapshots) * n_components * shape.n_rows)
    return ModelSet(shared.numbers, program, shared.options, n_samples), n_bytes


def _searched_by_kernels(shared: _Shared, shape: Shape) -> _Shared:
    """The same models, with a search in float32 if runs have kernels for it."""
    return shared._replace(search_dtype="float32") if lanes_of(shape, 1, shared.families, "float32") else shared


def _room(n_components: int) -> int:
    room = next((room for room in ROOMS if room >= n_components), ROOMS[-1])
    while room < n_components:
        room *= 2
    return room
