"""Spurious components are small and narrow beside the others, of equal values, or have too few samples."""

import functools
from dataclasses import replace

import jax
import numpy as np
import pytest
from compilation import at_once

from jaxgmm.em.covariance import FAMILIES
from jaxgmm.em.expectation import as_data
from jaxgmm.em.spurious import DOMINATED, NARROWEST, effective_sizes, is_small, is_tied, may_be_tied, owes_to_ridge
from jaxgmm.mixture import Mixture

# Called as they are, they would compile again each time.
small, tied, near_ridge = map(at_once, (is_small, is_tied, may_be_tied))
dominated_by_ridge = at_once(lambda mixture, ridge: owes_to_ridge(mixture, ridge, DOMINATED))


@functools.partial(at_once, static_argnames=("tile",))
def sizes_of(mixture: Mixture, z: jax.Array, weights: jax.Array, tile: int = 0) -> jax.Array:
    return effective_sizes(mixture, as_data(z, weights, tile, diagonal=mixture.is_diagonal))


def mixture(widths: list[float], weights: list[float], *, diagonal: bool) -> Mixture:
    """Components of width 1, but for one direction: an axis, or one between the axes."""
    axes = np.eye(2) if diagonal else np.array([[1.0, -1.0], [1.0, 1.0]]) / np.sqrt(2)
    covariances = np.stack([axes @ np.diag([width**2, 1.0]) @ axes.T for width in widths])
    if diagonal:
        covariances = np.diagonal(covariances, axis1=-2, axis2=-1)
    return Mixture(np.array(weights), np.zeros((len(widths), 2)), covariances)


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize(
    ("widths", "weights", "expected"),
    [
        ([1.0, 1.0], [0.5, 0.5], 0),
        ([1.0, 1.1 * NARROWEST], [0.9, 0.1], 0),
        ([1.0, 0.9 * NARROWEST], [0.9, 0.1], 1),
        # Of 100 samples, 16 do not lie near a line by chance; 14, fewer than five times three, may.
        ([1.0, 0.1 * NARROWEST], [0.84, 0.16], 0),
        ([1.0, 0.1 * NARROWEST], [0.86, 0.14], 1),
        # All equally narrow, as clusters are that lie far apart.
        ([1e-6, 1e-6], [0.5, 0.5], 0),
        # Of 100 samples, 2 are fewer than three; 3 and 4 are not.
        ([1.0, 1.0], [0.98, 0.02], 1),
        ([1.0, 1.0], [0.97, 0.03], 0),
        ([1.0, 1.0], [0.96, 0.04], 0),
        # Absent components are not counted.
        ([1.0, 0.0], [1.0, 0.0], 0),
    ],
)
def test_small_components_are_counted(widths: list[float], weights: list[float], expected: int, diagonal: bool) -> None:
    sizes = 100 * np.asarray(weights)
    found = small(mixture(widths, weights, diagonal=diagonal), sizes, np.asarray(3.0))
    assert int(np.sum(found)) == expected


@pytest.mark.parametrize(
    ("family", "expected"), [("full", [3, 9, 61]), ("diag", [3, 3, 3]), ("spherical", [3, 3, 3]), ("tied", [1, 1, 1])]
)
def test_a_component_needs_what_it_has_to_itself(family: str, expected: list[int]) -> None:
    assert [FAMILIES[family].least_samples(d) for d in (2, 8, 60)] == expected


