"""Clusters of samples: k-means++ seeds and Lloyd's algorithm."""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxgmm.numerics.reductions import sum_over

# Maximum number of candidates for a greedy seed. The number considered grows with log K, but the number drawn is the
# same for every K, because draws must not depend on how many components are absent.
MOST_CANDIDATES = 8

# Clusters of Lloyd's algorithm processed together; more are processed in blocks of this size. The comparisons of a
# block are unrolled, and its memberships are held in memory: `benchmarks/NOTES.md`.
CLUSTERS_TOGETHER = 20

# Samples in a block of `_cumulative_sum`.
_BLOCK = 16


def seeded_labels(
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
    first = inverse_cdf(weights, weights, uniforms[0, :1])[0]

    def add_seed(carry: tuple[Array, Array], inputs: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], None]:
        nearest, labels = carry
        component, is_present, u = inputs
        drawn_by = jnp.where(uniformly, (nearest > 0).astype(x.dtype), nearest)
        candidates = inverse_cdf(weights * drawn_by, weights, u)
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


def lloyd(
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


def inverse_cdf(mass: Float[Array, " n"], weights: Float[Array, " n"], u: Float[Array, " t"]) -> Int[Array, " t"]:
    """Index of the sample at each quantile of a discrete distribution; of `weights` if no sample has mass."""
    mass = jnp.where(jnp.sum(mass) > 0, mass, weights)
    cumulative = _cumulative_sum(mass)
    below = cumulative[None, :] <= (u * cumulative[-1])[:, None]
    return jnp.minimum(jnp.sum(below, axis=1), mass.shape[0] - 1)
