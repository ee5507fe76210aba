"""Standardisation keeps densities, and brings mixtures back."""

import jax.numpy as jnp
import numpy as np
import pytest
import reference
from compilation import at_once

from jaxgmm.density import log_prob
from jaxgmm.driver import standardize as module
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.mixture import Mixture

pytestmark = pytest.mark.usefixtures("float64")
standardize = at_once(module.standardize, static_argnames=("coordinates", "is_absolute"))
to_standard, to_data_units = at_once(module.to_standard), at_once(module.to_data_units)


def table(seed: int = 0, n_features: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(80, n_features)) @ rng.normal(size=(n_features, n_features)) * 30 + 1e4


def start_for(x: np.ndarray, family: str) -> Mixture:
    twin = reference.random_start(np.random.default_rng(1), x, family, 2)
    diagonal = FAMILIES[family].diagonal
    covariances = np.diagonal(twin.covariances, axis1=1, axis2=2) if diagonal else twin.covariances
    return Mixture(*map(jnp.asarray, (twin.weights, twin.means, covariances)))


@pytest.mark.parametrize("family", FAMILIES)
def test_mixture_comes_back(family: str) -> None:
    x = table()
    units = standardize(jnp.asarray(x.T), jnp.ones(80), FAMILIES[family].coordinates, jnp.asarray(1e-6)).units
    mixture = start_for(x, family)
    back = to_data_units(to_standard(mixture, units), units)
    for leaf, expected in zip(back.arrays, mixture.arrays, strict=True):
        np.testing.assert_allclose(leaf, expected, rtol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_density_changes_by_the_scale_alone(family: str) -> None:
    x = table()
    found = standardize(jnp.asarray(x.T), jnp.ones(80), FAMILIES[family].coordinates, jnp.asarray(1e-6))
    z, units = found.z, found.units
    mixture = start_for(x, family)
    standardized = log_prob(to_standard(mixture, units), z.T)
    np.testing.assert_allclose(standardized - units.log_scale, log_prob(mixture, x), rtol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_ridge_is_a_fraction_of_each_features_variance(family: str) -> None:
    x = table()
    found = standardize(jnp.asarray(x.T), jnp.ones(80), FAMILIES[family].coordinates, jnp.asarray(0.01))
    scale, ridge = np.asarray(found.units.scale), found.ridge
    in_data_units = np.diag(scale**2 * ridge) if scale.ndim == 1 else scale @ ridge @ scale.T
    expected = np.diag(reference.absolute_ridge(x, 0.01, family))
    np.testing.assert_allclose(in_data_units, expected, rtol=1e-9, atol=1e-9 * expected.max())
    np.testing.assert_allclose(found.ridge_in_data_units, np.diagonal(expected), rtol=1e-9)


def test_affine_map_whitens() -> None:
    found = standardize(jnp.asarray(table().T), jnp.ones(80), FAMILIES["full"].coordinates, jnp.asarray(0.0))
    np.testing.assert_allclose(np.cov(found.z, bias=True), np.eye(3), atol=1e-10)
    np.testing.assert_allclose(np.mean(found.z, axis=1), 0, atol=1e-10)
    assert found.varies


@pytest.mark.parametrize("scale", [1e-30, 1e30, 1e-150, 1e150])
def test_units_do_not_matter(scale: float) -> None:
    x = table()
    expected = standardize(jnp.asarray(x.T), jnp.ones(80), FAMILIES["full"].coordinates, jnp.asarray(1e-6))
    found = standardize(jnp.asarray(scale * x.T), jnp.ones(80), FAMILIES["full"].coordinates, jnp.asarray(1e-6))
    assert found.varies
    np.testing.assert_allclose(found.z, expected.z, atol=1e-8)


@pytest.mark.parametrize(
    ("family", "reg_covar", "expected"),
    [("full", 0.0, False), ("full", 1e-6, True), ("tied", 0.0, False), ("diag", 0.0, True), ("spherical", 0.0, True)],
)
def test_collinear_features_need_a_ridge_where_covariances_are_free(
    family: str, reg_covar: float, expected: bool
) -> None:
    x = table(n_features=2)
    x = np.column_stack([x, x[:, 0] - 2 * x[:, 1]])
    found = standardize(jnp.asarray(x.T), jnp.ones(80), FAMILIES[family].coordinates, jnp.asarray(reg_covar))
    assert bool(found.varies) is expected
    assert np.all(np.isfinite(found.z))


@pytest.mark.parametrize(
    ("family", "expected"), [("full", False), ("tied", False), ("diag", False), ("spherical", True)]
)
@pytest.mark.parametrize("constant", [0.0, 0.1, 1e6 / 3, -1e-20])
def test_constant_feature_has_no_variance_of_its_own(family: str, expected: bool, constant: float) -> None:
    x = table()
    x[:, 1] = constant
    found = standardize(jnp.asarray(x.T), jnp.ones(80), FAMILIES[family].coordinates, jnp.asarray(1e-6))
    assert bool(found.varies) is expected
    assert np.all(np.isfinite(found.z))


@pytest.mark.parametrize("family", FAMILIES)
def test_sample_of_weight_zero_is_not_there(family: str) -> None:
    x = table()
    weights = jnp.asarray(np.arange(80) < 60, jnp.float64)
    outlying = x.copy()
    outlying[60:] = 1e9
    found = standardize(jnp.asarray(outlying.T), weights, FAMILIES[family].coordinates, jnp.asarray(1e-6))
    expected = standardize(jnp.asarray(x[:60].T), jnp.ones(60), FAMILIES[family].coordinates, jnp.asarray(1e-6))
    np.testing.assert_allclose(found.z[:, :60], expected.z, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.ridge, expected.ridge, rtol=1e-9, atol=1e-18)
    np.testing.assert_array_equal(found.z[:, 60:], 0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scale", [1e-150, 1.0, 1e150])
def test_absolute_ridge_is_in_squared_data_units(family: str, scale: float) -> None:
    x, reg_covar = scale * (table() - 1e4), 0.01 * scale**2
    coordinates = FAMILIES[family].coordinates
    found = standardize(jnp.asarray(x.T), jnp.ones(80), coordinates, jnp.asarray(reg_covar), is_absolute=True)
    z, ridge, units, varies = found.z, found.ridge, found.units, found.varies
    assert varies
    assert np.all(np.abs(z) < 10)
    of_unit = np.asarray(units.scale) / scale
    in_data_units = np.diag(of_unit**2 * ridge) if of_unit.ndim == 1 else of_unit @ ridge @ of_unit.T
    np.testing.assert_allclose(in_data_units, 0.01 * np.eye(3), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("reg_covar", [0.0, 1e-6, 4.0])
def test_absolute_ridge_gives_constant_features_a_variance(family: str, reg_covar: float) -> None:
    x = table()
    x[:, 1] = 0.1
    coordinates = FAMILIES[family].coordinates
    found = standardize(jnp.asarray(x.T), jnp.ones(80), coordinates, jnp.asarray(reg_covar), is_absolute=True)
    z, ridge, units, varies = found.z, found.ridge, found.units, found.varies
    assert varies == (reg_covar > 0 or coordinates.isotropic)
    assert np.all(np.isfinite(z))
    assert np.all(np.isfinite(ridge))
    if varies and coordinates.closed_under == "scale per feature":
        np.testing.assert_allclose(units.scale[1], np.sqrt(reg_covar), rtol=1e-12)
        np.testing.assert_allclose(z[1], 0.0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("value", [-9999.0, 1e20, -1e36])
def test_sentinels_set_neither_location_nor_scale(family: str, value: float) -> None:
    """Four of 80 rows; and in one more, a sentinel of another kind."""
    x, coordinates = table() - 1e4, FAMILIES[family].coordinates
    spoilt = np.concatenate([x, np.full((4, 3), value), [[0.0, 2 * value, 0.0]]])
    expected = standardize(jnp.asarray(x.T), jnp.ones(80), coordinates, jnp.asarray(1e-6))
    found = standardize(jnp.asarray(spoilt.T), jnp.ones(85), coordinates, jnp.asarray(1e-6))
    assert found.varies
    np.testing.assert_allclose(found.units.shift, expected.units.shift, atol=0.2 * x.std())
    np.testing.assert_allclose(found.ridge_in_data_units, expected.ridge_in_data_units, rtol=0.1)
    assert np.all(np.abs(found.z[:, :80]) < 10)
    back = np.asarray(found.units.scale)
    back = back[:, None] * found.z if back.ndim == 1 else back @ found.z
    np.testing.assert_allclose(back[:, :80] + found.units.shift[:, None], x.T, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n_other", [1, 3, 30])
def test_a_feature_of_few_values_keeps_a_scale(family: str, n_other: int) -> None:
    """Nearly all of its values are equal: without the others it would not vary."""
    x = table()
    x[:, 1] = 7.0
    x[:n_other, 1] += np.linspace(1, 2, n_other)
    found = standardize(jnp.asarray(x.T), jnp.ones(80), FAMILIES[family].coordinates, jnp.asarray(1e-6))
    assert found.varies
    assert np.all(found.ridge_in_data_units > 0)
    assert np.all(np.isfinite(found.z))


@pytest.mark.parametrize("closed_under", ["one scale", "scale per feature"])
def test_ridge_and_scale_are_matrices_where_components_are_not_axis_aligned(closed_under: str) -> None:
    x = table()
    family = FAMILIES["full"]._replace(closed_under=closed_under)
    found = standardize(jnp.asarray(x.T), jnp.ones(80), family.coordinates, jnp.asarray(0.01))
    scale = np.asarray(found.units.scale)
    expected = np.diag(reference.absolute_ridge(x, 0.01, "full"))
    np.testing.assert_allclose(scale @ found.ridge @ scale.T, expected, rtol=1e-9, atol=1e-9 * expected.max())
    mixture = start_for(x, "full")
    back = to_data_units(to_standard(mixture, found.units), found.units)
    for leaf, own in zip(back.arrays, mixture.arrays, strict=True):
        np.testing.assert_allclose(leaf, own, rtol=1e-9)
