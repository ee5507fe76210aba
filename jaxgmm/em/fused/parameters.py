"""M-step and check of parameters, number by number; see `jaxgmm.em.fused`."""

import functools
import math
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxgmm.em.centred import MEAN_ROUNDINGS
from jaxgmm.em.expectation import ABSENT
from jaxgmm.em.fused.rows import Asked, Component, Elementary, Kernel, Natural, Shape
from jaxgmm.em.maximization import ROUNDINGS
from jaxgmm.numerics.lanes import Arrays, OfRuns
from jaxgmm.numerics.traces import total

_LOG2_2PI = math.log2(2 * math.pi)

# Number of roots of pivots that are multiplied before taking the logarithm.
_FACTORS = 2

# The factor of V, and of quadratic forms.
SCALE = math.sqrt(0.5 * math.log2(math.e))


def m_step(components: list[Component], sums: list[Component], asked: Asked, kernel: Kernel) -> list[Component]:
    """See `jaxgmm.em.maximization.m_step`."""
    arrays, elementary, shape, *_ = kernel
    counts = [own.weight for own in sums]
    inverse_total = elementary.reciprocal(arrays.sum_of_runs(counts))
    weights = [count * inverse_total for count in counts]
    inverses = [elementary.reciprocal(jnp.where(count > 0, count, 1.0)) for count in counts]
    moved = [[first * inverse for first in own.mean] for own, inverse in zip(sums, inverses, strict=True)]
    spread = [
        [second * inverse - step[i] * step[j] for (i, j), second in zip(shape.entries, own.covariance, strict=True)]
        for own, inverse, step in zip(sums, inverses, moved, strict=True)
    ]
    covariances = _covariances(weights, spread, asked, arrays, shape)
    # If a mean moves far, a variance about the old mean loses digits.
    lost = _rounding(moved, arrays)
    covariances = [
        [c + lost if i == j else c for (i, j), c in zip(shape.entries, own, strict=True)] for own in covariances
    ]
    proposal = []
    for component, weight, step, covariance, present in zip(
        components, weights, moved, covariances, asked.present, strict=True
    ):
        is_present = present > 0
        means = [jnp.where(is_present, m + s, 0.0) for m, s in zip(component.mean, step, strict=True)]
        own = [jnp.where(is_present, c, float(i == j)) for (i, j), c in zip(shape.entries, covariance, strict=True)]
        proposal.append(Component(weight, means, own))
    return proposal


def _covariances(
    weights: list[OfRuns], spread: list[list[OfRuns]], asked: Asked, arrays: Arrays, shape: Shape
) -> list[list[OfRuns]]:
    """The covariances of a family from second central moments, with the ridge; see `jaxgmm.em.covariance`."""
    found = [KNOWN_FAMILIES[name](weights, spread, arrays) for name in shape.families]
    chosen = found[0]
    for number, other in enumerate(found[1:], start=1):
        is_other = asked.family == number
        chosen = jax.tree.map(lambda new, old, is_other=is_other: jnp.where(is_other, new, old), other, chosen)
    return [[c + r for c, r in zip(own, asked.ridge, strict=True)] for own in chosen]


def _rounding(moved: list[list[OfRuns]], arrays: Arrays) -> OfRuns:
    """The amount that rounding may remove from variances; see `jaxgmm.em.maximization`."""
    squares = [functools.reduce(jnp.maximum, [step * step for step in own]) for own in moved]
    # A component without support has not moved.
    squares = [jnp.where(square < jnp.inf, square, 0.0) for square in squares]
    return arrays.most_of_runs(squares) * (ROUNDINGS * len(moved[0]) * float(jnp.finfo(squares[0].dtype).eps))


def _own(_weights: list[OfRuns], spread: list[list[OfRuns]], _arrays: Arrays) -> list[list[OfRuns]]:
    return spread


def _shared(weights: list[OfRuns], spread: list[list[OfRuns]], arrays: Arrays) -> list[list[OfRuns]]:
    weighted = [[weight * s for s in own] for weight, own in zip(weights, spread, strict=True)]
    return [[arrays.sum_of_runs(list(rows)) for rows in zip(*weighted, strict=True)]] * len(spread)


