"""One mixture of samples that are read batch by batch."""

import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from same_streams import assert_same

import jaxgmm
from jaxgmm import Status, storage
from jaxgmm.checkpoint import in_words
from jaxgmm.streams import passing

RNG = np.random.default_rng(0)
# Clusters that overlap.
X = (RNG.normal(size=(4000, 2)) + np.where(RNG.random((4000, 1)) < 0.3, -1.5, 1.5)) * [1.0, 50.0] + [1e3, 0.0]
BATCHES = [X[first : first + 300] for first in range(0, 4000, 300)]
OPTIONS = {"n_init": 2, "precision": "float64"}


@pytest.fixture(autouse=True)
def _tiles_are_small(monkeypatch):
    monkeypatch.setattr(passing, "TILE", 512)
    monkeypatch.setattr(passing, "FIRST", 1024)


@pytest.mark.parametrize("family", ["full", pytest.param("spherical", marks=pytest.mark.slow)])
def test_a_pass_or_two_lead_to_the_optimum(family):
    optimum = jaxgmm.fit(X, 2, covariance_type=family, **OPTIONS).log_likelihood / len(X)
    first = jaxgmm.fit(X[:1024], 2, covariance_type=family, **OPTIONS)
    found = [jaxgmm.fit_stream(BATCHES, 2, passes=n, covariance_type=family, tol=0.0, **OPTIONS) for n in (1, 3)]
    left = [optimum - jaxgmm.log_prob(one.mixture, X).mean() for one in (first, *found)]
    assert left[1] < left[0] / 2
    assert left[2] < left[0] / 4
    assert found[1].n_batches == 3
    assert found[1].n_rows == found[1].n_samples == len(X)
    assert found[0].status == Status.MAX_ITER
    # Their statistics are those that the mixture was made from.
    np.testing.assert_allclose(found[1].counts, found[1].mixture.weights, atol=1e-12)


def test_convergence_means_that_little_is_left():
    optimum = jaxgmm.fit(X, 2, **OPTIONS).log_likelihood / len(X)
    found = jaxgmm.fit_stream(BATCHES, 2, passes=40, **OPTIONS)
    assert found.status == Status.CONVERGED
    assert optimum - jaxgmm.log_prob(found.mixture, X).mean() < 2e-6
    # Where all samples are among the first, one pass finds nothing left.
    found = jaxgmm.fit_stream([X[:900]], 2, **OPTIONS)
    assert found.status == Status.CONVERGED
    assert found.gap < 1e-9


def test_log_likelihood_is_that_of_all_samples_at_the_mixture():
    found = jaxgmm.fit_stream(BATCHES, 2, passes=3, **OPTIONS)
    np.testing.assert_allclose(found.log_likelihood, jaxgmm.log_prob(found.mixture, X).sum(), atol=0.1)


def test_cuts_into_batches_change_no_bit():
    expected = jaxgmm.fit_stream(BATCHES, 2, **OPTIONS)
    assert_same(jaxgmm.fit_stream([X], 2, **OPTIONS), expected)
    assert_same(jaxgmm.fit_stream(iter([X[:7], X[7:7], X[7:]]), 2, **OPTIONS), expected)
    assert_same(jaxgmm.fit_stream(lambda: iter(BATCHES), 2, **OPTIONS), expected)
    assert_same(jaxgmm.fit_stream(X, 2, **OPTIONS), expected)


def test_batches_may_be_read_into_one_array():
    def batches():
        held = np.empty((500, 2))
        for first in range(0, 4000, 500):
            held[:] = X[first : first + 500]
            yield held

    assert_same(jaxgmm.fit_stream(batches, 2, **OPTIONS), jaxgmm.fit_stream(BATCHES, 2, **OPTIONS))


def test_sorted_rows_need_a_sample():
    in_order = X[np.argsort(X[:, 0])]
    sample = X[RNG.choice(len(X), 1024, replace=False)]
    found = jaxgmm.fit_stream([in_order], 2, passes=2, sample=sample, **OPTIONS)
    optimum = jaxgmm.fit(X, 2, **OPTIONS).log_likelihood / len(X)
    assert optimum - jaxgmm.log_prob(found.mixture, X).mean() < 1e-3
    assert found.n_rows == len(X)
    without = jaxgmm.fit_stream([in_order], 2, passes=2, **OPTIONS)
    assert optimum - jaxgmm.log_prob(without.mixture, X).mean() > 1e-3


