"""Gaussian mixtures: their parameters, density, responsibilities and samples.

The density of a mixture of K Gaussians in D dimensions is

    p(x) = Σ_k w_k N(x | μ_k, Σ_k),    log N(x | μ, Σ) = -½ [D log 2π + log|Σ| + (x - μ)ᵀ Σ⁻¹ (x - μ)].

Here every sample is centred on every mean, which is accurate for any mixture. EM itself has a faster form of the same
density, for standardised data (`jaxgmm.em.expectation`).
"""

import functools
import inspect
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxgmm.cholesky import cholesky, inverse_lower, log_determinant

if TYPE_CHECKING:
    # NumPy and JAX arrays mix freely here, which their type stubs do not.
    Floats = Any
else:
    Floats = Float[Array | np.ndarray, "..."]


class Mixture(NamedTuple):
    """A Gaussian mixture, or a batch of them along leading axes. NumPy or JAX arrays.

    Attributes:
        weights: `(…, K)`, not negative, summing to 1. A component of weight 0 is absent.
        means: `(…, K, D)`, in data units.
        covariances: `(…, K, D, D)` in squared data units, or `(…, K, D)` variances when components are axis-aligned.
    """

    weights: Floats
    means: Floats
    covariances: Floats

    @property
    def n_components(self) -> int:
        """K, absent components included."""
        return self.means.shape[-2]

    @property
    def n_features(self) -> int:
        """D."""
        return self.means.shape[-1]

    @property
    def is_diagonal(self) -> bool:
        """Whether ``covariances`` holds variances `(…, K, D)` in place of matrices."""
        return len(self.covariances.shape) == len(self.means.shape)


def full_covariances(mixture: Mixture) -> Floats:
    """Covariance matrices `(…, K, D, D)`, also where the mixture holds variances."""
    if not mixture.is_diagonal:
        return mixture.covariances
    return mixture.covariances[..., None] * np.eye(mixture.n_features, dtype=mixture.covariances.dtype)


def with_room(mixture: Mixture, n_components: int) -> Mixture:
    """A mixture `(…, K, …)` of NumPy arrays with room for another number of components.

    Components of weight 0 are absent: they have mean 0 and unit variances, wherever they stand. Where there is less
    room, the last components are left out.
    """
    kept = min(mixture.n_components, n_components)
    spread = mixture.covariances.shape[mixture.weights.ndim :]
    unit = np.eye(spread[0]) if len(spread) == 2 else np.ones(spread)
    leaves = []
    for leaf, absent in zip(mixture, (0.0, 0.0, unit), strict=True):
        trailing = leaf.shape[mixture.weights.ndim :]
        room = np.empty((*mixture.weights.shape[:-1], n_components, *trailing))
        room[...] = absent
        axis = (*[slice(None)] * (mixture.weights.ndim - 1), slice(kept))
        present = (mixture.weights[axis] != 0).reshape(*mixture.weights[axis].shape, *[1] * len(trailing))
        room[axis] = np.where(present, leaf[axis], absent)
        leaves.append(room)
    return Mixture(*leaves)


def _numpy_in_numpy_out(function: Callable[..., Any]) -> Callable[..., Any]:
    """Computes in float64 and answers in NumPy unless an argument is a JAX array, whose precision then holds."""
    static = [name for name in ("n_samples",) if name in inspect.signature(function).parameters]
    compiled = jax.jit(function, static_argnames=static)

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        arrays = jax.tree.leaves((args, kwargs))
        if any(isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jnp.floating) for array in arrays):
            return compiled(*args, **kwargs)
        with jax.enable_x64(True):
            widen = lambda leaf: leaf.astype(np.float64) if isinstance(leaf, np.ndarray) else leaf  # noqa: E731
            return jax.tree.map(np.asarray, compiled(*jax.tree.map(widen, args), **jax.tree.map(widen, kwargs)))

    return wrapped


@_numpy_in_numpy_out
def log_prob(mixture: Mixture, x: Floats) -> Floats:
    """Log-density of samples under a mixture, log p(x).

    Args:
        mixture: one mixture, or a batch with leading axes.
        x: samples `(…, N, D)` in data units; leading axes are those of the mixture, or absent (every mixture then
            sees the same samples).

    Returns:
        `(…, N)`, nats. Float64 NumPy for NumPy input; for JAX arrays, a JAX array of their precision, also inside
        your own `jit`, `vmap` and `grad`.

    Example:
        >>> import numpy as np, jaxgmm
        >>> standard = jaxgmm.Mixture(np.ones(1), np.zeros((1, 1)), np.ones((1, 1)))
        >>> jaxgmm.log_prob(standard, np.zeros((1, 1))).round(4)
        array([-0.9189])
    """
    return jax.scipy.special.logsumexp(_log_joint(mixture, x), axis=-1)


