"""Spikes: optima that a likelihood without bound has wherever a component can shrink onto a few samples.

Such a component has next to no variance in some direction, or next to no samples. It says nothing about the data, and
the more components and starts there are, the likelier it is to win by likelihood alone (Day, 1969, "Estimating the
components of a mixture of normal distributions"). Widths are compared with those of the other components, as in the
bounded ratios of Hathaway (1985), "A constrained formulation of maximum-likelihood estimation for normal mixture
distributions", and not with the spread of the data: clusters far from each other are narrow beside that, and real.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxgmm.cholesky import cholesky
from jaxgmm.mixture import Mixture

# A component is a spike where its standard deviation in some direction is below this fraction of that within the
# components together. The choice is that of a simulation: `benchmarks/NOTES.md`.
NARROWEST = 0.01


def n_spikes(mixture: Mixture, n_effective: Float[Array, ""]) -> Int[Array, ""]:
    """How many components are spikes: too narrow, or supported by fewer than D + 1 effective samples.

    Args:
        mixture: in any coordinates.
        n_effective: effective number of samples, (Σ w)² / Σ w².
    """
    spread = tuple([1] * (mixture.covariances.ndim - 1))
    present = (mixture.weights > 0).reshape(-1, *spread)
    within = jnp.sum(jnp.where(present, mixture.weights.reshape(-1, *spread) * mixture.covariances, 0.0), axis=0)
    excess = mixture.covariances - NARROWEST**2 * within[None]
    if mixture.is_diagonal:
        is_narrow = jnp.any(excess < 0, axis=-1)
    else:
        # No direction is too narrow exactly where there is a Cholesky factor of what remains.
        is_narrow = jnp.any(jnp.isnan(cholesky(excess)), axis=(-2, -1))
    is_small = mixture.weights * n_effective < mixture.n_features + 1
    return jnp.sum((mixture.weights > 0) & (is_narrow | is_small), dtype=jnp.int32)
