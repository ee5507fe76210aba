"""The linear equations of implicit derivatives.

At a fixed point θ = M(θ) with Jacobian J of M, derivatives solve (I - J) u = v. Repeating u ← v + J u takes as many
turns as plain EM, thousands where components overlap. With few parameters the matrix is made, column by column, and
factorised. With more, BiCGSTAB (van der Vorst, 1992) multiplies by it a few dozen times, as the eigenvalues of I - J
lie between 0 and 1 at a maximum of the likelihood.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.scipy.sparse.linalg import bicgstab
from jaxtyping import Array, Float

from jaxgmm.mixture import Mixture

# Parameters up to which the matrix is factorised, and columns of it that are made at a time.
FEW = 64
_COLUMNS = 16
_MOST_TURNS = 1000


def solve_linearised(matvec: Callable[[Mixture], Mixture], rhs: Mixture) -> Mixture:
    """Solves (I - J) u = v, given v ↦ (I - J) v; NaN where no solution was found, and zeros for v = 0."""
    # As one vector: its transpose needs every part to depend on what is differentiated, and a ridge leaves the weights'
    # part alone.
    flat, unravel = ravel_pytree(rhs)

    def flat_matvec(vector: Array) -> Array:
        return ravel_pytree(matvec(unravel(vector)))[0]

    solve = _by_factors if flat.size <= FEW else _by_products
    return unravel(lax.custom_linear_solve(flat_matvec, flat, solve=solve, transpose_solve=solve))


def _by_factors(matvec: Callable[[Array], Array], rhs: Float[Array, " p"]) -> Float[Array, " p"]:
    columns = lax.map(matvec, jnp.eye(rhs.size, dtype=rhs.dtype), batch_size=_COLUMNS)
    return _zeros_if_zero(rhs, jnp.linalg.solve(columns.T, rhs))


def _by_products(matvec: Callable[[Array], Array], rhs: Float[Array, " p"]) -> Float[Array, " p"]:
    eps = float(jnp.finfo(rhs.dtype).eps)
    solution, _ = bicgstab(matvec, rhs, tol=eps ** (2 / 3), atol=0.0, maxiter=_MOST_TURNS)
    is_found = jnp.linalg.norm(rhs - matvec(solution)) <= eps**0.5 * jnp.linalg.norm(rhs)
    return _zeros_if_zero(rhs, jnp.where(is_found, solution, jnp.nan))


def _zeros_if_zero(rhs: Float[Array, " p"], solution: Float[Array, " p"]) -> Float[Array, " p"]:
    """Nothing changes where nothing is asked, even if the matrix is singular."""
    return jnp.where(jnp.any(rhs != 0), solution, 0.0)
