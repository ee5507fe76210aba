"""Kernels as they are written for a GPU, without one: interpreted, and compiled for an H100 and executed as PTX."""

import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import ptx
import pytest

from jaxgmm.em.fused import life_of, stored_rows
from jaxgmm.em.fused import rows as em
from jaxgmm.em.state import RunState, Settings
from jaxgmm.engine import fused
from tests.engine.test_fused import plain_kernel

KNOWS_KERNELS = fused.KNOWN[0] <= jax.__version_info__[:2] <= fused.KNOWN[1] and find_spec("absl") is not None
HAS_COMPILER = KNOWS_KERNELS and find_spec("jax_cuda13_plugin") is not None
ROOT = Path(__file__).parents[2]
# What is written before the text of each kernel.
BEGINS = "=== a kernel ==="


def inputs(shape: em.Shape, lanes: fused.Lanes, dtype: str, method: str) -> list[Any]:
    """Limits, blocks of weighted samples, and rows of numbers of two blocks of runs, which have unequal limits.

    Where runs share a block, a sample of the second is NaN, and a component of the third is absent.
    """
    rng, n_runs, d = np.random.default_rng(0), 2 * lanes.runs, shape.n_features
    n_components, n_blocks = shape.n_components, 5
    centres = 1.5 * rng.normal(size=(n_runs, n_components, d))
    n_samples = n_blocks * lanes.samples
    labels = rng.integers(0, n_components, (n_runs, n_samples))
    x = np.take_along_axis(centres, labels[..., None], axis=1) + rng.normal(size=(n_runs, n_samples, d))
    present = np.ones((n_runs, n_components))
    if lanes.runs > 1:
        x[1, -1] = np.nan
        present[2, -1] = 0
    sample_weight = rng.uniform(0.5, 1, size=(n_runs, 1, n_samples))
    samples = jnp.asarray(np.concatenate([np.swapaxes(x, 1, 2), sample_weight], axis=1), dtype)
    covariances = np.broadcast_to(4 * np.eye(d), (n_runs, n_components, d, d))
    mixture = em.Mixture(present / np.sum(present, axis=1, keepdims=True), x[:, :n_components], covariances)
    unknown = np.full(n_runs, np.inf)
    state = RunState(mixture, None, -unknown, np.zeros(n_runs), np.full(n_runs, -1), None, None, gap=unknown)
    ridge = np.broadcast_to(1e-6 * np.eye(d), (n_runs, d, d))
    settings = Settings(ridge, 1e-4, 9, 1e-6, present)
    cast = functools.partial(jax.tree.map, lambda leaf: jnp.asarray(leaf, dtype))
    total = jnp.asarray(np.sum(sample_weight, axis=(1, 2)), dtype)
    fixed = em.fixed_rows(cast(settings), jnp.zeros(n_runs, jnp.int32), total, shape)
    moving = em.moving_rows(cast(state), shape)
    limits = jnp.asarray([[n_blocks, n_blocks - 1], [4, 20]], jnp.int32)
    return [
        limits,
        fused._in_blocks(samples, jnp.arange(n_runs), lanes),
        fixed,
        moving,
        stored_rows(method, moving, shape),
    ]


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    """For all threads, as the interpreter has some of its own."""
    before = jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


CASES = [
    (em.Shape(2, 1, ("full",), is_wide=False), fused.Lanes(64, 4), "float32", "quasi-newton"),
    (em.Shape(3, 2, ("full", "tied"), is_wide=False), fused.Lanes(16, 16), "float64", "quasi-newton"),
    (em.Shape(4, 3, ("full",), is_wide=True), fused.Lanes(2, 4, is_wide=True), "float32", "em"),
    (em.Shape(4, 3, ("full",), is_wide=True), fused.Lanes(2, 4, is_wide=True, centred=True), "float64", "quasi-newton"),
    (em.Shape(2, 1, ("full",), is_wide=False), fused.Lanes(64, 4), "float64", "squarem"),
]


# From limits, samples and fixed, moving and stored rows to moved and stored rows, and the steps of each block.
Kernel = Callable[..., tuple[Any, Any, Any]]


