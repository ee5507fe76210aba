"""Unconstrained coordinates of mixtures, for methods that follow the gradient of the likelihood.

Coordinates (a, b, c) are relative to a reference mixture with weights w, means m and Cholesky factors L of its
covariances. They are 0 there, and stand for the mixture

    weights      softmax_k(log w_k + a_k / √w_k)
    means        m_k + L_k b_k / √w_k
    covariances  (L_k C_k)(L_k C_k)ᵀ,    C_k lower triangular: exp(c_kii / √(2 w_k)) and c_kij / √w_k,

or, for axis-aligned components, variances v_k exp(2 c_k / √(2 w_k)). Every mixture whose components have support and a
variance has such coordinates, and all coordinates are such a mixture's. They scale with the data. At the reference the
information of the complete data is the identity in them, but for the direction in which all weights grow alike, so that
there a step along the gradient of the mean log-likelihood is, to first order, EM's own.

Arrays may have further trailing axes, for runs that step together.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxgmm.em.covariance import Covariances, Family
from jaxgmm.em.statistics import SufficientStatistics
from jaxgmm.mixture import Mixture
from jaxgmm.numerics.cholesky import cholesky, inverse_lower


class Point(NamedTuple):
    """Coordinates of a mixture, or a step of them.

    Attributes:
        weights: a.
        means: b.
        factors: c. What is above the diagonal is ignored.
    """

    weights: Float[Array, "k *s"]
    means: Float[Array, "k d *s"]
    factors: Covariances


class Reference(NamedTuple):
    """The mixture that coordinates are relative to.

    Attributes:
        weights: w; 0 for absent components, which no coordinates move.
        means: m.
        factors: L, or the standard deviations of an axis-aligned mixture.
    """

    weights: Float[Array, "k *s"]
    means: Float[Array, "k d *s"]
    factors: Covariances


def reference(mixture: Mixture) -> Reference:
    """The reference for coordinates that are 0 at a mixture."""
    if mixture.is_diagonal:
        return Reference(mixture.weights, mixture.means, jnp.sqrt(mixture.covariances))
    factors = cholesky(jnp.moveaxis(mixture.covariances, (0, 1, 2), (-3, -2, -1)))
    return Reference(mixture.weights, mixture.means, jnp.moveaxis(factors, (-3, -2, -1), (0, 1, 2)))


def mixture_at(point: Point, reference: Reference) -> Mixture:
    """The mixture that has these coordinates."""
    is_present, root = reference.weights > 0, _root(reference)
    log_weights = jnp.log(root) * 2 + point.weights / root
    log_weights -= jnp.max(jnp.where(is_present, log_weights, -jnp.inf), axis=0, keepdims=True)
    weights = jnp.where(is_present, jnp.exp(log_weights), 0)
    weights /= jnp.sum(weights, axis=0, keepdims=True)
    steps, relative = point.means / root[:, None], point.factors / _like(root, point.factors)
    if point.factors.ndim == point.means.ndim:
        means = reference.means + reference.factors * steps
        return Mixture(weights, means, (reference.factors * jnp.exp(relative / math.sqrt(2))) ** 2)
    means = reference.means + jnp.sum(reference.factors * steps[:, None], axis=2)
    lower, on_diagonal = (_entries(matrix(len(means[0]), dtype=bool), relative) for matrix in (np.tri, np.eye))
    relative = jnp.where(on_diagonal, jnp.exp(relative / math.sqrt(2)), jnp.where(lower, relative, 0))
    factors = jnp.sum(reference.factors[:, :, :, None] * relative[:, None], axis=2)
    return Mixture(weights, means, jnp.sum(factors[:, :, None] * factors[:, None], axis=3))


def coordinates(there: Reference, reference: Reference) -> Point:
    """The coordinates of the mixture `there`, relative to `reference`."""
    is_present, root = reference.weights > 0, _root(reference)
    ratios = jnp.where(is_present, there.weights, 1) / jnp.where(is_present, reference.weights, 1)
    means = there.means - reference.means
    if reference.factors.ndim == means.ndim:
        means, factors = means / reference.factors, math.sqrt(2) * jnp.log(there.factors / reference.factors)
    else:
        whiteners = _inverse(reference.factors)
        means = jnp.sum(whiteners * means[:, None], axis=2)
        factors = jnp.sum(whiteners[:, :, :, None] * there.factors[:, None], axis=2)
        on_diagonal = _entries(np.eye(means.shape[1], dtype=bool), factors)
        factors = jnp.where(on_diagonal, math.sqrt(2) * jnp.log(jnp.where(on_diagonal, factors, 1)), factors)
    step = Point(root * jnp.log(ratios), root[:, None] * means, _like(root, factors) * factors)
    return _of_present(step, is_present)


def gradient(
    reference: Reference, statistics: SufficientStatistics, origins: Float[Array, "k d *s"] | None = None
) -> Point:
    """The gradient of the log-likelihood, in nats, with respect to coordinates, where these are 0.

    It is the gradient of the expected complete log-likelihood (Fisher's identity), which for the whitened second moment
    A_k about the mean, and n samples in all, is

        (n_k - n w_k) / √w_k,    L_k⁻¹ Σ r (x - m_k) / √w_k,    tril(A_k - n_k I) / √w_k, its diagonal / √(2 w_k).

    Args:
        reference: the mixture.
        statistics: from an E-step at the mixture.
        origins: what the statistics of each component are about; None for the origin.
    """
    is_present, root = reference.weights > 0, _root(reference)
    counts, first, second = statistics
    means = reference.means if origins is None else reference.means - origins
    n_k = counts[:, None]
    of_weights = (counts - jnp.sum(counts, axis=0, keepdims=True) * reference.weights) / root
    about = first - n_k * means
    if reference.factors.ndim == means.ndim:
        second = second - 2 * means * first + n_k * means**2
        of_factors = (second / reference.factors**2 - n_k) / math.sqrt(2)
        about = about / reference.factors
    else:
        outer = means[:, :, None] * first[:, None]
        second = second - outer - jnp.swapaxes(outer, 1, 2) + n_k[:, None] * means[:, :, None] * means[:, None]
        whiteners, eye = _inverse(reference.factors), _entries(np.eye(means.shape[1]), reference.factors)
        about = jnp.sum(whiteners * about[:, None], axis=2)
        half = jnp.sum(whiteners[:, :, :, None] * second[:, None], axis=2)
        whitened = jnp.sum(half[:, :, None] * whiteners[:, None], axis=3)
        scale = _entries(np.tril(np.ones(eye.shape[1:3])) / math.sqrt(2) ** np.eye(eye.shape[1]), whitened)
        of_factors = jnp.asarray(scale, whitened.dtype) * (whitened - n_k[:, None] * jnp.asarray(eye, whitened.dtype))
    return _of_present(Point(of_weights, about / root[:, None], of_factors / _like(root, of_factors)), is_present)


def in_family(step: Point, reference: Reference, family: Family) -> Point:
    """The part of a step that does not leave the family of the reference: an orthogonal projection."""
    # For given weights, a family's estimate of covariances is the projection of the components' own. It is linear, and
    # weights them by their support.
    root = _like(_root(reference), step.factors)
    own = SufficientStatistics(reference.weights, jnp.zeros_like(step.means), root * step.factors)
    factors = root * family.covariances(own, jnp.zeros(step.factors.shape[1:], step.factors.dtype))
    return _of_present(step._replace(factors=factors), reference.weights > 0)


def _of_present(step: Point, is_present: Bool[Array, "k *s"]) -> Point:
    """A step in which absent components stay as they are."""
    return Point(*(jnp.where(_like(is_present, leaf), leaf, 0) for leaf in step))


def _inverse(factors: Float[Array, "k d d *s"]) -> Float[Array, "k d d *s"]:
    inverse = inverse_lower(jnp.moveaxis(factors, (0, 1, 2), (-3, -2, -1)))
    return jnp.moveaxis(inverse, (-3, -2, -1), (0, 1, 2))


def _root(reference: Reference) -> Float[Array, "k *s"]:
    """√w; 1 for an absent component."""
    return jnp.sqrt(jnp.where(reference.weights > 0, reference.weights, 1))


def _like(values: Array, other: Array) -> Array:
    """Values `(K, *S)` of components, to be multiplied with `(K, …, *S)`."""
    return values.reshape(len(values), *[1] * (other.ndim - values.ndim), *values.shape[1:])


def _entries(matrix: np.ndarray, other: Array) -> np.ndarray:
    """A matrix `(D, D)`, to be used with `(K, D, D, *S)`."""
    return matrix.reshape(1, *matrix.shape, *[1] * (other.ndim - 3))
