"""XLA does what the marks ask for: one kernel, whatever is in it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxgmm.numerics import kernels

E_STEPS = """
import jax, jax.numpy as jnp
from jaxgmm.em.expectation import Data
from jaxgmm.em.vectors import e_steps
data, rows = Data(jnp.ones((2, 6, 64)), jnp.ones((2, 64))), jnp.zeros(4, jnp.int32)
jax.jit(lambda *a: e_steps(*a, 2, diagonal=False))(data, rows, jnp.ones((3, 6, 4)), rows, jnp.int32(4))
"""


def test_marked_call_becomes_one_kernel(tmp_path: Path) -> None:
    flags = {"XLA_FLAGS": f"--xla_dump_to={tmp_path}", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", E_STEPS], check=True, env=os.environ | flags)
    modules = [path.name for path in tmp_path.glob("*lambda*obj-file*.o")]
    assert len([name for name in modules if "all_sums" in name]) == 1
    # The call is inlined into the one kernel, and nothing of it is left outside.
    assert not [name for name in modules if "log_joint" in name or "exp_of_difference" in name]


@pytest.mark.parametrize(
    ("jaxlib", "known"),
    [
        ("0.7.2", False),
        ("0.8.0", True),
        ("0.10.2", True),
        ("0.11.2", True),
        ("0.12.0", True),
        ("0.13.0", False),
        ("1.0.0", False),
    ],
)
def test_known_versions(jaxlib: str, known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels.version, "__version__", jaxlib)
    assert kernels.are_known() is known


@pytest.mark.parametrize(
    ("jaxlib", "has_vectors", "has_old_generator"),
    [
        ("0.8.0", True, True),
        ("0.10.2", True, True),
        # The older generator is gone, and with it the option, which would be refused.
        ("0.11.2", True, False),
        ("0.12.0", True, False),
        ("0.13.0", False, False),
    ],
)
def test_compilers_are_told_what_they_know(
    jaxlib: str, has_vectors: bool, has_old_generator: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels.version, "__version__", jaxlib)
    well, quickly, at_once = (kernels.compiler_options(effort) for effort in kernels.EFFORTS)
    assert list(well) == (["xla_cpu_prefer_vector_width"] if has_vectors else [])
    assert quickly["xla_backend_optimization_level"] > at_once["xla_backend_optimization_level"]
    for options in (quickly, at_once):
        assert ("xla_cpu_use_fusion_emitters" in options) is has_old_generator


def test_a_function_is_compiled_once_for_each_effort() -> None:
    by_effort = kernels.compiled(lambda x: 2 * x)
    assert [float(by_effort[effort](1.5)) for effort in kernels.EFFORTS] == [3.0] * 3
    assert [function._cache_size() for function in by_effort.values()] == [1] * 3


FIT = """
import json, numpy as np, jaxgmm
x = np.random.default_rng(0).normal(size=(3, 120, 2)) + 4 * (np.arange(120) % 3)[:, None]
print(json.dumps(jaxgmm.fit(x, 3, n_init=2).start_log_likelihood.tolist()))
"""


@pytest.mark.slow
def test_fits_do_not_depend_on_how_they_are_compiled(capfd: pytest.CaptureFixture[str]) -> None:
    # As users have it, where the suite compiles with less effort.
    subprocess.run([sys.executable, "-c", FIT], check=True)
    as_users_have_it = json.loads(capfd.readouterr().out)
    exec(FIT)
    np.testing.assert_allclose(json.loads(capfd.readouterr().out), as_users_have_it, rtol=1e-9)
