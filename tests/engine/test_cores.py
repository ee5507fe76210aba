"""How many cores are used."""

import os
import subprocess
import sys

import pytest

import jaxgmm
from jaxgmm.engine import cores, devices

COMMAND = """
import os
from jaxgmm.cli import main
assert main(["fit", "absent.parquet", "--features", "x", "--components", "2", "--out", "out", *{flags}]) == 2
print(len(os.sched_getaffinity(0)))
"""


def test_no_more_cores_than_asked_for_and_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(cores.VARIABLE, raising=False)
    everything = cores.n_cores()
    assert cores.n_cores(1) == 1
    assert cores.n_cores(10**6) == everything
    monkeypatch.setenv(cores.VARIABLE, "1")
    assert cores.n_cores() == 1
    # What is asked for in a call has precedence.
    assert cores.n_cores(10**6) == everything
    assert len(devices.machine().devices) == 1
    assert len(devices.machine(10**6).devices) == everything


@pytest.mark.parametrize("threads", [0, 1.5, "2", True])
def test_a_number_of_cores_is_refused_in_words(threads: object) -> None:
    with pytest.raises(ValueError, match="threads must be an integer of at least 1"):
        jaxgmm.fit([[0.0], [1.0]], 1, threads=threads)


@pytest.mark.parametrize("text", ["0", "all", "1.5"])
def test_the_environment_is_refused_in_words(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cores.VARIABLE, text)
    with pytest.raises(ValueError, match=f"JAXGMM_THREADS must be an integer of at least 1; got '{text}'"):
        jaxgmm.sweep([[0.0], [1.0]], 1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot limit a process to cores")
@pytest.mark.parametrize(("flags", "variable"), [(["--threads", "1"], None), ([], "1")])
def test_the_command_limits_its_process(flags: list[str], variable: str | None) -> None:
    environment = {name: value for name, value in os.environ.items() if name != cores.VARIABLE}
    environment |= {cores.VARIABLE: variable} if variable else {}
    done = subprocess.run(
        [sys.executable, "-c", COMMAND.format(flags=flags)], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.split() == ["1"]
