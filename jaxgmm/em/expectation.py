"""E-step: data and parameters to sufficient statistics and log-likelihood.

With φ the features of `jaxgmm.em.statistics`, log w_k N(x | μ_k, Σ_k) = θ_k · φ(x), where the natural parameters are

    θ_k = [log w_k - ½ (D log 2π + log|Σ_k| + μ_kᵀ P_k μ_k),  P_k μ_k,  -½ vech(P_k)],    P_k = Σ_k⁻¹.

Raw second moments cancel when a component is narrow and far from the origin, so data are standardised before they come
here, and `natural_parameters` reports how much of each variance the cancellation leaves.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxgmm.em.statistics import SufficientStatistics, features, from_sums, unvech, vech
from jaxgmm.mixture import Mixture
from jaxgmm.numerics.elimination import inverse_and_pivots
from jaxgmm.numerics.reductions import max_over, sum_over
from jaxgmm.numerics.traces import FEW, diagonals

# exp(ABSENT) is exactly 0, and unlike -inf it survives a matrix product in split precision.
ABSENT = -1e30

_Rows = TypeVar("_Rows")
_Sums = TypeVar("_Sums")


class Data(NamedTuple):
    """A data set in the form that the E-step reads. Padding has weight 0.

    Attributes:
        features: φ of every sample.
        weights: sample weights, not negative.
    """

    features: Float[Array, "f n"]
    weights: Float[Array, " n"]


class Tiles(NamedTuple):
    """A large data set, whose features are computed tile by tile whenever they are read. N is T times M.

    Attributes:
        samples: standardised samples.
        weights: sample weights, not negative.
    """

    samples: Float[Array, "t d m"]
    weights: Float[Array, "t m"]


def as_data(z: Float[Array, "d n"], weights: Float[Array, " n"], tile: int, *, diagonal: bool) -> Data | Tiles:
    """A standardised data set in the form that the E-step reads: `tile` samples at a time, or all at once for 0."""
    if tile == 0:
        return Data(features(z, diagonal=diagonal), weights)
    return Tiles(jnp.swapaxes(z.reshape(len(z), -1, tile), 0, 1), weights.reshape(-1, tile))


def over_tiles(data: Data | Tiles, rows: _Rows, sums: Callable[[Data, _Rows], _Sums], *, diagonal: bool) -> _Sums:
    """Adds up `sums` of each tile. `rows` are values `(…, N)` for each sample, divided into tiles like the data."""
    if isinstance(data, Data):
        return sums(data, rows)
    n_tiles, _, size = data.samples.shape
    tiled = jax.tree.map(lambda a: jnp.moveaxis(a.reshape(*a.shape[:-1], n_tiles, size), -2, 0), rows)

    def of_tile(tile: tuple[Array, Array, _Rows]) -> _Sums:
        samples, weights, rows = tile
        return sums(Data(features(samples, diagonal=diagonal), weights), rows)

    def add(total: _Sums, tile: tuple[Array, Array, _Rows]) -> tuple[_Sums, None]:
        return jax.tree.map(jnp.add, total, of_tile(tile)), None

    tiles = (data.samples, data.weights, tiled)
    shapes = jax.eval_shape(of_tile, jax.tree.map(lambda a: a[0], tiles))
    zero = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
    return lax.scan(add, zero, tiles)[0]


def e_step(
    data: Data | Tiles, natural: Float[Array, "k f"], n_features: int, *, diagonal: bool
) -> tuple[SufficientStatistics, Float[Array, ""]]:
    """Sufficient statistics under the posterior of the components, and the total log-likelihood in nats."""

    def sums(data: Data, _: None) -> tuple[SufficientStatistics, Array]:
        return _e_step(data, natural, n_features, diagonal=diagonal)

    return over_tiles(data, None, sums, diagonal=diagonal)


def _e_step(data: Data, natural: Array, n_features: int, *, diagonal: bool) -> tuple[SufficientStatistics, Array]:
    """The E-step of one tile."""
    log_joint = jnp.matmul(natural, data.features, precision=lax.Precision.HIGHEST)
    # The shift cancels from the result, so no derivative needs to pass through the maximum.
    shift = max_over(lax.stop_gradient(log_joint), axis=0)
    joint = jnp.exp(log_joint - shift[None, :])
    density = sum_over(joint, axis=0)
    log_likelihood = jnp.sum(data.weights * (shift + jnp.log(density)))
    weighted_responsibilities = joint * (data.weights / density)[None, :]
    return collect(data, weighted_responsibilities, n_features, diagonal=diagonal), log_likelihood


def collect(
    data: Data, weighted_responsibilities: Float[Array, "k n"], n_features: int, *, diagonal: bool
) -> SufficientStatistics:
    """Sufficient statistics for given responsibilities, each multiplied by its sample's weight."""
    rows, precision = weighted_responsibilities, lax.Precision.HIGHEST
    if len(data.features) > len(rows):
        # On a CPU the product is up to a third faster with its longer operand first. Without the barrier, the compiler
        # swaps them back.
        sums = lax.optimization_barrier(jnp.matmul(data.features, rows.T, precision=precision)).T
    else:
        sums = jnp.matmul(rows, data.features.T, precision=precision)
    return from_sums(sums, n_features, diagonal=diagonal)


def natural_parameters(
    mixture: Mixture, *, as_one_kernel: bool = False
) -> tuple[Float[Array, "k f *s"], Float[Array, "k *s"]]:
    """Natural parameters θ `(K, F)` of a mixture, and the share of each component's variance left by cancellation.

    The second is, for each component, the smallest ratio over features of the variance given the features before it
    (a squared pivot of the Cholesky factor) to the raw second moment it was computed from. It is NaN when a covariance
    is not positive definite; near the machine epsilon no digit of the variance can be trusted.

    Trailing axes beyond those of the mixture are further mixtures. For `as_one_kernel` see
    `jaxgmm.numerics.elimination`.
    """
    means, covariances = mixture.means, mixture.covariances
    n_features = means.shape[1]
    if mixture.is_diagonal:
        variances = pivots = covariances
        precisions = 1 / variances
        linear = precisions * means
        quadratic = precisions
    else:
        precisions, pivots = inverse_and_pivots(covariances, as_one_kernel=as_one_kernel)
        variances = diagonals(covariances)
        if n_features <= FEW:
            # A product of such small matrices would be one library call for each, and a sum along an axis would be a
            # loop that is not vectorised.
            linear = sum(precisions[:, :, i] * means[:, i : i + 1] for i in range(n_features))
        else:
            linear = jnp.sum(precisions * means[:, None], axis=2)
        quadratic = vech(precisions)
    log_weights = jnp.where(mixture.weights > 0, jnp.log(mixture.weights), ABSENT)
    normaliser = n_features * math.log(2 * math.pi) + jnp.sum(jnp.log(pivots) + linear * means, axis=1)
    constant = log_weights - 0.5 * normaliser
    remaining = jnp.min(jnp.where(pivots > 0, pivots / (variances + means**2), jnp.nan), axis=1)
    return jnp.concatenate([constant[:, None], linear, -0.5 * quadratic], axis=1), remaining


def precisions(natural: Float[Array, "k f *s"], mixture: Mixture) -> Float[Array, "k d ..."]:
    """The inverse covariances `(K, D, D)`, or `(K, D)`, of a mixture in its natural parameters."""
    quadratic = -2 * natural[:, 1 + mixture.means.shape[1] :]
    return quadratic if mixture.is_diagonal else unvech(quadratic, mixture.means.shape[1])
