"""order_components() and align_components(): the same order of components in every fit.

EM numbers components as its start did. In a table of thousands of fits, component 0 means the same thing everywhere
only after components have been sorted, or matched to those of a reference.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxgmm.engine.arrays import is_traced
from jaxgmm.fit_result import FitResult
from jaxgmm.mixture import Mixture, as_mixture, full_covariances, with_room
from jaxgmm.selection.sweep_result import Sweep
from jaxgmm.settings import is_integer, named_order

Result = TypeVar("Result", bound=Mixture | FitResult | Sweep)

# A distance beyond this is as bad as any.
_FARTHEST = 2.0**100


def order_components(result: Result, by: str | int = "mean") -> Result:
    """Puts the components of every mixture in order.

    Args:
        result: mixtures, or the result of `fit` or `sweep`.
        by: `"mean"`, the smallest mean of the first feature first; the number of another feature, whose mean counts
            instead; or `"weight"`, the largest first. Equal components keep their order; absent ones come last.

    Returns:
        the same with components in another order. Mixtures of NaN are unchanged.

    Raises:
        ValueError: an unknown order, no such feature, or not a mixture or result.

    Example:
        >>> import numpy as np, jaxgmm
        >>> x = np.random.default_rng(0).normal(size=(3, 300, 1)) + 8 * (np.arange(300) < 100)[:, None]
        >>> ordered = jaxgmm.order_components(jaxgmm.fit(x, 2))
        >>> ordered.mixture.means[..., 0].round()
        array([[-0.,  8.],
               [ 0.,  8.],
               [-0.,  8.]])
    """
    mixture = _mixture_of(result)
    if isinstance(by, str) and by == "weight":
        keys = -np.asarray(mixture.weights)
    else:
        feature = 0 if isinstance(by, str) and by == "mean" else by
        if isinstance(feature, str) or not is_integer(feature) or not 0 <= feature < mixture.n_features:
            raise ValueError(
                f"by must be 'mean', 'weight' or the number of one of {mixture.n_features} features, from 0; "
                f"got {by!r}."
            )
        keys = np.asarray(mixture.means)[..., feature]
    weights = np.asarray(mixture.weights)
    keys = np.where(weights == 0, np.inf, np.where(np.isnan(weights), -np.inf, keys))
    order = np.argsort(keys, axis=-1, kind="stable")
    return _with_order(result, order)


def in_named_order(result: Result, order_by: str, features: Sequence[str]) -> Result:
    """Components sorted by `order_by`: `"mean"`, `"weight"` or a feature; or left as they are, by `"start"`."""
    return result if order_by == "start" else order_components(result, named_order(order_by, features))


def align_components(result: Result, reference: Any) -> Result:
    """Gives every component the number of the component of a reference mixture that it matches.

    Components are matched one to one so that the sum of their squared distances is least (Kuhn, 1955, "The Hungarian
    method for the assignment problem"). The distance is that of the means, each feature in units of the standard
    deviation of the reference component.

    Args:
        result: mixtures, or the result of `fit` or `sweep`.
        reference: one mixture, or the result of the fit of one data set, with the same features.

    Returns:
        the same, in arrays of the same kind, with components in another order, and room for as many as the reference
        has. Where a mixture has fewer, components without a match are absent (weight 0); where it has more, those left
        over follow by the mean of the first feature. Mixtures of NaN are unchanged.

    Raises:
        ValueError: not one reference mixture, or one with other features.
    """
    given = mixture = _mixture_of(result)
    reference = checked_reference(reference, mixture.n_features)
    n_places = max(mixture.n_components, reference.n_components)
    result = order_components(_with_room(result, n_places))
    mixture = _mixture_of(result)
    flat = mixture.map(lambda leaf: np.asarray(leaf).reshape(-1, *leaf.shape[mixture.weights.ndim - 1 :]))
    order = _matched_order(flat, with_room(reference, n_places).map(lambda leaf: leaf[None]))
    aligned = _with_order(result, order.reshape(np.shape(mixture.weights)))
    return _mapped(aligned, lambda mixture: mixture.map(_of_kind, given))


def checked_reference(reference: Any, n_features: int, name: str = "reference") -> Mixture:
    """A reference mixture, without what its absent components hold. Raises ValueError, by name, unless it is one."""
    mixture = as_mixture(reference, name)
    if np.ndim(mixture.weights) != 1 or mixture.n_features != n_features:
        raise ValueError(
            f"{name} must be one mixture of {n_features} features; its means have shape {np.shape(mixture.means)}."
        )
    mixture = with_room(mixture.map(np.asarray), mixture.n_components)
    if not all(np.all(np.isfinite(leaf)) for leaf in mixture.arrays):
        raise ValueError(f"{name} holds NaN or infinity: its fit has no answer.")
    return mixture


def matched(mixture: Mixture, fitted: Mixture) -> Mixture:
    """Mixtures `(B, K, …)` with components in the order of those of `fitted`, `(B, K, …)`, that they match."""
    return _reordered(mixture, _matched_order(mixture, fitted))


def _matched_order(mixture: Mixture, reference: Mixture) -> np.ndarray:
    """For each place of the reference, `(B, K, …)` or `(1, K, …)`, the component that matches it: `(B, K)`.

    Those left over go to the places left over, in their order.
    """
    variances = np.diagonal(full_covariances(reference), axis1=-2, axis2=-1)
    gaps = mixture.means[:, None, :, :] - reference.means[:, :, None, :]
    costs = np.minimum(np.sum(gaps**2 / variances[:, :, None, :], axis=-1), _FARTHEST)
    unknown = np.any(np.isnan(costs), axis=(1, 2))
    order = np.argmin(costs, axis=-1)
    numbers = np.arange(mixture.n_components)
    order[unknown] = numbers
    # The nearest are nearly always all different, and then they are the best assignment.
    unclear = np.any(np.sort(order, axis=1) != numbers, axis=1)
    unclear |= np.any((mixture.weights == 0) | (reference.weights == 0), axis=-1) & ~unknown
    if np.any(unclear):
        # At the top of the file it would add a quarter of a second to every import of jaxgmm.
        from scipy.optimize import linear_sum_assignment  # noqa: PLC0415

        is_place = np.broadcast_to(reference.weights != 0, order.shape)
        for b in np.flatnonzero(unclear):
            places, present = np.flatnonzero(is_place[b]), np.flatnonzero(mixture.weights[b] != 0)
            rows, columns = linear_sum_assignment(costs[b][np.ix_(places, present)])
            order[b, places[rows]] = present[columns]
            left = np.setdiff1d(numbers, places[rows])
            order[b, left] = np.setdiff1d(numbers, present[columns])
    return order


def _mixture_of(result: Any) -> Mixture:
    """The mixtures of a result. Raises ValueError unless it is one, of concrete arrays."""
    if not isinstance(result, Mixture | FitResult | Sweep):
        is_of_groups = hasattr(result, "result")
        remedy = " Pass its .result; or give fit_groups order_by= or align_to=." if is_of_groups else ""
        raise ValueError(f"result must be a jaxgmm.Mixture, FitResult or Sweep; got {type(result).__name__}.{remedy}")
    mixture = as_mixture(result.best if isinstance(result, Sweep) else result)
    if any(map(is_traced, mixture.arrays)):
        raise ValueError("the order of components depends on their values; sort them outside jax.jit, vmap and grad.")
    return mixture


def _with_room(result: Result, n_components: int) -> Result:
    return _mapped(result, lambda mixture: with_room(mixture.map(np.asarray), n_components))


def _with_order(result: Result, order: np.ndarray) -> Result:
    return _mapped(result, lambda mixture: _reordered(mixture, order))


def _of_kind(array: np.ndarray, given: Any) -> Any:
    """An array of the type of another, and of JAX if that is."""
    if not isinstance(given, jax.Array):
        return array.astype(given.dtype, copy=False)
    with jax.enable_x64(True):
        return jnp.asarray(array, given.dtype)


def _mapped(result: Result, function: Callable[[Mixture], Mixture]) -> Result:
    """A result with a function applied to its mixtures, snapshots included."""
    if isinstance(result, Mixture):
        return function(result)
    if isinstance(result, Sweep):
        return replace(result, best=_mapped(result.best, function))
    snapshots = None if result.snapshots is None else function(result.snapshots)
    return replace(result, mixture=function(result.mixture), snapshots=snapshots)


def _reordered(mixture: Mixture, order: np.ndarray) -> Mixture:
    """Mixtures `(…, K, …)` with components in an order `(…, K)`; snapshots have an axis more than the order."""
    if mixture.weights.ndim > order.ndim:
        order = np.broadcast_to(order[..., None, :], mixture.weights.shape)

    def taken(leaf: np.ndarray) -> np.ndarray:
        trailing = leaf.ndim - order.ndim
        return np.take_along_axis(leaf, order.reshape(*order.shape, *[1] * trailing), axis=order.ndim - 1)

    return mixture.map(taken)
