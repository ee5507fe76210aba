"""What is compiled, and how data sets are cut into chunks: everything that is decided by shape.

A program costs seconds to compile, and padding costs time in every iteration. Stacks have programs of their own shape,
since one stack is seldom alone. Data sets of many lengths share a few programs instead, as far as what they are padded
by costs less than another program would. The constants come from `benchmarks/NOTES.md`.
"""

from typing import NamedTuple

import numpy as np

from jaxgmm.em.covariance import FAMILIES
from jaxgmm.em.initialization import INITIALIZERS
from jaxgmm.engine.batch import Batch, padded_lengths
from jaxgmm.engine.devices import Machine, chunk_size, n_slots, power_of_two_above, power_of_two_below
from jaxgmm.search import Options, Program

# What a core needs for one sample, component and iteration, and how many iterations a run usually makes.
SECONDS = 2e-9
ITERATIONS = 50

# What the programs for another shape cost.
COMPILATION = 3.0

# Below so much work a search in float32 takes longer to compile than it saves.
SHORT_SEARCH = 0.1

# Numbers of components that programs shared by several K have room for; larger ones double.
ROOMS = (5, 10, 20)

# A product with so few rows gains by being stacked over the starts of a data set.
FEW_ROWS = 64


class Chunk(NamedTuple):
    """Data sets that are fitted together.

    Attributes:
        data_sets: their numbers.
        size: as many as the program is compiled for; what is missing is filled up.
        n_samples: their padded length.
        program: what is compiled.
    """

    data_sets: np.ndarray
    size: int
    n_samples: int
    program: Program

    def halves(self) -> "list[Chunk]":
        """The same work in two chunks of half the size; none where it cannot be cut."""
        size = self.size // 2
        parts = [self.data_sets[:size], self.data_sets[size:]] if size else []
        return [self._replace(data_sets=part, size=size) for part in parts if len(part)]


def chunks(data: Batch, wanted: Program, options: Options, machine: Machine) -> list[Chunk]:
    """Chunks of data sets of one padded length, sized for the machine.

    Args:
        data: the data sets.
        wanted: what to compile; what depends on shapes (`n_components` upward of the K present, `has_absent`,
            `search_dtype`, `n_slots`, `n_stacked_slots`, `tile`) is decided here.
        options: tolerance and limits.
        machine: its memory and cores.
    """
    n_present = options.n_components
    iterations = wanted.n_init * min(options.max_iter, ITERATIONS)
    seconds = SECONDS * iterations / machine.n_cores  # for one sample and component
    program = wanted._replace(n_components=n_present, has_absent=False)
    if data.is_ragged and wanted.init in INITIALIZERS:
        room = _room(n_present)
        if seconds * (room - n_present) * len(data.samples) < COMPILATION:
            program = program._replace(n_components=room, has_absent=True)
    tolerated = int(COMPILATION / (seconds * n_present)) if seconds > 0 else np.iinfo(np.int64).max
    lengths = padded_lengths(data, tolerated)
    work = seconds * program.n_components * float(np.sum(lengths))
    program = program._replace(search_dtype="float64" if work < SHORT_SEARCH else "float32")
    planned = []
    for length in np.unique(lengths):
        planned += _of_one_length(np.flatnonzero(lengths == length), int(length), data, program, options, machine)
    return planned


def _of_one_length(
    data_sets: np.ndarray, n_samples: int, data: Batch, program: Program, options: Options, machine: Machine
) -> list[Chunk]:
    n_features, n_components, n_init = data.samples.shape[1], program.n_components, program.n_init
    diagonal = FAMILIES[program.covariance_type].diagonal
    n_rows = 1 + 2 * n_features if diagonal else 1 + n_features + n_features * (n_features + 1) // 2
    # A run reads its features and writes logits and responsibilities, in the main in float32.
    sample_bytes = 4 * (n_rows + 2 * n_components)
    tile, n_held = 0, n_rows
    if n_samples * sample_bytes > machine.working_set:
        tile = power_of_two_below(max(1, machine.working_set // sample_bytes))
        n_samples, n_held = -(-n_samples // tile) * tile, n_features
    # Beside the runs: samples in three forms, features, and what initialisation holds, in float64.
    data_set_bytes = 8 * n_samples * (3 * n_features + n_held + 3 * n_components + 8)
    data_set_bytes += 8 * n_init * (program.n_history + 3 * n_components * n_rows)
    slots, stacked = 1, 0
    if tile == 0:
        slots = n_slots(n_samples * sample_bytes, machine)
        # One data set has no neighbours, and needs no more slots than it has starts.
        slots = min(slots, power_of_two_above(n_init)) if data.n_data_sets == 1 else slots
        # Stacked starts share one larger matrix product, which pays only where none has to wait for another.
        together = options.tol == 0 and program.precision != "mixed" and program.n_finalists == n_init
        if together and n_init > 1 and n_components * n_rows <= FEW_ROWS:
            stacked = n_slots(4 * n_samples * (n_rows + 2 * n_components * n_init), machine)
    size = chunk_size(len(data_sets), data_set_bytes, stacked or -(-slots // n_init), machine)
    program = program._replace(n_slots=slots, n_stacked_slots=stacked, tile=tile)
    parts = (data_sets[first : first + size] for first in range(0, len(data_sets), size))
    return [Chunk(part, size, n_samples, program) for part in parts]


def _room(n_components: int) -> int:
    room = next((room for room in ROOMS if room >= n_components), ROOMS[-1])
    while room < n_components:
        room *= 2
    return room
