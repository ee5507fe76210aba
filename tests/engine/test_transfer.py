"""Arrays in pieces are the same arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgmm.engine import batch, transfer


@pytest.mark.parametrize("piece", [1, 100, 10**6])
def test_pieces_make_a_whole(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PIECE", piece)
    rows = np.random.default_rng(0).normal(size=(7, 5, 2)).astype(np.float32)
    there = transfer.sent(rows, (8, 6))
    assert there.shape == (8, 6, 2)
    np.testing.assert_array_equal(there[:7, :5], rows)
    assert not np.any(there[7])
    assert not np.any(there[:, 5])
    np.testing.assert_array_equal(transfer._in_pieces(there), there)


def test_arrays_are_sent_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PIECE", 100)
    rng = np.random.default_rng(0)
    tree = (rng.normal(size=(7, 2)).astype(np.float32), np.arange(7, dtype=np.int32))
    for there, own in zip(transfer.sent(tree, (9,)), tree, strict=True):
        np.testing.assert_array_equal(there[:7], own)
        assert len(there) == 9
        assert not np.any(there[7:])


@pytest.mark.parametrize("piece", [10, 10**6])
def test_packed_arrays_come_back_as_they_were(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PIECE", piece)
    # The CPU stands in for an accelerator.
    monkeypatch.setattr(transfer, "_is_large", lambda leaf: leaf.nbytes > piece)
    rng = np.random.default_rng(0)
    tree = {"a": rng.normal(size=(3, 2)).astype(np.float32), "b": (np.arange(4), None), "c": np.array([True, False])}
    tree |= {"d": rng.normal(size=5).astype(np.float32), "e": np.int32(7)}
    packed = jax.jit(transfer.packed)(tree)
    assert len(packed.blocks) == 3
    found = transfer.fetched(packed)
    assert jax.tree.structure(found) == jax.tree.structure(tree)
    jax.tree.map(np.testing.assert_array_equal, found, tree)


def test_fetched_arrays_are_those_of_numpy() -> None:
    tree = {"a": jnp.arange(3), "b": (np.ones(2), None)}
    found = transfer.fetched(tree)
    assert isinstance(found["a"], np.ndarray)
    np.testing.assert_array_equal(found["a"], [0, 1, 2])
    assert found["b"][1] is None


@pytest.mark.parametrize("device", [None, "cpu"])
def test_the_default_device_may_be_a_name(device: str | None) -> None:
    with jax.default_device(device):
        assert transfer.is_for_cpu()


def test_samples_for_an_accelerator_are_sent_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).normal(size=(5, 40, 2))
    data, data_sets = batch.batch(x), np.array([1, 2, 3])
    with jax.enable_x64(True):
        here = batch.placed(data.samples, data, data_sets, 48, 4)
        monkeypatch.setattr(batch, "is_for_cpu", lambda: False)
        there = batch.placed(data.samples, data, data_sets, 48, 4)
    assert isinstance(here, np.ndarray)
    assert isinstance(there, jax.Array)
    np.testing.assert_array_equal(there[:3, :40], here[:3, :40])
    np.testing.assert_array_equal(there[:3, :40], x[1:4])
