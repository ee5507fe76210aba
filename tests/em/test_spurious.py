"""Spikes are small, and narrow beside the other components, or have too few samples."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxgmm.em.spurious import NARROWEST, RIDGE_ALONE, n_spikes
from jaxgmm.mixture import Mixture


def mixture(widths: list[float], weights: list[float], *, diagonal: bool) -> Mixture:
    """Components of width 1, but for one direction: an axis, or one between the axes."""
    axes = np.eye(2) if diagonal else np.array([[1.0, -1.0], [1.0, 1.0]]) / np.sqrt(2)
    covariances = np.stack([axes @ np.diag([width**2, 1.0]) @ axes.T for width in widths])
    if diagonal:
        covariances = np.diagonal(covariances, axis1=-2, axis2=-1)
    return Mixture(*map(jnp.asarray, (np.array(weights), np.zeros((len(widths), 2)), covariances)))


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize(
    ("widths", "weights", "expected"),
    [
        ([1.0, 1.0], [0.5, 0.5], 0),
        ([1.0, 1.1 * NARROWEST], [0.9, 0.1], 0),
        ([1.0, 0.9 * NARROWEST], [0.9, 0.1], 1),
        # Of 100 samples, 16 do not lie near a line by chance; 14, fewer than five times D + 1, may.
        ([1.0, 0.1 * NARROWEST], [0.84, 0.16], 0),
        ([1.0, 0.1 * NARROWEST], [0.86, 0.14], 1),
        # All equally narrow, as clusters are that lie far apart.
        ([1e-6, 1e-6], [0.5, 0.5], 0),
        # Of 100 samples, 2 are fewer than D + 1, and 4 are not.
        ([1.0, 1.0], [0.98, 0.02], 1),
        ([1.0, 1.0], [0.96, 0.04], 0),
        # Absent components are not counted.
        ([1.0, 0.0], [1.0, 0.0], 0),
    ],
)
def test_spikes_are_counted(widths: list[float], weights: list[float], expected: int, diagonal: bool) -> None:
    no_ridge = jnp.zeros(2) if diagonal else jnp.zeros((2, 2))
    found = n_spikes(mixture(widths, weights, diagonal=diagonal), jnp.asarray(100.0), jnp.asarray(100.0), no_ridge)
    assert int(found) == expected


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize(
    ("ridge", "times", "expected"),
    [
        # Nothing but the ridge: however many components are as narrow.
        (1e-6, 1.0, 2),
        (1e-5, 1.0, 2),
        (6e-5, 1.0, 2),
        (1e-6, 0.99 * RIDGE_ALONE, 2),
        (1e-6, 1.01 * RIDGE_ALONE, 0),
        # A ridge as wide as a hundredth of the data is there to be that.
        (1.5e-4, 1.0, 0),
        (1e-2, 1.0, 0),
        # Where the data have no variance of their own, as collinear ones, the ridge is all there is.
        (1.0, 1.0, 0),
        (0.0, 1.0, 0),
    ],
)
def test_components_of_nothing_but_ridge_are_spikes(ridge: float, times: float, expected: int, diagonal: bool) -> None:
    axes = np.eye(2) if diagonal else np.array([[1.0, -1.0], [1.0, 1.0]]) / np.sqrt(2)
    added = axes @ np.diag([ridge, 1e-6]) @ axes.T
    found = mixture([max(times * ridge, 1e-12) ** 0.5] * 2, [0.5, 0.5], diagonal=diagonal)
    added = jnp.asarray(np.diagonal(added) if diagonal else added)
    assert int(n_spikes(found, jnp.asarray(100.0), jnp.asarray(100.0), added)) == expected


def test_few_heavy_samples_are_no_more_than_few() -> None:
    """Five samples of weight 10 near a line, among a thousand of weight 1: (Σ w)² / Σ w² is 735."""
    found = mixture([1.0, 0.1 * NARROWEST], [1000 / 1050, 50 / 1050], diagonal=False)
    assert int(n_spikes(found, jnp.asarray(735.0), jnp.asarray(105.0), jnp.zeros((2, 2)))) == 1
