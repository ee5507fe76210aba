"""Parts of the initialisers, against NumPy."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import at_once

from jaxgmm.em import clusters
from jaxgmm.em.clusters import CLUSTERS_TOGETHER
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.em.expectation import as_data
from jaxgmm.em.initialization import INITIALIZERS, Task, from_labels

cumulative_sum, lloyd, first_largest = map(at_once, (clusters._cumulative_sum, clusters.lloyd, clusters._first_largest))


@pytest.mark.parametrize("n", [1, 15, 16, 17, 300, 5000])
def test_cumulative_sum_is_numpys(n: int) -> None:
    x = np.random.default_rng(n).exponential(size=n) ** 4
    x[::3] = 0
    with jax.enable_x64(True):
        found = np.asarray(cumulative_sum(x))
    np.testing.assert_allclose(found, np.cumsum(x), rtol=1e-13)


def test_padding_leaves_the_cumulative_sum_alone() -> None:
    x = np.random.default_rng(0).exponential(size=300)
    with jax.enable_x64(True):
        padded = np.asarray(cumulative_sum(np.pad(x, (0, 4700))))
        np.testing.assert_allclose(padded[:300], cumulative_sum(x), rtol=1e-15)
    assert np.all(padded[300:] == padded[299])


def test_first_largest_is_argmax() -> None:
    rows = np.random.default_rng(0).integers(0, 3, size=(5, 200)).astype(np.float32)
    rows[3] = -np.inf
    index, largest = first_largest(rows)
    np.testing.assert_array_equal(index, np.argmax(rows, axis=0))
    np.testing.assert_array_equal(largest, np.max(rows, axis=0))


def lloyd_by_numpy(labels: np.ndarray, x: np.ndarray, weights: np.ndarray, k: int) -> np.ndarray:
    """Lloyd's algorithm on samples `(N, D)`; of equally close centres the first."""
    centres = np.zeros((k, x.shape[1]))
    while True:
        for c in np.unique(labels[weights > 0]):
            centres[c] = np.average(x[labels == c], axis=0, weights=weights[labels == c])
        closest = np.argmin(np.sum((x[:, None] - centres) ** 2, axis=-1), axis=1)
        if np.array_equal(closest[weights > 0], labels[weights > 0]):
            return closest
        labels = closest


# With and without absent ones, by one program of each size.
@pytest.mark.parametrize(
    "n_arrays",
    [
        CLUSTERS_TOGETHER - 1,
        CLUSTERS_TOGETHER,
        CLUSTERS_TOGETHER + 1,
        3 * CLUSTERS_TOGETHER,
    ],
)
@pytest.mark.parametrize("n_absent", [0, 3])
def test_lloyds_algorithm_is_numpys_for_few_clusters_and_for_many(n_arrays: int, n_absent: int) -> None:
    k = n_arrays - n_absent
    rng = np.random.default_rng(k)
    # Whole numbers, so that some samples are equally close to two centres.
    x, weights = rng.integers(0, 30, size=(400, 2)).astype(float), rng.integers(0, 3, size=400).astype(float)
    labels = rng.integers(0, k, size=400).astype(np.int32)
    with jax.enable_x64(True):
        found = lloyd(labels, x.T, weights, np.arange(n_arrays) < k, 1000)
    expected = lloyd_by_numpy(labels, x, weights, k)
    np.testing.assert_array_equal(np.asarray(found)[weights > 0], expected[weights > 0])


@pytest.mark.parametrize("init", ["k-means++", "kmeans", "random", "random_from_data"])
def test_programs_of_many_components_are_as_large_as_those_of_few(init: str) -> None:
    def n_operations(k: int) -> int:
        task = task_of(np.zeros((2 * CLUSTERS_TOGETHER, 2)), k)
        make = jax.make_jaxpr(lambda key, start: INITIALIZERS[init](key, start, task))
        return str(make(jax.random.key(0), jnp.zeros((), jnp.int32))).count(" = ")

    with jax.enable_x64(True):
        assert n_operations(40 * CLUSTERS_TOGETHER) <= n_operations(2 * CLUSTERS_TOGETHER)


