"""What is said of samples, from the logarithms of w_k N(x | μ_k, Σ_k) of one mixture's components.

A sample belongs to no component where none has a density above 0, or where one of these is NaN: far from all of them,
at infinity, where the sample or the mixture holds NaN, and where all weights are 0. One rule says so.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxgmm.reductions import max_over, sum_over


class Quantity(NamedTuple):
    """Something that is said of each sample.

    Attributes:
        of: from logarithms `(K, N)` to `(N,)`, or `(N, K)`.
        is_of_components: whether there is one for each component.
        is_integer: whether it is a number of a component.
    """

    of: Callable[[Any], Any]
    is_of_components: bool
    is_integer: bool


def log_density(log_joint: Float[Array, "k n"]) -> Float[Array, " n"]:
    """The logarithm of the density of the mixture."""
    highest, _, total = _joint(log_joint)
    return highest + jnp.log(total)


def posterior(log_joint: Float[Array, "k n"]) -> Float[Array, "n k"]:
    """Probabilities of the components; NaN where a sample belongs to none."""
    _, joint, total = _joint(log_joint)
    return jnp.where(is_known(log_joint)[None], joint / total[None], jnp.nan).T


def component(log_joint: Float[Array, "k n"]) -> Int[Array, " n"]:
    """The most probable component; -1 where a sample belongs to none."""
    return jnp.where(is_known(log_joint), jnp.argmax(log_joint, axis=0), -1)


def _joint(log_joint: Array) -> tuple[Array, Array, Array]:
    """The largest logarithm of a sample, the density of each component beside that one's, and their sum."""
    # The shift cancels from the result, so no derivative needs to pass through the maximum.
    highest = max_over(lax.stop_gradient(log_joint), axis=0)
    highest = jnp.where(jnp.isfinite(highest), highest, 0)
    joint = jnp.exp(log_joint - highest[None])
    return highest, joint, sum_over(joint, axis=0)


def is_known(log_joint: Float[Array, "k n"]) -> Bool[Array, " n"]:
    """Whether a sample belongs to any component: some density is above 0, and none is NaN."""
    log_joint = lax.stop_gradient(log_joint)
    is_nan = max_over(jnp.isnan(log_joint).astype(log_joint.dtype), axis=0)
    return jnp.isfinite(max_over(log_joint, axis=0)) & (is_nan == 0)


LOG_DENSITY = Quantity(log_density, is_of_components=False, is_integer=False)
RESPONSIBILITIES = Quantity(posterior, is_of_components=True, is_integer=False)
COMPONENT = Quantity(component, is_of_components=False, is_integer=True)