def check(kernel: Kernel, shape: em.Shape, lanes: fused.Lanes, dtype: str, method: str) -> None:
    """Compares a kernel with plain JAX. It is called twice: the second call goes on from the rows of the first."""
    life, given = life_of(shape, dtype, method, centred=lanes.centred), inputs(shape, lanes, dtype, method)
    expected, expected_kept, expected_made = jax.jit(plain_kernel(life, lanes))(*given)
    limits, blocks, fixed, *rows = given
    first, rest = limits.at[1].set(3), limits.at[1].add(-3)
    *rows, made_first = kernel(first, blocks, fixed, *rows)
    found, kept, made = kernel(rest, blocks, fixed, *rows)
    np.testing.assert_array_equal(made_first + made, expected_made)
    # Gaps are quotients of small differences of log-likelihoods, so few of their digits are right. An acceleration goes
    # far where the likelihood is flat, and so does rounding.
    rtol, atol = (1e-6, 1e-12) if dtype == "float64" else (0.1, 1e-6)
    np.testing.assert_allclose(found[em.GAP], expected[em.GAP], rtol=rtol, atol=atol)
    if dtype == "float64":
        np.testing.assert_allclose(kept, expected_kept, rtol=1e-9, atol=1e-12)
    found, expected = (jnp.asarray(rows).at[em.GAP].set(0) for rows in (found, expected))
    rtol, atol = (1e-12, 1e-12) if dtype == "float64" else (1e-4 if method == "em" else 1e-2, 1e-6)
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)


@pytest.mark.skipif(not KNOWS_KERNELS, reason="needs absl-py and a jax whose Mosaic is known")
@pytest.mark.parametrize(("shape", "lanes", "dtype", "method"), CASES)
def test_interpreted_kernels_are_what_they_are_in_plain_jax(
    shape: em.Shape, lanes: fused.Lanes, dtype: str, method: str
) -> None:
    from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams

    life = life_of(shape, dtype, method, centred=lanes.centred)
    check(jax.jit(fused._kernel(life, lanes, InterpretGPUParams())), shape, lanes, dtype, method)


@pytest.fixture(scope="module")
def compiled() -> list[ptx.Kernel]:
    """What an H100 would execute for each case."""
    # In a process of its own: the plugin is told when it is loaded that there is no driver.
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    settings = os.environ | {"JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1", "MOSAIC_GPU_DUMP_PTX": "1", "PYTHONPATH": path}
    settings.pop("JAX_PLATFORMS", None)
    command = [sys.executable, "-m", "tests.engine.test_mosaic"]
    done = subprocess.run(
        command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:]
    texts = done.stdout.split(BEGINS)[1:]
    assert [text.count(".visible .entry") for text in texts] == [1] * len(CASES)
    return [ptx.Kernel(text) for text in texts]


@pytest.mark.skipif(not HAS_COMPILER, reason="needs jax-cuda13-plugin and jax-cuda13-pjrt, though no GPU")
@pytest.mark.parametrize("case", range(len(CASES)))
def test_kernels_compiled_for_an_h100_are_what_they_are_in_plain_jax(case: int, compiled: list[ptx.Kernel]) -> None:
    def kernel(limits: Any, samples: Any, fixed: Any, moving: Any, stored: Any) -> tuple[Any, Any, Any]:
        moved, kept = np.full_like(moving, np.nan), np.full_like(stored, np.nan)
        made = np.full(limits.shape[1], -1, np.int32)
        # Parameters are in the order in which the kernel first uses them.
        given = [np.ascontiguousarray(array) for array in (stored, fixed, moving, limits, samples)]
        ptx.execute(compiled[case], [*given, moved, kept, made], limits.shape[1])
        return moved, kept, made

    check(kernel, *CASES[case])


def compile_all() -> None:
    """Compiles the kernels of all cases. With MOSAIC_GPU_DUMP_PTX, the compiler writes what it makes of them."""
    from jax.experimental import topologies

    jax.config.update("jax_enable_x64", True)
    target = (ROOT / "tests" / "data" / "h100.txtpb").read_text()
    topology = topologies.get_topology_desc(platform="cuda", topology="1x1x1", target_config=target)
    mesh = jax.sharding.Mesh(topology.devices[:1], "x")
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    for shape, lanes, dtype, method in CASES:
        given = inputs(shape, lanes, dtype, method)
        placed = [jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding) for a in given]
        kernel = jax.jit(fused._kernel(life_of(shape, dtype, method, centred=lanes.centred), lanes))
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            lowered = kernel.trace(*placed).lower(lowering_platforms=("cuda",))
        print(BEGINS, flush=True)
        lowered.compile()


if __name__ == "__main__":
    compile_all()