def task_of(x: np.ndarray, k: int, tile: int = 0) -> Task:
    """What a start of K full components on samples `(N, D)` of weight 1 is made for."""
    z, weights = jnp.asarray(x.T), jnp.ones(len(x))
    data = as_data(z, weights, tile, diagonal=False)
    return Task(z, z, data, jnp.ones(k, bool), FAMILIES["full"], jnp.zeros((x.shape[1], x.shape[1])))


def largest_array(jaxpr: Any) -> int:
    """Entries of the largest array that a program makes, those within its loops included."""
    sizes = [variable.aval.size for equation in jaxpr.eqns for variable in equation.outvars]
    for value in (value for equation in jaxpr.eqns for value in equation.params.values()):
        parts = [getattr(part, "jaxpr", part) for part in (value if isinstance(value, tuple) else (value,))]
        sizes += [largest_array(part) for part in parts if hasattr(part, "eqns")]
    return max(sizes, default=0)


@pytest.mark.parametrize("init", ["k-means++", "kmeans", "random", "random_from_data"])
def test_starts_on_large_data_hold_no_array_of_all_components_and_samples(init: str) -> None:
    n, k = 4096, 10 * CLUSTERS_TOGETHER
    with jax.enable_x64(True):
        task = task_of(np.zeros((n, 2)), k, tile=64)
        made = jax.make_jaxpr(lambda key, start: INITIALIZERS[init](key, start, task))
        assert largest_array(made(jax.random.key(0), jnp.zeros((), jnp.int32)).jaxpr) <= CLUSTERS_TOGETHER * n


def test_labels_on_large_data_are_spread_out_tile_by_tile() -> None:
    n, k = 4096, 200
    with jax.enable_x64(True):
        task = task_of(np.zeros((n, 2)), k, tile=64)
        made = jax.make_jaxpr(lambda labels: from_labels(labels, task))(jnp.zeros(n, jnp.int32))
        assert largest_array(made.jaxpr) < k * n // 8


@functools.partial(at_once, static_argnames=("n_starts",))
def seeded_labels(
    x: jax.Array, weights: jax.Array, present: jax.Array, uniformly: jax.Array, *, n_starts: int
) -> jax.Array:
    keys = jax.random.split(jax.random.key(0), n_starts)
    return jax.vmap(lambda key: clusters.seeded_labels(key, x, weights, present, uniformly))(keys)


def seeded(
    x: np.ndarray, n_seeds: int, n_starts: int, *, uniformly: bool, weights: np.ndarray | None = None
) -> np.ndarray:
    """Labels `(n_starts, N)` of samples `(N, D)`, with room for two seeds more than there are."""
    given = np.ones(len(x)) if weights is None else weights
    present = np.arange(n_seeds + 2) < n_seeds
    with jax.enable_x64(True):
        return np.asarray(seeded_labels(x.T, given, present, np.asarray(uniformly), n_starts=n_starts))


def test_a_far_sample_is_a_greedy_seed_always_and_a_uniform_one_as_often_as_any() -> None:
    x = np.append(np.random.default_rng(0).normal(size=(19, 1)), [[1000.0]], axis=0)

    def share_alone(labels: np.ndarray) -> float:
        return float(np.mean(np.all(labels[:, :-1] != labels[:, -1:], axis=1)))

    assert share_alone(seeded(x, 3, 2000, uniformly=False)) == 1
    # Three of twenty samples; the standard error of 2,000 starts is 0.008.
    assert abs(share_alone(seeded(x, 3, 2000, uniformly=True)) - 3 / 20) < 0.03


@pytest.mark.parametrize("uniformly", [False, True])
def test_samples_of_weight_0_are_no_seeds(uniformly: bool) -> None:
    # Three places with weight, and far from them many without: seeds there would leave these three fewer labels.
    x = np.append(1000.0 + np.arange(60.0)[:, None], [[0.0], [1.0], [3.0]], axis=0)
    weights = (x[:, 0] < 1000).astype(float)
    for labels in seeded(x, 3, 100, uniformly=uniformly, weights=weights):
        assert len(np.unique(labels[-3:])) == 3


@pytest.mark.parametrize("uniformly", [False, True])
def test_seeds_differ_though_most_samples_are_equal(uniformly: bool) -> None:
    x = np.append(np.zeros((97, 2)), [[1.0, 0], [0, 1], [5, 5]], axis=0)
    for labels in seeded(x, 4, 20, uniformly=uniformly):
        assert len(np.unique(labels)) == 4
