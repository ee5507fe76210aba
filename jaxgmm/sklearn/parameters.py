"""The parameters of a fitted estimator as a mixture."""

import numpy as np
import sklearn.mixture
from sklearn.utils.validation import check_is_fitted

from jaxgmm.mixture import Mixture


def from_sklearn(estimator: sklearn.mixture.GaussianMixture) -> Mixture:
    """Converts a fitted estimator to a `jaxgmm.Mixture`.

    Args:
        estimator: a fitted `sklearn.mixture.GaussianMixture`, jaxgmm's or scikit-learn's.

    Returns:
        weights `(K,)`, means `(K, D)` and covariances `(K, D, D)`, or variances `(K, D)` for `"diag"` and
        `"spherical"`; float64.

    Raises:
        ValueError: not such an estimator.
        sklearn.exceptions.NotFittedError: not fitted.
    """
    if not isinstance(estimator, sklearn.mixture.GaussianMixture):
        raise ValueError(f"estimator must be a sklearn.mixture.GaussianMixture; it is a {type(estimator).__name__}.")
    check_is_fitted(estimator)
    weights, means, covariances = (
        np.array(leaf, np.float64) for leaf in (estimator.weights_, estimator.means_, estimator.covariances_)
    )
    return Mixture(weights, means, for_each(covariances, estimator.covariance_type, means.shape))


def for_each(covariances: np.ndarray, covariance_type: str, shape: tuple[int, ...]) -> np.ndarray:
    """Expands covariances that scikit-learn stores once to `(K, D, D)`, or variances `(K, D)`; `shape` is `(K, D)`."""
    if covariance_type == "tied":
        return np.broadcast_to(covariances, (shape[0], *covariances.shape)).copy()
    if covariance_type == "spherical":
        return np.broadcast_to(covariances[:, None], shape).copy()
    return covariances
