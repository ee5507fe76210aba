"""The E-step by vectors against the one by matrices."""

from typing import Any

import jax
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
features_of = jax.jit(lambda z, diagonal: jax.vmap(lambda z: features(z, diagonal=diagonal))(z), static_argnums=1)


# Loops are written for each number of features, and for each type.
@pytest.mark.parametrize(
    ("n_features", "diagonal", "n_components", "n_samples", "dtypes"),
    [
        (1, False, 1, 16, ["float64"]),
        (2, False, 8, 1024, ["float64", "float32"]),
        (3, False, 2, 112, ["float64", "float32"]),
        (2, True, 1, 112, ["float64"]),
        (4, True, 8, 1024, ["float64", "float32"]),
    ],
)
def test_agrees_with_matrix_products(
    n_features: int, diagonal: bool, n_components: int, n_samples: int, dtypes: list[str]
) -> None:
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        z = rng.normal(size=(N_DATA_SETS, n_features, n_samples))
        weights = rng.integers(0, 3, size=(N_DATA_SETS, n_samples)).astype(float)
        data = Data(np.asarray(features_of(z, diagonal)), weights)
        shape = (N_RUNS, n_components, n_features)
        root = 0.3 * rng.normal(size=(*shape, n_features))
        covariances = np.full(shape, 0.5) if diagonal else root @ np.swapaxes(root, -1, -2) + 0.3 * np.eye(n_features)
        mixtures = Mixture(rng.dirichlet(np.ones(n_components), size=N_RUNS), rng.normal(size=shape), covariances)
        natural = np.asarray(parameters_of(mixtures))
        rows = np.array([2, 0, 0, 1, 2], np.int32)
        wanted, n_wanted = np.array([3, 0, 4, 1, 2], np.int32), np.int32(3)
        form = {"n_features": n_features, "diagonal": diagonal}
        found = [by_vectors(*_cast((data, rows, natural), dtype), wanted, n_wanted, **form) for dtype in dtypes]
        for run in (3, 0, 4):
            own = jax.tree.map(lambda leaf, run=run: leaf[rows[run]], data)
            expected, total = by_matrices(own, natural[..., run], **form)
            for (statistics, log_likelihood), dtype in zip(found, dtypes, strict=True):
                tolerance = {"float32": 2e-5, "float64": 1e-12}[dtype] * n_samples
                for one, other in zip(statistics, expected, strict=True):
                    np.testing.assert_allclose(np.asarray(one)[..., run], other, rtol=0, atol=tolerance)
                np.testing.assert_allclose(np.asarray(log_likelihood)[run], total, rtol=0, atol=tolerance)
        for statistics, log_likelihood in found:
            for leaf in (*statistics, log_likelihood):
                assert np.all(np.asarray(leaf)[..., [1, 2]] == 0)


def _cast(tree: Any, dtype: str) -> Any:
    return jax.tree.map(lambda a: a.astype(dtype) if a.dtype == np.float64 else a, tree)
