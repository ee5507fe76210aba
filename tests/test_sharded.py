"""Fits of samples that are divided over devices: on one, on eight, and by two processes."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from same_fits import assert_same_fit

import jaxgmm
from jaxgmm import Mixture, Status, sharded, storage
from jaxgmm.em.covariance import FAMILIES

HERE = Path(__file__).parent
K = 3
RNG = np.random.default_rng(0)
X = np.array([[-2.0, 0.0], [0.0, 2.0], [2.0, -1.0]])[RNG.integers(0, K, 601)] + RNG.normal(size=(601, 2))
START = Mixture(np.full(K, 1 / K), X[:K], np.tile(np.eye(2), (K, 1, 1)))
SMALL = {"init": START, "devices": 1}


@pytest.fixture
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints after every five iterations."""
    monkeypatch.setattr(sharded, "EVERY", 5)


@pytest.mark.parametrize("name", ["full", *(pytest.param(name, marks=pytest.mark.slow) for name in list(FAMILIES)[1:])])
def test_one_device_has_the_answer_of_the_engine(name: str) -> None:
    family = FAMILIES[name]
    covariances = START.covariances[:, 0] * 0 + 1 if family.diagonal else START.covariances
    start = Mixture(START.weights, START.means, covariances)
    options = {"covariance_type": name, "init": start, "history": (0, 4)}
    assert_same_fit(jaxgmm.fit(X, K, devices=1, **options), jaxgmm.fit(X, K, precision="float64", **options))


@pytest.mark.usefixtures("_often")
def test_a_run_in_spans_is_the_run_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    found = jaxgmm.fit(X, K, **SMALL)
    monkeypatch.setattr(sharded, "EVERY", 1000)
    assert_same_fit(found, jaxgmm.fit(X, K, **SMALL), rtol=0)


def test_absent_components_stay_absent() -> None:
    start = Mixture(np.array([0.5, 0.5, 0.0]), START.means, START.covariances)
    found = jaxgmm.fit(X, K, init=start, devices=1)
    assert found.status == Status.CONVERGED
    assert np.count_nonzero(found.mixture.weights) == 2
    assert found.n_parameters == 11


def test_iterations_are_limited() -> None:
    found = jaxgmm.fit(X, K, max_iter=0, **SMALL)
    assert (found.status, found.n_iter) == (Status.MAX_ITER, 0)
    np.testing.assert_allclose(found.mixture.means, START.means)
    assert jaxgmm.fit(X, K, max_iter=7, **SMALL).n_iter == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devices": 0}, "devices must be a number from 1 to 1"),
        ({"devices": 2}, "devices must be a number from 1 to 1"),
        ({"devices": "cpu"}, "or a sequence of different jax.Device; got 'cpu'"),
        ({"devices": []}, "or a sequence of different jax.Device"),
        ({"devices": [jax.devices()[0]] * 2}, "or a sequence of different jax.Device"),
        ({"devices": 1, "part_of": [601]}, "part_of is for jobs of many data sets"),
        ({"devices": 1, "sample_weight": np.ones(3)}, r"sample_weight must have shape \(601,\)"),
        ({"devices": 1, "sample_weight": -np.ones(601)}, "sample_weight must not be negative"),
        ({"devices": 1, "init": np.zeros(3, int)}, r"init \(labels\) must have shape \(601,\)"),
        ({"checkpoint": "kept"}, "pass devices, too"),
        ({"checkpoint": True, "devices": 1}, "checkpoint must be the path of a file, or None; got True"),
    ],
)
def test_misuse_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        jaxgmm.fit(X, K, **options)


@pytest.mark.parametrize("x", [X[None], X[:0], [X, X[:9]]], ids=["stack", "empty", "list"])
def test_only_one_data_set_with_samples_can_be_divided(x: np.ndarray | list) -> None:
    with pytest.raises(ValueError, match=r"devices divide one data set \(N, D\) that is not empty"):
        jaxgmm.fit(x, K, devices=1)


