"""The step after a pass over samples of which some are at hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import at_once

from jaxgmm.em.covariance import FAMILIES
from jaxgmm.em.expectation import Data, e_step, natural_parameters
from jaxgmm.em.state import Settings
from jaxgmm.em.statistics import features
from jaxgmm.em.surrogate import solved
from jaxgmm.mixture import Mixture

N = 20_000
RNG = np.random.default_rng(0)
# Two clusters that overlap.
Z = RNG.normal(size=(2, N)) + 1.2 * np.where(RNG.random(N) < 0.4, -1, 1)


def data_of(z, diagonal):
    return Data(features(jnp.asarray(z), diagonal=diagonal), jnp.ones(z.shape[1]))


def start_of(diagonal):
    spread = jnp.ones((2, 2)) if diagonal else jnp.broadcast_to(jnp.eye(2), (2, 2, 2))
    return Mixture(jnp.array([0.5, 0.5]), jnp.array([[-1.0, -1.0], [1.0, 1.0]]), spread)


def settings_of(diagonal):
    ridge = jnp.full(2, 1e-12) if diagonal else 1e-12 * jnp.eye(2)
    return Settings(ridge, jnp.asarray(1e-12), jnp.asarray(500), jnp.asarray(1e-9), jnp.ones(2, bool))


def read(data, mixture):
    natural, _ = natural_parameters(mixture)
    return e_step(data, natural, 2, diagonal=mixture.is_diagonal)


@at_once
def step(sample, whole, start):
    statistics, _ = read(whole, start)
    means = jax.tree.map(lambda sums: sums / jnp.sum(whole.weights), statistics)
    family = FAMILIES["diag" if start.is_diagonal else "full"]
    found = solved(sample, means, start, family, settings_of(start.is_diagonal))
    gained = (read(whole, found.mixture)[1] - read(whole, start)[1]) / jnp.sum(whole.weights)
    again, _ = read(whole, found.mixture)
    return found, gained, jax.tree.map(lambda sums: sums / jnp.sum(whole.weights), again), means


@pytest.mark.parametrize("diagonal", [False, True])
def test_steps_gain_what_they_predict_and_end_at_a_fixed_point(diagonal):
    whole, mixture = data_of(Z, diagonal), start_of(diagonal)
    for _ in range(4):
        found, gained, again, _ = step(whole, whole, mixture)
        assert found.is_sound
        if np.isfinite(found.gain):
            np.testing.assert_allclose(found.gain, gained, atol=1e-12)
        mixture = found.mixture
    # At the fixed point nothing is left but rounding.
    assert -1e-12 < gained < 1e-6
    jax.tree.map(lambda own, new: np.testing.assert_allclose(own, new, atol=1e-2), found.statistics, again)


def test_a_sample_unlike_the_whole_is_no_guide():
    whole, sample = data_of(Z, diagonal=False), data_of(Z[:, :64] + 8.0, diagonal=False)
    found, _, _, means = step(sample, whole, start_of(diagonal=False))
    assert found.is_sound
    assert np.isinf(found.gain)
    jax.tree.map(np.testing.assert_array_equal, found.statistics, means)
