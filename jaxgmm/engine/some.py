"""Work that only a few of many rows need."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int

_Tree = TypeVar("_Tree")


def numbers_of(wanted: Bool[Array, " q"]) -> tuple[Int[Array, " q"], Int[Array, ""]]:
    """Numbers of the wanted rows, then zeros; and how many are wanted.

    Uses a scatter, which takes less time than sorting.
    """
    counts = jnp.cumsum(wanted, dtype=jnp.int32)
    places = jnp.where(wanted, counts - 1, len(wanted))
    numbers = jnp.arange(len(wanted), dtype=jnp.int32)
    return jnp.zeros_like(numbers).at[places].set(numbers, mode="drop"), counts[-1]


def for_some(of_one: Callable[[Array], _Tree], wanted: Bool[Array, " q"], default: _Tree, at_a_time: int) -> _Tree:
    """Rows `(Q, …)`, computed for the wanted ones, a few at a time, and by default for the others.

    Args:
        of_one: from the number of a row to the row.
        wanted: which rows are computed.
        default: all rows.
        at_a_time: how many are computed together. If all were mapped at once, a loop would continue for every row until
            the last one has ended.
    """
    at_a_time = min(at_a_time, len(wanted))
    queue, n_wanted = numbers_of(wanted)
    at_once = jnp.arange(at_a_time, dtype=jnp.int32)

    def body(carry: tuple[Array, _Tree]) -> tuple[Array, _Tree]:
        first, rows = carry
        own = queue[jnp.minimum(first + at_once, len(queue) - 1)]
        place = jnp.where(first + at_once < n_wanted, own, len(wanted))
        new = jax.vmap(of_one)(own)
        return first + at_a_time, jax.tree.map(lambda kept, own: kept.at[place].set(own, mode="drop"), rows, new)

    return lax.while_loop(lambda carry: carry[0] < n_wanted, body, (jnp.zeros((), jnp.int32), default))[1]
