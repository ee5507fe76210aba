"""What is asked of fits, what compiled programs are made for, and what they are told when they run.

A `Request` is what a user asks, whatever the data and the models. `jaxgmm.driver.plan` turns it into programs: a
`Program` is known when it is compiled, that is, shapes, and what is worth a program of its own; `Options` are not, and
changing them compiles nothing.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from jaxgmm.em.covariance import FAMILIES, Coordinates
from jaxgmm.engine.fused import Lanes
from jaxgmm.numerics.kernels import Effort

# Number of components, name of the family, and ridge: a model as users say it.
Combination = tuple[int, str, float]


class Request(NamedTuple):
    """What is asked of all fits of a call.

    Attributes:
        init: name of an initialiser, or `"mixture"`, `"responsibilities"` or `"labels"` for explicit starts.
        n_init: R; 1 for explicit starts.
        n_finalists: starts of each fit that are taken to their ends.
        precision: `"mixed"`, `"float32"` or `"float64"`.
        tol: smallest gain of the mean log-likelihood to go on for.
        max_iter: iterations at most.
        key: random key, or seed.
        avoids_spurious: whether spurious components lower what runs are chosen by; see `jaxgmm.soundness`.
        n_history: length of the recorded history; 0 when none is asked for.
        snapshots: `(P,)`, the iterations after which the parameters are recorded; None for none.
        has_absent: whether starts have absent components.
        absolute_ridge: whether ridges are in squared data units.
        method: how runs go on from what an E-step has found, its name among `jaxgmm.em.methods.METHODS`.
    """

    init: str
    n_init: int
    n_finalists: int
    precision: str
    tol: float
    max_iter: int
    key: Array | np.int64
    avoids_spurious: bool = True
    n_history: int = 0
    snapshots: Int[np.ndarray, " p"] | None = None
    has_absent: bool = False
    absolute_ridge: bool = False
    method: str = "em"

    @property
    def n_snapshots(self) -> int:
        """P."""
        return 0 if self.snapshots is None else len(self.snapshots)

    @property
    def is_recorded(self) -> bool:
        """Whether more is kept of runs than kernels hold."""
        return bool(self.n_history or self.n_snapshots)


class Layout(NamedTuple):
    """What all programs of a chunk are compiled for.

    Attributes:
        families: names of the families; they agree in `diagonal`, so that their runs share programs.
        n_components: K that arrays have room for.
        has_absent: whether models may have fewer components, if not in this call, then in another that shares programs.
        n_init: R; 1 for explicit starts.
        tile: samples that an E-step reads at a time, or 0 for all.
        group: data sets that are looked at together where all at once would take too much memory, a power of two.
        together: starts of a data set that are made at the same time.
        absolute_ridge: whether ridges are in squared data units.
        is_weighted: whether samples have weights of their own.
    """

    families: tuple[str, ...]
    n_components: int
    has_absent: bool
    n_init: int
    tile: int
    group: int
    together: int
    absolute_ridge: bool
    is_weighted: bool

    @property
    def diagonal(self) -> bool:
        """Whether components are axis-aligned."""
        return FAMILIES[self.families[0]].diagonal

    @property
    def coordinates(self) -> tuple[Coordinates, ...]:
        """The coordinates in which the families are fitted."""
        return tuple(dict.fromkeys(FAMILIES[name].coordinates for name in self.families))


class Slots(NamedTuple):
    """How many runs step together, and how.

    Attributes:
        number: S of them.
        stride: steps between two looks for ended runs.
        e_step: its name among `jaxgmm.em.e_steps.E_STEPS`.
    """

    number: int
    stride: int
    e_step: str


# How a pass takes runs to their ends.
Way = Slots | Lanes


class Program(NamedTuple):
    """What programs are compiled for, and which of them are run.

    Attributes:
        layout: what they have in common.
        init: name of an initialiser, or `"mixture"`, `"responsibilities"` or `"labels"` for explicit starts.
        n_finalists: starts of each fit that are taken to their ends; the others end after a few iterations.
        precision: `"mixed"`, `"float32"` or `"float64"`.
        search_dtype: type of a search in mixed precision; where that is float64, it shares a program with what follows.
        effort: how much effort the compiler makes for what is done once for each run; see `jaxgmm.numerics.kernels`.
        n_history: length of the recorded history; 0 when none is asked for.
        n_snapshots: iterations after which the parameters are recorded; 0 likewise.
        method: how runs go on, its name among `jaxgmm.em.methods.METHODS`.
        search: the way of the search; or of all there is to do, in other than mixed precision.
        finish: that of what float64 does in mixed precision: mostly, to finish runs that the search has found.
        centred: that of runs whose components are too narrow for raw moments in float64.
    """

    layout: Layout
    init: str
    n_finalists: int
    precision: str
    search_dtype: str
    effort: Effort
    n_history: int
    n_snapshots: int
    method: str
    search: Way
    finish: Way
    centred: Way


class Models(NamedTuple):
    """The M models that are fitted to every data set.

    Attributes:
        n_components: K of each.
        family: its number among `Layout.families`.
        form: its number among the P forms in which a data set is standardised; see `models_of`.
    """

    n_components: Int[Array | np.ndarray, " m"]
    family: Int[Array | np.ndarray, " m"]
    form: Int[Array | np.ndarray, " m"]


class Options(NamedTuple):
    """What compiled programs are told.

    Attributes:
        tol: smallest gain of the mean log-likelihood to go on for.
        max_iter: iterations at most.
        reg_covar: the ridges, as fractions of each feature's variance unless they are absolute.
        key: random key, or seed.
        models: what is fitted.
        snapshots: `(P,)`, the iterations after which the parameters are recorded; None for none.
        avoids_spurious: whether spurious components lower what runs are chosen by; see `jaxgmm.soundness`.
    """

    tol: float
    max_iter: int
    reg_covar: Float[Array | np.ndarray, " i"]
    key: Array | np.int64
    models: Models
    snapshots: Int[Array | np.ndarray, " p"] | None
    avoids_spurious: bool


def models_of(combinations: Sequence[Combination]) -> tuple[tuple[str, ...], Float[np.ndarray, " i"], Models]:
    """Families, ridges and models of some combinations of K, family and ridge.

    A data set has a form for each coordinates in which families are fitted, and of that one for each ridge.
    """
    families = tuple(dict.fromkeys(family for _, family, _ in combinations))
    coordinates = list(dict.fromkeys(FAMILIES[family].coordinates for family in families))
    ridges = list(dict.fromkeys(ridge for _, _, ridge in combinations))
    rows = [
        (
            *(k, families.index(family)),
            coordinates.index(FAMILIES[family].coordinates) * len(ridges) + ridges.index(ridge),
        )
        for k, family, ridge in combinations
    ]
    return families, np.array(ridges, np.float64), Models(*np.array(rows, np.int32).T)
