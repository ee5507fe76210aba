"""E-step with samples centred on each component: for components that raw moments cannot represent.

`jaxgmm.em.expectation` sums φ(x) about one origin for all components. A component that is narrow compared with its
distance from that origin loses its variance in the difference of two large numbers: for example one of equal values
among others, or one a millionth as wide as the data. Here each component has its own origin, its current mean, about
which

    log w_k N(x | μ_k, Σ_k) = c_k - ½ |W_k (x - μ_k)|²,    W_k = L_k⁻¹,  Σ_k = L_k L_kᵀ,
    c_k = log w_k - ½ (D log 2π + log|Σ_k|),

and the statistics are those of x - μ_k. Nothing cancels, whatever the widths. This is more work per component than two
matrix products for all components, so only few runs use it.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxgmm.em.covariance import Ridge
from jaxgmm.em.expectation import ABSENT, Data, Tiles, over_tiles
from jaxgmm.em.statistics import SufficientStatistics
from jaxgmm.mixture import Mixture
from jaxgmm.numerics.cholesky import cholesky, inverse_lower
from jaxgmm.numerics.reductions import max_over, sum_over

# A standard deviation of fewer roundings of the mean than this counts as zero.
MEAN_ROUNDINGS = 8


def centred_parameters(
    mixture: Mixture, ridge: Ridge | None = None
) -> tuple[Float[Array, "k f *s"], Float[Array, "k *s"]]:
    """Parameters [c_k, μ_k, W_k] of a mixture, and the share left of each component's variance.

    They have the shape of the natural parameters: F = 1 + D + D (D + 1) / 2, or 1 + 2 D for axis-aligned components,
    whose W_k is diagonal. The share is, for each component, the smallest ratio over features of the variance given the
    features before it to the feature's variance; 0 if that is no more than the rounding of the mean and owes nothing to
    a ridge, and NaN if a covariance is not positive definite. Trailing axes beyond those of the mixture are further
    mixtures.
    """
    means, covariances = mixture.means, mixture.covariances
    n_features = means.shape[1]
    if mixture.is_diagonal:
        variances = pivots = covariances
        whiteners = 1 / jnp.sqrt(variances)
    else:
        factors = cholesky(jnp.moveaxis(covariances, (0, 1, 2), (-3, -2, -1)))
        diagonal = jnp.diagonal(factors, axis1=-2, axis2=-1)
        pivots = jnp.moveaxis(diagonal, (-2, -1), (0, 1)) ** 2
        variances = covariances[:, np.arange(n_features), np.arange(n_features)]
        rows, columns = np.tril_indices(n_features)
        whiteners = jnp.moveaxis(inverse_lower(factors)[..., rows, columns], (-2, -1), (0, 1))
    log_weights = jnp.where(mixture.weights > 0, jnp.log(mixture.weights), ABSENT)
    constant = log_weights - 0.5 * (n_features * math.log(2 * math.pi) + jnp.sum(jnp.log(pivots), axis=1))
    rounding = MEAN_ROUNDINGS * jnp.finfo(means.dtype).eps.astype(means.dtype) * means
    if ridge is not None:
        own = ridge if mixture.is_diagonal else ridge[np.arange(n_features), np.arange(n_features)]
        rounding = jnp.where(own[None] > 0, 0.0, rounding)
    left = jnp.where(pivots > rounding**2, pivots / variances, 0.0)
    remaining = jnp.min(jnp.where(pivots > 0, left, jnp.nan), axis=1)
    return jnp.concatenate([constant[:, None], means, whiteners], axis=1), remaining


def centred_precisions(parameters: Float[Array, "k f *s"], mixture: Mixture) -> Float[Array, "k d ..."]:
    """The inverse covariances `(K, D, D)`, or `(K, D)`, of a mixture in these parameters."""
    n_features = mixture.means.shape[1]
    whiteners = parameters[:, 1 + n_features :]
    if mixture.is_diagonal:
        return whiteners**2
    rows, columns = np.tril_indices(n_features)
    lower = jnp.zeros((len(whiteners), n_features, n_features, *whiteners.shape[2:]), whiteners.dtype)
    lower = lower.at[:, rows, columns].set(whiteners)
    return jnp.sum(lower[:, :, :, None] * lower[:, :, None], axis=1)


def centred_e_step(
    data: Data | Tiles, parameters: Float[Array, "k f"], n_features: int, *, diagonal: bool
) -> tuple[SufficientStatistics, Float[Array, ""]]:
    """Sufficient statistics about each component's mean under the posterior, and the total log-likelihood in nats."""

    def sums(data: Data, _: None) -> tuple[SufficientStatistics, Array]:
        # Features after the first are the samples.
        z = data.features[1 : 1 + n_features]
        parts, log_density = centred_responsibilities(z, parameters, diagonal=diagonal)
        collected = jax.vmap(lambda own, rows: _collect(_centred(z, own), rows, diagonal=diagonal))
        statistics = collected(parameters, parts * data.weights[None, :])
        return SufficientStatistics(*statistics), jnp.sum(data.weights * log_density)

    return over_tiles(data, None, sums, diagonal=diagonal)


def centred_responsibilities(
    z: Float[Array, "d n"], parameters: Float[Array, "k f"], *, diagonal: bool
) -> tuple[Float[Array, "k n"], Float[Array, " n"]]:
    """Posterior probabilities of the components given each sample, and log-densities of the samples."""
    log_joint = jax.vmap(lambda own: _log_joint(z, own, diagonal=diagonal))(parameters)
    shift = max_over(log_joint, axis=0)
    joint = jnp.exp(log_joint - shift[None, :])
    density = sum_over(joint, axis=0)
    return joint / density[None, :], shift + jnp.log(density)


def _log_joint(z: Float[Array, "d n"], parameters: Float[Array, " f"], *, diagonal: bool) -> Float[Array, " n"]:
    """The logarithm of w_k N(x | μ_k, Σ_k) of one component."""
    constant, whitener = parameters[0], parameters[1 + len(z) :]
    centred = _centred(z, parameters)
    if diagonal:
        whitened = whitener[:, None] * centred
    else:
        rows, columns = np.tril_indices(len(z))
        lower = jnp.zeros((len(z), len(z)), whitener.dtype).at[rows, columns].set(whitener)
        whitened = jnp.matmul(lower, centred, precision=lax.Precision.HIGHEST)
    return constant - 0.5 * sum_over(whitened**2, axis=0)


def _collect(centred: Float[Array, "d n"], rows: Float[Array, " n"], *, diagonal: bool) -> tuple[Array, Array, Array]:
    """Count, first and second moments of one component."""
    weighted = centred * rows[None, :]
    if diagonal:
        second = jnp.sum(weighted * centred, axis=1)
    else:
        second = jnp.matmul(weighted, centred.T, precision=lax.Precision.HIGHEST)
    return jnp.sum(rows), jnp.sum(weighted, axis=1), second


def _centred(z: Float[Array, "d n"], parameters: Float[Array, " f"]) -> Float[Array, "d n"]:
    """Samples minus the mean of a component."""
    return z - parameters[1 : 1 + len(z), None]
