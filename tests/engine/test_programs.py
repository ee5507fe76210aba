"""Programs are kept in a directory, and found again by another process."""

import subprocess
import sys
from pathlib import Path

CHILD = """
import sys
import numpy as np
import jax
import jaxgmm

found = []
jax.monitoring.register_event_listener(lambda event, **_: found.append(event))
jaxgmm.keep_programs(sys.argv[1])
result = jaxgmm.fit(np.arange(40.0)[:, None] % 7, 1, n_init=1)
print(found.count("/jax/compilation_cache/cache_hits"), repr(float(result.log_likelihood)))
"""


def test_a_second_process_finds_the_programs_of_the_first(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHILD, str(tmp_path / "programs")]
    first, second = (subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(2))
    (hits_before, answer), (hits, same_answer) = first.split(), second.split()
    assert int(hits_before) == 0
    assert int(hits) >= 2
    assert same_answer == answer
