"""The E-step by vectors against the one by matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgmm.em.expectation import Data, e_step, natural_parameters
from jaxgmm.em.statistics import features
from jaxgmm.em.vectors import e_steps
from jaxgmm.mixture import Mixture

N_DATA_SETS, N_RUNS = 3, 5

# Called as they are, they would compile again each time.
by_matrices = jax.jit(e_step, static_argnames=("n_features", "diagonal"))
by_vectors = jax.jit(e_steps, static_argnames=("n_features", "diagonal"))
parameters_of = jax.jit(jax.vmap(lambda mixture: natural_parameters(mixture)[0], out_axes=-1))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("n_features", "diagonal"), [(1, False), (2, False), (3, False), (2, True), (4, True)])
@pytest.mark.parametrize(("n_components", "n_samples"), [(1, 16), (2, 112), (8, 1024)])
def test_agrees_with_matrix_products(
    dtype: str, n_features: int, diagonal: bool, n_components: int, n_samples: int
) -> None:
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        z = jnp.asarray(rng.normal(size=(N_DATA_SETS, n_features, n_samples)))
        weights = jnp.asarray(rng.integers(0, 3, size=(N_DATA_SETS, n_samples)).astype(float))
        data = Data(jax.vmap(lambda z: features(z, diagonal=diagonal))(z), weights)
        shape = (N_RUNS, n_components, n_features)
        root = 0.3 * rng.normal(size=(*shape, n_features))
        covariances = np.full(shape, 0.5) if diagonal else root @ np.swapaxes(root, -1, -2) + 0.3 * np.eye(n_features)
        mixtures = Mixture(
            jnp.asarray(rng.dirichlet(np.ones(n_components), size=N_RUNS)),
            jnp.asarray(rng.normal(size=shape)),
            jnp.asarray(covariances),
        )
        natural = parameters_of(mixtures)
        rows = jnp.asarray([2, 0, 0, 1, 2], jnp.int32)
        wanted, n_wanted = jnp.asarray([3, 0, 4, 1, 2], jnp.int32), jnp.asarray(3, jnp.int32)
        low = jax.tree.map(lambda a: a.astype(dtype), (data, natural))
        statistics, log_likelihood = by_vectors(
            low[0], rows, low[1], wanted, n_wanted, n_features=n_features, diagonal=diagonal
        )
        tolerance = {"float32": 2e-5, "float64": 1e-12}[dtype] * n_samples
        for run in (3, 0, 4):
            own = jax.tree.map(lambda leaf, run=run: leaf[rows[run]], data)
            expected, total = by_matrices(own, natural[..., run], n_features=n_features, diagonal=diagonal)
            for one, other in zip(statistics, expected, strict=True):
                np.testing.assert_allclose(one[..., run], other, rtol=0, atol=tolerance)
            np.testing.assert_allclose(log_likelihood[run], total, rtol=0, atol=tolerance)
        for leaf in (*statistics, log_likelihood):
            assert np.all(np.asarray(leaf)[..., [1, 2]] == 0)
