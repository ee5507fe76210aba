"""The family of a mixture by its covariances."""

import numpy as np
import pytest

import jaxgmm
from jaxgmm.em.covariance import FAMILIES, n_parameters
from jaxgmm.families import families_of, of_family
from jaxgmm.mixture import Mixture, full_covariances

X = np.random.default_rng(0).normal(size=(2, 200, 3)) + 6 * np.arange(2).repeat(100)[:, None]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("as_matrices", [False, True])
def test_a_fit_is_of_its_family(family: str, as_matrices: bool) -> None:
    fits = jaxgmm.fit(X, 2, covariance_type=family, init=np.arange(2).repeat(100))
    mixture = fits.mixture
    if as_matrices:
        mixture = Mixture(mixture.weights, mixture.means, full_covariances(mixture))
    assert families_of(mixture).tolist() == [family] * 2
    assert families_of(mixture, fits.n_parameters).tolist() == [family] * 2
    np.testing.assert_array_equal(of_family(mixture, family).covariances, fits.mixture.covariances)
    np.testing.assert_array_equal(of_family(mixture, "full").covariances, full_covariances(mixture))


def test_numbers_of_parameters_tell_families_apart_whose_covariances_are_alike() -> None:
    alike = Mixture(np.full((4, 2), 0.5), np.zeros((4, 2, 3)), np.tile(np.eye(3), (4, 2, 1, 1)))
    assert families_of(alike).tolist() == ["spherical"] * 4
    counted = np.array([n_parameters(2, 3, family) for family in ("full", "tied", "spherical", "full")])
    counted[3] = 999
    assert families_of(alike, counted).tolist()[:3] == ["full", "diag", "spherical"]
    assert families_of(alike, counted)[3] == "spherical"


def test_absent_components_have_no_say() -> None:
    covariances = np.array([[[2.0, 0.5], [0.5, 1.0]], [[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.5], [0.5, 1.0]]])
    mixture = Mixture(np.array([[0.4, 0.0, 0.6]]), np.zeros((1, 3, 2)), covariances[None])
    assert families_of(mixture).tolist() == ["tied"]
    only = Mixture(np.array([[0.0, 1.0, 0.0]]), np.zeros((1, 3, 2)), covariances[None])
    assert families_of(only).tolist() == ["spherical"]


def test_matrices_of_one_feature_are_not_taken_for_variances() -> None:
    mixture = Mixture(np.full((2, 2), 0.5), np.zeros((2, 2, 1)), np.array([1.0, 2.0, 3.0, 3.0]).reshape(2, 2, 1, 1))
    assert families_of(mixture).tolist() == ["full", "tied"]
    np.testing.assert_array_equal(of_family(mixture, "diag").covariances, mixture.covariances[..., 0])


def test_covariances_between_features_are_no_variances() -> None:
    mixture = Mixture(np.ones((1, 1)), np.zeros((1, 1, 2)), np.array([[[[1.0, 0.1], [0.1, 1.0]]]]))
    with pytest.raises(ValueError, match="not of covariance_type='spherical'"):
        of_family(mixture, "spherical")


@pytest.mark.parametrize("family", ["tied", "spherical"])
@pytest.mark.parametrize("max_iter", [2, 1000])
def test_a_fit_from_outside_its_family_is_of_it(family: str, max_iter: int) -> None:
    """Accelerated steps go along the last step, which begins at the start."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 200, 2)) + 3 * rng.integers(0, 3, (3, 200, 1))
    spread = rng.uniform(0.2, 3, size=(3, 3, 2))
    start = Mixture(
        np.full((3, 3), 1 / 3), x[:, :3], spread if family == "spherical" else spread[..., None] * np.eye(2)
    )
    found = jaxgmm.fit(x, 3, covariance_type=family, init=start, max_iter=max_iter, tol=1e-3).mixture
    own = found.covariances
    np.testing.assert_array_equal(own, np.broadcast_to(own[:, :1] if family == "tied" else own[..., :1], own.shape))


@pytest.mark.parametrize("family", ["tied", "spherical"])
def test_a_fit_from_a_split_component_is_of_its_family(family: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 200, 2)) * [1, 0.4] + 3 * rng.integers(0, 3, (8, 200, 1))
    found = jaxgmm.sweep(x, [2, 3], covariance_type=family, n_init=1, split=True, tol=1e-3).best.mixture
    own, is_present = found.covariances, found.weights > 0
    expected = np.broadcast_to(own[:, :1] if family == "tied" else own[..., :1], own.shape)
    np.testing.assert_array_equal(own[is_present], expected[is_present])
