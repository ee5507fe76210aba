"""EM in NumPy: the algorithm of jaxgmm, batched, with nothing but matrix products and elementwise arithmetic.

Log-densities are linear in φ(x) = [1, x, vech(x xᵀ)], so the E-step is a product of the components' natural parameters
with φ, and the statistics are a product of the responsibilities with φ. Data are whitened first, without which raw
second moments would cancel. Families: full and tied.
"""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from benchmarks.environment import CORES
from benchmarks.scenarios import Model, Start

try:
    from threadpoolctl import threadpool_limits
except ImportError:
    # The threads of matrix products then get in each other's way: slower, but the answers stand as a reference.
    threadpool_limits = contextlib.nullcontext

# Bytes that a chunk's features and responsibilities fill: more leave the cache, fewer wait for the interpreter.
CHUNK_BYTES = 2**22


class ReferenceFit(NamedTuple):
    """Every run `(B, R)`: parameters, total log-likelihood at them in nats, iterations, and how it ended."""

    start: Start
    log_likelihood: np.ndarray
    n_iter: np.ndarray
    status: np.ndarray


def em(
    x: np.ndarray,
    present: np.ndarray,
    start: Start,
    model: Model,
    *,
    tol: float,
    max_iter: int,
    reg_covar: float,
    dtype: str,
) -> ReferenceFit:
    """EM on data sets `(B, N, D)` from starts `(B, R, K, …)`, in chunks that fit the cache, one thread for each core.

    Samples that are not `present` count nothing. `reg_covar` is a fraction of each feature's variance in the bulk of
    the data set; `tol` is for the mean log-likelihood per sample, and 0 makes exactly `max_iter` iterations.
    """
    n_samples, n_features = x.shape[1:]
    n_rows = 1 + n_features + n_features * (n_features + 1) // 2 + 2 * start.weights.shape[1] * model.n_components
    fitting = CHUNK_BYTES // (np.dtype(dtype).itemsize * n_samples * n_rows)
    size = max(1, min(fitting, -(-len(x) // (2 * CORES))))

    def fit(first: int) -> tuple:
        rows = slice(first, first + size)
        begin = Start(*(leaf[rows] for leaf in start))
        return _chunk(x[rows], present[rows], begin, model.covariance_type, tol, max_iter, reg_covar, dtype)

    # A single chunk leaves the cores to the matrix products.
    with threadpool_limits(CORES if len(x) <= size else 1), ThreadPoolExecutor(CORES) as pool:
        chunks = list(pool.map(fit, range(0, len(x), size)))
    parameters = Start(*map(np.concatenate, zip(*(chunk[0] for chunk in chunks), strict=True)))
    return ReferenceFit(parameters, *map(np.concatenate, zip(*(chunk[1:] for chunk in chunks), strict=True)))


def _chunk(x, present, start, family, tol, max_iter, reg_covar, dtype) -> tuple:
    """All runs of some data sets, together until the last has ended."""
    z, factor, shift, ridge = _whitened(x, present, reg_covar)
    phi = _features(z).astype(dtype)
    weights = present.astype(dtype)[:, None, None]
    totals = present.sum(axis=1)[:, None].astype(np.float64)
    ridge = ridge[:, None, None].astype(dtype)
    current = Start(*(leaf.astype(dtype) for leaf in _to_standard(start, factor, shift)))
    log_likelihood, n_iter = np.full(start.weights.shape[:2], -np.inf), np.zeros(start.weights.shape[:2], int)
    status = np.full(n_iter.shape, "RUNNING", object)
    natural = _natural(current)
    for iteration in range(max_iter + 1):
        sums, new = _e_step(phi, weights, natural)
        running = status == "RUNNING"
        converged = running & (np.abs(new - log_likelihood) < tol * totals) & (tol > 0)
        log_likelihood = np.where(running, new, log_likelihood)
        status[converged] = "CONVERGED"
        proposal = _m_step(sums, z.shape[-2], family, ridge)
        next_natural = _natural(proposal)
        sound = np.all(np.isfinite(next_natural), axis=(-2, -1))
        running &= ~converged
        if iteration == max_iter:
            status[running] = "MAX_ITER"
            break
        status[running & ~sound] = "DEGENERATE"
        running &= sound
        if not running.any():
            break
        current = Start(*(_where(running, a, b) for a, b in zip(proposal, current, strict=True)))
        natural = _where(running, next_natural, natural)
        n_iter += running
    log_likelihood = log_likelihood - totals * np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)[:, None]
    return _to_data(current, factor, shift), log_likelihood, n_iter, status


def _e_step(phi: np.ndarray, weights: np.ndarray, natural: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of responsibilities times φ `(B, R, K, F)`, and log-likelihoods `(B, R)`; starts share one product."""
    n_data_sets, n_init, n_components, n_rows = natural.shape
    joint = natural.reshape(n_data_sets, -1, n_rows) @ phi
    joint = joint.reshape(n_data_sets, n_init, n_components, -1)
    shift = joint.max(axis=2, keepdims=True)
    joint -= shift
    np.exp(joint, out=joint)
    density = joint.sum(axis=2, keepdims=True)
    log_likelihood = np.sum((shift + np.log(density)) * weights, axis=(2, 3), dtype=np.float64)
    joint *= weights / density
    sums = joint.reshape(n_data_sets, n_init * n_components, -1) @ phi.swapaxes(1, 2)
    return sums.reshape(natural.shape), log_likelihood


def _m_step(sums: np.ndarray, n_features: int, family: str, ridge: np.ndarray) -> Start:
    """The mixture that maximises the expected log-likelihood."""
    with np.errstate(invalid="ignore", divide="ignore"):
        moments = sums[..., 1:] / sums[..., :1]
    weights = sums[..., 0] / sums[..., 0].sum(axis=-1, keepdims=True)
    means = moments[..., :n_features]
    rows, columns = np.tril_indices(n_features)
    covariances = np.empty((*means.shape, n_features), sums.dtype)
    products = moments[..., n_features:] - means[..., rows] * means[..., columns]
    covariances[..., rows, columns] = covariances[..., columns, rows] = products
    if family == "tied":
        shared = np.sum(weights[..., None, None] * covariances, axis=2, keepdims=True)
        covariances = np.broadcast_to(shared, covariances.shape)
    return Start(weights, means, covariances + ridge)


def _natural(mixture: Start) -> np.ndarray:
    """θ `(B, R, K, F)` with log w N(x | μ, Σ) = θ · φ(x); not finite where a covariance is not positive definite."""
    n_features = mixture.means.shape[-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        inverse = _inverse_cholesky(mixture.covariances)
        precision = inverse.swapaxes(-1, -2) @ inverse
        linear = (precision @ mixture.means[..., None])[..., 0]
        log_determinant = -2 * np.log(np.diagonal(inverse, axis1=-2, axis2=-1)).sum(axis=-1)
        square = np.sum(linear * mixture.means, axis=-1)
        constant = np.log(mixture.weights) - 0.5 * (n_features * np.log(2 * np.pi) + log_determinant + square)
    rows, columns = np.tril_indices(n_features)
    quadratic = precision[..., rows, columns] * np.where(rows == columns, -0.5, -1.0).astype(precision.dtype)
    return np.concatenate([constant[..., None], linear, quadratic], axis=-1)


def _inverse_cholesky(a: np.ndarray) -> np.ndarray:
    """Inverses of Cholesky factors; NaN where a matrix is not positive definite."""
    try:
        factor = np.linalg.cholesky(a)
    except np.linalg.LinAlgError:
        # One bad matrix fails them all, so each is asked alone.
        factor = np.full_like(a, np.nan)
        for index in np.ndindex(a.shape[:-2]):
            with contextlib.suppress(np.linalg.LinAlgError):
                factor[index] = np.linalg.cholesky(a[index])
    return np.linalg.inv(factor)


def _features(z: np.ndarray) -> np.ndarray:
    """φ `(B, F, N)` of samples `(B, D, N)`."""
    rows, columns = np.tril_indices(z.shape[1])
    return np.concatenate([np.ones_like(z[:, :1]), z, z[:, rows] * z[:, columns]], axis=1)


def _bulk_variances(x: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Variances `(B, D)` of each feature without values more than four standard deviations from the others."""
    found = np.empty((len(x), x.shape[2]))
    for b, d in np.ndindex(found.shape):
        values = x[b, present[b] > 0, d].astype(np.float64)
        nearer = values
        while np.var(nearer) > 0:
            found[b, d], values = np.var(nearer), nearer
            nearer = values[np.abs(values - values.mean()) <= 4 * values.std()]
            if len(nearer) == len(values):
                break
    return found


def _whitened(x: np.ndarray, present: np.ndarray, reg_covar: float) -> tuple[np.ndarray, ...]:
    """Whitened samples `(B, D, N)`, the map x = shift + factor z, and the ridge in the coordinates z."""
    x, count = x.astype(np.float64), present.sum(axis=1)[:, None, None]
    shift = (x * present[..., None]).sum(axis=1) / count[..., 0]
    centred = (x - shift[:, None]) * present[..., None]
    covariance = centred.swapaxes(1, 2) @ centred / count
    ridge = reg_covar * _bulk_variances(x, present)[:, :, None] * np.eye(x.shape[2])
    factor = np.linalg.cholesky(covariance + ridge)
    inverse = np.linalg.inv(factor)
    return inverse @ centred.swapaxes(1, 2), factor, shift, inverse @ ridge @ inverse.swapaxes(1, 2)


def _to_standard(start: Start, factor: np.ndarray, shift: np.ndarray) -> Start:
    inverse = np.linalg.inv(factor)[:, None, None]
    means = (inverse @ (start.means - shift[:, None, None])[..., None])[..., 0]
    return Start(start.weights, means, inverse @ start.covariances @ inverse.swapaxes(-1, -2))


def _to_data(start: Start, factor: np.ndarray, shift: np.ndarray) -> Start:
    factor = factor[:, None, None]
    means = (factor @ start.means[..., None])[..., 0] + shift[:, None, None]
    return Start(start.weights, means, factor @ start.covariances @ factor.swapaxes(-1, -2))


def _where(condition: np.ndarray, new: np.ndarray, old: np.ndarray) -> np.ndarray:
    return np.where(condition.reshape(*condition.shape, *[1] * (new.ndim - condition.ndim)), new, old)
