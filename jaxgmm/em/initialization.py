"""Starts: where EM begins when the user does not say.

Every random draw inverts the cumulative distribution over sample weights, with uniforms whose number does not depend on
N. So a sample of weight 0 can never be drawn, and padding a data set changes nothing.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxgmm.em.covariance import Family, Ridge
from jaxgmm.em.expectation import Data, collect
from jaxgmm.em.maximization import m_step
from jaxgmm.em.statistics import SufficientStatistics
from jaxgmm.mixture import Mixture

MAX_LLOYD = 100

# Iterations of Lloyd's algorithm that every other pair of k-means++ starts makes. On some data sets seeds alone lead to
# the best optimum ten times more often than clusters do, on others it is the reverse, so ten starts need both.
POLISH = 10

# A cluster of one sample has no covariance, and EM seldom leaves the spike that it makes. So the first covariances are
# drawn towards the pooled one, with this share of a component's fair number of samples as weight.
SHRINKAGE = 0.1

# The random key, the number of the start, samples `(D, N)`, their features, K, family and ridge; and where they begin.
Initializer = Callable[[Array, Array, Array, Data, int, Family, Ridge], Mixture]


def from_responsibilities(
    responsibilities: Float[Array, "k n"], data: Data, n_features: int, family: Family, ridge: Ridge
) -> Mixture:
    """The M-step of given responsibilities, with nothing added."""
    weighted = responsibilities * data.weights[None, :]
    return m_step(collect(data, weighted, n_features, diagonal=family.diagonal), family, ridge)


def k_means_plus_plus(
    key: Array, start: Array, x: Float[Array, "d n"], data: Data, n_components: int, family: Family, ridge: Ridge
) -> Mixture:
    """Clusters around greedy k-means++ seeds (Arthur and Vassilvitskii, 2007), every other pair of starts polished."""
    labels = _seeded_labels(key, x, data.weights, n_components)
    labels = _lloyd(labels, x, data.weights, n_components, jnp.where(start % 4 < 2, 0, POLISH))
    return _from_labels(labels, x, data, n_components, family, ridge)


def k_means(
    key: Array, _start: Array, x: Float[Array, "d n"], data: Data, n_components: int, family: Family, ridge: Ridge
) -> Mixture:
    """Clusters of Lloyd's algorithm, begun from greedy k-means++ seeds."""
    labels = _seeded_labels(key, x, data.weights, n_components)
    labels = _lloyd(labels, x, data.weights, n_components, MAX_LLOYD)
    return _from_labels(labels, x, data, n_components, family, ridge)


def random_responsibilities(
    key: Array, _start: Array, x: Float[Array, "d n"], data: Data, n_components: int, family: Family, ridge: Ridge
) -> Mixture:
    """Responsibilities drawn uniformly and normalised."""
    # One key for each sample: the draws of a sample then do not depend on how many follow it.
    keys = jax.vmap(lambda n: jax.random.fold_in(key, n))(jnp.arange(x.shape[1]))
    uniform = jax.vmap(lambda k: jax.random.uniform(k, (n_components,), dtype=x.dtype), out_axes=1)(keys)
    responsibilities = uniform / jnp.sum(uniform, axis=0, keepdims=True)
    return from_responsibilities(responsibilities, data, x.shape[0], family, ridge)


def random_samples(
    key: Array, _start: Array, x: Float[Array, "d n"], data: Data, n_components: int, family: Family, ridge: Ridge
) -> Mixture:
    """Distinct samples as means, equal weights, and the covariance of all samples in every component."""

    def draw(remaining: Array, u: Array) -> tuple[Array, Array]:
        index = _inverse_cdf(remaining, data.weights, u[None])[0]
        return remaining.at[index].set(0.0), index

    _, indices = lax.scan(draw, data.weights, jax.random.uniform(key, (n_components,), dtype=x.dtype))
    one_component = jnp.ones((1, x.shape[1]), dtype=x.dtype)
    everything = from_responsibilities(one_component, data, x.shape[0], family, ridge)
    return Mixture(
        weights=jnp.full((n_components,), 1 / n_components, dtype=x.dtype),
        means=x[:, indices].T,
        covariances=jnp.broadcast_to(everything.covariances, (n_components, *everything.covariances.shape[1:])),
    )


INITIALIZERS: dict[str, Initializer] = {
    "k-means++": k_means_plus_plus,
    "kmeans": k_means,
    "random": random_responsibilities,
    "random_from_data": random_samples,
}


