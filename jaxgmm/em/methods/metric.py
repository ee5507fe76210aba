"""Steps of mixtures in the metric of the complete data's information.

For steps a, b of all parameters that is

    <a, b> = Σ_k w_k (a_w b_w / w_k² + a_μᵀ P_k b_μ + ½ tr P_k a_Σ P_k b_Σ),    P_k = Σ_k⁻¹.

In it EM's own step is the gradient of the mean log-likelihood, to first order near a fixed point. Steps are `Mixture`s
of differences. Parameters are moved linearly, so a family's covariances have to form a linear space, as all of
`FAMILIES` do.
"""

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgmm.mixture import Mixture
from jaxgmm.numerics.traces import diagonals, pairs, total, trace_products

_Tree = TypeVar("_Tree")

# Largest change of a component in a step other than EM's: of its weight and its covariance, relative to themselves, and
# of its mean, in standard deviations.
LONGEST_OF_WEIGHT, LONGEST_OF_MEAN, LONGEST_OF_COVARIANCE = 0.5, 1.0, 0.5

# Roundings in a variance, relative to the sum of squares that it comes from.
ROUNDINGS = 4


class Parts(NamedTuple):
    """The parts of the inner products of steps; one row for each pair of steps, (0, 0), (0, 1), …, (1, 1), ….

    Attributes:
        of_weights: of each component.
        of_means: the same.
        of_covariances: the same, without the factor ½.
    """

    of_weights: Float[Array, "q k *s"]
    of_means: Float[Array, "q k *s"]
    of_covariances: Float[Array, "q k *s"]

    def products(self, weights: Float[Array, "k *s"]) -> Float[Array, "q *s"]:
        """The inner products of all pairs."""
        return jnp.sum(weights[None] * (self.of_weights + self.of_means + 0.5 * self.of_covariances), axis=1)

    def known(self, weights: Float[Array, "k *s"], rounding: Float[Array, "k *s"]) -> "Parts":
        """Without those of covariances whose first step, r, is no more than rounding; see `rounding`."""
        is_known = 0.5 * weights * self.of_covariances[0] > rounding
        return self._replace(of_covariances=jnp.where(is_known[None], self.of_covariances, 0))


def inner_products(
    steps: Sequence[Mixture], weights: Float[Array, "k *s"], precisions: Float[Array, "k d ..."]
) -> Parts:
    """The parts of the inner products of all pairs of steps, at mixtures of these weights and precisions."""
    # An absent component has weight 0, and does not move.
    own = jnp.where(weights > 0, weights, 1)
    of_weights = [step.weights / own for step in steps]
    # Features first, so that loops run along components and runs.
    last = weights.ndim
    p, *covariances = (jnp.moveaxis(a, 0, -last) for a in (precisions, *(step.covariances for step in steps)))
    means = [jnp.moveaxis(step.means, 0, -last) for step in steps]
    if steps[0].is_diagonal:
        whitened = [p * mean for mean in means]
        scaled = [p * own for own in covariances]
        traces = [total(scaled[i] * scaled[j]) for i, j in pairs(len(steps))]
    else:
        whitened = [total(p[:, d] * mean[d : d + 1] for d in range(len(p))) for mean in means]
        traces = trace_products(p, covariances)
    of_means = [total(means[i] * whitened[j]) for i, j in pairs(len(steps))]
    return Parts(
        jnp.stack([of_weights[i] * of_weights[j] for i, j in pairs(len(steps))]),
        jnp.stack(of_means),
        jnp.stack(traces),
    )


def rounding(here: Mixture, precisions: Float[Array, "k d ..."], *, about_means: bool) -> Float[Array, "k *s"]:
    """The part of each covariance in <r, r> of a step r of EM that is nothing but rounding, given the precisions.

    A variance is known to some roundings of the sum of squares that it comes from, about the mean or about the origin.
    If the other features nearly determine a feature, little of its variance is left, 1 / P_dd, and that is known no
    better. The ratio of the two is the variance inflation factor, where sums are about the mean.
    """
    variances, inverse = here.covariances, precisions
    if not here.is_diagonal:
        variances, inverse = diagonals(variances), diagonals(inverse)
    squares = variances if about_means else variances + here.means**2
    return rounding_of(here.weights, jnp.sum(squares * inverse, axis=1))


def rounding_of(weight: Array, inflation: Array) -> Array:
    """`rounding` of a component whose variances, added up, are inflated so many times."""
    return 0.5 * weight * (ROUNDINGS * float(jnp.finfo(weight.dtype).eps) * inflation) ** 2


def share_within_limits(along: Sequence[Float[Array, "*s"]], parts: Parts) -> Float[Array, "*s"]:
    """The share, at most 1, of a combination of steps with which no component changes too much.

    Covariances stay positive definite, and weights positive.
    """
    longest = LONGEST_OF_WEIGHT, LONGEST_OF_MEAN, LONGEST_OF_COVARIANCE
    coefficients = [(1 if i == j else 2) * along[i] * along[j] for i, j in pairs(len(along))]
    squares = [
        total(own[None] * product for own, product in zip(coefficients, part, strict=True)) / most**2
        for part, most in zip(parts, longest, strict=True)
    ]
    return 1 / jnp.maximum(jnp.sqrt(jnp.max(functools.reduce(jnp.maximum, squares), axis=0)), 1)


def moved(here: Mixture, along: Sequence[Float[Array, "*s"]], steps: Sequence[Mixture]) -> Mixture:
    """The mixture after a combination of steps, with weights whose sum is 1 in spite of rounding."""

    def leaf(start: Array, *parts: Array) -> Array:
        coefficients = [own.reshape(*[1] * (start.ndim - own.ndim), *own.shape) for own in along]
        return start + total(own * part for own, part in zip(coefficients, parts, strict=True))

    there = jax.tree.map(leaf, here, *steps)
    return replace(there, weights=there.weights / jnp.sum(there.weights, axis=0, keepdims=True))


def difference(a: _Tree, b: _Tree) -> _Tree:
    """The step from b to a, of parameters in any form."""
    return jax.tree.map(jnp.subtract, a, b)