@pytest.mark.slow
def test_weights_are_counts():
    # For a third of such rows, rounding decides at which of several points the search for a step ends.
    x, sample = X[800:2300], X[800:1300]
    twice = jaxgmm.fit_stream([x, x], 2, sample=sample, **OPTIONS)
    weighted = jaxgmm.fit_stream([(x, np.full(1500, 2.0))], 2, sample=sample, **OPTIONS)
    np.testing.assert_allclose(weighted.mixture.means, twice.mixture.means, rtol=1e-9)
    assert weighted.n_samples == twice.n_samples == 3000
    assert (weighted.n_rows, twice.n_rows) == (1500, 3000)


class KilledError(Exception):
    """Stands for whatever ends a process."""


def cut_off(after):
    """Batches that fail after some have been read, in whatever pass."""
    read = 0

    def batches():
        nonlocal read
        for batch in BATCHES:
            read += 1
            if read > after:
                raise KilledError
            yield batch

    return batches


@pytest.mark.parametrize("after", [9, 20, 34])
def test_the_answer_is_the_same_after_an_interruption(tmp_path, after):
    path, options = tmp_path / "kept.safetensors", {"passes": 3, "tol": 0.0, **OPTIONS}
    expected = jaxgmm.fit_stream(BATCHES, 2, **options)
    with pytest.raises(KilledError):
        jaxgmm.fit_stream(cut_off(after), 2, checkpoint=path, every=2, **options)
    assert storage.load(path).passage is not None
    found = jaxgmm.fit_stream(BATCHES, 2, checkpoint=path, every=2, **options)
    assert_same(found, expected)
    # What is finished is not done again, and what was read of other samples is no answer for these.
    assert_same(jaxgmm.fit_stream(BATCHES, 2, checkpoint=path, **options), expected)
    for others in ({"batches": [X + 1]}, {"batches": BATCHES, "sample": X[:9]}):
        with pytest.raises(ValueError, match=r"checkpoint of another request \(first samples\)"):
            jaxgmm.fit_stream(n_components=2, checkpoint=path, **others, **options)


def test_new_batches_follow_by_stepwise_em(tmp_path):
    begun = jaxgmm.fit_stream(BATCHES[:8], 2, **OPTIONS)
    expected = begun
    for batch in BATCHES[8:]:
        expected = jaxgmm.update(expected, batch)
    assert_same(jaxgmm.fit_stream(BATCHES[8:], stream=begun), expected)
    path, bad = tmp_path / "kept.safetensors", np.full((3, 2), np.nan)

    def failing():
        yield from [bad, *BATCHES[8:11]]
        raise KilledError

    with pytest.raises(KilledError):
        jaxgmm.fit_stream(failing, stream=begun, checkpoint=path, every=2)
    found = jaxgmm.fit_stream([bad, *BATCHES[8:]], stream=begun, checkpoint=path, every=2)
    assert_same(found, expected, but=["status", "n_refused"])
    assert (found.status, found.n_refused) == (Status.NONFINITE, 3)
    assert_same(jaxgmm.fit_stream([bad, *BATCHES[8:]], stream=begun, checkpoint=path, every=2), found)
    with pytest.raises(ValueError, match=r"checkpoint of another request \(first batch\)"):
        jaxgmm.fit_stream(BATCHES[8:], stream=begun, checkpoint=path, every=2)


def test_a_step_that_loses_likelihood_by_a_ridge_has_not_converged():
    found = jaxgmm.fit_stream(BATCHES, 2, reg_covar=0.2, **OPTIONS)
    assert found.gap < -1e-4
    assert found.status == Status.MAX_ITER


def test_passes_lead_to_the_fixed_point_of_a_ridge_though_likelihood_falls_on_the_way():
    found = [jaxgmm.fit_stream(BATCHES, 2, passes=n, reg_covar=0.2, tol=0.0, **OPTIONS) for n in (2, 4, 8, 16)]
    means = [float(jaxgmm.log_prob(one.mixture, X).mean()) for one in found]
    assert means[0] > means[1] + 1e-4
    assert means[2] == pytest.approx(means[3], abs=1e-4)


def test_bad_samples_end_it():
    bad = X.copy()
    bad[3000, 1] = np.inf
    found = jaxgmm.fit_stream([bad], 2, passes=2, **OPTIONS)
    assert found.status == Status.NONFINITE
    assert np.all(np.isnan(found.mixture.means))
    assert np.isnan(found.log_likelihood)
    assert np.isnan(found.gap)
    assert found.n_refused == found.n_rows > 3000
    bad[3, 1] = np.inf
    found = jaxgmm.fit_stream([bad], 2, passes=2, **OPTIONS)
    assert found.status == Status.NONFINITE
    assert found.n_refused == found.n_rows > 3
    found = jaxgmm.fit_stream([np.zeros((900, 2))], 2, **OPTIONS)
    assert found.status == Status.DEGENERATE


