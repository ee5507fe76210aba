"""Memory stays within its budget however many data sets there are."""

import json
import subprocess
import sys

import pytest

MILLION = """
import json
import numpy as np
import jaxgmm

def memory(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))

x = np.random.default_rng(0).standard_normal((1_000_000, 100, 1), dtype=np.float32)
x[:, :40] += 5
before = memory("VmRSS")
result = jaxgmm.fit(x, 2, n_init=1, max_iter=3)
output = sum(leaf.nbytes for leaf in (*result.mixture, *result[1:6]))
# Not the peak of getrusage, which a process inherits from the one that began it.
peak = memory("VmHWM")
print(json.dumps({"beyond": peak - before - output, "n": len(result.status)}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_million_data_sets_need_less_than_two_gibibytes() -> None:
    answer = subprocess.run([sys.executable, "-c", MILLION], check=True, capture_output=True, text=True)
    measured = json.loads(answer.stdout)
    assert measured["n"] == 1_000_000
    assert measured["beyond"] < 2 * 2**30
