"""E-step: data and parameters to sufficient statistics and log-likelihood.

With φ the features of `jaxgmm.em.statistics`, log w_k N(x | μ_k, Σ_k) = θ_k · φ(x), where the natural parameters are

    θ_k = [log w_k - ½ (D log 2π + log|Σ_k| + μ_kᵀ P_k μ_k),  P_k μ_k,  -½ vech(P_k)],    P_k = Σ_k⁻¹.

Raw second moments cancel when a component is narrow and far from the origin, so data are standardised before they come
here, and `natural_parameters` reports how much of each variance the cancellation leaves.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxgmm.cholesky import cholesky, inverse_lower, log_determinant
from jaxgmm.em.statistics import SufficientStatistics, from_sums, vech
from jaxgmm.mixture import Mixture

# exp(_ABSENT) is exactly 0, and unlike -inf it survives a matrix product in split precision.
_ABSENT = -1e30


class Data(NamedTuple):
    """A data set as the E-step reads it. Padding has weight 0.

    Attributes:
        features: φ of every sample.
        weights: sample weights, not negative.
    """

    features: Float[Array, "f n"]
    weights: Float[Array, " n"]


def e_step(
    data: Data, natural: Float[Array, "k f"], n_features: int, *, diagonal: bool
) -> tuple[SufficientStatistics, Float[Array, ""]]:
    """Sufficient statistics under the posterior of the components, and the total log-likelihood in nats."""
    log_joint = jnp.matmul(natural, data.features, precision=lax.Precision.HIGHEST)
    # The shift cancels from the result, so no derivative needs to pass through the maximum.
    shift = lax.stop_gradient(jnp.max(log_joint, axis=0))
    joint = jnp.exp(log_joint - shift[None, :])
    density = jnp.sum(joint, axis=0)
    log_likelihood = jnp.sum(data.weights * (shift + jnp.log(density)))
    weighted_responsibilities = joint * (data.weights / density)[None, :]
    return collect(data, weighted_responsibilities, n_features, diagonal=diagonal), log_likelihood


def collect(
    data: Data, weighted_responsibilities: Float[Array, "k n"], n_features: int, *, diagonal: bool
) -> SufficientStatistics:
    """Sufficient statistics for given responsibilities, each multiplied by its sample's weight."""
    sums = jnp.matmul(weighted_responsibilities, data.features.T, precision=lax.Precision.HIGHEST)
    return from_sums(sums, n_features, diagonal=diagonal)


def natural_parameters(mixture: Mixture) -> tuple[Float[Array, "k f"], Float[Array, " k"]]:
    """Natural parameters θ `(K, F)` of a mixture, and what cancellation left of each component's variance.

    The second is, for each component, the smallest ratio over features of the variance given the features before it
    (a squared pivot of the Cholesky factor) to the raw second moment it was computed from. It is NaN when a covariance
    is not positive definite; near the machine epsilon no digit of the variance can be trusted.
    """
    means, covariances = mixture.means, mixture.covariances
    if mixture.is_diagonal:
        variances = pivots = covariances
        precisions = 1 / variances
        linear = precisions * means
        quadratic = precisions
        log_determinants = jnp.sum(jnp.log(variances), axis=-1)
    else:
        variances = jnp.diagonal(covariances, axis1=-2, axis2=-1)
        factor = cholesky(covariances)
        pivots = jnp.diagonal(factor, axis1=-2, axis2=-1) ** 2
        whitening = inverse_lower(factor)
        precisions = jnp.einsum("kqi,kqj->kij", whitening, whitening, precision=lax.Precision.HIGHEST)
        linear = jnp.einsum("kij,kj->ki", precisions, means, precision=lax.Precision.HIGHEST)
        quadratic = vech(precisions)
        log_determinants = log_determinant(factor)
    log_weights = jnp.where(mixture.weights > 0, jnp.log(mixture.weights), _ABSENT)
    normaliser = mixture.n_features * math.log(2 * math.pi) + log_determinants + jnp.sum(linear * means, axis=-1)
    constant = log_weights - 0.5 * normaliser
    remaining = jnp.min(pivots / (variances + means**2), axis=-1)
    return jnp.concatenate([constant[:, None], linear, -0.5 * quadratic], axis=-1), remaining
