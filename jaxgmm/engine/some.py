"""Work that few of many need."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool

_Tree = TypeVar("_Tree")


def for_some(of_one: Callable[[Array], _Tree], wanted: Bool[Array, " q"], default: _Tree, at_a_time: int) -> _Tree:
    """Rows `(Q, …)` computed where they are wanted, so many at a time; others by default.

    Args:
        of_one: from the number of a row to the row.
        wanted: which rows are computed.
        default: all rows.
        at_a_time: how many are computed together. Mapped over all of them, a loop would go on for every row until the
            last has ended.
    """
    at_a_time = min(at_a_time, len(wanted))
    queue = jnp.argsort(~wanted, stable=True).astype(jnp.int32)
    n_wanted = jnp.sum(wanted, dtype=jnp.int32)
    at_once = jnp.arange(at_a_time, dtype=jnp.int32)

    def body(carry: tuple[Array, _Tree]) -> tuple[Array, _Tree]:
        first, rows = carry
        own = queue[jnp.minimum(first + at_once, len(queue) - 1)]
        place = jnp.where(first + at_once < n_wanted, own, len(wanted))
        new = jax.vmap(of_one)(own)
        return first + at_a_time, jax.tree.map(lambda kept, own: kept.at[place].set(own, mode="drop"), rows, new)

    return lax.while_loop(lambda carry: carry[0] < n_wanted, body, (jnp.zeros((), jnp.int32), default))[1]
