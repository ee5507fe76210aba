"""SQUAREM, squared extrapolation of EM (Varadhan and Roland, 2008, Scandinavian Journal of Statistics 35).

Two of EM's steps, r₀ and r₁, say by which factor steps shrink. The next step is that of two iterations with a longer
step each: from where they began, θ₀ + 2 a r₀ + a² (r₁ - r₀) with a = ‖r₀‖ / ‖r₁ - r₀‖ of at least 1 (scheme S3). EM's
step from there, which begins the next two, makes up for errors of the extrapolation.

Norms are those of the complete data's information, not Euclidean ones, so that units of features do not matter.
"""

import jax.numpy as jnp

from jaxgmm.em.methods.accelerated import LEAST_CURVATURE, Acceleration, Direction, Products, Root

# The largest a; without it squares of a could overflow where steps do not shrink.
LONGEST = 1e4


def direction(products: Products, sqrt: Root) -> Direction:
    """The rest of the way from the end of the first of two steps of EM, s, where r is the second."""
    rr, _, _, ss, sy, yy = products
    length = jnp.clip(sqrt(ss / jnp.maximum(yy, jnp.finfo(yy.dtype).tiny)), 1, LONGEST)
    along = length**2, 2 * length - 1 - length**2, jnp.zeros_like(length)
    return Direction(along, 0.5 * length * rr, sy > LEAST_CURVATURE * ss)


SQUAREM = Acceleration(direction, n_em_steps=2)
