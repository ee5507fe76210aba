"""log_prob(), responsibilities() and predict(): the density of mixtures at samples, and the components of samples.

Concrete arrays are evaluated on the host, piece by piece (`jaxgmm.pieces`). Inside a user's own JAX program, and for
samples on an accelerator, the evaluation is one pure function of arrays that goes through samples tile by tile.
"""

import contextlib
import functools
import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jaxgmm.driver.arguments import check_mixture, numeric_mixture
from jaxgmm.engine.arrays import hint, is_sequence, is_traced, numeric
from jaxgmm.engine.batch import Batch, Sizes, batch, padded_lengths
from jaxgmm.mixture import Mixture, as_mixture, factors, log_joint_from
from jaxgmm.pieces import longest, of_each, of_one_mixture, of_one_piece
from jaxgmm.posterior import COMPONENT, LOG_DENSITY, OUTLIER_P_VALUE, RESPONSIBILITIES, Quantity

if TYPE_CHECKING:
    # NumPy and JAX arrays mix freely here, which their type stubs do not.
    Floats = Ints = Any
else:
    Floats, Ints = Float[Array | np.ndarray, "..."] | list, Int[Array | np.ndarray, "..."] | list

_FLOAT64 = np.dtype(np.float64)
# Tile lengths of a program are multiples of this many samples.
_VECTOR = 16


def log_prob(mixture: Any, x: Any) -> Floats:
    """Log-density of samples under a mixture, log p(x).

    Args:
        mixture: one mixture, or a batch with leading axes; or the result of a fit.
        x: samples `(…, N, D)` in data units, or anything else that `fit` takes. Leading axes are those of the mixture,
            or absent: every mixture then gets the same samples. A sequence of `(N_i, D)` has one data set for each
            mixture of a batch, or any number of them for one mixture.

    Returns:
        `(…, N)`, nats; for data sets of unequal length, a list of `(N_i,)`. -inf where the logarithm is below
        float64's range, as at infinity, and NaN where the sample or the mixture holds NaN. Float64 NumPy; for JAX
        arrays, a JAX array of their precision, also inside your own `jit`, `vmap` and `grad`. Except inside these, a
        sample's answer is the same, bit for bit, whatever the number of other samples.

    Raises:
        ValueError: wrong shapes, or entries that are not real numbers.

    Example:
        >>> import numpy as np, jaxgmm
        >>> standard = jaxgmm.Mixture(np.ones(1), np.zeros((1, 1)), np.ones((1, 1)))
        >>> jaxgmm.log_prob(standard, np.zeros((1, 1))).round(4)
        array([-0.9189])
    """
    return _evaluated(LOG_DENSITY, mixture, x)


def responsibilities(mixture: Any, x: Any) -> Floats:
    """Posterior probabilities of the components given each sample, w_k N(x | μ_k, Σ_k) / p(x).

    Args:
        mixture: as for `log_prob`.
        x: samples `(…, N, D)`; see `log_prob`.

    Returns:
        `(…, N, K)`, or a list; rows sum to 1. NaN where no component has a density: where `log_prob` is NaN or -inf, as
        far from all components, at infinity, or if all weights are 0.

    Raises:
        ValueError: as for `log_prob`.
    """
    return _evaluated(RESPONSIBILITIES, mixture, x)


def predict(mixture: Any, x: Any) -> Ints:
    """The most probable component of each sample, numbered from 0; -1 where `responsibilities` are NaN.

    Args:
        mixture: as for `log_prob`.
        x: samples `(…, N, D)`; see `log_prob`.

    Returns:
        `(…, N)` integers, or a list.

    Raises:
        ValueError: as for `log_prob`.
    """
    return _evaluated(COMPONENT, mixture, x)


