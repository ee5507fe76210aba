"""Spikes: optima that a likelihood without bound has wherever a component can shrink onto a few samples.

Such a component has next to no variance in some direction, or next to no samples. It says nothing about the data, and
the more components and starts there are, the likelier it is to win by likelihood alone (Day, 1969, "Estimating the
components of a mixture of normal distributions"; McLachlan and Peel, 2000, section 3.10).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxgmm.cholesky import cholesky
from jaxgmm.mixture import Mixture

# A component is a spike where its standard deviation in some direction is below this fraction of the data's in the same
# direction. The choice is that of a simulation: `benchmarks/NOTES.md`.
NARROWEST = 0.01


def n_spikes(mixture: Mixture, n_effective: Float[Array, ""]) -> Int[Array, ""]:
    """How many components are spikes: too narrow, or supported by fewer than D + 1 effective samples.

    Args:
        mixture: in standardised coordinates, in which the data have standard deviation 1 in every direction.
        n_effective: sum of the sample weights, the largest of which is 1.
    """
    floor = NARROWEST**2
    if mixture.is_diagonal:
        is_narrow = jnp.any(mixture.covariances < floor, axis=-1)
    else:
        # All eigenvalues exceed the floor exactly where there is a Cholesky factor of what remains above it.
        excess = mixture.covariances - floor * jnp.eye(mixture.n_features, dtype=mixture.covariances.dtype)[None]
        is_narrow = jnp.any(jnp.isnan(cholesky(excess)), axis=(-2, -1))
    is_small = mixture.weights * n_effective < mixture.n_features + 1
    return jnp.sum((mixture.weights > 0) & (is_narrow | is_small), dtype=jnp.int32)