@pytest.mark.parametrize("tile", [0, 112])
@pytest.mark.parametrize("diagonal", [False, True])
def test_a_component_has_the_effective_number_of_its_own_samples(diagonal: bool, tile: int) -> None:
    """Five samples of weight 1 far from a thousand of weight 0.01: neither makes the others more, or fewer."""
    z, weights = np.zeros((2, 1008)), np.full(1008, 0.01)
    z[:, :5], weights[:5], weights[1005:] = 100.0, 1.0, 0.0
    covariances = np.ones((2, 2)) if diagonal else np.stack([np.eye(2)] * 2)
    found = Mixture(np.array([10 / 15, 5 / 15]), np.array([[0.0, 0.0], [100.0, 100.0]]), covariances)
    np.testing.assert_allclose(sizes_of(found, z, weights, tile), [1000, 5], rtol=1e-12)
    # Of one weight, they are shares of the samples.
    halves = replace(found, means=np.zeros((2, 2)), weights=np.array([0.75, 0.25]))
    same = np.where(np.arange(1008) < 1000, 0.5, 0.0)
    np.testing.assert_allclose(sizes_of(halves, 0 * z, same, tile), [750, 250], rtol=1e-12)


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize(
    ("ridge", "times", "mostly", "dominated"),
    [
        (1e-12, 1.0, True, True),
        (1e-6, 1.0, True, True),
        (1e-6, 1.9, True, True),
        (1e-6, 2.1, False, True),
        (1e-6, 0.99 * DOMINATED, False, True),
        (1e-6, 1.01 * DOMINATED, False, False),
        # A ridge as wide as a hundredth of the data is there to be that.
        (1.5e-4, 1.0, False, True),
        (1e-2, 1.0, False, True),
        # Where the data have no variance of their own, as collinear ones, the ridge is all there is.
        (1.0, 1.0, False, True),
        # Without a ridge, what is as narrow as rounding may be of equal values.
        (0.0, 1.0, True, False),
    ],
)
def test_what_a_component_owes_to_the_ridge(
    ridge: float, times: float, mostly: bool, dominated: bool, diagonal: bool
) -> None:
    axes = np.eye(2) if diagonal else np.array([[1.0, -1.0], [1.0, 1.0]]) / np.sqrt(2)
    added = axes @ np.diag([ridge, 1e-12]) @ axes.T
    found = mixture([max(times * ridge, 1e-14) ** 0.5] * 2, [0.5, 0.5], diagonal=diagonal)
    added = np.diagonal(added) if diagonal else added
    assert near_ridge(found, added).tolist() == [mostly, mostly]
    assert dominated_by_ridge(found, added).tolist() == [dominated, dominated]


def columns(n_tied: int, n_apart: int, width: float = 1e-7) -> np.ndarray:
    """A cluster far from others, so many of whose samples have one value."""
    own = np.concatenate([np.full(n_tied, 2.0), 2.0 + width * np.random.default_rng(0).normal(size=n_apart)])
    return np.concatenate([own, np.random.default_rng(1).normal(-5, 1, 100)])[None]


@pytest.mark.parametrize(
    ("n_tied", "n_apart", "expected"), [(40, 0, True), (30, 20, True), (15, 25, False), (0, 40, False), (2, 38, False)]
)
def test_equal_values_are_told_from_near_ones(n_tied: int, n_apart: int, expected: bool) -> None:
    z = columns(n_tied, n_apart)
    own = (n_tied + n_apart) / z.shape[1]
    found = Mixture(np.array([own, 1 - own]), np.array([[2.0], [-5.0]]), np.array([[1e-12], [1.0]]))
    assert tied(found, z, z, np.ones(z.shape[1])).tolist() == [expected, False]


def test_one_sample_of_many_counts_as_equal_ones() -> None:
    z = columns(1, 0)
    weights = np.append(40.0, np.ones(z.shape[1] - 1))
    found = Mixture(np.array([0.3, 0.7]), np.array([[2.0], [-5.0]]), np.array([[1e-12], [1.0]]))
    assert tied(found, z, z, weights).tolist() == [True, False]


def test_padding_is_equal_to_nothing() -> None:
    z = np.append(1e-7 * np.random.default_rng(0).normal(size=20), np.zeros(40))[None]
    weights = (np.arange(60) < 20).astype(float)
    found = Mixture(np.ones(1), np.zeros((1, 1)), np.full((1, 1), 1e-12))
    assert tied(found, z, z, weights).tolist() == [False]