def test_a_request_is_kept_as_numbers_and_digests():
    assert in_words({"n_components": np.int64(3), "tol": np.float32(0.5)}) == {"n_components": 3, "tol": 0.5}
    start = jaxgmm.fit(X, 1, init=np.zeros(len(X), int), max_iter=0).mixture
    inits = [np.arange(2), np.arange(3), np.arange(2.0), start, start.map(np.negative)]
    inits += [jax.random.key(0), jax.random.key(1)]
    texts = [in_words({"init": init})["init"] for init in inits]
    assert len(set(texts)) == len(inits)
    assert in_words({"init": np.arange(2)})["init"] == texts[0]


def test_misuse_is_refused(tmp_path):
    path = tmp_path / "kept.safetensors"
    begun = jaxgmm.fit_stream(BATCHES, 2, checkpoint=path, **OPTIONS)
    for said, call in {
        "needs batches that can be read again": lambda: jaxgmm.fit_stream(iter(BATCHES), 2, passes=2),
        "batches must be an iterable": lambda: jaxgmm.fit_stream(3, 2),
        "batches hold no samples": lambda: jaxgmm.fit_stream([], 2),
        r"a batch must be \(N, D\)": lambda: jaxgmm.fit_stream([X[0]], 2),
        r"a batch must be \(N, 2\)": lambda: jaxgmm.fit_stream([X, X[:, :1]], 2, **OPTIONS),
        "one for each sample, and not negative": lambda: jaxgmm.fit_stream([(X, -np.ones(len(X)))], 2),
        "n_components must be an integer": lambda: jaxgmm.fit_stream(BATCHES),
        "tol must be a finite number": lambda: jaxgmm.fit_stream(BATCHES, 2, tol=-1.0),
        "threads must be an integer": lambda: jaxgmm.fit_stream(BATCHES, 2, threads=0),
        "passes must be an integer": lambda: jaxgmm.fit_stream(BATCHES, 2, passes=0),
        "batches hold no samples of positive weight": lambda: jaxgmm.fit_stream([], 2, sample=X, **OPTIONS),
        "stream must be the jaxgmm.Stream of one data set": lambda: jaxgmm.fit_stream(BATCHES, stream=begun.mixture),
        "leave out n_components, passes": lambda: jaxgmm.fit_stream(BATCHES, 2, stream=begun),
        "progress must be a function": lambda: jaxgmm.fit_stream(BATCHES, 2, progress=True),
        "pass batches": lambda: jaxgmm.fit_stream(BATCHES, 2, sample_weight=np.ones(len(X))),
        "options of fit": lambda: jaxgmm.fit_stream(BATCHES, stream=begun, n_init=2),
        r"checkpoint of another request \(n_components": lambda: jaxgmm.fit_stream(
            BATCHES, 3, checkpoint=path, **OPTIONS
        ),
    }.items():
        with pytest.raises(ValueError, match=said):
            call()


def _has_begun(path):
    """Whether a part of a pass is kept."""
    passage = storage.load(path).passage
    return passage is None or passage.n_rows > 0


PROGRAM = """
import sys, time
import numpy as np
import jaxgmm

x = np.random.default_rng(0).normal(size=(600_000, 2)) + 3 * np.arange(600_000)[:, None] % 2 * [1, 0]

def batches():
    for first in range(0, len(x), 30_000):
        time.sleep(0.02 if len(sys.argv) > 2 else 0)
        yield x[first : first + 30_000]

stream = jaxgmm.fit_stream(batches, 2, passes=3, tol=0.0, n_init=2, checkpoint=sys.argv[1], every=1)
print(stream.mixture.means.tobytes().hex())
"""


@pytest.mark.slow
def test_the_answer_is_the_same_after_a_killed_process(tmp_path):
    def begun(*arguments):
        return subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE, text=True)

    expected = begun(str(tmp_path / "whole")).communicate()[0]
    kept = tmp_path / "kept"
    process = begun(str(kept), "slowly")
    while process.poll() is None and not (kept.exists() and _has_begun(kept)):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert storage.load(kept).passage is not None
    assert begun(str(kept)).communicate()[0] == expected
