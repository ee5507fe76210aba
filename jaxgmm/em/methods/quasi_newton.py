"""Quasi-Newton acceleration of EM (Lange, 1995; Jamshidian and Jennrich, 1997).

To first order near a fixed point, EM's step r is the gradient of the mean log-likelihood in the metric of the complete
data's information (`jaxgmm.em.methods.metric`). So L-BFGS (Liu and Nocedal, 1989) with inner products in this metric
begins with EM's own step and learns from the last one how far EM has still to go. With s the last step and y the fall
of r along it, the direction is

    d = γ (r - α y) + (α - ρ γ <y, r - α y>) s,    ρ = 1 / <s, y>,  α = ρ <s, r>,  γ = max(1, <s, y> / <y, y>),

and ½ <r, d> is the Newton decrement. Where r grows along s, near a saddle, EM's step is lengthened instead.
"""

import jax.numpy as jnp

from jaxgmm.em.methods.accelerated import LEAST_CURVATURE, Acceleration, Direction, Products, Root


def direction(products: Products, sqrt: Root) -> Direction:
    """The direction of L-BFGS with one pair."""
    rr, rs, ry, ss, sy, yy = products
    yy = jnp.maximum(yy, jnp.finfo(yy.dtype).tiny)
    is_known = sy > LEAST_CURVATURE * ss
    rho = 1 / jnp.where(is_known, sy, 1)
    alpha, gamma = rho * rs, jnp.maximum(sy / yy, 1)
    along = gamma, alpha - rho * gamma * (ry - alpha * yy), -gamma * alpha
    decrement = 0.5 * (along[0] * rr + along[1] * rs + along[2] * ry)
    is_known &= decrement > 0
    longer = jnp.maximum(sqrt(ss / yy), 1)
    along = [jnp.where(is_known, own, other) for own, other in zip(along, (longer, 0.0, 0.0), strict=True)]
    return Direction(along, jnp.where(is_known, decrement, 0.5 * longer * rr), is_known)


QUASI_NEWTON = Acceleration(direction, n_em_steps=0)
