"""What is decided by shape."""

import numpy as np
import pytest

from jaxgmm import plan
from jaxgmm.engine.batch import batch
from jaxgmm.engine.devices import SLOTS_IN_TURN, Machine
from jaxgmm.fit import what_to_run


class Cpu:
    platform = "cpu"


class Gpu:
    platform = "gpu"


def planned(shape: tuple[int, ...], n_components: int = 3, family: str = "full", **changes: object) -> plan.Chunk:
    device = changes.pop("device", Cpu)
    machine = Machine([device()] * 2, working_set=2**20, chunk_budget=192 * 2**20)
    tol, max_iter = changes.pop("tol", 1e-5), changes.pop("max_iter", 1000)
    program, options = what_to_run("k-means++", 10, None, "mixed", 0, tol, max_iter, 0)
    return plan.chunks(batch(np.zeros(shape)), [(n_components, family, 1e-6)], program, options, machine)[0]


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
    program = planned(shape, n_components, family).jobs[0].program
    assert program.by_vectors is by_vectors
    assert program.n_stacked_slots == 0


def test_a_stack_has_as_many_slots_as_are_read_in_turn() -> None:
    assert planned((1000, 300, 2)).jobs[0].program.n_slots == SLOTS_IN_TURN
    assert planned((300, 2)).jobs[0].program.n_slots == 16


def test_little_work_is_compiled_quickly_where_it_is_read_by_vectors() -> None:
    assert planned((300, 2)).jobs[0].program.quickly
    assert not planned((300, 6)).jobs[0].program.quickly
    assert not planned((1000, 300, 2)).jobs[0].program.quickly


def test_nothing_that_is_compiled_depends_on_the_number_of_iterations() -> None:
    # By estimate ten times too much to be compiled quickly at 50 iterations, and too little at 1.
    for shape in ((300, 300, 2), (300, 300, 6), (3, 5000, 2)):
        one, many = (planned(shape, max_iter=max_iter) for max_iter in (1, 1000))
        assert one.size == many.size
        assert [job.program for job in one.jobs] == [job.program for job in many.jobs]


def test_other_platforms_and_versions_keep_to_matrix_products(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not planned((1000, 300, 2), device=Gpu).jobs[0].program.by_vectors
    monkeypatch.setattr(plan, "are_known", lambda: False)
    assert not planned((1000, 300, 2)).jobs[0].program.by_vectors


def test_uneven_work_is_cut_finer() -> None:
    assert planned((1000, 300, 2), tol=0.0).size == 512
    assert planned((1000, 300, 2)).size == 128
    # Little work is not worth it.
    assert planned((128, 300, 2)).size == 64
