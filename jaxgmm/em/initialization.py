"""Initialisers: the starts of EM, unless the user gives them.

Every random draw inverts the cumulative distribution over sample weights, with uniforms whose number does not depend on
N. So a sample of weight 0 is not drawn, and padding a data set changes nothing.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxgmm.em.clusters import inverse_cdf, lloyd, seeded_labels
from jaxgmm.em.covariance import Family, Ridge
from jaxgmm.em.expectation import Data, Tiles, collect, over_tiles
from jaxgmm.em.maximization import m_step
from jaxgmm.em.statistics import SufficientStatistics, features
from jaxgmm.mixture import Mixture

MAX_LLOYD = 100

# Of every TURN starts of k-means++, counted from 0, FORGY has uniformly drawn seeds, and POLISHED makes a few
# iterations of Lloyd's algorithm; the others are clusters around greedy seeds. Greedy seeds are best for many
# components. Uniform seeds find optima with a few overlapping components that greedy seeds rarely find, and some optima
# need Lloyd's algorithm.
TURN = 5
FORGY = 2
POLISHED = 4
LLOYD_ITERATIONS = 10

# With fewer samples for each feature than this, the distances to a seed are mostly noise, and clusters around seeds
# mean little: then Lloyd's algorithm polishes all starts with greedy seeds.
SAMPLES_OF_A_FEATURE = 10

# A cluster of one sample has no covariance, and EM seldom leaves the optimum that it creates. So the first covariances
# are shrunk towards the pooled one, with a weight of this share of the mean number of samples of a component.
SHRINKAGE = 0.1


class Task(NamedTuple):
    """The inputs from which a start is made.

    Attributes:
        x: samples in the coordinates used for distances.
        z: samples in the coordinates of the fit.
        data: `z` in the form that the E-step reads.
        present: which components are present; arrays may have room for more.
        family: the covariance family.
        ridge: added to every covariance.
    """

    x: Float[Array, "d n"]
    z: Float[Array, "d n"]
    data: Data | Tiles
    present: Bool[Array, " k"]
    family: Family
    ridge: Ridge

    @property
    def weights(self) -> Float[Array, " n"]:
        """Sample weights."""
        return self.data.weights.ravel()


# Means farther than this from the centre of the data, in standard deviations, cost sums of squares over two digits.
FAR = 10.0

# Means, sums about them, and whether these were the second pass.
_Turn = tuple[Array, SufficientStatistics, Array]

# From a random key, the number of the start, and its inputs to the mixture from which EM begins.
Initializer = Callable[[Array, Array, Task], Mixture]


def from_responsibilities(responsibilities: Float[Array, "k n"], task: Task) -> Mixture:
    """The M-step of given responsibilities, with nothing added."""
    return m_step(_sums(responsibilities, task, lambda rows: rows), task.family, task.ridge, task.present)


def from_labels(labels: Int[Array, " n"], task: Task) -> Mixture:
    """The M-step of given labels, with nothing added."""
    statistics, means = _sums_about_means(labels, task)
    return m_step(statistics, task.family, task.ridge, task.present, means)


def k_means_plus_plus(key: Array, start: Array, task: Task) -> Mixture:
    """Clusters around greedy k-means++ seeds (Arthur and Vassilvitskii, 2007), with variations in two of five starts.

    One of the two has uniformly drawn samples as seeds (Forgy, 1965); the clusters of the other are polished by Lloyd's
    algorithm. With fewer than ten samples for each feature, all starts with greedy seeds are polished.
    """
    turn = start % TURN
    is_crowded = jnp.sum(task.weights > 0) < SAMPLES_OF_A_FEATURE * len(task.x)
    is_polished = (turn == POLISHED) | (is_crowded & (turn != FORGY))
    return _clusters(key, task, turn == FORGY, jnp.where(is_polished, LLOYD_ITERATIONS, 0))


def k_means(key: Array, _start: Array, task: Task) -> Mixture:
    """Clusters of Lloyd's algorithm, started from greedy k-means++ seeds."""
    return _clusters(key, task, jnp.zeros((), bool), MAX_LLOYD)


def random_responsibilities(key: Array, _start: Array, task: Task) -> Mixture:
    """Responsibilities drawn uniformly and normalised."""
    present, dtype = task.present, task.x.dtype

    def drawn(numbers: Array) -> Array:
        # One key for each sample, so that its draws do not depend on how many samples follow it.
        keys = jax.vmap(lambda n: jax.random.fold_in(key, n))(numbers)
        uniform = jax.vmap(lambda k: jax.random.uniform(k, present.shape, dtype=dtype), out_axes=1)(keys)
        uniform = jnp.where(present[:, None], uniform, 0.0)
        return uniform / jnp.sum(uniform, axis=0, keepdims=True)

    return m_step(_sums(jnp.arange(task.x.shape[1]), task, drawn), task.family, task.ridge, present)


