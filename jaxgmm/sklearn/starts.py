"""Starts, drawn as in scikit-learn."""

import numpy as np
from sklearn.cluster import KMeans, kmeans_plusplus

from jaxgmm.mixture import Mixture
from jaxgmm.sklearn.parameters import for_each

# Share of a feature's variance that raw second moments may lose by rounding.
_LOST = 1e-6


def responsibilities_of(
    x: np.ndarray,
    weights: np.ndarray | None,
    n_components: int,
    init_params: str,
    random_state: np.random.RandomState,
) -> np.ndarray:
    """Initial responsibilities `(N, K)` drawn as in scikit-learn, multiplied by the samples' weights."""
    n_samples = len(x)
    if init_params == "random":
        rows = random_state.uniform(size=(n_samples, n_components)).astype(x.dtype)
        rows /= np.sum(rows, axis=1, keepdims=True)
        return rows if weights is None else rows * weights[:, None]
    rows = np.zeros((n_samples, n_components), x.dtype)
    if init_params == "kmeans":
        clusters = KMeans(n_components, random_state=random_state).fit(x, sample_weight=weights)
        rows[np.arange(n_samples), clusters.labels_] = 1 if weights is None else weights
        return rows
    if init_params == "random_from_data":
        share = None if weights is None else weights / np.sum(weights)
        seeds = random_state.choice(n_samples, size=n_components, replace=False, p=share)
    else:
        _, seeds = kmeans_plusplus(x, n_components, sample_weight=weights, random_state=random_state)
    # A seed begins as a component of one sample, even if other samples are equal to it.
    rows[seeds, np.arange(n_components)] = 1
    return rows


def shift_of(x: np.ndarray) -> np.ndarray:
    """`(D,)`, the means of features whose variance would be lost in sums of squares, as that of times; else 0.

    There scikit-learn draws starts at random places, and finds no mixture.
    """
    means, variances = np.mean(x, axis=0), np.var(x, axis=0)
    is_lost = (variances > 0) & (np.finfo(np.float64).eps * means**2 > _LOST * variances)
    return np.where(is_lost, means, 0.0)


def moments_of(
    x: np.ndarray, responsibilities: np.ndarray, weights: np.ndarray | None, covariance_type: str, ridge: float
) -> Mixture:
    """Weights, means and covariances from responsibilities, as in scikit-learn.

    Weights need not sum to 1. The tied covariance is the scatter of all samples about the means, even if only seeds
    have responsibilities.
    """
    x, responsibilities = x.astype(np.float64, copy=False), responsibilities.astype(np.float64, copy=False)
    counts = np.sum(responsibilities, axis=0) + 10 * np.finfo(np.float64).eps
    means = responsibilities.T @ x / counts[:, None]
    total = len(x) if weights is None else np.sum(weights)
    if covariance_type == "tied":
        scatter = (x if weights is None else x * weights[:, None]).T @ x - (counts * means.T) @ means
        covariances = for_each(scatter / np.sum(counts) + ridge * np.eye(x.shape[1]), "tied", means.shape)
        return Mixture(counts / total, means, covariances)
    if covariance_type == "full":
        spread = []
        for row, count, mean in zip(responsibilities.T, counts, means, strict=True):
            centred = x[row > 0] - mean
            spread.append((row[row > 0] * centred.T) @ centred / count + ridge * np.eye(x.shape[1]))
        return Mixture(counts / total, means, np.array(spread))
    # Centring on each mean would lose fewer digits, but around a single sample scikit-learn starts from these values.
    variances = responsibilities.T @ x**2 / counts[:, None] - means**2 + ridge
    if covariance_type == "spherical":
        variances = for_each(np.mean(variances, axis=1), "spherical", means.shape)
    return Mixture(counts / total, means, variances)
