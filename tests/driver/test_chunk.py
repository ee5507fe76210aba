"""A chunk is fitted from what can be sent, and comes back as a value."""

import pickle
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxgmm.driver.chunk import fit_chunk
from jaxgmm.driver.dispatch import inputs_of
from jaxgmm.driver.plan import plan_for
from jaxgmm.driver.program import Request
from jaxgmm.engine.batch import batch
from jaxgmm.engine.devices import machine

ELSEWHERE = """
import pickle, sys
import jax
from jaxgmm.driver.chunk import fit_chunk

with jax.enable_x64(True):
    fits = fit_chunk(pickle.load(sys.stdin.buffer))
pickle.dump(fits, sys.stdout.buffer)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_as_for_users")
def test_another_process_fits_a_chunk_to_the_same_bits() -> None:
    rng = np.random.default_rng(0)
    data = batch([rng.normal(size=(n, 2)) + 4 * rng.integers(2, size=(n, 1)) for n in (60, 50, 70)])
    request = Request("k-means++", 2, 2, "mixed", 1e-5, 1000, np.int64(0))
    for chunk in plan_for(data.sizes, [(2, "full", 1e-12)], request, machine()).chunks(data.lengths):
        inputs = inputs_of(chunk, chunk.model_sets[0], data)
        with jax.enable_x64(True):
            here = fit_chunk(inputs)
        command = [sys.executable, "-c", ELSEWHERE]
        done = subprocess.run(
            command, input=pickle.dumps(inputs), capture_output=True, check=True, cwd=Path(__file__).parents[2]
        )
        jax.tree.map(np.testing.assert_array_equal, pickle.loads(done.stdout), here)
