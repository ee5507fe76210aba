"""What is decided by shape."""

from typing import Any

import numpy as np
import pytest

from jaxgmm.driver import plan, ways
from jaxgmm.driver.program import Program, Request, Slots
from jaxgmm.em import fused
from jaxgmm.engine.batch import Batch, Sizes, batch
from jaxgmm.engine.devices import SLOTS_IN_TURN, Machine
from jaxgmm.engine.fused import WARP, Lanes
from jaxgmm.numerics.elimination import MOST_ENTRIES


class Cpu:
    platform = "cpu"


class Gpu:
    platform = "gpu"


def chunks(data: Batch, model: tuple[int, str, float], request: Request, machine: Machine) -> list[plan.Chunk]:
    return plan.plan_for(data.sizes, [model], request, machine).chunks(data.lengths)


def planned(shape: tuple[int, ...], n_components: int = 3, family: str = "full", **changes: object) -> plan.Chunk:
    device = changes.pop("device", Cpu)
    machine = Machine([device()] * 2, working_set=2**20, chunk_budget=192 * 2**20)
    tol, max_iter = changes.pop("tol", 1e-5), changes.pop("max_iter", 1000)
    precision = changes.pop("precision", "mixed")
    request = Request("k-means++", 10, 10, precision, tol, max_iter, np.int64(0))
    return chunks(batch(np.zeros(shape)), (n_components, family, 1e-6), request, machine)[0]


@pytest.mark.parametrize(
    ("shape", "n_components", "family", "by_vectors"),
    [
        ((1000, 300, 2), 3, "full", True),
        ((1000, 300, 3), 8, "full", True),
        ((1000, 300, 4), 3, "full", False),
        ((1000, 300, 4), 3, "diag", True),
        ((1000, 300, 5), 3, "diag", False),
        ((1000, 300, 2), 9, "full", False),
        ((100, 1024, 2), 3, "full", True),
        ((100, 1025, 2), 3, "full", False),
        ((300, 2), 3, "full", True),
    ],
)
def test_small_data_sets_are_read_by_vectors(
    shape: tuple[int, ...], n_components: int, family: str, by_vectors: bool
) -> None:
    program = planned(shape, n_components, family).model_sets[0].program
    assert (program.search.e_step == "vectors") is by_vectors
    assert program.finish._replace(stride=program.search.stride) == program.search


def test_a_stack_has_as_many_slots_as_are_read_in_turn() -> None:
    assert planned((1000, 300, 2)).model_sets[0].program.search.number == SLOTS_IN_TURN
    assert planned((300, 2)).model_sets[0].program.search.number == 16
    # Those of a few data sets have as many runs for all numbers that share a chunk size.
    assert {planned((n, 300, 2)).model_sets[0].program.search.number for n in (3, 4)} == {64}


def test_little_work_is_compiled_at_once() -> None:
    assert planned((300, 2)).model_sets[0].program.effort == "at once"
    assert planned((1000, 300, 2)).model_sets[0].program.effort == "quickly"


def test_nothing_that_is_compiled_depends_on_the_number_of_iterations() -> None:
    # By estimate ten times too much to be compiled quickly at 50 iterations, and too little at 1.
    for shape in ((300, 300, 2), (300, 300, 6), (3, 5000, 2)):
        one, many = (planned(shape, max_iter=max_iter) for max_iter in (1, 1000))
        assert one.size == many.size
        assert [model_set.program for model_set in one.model_sets] == [
            model_set.program for model_set in many.model_sets
        ]


@pytest.mark.parametrize(
    ("shape", "n_components", "family", "expected"),
    [
        ((1000, 300, 3), 8, "full", "vectors"),
        ((1000, 300, 4), 3, "full", "products in one kernel"),
        ((1000, 300, 8), 3, "tied", "products in one kernel"),
        ((1000, 300, 8), 3, "diag", "products"),
        ((3, 20_000, 16), 32, "full", "products in one kernel"),
        ((3, 20_000, 23), 32, "full", "products"),
        ((500, 4), 3, "full", "products in one kernel"),
    ],
)
def test_larger_covariances_are_inverted_by_one_kernel(
    shape: tuple[int, ...], n_components: int, family: str, expected: str
) -> None:
    assert planned(shape, n_components, family).model_sets[0].program.search.e_step == expected


@pytest.mark.parametrize("n_features", [4, 8, 15, 30])
@pytest.mark.parametrize("n_components", [1, 8, 20])
@pytest.mark.parametrize("n_samples", [30, 2000, 100_000])
def test_no_more_is_eliminated_at_a_time_than_fits_one_kernel(
    n_features: int, n_components: int, n_samples: int
) -> None:
    slots = planned((4, n_samples, n_features), n_components).model_sets[0].program.search
    n_entries = slots.number * n_components * n_features**2
    assert n_entries <= MOST_ENTRIES or slots.e_step != "products in one kernel"


