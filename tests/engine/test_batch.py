"""Data sets of many sizes become a few padded shapes; shapes that do not fit are refused in words."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxgmm.engine import batch as batch_module
from jaxgmm.engine.batch import batch, of_each, padded, padded_lengths, per_sample, successive


def ragged(lengths: list[int], n_features: int = 2) -> list[np.ndarray]:
    return [np.full((n, n_features), float(n)) for n in lengths]


def test_every_layout_is_read() -> None:
    assert batch(np.zeros((5, 2))).is_single
    stack = batch(np.arange(30.0).reshape(3, 5, 2))
    assert (stack.n_data_sets, stack.lengths.tolist()) == (3, [5, 5, 5])
    sets = batch(ragged([4, 0, 7]))
    assert sets.lengths.tolist() == [4, 0, 7]
    assert batch([[1.0, 2.0], [3.0, 4.0]]).is_single
    assert batch(jnp.zeros((5, 2))).samples.shape == (5, 2)


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int64, np.float16, bool])
def test_narrow_numbers_widen(dtype: type) -> None:
    assert batch(np.ones((3, 2), dtype)).samples.dtype == np.float64


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros(5), r"has shape \(5,\). For one feature, pass x\[:, None\]"),
        (np.zeros((1, 2, 3, 4)), r"must be \(N, D\), \(B, N, D\) or a sequence"),
        (np.float64(3), "must be"),
        ([], "no data sets"),
        (np.zeros((0, 5, 2)), "no data sets"),
        (np.zeros((5, 0)), "no features"),
        ([np.zeros((4, 2)), np.zeros((4, 3))], r"x\[0\] has shape \(4, 2\) and x\[1\] has shape \(4, 3\)"),
        ([np.zeros(4)], r"pass x\[0\]\[:, None\]"),
        (np.array([["a", "b"]]), "real numbers"),
        (np.zeros((3, 2), complex), "real numbers"),
        ([[1.0], [1.0, 2.0]], "list of arrays"),
    ],
)
def test_other_layouts_are_refused_in_words(x: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        batch(x)


def test_lengths_from_30_to_5000_need_few_shapes() -> None:
    data = batch(ragged(list(range(30, 5001, 7)), 1))
    lengths = padded_lengths(data.sizes, 0)
    assert np.all(lengths >= data.lengths)
    assert np.all(lengths <= np.maximum(32, 2 * data.lengths))
    assert len(np.unique(lengths)) <= 9


@pytest.mark.parametrize("tolerated", [0, 300, 10**5, 10**12])
def test_lengths_join_the_next_larger_as_far_as_tolerated(tolerated: int) -> None:
    data = batch(ragged(list(range(30, 5001, 7)), 1))
    separate, joined = padded_lengths(data.sizes, 0), padded_lengths(data.sizes, tolerated)
    added = joined - separate
    assert np.all(added >= 0)
    for size in np.unique(joined):
        assert np.sum(added[joined == size]) <= tolerated * len(np.unique(separate))
    assert len(np.unique(padded_lengths(data.sizes, 10**12))) == 1


@pytest.mark.parametrize("n", [1, 31, 100, 300, 1000, 5000, 100_000])
def test_stack_is_padded_to_vectors_by_little(n: int) -> None:
    first, second = padded_lengths(batch(np.zeros((2, n, 1))).sizes, 10**12)
    assert first == second
    assert n <= first <= max(32, n * 17 / 16, n + 15)
    assert first % 16 == 0


def test_one_data_set_is_padded_to_a_power_of_two() -> None:
    assert padded_lengths(batch(np.zeros((300, 1))).sizes, 0).tolist() == [512]


def test_padded_rows_are_those_of_the_data_set() -> None:
    data = batch(ragged([4, 0, 7]))
    chunk = padded(data.samples, data, np.array([2, 0]), 8)
    assert chunk.shape == (2, 8, 2)
    assert np.all(chunk[0, :7] == 7)
    assert np.all(chunk[1, :4] == 4)


def test_stack_is_cut_without_a_copy() -> None:
    x = np.zeros((6, 32, 2))
    data = batch(x)
    assert np.shares_memory(padded(data.samples, data, np.array([2, 3]), 32), x)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [([2, 3, 4], slice(2, 5)), ([7], slice(7, 8)), ([2, 4, 3, 5], None), ([2, 4], None), ([3, 2], None), ([], None)],
)
def test_successive_numbers_are_a_slice(numbers: list[int], expected: slice | None) -> None:
    given = np.array(numbers, int)
    assert successive(given) is given if expected is None else successive(given) == expected


@pytest.mark.parametrize("numbers", [[1, 2], [2, 0]])
def test_rows_of_data_sets_are_the_same_on_an_accelerator(numbers: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    tree, data_sets = (np.arange(6.0, dtype=np.float32).reshape(3, 2), np.arange(3, dtype=np.int32)), np.array(numbers)
    here = of_each(tree, data_sets, 4)
    monkeypatch.setattr(batch_module, "is_for_cpu", lambda: False)
    for own, there, rows in zip(here, of_each(tree, data_sets, 4), tree, strict=True):
        assert len(own) == len(there) == 4
        np.testing.assert_array_equal(own[:2], rows[data_sets])
        np.testing.assert_array_equal(there[:2], rows[data_sets])


def test_sizes_of_one_length_are_counted() -> None:
    sizes = batch(np.zeros((6, 40, 2))).sizes
    assert sizes.in_short.lengths.tolist() == [40]
    assert sizes.in_short.n_each.tolist() == [6]
    assert sizes.repeated(3).in_short.n_each.tolist() == [18]
    uneven = batch(ragged([4, 7])).sizes
    assert uneven.in_short is uneven


def test_samples_on_an_accelerator_stay_there(monkeypatch: pytest.MonkeyPatch) -> None:
    # The CPU stands in for one.
    monkeypatch.setattr(batch_module, "_is_on_accelerator", lambda x: isinstance(x, jnp.ndarray))
    x = np.arange(60, dtype=np.float32).reshape(3, 10, 2)
    data = batch(jnp.asarray(x))
    chunk = padded(data.samples, data, np.array([2, 0]), 10)
    assert isinstance(data.samples, jnp.ndarray)
    assert isinstance(chunk, jnp.ndarray)
    np.testing.assert_array_equal(chunk, x[[2, 0]])
    np.testing.assert_array_equal(padded(data.samples, data, np.array([1]), 16)[:, :10], x[[1]])


def test_values_per_sample_follow_the_layout() -> None:
    stack = batch(np.zeros((3, 5, 2)))
    assert per_sample(np.ones((3, 5)), stack, "w").shape == (15,)
    assert per_sample(np.arange(5.0), stack, "w").tolist() == [*range(5)] * 3
    sets = batch(ragged([4, 7]))
    assert per_sample([np.zeros((4, 3)), np.zeros((7, 3))], sets, "r", (3,)).shape == (11, 3)


@pytest.mark.parametrize(
    ("x", "values", "words"),
    [
        (np.zeros((5, 2)), np.ones(4), r"shape \(5,\) to match x; it has shape \(4,\)"),
        (np.zeros((3, 5, 2)), np.ones((3, 4)), r"shape \(3, 5\) to match x"),
        (ragged([4, 7]), [np.ones(4), np.ones(6)], r"expected \(7,\), got shape \(6,\) in w\[1\]"),
        (ragged([4, 7]), [np.ones(4)], "expected 2 items, got 1 items"),
        (ragged([4, 7]), np.ones(11), "must be a sequence"),
    ],
)
def test_values_that_do_not_fit_are_refused_in_words(x: object, values: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        per_sample(values, batch(x), "w")


def test_weights_follow_their_data_sets() -> None:
    data = batch(ragged([2, 3, 1]))
    assert not data.is_weighted
    np.testing.assert_array_equal(data.weights(np.array([1, 2]), 4), [[1, 1, 1, 0], [1, 0, 0, 0]])
    data = data.weighted(np.arange(1, 7))
    assert data.is_weighted
    np.testing.assert_array_equal(data.weights(np.array([1, 2]), 4), [[3, 4, 5, 0], [6, 0, 0, 0]])
    # Of parts, of replicates, and of parts of these.
    np.testing.assert_array_equal(data.part(np.array([2, 0])).weights(np.arange(2), 2), [[6, 0], [1, 2]])
    repeated = data.repeated(2)
    np.testing.assert_array_equal(repeated.weights(np.array([1, 3, 4]), 3), [[1, 2, 0], [3, 4, 5], [6, 0, 0]])
    np.testing.assert_array_equal(repeated.part(slice(3, 5)).weights(np.arange(2), 3), [[3, 4, 5], [6, 0, 0]])
    assert not data.weighted(None).is_weighted
