"""Methods with directions by optax: EM's fixed points, steps that are shortened, and a gap that is true."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from compilation import FULL_AND_OTHERS, at_once
from overlapping import N, problem, settings_for, to_ems_fixed_point

from jaxgmm import Mixture, Status
from jaxgmm.em import run as em
from jaxgmm.em.centred import centred_e_step
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.em.e_steps import E_STEPS
from jaxgmm.em.expectation import Data, e_step
from jaxgmm.em.methods import METHODS, gradient
from jaxgmm.em.state import RunState, Settings, unstarted
from jaxgmm.em.statistics import SufficientStatistics, features

pytest.importorskip("optax")

LBFGS, ADAM = METHODS["lbfgs"], METHODS["adam"]
run = at_once(em.run, static_argnames=("family", "method"))
step = at_once(em.step, static_argnames=("family", "method"))
init = at_once(LBFGS.init, static_argnames=("e_step",))
advance = at_once(LBFGS.advance, static_argnames=("family", "e_step"))
raw_moments, about_means = (
    at_once(sums, static_argnames=("n_features", "diagonal")) for sums in (e_step, centred_e_step)
)


@pytest.mark.parametrize("family", FULL_AND_OTHERS)
def test_lbfgs_ends_at_ems_fixed_point_in_far_fewer_steps(family: str) -> None:
    _, data, start = problem(family, distance=0.7)
    state = run(data, start, FAMILIES[family], settings_for(family), LBFGS)
    assert state.status == Status.CONVERGED
    twin = to_ems_fixed_point(family, distance=0.7)
    assert float(state.log_likelihood) == pytest.approx(twin.log_likelihood, abs=2e-10 * N)
    np.testing.assert_allclose(state.mixture.means, twin.mixture.means, atol=1e-3)
    n_of_em = int(np.argmax(twin.trace > twin.log_likelihood - 1e-9 * N))
    assert 4 * int(state.n_iter) < n_of_em


def test_the_gap_is_what_is_left_to_gain() -> None:
    _, data, start = problem()
    limit = run(data, start, FAMILIES["full"], settings_for("full", tol=1e-13), LBFGS).log_likelihood
    for tol in (1e-4, 1e-6, 1e-8):
        state = run(data, start, FAMILIES["full"], settings_for("full", tol=tol), LBFGS)
        left = float(limit - state.log_likelihood) / N
        assert state.status == Status.CONVERGED
        assert left < tol
        assert float(state.gap) < tol
        assert left < 20 * float(state.gap)


def test_a_start_at_a_fixed_point_has_converged() -> None:
    _, data, start = problem()
    limit = run(data, start, FAMILIES["full"], settings_for("full", tol=1e-13), LBFGS)
    again = run(data, limit.mixture, FAMILIES["full"], settings_for("full", tol=1e-9), LBFGS)
    assert again.status == Status.CONVERGED
    assert again.n_iter <= gradient.FIRST
    np.testing.assert_allclose(again.mixture.means, limit.mixture.means, atol=1e-6)


def test_the_likelihood_falls_by_rounding_at_most() -> None:
    _, data, start = problem()
    settings = settings_for("full", tol=0.0)
    state, values = init(unstarted(start), settings), []
    for _ in range(60):
        state = step(data, state, FAMILIES["full"], settings, LBFGS)
        values.append(float(state.log_likelihood))
    assert np.all(np.diff(values) > -gradient.SLACK["float64"] * N)


def test_a_wide_ridge_leaves_ems_fixed_point() -> None:
    # The likelihood falls on the way there.
    _, data, start = problem()
    settings = settings_for("full", tol=1e-12, ridge=0.2)
    state = run(data, start, FAMILIES["full"], settings, LBFGS)
    assert state.status == Status.CONVERGED
    twin = to_ems_fixed_point("full", ridge=0.2)
    np.testing.assert_allclose(state.mixture.means, twin.mixture.means, atol=1e-5)
    np.testing.assert_allclose(state.mixture.covariances, twin.mixture.covariances, atol=1e-5)
    assert np.max(twin.trace) > twin.trace[-1] + 1e-3
    n_of_em = int(run(data, start, FAMILIES["full"], settings, METHODS["em"]).n_iter)
    assert 3 * int(state.n_iter) < n_of_em


@pytest.mark.slow
def test_a_run_leaves_a_saddle() -> None:
    _, data, _ = problem(distance=4.0)
    means = np.array([[0.0, 0.0], [0.0, 0.0]]) + 1e-4 * np.array([[1.0], [-1.0]])
    start = Mixture(*map(jnp.asarray, (np.full(2, 0.5), means, np.stack([np.eye(2)] * 2))))
    settings = settings_for("full")
    found, by_em = (run(data, start, FAMILIES["full"], settings, METHODS[name]) for name in ("lbfgs", "em"))
    assert found.status == Status.CONVERGED
    assert float(found.log_likelihood) > float(by_em.log_likelihood) - 1e-6 * N
    assert float(jnp.max(jnp.abs(found.mixture.means[0] - found.mixture.means[1]))) > 1


def leaping() -> tuple[RunState, SufficientStatistics, Settings, jax.Array]:
    """A run at parameters that are not EM's, and what an E-step reads there."""
    _, data, start = problem()
    settings = settings_for("full")
    state = init(unstarted(start), settings)
    while bool(state.memory.is_em):
        state = step(data, state, FAMILIES["full"], settings, LBFGS)
    statistics, log_likelihood = raw_moments(data, LBFGS.read(state), 2, diagonal=False)
    return state, statistics, settings, log_likelihood


