"""Standardises data sets, and brings mixtures back.

Sums of squares lose digits when a component is narrow and far from the origin, so each data set is first moved by a map
under which its family is closed: x = shift + scale z. For `full` and `tied` the scale is the Cholesky factor of the
data's covariance, which also removes correlation; otherwise it is a scale per feature, or one for all.

The ridge is a fraction of each feature's variance in the data set, or absolute, in squared data units; here it becomes
the matrix, or the vector, that has the same effect in the coordinates z. An absolute ridge gives constant features a
variance too, so the scale is then that of data and ridge together.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxgmm.cholesky import cholesky, inverse_lower
from jaxgmm.em.covariance import Ridge
from jaxgmm.mixture import Mixture


class Standardization(NamedTuple):
    """The map x = shift + scale z of one data set.

    Attributes:
        shift: weighted mean of the data.
        scale: lower-triangular `(D, D)`, or `(D,)` for an axis-aligned family.
        inverse: its inverse, of the same shape.
        log_scale: log|scale|: what a log-density in z exceeds one in x by.
    """

    shift: Float[Array, " d"]
    scale: Float[Array, "d d"] | Float[Array, " d"]
    inverse: Float[Array, "d d"] | Float[Array, " d"]
    log_scale: Float[Array, ""]


def standardize(
    x: Float[Array, "d n"],
    weights: Float[Array, " n"],
    closed_under: str,
    reg_covar: Float[Array, ""],
    *,
    is_absolute: bool = False,
) -> tuple[Float[Array, "d n"], Ridge, Standardization, Bool[Array, ""]]:
    """Standardises one data set.

    Args:
        x: samples, finite.
        weights: sample weights; samples of weight 0 come out as zeros.
        closed_under: what kind of map the families that are to be fitted are closed under.
        reg_covar: ridge, as a fraction of each feature's variance.
        is_absolute: whether the ridge is in squared units of x instead.

    Returns:
        the samples z, the ridge in their coordinates, the map, and whether every direction that the family gives a
        variance of its own has one, from the data or an absolute ridge; where one has not, the likelihood has no bound,
        and z is not to be used.
    """
    total = jnp.sum(weights)
    present = (weights > 0)[None, :]
    x = jnp.where(present, x, 0.0)
    shift = jnp.sum(x * weights[None, :], axis=1) / total
    centred = jnp.where(present, x - shift[:, None], 0.0)
    # Divided by the range first, so that squares of 1e±200 neither overflow nor vanish.
    extent = jnp.max(jnp.abs(centred), axis=1)
    # Equal values may differ from their own mean by rounding; that is no variation.
    varies = extent > 8 * jnp.finfo(x.dtype).eps * jnp.max(jnp.abs(x), axis=1)
    extent = jnp.where(varies, extent, 1.0)
    if is_absolute:
        # Nothing is divided by less than the ridge, whose own square in these units is then 1 at most.
        extent = jnp.maximum(jnp.where(varies, extent, 0.0), jnp.sqrt(reg_covar))
        extent = jnp.where(extent > 0, extent, 1.0)
    centred = jnp.where(varies[:, None], centred / extent[:, None], 0.0)
    if is_absolute:
        varies |= reg_covar > 0
    if closed_under == "affine":
        return _affine(centred, weights, total, shift, extent, varies, reg_covar, is_absolute)
    variances = jnp.sum(centred**2 * weights[None, :], axis=1) / total
    if is_absolute:
        variances += (jnp.sqrt(reg_covar) / extent) ** 2
    if closed_under == "one scale":
        largest = jnp.max(jnp.where(varies, extent, 0.0))
        largest = jnp.where(largest > 0, largest, 1.0)
        common = largest * jnp.sqrt(jnp.mean(variances * (extent / largest) ** 2))
        scale = jnp.full_like(shift, common)
        varies = jnp.any(varies)[None]
    else:
        scale = extent * jnp.sqrt(variances)
    scale = jnp.where(varies, scale, 1.0)
    z = centred * (extent / scale)[:, None]
    ridge = (jnp.sqrt(reg_covar) / scale) ** 2 if is_absolute else jnp.full_like(shift, reg_covar)
    return z, ridge, Standardization(shift, scale, 1 / scale, jnp.sum(jnp.log(scale))), jnp.all(varies)


def _affine(
    centred: Array,
    weights: Array,
    total: Array,
    shift: Array,
    extent: Array,
    varies: Array,
    reg_covar: Array,
    is_absolute: bool,
) -> tuple[Array, Array, Standardization, Array]:
    """Whitens data that are already centred and divided by their extent."""
    weighted = centred * weights[None, :]
    covariance = jnp.matmul(weighted, centred.T, precision=lax.Precision.HIGHEST) / total
    variances = jnp.diagonal(covariance)
    ridges = (jnp.sqrt(reg_covar) / extent) ** 2 if is_absolute else reg_covar * variances
    # The ridge is part of what is whitened: with it, collinear features are no obstacle.
    factor = cholesky(covariance + jnp.diag(ridges))
    pivots = jnp.diagonal(factor) ** 2
    sound = jnp.all(varies & (pivots > 64 * jnp.finfo(centred.dtype).eps * variances))
    factor = jnp.where(sound, factor, jnp.eye(centred.shape[0], dtype=centred.dtype))
    inverse = inverse_lower(factor)
    z = jnp.matmul(inverse, centred, precision=lax.Precision.HIGHEST)
    ridge = jnp.matmul(inverse * ridges[None, :], inverse.T, precision=lax.Precision.HIGHEST)
    scale = extent[:, None] * factor
    log_scale = jnp.sum(jnp.log(jnp.diagonal(factor)) + jnp.log(extent))
    return z, ridge, Standardization(shift, scale, inverse / extent[None, :], log_scale), sound


def to_standard(mixture: Mixture, units: Standardization) -> Mixture:
    """A mixture of data units in the coordinates z."""
    return _transformed(mixture, units.inverse, mixture.means - units.shift[None, :])


def to_data_units(mixture: Mixture, units: Standardization) -> Mixture:
    """A mixture of the coordinates z in data units."""
    mixture = _transformed(mixture, units.scale, mixture.means)
    return mixture._replace(means=mixture.means + units.shift[None, :])


def scaled_features(z: Float[Array, "d n"], units: Standardization) -> Float[Array, "d n"]:
    """The same samples with every feature scaled to unit variance, and their correlation left in place."""
    if units.scale.ndim == 1:
        return z
    correlation_factor = units.scale / jnp.linalg.norm(units.scale, axis=1, keepdims=True)
    return jnp.matmul(correlation_factor, z, precision=lax.Precision.HIGHEST)


def _transformed(mixture: Mixture, scale: Array, means: Array) -> Mixture:
    if scale.ndim == 1:
        return Mixture(mixture.weights, means * scale[None, :], mixture.covariances * (scale**2)[None, :])
    means = jnp.matmul(means, scale.T, precision=lax.Precision.HIGHEST)
    map_covariance = jax.vmap(
        lambda c: jnp.matmul(jnp.matmul(scale, c, precision="highest"), scale.T, precision="highest")
    )
    covariances = map_covariance(mixture.covariances)
    # Rounding leaves a product of three matrices slightly asymmetric.
    return Mixture(mixture.weights, means, 0.5 * (covariances + jnp.swapaxes(covariances, -1, -2)))
