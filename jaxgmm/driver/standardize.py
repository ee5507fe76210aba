"""Standardisation of data sets, and conversion of mixtures to data units and back.

Sums of squares lose digits when a component is narrow and far from the origin, so each data set is first mapped to
coordinates z by a map under which its family is closed: x = shift + scale z. For `full` and `tied` the scale is the
Cholesky factor of the data's covariance, which also removes correlation; otherwise it is a scale per feature, or one
for all. Scale and ridge are vectors where components are axis-aligned, whatever the map. Location and scale are those
of the bulk of the data; see `jaxgmm.driver.bulk`.

The ridge is a fraction of each feature's variance in the bulk of the data set, or absolute, in squared data units; here
it becomes the matrix, or the vector, that has the same effect in the coordinates z. An absolute ridge gives constant
features a variance too, so the scale is then that of data and ridge together.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxgmm.driver.bulk import Bulk, bulk_of, variances_of
from jaxgmm.em.covariance import Coordinates, Ridge
from jaxgmm.mixture import Mixture
from jaxgmm.numerics.cholesky import cholesky, inverse_lower
from jaxgmm.numerics.products import moments, product


class Standardization(NamedTuple):
    """The map x = shift + scale z of one data set.

    Attributes:
        shift: weighted mean of the bulk of the data.
        scale: lower-triangular `(D, D)`, or `(D,)` for an axis-aligned family.
        inverse: its inverse, of the same shape.
        log_scale: log|scale|: by how much a log-density in z exceeds one in x.
    """

    shift: Float[Array, " d"]
    scale: Float[Array, "d d"] | Float[Array, " d"]
    inverse: Float[Array, "d d"] | Float[Array, " d"]
    log_scale: Float[Array, ""]


class Standardized(NamedTuple):
    """One data set in the coordinates of EM.

    Attributes:
        z: the samples; those of weight 0 are zeros.
        ridge: what is added to every covariance, in these coordinates.
        units: the way back to data units.
        ridge_in_data_units: what is added to the variance of every feature, in squared data units.
        varies: whether every direction that has a variance of its own in the family also has one in the data, or from
            an absolute ridge; otherwise the likelihood is unbounded, and z must not be used.
    """

    z: Float[Array, "d n"]
    ridge: Ridge
    units: Standardization
    ridge_in_data_units: Float[Array, " d"]
    varies: Bool[Array, ""]


class _Centred(NamedTuple):
    """Samples about the mean of their bulk, each feature divided by its extent there.

    Attributes:
        values: `(D, N)`, zeros for samples of weight 0.
        weights: `(N,)`.
        bulk: `(D, N)`, which values set location and scale.
        shift: `(D,)`, in data units.
        extent: `(D,)`, likewise.
        variances: `(D,)`, of the bulk, in squares of the extent.
        varies: `(D,)`, which features are not constant.
    """

    values: Float[Array, "d n"]
    weights: Float[Array, " n"]
    bulk: Bool[Array, "d n"]
    shift: Float[Array, " d"]
    extent: Float[Array, " d"]
    variances: Float[Array, " d"]
    varies: Bool[Array, " d"]


def standardize(
    x: Float[Array, "d n"],
    weights: Float[Array, " n"],
    coordinates: Coordinates,
    reg_covar: Float[Array, ""],
    *,
    is_absolute: bool = False,
    bulk: Bulk | None = None,
) -> Standardized:
    """Standardises one data set.

    Args:
        x: samples, finite.
        weights: sample weights.
        coordinates: the coordinates that the families need.
        reg_covar: ridge, as a fraction of each feature's variance.
        is_absolute: whether the ridge is in squared units of x instead.
        bulk: the values that determine location and scale, if known.
    """
    if bulk is None:
        bulk = bulk_of(x, weights)
    centred = _centred(x, weights, bulk, jnp.sqrt(reg_covar) if is_absolute else jnp.zeros_like(reg_covar))
    if coordinates.closed_under == "affine":
        return _affine(centred, reg_covar, is_absolute)
    variances = centred.variances
    if is_absolute:
        variances += (jnp.sqrt(reg_covar) / centred.extent) ** 2
    has_one_scale = coordinates.closed_under == "one scale"
    if has_one_scale:
        largest = jnp.max(jnp.where(centred.varies, centred.extent, 0.0))
        largest = jnp.where(largest > 0, largest, 1.0)
        common = largest * jnp.sqrt(jnp.mean(variances * (centred.extent / largest) ** 2))
        scale = jnp.full_like(centred.shift, common)
    else:
        scale = centred.extent * jnp.sqrt(variances)
    varies = jnp.any(centred.varies)[None] if coordinates.isotropic else centred.varies
    scale = jnp.where(varies, scale, 1.0)
    ridge = jnp.full_like(scale, reg_covar)
    if is_absolute:
        ridge = (jnp.sqrt(reg_covar) / scale) ** 2
    elif has_one_scale and not coordinates.isotropic:
        ridge = reg_covar * variances * (centred.extent / scale) ** 2
    ridge_in_data_units = jnp.full_like(scale, reg_covar) if is_absolute else ridge * scale**2
    units = Standardization(centred.shift, scale, 1 / scale, jnp.sum(jnp.log(scale)))
    z = centred.values * (centred.extent / scale)[:, None]
    if not coordinates.diagonal:
        units = units._replace(scale=jnp.diag(scale), inverse=jnp.diag(1 / scale))
        ridge = jnp.diag(ridge)
    return Standardized(z, ridge, units, ridge_in_data_units, jnp.all(varies))


def _centred(x: Float[Array, "d n"], weights: Float[Array, " n"], bulk: Bulk, least: Float[Array, ""]) -> _Centred:
    """Centres the samples on their bulk; no feature is divided by less than `least`."""
    present, size = (weights > 0)[None, :], bulk.size
    shift = size * bulk.mean
    values = jnp.where(present, x - shift[:, None], 0.0)
    # Equal values may differ from their own mean by rounding; that is no variation.
    varies = jnp.max(jnp.abs(values), axis=1) > 8 * jnp.finfo(x.dtype).eps * size
    extent = jnp.max(jnp.abs(jnp.where(bulk.values, values, 0.0)), axis=1)
    extent = jnp.maximum(jnp.where(varies, extent, 0.0), least)
    extent = jnp.where(extent > 0, extent, 1.0)
    values = jnp.where(varies[:, None], values / extent[:, None], 0.0)
    variances = jnp.where(varies, bulk.variance * (size / extent) ** 2, 0.0)
    return _Centred(values, weights, bulk.values, shift, extent, variances, varies | (least > 0))


def _affine(centred: _Centred, reg_covar: Array, is_absolute: bool) -> Standardized:
    """Whitens by the samples whose features are all in the bulk, if these are most and vary in all directions."""
    values, weights, shift, extent = centred.values, centred.weights, centred.shift, centred.extent
    ridges = (jnp.sqrt(reg_covar) / extent) ** 2 if is_absolute else reg_covar * centred.variances
    within = jnp.where(jnp.all(centred.bulk, axis=0), weights, 0.0)
    within = jnp.where(jnp.sum(within) > 0.5 * jnp.sum(weights), within, weights)

    def whiten(carry: tuple[Any, Array]) -> tuple[Any, Array]:
        count = carry[1]
        return _whitening(values, jnp.where(count == 0, within, weights), ridges), count + 1

    def unfinished(carry: tuple[Any, Array]) -> Array:
        (_, _, sound), count = carry
        return ~sound & (count < 2)

    nothing = (jnp.zeros_like(shift), jnp.eye(len(values), dtype=values.dtype), jnp.zeros((), bool))
    mean, factor, sound = lax.while_loop(unfinished, whiten, (nothing, jnp.zeros((), jnp.int32)))[0]
    sound &= jnp.all(centred.varies)
    mean = jnp.where(sound, mean, 0.0)
    factor = jnp.where(sound, factor, jnp.eye(len(values), dtype=values.dtype))
    inverse = inverse_lower(factor)
    z = product(inverse, values - mean[:, None])
    log_scale = jnp.sum(jnp.log(jnp.diagonal(factor)) + jnp.log(extent))
    return Standardized(
        z=jnp.where((weights > 0)[None, :], z, 0.0),
        ridge=jnp.matmul(inverse * ridges[None, :], inverse.T, precision=lax.Precision.HIGHEST),
        units=Standardization(shift + extent * mean, extent[:, None] * factor, inverse / extent[None, :], log_scale),
        ridge_in_data_units=ridges * extent**2,
        varies=sound,
    )


def _whitening(
    values: Float[Array, "d n"], weights: Float[Array, " n"], ridges: Float[Array, " d"]
) -> tuple[Float[Array, " d"], Float[Array, "d d"], Bool[Array, ""]]:
    """Mean and Cholesky factor of the covariance of weighted samples with the ridge, and whether there is a factor.

    The whitened covariance includes the ridge, so collinear features are no obstacle.
    """
    total = jnp.sum(weights)
    mean = jnp.sum(values * weights[None, :], axis=1) / total
    # Samples of weight 0 may be so far that their squares are infinite.
    rest = jnp.where((weights > 0)[None, :], values - mean[:, None], 0.0)
    covariance = moments(rest, weights) / total
    factor = cholesky(covariance + jnp.diag(ridges))
    pivots = jnp.diagonal(factor) ** 2
    return mean, factor, jnp.all(pivots > 64 * jnp.finfo(values.dtype).eps * jnp.diagonal(covariance))


def at_constant_units(
    x: Float[Array, "d n"], weights: Float[Array, " n"], coordinates: Coordinates, reg_covar: Float[Array, ""]
) -> Standardized:
    """Standardises one data set for derivatives: units are constants, samples and ridge are functions of the arguments.

    A family is closed under the map to its coordinates, so a fit in data units is the same in whatever units it was
    made, and no derivative needs to pass through them. The ridge is not the same: it is a fraction of variances. Which
    values are in the bulk does not change where these do.
    """
    fixed_x, fixed_weights, fixed_reg_covar = lax.stop_gradient((x, weights, reg_covar))
    bulk = bulk_of(fixed_x, fixed_weights)
    found = standardize(fixed_x, fixed_weights, coordinates, fixed_reg_covar, bulk=bulk)
    ridges = reg_covar * bulk.size**2 * variances_of(x, weights, bulk)
    if coordinates.isotropic:
        ridges = jnp.full_like(ridges, jnp.mean(ridges))
    centred, inverse = jnp.where((weights > 0)[None, :], x - found.units.shift[:, None], 0.0), found.units.inverse
    if coordinates.diagonal:
        z, ridge = inverse[:, None] * centred, ridges * inverse**2
    else:
        z = product(inverse, centred)
        ridge = jnp.matmul(inverse * ridges[None, :], inverse.T, precision=lax.Precision.HIGHEST)
    return found._replace(z=z, ridge=ridge, ridge_in_data_units=ridges)


def to_standard(mixture: Mixture, units: Standardization) -> Mixture:
    """Converts a mixture from data units to the coordinates z."""
    return _transformed(mixture, units.inverse, mixture.means - units.shift[None, :])


def to_data_units(mixture: Mixture, units: Standardization) -> Mixture:
    """Converts a mixture from the coordinates z to data units."""
    mixture = _transformed(mixture, units.scale, mixture.means)
    return replace(mixture, means=mixture.means + units.shift[None, :])


def scaled_features(z: Float[Array, "d n"], units: Standardization) -> Float[Array, "d n"]:
    """The same samples with every feature scaled to unit variance, and correlations kept."""
    if units.scale.ndim == 1:
        return z
    correlation_factor = units.scale / jnp.linalg.norm(units.scale, axis=1, keepdims=True)
    return product(correlation_factor, z)


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
