"""The share of old statistics that new samples leave."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from jaxgmm.em.statistics import SufficientStatistics
from jaxgmm.em.stepwise import followed, retained


def share(before, weight, exponent, unit=50.0):
    return float(retained(*map(jnp.asarray, (before, weight, unit, exponent))))


@pytest.mark.parametrize("exponent", [0.6, 0.9, 1.0])
def test_it_is_the_integral_of_the_step_sizes(exponent):
    expected = np.exp(-quad(lambda u: u**-exponent, 80 / 50, 110 / 50)[0])
    np.testing.assert_allclose(share(80.0, 30.0, exponent), expected, rtol=1e-12)


@pytest.mark.parametrize("exponent", [0.6, 1.0])
def test_it_does_not_depend_on_how_samples_are_cut(exponent):
    whole = share(70.0, 400.0, exponent)
    np.testing.assert_allclose(share(70.0, 1.0, exponent) * share(71.0, 399.0, exponent), whole, rtol=1e-12)


def test_with_exponent_1_all_samples_count_alike():
    np.testing.assert_allclose(share(70.0, 30.0, 1.0), 0.7, rtol=1e-12)


def test_means_stay_means():
    means = SufficientStatistics(jnp.array([0.25, 0.75]), jnp.ones((2, 1)), jnp.ones((2, 1)))
    sums = SufficientStatistics(jnp.array([4.0, 1.0]), jnp.ones((2, 1)), jnp.ones((2, 1)))
    after = followed(means, sums, jnp.asarray(5.0), jnp.asarray(0.5))
    np.testing.assert_allclose(after.counts, [0.525, 0.475])