@pytest.mark.usefixtures("_often")
def test_an_interrupted_fit_goes_on_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kept.safetensors"
    options = {"method": "em", "tol": 0, "max_iter": 22, "history": (0, 3, 20), **SMALL}
    whole = jaxgmm.fit(X, K, **options)
    results, told = sharded._results, []

    def interrupted(*arguments):
        for number, result in enumerate(results(*arguments)):
            if number == 2:
                raise KeyboardInterrupt
            yield result

    monkeypatch.setattr(sharded, "_results", interrupted)
    with pytest.raises(KeyboardInterrupt):
        jaxgmm.fit(X, K, checkpoint=path, **options)
    monkeypatch.undo()
    kept = storage.load(path)
    assert (kept.n_iter, kept.status) == (10, Status.MAX_ITER)
    found = jaxgmm.fit(X, K, checkpoint=path, progress=lambda *counts: told.append(counts), **options)
    assert told == [(1, 1)]
    assert_same_fit(found, whole, rtol=1e-9)
    # A finished one is the answer, for these samples and their weights.
    told.clear()
    again = jaxgmm.fit(X, K, checkpoint=path, progress=lambda *counts: told.append(counts), **options)
    assert_same_fit(again, found, rtol=0)
    assert told == [(1, 1)]
    for x, weights in ((X[::-1], None), (X + 1e-15 * (X[7] == X), None), (X, np.ones(len(X)))):
        with pytest.raises(ValueError, match=r"checkpoint of another request \(x\)"):
            jaxgmm.fit(x, K, checkpoint=path, sample_weight=weights, **options)
    other_start = Mixture(START.weights, START.means + 1, START.covariances)
    for name, value, differing in [
        ("max_iter", 40, "max_iter, history"),
        ("history", (0, 3, 21), "history"),
        ("history", False, "history"),
        ("init", other_start, "start"),
    ]:
        with pytest.raises(ValueError, match=rf"checkpoint of another request \({differing}\)"):
            jaxgmm.fit(X, K, checkpoint=path, **options | {name: value})


@pytest.mark.usefixtures("_often")
def test_a_lost_process_leaves_the_fit_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results, path = sharded._results, tmp_path / "kept.safetensors"

    def cut(*arguments):
        yield next(results(*arguments))
        raise jax.errors.JaxRuntimeError("UNKNOWN: Gloo all-reduce failed: Connection reset by peer")

    monkeypatch.setattr(sharded, "_results", cut)
    # In one process it cannot be another one's fault.
    with pytest.raises(jax.errors.JaxRuntimeError, match="Gloo"):
        jaxgmm.fit(X, K, **SMALL)
    monkeypatch.setattr(sharded.Shards, "n_processes", 2)
    with pytest.raises(jaxgmm.PeerLostError, match=rf"after 5 iterations .* and in {path}") as lost:
        jaxgmm.fit(X, K, checkpoint=path, **SMALL)
    assert lost.value.result.n_iter == storage.load(path).n_iter == 5
    np.testing.assert_array_equal(lost.value.result.mixture.means, storage.load(path).mixture.means)


def on_eight_devices(*which: str) -> None:
    """Runs tests in a process that has eight devices."""
    flags = "--xla_force_host_platform_device_count=8 --xla_cpu_parallel_codegen_split_count=1"
    tests = [*which, str(HERE / "eight_devices.py")]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"XLA_FLAGS": flags}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=900, check=False, env=environment, cwd=HERE.parent
    )
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout


@pytest.mark.slow
def test_eight_devices() -> None:
    on_eight_devices("-m", "not slow")


@pytest.mark.slow
def test_eight_devices_in_all_ways() -> None:
    on_eight_devices("-m", "slow")


