"""A process that was forked from one that had computed raises, where it would hang; others compute."""

import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")]

# What is asked of a child: an entry that hangs is ended by the alarm, and is then missing from what is printed.
CHILD = """
import multiprocessing, os, signal, sys, threading, warnings
import numpy as np
import jaxgmm

warnings.simplefilter("ignore")
x = np.random.default_rng(0).normal(size=(1, 40, 2))
one = (np.ones(1), np.zeros((1, 2)), np.ones((1, 2)))

def estimated():
    from jaxgmm.sklearn import GaussianMixture
    GaussianMixture(1).fit(x[0])

ENTRIES = {
    "fit": lambda: jaxgmm.fit(x, 1, n_init=1),
    "sweep": lambda: jaxgmm.sweep(x, [1], n_init=1),
    "bootstrap": lambda: jaxgmm.bootstrap(jaxgmm.Mixture(*one), x[0], 2),
    "diagnose": lambda: jaxgmm.diagnose(jaxgmm.Mixture(*one), x[0]),
    "log_prob": lambda: jaxgmm.log_prob(jaxgmm.Mixture(*one), x[0]),
    "responsibilities": lambda: jaxgmm.responsibilities(jaxgmm.Mixture(*one), x[0]),
    "predict": lambda: jaxgmm.predict(jaxgmm.Mixture(*one), x[0]),
    "sample": lambda: jaxgmm.sample(0, jaxgmm.Mixture(*one), 2),
    "estimator": estimated,
}

def tried(name):
    try:
        ENTRIES[name]()
    except Exception as error:
        return f"{name}: {type(error).__name__}: {error}"
    return f"{name}: computed"

def forked(do):
    pid = os.fork()
    if pid == 0:
        signal.alarm(120)
        do()
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(pid, 0)

def all_tried():
    for name in ENTRIES:
        print(tried(name), flush=True)
"""


def said_by(program: str) -> list[str]:
    command = [sys.executable, "-c", CHILD + program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


ENTRIES = [
    *("fit", "sweep", "bootstrap", "diagnose", "log_prob", "responsibilities", "predict", "sample", "estimator"),
]


@pytest.mark.parametrize(
    "program",
    [
        'tried("fit"); forked(all_tried)',
        'tried("log_prob"); forked(all_tried)',
        "import jax.numpy as jnp; jnp.zeros(3) + 1; forked(all_tried)",
        'tried("fit"); forked(lambda: forked(all_tried))',
        'tried("fit"); thread = threading.Thread(target=forked, args=(all_tried,)); thread.start(); thread.join()',
    ],
    ids=["after a fit", "after a density", "after JAX alone", "in a child of a child", "in a thread"],
)
def test_all_that_computes_raises_in_a_forked_child(program: str) -> None:
    said = said_by(program)
    assert [line.partition(":")[0] for line in said] == ENTRIES
    for line in said:
        assert ": ForkedError: this process was forked from process" in line
        assert "'spawn'" in line
        assert "'forkserver'" in line


def test_workers_of_a_pool_raise_what_the_pool_hands_on() -> None:
    program = """
from concurrent.futures import ProcessPoolExecutor
tried("fit")
with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
    print(pool.submit(tried, "fit").result(timeout=120))
    try:
        pool.submit(jaxgmm.fit, x, 1).result(timeout=120)
    except jaxgmm.forking.ForkedError as error:
        print(error)
"""
    assert ["forked from process" in line for line in said_by(program)] == [True, True]


def test_a_fork_before_anything_is_computed_is_harmless() -> None:
    said = said_by('import jax; jaxgmm.fit; forked(lambda: print(tried("fit"), tried("sample"))); print(tried("fit"))')
    assert said == ["fit: computed sample: computed", "fit: computed"]


def test_a_child_that_computes_and_forks_has_a_child_that_raises() -> None:
    said = said_by('forked(lambda: (print(tried("fit"), flush=True), forked(lambda: print(tried("fit")))))')
    assert said[0] == "fit: computed"
    assert said[1].startswith("fit: ForkedError")


def test_the_parent_goes_on_computing() -> None:
    said = said_by('tried("fit"); forked(lambda: None); print(tried("fit"), tried("sample"))')
    assert said == ["fit: computed sample: computed"]