def _seeded_labels(
    key: Array, x: Float[Array, "d n"], weights: Float[Array, " n"], n_components: int
) -> Int[Array, " n"]:
    """Index of the nearest greedy k-means++ seed: of several candidates, the one that leaves the least inertia."""
    n_candidates = 2 + int(math.log(n_components))
    uniforms = jax.random.uniform(key, (n_components, n_candidates), dtype=x.dtype)
    first = _inverse_cdf(weights, weights, uniforms[0, :1])[0]

    def add_seed(carry: tuple[Array, Array], inputs: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        nearest, labels = carry
        component, u = inputs
        candidates = _inverse_cdf(weights * nearest, weights, u)
        distances = jnp.minimum(nearest[None, :], _squared_distances(x, x[:, candidates]))
        best = jnp.argmin(jnp.sum(weights[None, :] * distances, axis=1))
        closer = distances[best] < nearest
        return (distances[best], jnp.where(closer, component, labels)), None

    nearest = _squared_distances(x, x[:, first[None]])[0]
    labels = jnp.zeros(x.shape[1], jnp.int32)
    others = jnp.arange(1, n_components, dtype=jnp.int32)
    (_, labels), _ = lax.scan(add_seed, (nearest, labels), (others, uniforms[1:]))
    return labels


def _lloyd(
    labels: Int[Array, " n"],
    x: Float[Array, "d n"],
    weights: Float[Array, " n"],
    n_components: int,
    max_iter: Int[Array, ""] | int,
) -> Int[Array, " n"]:
    """Lloyd's algorithm until no label changes. A cluster that loses its last sample keeps its place."""

    def body(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        labels, centres, _, count = carry
        membership = jax.nn.one_hot(labels, n_components, axis=0, dtype=x.dtype) * weights[None, :]
        sizes = jnp.sum(membership, axis=1)
        sums = jnp.matmul(x, membership.T, precision=lax.Precision.HIGHEST)
        centres = jnp.where((sizes > 0)[None, :], sums / jnp.where(sizes > 0, sizes, 1.0)[None, :], centres)
        closest = jnp.argmin(_squared_distances(x, centres), axis=0).astype(jnp.int32)
        return closest, centres, jnp.any((closest != labels) & (weights > 0)), count + 1

    def unfinished(carry: tuple[Array, Array, Array, Array]) -> Array:
        _, _, changed, count = carry
        return changed & (count < max_iter)

    centres = jnp.zeros((x.shape[0], n_components), dtype=x.dtype)
    start = (labels, centres, jnp.ones((), bool), jnp.zeros((), jnp.int32))
    return lax.while_loop(unfinished, body, start)[0]


def _from_labels(
    labels: Int[Array, " n"], x: Float[Array, "d n"], data: Data, n_components: int, family: Family, ridge: Ridge
) -> Mixture:
    """The M-step of hard assignments, shrunk towards the pooled covariance."""
    membership = jax.nn.one_hot(labels, n_components, axis=0, dtype=x.dtype) * data.weights[None, :]
    statistics = collect(data, membership, x.shape[0], diagonal=family.diagonal)
    extra = SHRINKAGE * jnp.mean(statistics.counts)
    means = statistics.first / statistics.counts[:, None]
    if family.diagonal:
        squares = means**2
        scatter = jnp.sum(statistics.second - statistics.counts[:, None] * squares, axis=0)
    else:
        squares = means[:, :, None] * means[:, None, :]
        scatter = jnp.sum(statistics.second - statistics.counts[:, None, None] * squares, axis=0)
    pooled = scatter / jnp.sum(statistics.counts)
    shrunk = SufficientStatistics(
        counts=statistics.counts + extra,
        first=statistics.first + extra * means,
        second=statistics.second + extra * (pooled[None] + squares),
    )
    return m_step(shrunk, family, ridge)


def _squared_distances(x: Float[Array, "d n"], centres: Float[Array, "d k"]) -> Float[Array, "k n"]:
    return jnp.sum((x[:, None, :] - centres[:, :, None]) ** 2, axis=0)


def _inverse_cdf(mass: Float[Array, " n"], weights: Float[Array, " n"], u: Float[Array, " t"]) -> Int[Array, " t"]:
    """Index of the sample at each quantile of a discrete distribution; of `weights` when nothing has mass."""
    mass = jnp.where(jnp.sum(mass) > 0, mass, weights)
    cumulative = jnp.cumsum(mass)
    below = cumulative[None, :] <= (u * cumulative[-1])[:, None]
    return jnp.minimum(jnp.sum(below, axis=1), mass.shape[0] - 1)