def random_samples(key: Array, _start: Array, task: Task) -> Mixture:
    """Distinct samples as means, equal weights, and the covariance of all samples in every component."""
    z, weights, present = task.z, task.weights, task.present

    def draw(remaining: Array, u: Array) -> tuple[Array, Array]:
        index = inverse_cdf(remaining, weights, u[None])[0]
        return remaining.at[index].set(0.0), index

    _, indices = lax.scan(draw, weights, jax.random.uniform(key, present.shape, dtype=z.dtype))
    one_component = jnp.ones((1, z.shape[1]), dtype=z.dtype)
    everything = from_responsibilities(one_component, task._replace(present=jnp.ones(1, bool)))
    return Mixture(
        weights=jnp.where(present, 1 / jnp.sum(present, dtype=z.dtype), 0.0),
        means=z[:, indices].T,
        covariances=jnp.broadcast_to(everything.covariances, (len(present), *everything.covariances.shape[1:])),
    )


INITIALIZERS: dict[str, Initializer] = {
    "k-means++": k_means_plus_plus,
    "kmeans": k_means,
    "random": random_responsibilities,
    "random_from_data": random_samples,
}


def _clusters(key: Array, task: Task, uniformly: Bool[Array, ""], max_iter: Int[Array, ""] | int) -> Mixture:
    """The M-step of clusters: seeds, then at most `max_iter` iterations of Lloyd's algorithm."""
    labels = seeded_labels(key, task.x, task.weights, task.present, uniformly)
    return _from_clusters(lloyd(labels, task.x, task.weights, task.present, max_iter), task)


def _from_clusters(labels: Int[Array, " n"], task: Task) -> Mixture:
    """The M-step of hard assignments, shrunk towards the pooled covariance."""
    present, family = task.present, task.family
    statistics, means = _sums_about_means(labels, task)
    total = jnp.sum(statistics.counts)
    extra = jnp.where(present, SHRINKAGE * total / jnp.sum(present, dtype=total.dtype), 0.0)
    pooled = jnp.sum(statistics.second, axis=0) / total
    shrunk = statistics._replace(
        counts=statistics.counts + extra,
        second=statistics.second + extra.reshape(-1, *[1] * pooled.ndim) * pooled[None],
    )
    return m_step(shrunk, family, task.ridge, present, means)


def _sums_about_means(labels: Int[Array, " n"], task: Task) -> tuple[SufficientStatistics, Float[Array, "k d"]]:
    """Sums of labelled samples about the mean of their label, and these means.

    They follow from sums about the centre of the data by subtraction. If a mean is so far from it that this would
    cancel too much, as with sentinels, the samples are summed once more, about the means found.
    """
    present, diagonal, n_components = task.present, task.family.diagonal, len(task.present)

    def memberships(labels: Array) -> Array:
        return jax.nn.one_hot(labels, n_components, axis=0, dtype=task.x.dtype)

    def about(origins: Array) -> SufficientStatistics:
        def centred(data: Data, labels: Array) -> Data:
            rest = data.features[1 : 1 + origins.shape[1]] - origins.T[:, labels]
            return Data(features(rest, diagonal=diagonal), data.weights)

        return _sums(labels, task, memberships, centred)

    def moved(origins: Array, raw: SufficientStatistics) -> tuple[Array, SufficientStatistics]:
        counts = jnp.where(raw.counts > 0, raw.counts, 1.0)
        step = jnp.where(present[:, None], raw.first / counts[:, None], 0.0)
        squares = step**2 if diagonal else step[:, :, None] * step[:, None, :]
        second = raw.second - raw.counts.reshape(-1, *[1] * (squares.ndim - 1)) * squares
        return origins + step, raw._replace(first=jnp.zeros_like(step), second=second)

    def again(carry: _Turn) -> _Turn:
        means, _, _ = carry
        return *moved(means, about(means)), jnp.ones((), bool)

    def unfinished(carry: _Turn) -> Array:
        means, _, is_second = carry
        return ~is_second & jnp.any(jnp.abs(means) > FAR)

    # A loop, not a condition: mapped over data sets, both branches of a condition are computed.
    middle = jnp.zeros((n_components, len(task.z)), task.z.dtype)
    first = moved(middle, _sums(labels, task, memberships))
    means, statistics, _ = lax.while_loop(unfinished, again, (*first, jnp.zeros((), bool)))
    return statistics, means


def _sums(
    rows: Float[Array, "k n"] | Int[Array, " n"],
    task: Task,
    responsibilities: Callable[[Array], Array],
    centred: Callable[[Data, Array], Data] = lambda data, _: data,
) -> SufficientStatistics:
    """Sufficient statistics of responsibilities made from `rows` tile by tile, so that `(K, N)` is never in memory.

    `centred` moves the samples of a tile with these rows.
    """

    def sums(data: Data, rows: Array) -> SufficientStatistics:
        # Rows of padding are those of other data sets, and samples of weight 0 may have none.
        counts = data.weights[None, :] > 0
        weighted = jnp.where(counts, responsibilities(rows), 0) * data.weights[None, :]
        return collect(centred(data, rows), weighted, task.x.shape[0], diagonal=task.family.diagonal)

    return over_tiles(task.data, rows, sums, diagonal=task.family.diagonal)
