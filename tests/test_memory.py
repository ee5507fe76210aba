"""Memory stays within its budget however many data sets there are."""

import json
import subprocess
import sys

import pytest

from jaxgmm import Status

BEGIN = """
import json
import numpy as np
import jaxgmm

def memory(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))
"""

MILLION = """
x = np.random.default_rng(0).standard_normal((1_000_000, 100, 1), dtype=np.float32)
x[:, :40] += 5
before = memory("VmRSS")
result = jaxgmm.fit(x, 2, n_init=1, max_iter=3)
per_fit = ("log_likelihood", "gap", "n_iter", "status", "spurious", "ridge_dominated", "start_passed_over", "ridge")
output = sum(leaf.nbytes for leaf in (*result.mixture.arrays, *(getattr(result, name) for name in per_fit)))
# Not the peak of getrusage, which a process inherits from the one that began it.
peak = memory("VmHWM")
print(json.dumps({"beyond": peak - before - output, "n": len(result.status)}))
"""

# One iteration of float64, as these programs are small beside those of the starts.
THOUSAND_COMPONENTS = """
x = np.random.default_rng(0).standard_normal((2000, 2))
options = {"n_init": 1, "max_iter": 1, "precision": "float64"}
statuses = [int(jaxgmm.fit(x, 1000, init=init, **options).status) for init in ("k-means++", "kmeans")]
print(json.dumps({"peak": memory("VmHWM"), "statuses": statuses}))
"""


def measured(program: str) -> dict:
    """What a program that begins with `BEGIN` prints."""
    answer = subprocess.run([sys.executable, "-c", BEGIN + program], check=True, capture_output=True, text=True)
    return json.loads(answer.stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_starts_of_a_thousand_components_need_less_than_a_gibibyte() -> None:
    needed = measured(THOUSAND_COMPONENTS)
    assert needed["statuses"] == [Status.MAX_ITER] * 2
    assert needed["peak"] < 2**30


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_million_data_sets_need_less_than_two_gibibytes() -> None:
    needed = measured(MILLION)
    assert needed["n"] == 1_000_000
    assert needed["beyond"] < 2 * 2**30
