"""Runs as a GPU kernel holds them: number by number, in the lanes of a device.

Arrays are those of `jaxgmm.numerics.lanes`, each of one number. The components of a run are a list of arrays or, wide,
the last axis of one array. Between kernels, the numbers of all runs are rows of three arrays: fixed rows, moving rows,
and stored rows, which are what a method keeps.

Triangles of symmetric matrices are lists, row after row; those of axis-aligned families have the diagonal only.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxgmm.em.covariance import FAMILIES
from jaxgmm.em.state import RunState, Settings
from jaxgmm.mixture import Mixture
from jaxgmm.numerics.elementary import exp2_in_float64, log2_in_float64, rsqrt_in_float64, sqrt_in_float64
from jaxgmm.numerics.lanes import Arrays, OfRuns, OfSamples

# The last of the moving rows of runs.
LOG_LIKELIHOOD, GAP, N_ITER, STATUS = -4, -3, -2, -1


class Elementary(NamedTuple):
    """The elementary functions of a device.

    Attributes:
        exp2: for arguments up to 0.
        log2: for positive arguments.
        rsqrt: for positive arguments.
        reciprocal: for positive arguments.
        sqrt: for arguments from 0.
    """

    exp2: Callable[[Array], Array]
    log2: Callable[[Array], Array]
    rsqrt: Callable[[Array], Array]
    reciprocal: Callable[[Array], Array]
    sqrt: Callable[[Array], Array]


# A kernel has no reciprocal instruction, but one for the reciprocal root.
ELEMENTARY = {
    "float32": Elementary(jnp.exp2, jnp.log2, lax.rsqrt, lambda x: lax.rsqrt(x) * lax.rsqrt(x), jnp.sqrt),
    "float64": Elementary(exp2_in_float64, log2_in_float64, rsqrt_in_float64, lambda x: 1.0 / x, sqrt_in_float64),
}


class Shape(NamedTuple):
    """The static shape of a kernel.

    Attributes:
        n_components: K.
        n_features: D.
        families: names of the families; they agree in `diagonal`.
        is_wide: whether components are the last axis of arrays instead of a list of arrays.
    """

    n_components: int
    n_features: int
    families: tuple[str, ...]
    is_wide: bool

    @property
    def n_listed(self) -> int:
        """Components in lists."""
        return 1 if self.is_wide else self.n_components

    @property
    def diagonal(self) -> bool:
        """Whether components are axis-aligned."""
        return FAMILIES[self.families[0]].diagonal

    @property
    def entries(self) -> list[tuple[int, int]]:
        """Rows and columns of the stored entries of a covariance."""
        d = range(self.n_features)
        return [(i, i) for i in d] if self.diagonal else [(i, j) for i in d for j in range(i + 1)]

    @property
    def n_own(self) -> int:
        """Numbers of a component: its weight, mean and covariance."""
        return 1 + self.n_features + len(self.entries)


class Component(NamedTuple):
    """The parameters of one component, of all runs."""

    weight: OfRuns
    mean: list[OfRuns]
    covariance: list[OfRuns]


class Natural(NamedTuple):
    """The parameters of a component that the E-step reads in addition to its mean: c and V."""

    constant: OfRuns
    whitener: list[OfRuns]


class State(NamedTuple):
    """Runs between two steps; see `jaxgmm.em.state.RunState`. Iterations and status are floating-point too."""

    components: list[Component]
    natural: list[Natural]
    log_likelihood: OfRuns
    gap: OfRuns
    n_iter: OfRuns
    status: OfRuns


class Asked(NamedTuple):
    """The settings of runs, all as arrays of runs; see `jaxgmm.em.state.Settings`.

    Attributes:
        present: 1 for a present component, else 0.
        ridge: in the layout of a covariance.
        family: its number among the families.
        total_weight: Σ w.
        tol: smallest change of the mean log-likelihood for which a run continues.
        max_iter: maximum number of iterations.
        variance_floor: smallest share of its raw second moment that a variance may keep.
    """

    present: list[OfRuns]
    ridge: list[OfRuns]
    family: OfRuns
    total_weight: OfRuns
    tol: OfRuns
    max_iter: OfRuns
    variance_floor: OfRuns


# From the number of a block of samples to the features of these and, last, their weights.
Read = Callable[[Any], Sequence[OfSamples]]


class Kernel(NamedTuple):
    """The static part of the arithmetic of a kernel.

    Attributes:
        arrays: how they relate.
        elementary: functions of the device.
        shape: of the problem.
        centred: whether components may be as narrow as `jaxgmm.em.centred` has them, rather than only as narrow as
            `jaxgmm.em.expectation.natural_parameters` can represent. By default a run ends in the same way here as
            there.
        method: how runs advance, a name among `jaxgmm.em.fused.METHODS`.
    """

    arrays: Arrays
    elementary: Elementary
    shape: Shape
    centred: bool = False
    method: str = "em"


def of_rows(fixed: Sequence[OfRuns], moving: Sequence[OfRuns], shape: Shape) -> tuple[State, Asked]:
    """The states of runs and what is asked of them, from rows in the order of `moving_rows` and `fixed_rows`."""
    given, asked = iter(moving), iter(fixed)

    def several(rows: Iterator[OfRuns], number: int) -> list[OfRuns]:
        return [next(rows) for _ in range(number)]

    n_entries = len(shape.entries)
    components = [
        Component(next(given), several(given, shape.n_features), several(given, n_entries))
        for _ in range(shape.n_listed)
    ]
    present, ridge = several(asked, shape.n_listed), several(asked, n_entries)
    return State(components, [], *given), Asked(present, ridge, *asked)


def to_rows(state: State) -> list[OfRuns]:
    """The moving rows of states, in the order of `moving_rows`."""
    return jax.tree.leaves(state._replace(natural=None))


def moving_rows(state: RunState, shape: Shape) -> Float[Array, "m q *k"]:
    """The moving rows of runs `(Q,)`: parameters and the rest of their states, a row of all runs for each number."""
    dtype = state.mixture.weights.dtype
    of_run = [state.log_likelihood, state.gap, state.n_iter, state.status]
    return _rows(_numbers(state.mixture, shape), [row.astype(dtype) for row in of_run], shape)


def fixed_rows(settings: Settings, family: Int[Array, " q"], total_weight: Float[Array, " q"], shape: Shape) -> Array:
    """The fixed rows of runs `(Q,)`: their settings `Asked`, a row of all runs for each number."""
    dtype = total_weight.dtype
    ridge = [settings.ridge[:, i] if shape.diagonal else settings.ridge[:, i, j] for i, j in shape.entries]
    rest = [family, total_weight, settings.tol, settings.max_iter, settings.variance_floor]
    of_run = [*ridge, *(jnp.broadcast_to(row, family.shape).astype(dtype) for row in rest)]
    present = settings.present
    if present is None:
        present = jnp.ones((len(family), shape.n_components), bool)
    return _rows([present.astype(dtype)], of_run, shape)


def row_of(moving: Float[Array, "m q *k"], number: int) -> Float[Array, " q"]:
    """A moving row that all components of a run share, such as `STATUS`."""
    return moving[number] if moving.ndim == 2 else moving[number, :, 0]


def mixtures_of(rows: Float[Array, "m q *k"], shape: Shape) -> Mixture:
    """The parameters in moving rows, `(Q, K, …)`."""
    own = rows[: shape.n_listed * shape.n_own]
    if not shape.is_wide:
        own = jnp.moveaxis(own.reshape(shape.n_components, shape.n_own, -1), 0, 2)
    weight, mean, covariance = jnp.split(own, [1, 1 + shape.n_features])
    if shape.diagonal:
        covariances = jnp.moveaxis(covariance, 0, -1)
    else:
        place, d = {entry: number for number, entry in enumerate(shape.entries)}, range(shape.n_features)
        matrix = jnp.stack([jnp.stack([covariance[place[max(i, j), min(i, j)]] for j in d]) for i in d])
        covariances = jnp.moveaxis(matrix, (0, 1), (-2, -1))
    return Mixture(weight[0], jnp.moveaxis(mean, 0, -1), covariances)


def _numbers(mixture: Mixture, shape: Shape) -> list[Array]:
    """Those of all components, each `(Q, K)`."""
    weights, means, covariances = mixture.arrays
    entries = [covariances[..., i] if shape.diagonal else covariances[..., i, j] for i, j in shape.entries]
    return [weights, *(means[..., i] for i in range(shape.n_features)), *entries]


def _rows(numbers: list[Array], of_runs: list[Array], shape: Shape) -> Array:
    """Rows of numbers: of one component after another, or with the components as the last axis."""
    if shape.is_wide:
        return jnp.stack([*numbers, *(jnp.broadcast_to(row[:, None], numbers[0].shape) for row in of_runs)])
    return jnp.stack([*(number[:, k] for k in range(shape.n_components) for number in numbers), *of_runs])
