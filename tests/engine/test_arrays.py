"""What users pass as numbers is read, or refused in a sentence."""

from decimal import Decimal
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from scipy import sparse

import jaxgmm
from jaxgmm.engine.arrays import numeric
from jaxgmm.engine.batch import batch, per_sample

FRAME = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [4, 5, 6]})
ROWS = FRAME.to_numpy(float)


class OfAGraph:
    """Stands in for a tensor of which a gradient is wanted."""

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")


@pytest.mark.parametrize(
    "given",
    [
        FRAME,
        FRAME.convert_dtypes(),
        FRAME.convert_dtypes(dtype_backend="pyarrow"),
        FRAME.astype(object),
        pl.DataFrame(ROWS),
        pa.table({"a": [1.0, 2.0, 3.0], "b": [4, 5, 6]}),
        [[Decimal(1), Fraction(4)], [np.float32(2), 5], [np.int8(3), Decimal("6.0")]],
        np.array([[True, 4], [2.0, 5], [3, 6]], dtype=object),
        jnp.asarray(ROWS),
        jnp.asarray(ROWS, jnp.bfloat16),
        memoryview(ROWS),
    ],
)
def test_numbers_of_other_libraries_are_read(given: object) -> None:
    np.testing.assert_array_equal(batch(given).samples, ROWS)


@pytest.mark.parametrize(
    "given",
    [
        pd.DataFrame({"a": [1, None], "b": [2.0, 3.0]}).convert_dtypes(),
        [[1, 2.0], [None, 3.0]],
        np.array([[1, 2.0], [None, 3.0]], dtype=object),
        pl.DataFrame({"a": [1, None], "b": [2.0, 3.0]}),
        pa.table({"a": [1, None], "b": [2.0, 3.0]}),
    ],
)
def test_missing_values_are_nan(given: object) -> None:
    np.testing.assert_array_equal(batch(given).samples, [[1, 2], [np.nan, 3]])


@pytest.mark.parametrize(
    "given",
    [
        [FRAME, FRAME[:2]],
        [FRAME, ROWS[:2]],
        [ROWS, FRAME[:2]],
        [ROWS.tolist(), ROWS[:2].tolist()],
        (ROWS.tolist(), FRAME[:2]),
        [pl.DataFrame(ROWS), pl.DataFrame(ROWS[:2])],
        [FRAME.convert_dtypes(), FRAME[:2]],
        np.array([ROWS, ROWS[:2]], dtype=object),
        [pa.table({"a": [1.0, 2.0, 3.0], "b": [4, 5, 6]}), FRAME[:2]],
    ],
)
def test_sequences_of_anything_are_data_sets(given: object) -> None:
    data = batch(given)
    assert data.lengths.tolist() == [3, 2]
    np.testing.assert_array_equal(data.samples, np.concatenate([ROWS, ROWS[:2]]))


def test_sequences_of_equal_lengths_are_data_sets_too() -> None:
    for given in ([FRAME, FRAME], [ROWS.tolist()] * 2, np.stack([ROWS] * 2), [FRAME, ROWS]):
        assert batch(given).lengths.tolist() == [3, 3]
        assert not batch(given).is_single


def test_values_of_samples_are_read_alike() -> None:
    data = batch([ROWS, ROWS[:2]])
    for given in (
        [[1, 2, 3], [4, 5]],
        [pd.Series([1, 2, 3]), np.array([4, 5])],
        [pd.Series([1, 2, 3], dtype="Int64"), pl.Series([4, 5])],
        [[Decimal(1), 2, 3], [4, 5]],
    ):
        np.testing.assert_array_equal(per_sample(given, data, "w"), [1, 2, 3, 4, 5])