def test_other_platforms_and_versions_keep_to_matrix_products(monkeypatch: pytest.MonkeyPatch) -> None:
    def marked(**changes: object) -> list[bool]:
        both = [planned((1000, 300, n_features), **changes).model_sets[0].program.search for n_features in (2, 8)]
        return [slots.e_step != "products" for slots in both]

    assert marked() == [True, True]
    assert marked(device=Gpu) == [False, False]
    monkeypatch.setattr(ways, "are_known", lambda: False)
    assert marked() == [False, False]


@pytest.mark.parametrize(("tol", "runs_of_a_slot"), [(0.0, 1), (1e-5, 4)])
def test_a_gpu_has_no_more_slots_than_runs_can_fill(tol: float, runs_of_a_slot: int) -> None:
    # Ten starts of each, in mixed precision, which stacks none.
    for n_data_sets in (2, 40, 300):
        slots = planned((n_data_sets, 300, 5), device=Gpu, tol=tol).model_sets[0].program.search
        rounded = 2 ** int(np.ceil(np.log2(n_data_sets)))
        assert slots.number < 2 * 10 * rounded / runs_of_a_slot


def test_ragged_data_of_many_components_share_few_programs() -> None:
    rng = np.random.default_rng(0)
    lengths = np.exp(rng.uniform(np.log(30), np.log(5000), 60)).astype(int)
    data = batch([np.zeros((n, 2)) for n in lengths])
    machine = Machine([Cpu()] * 2, working_set=2**20, chunk_budget=192 * 2**20)
    request = Request("k-means++", 2, 2, "mixed", 1e-5, 1000, np.int64(0))
    compiled = set()
    for n_components in range(1, 21):
        for chunk in chunks(data, (n_components, "full", 1e-6), request, machine):
            for model_set in chunk.model_sets:
                program, shape = model_set.program, (model_set.program.layout, model_set.n_samples, chunk.size)
                compiled |= {("begin", *shape), ("choose", *shape)}
                compiled |= {
                    ("run", *shape, program.search, program.search_dtype),
                    ("run", *shape, program.finish, "float64"),
                }
    assert len(compiled) <= 12


def test_programs_are_those_of_any_number_of_cores() -> None:
    lengths = np.random.default_rng(1).integers(30, 3000, 20_000)
    sizes = Sizes(lengths, int(np.sum(lengths)), 2, is_single=False, is_weighted=False)
    request = Request("k-means++", 10, 10, "mixed", 1e-9, 1000, np.int64(0))
    programs = []
    for n_cores in (1, 2, 64):
        machine = Machine([Cpu()] * n_cores, working_set=2**20, chunk_budget=192 * 2**20)
        buckets = plan.plan_for(sizes, [(3, "full", 1e-6)], request, machine).buckets
        programs.append([(bucket.n_samples, bucket.model_sets[0].program) for bucket in buckets])
    assert programs[0] == programs[1] == programs[2]


def test_parts_of_a_job_have_its_programs() -> None:
    lengths = np.random.default_rng(2).integers(10, 3000, 20_000)
    sizes = Sizes(lengths, int(np.sum(lengths)), 2, is_single=False, is_weighted=False)
    machine = Machine([Cpu()] * 2, working_set=2**20, chunk_budget=192 * 2**20)
    request = Request("k-means++", 10, 10, "mixed", 1e-9, 1000, np.int64(0))
    planned = plan.plan_for(sizes, [(3, "full", 1e-6)], request, machine)

    def of_each(chunks: list[plan.Chunk], first: int) -> dict[int, tuple]:
        return {
            first + int(number): (chunk.size, chunk.model_sets[0].n_samples, chunk.model_sets[0].program)
            for chunk in chunks
            for number in chunk.data_sets
        }

    whole = of_each(planned.chunks(lengths), 0)
    assert len(planned.buckets) > 2
    parts = [of_each(planned.chunks(part), 5000 * i) for i, part in enumerate(np.split(lengths, 4))]
    assert whole == {number: own for part in parts for number, own in part.items()}
    assert all(n_samples >= lengths[number] for number, (_, n_samples, _) in whole.items())
    # The same lengths alone would be planned otherwise.
    few = sizes._replace(lengths=lengths[:50], n_rows=int(np.sum(lengths[:50])))
    alone = plan.plan_for(few, [(3, "full", 1e-6)], request, machine)
    assert len(alone.buckets) < len(planned.buckets)


