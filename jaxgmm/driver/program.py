"""The request of a call, the static part of compiled programs, and the values passed to them.

A `Request` is what a user asks for, regardless of data and models. `jaxgmm.driver.plan` turns it into programs: a
`Program` is static, that is, shapes and anything that is worth a program of its own; `Options` are traced, and changing
them compiles nothing.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from jaxgmm.em.covariance import FAMILIES, Coordinates
from jaxgmm.engine.fused import Lanes
from jaxgmm.numerics.kernels import Effort
from jaxgmm.settings import METHODS

# Number of components, name of the family, and ridge: a model in the user's terms.
Combination = tuple[int, str, float]


class Request(NamedTuple):
    """The request for all fits of a call.

    Attributes:
        init: name of an initialiser, or `"mixture"`, `"responsibilities"` or `"labels"` for explicit starts.
        n_init: R; 1 for explicit starts.
        n_finalists: number of starts of each fit that run to their ends.
        precision: `"mixed"`, `"float32"` or `"float64"`.
        tol: what may be left to gain of the mean log-likelihood when a run stops; see `jaxgmm.em.methods`.
        max_iter: maximum number of iterations.
        key: random key, or seed.
        avoids_spurious: whether spurious components lower the scores of runs; see `jaxgmm.soundness`.
        n_history: length of the recorded history; 0 if none is requested.
        snapshots: `(P,)`, the iterations after which the parameters are recorded; None for none.
        has_absent: whether starts have absent components.
        absolute_ridge: whether ridges are in squared data units.
        method: how runs advance after an E-step, a name among `jaxgmm.em.methods.METHODS`.
        threads: maximum number of cores of a CPU that work on chunks; None for all.
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
    method: str = METHODS[0]
    threads: int | None = None

    @property
    def n_snapshots(self) -> int:
        """P."""
        return 0 if self.snapshots is None else len(self.snapshots)

    @property
    def is_recorded(self) -> bool:
        """Whether more is recorded of runs than kernels hold."""
        return bool(self.n_history or self.n_snapshots)


class Layout(NamedTuple):
    """The static part that all programs of a chunk share.

    Attributes:
        families: names of the families; they agree in `diagonal`, so that their runs share programs.
        n_components: K that arrays have room for.
        has_absent: whether models may have fewer components, in this call or in another that shares programs.
        n_init: R; 1 for explicit starts.
        tile: samples that an E-step reads at a time, or 0 for all.
        group: data sets processed together where all at once would take too much memory, a power of two.
        together: starts of a data set made at the same time.
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
        number: S.
        stride: steps between two checks for finished runs.
        e_step: its name among `jaxgmm.em.e_steps.E_STEPS`.
    """

    number: int
    stride: int
    e_step: str


# How a pass advances runs.
Way = Slots | Lanes


class Program(NamedTuple):
    """The static part of all programs of a chunk, and which of them run.

    Attributes:
        layout: the part that they share.
        init: name of an initialiser, or `"mixture"`, `"responsibilities"` or `"labels"` for explicit starts.
        n_finalists: number of starts of each fit that run to their ends; the others end after a few iterations.
        precision: `"mixed"`, `"float32"` or `"float64"`.
        search_dtype: type of a search in mixed precision; if it is float64, the search and the finish share a program.
        effort: the compiler's effort for code that runs once for each run; see `jaxgmm.numerics.kernels`.
        n_history: length of the recorded history; 0 if none is requested.
        n_snapshots: number of iterations after which the parameters are recorded; 0 if none is requested.
        method: how runs advance, a name among `jaxgmm.em.methods.METHODS`.
        search: the way of the search, or of the whole fit in a single precision.
        finish: the way of float64 in mixed precision, which mostly finishes runs that the search has found.
        centred: the way of runs whose components are too narrow for raw moments in float64.
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
    """The traced part of compiled programs.

    Attributes:
        tol: what may be left to gain of the mean log-likelihood when a run stops; see `jaxgmm.em.methods`.
        max_iter: maximum number of iterations.
        reg_covar: the ridges, as fractions of each feature's variance unless they are absolute.
        key: random key, or seed.
        models: the models to fit.
        snapshots: `(P,)`, the iterations after which the parameters are recorded; None for none.
        avoids_spurious: whether spurious components lower the scores of runs; see `jaxgmm.soundness`.
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

    A data set has one form for each pair of coordinates in which families are fitted and ridge.
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
