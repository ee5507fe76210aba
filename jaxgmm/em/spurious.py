"""Spikes: optima that a likelihood without bound has wherever a component can shrink onto a few samples.

Such a component has next to no variance in some direction and few samples, or next to none. It says nothing about the
data: a handful of samples lies near some plane by chance, a hundred do not. The more components and starts there are,
the likelier it is to win by likelihood alone (Day, 1969, "Estimating the components of a mixture of normal
distributions"). Widths are compared with those of the other components, as in the bounded ratios of Hathaway (1985), "A
constrained formulation of maximum-likelihood estimation for normal mixture distributions", and not with the spread of
the data: clusters far from each other are narrow beside that, and real.

Where a feature has few values, all components may shrink alike, each onto equal samples. What then remains of their
widths is the ridge, and their likelihood is whatever the ridge makes it: they are spikes too.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxgmm.cholesky import cholesky, inverse_lower
from jaxgmm.em.covariance import Ridge
from jaxgmm.mixture import Mixture

# A component is a spike where its standard deviation in some direction is below this fraction of that within the
# components together, and it may have fewer samples than this multiple of D + 1. Both were chosen by simulation:
# `benchmarks/NOTES.md`.
NARROWEST = 0.01
FEW = 5

# Or where its variance in some direction is less than this multiple of the ridge, and so next to nothing without it.
# A ridge that makes components about as wide as `NARROWEST` of the data is there for that, and they are no spikes.
RIDGE_ALONE = 1.05


def n_spikes(
    mixture: Mixture, n_effective: Float[Array, ""], total_weight: Float[Array, ""], ridge: Ridge
) -> Int[Array, ""]:
    """How many components are spikes: narrow and small, or next to nothing without the ridge or without samples.

    Args:
        mixture: in standardised coordinates.
        n_effective: effective number of samples, (Σ w)² / Σ w².
        total_weight: Σ w, of weights of which the largest is 1: no component can be of fewer samples than its share.
        ridge: `(D, D)` or `(D,)`, part of the covariances.
    """
    spread = tuple([1] * (mixture.covariances.ndim - 1))
    present = (mixture.weights > 0).reshape(-1, *spread)
    within = jnp.sum(jnp.where(present, mixture.weights.reshape(-1, *spread) * mixture.covariances, 0.0), axis=0)
    # Fewer than D + 1 samples lie in a plane, whatever they are.
    least = mixture.n_features + 1
    is_spike = _falls_below(mixture, NARROWEST**2 * within) & (mixture.weights * total_weight < FEW * least)
    is_spike |= (mixture.weights * n_effective < least) | _falls_below(mixture, _made_of(ridge))
    return jnp.sum((mixture.weights > 0) & is_spike, dtype=jnp.int32)


def _falls_below(mixture: Mixture, least: Ridge) -> Any:
    """Which components `(K,)` have in some direction less variance than a covariance, or variances, of comparison."""
    excess = mixture.covariances - least[None]
    if mixture.is_diagonal:
        return jnp.any(excess < 0, axis=-1)
    # No direction is too narrow exactly where there is a Cholesky factor of what remains.
    return jnp.any(jnp.isnan(cholesky(excess)), axis=(-2, -1))


def _made_of(ridge: Ridge) -> Ridge:
    """Variances that hardly anything but the ridge explains; next to none where it is as wide as it may be."""
    alone, most = RIDGE_ALONE * ridge, NARROWEST**2
    if ridge.ndim == 1:
        return jnp.where(alone < most, alone, 0.0)
    # The same in every direction, without eigenvalues: a / (1 + (2a / (a + b))¹⁶) is a for a < b, and nearly 0 beyond.
    identity = jnp.eye(len(ridge), dtype=ridge.dtype)
    step = 2 * (identity - most * _inverse(alone + most * identity))
    for _ in range(4):
        step = jnp.matmul(step, step, precision="highest")
    return jnp.matmul(alone, _inverse(identity + step), precision="highest")


def _inverse(positive: Float[Array, "d d"]) -> Float[Array, "d d"]:
    inverse = inverse_lower(cholesky(positive))
    return jnp.matmul(inverse.T, inverse, precision="highest")
