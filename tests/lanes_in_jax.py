"""Lanes of a device as arrays of JAX: what kernels are compared with, on any machine."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxgmm.numerics.lanes import Arrays, Store


def narrow(n_runs: int, width: int) -> Arrays:
    """Runs `(R,)`, samples `(R, W)`, components in lists."""
    added, larger = functools.partial(functools.reduce, jnp.add), functools.partial(functools.reduce, jnp.maximum)
    return Arrays(
        spread=lambda a: jnp.broadcast_to(a[:, None], (n_runs, width)),
        total=lambda a: jnp.sum(a, axis=1),
        most=larger,
        sum=added,
        sum_of_runs=added,
        most_of_runs=larger,
    )


def wide(n_samples: int, width: int) -> Arrays:
    """Components of one run `(K,)`, samples `(W, K)`."""

    def over(reduce: Callable[..., Any]) -> Callable[[Any], Any]:
        return lambda rows: jnp.broadcast_to(reduce(rows[0], axis=-1, keepdims=True), rows[0].shape)

    return Arrays(
        spread=lambda a: jnp.broadcast_to(a[None, :], (n_samples, width)),
        total=lambda a: jnp.sum(a, axis=0),
        most=over(jnp.max),
        sum=over(jnp.sum),
        sum_of_runs=over(jnp.sum),
        most_of_runs=over(jnp.max),
    )


def stored(rows: Any) -> Store:
    """A store whose state is its rows."""
    return Store(list(rows), lambda state: state, lambda _, new: new)
