"""Log-density, responsibilities and component of samples, from log w_k N(x | μ_k, Σ_k) of one mixture's components.

A sample belongs to no component if none has a density above 0, or if one of these densities is NaN: far from all
components, at infinity, if the sample or the mixture holds NaN, or if all weights are 0. All quantities follow this
rule.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxgmm.numerics.reductions import max_over, sum_over


class Quantity(NamedTuple):
    """A quantity computed for each sample.

    Attributes:
        of: function from logarithms `(K, N)` to `(N,)`, or `(N, K)`.
        is_of_components: whether it has a value for each component.
        is_integer: whether it is the number of a component.
    """

    of: Callable[[Any], Any]
    is_of_components: bool
    is_integer: bool


class Joint(NamedTuple):
    """Densities w_k N(x | μ_k, Σ_k) relative to the largest one of each sample.

    Attributes:
        highest: the logarithm of the largest density, by which they are divided.
        densities: the quotients, from 0 to 1.
        total: the sums of the quotients.
        is_known: whether a sample belongs to any component.
    """

    highest: Float[Array, " n"]
    densities: Float[Array, "k n"]
    total: Float[Array, " n"]
    is_known: Bool[Array, " n"]


def joint(log_joint: Float[Array, "k n"]) -> Joint:
    """Densities of the components at each sample."""
    # The shift cancels from the result, so no derivative needs to pass through the maximum.
    highest = max_over(lax.stop_gradient(log_joint), axis=0)
    is_finite = jnp.isfinite(highest)
    highest = jnp.where(is_finite, highest, 0)
    densities = jnp.exp(log_joint - highest[None])
    total = sum_over(densities, axis=0)
    # The maximum ignores NaN, the sum does not.
    return Joint(highest, densities, total, is_finite & ~jnp.isnan(total))


def log_density(log_joint: Float[Array, "k n"]) -> Float[Array, " n"]:
    """The logarithm of the density of the mixture."""
    highest, _, total, _ = joint(log_joint)
    return highest + jnp.log(total)


def posterior(log_joint: Float[Array, "k n"]) -> Float[Array, "n k"]:
    """Probabilities of the components; NaN where a sample belongs to none."""
    _, densities, total, is_known = joint(log_joint)
    return (densities / jnp.where(is_known, total, jnp.nan)[None]).T


def component(log_joint: Float[Array, "k n"]) -> Int[Array, " n"]:
    """The most probable component; -1 where a sample belongs to none."""
    return jnp.where(joint(log_joint).is_known, jnp.argmax(log_joint, axis=0), -1)


LOG_DENSITY = Quantity(log_density, is_of_components=False, is_integer=False)
RESPONSIBILITIES = Quantity(posterior, is_of_components=True, is_integer=False)
COMPONENT = Quantity(component, is_of_components=False, is_integer=True)
