"""Parts of the initialisers, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgmm.em.initialization import _cumulative_sum, _first_largest, _seeded_labels


@pytest.mark.parametrize("n", [1, 15, 16, 17, 300, 5000])
def test_cumulative_sum_is_numpys(n: int) -> None:
    x = np.random.default_rng(n).exponential(size=n) ** 4
    x[::3] = 0
    with jax.enable_x64(True):
        found = np.asarray(_cumulative_sum(jnp.asarray(x)))
    np.testing.assert_allclose(found, np.cumsum(x), rtol=1e-13)


def test_padding_leaves_the_cumulative_sum_alone() -> None:
    x = np.random.default_rng(0).exponential(size=100)
    with jax.enable_x64(True):
        padded = np.asarray(_cumulative_sum(jnp.asarray(np.pad(x, (0, 60)))))
        np.testing.assert_allclose(padded[:100], _cumulative_sum(jnp.asarray(x)), rtol=1e-15)
    assert np.all(padded[100:] == padded[99])


def test_first_largest_is_argmax() -> None:
    rows = np.random.default_rng(0).integers(0, 3, size=(5, 200)).astype(np.float32)
    rows[3] = -np.inf
    np.testing.assert_array_equal(_first_largest(jnp.asarray(rows)), np.argmax(rows, axis=0))


def seeded(
    x: np.ndarray, n_seeds: int, n_starts: int, *, uniformly: bool, weights: np.ndarray | None = None
) -> np.ndarray:
    """Labels `(n_starts, N)` of samples `(N, D)`, with room for two seeds more than there are."""
    given = jnp.ones(len(x)) if weights is None else jnp.asarray(weights)
    present = jnp.arange(n_seeds + 2) < n_seeds
    keys = jax.random.split(jax.random.key(0), n_starts)

    def labels(key: jax.Array) -> jax.Array:
        return _seeded_labels(key, jnp.asarray(x.T), given, present, jnp.asarray(uniformly))

    with jax.enable_x64(True):
        return np.asarray(jax.vmap(labels)(keys))


def test_a_far_sample_is_a_greedy_seed_always_and_a_uniform_one_as_often_as_any() -> None:
    x = np.append(np.random.default_rng(0).normal(size=(19, 1)), [[1000.0]], axis=0)

    def share_alone(labels: np.ndarray) -> float:
        return float(np.mean(np.all(labels[:, :-1] != labels[:, -1:], axis=1)))

    assert share_alone(seeded(x, 3, 200, uniformly=False)) == 1
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
