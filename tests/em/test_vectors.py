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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("n_features", "diagonal"), [(1, False), (2, False), (3, False), (2, True), (4, True)])
@pytest.mark.parametrize(("n_components", "n_samples"), [(1, 16), (1, 1024), (2, 112), (8, 16), (8, 1024)])
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
        natural = jax.vmap(lambda m: natural_parameters(m)[0], out_axes=-1)(mixtures)
        rows = jnp.asarray([2, 0, 0, 1, 2], jnp.int32)
        wanted, n_wanted = jnp.asarray([3, 0, 4, 1, 2], jnp.int32), jnp.asarray(3, jnp.int32)
        low = jax.tree.map(lambda a: a.astype(dtype), (data, natural))

        @jax.jit
        def found(data: Data, natural: jax.Array, *which: jax.Array) -> tuple:
            rows, wanted, n_wanted = which
            return e_steps(data, rows, natural, wanted, n_wanted, n_features, diagonal=diagonal)

        statistics, log_likelihood = found(*low, rows, wanted, n_wanted)
        tolerance = {"float32": 2e-5, "float64": 1e-12}[dtype] * n_samples
        for run in (3, 0, 4):
            own = jax.tree.map(lambda leaf, run=run: leaf[rows[run]], data)
            expected, total = e_step(own, natural[..., run], n_features, diagonal=diagonal)
            for one, other in zip(statistics, expected, strict=True):
                np.testing.assert_allclose(one[..., run], other, rtol=0, atol=tolerance)
            np.testing.assert_allclose(log_likelihood[run], total, rtol=0, atol=tolerance)
        for leaf in (*statistics, log_likelihood):
            assert np.all(np.asarray(leaf)[..., [1, 2]] == 0)
