"""Strictness for the whole suite: shapes are checked, and no rank or dtype is promoted silently."""

import dataclasses
import gc
import itertools
import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Read when XLA and NumPy start. Where workers fill the cores, threads that share one compilation cost more than they
# gain, and those that share a small matrix wait for each other: scikit-learn would take thirty times as long.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_parallel_codegen_split_count=1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import pytest
from jaxtyping import install_import_hook

# The faces check what users pass by themselves, and answer in words; everything under them is held to its annotations.
CHECKED = [
    f"jaxgmm.{room}"
    for room in (
        "numerics",
        "mixture",
        "posterior",
        "pieces",
        "diagnosis",
        "em",
        "engine",
        "soundness",
        "driver",
        "selection.criteria",
        "tables.groups",
        "tables.keys",
        "tables.schema",
        "tables.files",
        "tables.parts",
        "tables.ranges",
        "tables.rows",
        "tables.whole",
        "tables.survey",
        "tables.job",
        "tables.job_files",
    )
]
if find_spec("beartype"):
    from jaxgmm import record

    as_record = record.record

    def unchecked(cls: type) -> type:
        """A record whose fields may hold anything: JAX puts shapes, axes and placeholders where arrays are."""
        made = as_record(cls)
        # Versions of jaxtyping read the types in one place or the other.
        made.__init__.__annotations__.clear()
        for field in dataclasses.fields(made):
            field.type = Any
        return made

    record.record = unchecked
    install_import_hook(CHECKED, "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

from jaxgmm import ascent, diagnosis, pieces, resampling, sampling  # noqa: E402 (under the hook)
from jaxgmm.driver import choose, prepare, runs, shards, streams, ways  # noqa: E402
from jaxgmm.numerics.kernels import compiler_options  # noqa: E402
from jaxgmm.selection import held_out  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Most of the suite's time is compilation: workers share what they compile, and a second run finds it again.
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".pytest_cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


# What a test fits is little work, whatever the plan says. Compiled as for users, it would take twice as long.
PROGRAMS = (prepare.PREPARED, choose.BEST_OF, runs.TAKE_ON, runs.CLOSER_LOOK)
PROGRAMS += (streams.FIRST_SUMS, streams.TILE_SUMS, streams.UPDATED, streams.STEPPED, streams.BY_EM)
PROGRAMS += (shards.SAMPLED, shards.STANDARDIZED, shards.BEGUN, shards.SPAN, shards.FIRST_LOOK)
AS_FOR_USERS = [dict(program) for program in PROGRAMS]
for program in PROGRAMS:
    program.update(dict.fromkeys(program, program["at once"]))

# A look for runs that have ended costs little here. A search, if it looked less often, would not share a program with
# what finishes it, nor float64 alone with mixed precision.
ways.STRIDE = ways.STRIDE_OF_SHORT_RUNS

# What has no three ways of being compiled: densities, draws, ascents, and what a diagnosis finds.
FUNCTIONS = {
    (pieces, "_factors_of"): (),
    (pieces, "_at_one"): ("quantity",),
    (pieces, "_at_each"): ("quantity",),
    (held_out, "_densities"): (),
    (sampling, "_drawn"): ("n_samples",),
    (resampling, "_drawn"): ("n_samples",),
    (resampling, "_factors"): ("n_samples", "kind"),
    (ascent, "_begun"): ("climb",),
    (ascent, "_advanced"): ("climb",),
    (diagnosis, "_at_samples"): (),
    (diagnosis, "_separation"): (),
}
FUNCTIONS_FOR_USERS = {(module, name): getattr(module, name) for module, name in FUNCTIONS}
for (module, name), static in FUNCTIONS.items():
    traced = getattr(module, name).__wrapped__
    setattr(module, name, jax.jit(traced, static_argnames=static, compiler_options=compiler_options("at once")))


@pytest.fixture
def compiled_as_for_users(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For bits to be those of another process."""
    for program, as_for_users in zip(PROGRAMS, AS_FOR_USERS, strict=True):
        for effort, function in as_for_users.items():
            monkeypatch.setitem(program, effort, function)
    for (module, name), function in FUNCTIONS_FOR_USERS.items():
        monkeypatch.setattr(module, name, function)
    # They keep programs by shape.
    for kept in (pieces._one_piece, pieces._of_piece):
        kept.cache_clear()
    yield
    for kept in (pieces._one_piece, pieces._of_piece):
        kept.cache_clear()


# Traces are many small objects that live long: looking through them again and again takes a twentieth of the suite.
gc.freeze()
gc.set_threshold(100_000, 50, 100)


# Each compiled program holds memory maps, of which Linux grants a process 65,530; a whole suite needs more.
MAPS = Path("/proc/self/maps")
MOST_MAPS = 20_000

# To count them takes longer than many a test, and a few tests do not use up the rest.
TESTS, TESTS_TO_A_COUNT = itertools.count(), 10


@pytest.fixture(autouse=True)
def _programs_are_released() -> Iterator[None]:
    yield
    if next(TESTS) % TESTS_TO_A_COUNT == 0 and MAPS.exists() and MAPS.read_bytes().count(b"\n") > MOST_MAPS:
        _forget_programs()


@pytest.fixture(autouse=True)
def _surroundings_are_restored() -> Iterator[None]:
    """No test sees the figures, folder, variables or settings that another leaves."""
    folder, variables, settings = Path.cwd(), dict(os.environ), dict(jax.config.values)
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
    os.chdir(folder)
    # Pytest tells by a variable which test is running.
    for name in (os.environ.keys() | variables.keys()) - {"PYTEST_CURRENT_TEST"}:
        if name in variables:
            os.environ[name] = variables[name]
        else:
            del os.environ[name]
    for name, value in settings.items():
        if jax.config.values[name] is not value:
            jax.config.update(name, value)


@pytest.fixture
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@pytest.fixture(autouse=True)
def _float64_where_mathematics_is_tested(request: pytest.FixtureRequest) -> None:
    """In `em/` and `numerics/`, whose callers enable it; in float32 where a test says so."""
    if request.path.parent.name in ("em", "numerics"):
        request.getfixturevalue("float64")


@pytest.fixture
def float32_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    """In mixed precision; else float64 would, as there is little to do in a test."""
    from jaxgmm.driver import plan

    monkeypatch.setattr(plan, "SHORT_SEARCH", 0.0)


@pytest.fixture(autouse=True)
def _float32_searches_where_a_test_asks_for_mixed_precision(request: pytest.FixtureRequest) -> None:
    if hasattr(request.node, "callspec") and request.node.callspec.params.get("precision") == "mixed":
        request.getfixturevalue("float32_searches")


def _forget_programs() -> None:
    """Those that JAX keeps, and the record of what has been compiled."""
    from jaxgmm.engine import devices

    jax.clear_caches()
    devices._COMPILED.clear()
