"""Samples drawn from mixtures, whatever the key and however many."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_density import mixtures, n_compiled

import jaxgmm


def test_first_samples_do_not_depend_on_how_many_are_drawn() -> None:
    for mixture in (mixtures(), mixtures(2, 3)):
        samples, component = jaxgmm.sample(3, mixture, 50)
        few, of_few = jaxgmm.sample(3, mixture, 7)
        assert samples.shape[:-2] == mixture.weights.shape[:-1]
        np.testing.assert_array_equal(samples[..., :7, :], few)
        np.testing.assert_array_equal(component[..., :7], of_few)


def test_numbers_of_samples_and_mixtures_compile_few_programs() -> None:
    one, several = mixtures(), mixtures(4)
    assert n_compiled(lambda: [jaxgmm.sample(0, one, n) for n in range(1, 64, 9)]) <= 5
    parts = [several.of(np.s_[:b]) for b in range(1, 5)]
    assert n_compiled(lambda: [jaxgmm.sample(0, part, 10) for part in parts]) <= 6


@pytest.mark.parametrize("key", [0, -1, 2**63 - 1, -(2**63), np.uint8(3), np.int64(2**40), True])
def test_keys_are_those_of_fit(key: object) -> None:
    if key is True:
        with pytest.raises(ValueError, match="key must be an integer of 64 bits"):
            jaxgmm.sample(key, mixtures(), 3)
        return
    assert jaxgmm.sample(key, mixtures(), 3)[0].shape == (3, 2)


def test_seed_of_64_bits_keeps_all_of_them() -> None:
    first, second = (jaxgmm.sample(seed, mixtures(), 3)[0] for seed in (5, 5 + 2**32))
    assert not np.any(first == second)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((2**63, mixtures(), 3), "key must be an integer of 64 bits or one JAX random key; got 9223372036854775808"),
        (("a", mixtures(), 3), "key must be"),
        ((0, mixtures(), 2.0), "n_samples must be an integer of at least 0; got 2.0"),
        ((0, mixtures(), True), "n_samples must be"),
        ((0, mixtures(), None), "n_samples must be"),
        ((0, {}, 3), "mixture must be a jaxgmm.Mixture"),
        ((0, replace(mixtures(), means=np.zeros((2, 2))), 3), "its shapes are"),
    ],
)
def test_misuse_is_refused_in_words(arguments: tuple, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        jaxgmm.sample(*arguments)


def test_mixture_without_an_answer_has_no_samples() -> None:
    mixture = mixtures(4)
    mixture.means[0] = np.nan
    mixture.weights[1] = 0
    mixture.covariances[2, 1] = -np.eye(2)
    samples, component = jaxgmm.sample(0, mixture, 6)
    assert np.all(np.isnan(samples[:3]))
    assert np.all(component[:3] == -1)
    assert np.all(np.isfinite(samples[3]))
    assert np.all(component[3] >= 0)


def test_samples_inside_a_program_are_those_outside() -> None:
    mixture = mixtures(3).map(lambda leaf: jnp.asarray(leaf, jnp.float32))
    key = jax.random.key(4)
    inside, component = jax.jit(lambda key, mixture: jaxgmm.sample(key, mixture, 9))(key, mixture)
    outside, of_outside = jaxgmm.sample(key, mixture, 9)
    assert isinstance(outside, jax.Array)
    np.testing.assert_allclose(inside, outside, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(component, of_outside)