@pytest.mark.parametrize("value", [-1.0, np.nan])
def test_a_step_that_gains_too_little_is_shortened_and_at_last_replaced_by_ems(value: float) -> None:
    state, statistics, settings, log_likelihood = leaping()
    total, asked = jnp.asarray(float(N)), (FAMILIES["full"], settings)
    kept = advance(state, statistics, log_likelihood, total, *asked)
    np.testing.assert_array_equal(kept.memory.mixture.means, state.mixture.means)
    before = state
    for trial in range(1, gradient.MOST_TRIALS):
        back = advance(before, statistics, log_likelihood + value, total, *asked)
        np.testing.assert_array_equal(back.memory.mixture.means, state.memory.mixture.means)
        assert (int(back.memory.n_trials), bool(back.memory.is_em)) == (trial, False)
        assert back.log_likelihood == state.log_likelihood
        assert float(back.gap) == float(state.gap)
        shorter = float(back.memory.share / before.memory.share)
        assert gradient.SHORTEST <= shorter <= gradient.LONGEST_AGAIN
        before = back
    last = advance(before, statistics, log_likelihood + value, total, *asked)
    assert bool(last.memory.is_em)
    assert int(last.memory.optimizer.count) == 0
    np.testing.assert_array_equal(last.mixture.means, state.memory.by_em.means)
    # That one is accepted, whatever it gains; unless it is not sound.
    after = advance(last, statistics, log_likelihood - 1.0, total, *asked)
    np.testing.assert_array_equal(after.memory.mixture.means, last.mixture.means)


def test_collapse_returns_the_last_sound_parameters() -> None:
    x, _, start = problem()
    x[-5:] = 30.0
    data = Data(features(jnp.asarray(x.T), diagonal=False), jnp.ones(N))
    start = Mixture(start.weights, start.means.at[1].set(jnp.asarray([28.0, 30.0])), start.covariances)
    state = run(data, start, FAMILIES["full"], settings_for("full", ridge=0.0), LBFGS)
    assert state.status == Status.DEGENERATE
    assert all(np.all(np.isfinite(leaf)) for leaf in state.mixture.arrays)
    expected = reference.e_step(x, state.mixture.map(np.asarray).arrays, np.ones(N))[1]
    assert float(state.log_likelihood) == pytest.approx(expected, rel=1e-9)


