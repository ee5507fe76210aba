"""Initialisers: the starts of EM, unless the user gives them.

Every random draw inverts the cumulative distribution over sample weights, with uniforms whose number does not depend on
N. So a sample of weight 0 is not drawn, and padding a data set changes nothing.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxgmm.em.covariance import Family, Ridge
from jaxgmm.em.expectation import Data, Tiles, collect, over_tiles
from jaxgmm.em.maximization import m_step
from jaxgmm.em.statistics import SufficientStatistics, features
from jaxgmm.mixture import Mixture
from jaxgmm.numerics.reductions import sum_over

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

# Maximum number of candidates for a greedy seed. The number considered grows with log K, but the number drawn is the
# same for every K, because draws must not depend on how many components are absent.
MOST_CANDIDATES = 8


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


# Clusters of Lloyd's algorithm processed together; more are processed in blocks of this size. The comparisons of a
# block are unrolled, and its memberships are held in memory: `benchmarks/NOTES.md`.
CLUSTERS_TOGETHER = 20

# Means farther than this from the centre of the data, in standard deviations, cost sums of squares over two digits.
FAR = 10.0

# Samples in a block of `_cumulative_sum`.
_BLOCK = 16

# Means, sums about them, and the number of passes.
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
        index = _inverse_cdf(remaining, weights, u[None])[0]
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
    labels = _seeded_labels(key, task.x, task.weights, task.present, uniformly)
    return _from_clusters(_lloyd(labels, task.x, task.weights, task.present, max_iter), task)


def _seeded_labels(
    key: Array,
    x: Float[Array, "d n"],
    weights: Float[Array, " n"],
    present: Bool[Array, " k"],
    uniformly: Bool[Array, ""],
) -> Int[Array, " n"]:
    """Index of the nearest seed.

    A greedy seed is the one with the least remaining inertia among several candidates drawn by squared distance. A
    uniform seed is drawn by weight from the samples that differ from all previous seeds. If none does, the cluster is
    empty.
    """
    n_candidates = min(2 + int(math.log(len(present))), MOST_CANDIDATES)
    uniforms = jax.random.uniform(key, (len(present), MOST_CANDIDATES), dtype=x.dtype)[:, :n_candidates]
    n_considered = jnp.where(uniformly, 1.0, 2 + jnp.floor(jnp.log(jnp.sum(present, dtype=x.dtype))))
    considered = jnp.arange(n_candidates, dtype=x.dtype) < n_considered
    first = _inverse_cdf(weights, weights, uniforms[0, :1])[0]

    def add_seed(carry: tuple[Array, Array], inputs: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], None]:
        nearest, labels = carry
        component, is_present, u = inputs
        drawn_by = jnp.where(uniformly, (nearest > 0).astype(x.dtype), nearest)
        candidates = _inverse_cdf(weights * drawn_by, weights, u)
        distances = jnp.minimum(nearest[None, :], _squared_distances(x, x[:, candidates]))
        inertia = jnp.where(considered, jnp.sum(weights[None, :] * distances, axis=1), jnp.inf)
        best = jnp.argmin(inertia)
        closer = (distances[best] < nearest) & is_present
        return (jnp.where(closer, distances[best], nearest), jnp.where(closer, component, labels)), None

    nearest = _squared_distances(x, x[:, first[None]])[0]
    labels = jnp.zeros(x.shape[1], jnp.int32)
    others = jnp.arange(1, len(present), dtype=jnp.int32)
    (_, labels), _ = lax.scan(add_seed, (nearest, labels), (others, present[1:], uniforms[1:]))
    return labels


def _lloyd(
    labels: Int[Array, " n"],
    x: Float[Array, "d n"],
    weights: Float[Array, " n"],
    present: Bool[Array, " k"],
    max_iter: Int[Array, ""] | int,
) -> Int[Array, " n"]:
    """Lloyd's algorithm until no label changes. A cluster that loses its last sample keeps its centre."""
    moved = _moved if len(present) <= CLUSTERS_TOGETHER else _moved_by_blocks

    def body(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        labels, centres, _, count = carry
        centres, closest, _ = moved(labels, centres, x, weights, present)
        return closest, centres, jnp.any((closest != labels) & (weights > 0)), count + 1

    def unfinished(carry: tuple[Array, Array, Array, Array]) -> Array:
        _, _, changed, count = carry
        return changed & (count < max_iter)

    centres = jnp.zeros((x.shape[0], len(present)), dtype=x.dtype)
    start = (labels, centres, jnp.ones((), bool), jnp.zeros((), jnp.int32))
    return lax.while_loop(unfinished, body, start)[0]


def _moved(
    labels: Int[Array, " n"],
    centres: Float[Array, "d k"],
    x: Float[Array, "d n"],
    weights: Float[Array, " n"],
    present: Bool[Array, " k"],
) -> tuple[Float[Array, "d k"], Int[Array, " n"], Float[Array, " n"]]:
    """Centres of the labelled samples; then the closest centre c of each sample, and c · x - |c|² / 2 for it.

    Samples with labels of other clusters do not move any centre.
    """
    membership = jax.nn.one_hot(labels, len(present), axis=0, dtype=x.dtype) * weights[None, :]
    sizes = jnp.sum(membership, axis=1)
    sums = jnp.matmul(x, membership.T, precision=lax.Precision.HIGHEST)
    centres = jnp.where((sizes > 0)[None, :], sums / jnp.where(sizes > 0, sizes, 1.0)[None, :], centres)
    # |x|² is the same for all centres.
    nearness = jnp.matmul(centres.T, x, precision=lax.Precision.HIGHEST) - 0.5 * jnp.sum(centres**2, axis=0)[:, None]
    return centres, *_first_largest(jnp.where(present[:, None], nearness, -jnp.inf))


def _moved_by_blocks(
    labels: Int[Array, " n"],
    centres: Float[Array, "d k"],
    x: Float[Array, "d n"],
    weights: Float[Array, " n"],
    present: Bool[Array, " k"],
) -> tuple[Float[Array, "d k"], Int[Array, " n"], Float[Array, " n"]]:
    """The same, one block of clusters after another: neither program nor memory grows with their number."""
    n_features, n_clusters = centres.shape
    n_blocks = -(-n_clusters // CLUSTERS_TOGETHER)
    missing = n_blocks * CLUSTERS_TOGETHER - n_clusters
    padded = jnp.pad(centres, ((0, 0), (0, missing))).reshape(n_features, n_blocks, CLUSTERS_TOGETHER)
    are_present = jnp.pad(present, (0, missing)).reshape(n_blocks, CLUSTERS_TOGETHER)

    def add(carry: tuple[Array, Array], block: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], Array]:
        closest, largest = carry
        first, centres, present = block
        centres, own, nearness = _moved(labels - first, centres, x, weights, present)
        return (jnp.where(nearness > largest, first + own, closest), jnp.maximum(nearness, largest)), centres

    none = (jnp.zeros_like(labels), jnp.full(labels.shape, -jnp.inf, x.dtype))
    first = CLUSTERS_TOGETHER * jnp.arange(n_blocks, dtype=labels.dtype)
    (closest, largest), moved = lax.scan(add, none, (first, jnp.moveaxis(padded, 1, 0), are_present))
    return jnp.moveaxis(moved, 0, 1).reshape(n_features, -1)[:, :n_clusters], closest, largest


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
        def sums(data: Data, labels: Array) -> SufficientStatistics:
            rest = data.features[1 : 1 + origins.shape[1]] - origins.T[:, labels]
            rest = Data(features(rest, diagonal=diagonal), data.weights)
            return collect(rest, memberships(labels) * data.weights[None, :], origins.shape[1], diagonal=diagonal)

        return over_tiles(task.data, labels, sums, diagonal=diagonal)

    def turn(carry: _Turn) -> _Turn:
        means, _, count = carry
        raw = about(means)
        counts = jnp.where(raw.counts > 0, raw.counts, 1.0)
        step = jnp.where(present[:, None], raw.first / counts[:, None], 0.0)
        squares = step**2 if diagonal else step[:, :, None] * step[:, None, :]
        second = raw.second - raw.counts.reshape(-1, *[1] * (squares.ndim - 1)) * squares
        return means + step, raw._replace(first=jnp.zeros_like(step), second=second), count + 1

    def unfinished(carry: _Turn) -> Array:
        means, _, count = carry
        return (count == 0) | ((count == 1) & jnp.any(jnp.abs(means) > FAR))

    middle = jnp.zeros((n_components, len(task.z)), task.z.dtype)
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(about, middle))
    means, statistics, _ = lax.while_loop(unfinished, turn, (middle, nothing, jnp.zeros((), jnp.int32)))
    return statistics, means


