"""A progress bar knows when JAX compiles."""

import threading

import jax
import numpy as np
import pytest
from rich import progress as of_rich

from jaxgmm.engine import compilation, progress


@pytest.fixture
def words(monkeypatch):
    """What bars say, at every moment at which one is drawn."""
    said = []
    render = of_rich.Progress.make_tasks_table

    def noted(self, tasks):
        said.extend(str(self.columns[0](task)) for task in tasks)
        return render(self, tasks)

    monkeypatch.setattr(of_rich.Progress, "make_tasks_table", noted)
    return said


def test_what_is_compiled_is_known_from_the_end_of_lowering_to_the_end():
    compilation.watch()
    lowered = jax.jit(lambda x: 2 * x).lower(np.arange(3.0))
    assert compilation.is_compiling()
    compiled = lowered.compile()
    assert not compilation.is_compiling()
    compiled(np.arange(3.0))
    assert not compilation.is_compiling()


def test_what_is_traced_for_its_shapes_is_not_compiled():
    compilation.watch()
    jax.eval_shape(jax.jit(lambda x: 4 * x), np.arange(3.0))
    jax.jit(lambda x: 5 * x).trace(np.arange(3.0))
    assert not compilation.is_compiling()


def test_what_was_lowered_before_and_never_compiled_is_forgotten():
    compilation.watch()
    jax.jit(lambda x: 6 * x).lower(np.arange(3.0))
    compilation.watch()
    assert not compilation.is_compiling()


def test_a_compilation_that_is_expected_lasts_to_its_end_or_that_of_the_work():
    compilation.watch()
    with compilation.expected():
        assert compilation.is_compiling()
        jax.jit(lambda x: 3 * x)(np.arange(3.0))
        assert not compilation.is_compiling()
    with compilation.expected():
        pass
    assert not compilation.is_compiling()


def test_one_thread_that_compiles_is_enough():
    compilation.watch()
    compilation._heard(compilation._BEGUN, 0.1)
    other = threading.Thread(target=compilation._heard, args=(compilation._ENDED, 0.1))
    other.start()
    other.join()
    assert compilation.is_compiling()
    compilation._heard(compilation._ENDED, 0.1)
    assert not compilation.is_compiling()


def test_a_bar_says_what_is_done_and_that_jax_compiles(words):
    doing = ["reading"]
    with progress.bar(10, "groups", doing=lambda: doing[0]):
        pass
    with progress.bar(10, "groups", doing=lambda: doing[0]):
        compilation._heard(compilation._BEGUN, 0.1)
    compilation._heard(compilation._ENDED, 0.1)
    with progress.bar(10, "groups"):
        pass
    assert list(dict.fromkeys(words)) == ["reading   ", "compiling ", "fitting   "]


@pytest.mark.parametrize(("rate", "text"), [(0, "0"), (0.4321, "0.43"), (9.94, "9.9"), (12.6, "13"), (12345, "12,345")])
def test_rates_are_told_from_0(rate, text):
    assert progress.per_second(rate) == text


def test_a_number_of_items_that_is_not_known_yet_is_left_out(capsys):
    with progress.bar(None, "rows") as tell:
        tell(1234, None)
    assert "1,234 rows" in capsys.readouterr().err
