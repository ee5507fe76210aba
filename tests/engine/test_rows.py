"""Rows by number, and work that few of many rows need."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgmm.engine.rows import for_some, numbers_of, quotient_and_rest, rows_of, with_rows


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


def test_rows_are_taken_and_put_by_number() -> None:
    tree = {"a": jnp.arange(4.0), "b": jnp.arange(8.0).reshape(4, 2)}
    number = jnp.asarray([3, 1], jnp.int32)
    taken = rows_of(tree, number)
    np.testing.assert_array_equal(taken["a"], [3, 1])
    np.testing.assert_array_equal(jax.vmap(lambda one: rows_of(tree, one)["b"])(number), taken["b"])
    # 4 is out of range.
    put = with_rows(tree, jnp.asarray([4, 0], jnp.int32), taken)
    np.testing.assert_array_equal(put["a"], [1, 1, 2, 3])
    np.testing.assert_array_equal(put["b"], [[2, 3], [2, 3], [4, 5], [6, 7]])


def test_numbers_are_divided() -> None:
    number = jnp.arange(11, dtype=jnp.int32)
    quotient, rest = quotient_and_rest(number, 4)
    np.testing.assert_array_equal(quotient, np.arange(11) // 4)
    np.testing.assert_array_equal(rest, np.arange(11) % 4)
    assert quotient.dtype == rest.dtype == number.dtype
