"""The covariance family of mixtures that say it only by their covariances."""

from dataclasses import replace
from typing import Any

import numpy as np

from jaxgmm.em.covariance import FAMILIES, n_parameters
from jaxgmm.mixture import Mixture, full_covariances

# From the one with the fewest parameters on; matrices of one feature are variances, so they tell the last two only.
_NARROWEST_FIRST = ("spherical", "diag", "tied", "full")


def families_of(mixture: Mixture, counted: Any = None) -> np.ndarray:
    """The narrowest family that the covariances of each mixture belong to.

    A choice among families holds matrices also where a family of variances was chosen.

    Args:
        mixture: `(B, K, …)`, NumPy arrays; components of weight 0 are left out.
        counted: `(B,)`, the number of free parameters of each fit, if it is known. It tells families apart whose
            members the covariances are by chance.

    Returns:
        `(B,)`, names.
    """
    is_member = _membership(mixture)
    candidates = [name for name in _NARROWEST_FIRST if name in is_member]
    found = np.full(len(mixture.weights), "", dtype="<U9")
    if counted is not None:
        n_present = np.sum(mixture.weights != 0, axis=1)
        for name in candidates:
            is_counted = counted == n_parameters(n_present, mixture.n_features, name)
            found[(found == "") & is_member[name] & is_counted] = name
    for name in candidates:
        found[(found == "") & is_member[name]] = name
    return found


def of_family(mixture: Mixture, family: str) -> Mixture:
    """Mixtures `(B, K, …)` with variances or matrices, as the family has them.

    Raises:
        ValueError: it has variances, and the matrices have entries off the diagonal.
    """
    if not FAMILIES[family].diagonal:
        return replace(mixture, covariances=full_covariances(mixture))
    if mixture.is_diagonal:
        return mixture
    if not np.all(_has_variances_only(mixture)):
        raise ValueError(f"mixture has covariances between features, so it is not of covariance_type={family!r}.")
    return replace(mixture, covariances=np.diagonal(mixture.covariances, axis1=-2, axis2=-1))


def _membership(mixture: Mixture) -> dict[str, np.ndarray]:
    """`(B,)` for each family that the layout allows, whether the covariances are of that family."""
    is_present, covariances = mixture.weights != 0, mixture.covariances
    if mixture.is_diagonal:
        return _of_variances(covariances, is_present)
    first = np.take_along_axis(covariances, np.argmax(is_present, axis=1)[:, None, None, None], axis=1)
    is_first = np.all(covariances == first, axis=(2, 3))
    found = {"tied": np.all(is_first | ~is_present, axis=1), "full": np.ones(len(covariances), bool)}
    if mixture.n_features == 1:
        return found
    are_variances = _has_variances_only(mixture)
    of_variances = _of_variances(np.diagonal(covariances, axis1=2, axis2=3), is_present)
    return found | {name: are_variances & is_member for name, is_member in of_variances.items()}


def _of_variances(variances: np.ndarray, is_present: np.ndarray) -> dict[str, np.ndarray]:
    is_round = np.all(variances == variances[..., :1], axis=2)
    return {"spherical": np.all(is_round | ~is_present, axis=1), "diag": np.ones(len(variances), bool)}


def _has_variances_only(mixture: Mixture) -> np.ndarray:
    """`(B,)`, whether the matrices of all present components are diagonal."""
    is_between = ~np.eye(mixture.n_features, dtype=bool)
    is_diagonal = ~np.any((mixture.covariances != 0) & is_between, axis=(2, 3))
    return np.all(is_diagonal | (mixture.weights == 0), axis=1)
