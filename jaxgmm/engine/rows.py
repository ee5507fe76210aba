"""Rows of arrays by number, and work that only a few of many rows need.

Numbers of rows are never negative here. `leaf[number]`, `//` and `%` allow for negative numbers with four to twelve
operations each, which made up a quarter of some programs.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int

_Tree = TypeVar("_Tree")


def rows_of(tree: _Tree, number: Array | np.ndarray) -> _Tree:
    """Rows of every leaf, by their numbers."""
    return jax.tree.map(lambda leaf: leaf.at[number].get(mode="clip", wrap_negative_indices=False), tree)


def with_rows(tree: _Tree, number: Int[Array, " s"], rows: _Tree) -> _Tree:
    """A tree with some rows of every leaf replaced. Numbers out of range are ignored."""
    put = {"mode": "drop", "wrap_negative_indices": False}
    return jax.tree.map(lambda leaf, own: leaf.at[number].set(own, **put), tree, rows)


def quotient_and_rest(number: Int[Array, "..."], by: int) -> tuple[Int[Array, "..."], Int[Array, "..."]]:
    """`divmod` of numbers that are not negative."""
    divisor = np.array(by, number.dtype)
    return lax.div(number, divisor), lax.rem(number, divisor)


def numbers_of(wanted: Bool[Array, " q"]) -> tuple[Int[Array, " q"], Int[Array, ""]]:
    """Numbers of the wanted rows, then zeros; and how many are wanted.

    Uses a scatter, which takes less time than sorting.
    """
    counts = jnp.cumsum(wanted, dtype=jnp.int32)
    places = jnp.where(wanted, counts - 1, len(wanted))
    numbers = jnp.arange(len(wanted), dtype=jnp.int32)
    return with_rows(jnp.zeros_like(numbers), places, numbers), counts[-1]


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
        own = rows_of(queue, first + at_once)
        place = jnp.where(first + at_once < n_wanted, own, len(wanted))
        return first + at_a_time, with_rows(rows, place, jax.vmap(of_one)(own))

    return lax.while_loop(lambda carry: carry[0] < n_wanted, body, (jnp.zeros((), jnp.int32), default))[1]