@pytest.mark.slow
def test_labels_and_weights_of_any_type_start_the_same_fit() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 2)) + 8 * (np.arange(40) % 2)[:, None]
    labels = np.arange(40) % 2
    expected = jaxgmm.fit(x, 2, init=labels, sample_weight=np.ones(40))
    for given in (pd.Series(labels, dtype="Int64"), labels.tolist(), labels.astype(object), pl.Series(labels)):
        found = jaxgmm.fit(pd.DataFrame(x), 2, init=given, sample_weight=pd.Series(np.ones(40)).convert_dtypes())
        assert found.log_likelihood == expected.log_likelihood
    shares = np.eye(2)[labels]
    for given in (shares, pd.DataFrame(shares), shares.astype(object)):
        assert jaxgmm.fit(x, 2, init=given).log_likelihood == pytest.approx(expected.log_likelihood)
    with pytest.raises(ValueError, match="they run from 0 to 4294967296"):
        jaxgmm.fit(x, 2, init=labels * 2**32)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (pd.DataFrame({"a": [1.0, 2.0], "name": ["u", "v"]}), r"x\[0, 1\], in column 'name', is 'u' \(str\)"),
        (pa.table({"a": [1.0, 2.0], "name": ["u", "v"]}), r"x\[0, 1\], in column 'name', is 'u' \(str\)"),
        ([[1.0, 2.0], [3.0, "4"]], r"x\[1, 1\] is '4' \(str\)"),
        (np.array([["1", "2"]]), r"x\[0, 0\] is '1' \(str\)"),
        (np.array([[1.0, {}]], dtype=object), r"x\[0, 1\] is {} \(dict\)"),
        (np.array([[1.0, 1j]], dtype=object), r"x\[0, 1\] is 1j \(complex\)"),
        (pd.DataFrame({"a": pd.to_datetime(["2020-01-01"])}), "dtype is datetime64"),
        (pd.DataFrame({"t": pd.to_datetime(["2020-01-01"]), "b": [1.0]}), r"x\[0, 0\], in column 't', is "),
        (np.array([[10**400]], dtype=object), "float64 can represent"),
        (sparse.csr_matrix(ROWS), r"Pass its .toarray\(\)"),
        ([sparse.csr_array(ROWS)] * 2, r"Pass its .toarray\(\)"),
        (pl.DataFrame(ROWS).lazy(), r"Pass its .collect\(\)"),
        ({"a": [1.0]}, r"got {'a': \[1.0\]} \(dict\)"),
        ((row for row in ROWS), "Pass a list or an array of what it yields"),
        ({"a": ROWS}.values(), "Pass a list or an array of what it yields"),
        ("text", r"got 'text' \(str\)"),
        (None, "got None"),
        (OfAGraph(), "x cannot be read as a NumPy array: Can't call"),
        (pd.Series([1.0, 2.0]), r"pass x.to_frame\(\)"),
        ([pd.Series([1.0, 2.0])] * 2, r"pass x\[0\].to_frame\(\)"),
        (np.zeros(2, [("a", float)]), "real numbers; its dtype is"),
    ],
)
def test_what_is_not_numeric_is_named(given: object, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        batch(given)
    assert "\n" not in str(error.value)


def test_native_floats_are_not_copied() -> None:
    for dtype in (np.float32, np.float64):
        x = ROWS.astype(dtype)
        assert numeric(x, "x") is x


def test_masked_entries_are_refused_and_masks_without_any_are_not() -> None:
    assert numeric(np.ma.masked_array(ROWS), "x").shape == (3, 2)
    with pytest.raises(ValueError, match="masked entries"):
        numeric(np.ma.masked_equal(ROWS, 5), "x")


@pytest.mark.parametrize(
    "traced",
    [
        jax.jit(lambda t: jaxgmm.fit(t * ROWS, 1).log_likelihood),
        jax.grad(lambda t: jaxgmm.fit(t * ROWS, 1).log_likelihood),
        lambda t: jax.vmap(lambda t: jaxgmm.fit(t * ROWS, 1).log_likelihood)(t * jnp.ones(2)),
        jax.jit(lambda t: jaxgmm.fit([t * ROWS, ROWS], 1).log_likelihood),
        jax.jit(lambda t: jaxgmm.fit([[t, 1.0], [2.0, 3.0]], 1).log_likelihood),
        jax.jit(lambda t: jaxgmm.fit(ROWS, 1, sample_weight=t * np.ones(3)).log_likelihood),
        jax.jit(lambda t: jaxgmm.fit(ROWS, 1, init=t * np.ones((3, 1))).log_likelihood),
        jax.jit(lambda t: jaxgmm.fit(ROWS, 1, key=jax.random.key(t.astype(int))).log_likelihood),
        jax.jit(lambda t: t + jaxgmm.fit(ROWS, 1).log_likelihood),
        jax.jit(lambda t: jaxgmm.sweep(t * ROWS, [1]).best.log_likelihood),
        jax.jit(lambda t: jaxgmm.diagnose(jaxgmm.Mixture(np.ones(1), np.zeros((1, 2)), np.ones((1, 2))), t * ROWS)),
        jax.jit(lambda t: jaxgmm.bootstrap(jaxgmm.Mixture(np.ones(1), np.zeros((1, 2)), np.ones((1, 2))), t * ROWS)),
    ],
)
def test_tracing_is_refused_with_what_to_use_instead(traced) -> None:
    with pytest.raises(ValueError, match=r"traced by jax.jit.*jax.pure_callback.*jaxgmm.fit_differentiable"):
        traced(jnp.float32(1))