def _round(_weights: list[OfRuns], spread: list[list[OfRuns]], _arrays: Arrays) -> list[list[OfRuns]]:
    return [[total(own) * (1 / len(own))] * len(own) for own in spread]


# Other families have no kernels.
KNOWN_FAMILIES = {"full": _own, "tied": _shared, "diag": _own, "spherical": _round}


def checked(components: list[Component], asked: Asked, kernel: Kernel) -> tuple[list[Natural], OfRuns]:
    """The parameters that the E-step reads, and the number of components without support or variance."""
    arrays, elementary, shape, centred, _ = kernel
    ridges = [r for (i, j), r in zip(shape.entries, asked.ridge, strict=True) if i == j]
    naturals, unsound = [], []
    for (weight, mean, covariance), present in zip(components, asked.present, strict=True):
        roots, pivots, whitener = _whitener(covariance, elementary, shape)
        variances = [c for (i, j), c in zip(shape.entries, covariance, strict=True) if i == j]
        # Written so that NaN is not sound.
        is_sound = weight > float(jnp.finfo(weight.dtype).eps)
        for pivot, variance, m, ridge in zip(pivots, variances, mean, ridges, strict=True):
            if centred:
                rounding = jnp.where(ridge > 0, 0.0, (MEAN_ROUNDINGS * float(jnp.finfo(m.dtype).eps)) * m)
                is_sound &= (pivot > asked.variance_floor * variance) & (pivot > rounding * rounding)
            else:
                is_sound &= pivot > asked.variance_floor * (variance + m * m)
        unsound.append(jnp.where(is_sound, 0.0, present))
        log_weight = jnp.where(weight > 0, elementary.log2(jnp.where(weight > 0, weight, 1.0)), ABSENT)
        # A product of more roots might leave the range of floating-point numbers.
        parts = [functools.reduce(operator.mul, roots[i : i + _FACTORS]) for i in range(0, len(roots), _FACTORS)]
        constant = log_weight + total([elementary.log2(part) for part in parts])
        naturals.append(Natural(constant - 0.5 * _LOG2_2PI * shape.n_features, whitener))
    return naturals, arrays.sum_of_runs(unsound)


def _whitener(
    covariance: list[OfRuns], elementary: Elementary, shape: Shape
) -> tuple[list[OfRuns], list[OfRuns], list[OfRuns]]:
    """Reciprocal roots of the pivots, the pivots, and V."""
    n_features = shape.n_features
    if shape.diagonal:
        roots = [elementary.rsqrt(c) for c in covariance]
        return roots, covariance, [SCALE * root for root in roots]
    entry = dict(zip(shape.entries, covariance, strict=True))
    factor, inverse, roots, pivots = {}, {}, [], []
    for j in range(n_features):
        pivot = less(entry[j, j], [factor[j, q] * factor[j, q] for q in range(j)])
        pivots.append(pivot)
        roots.append(elementary.rsqrt(pivot))
        for i in range(j + 1, n_features):
            factor[i, j] = less(entry[i, j], [factor[i, q] * factor[j, q] for q in range(j)]) * roots[j]
    for j in range(n_features):
        inverse[j, j] = SCALE * roots[j]
        for i in range(j + 1, n_features):
            inverse[i, j] = -(total([factor[i, q] * inverse[q, j] for q in range(j, i)]) * roots[i])
    return roots, pivots, [inverse[entry] for entry in shape.entries]


def whitened(whitener: list[Array], vector: Sequence[Array], shape: Shape) -> list[Array]:
    """V a."""
    entries = list(zip(shape.entries, whitener, strict=True))
    return [total(v * vector[j] for (row, j), v in entries if row == i) for i in range(shape.n_features)]


def less(value: Array, terms: Sequence[Array]) -> Array:
    """A value less some others, one after another."""
    return functools.reduce(operator.sub, terms, value)
