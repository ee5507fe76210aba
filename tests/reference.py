"""A slow and obvious twin of EM in float64 NumPy, which shares no code with jaxgmm.

Densities by the textbook's formula and covariances from centred samples, one component after another.
"""

from typing import NamedTuple

import numpy as np


class TwinMixture(NamedTuple):
    """Weights `(K,)`, means `(K, D)` and covariance matrices `(K, D, D)`, whatever the family."""

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray


class TwinFit(NamedTuple):
    """Parameters after the last iteration, and the log-likelihood of the start and after every iteration."""

    mixture: TwinMixture
    trace: np.ndarray

    @property
    def log_likelihood(self) -> float:
        """Total nats at the parameters."""
        return self.trace[-1]


def em(x, start, family, n_iter, *, sample_weight=None, ridge=0.0) -> TwinFit:
    """Exactly `n_iter` iterations of E-step and M-step from `start`.

    `ridge` is in squared data units: one number, or one for each feature.
    """
    x = np.asarray(x, dtype=np.float64)
    sample_weight = np.ones(len(x)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    mixture = TwinMixture(*(np.asarray(leaf, dtype=np.float64) for leaf in getattr(start, "arrays", start)))
    responsibilities, log_likelihood = e_step(x, mixture, sample_weight)
    trace = [log_likelihood]
    for _ in range(n_iter):
        mixture = m_step(x, responsibilities, family, sample_weight, ridge)
        responsibilities, log_likelihood = e_step(x, mixture, sample_weight)
        trace.append(log_likelihood)
    return TwinFit(mixture, np.array(trace))


def e_step(x, mixture, sample_weight) -> tuple[np.ndarray, float]:
    """Responsibilities `(N, K)` and the total log-likelihood."""
    log_joint = np.stack([np.log(w) + log_normal(x, mean, cov) for w, mean, cov in zip(*mixture, strict=True)], axis=1)
    log_density = np.logaddexp.reduce(log_joint, axis=1)
    return np.exp(log_joint - log_density[:, None]), float(np.sum(sample_weight * log_density))


def log_normal(x, mean, covariance) -> np.ndarray:
    """log N(x | mean, covariance).

    Not by `scipy.stats.multivariate_normal`: its eigenvalues lose digits where features differ in size, which a linear
    solve does not.
    """
    centred = x - mean
    distances = np.sum(centred * np.linalg.solve(covariance, centred.T).T, axis=1)
    return -0.5 * (len(mean) * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1] + distances)


def m_step(x, responsibilities, family, sample_weight, ridge) -> TwinMixture:
    """The mixture of the family that maximises the expected log-likelihood, with the ridge added."""
    n_features = x.shape[1]
    counts, means, scatters = [], [], []
    for responsibility in responsibilities.T:
        r = responsibility * sample_weight
        mean = r @ x / r.sum()
        centred = x - mean
        counts.append(r.sum())
        means.append(mean)
        scatters.append((r[:, None] * centred).T @ centred)
    if family == "full":
        covariances = [scatter / count for scatter, count in zip(scatters, counts, strict=True)]
    elif family == "tied":
        covariances = [sum(scatters) / sum(counts)] * len(counts)
    elif family == "diag":
        covariances = [np.diag(np.diag(scatter)) / count for scatter, count in zip(scatters, counts, strict=True)]
    elif family == "spherical":
        covariances = [
            np.trace(scatter) / (n_features * count) * np.eye(n_features)
            for scatter, count in zip(scatters, counts, strict=True)
        ]
    else:
        raise ValueError(f"unknown family {family!r}")
    ridges = np.diag(np.broadcast_to(ridge, (n_features,)))
    return TwinMixture(np.array(counts) / sum(counts), np.array(means), np.array(covariances) + ridges)


def absolute_ridge(x, reg_covar, family, sample_weight=None) -> np.ndarray:
    """The ridge in squared data units that jaxgmm's `reg_covar`, a fraction of the bulk's variance, stands for."""
    weights = np.ones(len(x)) if sample_weight is None else sample_weight
    variances = np.array([variance_of_bulk(feature, weights) for feature in x.T])
    return reg_covar * (np.full_like(variances, variances.mean()) if family == "spherical" else variances)


def variance_of_bulk(values, weights) -> float:
    """Variance without values more than four standard deviations from the mean, left out until there are none."""
    kept = weights > 0
    while True:
        mean = np.average(values[kept], weights=weights[kept])
        variance = np.average((values[kept] - mean) ** 2, weights=weights[kept])
        nearer = kept & (np.abs(values - mean) <= 4 * np.sqrt(variance))
        if np.array_equal(nearer, kept):
            return variance
        kept = nearer


def random_start(rng, x, family, n_components) -> TwinMixture:
    """Weights, means and covariances drawn at random, of the family's form and the data's size."""
    n_features = x.shape[1]
    centre, size = x.mean(axis=0), x.std(axis=0)
    means = centre + size * rng.standard_normal((n_components, n_features))
    factors = size[:, None] * rng.standard_normal((n_components, n_features, 2 * n_features)) / np.sqrt(n_features)
    covariances = factors @ np.swapaxes(factors, 1, 2)
    if family == "tied":
        covariances = np.broadcast_to(covariances[0], covariances.shape)
    elif family == "diag":
        covariances = covariances * np.eye(n_features)
    elif family == "spherical":
        covariances = np.trace(covariances, axis1=1, axis2=2)[:, None, None] / n_features * np.eye(n_features)
    return TwinMixture(rng.dirichlet(np.full(n_components, 5.0)), means, covariances)
