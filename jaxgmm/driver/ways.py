"""The choice of ways: how runs of a shape pass through a device, and how many at a time.

A way is slots with an E-step, or kernels of a GPU; see `jaxgmm.driver.passes`. The constants come from
`benchmarks/NOTES.md`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxgmm.driver.program import Layout, Request, Slots, Way
from jaxgmm.em import fused
from jaxgmm.em.e_steps import E_STEPS
from jaxgmm.em.statistics import n_rows
from jaxgmm.engine.devices import (
    FEWEST_SLOTS,
    SLOTS_IN_TURN,
    Machine,
    n_slots,
    power_of_two_above,
    power_of_two_below,
)
from jaxgmm.engine.fused import FILLING, WARP, Lanes
from jaxgmm.numerics.elimination import MOST_ENTRIES, UNROLLED_SIZE
from jaxgmm.numerics.kernels import are_known

# Steps between two checks for finished runs: a check costs a fraction of a step, a late one wastes half the stride. A
# run of one component that starts from clusters ends with its second step, as the first has changed nothing, and most
# runs that a search has brought near their ends make few more steps.
STRIDE, STRIDE_OF_SHORT_RUNS = 4, 2

# More slots than there can ever be.
_MOST_SLOTS = 2**30

# Runs for each slot of a GPU if they differ in length: simulated, not measured; between the best values for 2-D and for
# 8-D.
RUNS_OF_A_GPU_SLOT = 4

# Runs for each slot of a chunk where work is uneven and idle slots cost as much as busy ones.
RUNS_OF_A_SLOT = 32

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


class Shape(NamedTuple):
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
        return n_rows(self.n_features, diagonal=self.diagonal)

    @property
    def sample_bytes(self) -> int:
        """Bytes that a run reads and writes for a sample: features, logits and responsibilities, mainly in float32."""
        return 4 * (self.n_rows + 2 * self.n_components)


def filling(way: Way, n_runs: int) -> int:
    """The number of data sets, of `n_runs` runs each, that fills a device."""
    if isinstance(way, Lanes):
        return -(-way.group // n_runs)
    # Empty slots are skipped if runs are read in turn.
    return 1 if is_in_turn(way) else -(-way.number // n_runs)


def evening_out(way: Way, n_runs: int) -> int:
    """The number of data sets of a chunk with which the last few runs in its slots are cheap; 0 if it is irrelevant."""
    if isinstance(way, Lanes):
        return 0
    return 1 if is_in_turn(way) else -(-RUNS_OF_A_SLOT * way.number // n_runs)


def is_in_turn(way: Way) -> bool:
    """Whether runs are read one after another, so that empty slots are skipped."""
    return isinstance(way, Slots) and E_STEPS[way.e_step].idle_is_free


def ways_of(
    shape: Shape, layout: Layout, request: Request, search_dtype: str, machine: Machine
) -> tuple[Way, Way, Way]:
    """The ways of the search, of float64 in mixed precision and of centred runs: kernels if suitable, else slots."""
    slots = (
        *_slots(shape, layout.tile, request, search_dtype, machine),
        _centred_slots(shape, layout.tile, machine),
    )
    if layout.tile or not may_have_kernels(request, machine):
        return slots
    is_mixed = request.precision == "mixed"
    if not is_mixed:
        search_dtype = request.precision
    # One run of each fit is finished, and few runs are centred. If float64 searches, one program does both.
    finishing = shape.n_fits if is_mixed and search_dtype == "float32" else shape.n_runs
    wanted = ((search_dtype, shape.n_runs), ("float64", finishing), ("float64", shape.n_fits))
    search, finish, centred = (
        lanes_of(shape, n_runs, layout.families, dtype) or way
        for way, (dtype, n_runs) in zip(slots, wanted, strict=True)
    )
    return search, finish, centred._replace(centred=True) if isinstance(centred, Lanes) else centred


def may_have_kernels(request: Request, machine: Machine) -> bool:
    """Whether the machine has kernels for this request, regardless of shape."""
    return machine.has_kernels and not request.is_recorded and request.method in fused.METHODS


def lanes_of(shape: Shape, n_runs: int, families: Sequence[str], dtype: str) -> Lanes | None:
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
    within = power_of_two_below(LAUNCH_BYTES // (size * (shape.n_features + 1) * n_samples))
    return lanes._replace(group=max(lanes.runs, min(power_of_two_above(n_runs), within)))


def _slots(shape: Shape, tile: int, request: Request, search_dtype: str, machine: Machine) -> tuple[Slots, Slots]:
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


def _suits_vectors(shape: Shape, tile: int) -> bool:
    is_small = shape.n_rows <= FEW_FEATURES and shape.n_components <= FEW_COMPONENTS and shape.n_samples <= FEW_SAMPLES
    return is_small and tile == 0


def _suits_one_kernel(shape: Shape, tile: int) -> bool:
    fewest = 1 if tile or shape.n_runs == 1 else FEWEST_SLOTS
    return not shape.diagonal and shape.n_features > UNROLLED_SIZE and _most_in_one_kernel(shape) >= fewest


def _most_in_one_kernel(shape: Shape) -> int:
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
    suits: Callable[[Shape, int], bool]
    most_slots: Callable[[Shape], int]


def _any_number(_shape: Shape) -> int:
    return _MOST_SLOTS


# Among the E-steps for a CPU, the first that suits is used.
_OF_A_CPU = (
    _Suited("vectors", _suits_vectors, _any_number),
    _Suited("products in one kernel", _suits_one_kernel, lambda shape: power_of_two_below(_most_in_one_kernel(shape))),
)
_OF_ANY_DEVICE = _Suited("products", lambda *_: True, _any_number)


def _suited(shape: Shape, tile: int, machine: Machine) -> _Suited:
    """The E-step of runs that raw moments can represent."""
    rows = _OF_A_CPU if machine.is_cpu and are_known() else ()
    return next((row for row in rows if row.suits(shape, tile)), _OF_ANY_DEVICE)


def _centred_slots(shape: Shape, tile: int, machine: Machine) -> Slots:
    """Slots of runs centred on each component: in float64, and seldom many."""
    if tile:
        return Slots(1, STRIDE_OF_SHORT_RUNS, "centred")
    run_bytes = 8 * shape.n_samples * (shape.n_rows + shape.n_components * (2 + 2 * shape.n_features))
    number = min(n_slots(run_bytes, machine), power_of_two_above(shape.n_runs))
    return Slots(number, STRIDE_OF_SHORT_RUNS, "centred")
