"""Whether the samples of groups are those that were fitted: their numbers, and sums that tell other values."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Int

from jaxgmm.tables.groups import Groups, unusable
from jaxgmm.tables.wording import title_of

# Sums differ by less if samples were read again in another order, or written with 16 digits in between.
_ROUNDING = 1e-11


def checksums(groups: Groups) -> Float[np.ndarray, "b s"]:
    """Sums over the samples of each of B groups, none of them empty.

    They are those of each feature, of its products with the next one, of the weights, and the number of
    samples that hold NaN or infinity. Samples in another order have the same sums, but for rounding.
    """
    return _sums(_summands(groups), groups)


def check_unchanged(groups: Groups, n_samples: Int[np.ndarray, " b"], sums: Float[np.ndarray, "b s"] | None) -> None:
    """Checks that groups hold the samples that were fitted.

    Args:
        groups: the groups as they are now.
        n_samples: `(B,)`, how many samples were fitted.
        sums: their `checksums`, or None if they are not known.

    Raises:
        ValueError: other samples.
    """
    now, remedy = groups.n_samples, "pass the frame as it was fitted as df=, or fit again"
    for b in np.flatnonzero(now != n_samples)[:1]:
        raise ValueError(
            f"{_name(groups, b)} has {now[b]:,} rows in the frame, where {n_samples[b]:,} were fitted; {remedy}."
        )
    if sums is None or not len(now):
        return
    summands = _summands(groups)
    bounds = _ROUNDING * _sums(map(np.abs, summands), groups)
    is_same = np.isclose(_sums(summands, groups), sums, rtol=0, atol=bounds, equal_nan=True)
    for b in np.flatnonzero(~np.all(is_same, axis=1))[:1]:
        raise ValueError(f"{_name(groups, b)} has other values in the frame than were fitted; {remedy}.")


def _summands(groups: Groups) -> list[Float[np.ndarray, " m"]]:
    x = [np.where(np.isfinite(column), column, 0) for column in groups.samples.T]
    weights = [] if groups.weights is None else [np.nan_to_num(groups.weights, posinf=0)]
    with np.errstate(over="ignore"):
        products = [one * other for one, other in zip(x, [*x[1:], x[0]], strict=True)]
    return [*x, *products, *weights, unusable(groups.samples, groups.weights).astype(float)]


def _sums(summands: Iterable[Float[np.ndarray, " m"]], groups: Groups) -> Float[np.ndarray, "b s"]:
    # Of values near the largest, sums may be infinite, or NaN.
    with np.errstate(over="ignore", invalid="ignore"):
        return np.stack([np.add.reduceat(values, groups.offsets[:-1]) for values in summands], axis=1)


def _name(groups: Groups, b: int) -> str:
    return title_of(column[b].as_py() for column in groups.keys.columns)
