"""Checks of the arguments of `fit` and `sweep`, before any work."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgmm.driver.search import RIDGE_OF_FLOAT32
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.em.initialization import INITIALIZERS
from jaxgmm.engine.arrays import holds_integers, numeric, refuse_traced
from jaxgmm.engine.batch import Batch, Sizes, per_sample
from jaxgmm.mixture import Mixture, full_covariances
from jaxgmm.record import field_names
from jaxgmm.settings import is_integer


def checked_history(history: Any, max_iter: int) -> tuple[int, np.ndarray | None]:
    """The length of the history, 0 for none, and the iterations `(S,)` after which to record parameters, or None."""
    if isinstance(history, bool | np.bool_):
        return (int(max_iter) + 1 if history else 0), None
    if isinstance(history, np.ndarray):
        history = history.tolist()
    if not isinstance(history, Sequence) or isinstance(history, str | bytes) or not history:
        raise ValueError(f"history must be False, True or a sequence of iteration numbers; got {history!r}.")
    for number in history:
        if not is_integer(number) or not 0 <= int(number) <= max_iter:
            raise ValueError(f"history must name iterations from 0 to max_iter={max_iter}; got {number!r}.")
    if len(set(history)) < len(history):
        raise ValueError(f"history must name every iteration once; got {history!r}.")
    return int(max_iter) + 1, np.array(history, np.int32)


def finalists(n_finalists: int | None, n_init: int) -> int:
    """How many of R starts run to their ends: all, unless fewer are requested."""
    return n_init if n_finalists is None else min(int(n_finalists), n_init)


def ridge_in(precision: str, reg_covar: Any) -> float:
    """The ridge of the answer. In float32 alone it must be at least large enough to exceed rounding."""
    return max(float(reg_covar), RIDGE_OF_FLOAT32) if precision == "float32" else float(reg_covar)


def weighted(data: Batch, sample_weight: Any) -> Batch:
    """The same data sets, with the sample weights of a user, or None for 1."""
    return data if sample_weight is None else data.weighted(checked_weights(sample_weight, data))


def sizes_of_job(part_of: Any, data: Batch) -> Sizes:
    """The sizes of all data sets of the job of which these are a part; None means that they are the whole job."""
    if part_of is None:
        return data.sizes
    given = numeric(part_of, "part_of")
    is_counted = given.ndim == 2 and len(given) == 2
    if not (given.ndim == 1 or is_counted) or not holds_integers(part_of, "part_of") or np.any(given < 0):
        raise ValueError(
            "part_of must be (B_all,), the number of samples of every data set of the job, or (2, S), distinct numbers "
            "of samples and how many data sets have each."
        )
    lengths, counts = given.astype(int) if is_counted else (given.astype(int), None)
    missing = np.setdiff1d(data.lengths, lengths)
    if len(missing):
        raise ValueError(
            "part_of must hold the number of samples of every data set of the job, those of x included; "
            f"{missing[0]} is missing."
        )
    own = data.sizes._replace(lengths=lengths, counts=counts, is_single=False)
    return own._replace(n_rows=int(np.sum(lengths * own.n_each)))


def checked_weights(sample_weight: Any, data: Batch) -> np.ndarray:
    """Sample weights, one for each row of a batch."""
    weights = per_sample(sample_weight, data, "sample_weight")
    negative = np.flatnonzero(weights < 0)
    if len(negative):
        b = int(np.searchsorted(data.first, negative[0], side="right")) - 1
        raise ValueError(
            f"sample_weight must not be negative; sample {negative[0] - data.first[b]} of data set {b} has weight "
            f"{weights[negative[0]]}. Give samples to be left out weight 0."
        )
    return weights


def checked_start(init: Any, data: Batch, n_components: int, covariance_type: str) -> tuple[str, Any]:
    """The kind of start that `init` is, and explicit starts in the layout of the batch."""
    if isinstance(init, str):
        if init not in INITIALIZERS:
            raise ValueError(
                f"init must be one of {', '.join(map(repr, INITIALIZERS))}, a Mixture, responsibilities or labels; "
                f"got {init!r}."
            )
        return init, None
    # `init` may be the result of a fit, a type that this module may not import.
    init = getattr(init, "mixture", init)
    if isinstance(init, Mixture):
        return "mixture", checked_mixture(init, data, n_components, covariance_type)
    if init is None:
        raise ValueError("init must be a name, a Mixture, responsibilities or labels; got None.")
    if holds_integers(init[0] if isinstance(init, (list, tuple)) and len(init) else init, "init"):
        labels = per_sample(init, data, "init (labels)")
        if labels.size and (labels.min() < 0 or labels.max() >= n_components):
            raise ValueError(
                f"init (labels) must be numbered from 0 to {n_components - 1}; they run from {labels.min():.0f} to "
                f"{labels.max():.0f}."
            )
        return "labels", labels.astype(np.int32)
    rows = per_sample(init, data, "init (responsibilities)", (int(n_components),))
    if np.any(rows < 0):
        raise ValueError(f"init (responsibilities) must not be negative; the least is {np.nanmin(rows)}.")
    return "responsibilities", rows


def checked_mixture(init: Mixture, data: Batch, n_components: int, covariance_type: str) -> Mixture:
    """Explicit parameters, one mixture for each data set."""
    n_features = data.samples.shape[1]
    init = numeric_mixture(init, np.float64, name="init")
    spread = (n_features,) if FAMILIES[covariance_type].diagonal else (n_features, n_features)
    trailing = ((n_components,), (n_components, n_features), (n_components, *spread))
    is_full = init.covariances.shape[-3:] == trailing[2] and init.covariances.ndim in (3, 4)
    if not FAMILIES[covariance_type].diagonal and not is_full and init.is_diagonal:
        init = replace(init, covariances=full_covariances(init))
    for name, leaf, shape in zip(field_names(init), init.arrays, trailing, strict=True):
        if leaf.shape not in (shape, (data.n_data_sets, *shape)):
            raise ValueError(
                f"init.{name} must have shape {shape}, or {(data.n_data_sets, *shape)} for a start of each data set, "
                f"with covariance_type={covariance_type!r}; it has shape {leaf.shape}."
            )
    # As a product, because sums over a short last axis take ten times as long.
    if np.any(init.weights < 0) or np.any(np.abs(init.weights @ np.ones(n_components) - 1) > 1e-6):
        raise ValueError("init.weights must not be negative and must sum to 1 over the components.")
    # Each leaf may have a batch axis or not, so the number of axes does not tell matrices from variances.
    are_matrices = spread != (n_features,)
    variances = np.diagonal(init.covariances, axis1=-2, axis2=-1) if are_matrices else init.covariances
    if np.any((variances < 0) & (init.weights[..., None] > 0)):
        raise ValueError("init.covariances must be positive definite; a variance is negative.")
    if are_matrices:
        flipped = np.swapaxes(init.covariances, -1, -2)
        # Most are symmetric to the bit, which is the quicker test.
        is_equal = (np.array_equal(init.covariances[..., i, :i], flipped[..., i, :i]) for i in range(1, n_features))
        if not all(is_equal) and np.any(
            np.abs(init.covariances - flipped) > 1e-6 * np.abs(init.covariances).max(initial=0)
        ):
            raise ValueError("init.covariances must be symmetric.")
    return init.map(lambda leaf, shape: np.broadcast_to(leaf, (data.n_data_sets, *shape)), Mixture(*trailing))


def numeric_mixture(mixture: Mixture, dtype: Any = None, name: str = "mixture") -> Mixture:
    """A mixture of NumPy arrays of a type; if none is given, of float32 or float64, as each array is."""
    found = mixture.map(lambda leaf, field: numeric(leaf, f"{name}.{field}"), Mixture(*field_names(mixture)))
    return found if dtype is None else found.map(lambda leaf: leaf.astype(dtype, copy=False))


def check_mixture(mixture: Mixture, x: tuple[int, ...] | None, remedy: str = "") -> None:
    """Raises ValueError unless the arrays of a mixture belong together, and to samples of a shape `(…, N, D)`."""
    weights, means, covariances = (leaf.shape for leaf in mixture.arrays)
    n_features = means[-1] if means else 0
    if not weights or weights[-1] == 0 or n_features == 0 or means[:-1] != weights:
        belongs = False
    else:
        belongs = covariances in (means, (*means, n_features))
    if not belongs:
        raise ValueError(
            "mixture must have weights (…, K), means (…, K, D) and covariances (…, K, D, D) or variances (…, K, D); "
            f"its shapes are {weights}, {means} and {covariances}."
        )
    if x is None:
        return
    if len(x) < 2 or x[-1] != n_features:
        raise ValueError(
            f"x must be (…, N, {n_features}), with as many features as the mixture; it has shape {x}.{remedy}"
        )
    if len(x) > 2 and len(weights) > 1 and x[:-2] != weights[:-1]:
        raise ValueError(
            f"x must be (N, {n_features}), or begin with the axes {weights[:-1]} of the mixtures, one data set for "
            f"each; it has shape {x}."
        )


def checked_key(key: Any) -> jax.Array | np.int64:
    """A random key, or a seed that becomes one on the device."""
    refuse_traced(key, "key")
    # In a user's own program even concrete arrays become part of the program.
    refuse_traced(jax.device_put(np.int32(0)), "the function that calls this")
    return random_key(key)


def random_key(key: Any) -> jax.Array | np.int64:
    """A random key, or a seed that becomes one on the device. JAX may be tracing the key."""
    if is_integer(key) and -(2**63) <= int(key) < 2**63:
        return np.int64(key)
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ():
        return key
    if isinstance(key, jax.Array) and key.dtype == jnp.uint32 and key.shape == (2,):
        return jax.random.wrap_key_data(key)
    raise ValueError(f"key must be an integer of 64 bits or one JAX random key; got {key!r}.")