def test_float32_searches_where_there_is_enough_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "STRIDE", 4)

    def search(n_data_sets: int, **changes: object) -> tuple[str, int]:
        program = planned((n_data_sets, 300, 2), **changes).model_sets[0].program
        return program.search_dtype, program.finish.stride

    # In mixed precision float64 looks more often for ended runs, whichever searches: it has one program.
    assert search(4) == ("float64", ways.STRIDE_OF_SHORT_RUNS)
    assert search(1000) == ("float32", ways.STRIDE_OF_SHORT_RUNS)
    assert search(1000, precision="float64")[1] == 4


def test_uneven_work_is_cut_finer() -> None:
    assert planned((1000, 300, 2), tol=0.0).size == 512
    assert planned((1000, 300, 2)).size == 128
    # Where idle slots cost something, a chunk has many runs for each.
    assert planned((64, 2000, 8), 8, tol=0.0).size == 32
    assert planned((64, 2000, 8), 8).size == 8
    assert planned((400, 300, 5)).size == 32
    # Little work is not worth it.
    assert planned((128, 300, 2)).size == 64


def test_very_little_work_is_not_divided() -> None:
    assert planned((8, 300, 2)).size == 8
    assert planned((16, 300, 2)).size == 8
    # Matrix products are not one kernel, and gain.
    assert planned((16, 300, 8)).size == 8


def on_a_card(shape: tuple[int, ...], n_components: int = 3, family: str = "full", **changes: Any) -> Program:
    machine = Machine([Gpu()] * 2, working_set=2**28, chunk_budget=2**32, has_kernels=True)
    precision, n_history = changes.pop("precision", "mixed"), changes.pop("n_history", 0)
    request = Request("k-means++", 10, 10, precision, 1e-5, 1000, np.int64(0), n_history=n_history)
    data = batch(np.broadcast_to(np.float32(0), shape))
    return chunks(data, (n_components, family, 1e-6), request, machine)[0].model_sets[0].program


@pytest.mark.parametrize(
    ("shape", "n_components", "family", "in_kernels"),
    [
        ((10_000, 300, 2), 3, "full", "narrow, narrow, narrow"),
        ((10_000, 100, 1), 2, "tied", "narrow, narrow, narrow"),
        ((4_000, 256, 3), 4, "full", "narrow, wide, wide"),
        ((64, 2_000, 8), 8, "full", "wide, slots, slots"),
        ((64, 2_000, 14), 8, "diag", "wide, wide, wide"),
        ((64, 2_000, 10), 8, "full", "slots, slots, slots"),
        ((64, 300, 2), 33, "full", "slots, slots, slots"),
        ((8, 50_000, 2), 3, "full", "slots, slots, slots"),
    ],
)
def test_small_runs_have_kernels_where_a_card_has(
    shape: tuple[int, ...], n_components: int, family: str, in_kernels: str
) -> None:
    program = on_a_card(shape, n_components, family)
    ways = program.search, program.finish, program.centred
    assert in_kernels == ", ".join("slots" if isinstance(w, Slots) else "wide" if w.is_wide else "narrow" for w in ways)
    # So little work is else not worth a program more.
    assert (program.search_dtype == "float32") == isinstance(program.search, Lanes)
    centred = program.centred
    assert centred.e_step == "centred" if isinstance(centred, Slots) else centred.centred
    for way in ways:
        if isinstance(way, Lanes):
            assert way.group % way.runs == 0
            assert way.group >= way.runs


def test_what_kernels_do_not_know_is_left_to_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(on_a_card((1000, 300, 2)).search, Lanes)
    assert isinstance(on_a_card((1000, 300, 2), precision="float64", n_history=10).search, Slots)
    for known in ("KNOWN_FAMILIES", "METHODS"):
        with monkeypatch.context() as patched:
            patched.setattr(fused, known, {})
            assert isinstance(on_a_card((1000, 300, 2)).search, Slots)


def test_few_runs_have_more_lanes() -> None:
    many, few = on_a_card((100_000, 300, 2)), on_a_card((10, 300, 2))
    assert many.search.width < few.search.width == WARP
    # One run of each fit is finished.
    assert many.finish.group <= many.search.group


@pytest.mark.parametrize("size", [*range(1, 18), 9 * 2**13])
def test_a_chunk_of_any_size_is_halved(size: int) -> None:
    waiting, found = [plan.Chunk(np.arange(size), size, ())], []
    while waiting:
        chunk = waiting.pop()
        assert len(chunk.filled_up) == chunk.size
        parts = chunk.halves() if chunk.size > max(1, size // 16) else []
        waiting += parts
        found += [] if parts else chunk.data_sets.tolist()
    assert sorted(found) == list(range(size))