def test_max_iter_returns_the_best_parameters_and_their_likelihood() -> None:
    x, data, start = problem()
    for max_iter in (0, 1, gradient.FIRST, gradient.FIRST + 1, 12):
        state = run(data, start, FAMILIES["full"], settings_for("full", tol=0.0, max_iter=max_iter), LBFGS)
        assert (int(state.n_iter), int(state.status)) == (max_iter, Status.MAX_ITER)
        expected = reference.e_step(x, state.mixture.map(np.asarray).arrays, np.ones(N))[1]
        assert float(state.log_likelihood) == pytest.approx(expected, rel=1e-12)


def test_weight_two_is_twice() -> None:
    x, data, start = problem()
    # Every other sample is left out, so that there are as many in the end.
    weights = 2.0 * (np.arange(N) % 2)
    twice = np.repeat(x, weights.astype(int), axis=0)
    repeated = Data(features(jnp.asarray(twice.T), diagonal=False), jnp.ones(N))
    found, expected = (
        run(own, start, FAMILIES["full"], settings_for("full", tol=1e-12), LBFGS)
        for own in (data._replace(weights=jnp.asarray(weights)), repeated)
    )
    np.testing.assert_allclose(found.mixture.means, expected.mixture.means, atol=1e-6)
    assert float(found.log_likelihood) == pytest.approx(float(expected.log_likelihood), rel=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lbfgs", "adam"])
def test_an_absent_component_stays_absent(name: str) -> None:
    _, data, two = problem()
    three = Mixture(np.append(two.weights, 0.0), np.append(two.means, np.zeros((1, 2)), 0), np.stack([np.eye(2)] * 3))
    settings = settings_for("full", max_iter=15, tol=0.0)
    present = settings._replace(present=jnp.asarray([True, True, False]))
    found = run(data, three, FAMILIES["full"], present, METHODS[name])
    expected = run(data, two, FAMILIES["full"], settings, METHODS[name])
    np.testing.assert_allclose(found.mixture.means[:2], expected.mixture.means, rtol=1e-8)
    assert float(found.mixture.weights[2]) == 0
    np.testing.assert_array_equal(found.mixture.covariances[2], np.eye(2))


@pytest.mark.slow
def test_adam_climbs_and_says_that_it_has_not_arrived() -> None:
    _, data, start = problem()
    limit = run(data, start, FAMILIES["full"], settings_for("full"), LBFGS).log_likelihood
    state = run(data, start, FAMILIES["full"], settings_for("full", max_iter=300), ADAM)
    left = float(limit - state.log_likelihood) / N
    assert state.status == Status.MAX_ITER
    assert 0 < left < 1e-2
    assert left < float(state.gap)


@pytest.mark.parametrize("name", ["lbfgs", pytest.param("adam", marks=pytest.mark.slow)])
def test_float32_runs_in_float32(name: str) -> None:
    def narrow(leaf: Any) -> Any:
        return np.asarray(leaf, np.float32) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    _, data, start = problem()
    data, start, settings = jax.tree.map(narrow, (data, start, settings_for("full", tol=1e-6, max_iter=100)))
    state = at_once(METHODS[name].init)(unstarted(start), settings)
    state = step(data, state, FAMILIES["full"], settings, METHODS[name])
    floats = [leaf.dtype for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert set(floats) == {jnp.dtype(jnp.float32)}


@pytest.mark.slow
def test_sums_about_means_lead_to_the_same_place() -> None:
    # The last row of the table of E-steps is for components that raw moments cannot represent.
    _, data, start = problem()
    settings, total = settings_for("full", tol=0.0), jnp.asarray(float(N))
    found = []
    for sums, options in ((raw_moments, {}), (about_means, {"e_step": E_STEPS["centred"]})):
        state = init(unstarted(start), settings, **options)
        for _ in range(12):
            read = sums(data, state.natural, 2, diagonal=False)
            state = advance(state, *read, total, FAMILIES["full"], settings, **options)
        found.append(state.mixture.means)
    np.testing.assert_allclose(*found, rtol=1e-7)
