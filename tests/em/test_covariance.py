"""Families against the twin's M-step from centred samples, and against each other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from compilation import at_once

from jaxgmm.em.covariance import FAMILIES, Family, one_of
from jaxgmm.em.expectation import Data
from jaxgmm.em.initialization import Task, from_responsibilities
from jaxgmm.em.statistics import features
from jaxgmm.mixture import Mixture


@functools.partial(at_once, static_argnames=("family",))
def m_step(x: jax.Array, responsibilities: jax.Array, weights: jax.Array, family: str, ridge: jax.Array) -> Mixture:
    return by_row(x, responsibilities, weights, FAMILIES[family], ridge)


def by_row(x: jax.Array, responsibilities: jax.Array, weights: jax.Array, row: Family, ridge: jax.Array) -> Mixture:
    n_features = x.shape[1]
    ridge = jnp.full(n_features, ridge) if row.diagonal else ridge * jnp.eye(n_features)
    data = Data(features(x.T, diagonal=row.diagonal), weights)
    task = Task(x.T, x.T, data, jnp.ones(responsibilities.shape[1], bool), row, ridge)
    return from_responsibilities(responsibilities.T, task)


def as_matrices(covariances: np.ndarray, n_features: int) -> np.ndarray:
    covariances = np.asarray(covariances)
    return covariances[..., None] * np.eye(n_features) if covariances.ndim == 2 else covariances


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n_features", [1, 3])
def test_m_step_is_the_maximum_likelihood_estimate(family: str, n_features: int) -> None:
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(50, n_features)), rng.uniform(0, 2, 50)
    responsibilities = rng.dirichlet(np.ones(3), 50)
    expected = reference.m_step(x, responsibilities, family, weights, 0.01)
    mixture = m_step(x, responsibilities, weights, family, 0.01)
    np.testing.assert_allclose(mixture.weights, expected.weights, rtol=1e-12)
    np.testing.assert_allclose(mixture.means, expected.means, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(
        as_matrices(mixture.covariances, n_features), expected.covariances, rtol=1e-10, atol=1e-13
    )


@pytest.mark.parametrize(
    ("families", "n_components", "n_features"),
    [(("full", "tied"), 1, 3), (("diag", "spherical"), 3, 1), (("full", "diag"), 3, 1), (("full", "spherical"), 1, 1)],
)
def test_families_agree_where_they_must(families: tuple[str, str], n_components: int, n_features: int) -> None:
    rng = np.random.default_rng(1)
    x, responsibilities = rng.normal(size=(50, n_features)), rng.dirichlet(np.ones(n_components), 50)
    one, other = (m_step(x, responsibilities, np.ones(50), family, 0.0) for family in families)
    np.testing.assert_allclose(
        as_matrices(one.covariances, n_features), as_matrices(other.covariances, n_features), rtol=1e-12
    )


def test_a_family_is_chosen_by_its_number() -> None:
    rng = np.random.default_rng(0)
    x, responsibilities = rng.normal(size=(50, 3)), rng.dirichlet(np.ones(3), 50)

    @at_once
    def at(index: jax.Array) -> jax.Array:
        family = one_of(("full", "tied"), index)
        return by_row(jnp.asarray(x), jnp.asarray(responsibilities), jnp.ones(50), family, jnp.asarray(0.1)).covariances

    for index, name in enumerate(("full", "tied")):
        expected = m_step(x, responsibilities, np.ones(50), name, 0.1).covariances
        np.testing.assert_allclose(at(index), expected, rtol=1e-12)


def test_covariances_have_as_many_parameters_as_can_be_chosen() -> None:
    k, d = 3, 4
    free = {"full": k * d * (d + 1) // 2, "tied": d * (d + 1) // 2, "diag": k * d, "spherical": k}
    assert {name: family.n_parameters(k, d) for name, family in FAMILIES.items()} == free


def test_covariances_of_a_start_become_those_of_the_family() -> None:
    weights = jnp.array([0.25, 0.75, 0.0])
    matrices = jnp.array([[[2.0, 0.5], [0.5, 1.0]], [[6.0, 0.1], [0.1, 3.0]], [[9.0, 0.0], [0.0, 9.0]]])
    tied = FAMILIES["tied"].of_start(weights, matrices)
    np.testing.assert_allclose(tied[0], 0.25 * matrices[0] + 0.75 * matrices[1])
    np.testing.assert_array_equal(tied[1], tied[0])
    # An absent component has no say, and keeps what it has.
    np.testing.assert_array_equal(tied[2], matrices[2])
    np.testing.assert_array_equal(FAMILIES["tied"].of_start(weights, tied), tied)
    variances = jnp.array([[1.0, 3.0], [0.1, 0.1], [1.0, 1.0]])
    spherical = FAMILIES["spherical"].of_start(weights, variances)
    np.testing.assert_array_equal(spherical, [[2.0, 2.0], [0.1, 0.1], [1.0, 1.0]])
    for name, values in (("full", matrices), ("diag", variances)):
        np.testing.assert_array_equal(FAMILIES[name].of_start(weights, values), values)
    # Of further runs, in axes that follow; and of one family among several.
    several = one_of(("full", "tied"), jnp.array([0, 1]))
    both = several.of_start(jnp.stack([weights] * 2, axis=-1), jnp.stack([matrices] * 2, axis=-1))
    np.testing.assert_array_equal(both[..., 0], matrices)
    np.testing.assert_allclose(both[..., 1], tied)