def outlier_p_values(mixture: Any, x: Any) -> Floats:
    """How unusual samples are under a mixture: small for outliers.

    The p-value of a sample under a component is the probability that a sample of that component has at least the same
    Mahalanobis distance from the mean: P(χ²_D ≥ d²). The largest of these counts, as for the typicality of an
    observation in McLachlan and Basford (1988), "Mixture Models", section 2.7. If the mixture is right, a p-value below
    α occurs with a probability of at most α; of exactly α where components do not overlap.

    Args:
        mixture: as for `log_prob`.
        x: samples `(…, N, D)`; see `log_prob`.

    Returns:
        `(…, N)`, or a list; from 0 to 1. NaN where the sample or the mixture holds NaN, or if all weights are 0.

    Raises:
        ValueError: as for `log_prob`.

    Example:
        >>> import numpy as np, jaxgmm
        >>> standard = jaxgmm.Mixture(np.ones(1), np.zeros((1, 1)), np.ones((1, 1)))
        >>> jaxgmm.outlier_p_values(standard, np.array([[0.0], [1.96], [5.0]])).round(3)
        array([1.  , 0.05, 0.  ])
    """
    return _evaluated(OUTLIER_P_VALUE, mixture, x)


def _evaluated(quantity: Quantity, mixture: Any, x: Any) -> Any:
    """A quantity at samples in any form that users pass."""
    mixture = as_mixture(mixture)
    # The shortest path, for serving a model.
    if all(type(array) is np.ndarray and array.dtype == _FLOAT64 for array in (*mixture.arrays, x)):
        found = of_one_piece(quantity, mixture, x)
        if found is not None:
            return np.array(np.asarray(found)[: len(x)])
    if _are_one_type(mixture, x):
        found = of_one_piece(quantity, mixture.map(np.asarray), np.asarray(x), on_device=x)
        if found is not None:
            return as_jax(found if len(found) == len(x) else np.asarray(found)[: len(x)])
    arrays = [leaf for leaf in jax.tree.leaves((mixture, x)) if isinstance(leaf, jax.Array)]
    kept = precision(arrays)
    if any(map(is_traced, arrays)) or any(map(_is_on_accelerator, arrays)):
        return _on_device(quantity, mixture, x, kept or jnp.result_type(float))
    # Narrower types can hold answers, but are not used for arithmetic.
    computed = np.dtype(np.float32) if kept is not None and kept.itemsize < 4 else kept or _FLOAT64
    mixture = numeric_mixture(mixture, computed)
    answer = _on_host(quantity, mixture, x, computed)
    if kept is None:
        return answer
    return jax.tree.map(lambda rows: as_jax(rows if quantity.is_integer else rows.astype(kept, copy=False)), answer)


def _are_one_type(mixture: Mixture, x: Any) -> bool:
    """Whether all are concrete JAX arrays, off the accelerator, and all float32 or all float64."""
    if not isinstance(x, jax.Array) or is_traced(x) or x.dtype not in (np.float32, _FLOAT64):
        return False
    leaves_are = (
        isinstance(leaf, jax.Array) and not is_traced(leaf) and leaf.dtype == x.dtype for leaf in mixture.arrays
    )
    return all(leaves_are) and not _is_on_accelerator(x)


def precision(arrays: Any) -> np.dtype | None:
    """The type of an answer: that of the JAX arrays among the arguments; None if there are none."""
    types = {
        leaf.dtype
        for leaf in jax.tree.leaves(arrays)
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.floating)
    }
    return max(types, key=lambda kind: (kind.itemsize, kind.name)) if types else None


def _is_on_accelerator(array: Array) -> bool:
    return jax.default_backend() != "cpu" and any(device.platform != "cpu" for device in array.devices())


def as_jax(array: np.ndarray | Array) -> Array:
    """An answer as a JAX array."""
    if isinstance(array, jax.Array) and array.dtype != np.int64:
        return array
    # Not `jnp.asarray`, which compiles a program for every shape. An answer in float64 stays float64; integers get the
    # user's default width.
    with jax.enable_x64(True) if array.dtype == _FLOAT64 else contextlib.nullcontext():
        return jax.device_put(np.asarray(array))


