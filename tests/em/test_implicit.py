"""The linear equations of implicit derivatives, with few parameters and with many."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import at_once

from jaxgmm import Mixture
from jaxgmm.em.implicit import FEW, solve_linearised

# In one dimension a component has three parameters.
SIZES = [2, FEW // 3 + 2]


def equations(n_components: int) -> tuple[np.ndarray, np.ndarray, Mixture]:
    """A matrix with eigenvalues from 1e-4 to 1, a right-hand side, and the same as a mixture."""
    rng = np.random.default_rng(n_components)
    size = 3 * n_components
    vectors = np.linalg.qr(rng.normal(size=(size, size)))[0] + 0.01 * rng.normal(size=(size, size))
    matrix = vectors @ np.diag(np.geomspace(1e-4, 1, size)) @ np.linalg.inv(vectors)
    rhs = rng.normal(size=size)
    return matrix, rhs, as_mixture(rhs)


def as_mixture(vector: np.ndarray) -> Mixture:
    weights, means, variances = np.split(vector, 3)
    return Mixture(jnp.asarray(weights), jnp.asarray(means[:, None]), jnp.asarray(variances[:, None]))


def solved(matrix: np.ndarray, rhs: Mixture) -> np.ndarray:
    def matvec(mixture: Mixture) -> Mixture:
        product = jnp.asarray(matrix) @ jnp.concatenate([leaf.ravel() for leaf in mixture.arrays])
        weights, means, variances = jnp.split(product, 3)
        return Mixture(weights, means[:, None], variances[:, None])

    found = at_once(lambda rhs: solve_linearised(matvec, rhs))(rhs)
    return np.concatenate([np.ravel(leaf) for leaf in found.arrays])


@pytest.mark.parametrize("n_components", SIZES)
def test_solution_is_numpys(n_components: int) -> None:
    matrix, rhs, mixture = equations(n_components)
    expected = np.linalg.solve(matrix, rhs)
    np.testing.assert_allclose(solved(matrix, mixture), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("n_components", SIZES)
def test_a_singular_matrix_gives_no_number_unless_nothing_is_asked(n_components: int) -> None:
    _, rhs, mixture = equations(n_components)
    nothing = jax.tree.map(jnp.zeros_like, mixture)
    singular = np.zeros((len(rhs), len(rhs)))
    assert not np.any(np.isfinite(solved(singular, mixture)))
    np.testing.assert_array_equal(solved(singular, nothing), np.zeros(len(rhs)))
