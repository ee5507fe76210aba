"""The χ² distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxgmm.numerics.chi_squared import survival


@pytest.mark.parametrize("n_degrees", [1, 2, 3, 4, 9, 16, 63, 64, 65, 127, 128, 130])
def test_survival_is_that_of_scipy(n_degrees):
    x = np.concatenate([[0, 1e-300], np.geomspace(1e-6, 40, 20) * n_degrees, np.linspace(1, 2, 9) * n_degrees])
    expected = scipy.stats.chi2.sf(x, n_degrees)
    with jax.enable_x64(True):
        found = np.asarray(survival(jnp.asarray(x), n_degrees))
        in_float32 = np.asarray(survival(jnp.asarray(x, jnp.float32), n_degrees))
        ends = np.asarray(survival(jnp.asarray([jnp.inf, jnp.nan]), n_degrees))
    is_normal = expected > 1e-280
    np.testing.assert_allclose(found[is_normal], expected[is_normal], rtol=1e-12)
    np.testing.assert_allclose(in_float32, expected, rtol=2e-4, atol=1e-12)
    assert ends[0] == 0
    assert np.isnan(ends[1])


@pytest.mark.parametrize("n_degrees", [1, 2, 3])
def test_derivatives_are_those_of_the_density_and_finite_at_zero(n_degrees):
    with jax.enable_x64(True):
        slope = jax.grad(lambda x: survival(x, n_degrees))
        np.testing.assert_allclose(-slope(1.5), scipy.stats.chi2.pdf(1.5, n_degrees), rtol=1e-12)
        assert np.isfinite(slope(0.0))
