"""Density, responsibilities and samples of a mixture against scipy."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

import jaxgmm
from jaxgmm.mixture import full_covariances, unknown


def random_mixture(seed: int, n_components: int, n_features: int, *, diagonal: bool = False) -> jaxgmm.Mixture:
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(n_components, n_features, n_features))
    covariances = factors @ factors.swapaxes(-1, -2) + 0.1 * np.eye(n_features)
    if diagonal:
        covariances = np.diagonal(covariances, axis1=-2, axis2=-1).copy()
    return jaxgmm.Mixture(
        rng.dirichlet(np.ones(n_components)), rng.normal(size=(n_components, n_features)), covariances
    )


def scipy_log_joint(mixture: jaxgmm.Mixture, x: np.ndarray) -> np.ndarray:
    columns = [
        np.log(weight) + multivariate_normal(mean, covariance).logpdf(x)
        for weight, mean, covariance in zip(mixture.weights, mixture.means, full_covariances(mixture), strict=True)
    ]
    return np.stack(columns, axis=-1)


@pytest.mark.parametrize(
    ("n_features", "diagonal"), [(1, False), (2, False), (5, False), (9, False), (1, True), (9, True)]
)
def test_density_is_scipys(n_features: int, diagonal: bool) -> None:
    mixture = random_mixture(n_features, 3, n_features, diagonal=diagonal)
    x = np.random.default_rng(1).normal(size=(20, n_features))
    joint = scipy_log_joint(mixture, x)
    np.testing.assert_allclose(jaxgmm.log_prob(mixture, x), logsumexp(joint, axis=1), rtol=1e-11)
    expected = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
    np.testing.assert_allclose(jaxgmm.responsibilities(mixture, x), expected, atol=1e-11)
    np.testing.assert_array_equal(jaxgmm.predict(mixture, x), joint.argmax(axis=1))


def test_density_far_from_the_origin_keeps_its_digits() -> None:
    mixture = random_mixture(0, 3, 2)
    x = np.random.default_rng(1).normal(size=(20, 2))
    shifted = replace(mixture, means=mixture.means + 1e6)
    np.testing.assert_allclose(jaxgmm.log_prob(shifted, x + 1e6), jaxgmm.log_prob(mixture, x), rtol=1e-7)


def test_batch_axes_match_single_mixtures() -> None:
    singles = [random_mixture(seed, 3, 2) for seed in range(4)]
    stacked = jaxgmm.Mixture(*(np.stack(arrays) for arrays in zip(*(one.arrays for one in singles), strict=True)))
    x = np.random.default_rng(2).normal(size=(4, 7, 2))
    for function in (jaxgmm.log_prob, jaxgmm.responsibilities, jaxgmm.predict):
        expected = np.stack([function(mixture, rows) for mixture, rows in zip(singles, x, strict=True)])
        np.testing.assert_allclose(function(stacked, x), expected, rtol=1e-12)
        shared = np.stack([function(mixture, x[0]) for mixture in singles])
        np.testing.assert_allclose(function(stacked, x[0]), shared, rtol=1e-12)


def test_numpy_gives_numpy_in_float64_and_jax_gives_jax() -> None:
    mixture = random_mixture(0, 2, 2)
    x = np.zeros((3, 2), np.float32)
    answer = jaxgmm.log_prob(mixture, x)
    assert isinstance(answer, np.ndarray)
    assert answer.dtype == np.float64
    on_device = jaxgmm.log_prob(mixture.map(lambda leaf: jnp.asarray(leaf, jnp.float32)), jnp.asarray(x))
    assert isinstance(on_device, jax.Array)
    assert on_device.dtype == jnp.float32
    np.testing.assert_allclose(on_device, answer, rtol=1e-5)


def test_density_works_inside_jit_vmap_and_grad() -> None:
    mixture = random_mixture(0, 2, 2).map(lambda leaf: jnp.asarray(leaf, jnp.float32))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3, 2)), jnp.float32)
    mapped = jax.jit(jax.vmap(lambda rows: jaxgmm.log_prob(mixture, rows)))(x)
    np.testing.assert_allclose(mapped, jaxgmm.log_prob(mixture, x.reshape(15, 2)).reshape(5, 3), rtol=1e-5)
    # ∇_x log N(x | μ, Σ) = -Σ⁻¹ (x - μ)
    one = jaxgmm.Mixture(jnp.ones(1), mixture.means[:1], mixture.covariances[:1])
    slope = jax.grad(lambda row: jaxgmm.log_prob(one, row[None])[0])(x[0, 0])
    expected = -np.linalg.solve(np.asarray(one.covariances[0]), np.asarray(x[0, 0] - one.means[0]))
    np.testing.assert_allclose(slope, expected, rtol=1e-4)


def test_absent_component_has_no_part() -> None:
    mixture = random_mixture(0, 2, 2)
    padded = jaxgmm.Mixture(
        np.append(mixture.weights, 0.0),
        np.concatenate([mixture.means, mixture.means[:1]]),
        np.concatenate([mixture.covariances, mixture.covariances[:1]]),
    )
    x = np.random.default_rng(0).normal(size=(6, 2))
    np.testing.assert_allclose(jaxgmm.log_prob(padded, x), jaxgmm.log_prob(mixture, x), rtol=1e-13)
    assert np.all(jaxgmm.responsibilities(padded, x)[:, 2] == 0)
    assert not np.any(jaxgmm.sample(0, padded, 500)[1] == 2)


def test_no_answer_predicts_minus_one() -> None:
    mixture = random_mixture(0, 2, 2)
    unfitted = mixture.map(lambda leaf: np.full_like(leaf, np.nan))
    assert jaxgmm.predict(unfitted, np.zeros((2, 2))).tolist() == [-1, -1]
    assert jaxgmm.predict(mixture, np.array([[np.nan, 0.0]])).tolist() == [-1]


@pytest.mark.parametrize("diagonal", [False, True])
def test_samples_have_the_moments_of_their_component(diagonal: bool) -> None:
    mixture = random_mixture(3, 3, 2, diagonal=diagonal)
    x, component = jaxgmm.sample(7, mixture, 200_000)
    shares = np.bincount(component, minlength=3) / len(component)
    np.testing.assert_allclose(shares, mixture.weights, atol=5e-3)
    for k in range(3):
        rows = x[component == k]
        spread = np.sqrt(np.trace(full_covariances(mixture)[k]))
        standard_error = 5 * spread / np.sqrt(len(rows))
        np.testing.assert_allclose(rows.mean(axis=0), mixture.means[k], atol=standard_error)
        covariance = np.cov(rows.T)
        np.testing.assert_allclose(covariance, full_covariances(mixture)[k], atol=3 * spread * standard_error)


def test_sampling_repeats_with_its_key_and_differs_between_mixtures() -> None:
    single = random_mixture(0, 2, 2)
    stacked = single.map(lambda leaf: np.stack([leaf, leaf]))
    x, _ = jaxgmm.sample(1, stacked, 10)
    again, _ = jaxgmm.sample(jax.random.key(1), stacked, 10)
    np.testing.assert_array_equal(x, again)
    assert x.shape == (2, 10, 2)
    assert not np.any(x[0] == x[1])


@pytest.mark.parametrize("x", [np.zeros((5, 1)), np.zeros((5, 3)), np.zeros(2)])
def test_samples_of_other_dimension_are_refused(x: np.ndarray) -> None:
    for function in (jaxgmm.log_prob, jaxgmm.responsibilities, jaxgmm.predict):
        with pytest.raises(ValueError, match="as many features as the mixture"):
            function(random_mixture(0, 2, 2), x)


def test_sampling_refuses_what_it_cannot_read() -> None:
    with pytest.raises(ValueError, match="n_samples must be"):
        jaxgmm.sample(0, random_mixture(0, 2, 2), -2)
    with pytest.raises(ValueError, match="key must be"):
        jaxgmm.sample(np.array([0, 1], np.uint32), random_mixture(0, 2, 2), 3)


@pytest.mark.parametrize("is_diagonal", [False, True])
def test_rows_of_a_batch_are_mixtures(is_diagonal: bool) -> None:
    several = [random_mixture(seed, 3, 2, diagonal=is_diagonal) for seed in range(4)]
    batch = jax.tree.map(lambda *leaves: np.stack(leaves), *several)
    for index, expected in ((2, several[2]), (slice(1, 3), jax.tree.map(lambda *a: np.stack(a), *several[1:3]))):
        jax.tree.map(np.testing.assert_array_equal, batch.of(index), expected)
    assert batch.of(np.array([True, False, False, True])).weights.shape == (2, 3)
    assert batch.map(lambda leaf: leaf.astype(np.float32)).means.dtype == np.float32
    first = batch.components(slice(2))
    assert [array.shape for array in first.arrays[:2]] == [(4, 2), (4, 2, 2)]
    np.testing.assert_array_equal(first.covariances, batch.covariances[:, :2])
    nowhere = unknown((4,), 3, 2, is_diagonal=is_diagonal)
    assert [leaf.shape for leaf in nowhere.arrays] == [leaf.shape for leaf in batch.arrays]
    assert all(np.isnan(leaf).all() for leaf in nowhere.arrays)


def test_means_are_printed_with_the_digits_that_their_widths_tell_apart() -> None:
    covariances = np.array([1.0, 400.0]).reshape(2, 1, 1)
    near = jaxgmm.Mixture(np.full(2, 0.5), np.array([[12.3456], [0.0]]), covariances)
    assert [row.split()[2] for row in str(near).splitlines()[2:]] == ["12.35", "0"]
    times = jaxgmm.Mixture(np.full(2, 0.5), np.array([[1.7e9], [1.7e9 + 612]]), covariances)
    assert [row.split()[2] for row in str(times).splitlines()[2:]] == ["1700000000", "1700000612"]
