"""Sums and maxima over a few rows of long arrays.

On a CPU, XLA passes reductions that it recognises to a library, which for a handful of rows takes five times as long as
a loop vectorised along them. Written with operations that XLA does not recognise, they remain loops.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float


def max_over(x: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    """The maximum along an axis. Not differentiable."""
    least = np.array(-np.inf, x.dtype)
    return lax.reduce(x, least, lambda a, b: lax.select(lax.gt(a, b), a, b), (axis % x.ndim,))


def sum_over(x: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    """The sum along an axis, written with subtractions so that XLA does not recognise it."""

    @jax.custom_jvp
    def total(x: Array) -> Array:
        return lax.reduce(x, np.array(0, x.dtype), lambda a, b: lax.sub(a, lax.neg(b)), (axis % x.ndim,))

    @total.defjvp
    def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
        return total(*primals), jnp.sum(*tangents, axis=axis)

    return total(x)
