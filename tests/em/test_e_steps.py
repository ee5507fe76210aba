import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import at_once

from jaxgmm.em.e_steps import E_STEPS, Form
from jaxgmm.em.statistics import SufficientStatistics
from jaxgmm.mixture import Mixture

N_SETS, N_SLOTS, N_FEATURES, N_SAMPLES = 2, 3, 5, 64


@functools.cache
def sums_of(name: str, tile: int, *, diagonal: bool) -> tuple[SufficientStatistics, jax.Array]:
    """Of three runs, of which the last is on the first data set again; in a program of its own."""
    rng = np.random.default_rng(0)
    e_step, form = E_STEPS[name], Form(N_FEATURES, diagonal, tile)
    z = rng.normal(size=(N_SETS, N_FEATURES, N_SAMPLES))
    weights = rng.uniform(0.5, 1, size=(N_SETS, N_SAMPLES))
    means, rows = rng.normal(size=(2, N_FEATURES, N_SLOTS)), jnp.asarray([0, 1, 0], jnp.int32)
    unit = np.ones(N_FEATURES) if diagonal else np.eye(N_FEATURES)
    spread = np.broadcast_to(unit[None, ..., None], (2, *unit.shape, N_SLOTS))
    mixtures = Mixture(np.full((2, N_SLOTS), 0.5), means, spread)

    @at_once
    def sums(z: jax.Array, weights: jax.Array, mixtures: Mixture) -> tuple[SufficientStatistics, jax.Array]:
        shared = e_step.share(z, weights, form)
        held = jax.vmap(lambda row: e_step.load(shared, row, form))(rows)
        ridges = jnp.zeros((*unit.shape, N_SLOTS))
        parameters, _ = e_step.parameters(mixtures, ridges)
        busy = jnp.asarray([2, 0, 1], jnp.int32), jnp.asarray(N_SLOTS, jnp.int32)
        statistics, log_likelihood = e_step.read(shared, held, parameters, busy, form)
        if e_step.about_means:
            # Σ r x = Σ r (x - μ) + μ Σ r, and likewise for squares.
            counts, first, second = statistics
            moved = first + counts[:, None] * mixtures.means
            if diagonal:
                second = second + 2 * mixtures.means * first + counts[:, None] * mixtures.means**2
            else:
                cross = mixtures.means[:, :, None] * first[:, None]
                outer = mixtures.means[:, :, None] * mixtures.means[:, None]
                second = second + cross + jnp.swapaxes(cross, 1, 2) + counts[:, None, None] * outer
            statistics = SufficientStatistics(counts, moved, second)
        return statistics, log_likelihood

    return sums(z, weights, mixtures)


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("name", [name for name in E_STEPS if name != "products"])
def test_e_steps_agree(name: str, *, diagonal: bool) -> None:
    expected = sums_of("products", 0, diagonal=diagonal)
    jax.tree.map(
        lambda found, wanted: np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9),
        sums_of(name, 0, diagonal=diagonal),
        expected,
    )


@pytest.mark.parametrize("name", [name for name, e_step in E_STEPS.items() if not e_step.idle_is_free])
def test_tiles_of_samples_add_up(name: str) -> None:
    jax.tree.map(
        lambda found, wanted: np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9),
        sums_of(name, 16, diagonal=True),
        sums_of(name, 0, diagonal=True),
    )
