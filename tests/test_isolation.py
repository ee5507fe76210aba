"""Padding may hold rows of other data sets, and samples of weight 0 anything: neither has a say."""

import numpy as np
import pytest

import jaxgmm
from jaxgmm import Status

RNG = np.random.default_rng(0)
OWN, OTHER = (RNG.normal(size=(n, 2)) + 5 * (np.arange(n) < 20)[:, None] for n in (40, 33))


def memberships(n_samples: int) -> np.ndarray:
    return np.eye(2)[(np.arange(n_samples) >= 20).astype(int)]


def assert_unchanged(found: jaxgmm.FitResult, expected: jaxgmm.FitResult) -> None:
    """The first data set, bit for bit."""
    assert found.status[0] == expected.status[0] == Status.CONVERGED
    for leaf, own in zip(found.mixture.arrays, expected.mixture.arrays, strict=True):
        np.testing.assert_array_equal(leaf[0], own[0])
    assert found.log_likelihood[0] == expected.log_likelihood[0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_responsibilities_of_a_neighbour_that_are_no_numbers(value: float) -> None:
    bad = memberships(33)
    bad[0] = value
    found, expected = (jaxgmm.fit([OWN, OTHER], 2, init=[memberships(40), others]) for others in (bad, memberships(33)))
    assert_unchanged(found, expected)
    assert found.status[1] != Status.CONVERGED


def test_responsibilities_of_samples_without_weight() -> None:
    x, rows, weights = OWN.copy(), memberships(40), np.ones(40)
    x[3], rows[3], weights[3] = np.nan, np.nan, 0
    found = jaxgmm.fit([x, OTHER], 2, init=[rows, memberships(33)], sample_weight=[weights, np.ones(33)])
    without = [np.delete(own, 3, axis=0) for own in (OWN, memberships(40))]
    alone = jaxgmm.fit([without[0], OTHER], 2, init=[without[1], memberships(33)])
    assert found.status.tolist() == [Status.CONVERGED] * 2
    np.testing.assert_allclose(found.mixture.means, alone.mixture.means, rtol=1e-9)


@pytest.mark.parametrize("own_weight", [1.0, 1e-9])
def test_weights_of_a_neighbour_that_are_huge(own_weight: float) -> None:
    weights = own_weight * RNG.random(40)
    found, expected = (
        jaxgmm.fit(
            [OWN, OTHER], 2, init=[memberships(40), memberships(33)], sample_weight=[weights, np.full(33, other)]
        )
        for other in (1e300, 1.0)
    )
    assert_unchanged(found, expected)
    streams = [
        jaxgmm.start_stream(
            [OWN, OTHER], 2, init=[memberships(40), memberships(33)], sample_weight=[weights, np.full(33, other)]
        )
        for other in (1e300, 1.0)
    ]
    np.testing.assert_array_equal(streams[0].counts[0], streams[1].counts[0])
    np.testing.assert_array_equal(streams[0].second[0], streams[1].second[0])


@pytest.mark.parametrize("which", range(5))
def test_values_of_others_near_a_mean_of_equal_values(which: int) -> None:
    """A mean of equal values is set to these exactly: not to others near them."""
    value = 1e12 * (1 + (1 + which) / 7)
    # The rounding of the conversion to data units is many standard deviations of a component of the ridge's width.
    own = np.append([value] * 3, np.random.default_rng(0).normal(size=57))[:, None]
    near = np.append([value + np.spacing(value)] * 3, OTHER[3:, 0])[:, None]
    found = jaxgmm.fit([own, near], 2, n_init=2)
    assert np.max(found.mixture.means[0]) == value
    np.testing.assert_allclose(jaxgmm.log_prob(found.of(0), own).sum(), found.log_likelihood[0], rtol=1e-9)
    without = np.concatenate([own, near[:2]])
    weights = np.append(np.ones(60), [0.0, 0.0])
    alone = jaxgmm.fit([without, near], 2, n_init=2, sample_weight=[weights, np.ones(33)])
    assert np.max(alone.mixture.means[0]) == value


@pytest.mark.parametrize("least", [0, 1])
def test_weights_of_the_smallest_and_the_largest_size_beside_each_other(least: int) -> None:
    """Their common scale is taken off each data set's own; padding is not scaled with it."""
    weights = [np.full(40, 1e300), np.full(33, 1e300)]
    weights[least] *= 1e-300
    weights[least] *= 1e-300
    found = jaxgmm.fit([OWN, OTHER], 2, init=[memberships(40), memberships(33)], sample_weight=weights)
    assert found.status.tolist() == [Status.CONVERGED] * 2