def _on_host(quantity: Quantity, mixture: Mixture, x: Any, dtype: np.dtype) -> Any:
    """A quantity at concrete samples, in their layout."""
    if is_sequence(x, n_axes=2):
        data = batch(x)
        shape = (data.n_data_sets, int(data.lengths[0]), data.samples.shape[1])
    else:
        array = numeric(x, "x")
        shape = array.shape
        check_mixture(mixture, shape, hint(x, "x", mixture.n_features) if array.ndim == 1 else "")
        if array.ndim == 2:
            array = array.astype(dtype, copy=False)
            is_same = isinstance(x, jax.Array) and x.dtype == dtype
            found = of_one_piece(quantity, mixture, array, on_device=x if is_same else None)
            if found is not None:
                return found if is_same and len(found) == len(array) else np.array(np.asarray(found)[: len(array)])
        lengths = np.full(math.prod(shape[:-2]), shape[-2])
        data = Batch(array.reshape(-1, shape[-1]), np.cumsum(lengths) - lengths, lengths, array.ndim == 2)
    check_mixture(mixture, shape)
    leading = mixture.weights.shape[:-1]
    if not leading:
        answers = of_one_mixture(quantity, mixture, np.asarray(data.samples, dtype))
    else:
        flat = mixture.map(lambda leaf: leaf.reshape(-1, *leaf.shape[len(leading) :]))
        answers = of_each(quantity, flat, data.repeated(len(flat.weights)) if data.is_single else data, dtype)
    if data.n_data_sets and data.sizes.is_ragged:
        return np.split(answers, data.first[1:])
    return answers.reshape(*(leading if data.is_single else shape[:-2]), shape[-2], *answers.shape[1:])


def _on_device(quantity: Quantity, mixture: Mixture, x: Any, dtype: np.dtype) -> Array:
    """A quantity as part of a user's own program, or at samples that stay on their device."""
    computed = dtype if dtype.itemsize >= 4 else np.dtype(np.float32)
    if not isinstance(x, jax.Array):
        x = numeric(x, "x") if not any(map(is_traced, jax.tree.leaves(x))) else _stacked(x)
    mixture = mixture.map(lambda leaf: jnp.asarray(leaf, computed))
    check_mixture(mixture, x.shape)
    x, n_samples = jnp.asarray(x, computed), x.shape[-2]
    if n_samples and not is_traced(x):
        # With padding, other numbers of samples share this program, and compile only copies.
        alone = Sizes(np.array([n_samples]), 0, 1, is_single=True, is_weighted=False)
        room = int(padded_lengths(alone, 0)[0]) - n_samples
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, room), (0, 0)], mode="edge")
    answer = _in_program(mixture, x, quantity=quantity)
    answer = lax.slice_in_dim(answer, 0, n_samples, axis=answer.ndim - 1 - len(quantity.trailing(1)))
    return answer if quantity.is_integer else answer.astype(dtype)


def _stacked(x: Any) -> Array:
    """Traced arrays of equal shape, as one."""
    try:
        return jnp.asarray(x)
    except (TypeError, ValueError):
        raise ValueError(
            "inside jax.jit, vmap or grad, x must be one array, or a list of arrays of one shape; map over others."
        ) from None


@functools.partial(jax.jit, static_argnames=("quantity",))
def _in_program(mixture: Mixture, x: Float[Array, "*b n d"], *, quantity: Quantity) -> Array:
    """A quantity at every sample."""
    n_axes, of_samples = mixture.weights.ndim - 1, x.ndim - 2
    whole = functools.partial(_by_tiles, quantity)
    for _ in range(max(n_axes, of_samples)):
        whole = jax.vmap(whole, in_axes=(0 if n_axes else None, 0 if of_samples else None))
    return whole(mixture, x)


def _by_tiles(quantity: Quantity, mixture: Mixture, x: Array) -> Array:
    """A quantity at the samples of one mixture. Only tiles are held in memory, in derivatives as well."""
    own, n_samples = factors(mixture), len(x)
    n_tiles = -(-n_samples // longest(mixture))
    if n_tiles <= 1:
        return quantity.of(log_joint_from(own, x), own)
    size = -(-n_samples // (n_tiles * _VECTOR)) * _VECTOR
    # Pad the last tile with a sample: other values might have no derivative.
    x = jnp.concatenate([x, jnp.broadcast_to(x[-1:], (n_tiles * size - n_samples, x.shape[1]))])
    of_tile = jax.checkpoint(lambda rows: quantity.of(log_joint_from(own, rows), own))
    tiles = lax.map(of_tile, x.reshape(n_tiles, size, -1))
    return tiles.reshape(-1, *tiles.shape[2:])[:n_samples]
