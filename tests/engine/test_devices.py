"""Chunks over workers: sizes, order of results, and what an error does."""

import threading
import time

import jax
import jax.numpy as jnp
import pytest

from jaxgmm.engine.devices import Machine, chunk_size, machine, map_chunks, n_slots

CPU = Machine(jax.local_devices()[:1] * 2, working_set=512 * 1024, chunk_budget=64 * 2**20)


@pytest.mark.parametrize("n_data_sets", [1, 7, 1000, 10**6])
@pytest.mark.parametrize("data_set_bytes", [100, 10**6, 10**9])
def test_chunks_keep_to_the_budget(n_data_sets: int, data_set_bytes: int) -> None:
    size = chunk_size(n_data_sets, data_set_bytes, CPU)
    assert size == 1 or size * data_set_bytes <= CPU.chunk_budget
    assert size & (size - 1) == 0


def test_slots_fit_the_working_set() -> None:
    assert n_slots(8 * 1024, CPU) == 64
    assert n_slots(100 * 1024, CPU) == 4
    assert n_slots(10**9, CPU) == 1


def test_chunk_size_does_not_follow_every_number_of_data_sets() -> None:
    assert len({chunk_size(n, 1000, CPU) for n in range(1, 10_000)}) < 16


def test_every_chunk_is_done_in_float64_and_reported() -> None:
    seen, reported = [], []

    def work(chunk: int) -> int:
        seen.append((chunk, jnp.ones(()).dtype))
        return chunk

    map_chunks(work, range(10), lambda _: "ten", CPU, reported.append)
    assert sorted(seen) == [(chunk, jnp.dtype(jnp.float64)) for chunk in range(10)]
    assert sorted(reported) == [*range(10)]
    assert jnp.ones(()).dtype == jnp.float32


def test_an_error_stops_the_chunks_not_yet_begun() -> None:
    done = []
    hold = threading.Event()

    def work(chunk: int) -> int:
        if chunk == 0:
            raise RuntimeError("first")
        hold.wait(0.05)
        done.append(chunk)
        return 1

    with pytest.raises(RuntimeError, match="first"):
        map_chunks(work, range(1000), lambda chunk: chunk, CPU, lambda _: None)
    assert len(done) < 100


def test_of_chunks_that_share_a_program_one_goes_ahead() -> None:
    running, most = [], []

    def work(chunk: int) -> int:
        running.append(chunk)
        most.append((len(most), len(running)))
        time.sleep(0.02)
        running.remove(chunk)
        return 1

    map_chunks(work, range(12), lambda _: "a program of this test", CPU, lambda _: None)
    assert most[0][1] == most[1][1] == 1
    assert max(n for _, n in most) == 2


def test_all_cores_work() -> None:
    assert len(machine().devices) >= 1
    assert machine().chunk_budget > machine().working_set
