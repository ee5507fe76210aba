"""Rows that few of many need."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgmm.engine.some import for_some, numbers_of


def test_numbers_of_what_is_wanted_come_first() -> None:
    numbers, n_wanted = numbers_of(jnp.asarray([False, True, False, False, True, True]))
    assert int(n_wanted) == 3
    assert numbers[:3].tolist() == [1, 4, 5]
    assert int(numbers_of(jnp.zeros(6, bool))[1]) == 0


@pytest.mark.parametrize("at_a_time", [1, 2, 16])
def test_rows_are_computed_where_they_are_wanted(at_a_time: int) -> None:
    wanted, default = jnp.asarray([True, False, True, True, False]), (jnp.zeros(5), jnp.full((5, 2), -1.0))

    def of_one(row: jax.Array) -> tuple[jax.Array, jax.Array]:
        number = row.astype(jnp.float32)
        return number + 1, jnp.stack([number, 10 * number])

    first, second = jax.jit(lambda: for_some(of_one, wanted, default, at_a_time))()
    np.testing.assert_array_equal(first, [1, 0, 3, 4, 0])
    np.testing.assert_array_equal(second, [[0, 0], [-1, -1], [2, 20], [3, 30], [-1, -1]])


def test_nothing_is_computed_where_none_is_wanted() -> None:
    rows = for_some(lambda row: jnp.full((), jnp.nan), jnp.zeros(3, bool), jnp.ones(3), 2)
    np.testing.assert_array_equal(rows, 1)