def _sums(
    rows: Float[Array, "k n"] | Int[Array, " n"], task: Task, responsibilities: Callable[[Array], Array]
) -> SufficientStatistics:
    """Sufficient statistics of responsibilities made from `rows` tile by tile, so that `(K, N)` is never in memory."""

    def sums(data: Data, rows: Array) -> SufficientStatistics:
        weighted = responsibilities(rows) * data.weights[None, :]
        return collect(data, weighted, task.x.shape[0], diagonal=task.family.diagonal)

    return over_tiles(task.data, rows, sums, diagonal=task.family.diagonal)


def _first_largest(rows: Float[Array, "k n"]) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """Index and value of the first largest row for each sample. Unlike argmax, it is vectorised along the samples."""
    index, largest = jnp.zeros(rows.shape[1], jnp.int32), rows[0]
    for k in range(1, len(rows)):
        index, largest = jnp.where(rows[k] > largest, jnp.int32(k), index), jnp.maximum(rows[k], largest)
    return index, largest


def _squared_distances(x: Float[Array, "d n"], centres: Float[Array, "d k"]) -> Float[Array, "k n"]:
    return sum_over((x[:, None, :] - centres[:, :, None]) ** 2, axis=0)


def _cumulative_sum(x: Float[Array, " n"]) -> Float[Array, " n"]:
    """As `jnp.cumsum`, but three times as fast on a CPU: by blocks, each a product with a triangle of ones."""
    blocks = jnp.pad(x, (0, -len(x) % _BLOCK)).reshape(-1, _BLOCK)
    within = jnp.matmul(blocks, jnp.triu(jnp.ones((_BLOCK, _BLOCK), x.dtype)), precision=lax.Precision.HIGHEST)
    before = jnp.concatenate([jnp.zeros(1, x.dtype), jnp.cumsum(within[:, -1])[:-1]])
    return (before[:, None] + within).ravel()[: len(x)]


def _inverse_cdf(mass: Float[Array, " n"], weights: Float[Array, " n"], u: Float[Array, " t"]) -> Int[Array, " t"]:
    """Index of the sample at each quantile of a discrete distribution; of `weights` if no sample has mass."""
    mass = jnp.where(jnp.sum(mass) > 0, mass, weights)
    cumulative = _cumulative_sum(mass)
    below = cumulative[None, :] <= (u * cumulative[-1])[:, None]
    return jnp.minimum(jnp.sum(below, axis=1), mass.shape[0] - 1)