@_numpy_in_numpy_out
def responsibilities(mixture: Mixture, x: Floats) -> Floats:
    """Posterior probabilities of the components given each sample, w_k N(x | μ_k, Σ_k) / p(x).

    Args:
        mixture: one mixture, or a batch with leading axes.
        x: samples `(…, N, D)`; see `log_prob`.

    Returns:
        `(…, N, K)`, rows sum to 1.
    """
    return jax.nn.softmax(_log_joint(mixture, x), axis=-1)


@_numpy_in_numpy_out
def predict(mixture: Mixture, x: Floats) -> Int[Array | np.ndarray, "..."]:
    """The most probable component of each sample, numbered from 0; -1 where the mixture or the sample holds NaN.

    Args:
        mixture: one mixture, or a batch with leading axes.
        x: samples `(…, N, D)`; see `log_prob`.

    Returns:
        `(…, N)` integers.
    """
    log_joint = _log_joint(mixture, x)
    return jnp.where(jnp.any(jnp.isnan(log_joint), axis=-1), -1, jnp.argmax(log_joint, axis=-1))


def sample(key: Any, mixture: Mixture, n_samples: int) -> tuple[Floats, Int[Array | np.ndarray, "..."]]:
    """Draws samples from a mixture, and says which component each came from.

    Args:
        key: an integer seed or a JAX random key. Mixtures of a batch draw independently of each other.
        mixture: one mixture, or a batch with leading axes.
        n_samples: N, samples drawn from each mixture.

    Returns:
        samples `(…, N, D)` in data units, and components `(…, N)` numbered from 0.
    """
    if isinstance(key, (int, np.integer)):
        key = jax.random.key(int(key))
    if not isinstance(n_samples, (int, np.integer)) or n_samples < 0:
        raise ValueError(f"n_samples must be an integer of at least 0; got {n_samples!r}.")
    if not isinstance(key, jax.Array):
        raise ValueError(f"key must be an integer or one JAX random key; got {key!r}.")
    return _sample(key, mixture, n_samples=n_samples)


@_numpy_in_numpy_out
def _sample(key: Array, mixture: Mixture, *, n_samples: int) -> tuple[Array, Array]:
    batch = mixture.means.shape[:-2]
    keys = jax.random.split(key, (*batch, 2)) if batch else jax.random.split(key, 2)
    draw_all = functools.partial(draw, n_samples=n_samples)
    for _ in batch:
        draw_all = jax.vmap(draw_all)
    return draw_all(keys, Mixture(*map(jnp.asarray, mixture)))


def draw(keys: Array, mixture: Mixture, n_samples: int) -> tuple[Array, Array]:
    """Samples of one mixture, and their components, from two random keys."""
    component = jax.random.categorical(keys[0], jnp.log(mixture.weights), shape=(n_samples,))
    noise = jax.random.normal(keys[1], (n_samples, mixture.n_features), dtype=mixture.means.dtype)
    if mixture.is_diagonal:
        spread = jnp.sqrt(mixture.covariances)[component] * noise
    else:
        spread = jnp.einsum("nij,nj->ni", cholesky(mixture.covariances)[component], noise, precision="highest")
    return mixture.means[component] + spread, component


def _log_joint(mixture: Mixture, x: Floats) -> Array:
    """The logarithm of w_k N(x | μ_k, Σ_k), `(…, N, K)`."""
    mixture, x = Mixture(*map(jnp.asarray, mixture)), jnp.asarray(x)
    of_mixture, of_samples = mixture.means.ndim - 2, x.ndim - 2
    if x.ndim < 2 or x.shape[-1] != mixture.n_features:
        raise ValueError(f"x must be (N, {mixture.n_features}), with as many features as the mixture; it is {x.shape}.")
    if of_mixture and of_samples and of_mixture != of_samples:
        raise ValueError(
            f"x must be (N, D), or have the batch axes of the mixture, {mixture.means.shape[:-2]}; "
            f"its shape is {x.shape}."
        )
    axes = (0 if of_mixture else None, 0 if of_samples else None)
    density = log_joint
    for _ in range(max(of_mixture, of_samples)):
        density = jax.vmap(density, in_axes=axes)
    return density(mixture, x)


def log_joint(mixture: Mixture, x: Float[Array, "n d"]) -> Float[Array, "n k"]:
    """The same for one mixture and one data set."""
    centred = x[None, :, :] - mixture.means[:, None, :]
    if mixture.is_diagonal:
        standard_deviations = jnp.sqrt(mixture.covariances)
        whitened = centred / standard_deviations[:, None, :]
        log_determinants = 2 * jnp.sum(jnp.log(standard_deviations), axis=-1)
    else:
        factor = cholesky(mixture.covariances)
        whitened = jnp.einsum("kij,knj->kni", inverse_lower(factor), centred, precision="highest")
        log_determinants = log_determinant(factor)
    distances = jnp.sum(whitened * whitened, axis=-1)
    constants = jnp.log(mixture.weights) - 0.5 * (mixture.n_features * math.log(2 * math.pi) + log_determinants)
    return (constants[:, None] - 0.5 * distances).T