PEER = """
import os, signal, sys
rank, port, mode, path = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
import jax, numpy as np
jax.distributed.initialize(f"127.0.0.1:{port}", 2, rank, heartbeat_timeout_seconds=10)
jax.config.update("jax_compilation_cache_dir", sys.argv[5])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
import jaxgmm
from jaxgmm import sharded
from test_sharded import peers_data

x, weights, start = peers_data()
mesh, half = jax.make_mesh((2,), ("hosts",)), slice(len(x) // 2 * rank, len(x) // 2 * (rank + 1))
with jax.enable_x64(True):
    x, weights = (
        jax.make_array_from_process_local_data(jax.NamedSharding(mesh, jax.P("hosts")), own[half])
        for own in (x, weights)
    )
if mode == "whole":
    for options in ({"init": start}, {"n_init": 2}):
        found = jaxgmm.fit(x, 3, sample_weight=weights, **options)
        print("found", found.status, found.n_iter, repr(float(found.log_likelihood)), found.mixture.means.tolist())
    sys.exit()
if mode == "apart":
    # A second time, the first process finds what the other one does not.
    for _ in range(2):
        try:
            found = jaxgmm.fit(x, 3, init=start, checkpoint=path + str(rank))
            print("found", found.status)
        except ValueError as error:
            print(error)
    sys.exit()
results = sharded._results

def until_a_signal(*arguments):
    for result in results(*arguments):
        yield result
        if rank == 1 and result.n_iter >= 50:
            os.kill(os.getpid(), getattr(signal, mode))

sharded._results = until_a_signal
try:
    jaxgmm.fit(x, 3, init=start, tol=0, max_iter=10**7, checkpoint=path)
except jaxgmm.PeerLostError as lost:
    print(lost, lost.result.n_iter, flush=True)
    os._exit(3)
"""


def peers_data() -> tuple[np.ndarray, np.ndarray, Mixture]:
    """Samples and weights of which each of two processes holds half, and a start."""
    return X[:600], np.where(np.arange(600) % 7 == 0, 2.0, 1.0), START


class Peers:
    """Two processes that fit one mixture."""

    def __init__(self, mode: str, path: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        cache = HERE.parent / ".pytest_cache" / "jax"
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)]), "XLA_FLAGS": ""}
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-c", PEER, str(rank), str(port), mode, str(path), str(cache)],
                **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment},
            )
            for rank in range(2)
        ]

    def __enter__(self) -> list[subprocess.Popen]:
        return self.processes

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


@pytest.mark.slow
def test_two_processes_have_the_answer_of_one(tmp_path: Path) -> None:
    with Peers("whole", tmp_path / "kept") as processes:
        said = [process.communicate(timeout=200) for process in processes]
    found = [re.findall("^found .*", out, re.MULTILINE) for out, _ in said]
    assert len(found[0]) == 2, said
    # To the last bit.
    assert found[0] == found[1]
    x, weights, start = peers_data()
    for line, options in zip(found[0], ({"init": start}, {"n_init": 2}), strict=True):
        one = jaxgmm.fit(x, K, sample_weight=weights, precision="float64", **options)
        _, status, _, log_likelihood, *_ = line.split()
        assert int(status) == one.status == Status.CONVERGED
        np.testing.assert_allclose(float(log_likelihood), one.log_likelihood, rtol=1e-8)


@pytest.mark.slow
def test_processes_that_do_not_share_a_checkpoint_are_refused(tmp_path: Path) -> None:
    with Peers("apart", tmp_path / "kept") as processes:
        said = [process.communicate(timeout=200) for process in processes]
    for out, errors in said:
        assert "found 0" in out, errors
        assert "is not one file for all processes; name one that they all read" in out


@pytest.mark.slow
def test_a_killed_process_is_an_error_in_seconds(tmp_path: Path) -> None:
    path = tmp_path / "kept.safetensors"
    with Peers("SIGKILL", path) as (survivor, killed):
        killed.wait(timeout=200)
        began = time.monotonic()
        out, errors = survivor.communicate(timeout=60)
        assert time.monotonic() - began < 8
    assert killed.returncode == -signal.SIGKILL
    assert survivor.returncode == 3, errors
    assert "another process that holds samples of this fit has ended" in out
    assert f"in {path}, from which the same call goes on" in out
    assert storage.load(path).n_iter == int(out.split()[-1]) >= 50


@pytest.mark.slow
def test_a_frozen_process_is_an_error_after_the_time_limit_of_heartbeats(tmp_path: Path) -> None:
    path = tmp_path / "kept.safetensors"
    with Peers("SIGSTOP", path) as (survivor, _):
        # Heartbeats may be missing for ten seconds.
        _, errors = survivor.communicate(timeout=200)
    assert survivor.returncode == -signal.SIGABRT
    assert "stopped sending heartbeats" in errors
    assert np.all(np.isfinite(storage.load(path).mixture.means))
    assert storage.load(path).n_iter >= 50
