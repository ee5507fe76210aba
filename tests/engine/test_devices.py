"""Chunks over workers: sizes, order of results, and what an error does."""

import threading
import time

import jax
import jax.numpy as jnp
import pytest

from jaxgmm.engine.devices import Machine, chunk_size, machine, map_chunks, n_slots


def no_halves(_: object) -> list:
    return []


CPU = Machine(jax.local_devices()[:1] * 2, working_set=512 * 1024, chunk_budget=64 * 2**20)


@pytest.mark.parametrize("n_data_sets", [1, 7, 1000, 10**6])
@pytest.mark.parametrize("data_set_bytes", [100, 10**6, 10**9])
def test_chunks_keep_to_the_budget(n_data_sets: int, data_set_bytes: int) -> None:
    size = chunk_size(n_data_sets, data_set_bytes, 1, CPU)
    assert size == 1 or size * data_set_bytes <= CPU.chunk_budget
    assert size & (size - 1) == 0


def test_slots_fill_half_the_working_set_of_a_core() -> None:
    assert n_slots(1024, CPU) == 64
    assert n_slots(8 * 1024, CPU) == 32
    assert n_slots(100 * 1024, CPU) == 2
    # Never a single one: its products do not use a core as well.
    assert n_slots(10**9, CPU) == 2


def test_chunks_fill_the_slots_where_data_sets_suffice() -> None:
    assert chunk_size(64, 100, 64, CPU) == 64
    assert chunk_size(5, 100, 64, CPU) == 8
    assert chunk_size(10**6, 10**7, 64, CPU) * 10**7 <= CPU.chunk_budget


class Gpu:
    platform = "gpu"


def test_a_gpu_gets_one_chunk_within_the_budget() -> None:
    # Two workers, of one device.
    gpu = Machine([Gpu()] * 2, working_set=256 * 2**20, chunk_budget=4 * 2**30)
    assert chunk_size(100_000, 1000, 1, gpu) == 13 * 2**13
    assert chunk_size(10**6, 2**20, 1, gpu) == 2**12
    assert chunk_size(70_000, 1000, 1, gpu) == 9 * 2**13


@pytest.mark.parametrize("n_data_sets", [100, 70_000, 262_200])
def test_all_gpus_are_busy(n_data_sets: int) -> None:
    gpus = Machine([Gpu() for _ in range(4)] * 2, working_set=256 * 2**20, chunk_budget=4 * 2**30)
    n_chunks = -(-n_data_sets // chunk_size(n_data_sets, 1000, 1, gpus))
    assert n_chunks >= 4


@pytest.mark.parametrize("n_data_sets", [100, 1000, 1025, 1100, 1500, 5000])
def test_chunks_keep_all_workers_busy(n_data_sets: int) -> None:
    size = chunk_size(n_data_sets, 100, 1, CPU)
    n_chunks = -(-n_data_sets // size)
    busiest = size * -(-n_chunks // len(CPU.devices))
    assert busiest <= 1.3 * n_data_sets / len(CPU.devices)


def test_chunk_size_does_not_follow_every_number_of_data_sets() -> None:
    assert len({chunk_size(n, 1000, 1, CPU) for n in range(1, 10_000)}) < 16


def test_every_chunk_is_done_in_float64_and_comes_back() -> None:
    seen = []

    def work(chunk: int) -> int:
        seen.append((chunk, jnp.ones(()).dtype))
        return chunk

    done = list(map_chunks(work, range(10), lambda _: "ten", no_halves, CPU))
    assert sorted(done) == [(chunk, chunk) for chunk in range(10)]
    assert sorted(seen) == [(chunk, jnp.dtype(jnp.float64)) for chunk in range(10)]
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
        list(map_chunks(work, range(1000), lambda chunk: chunk, no_halves, CPU))
    assert len(done) < 100


def test_of_chunks_that_share_a_program_one_goes_ahead() -> None:
    running, most = [], []

    def work(chunk: int) -> int:
        running.append(chunk)
        most.append((len(most), len(running)))
        time.sleep(0.02)
        running.remove(chunk)
        return 1

    list(map_chunks(work, range(12), lambda _: "a program of this test", no_halves, CPU))
    assert most[0][1] == most[1][1] == 1
    assert max(n for _, n in most) == 2


@pytest.mark.parametrize("error", [MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")])
def test_chunks_too_large_for_the_memory_are_halved(error: Exception) -> None:
    done = []

    def work(chunk: tuple[int, ...]) -> int:
        if len(chunk) > 2:
            raise error
        done.extend(chunk)
        return len(chunk)

    def halves(chunk: tuple[int, ...]) -> list[tuple[int, ...]]:
        return [chunk[: len(chunk) // 2], chunk[len(chunk) // 2 :]] if len(chunk) > 1 else []

    values = list(map_chunks(work, [tuple(range(8)), tuple(range(8, 13))], len, halves, CPU))
    assert sorted(done) == [*range(13)]
    assert sum(len(chunk) for chunk, _ in values) == 13


def test_a_chunk_that_cannot_be_cut_ends_in_the_error() -> None:
    def work(_: int) -> int:
        raise MemoryError

    with pytest.raises(MemoryError):
        list(map_chunks(work, [1, 2], lambda _: "no memory", no_halves, CPU))


def test_other_errors_are_no_reason_to_cut() -> None:
    def work(_: int) -> int:
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        list(map_chunks(work, [1, 2], lambda _: "internal", lambda chunk: [chunk, chunk], CPU))


def test_all_cores_work() -> None:
    assert len(machine().devices) >= 1
    assert machine().chunk_budget > machine().working_set
