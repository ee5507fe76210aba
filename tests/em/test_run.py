"""One run: invariants, stopping at its edges, and derivatives."""

import functools
import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from compilation import FULL_AND_OTHERS, at_once

from jaxgmm import Mixture, Status
from jaxgmm.em import run as em
from jaxgmm.em.covariance import FAMILIES, one_of
from jaxgmm.em.e_steps import E_STEPS, EStep
from jaxgmm.em.expectation import Data
from jaxgmm.em.expectation import e_step as sums_of
from jaxgmm.em.methods import METHODS, plain
from jaxgmm.em.state import RunState, Settings, unstarted
from jaxgmm.em.statistics import features

run = at_once(em.run, static_argnames=("family",))
step = at_once(em.step, static_argnames=("family",))
init = at_once(plain.init)
# Also a part of other programs.
features_of = jax.jit(features, static_argnames=("diagonal",))


def settings_for(
    family: str, n_features: int, *, tol: float = 1e-12, max_iter: int = 2000, floor: float = 1e-13, ridge: float = 1e-6
) -> Settings:
    """All of fixed types, which programs depend on."""
    ridges = np.full(n_features, ridge) if FAMILIES[family].diagonal else ridge * np.eye(n_features)
    return Settings(*map(jnp.asarray, (ridges, np.float64(tol), np.int32(max_iter), np.float64(floor))))


def problem(family: str = "full", seed: int = 0) -> tuple[np.ndarray, Data, Mixture]:
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.normal(size=(60, 2)), rng.normal(size=(40, 2)) + np.array([3.0, 1.0])])
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    diagonal = FAMILIES[family].diagonal
    spread = np.ones((2, 2)) if diagonal else np.stack([np.eye(2)] * 2)
    start = Mixture(*map(jnp.asarray, (np.full(2, 0.5), x[[0, -1]], spread)))
    return x, Data(features_of(x.T, diagonal=diagonal), jnp.asarray(np.ones(100))), start


@pytest.mark.parametrize("family", FAMILIES)
def test_run_is_the_twins(family: str) -> None:
    x, data, start = problem(family)
    settings = settings_for(family, 2, tol=0.0, max_iter=25)
    state = run(data, start, FAMILIES[family], settings)
    twin_start = (start.weights, start.means, np.broadcast_to(np.eye(2), (2, 2, 2)))
    twin = reference.em(x, twin_start, family, 25, ridge=1e-6)
    assert state.n_iter == 25
    assert state.log_likelihood == pytest.approx(twin.trace[-1], rel=1e-12)
    np.testing.assert_allclose(state.mixture.means, twin.mixture.means, atol=1e-11)


@pytest.mark.parametrize("family", FAMILIES)
def test_likelihood_never_falls(family: str) -> None:
    _, data, start = problem(family)
    settings = settings_for(family, 2, tol=0.0, ridge=0.0)
    state = init(unstarted(start), settings)
    values = []
    for _ in range(60):
        state = step(data, state, family=FAMILIES[family], settings=settings)
        values.append(float(state.log_likelihood))
    assert np.all(np.diff(values) > -1e-10)


def test_finished_run_stays_as_it_is() -> None:
    _, data, start = problem()
    settings = settings_for("full", 2)
    state = run(data, start, FAMILIES["full"], settings)
    again = step(data, state, FAMILIES["full"], settings)
    assert state.status == Status.CONVERGED
    jax.tree.map(np.testing.assert_array_equal, again, state)


def test_no_iterations_evaluates_the_start() -> None:
    x, data, start = problem()
    state = run(data, start, FAMILIES["full"], settings_for("full", 2, max_iter=0))
    assert (int(state.n_iter), int(state.status)) == (0, Status.MAX_ITER)
    jax.tree.map(np.testing.assert_array_equal, state.mixture, start)
    expected = reference.e_step(x, start.map(np.asarray).arrays, np.ones(100))[1]
    assert state.log_likelihood == pytest.approx(expected, rel=1e-12)


def test_converging_in_the_last_iteration_counts_as_converged() -> None:
    _, data, start = problem()
    n_needed = int(run(data, start, FAMILIES["full"], settings_for("full", 2, tol=1e-6)).n_iter)
    exact = run(data, start, FAMILIES["full"], settings_for("full", 2, tol=1e-6, max_iter=n_needed))
    short = run(data, start, FAMILIES["full"], settings_for("full", 2, tol=1e-6, max_iter=n_needed - 1))
    assert (int(exact.n_iter), int(exact.status)) == (n_needed, Status.CONVERGED)
    assert (int(short.n_iter), int(short.status)) == (n_needed - 1, Status.MAX_ITER)


def test_zero_tolerance_never_stops_early() -> None:
    _, data, start = problem()
    state = run(data, start, FAMILIES["full"], settings_for("full", 2, tol=0.0, max_iter=1500))
    assert (int(state.n_iter), int(state.status)) == (1500, Status.MAX_ITER)


def test_collapse_returns_the_last_sound_parameters() -> None:
    x, _, start = problem()
    x[-5:] = 30.0
    data = Data(features_of(x.T, diagonal=False), jnp.asarray(np.ones(100)))
    start = replace(start, means=start.means.at[1].set(jnp.asarray([28.0, 30.0])))
    state = run(data, start, FAMILIES["full"], settings_for("full", 2, ridge=0.0))
    assert state.status == Status.DEGENERATE
    assert all(np.all(np.isfinite(leaf)) for leaf in state.mixture.arrays)
    expected = reference.e_step(x, state.mixture.map(np.asarray).arrays, np.ones(100))[1]
    assert state.log_likelihood == pytest.approx(expected, rel=1e-9)


def test_unsound_start_is_degenerate_at_once() -> None:
    _, data, start = problem()
    flat = replace(start, covariances=start.covariances.at[0].set(jnp.ones((2, 2))))
    state = run(data, flat, FAMILIES["full"], settings_for("full", 2))
    assert (int(state.status), int(state.n_iter)) == (Status.DEGENERATE, 0)


def test_float32_runs_in_float32() -> None:
    _, data, start = problem()
    narrow = functools.partial(
        jax.tree.map, lambda leaf: np.asarray(leaf, np.float32) if leaf.dtype == jnp.float64 else leaf
    )
    settings = narrow(settings_for("full", 2, tol=1e-5, floor=1e-5))
    state = run(narrow(data), narrow(start), FAMILIES["full"], settings)
    wide = run(data, start, FAMILIES["full"], settings_for("full", 2, tol=1e-5))
    assert {leaf.dtype for leaf in state.mixture.arrays} == {jnp.dtype(jnp.float32)}
    assert state.log_likelihood == pytest.approx(float(wide.log_likelihood), rel=1e-5)


@pytest.mark.parametrize("family", FULL_AND_OTHERS)
def test_derivatives_are_those_of_the_optimum(family: str) -> None:
    """Reverse and forward mode against central differences, through data, weights and ridge."""
    _, data, start = problem(family)
    settings = settings_for(family, 2, tol=1e-15, max_iter=20_000)

    def summary(features: jax.Array, weights: jax.Array, ridge: jax.Array, run: Callable = em.run) -> jax.Array:
        state = run(Data(features, weights), start, FAMILIES[family], settings._replace(ridge=ridge))
        return state.mixture.means[0, 0] + 0.1 * state.mixture.weights[0] + 0.01 * state.log_likelihood

    arguments = jax.tree.map(np.asarray, (data.features, data.weights, settings.ridge))
    arguments = (*arguments[:2], arguments[2] + 0.01 * np.sign(arguments[2]))
    rng = np.random.default_rng(0)
    direction = tuple(rng.normal(size=leaf.shape) * (np.asarray(leaf) != 0) for leaf in arguments)
    gradient = at_once(jax.grad(summary, argnums=(0, 1, 2)))(*arguments)
    reverse = sum(float(np.sum(np.asarray(g) * d)) for g, d in zip(gradient, direction, strict=True))
    h = 1e-5
    moved = [summary(*(a + sign * h * d for a, d in zip(arguments, direction, strict=True)), run) for sign in (1, -1)]
    assert reverse == pytest.approx(float(moved[0] - moved[1]) / (2 * h), rel=1e-4)
    # Of the two, one is the transpose of the other, whatever the family.
    if family in ("full", "spherical"):
        forward = at_once(lambda a, d: jax.jvp(summary, a, d)[1])(arguments, direction)
        assert float(forward) == pytest.approx(reverse, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("n_features", [3, 9])
def test_gradients_of_many_features(n_features: int) -> None:
    rng = np.random.default_rng(n_features)
    x = rng.normal(size=(n_features, 150)) + 3 * rng.integers(0, 2, 150)
    means, covariances = np.outer([0.0, 3.0], np.ones(n_features)), np.stack([np.eye(n_features)] * 2)
    start = Mixture(*map(jnp.asarray, (np.full(2, 0.5), means, covariances)))
    is_shifted = np.zeros(x.shape)
    is_shifted[0, :10] = 1
    # A tolerance as small as rounding might end some runs early.
    settings = settings_for("full", n_features, tol=0.0)

    def at(shift: jax.Array, run: Callable = em.run) -> jax.Array:
        moved = features_of(x + shift * is_shifted, diagonal=False)
        return run(Data(moved, jnp.asarray(np.ones(150))), start, FAMILIES["full"], settings).mixture.means[0, 0]

    gradient, h = at_once(jax.grad(at))(jnp.asarray(0.0)), 1e-4
    expected = float(at(jnp.asarray(h), run) - at(jnp.asarray(-h), run)) / (2 * h)
    assert float(gradient) == pytest.approx(expected, rel=1e-5)


def test_gradient_of_a_ridge_alone() -> None:
    """What does not depend on it, such as the weights' part of an M-step, is no obstacle."""
    _, data, start = problem()
    settings = settings_for("full", 2, tol=1e-15, max_iter=20_000)

    def at(ridge: jax.Array, run: Callable = em.run) -> jax.Array:
        return run(data, start, FAMILIES["full"], settings._replace(ridge=ridge * jnp.eye(2))).mixture.weights[0]

    slope = at_once(jax.vmap(jax.grad(at)))(jnp.asarray([0.01, 0.1]))
    h = 1e-5
    expected = [(at(jnp.asarray(ridge + h), run) - at(jnp.asarray(ridge - h), run)) / (2 * h) for ridge in (0.01, 0.1)]
    np.testing.assert_allclose(slope, expected, rtol=1e-4)


def test_ridges_map_over_one_compiled_run() -> None:
    _, data, start = problem()
    settings = settings_for("full", 2)
    ridges = jnp.asarray([1e-6, 1e-2, 1.0])

    def at(ridge: jax.Array, run: Callable = em.run) -> jax.Array:
        return run(data, start, FAMILIES["full"], settings._replace(ridge=ridge * jnp.eye(2))).log_likelihood

    mapped = at_once(jax.vmap(at))(ridges)
    np.testing.assert_allclose(mapped, [float(at(ridge, run)) for ridge in ridges], rtol=1e-12)
    assert mapped[0] > mapped[1] > mapped[2]


@pytest.mark.parametrize(
    ("names", "n_features", "e_steps"),
    [
        (("full",), 1, ["products"]),
        (("tied", "full"), 3, ["products"]),
        (("tied", "full"), 5, ["products", "products in one kernel"]),
        (("diag",), 1, ["products"]),
        (("spherical", "diag"), 3, ["products"]),
    ],
)
def test_further_axes_are_further_runs(names: tuple[str, ...], n_features: int, e_steps: list[str]) -> None:
    rng = np.random.default_rng(n_features)
    n_runs, n_components, diagonal = 4, 3, FAMILIES[names[0]].diagonal
    data = Data(features_of(jnp.asarray(rng.normal(size=(n_features, 80))), diagonal=diagonal), jnp.ones(80))
    settings = settings_for(names[0], n_features, max_iter=3, tol=0.0)
    settings = settings._replace(present=jnp.asarray([True, True, False]), snapshots=jnp.asarray([0, 2], jnp.int32))
    means = rng.normal(size=(n_runs, n_components, n_features))
    means[:, 2] = 0.0
    unit = np.ones(n_features) if diagonal else np.eye(n_features)
    covariances = np.broadcast_to(unit, (n_runs, n_components, *unit.shape)).copy()
    # The last start is not sound.
    covariances[-1, 0] *= -1
    starts = Mixture(np.broadcast_to([0.5, 0.5, 0.0], (n_runs, n_components)), means, covariances)
    families = jnp.asarray([0, len(names) - 1, 0, 0], jnp.int32)

    def begin(start: Mixture, history: jax.Array, settings: Settings, **how: Any) -> RunState:
        rows = start.map(lambda leaf: jnp.stack([jnp.full_like(leaf, jnp.nan)] * 2))
        return plain.init(unstarted(start, history, rows), settings, **how)

    def advance(state: RunState, sums: tuple, family: jax.Array, settings: Settings, **how: Any) -> RunState:
        total = jnp.full(family.shape, 80.0)
        return plain.advance(state, *sums, total, one_of(names, family), settings, **how)

    def read(state: RunState) -> tuple:
        return sums_of(data, METHODS["em"].read(state), n_features, diagonal=diagonal)

    history = np.full((n_runs, 6), np.nan)
    last = functools.partial(jax.tree.map, lambda leaf: np.moveaxis(leaf, 0, -1))

    begun = at_once(begin, static_argnames=("e_step",))

    @at_once
    def one_step(state: RunState, family: jax.Array) -> RunState:
        return advance(state, read(state), family, settings)

    def alone(start: Mixture, history: jax.Array, family: jax.Array) -> RunState:
        state = begun(start, history, settings)
        for _ in range(5):
            state = one_step(state, family)
        return state

    @functools.partial(at_once, static_argnames=("e_step",))
    def step_together(state: RunState, everywhere: Settings, e_step: EStep) -> RunState:
        sums = jax.vmap(read, -1, -1)(state)
        return advance(state, sums, families, everywhere, e_step=e_step)

    def together(e_step: EStep) -> RunState:
        everywhere = jax.tree.map(lambda leaf: np.stack([leaf] * n_runs, -1), settings)
        state = begun(last(starts), last(history), everywhere, e_step=e_step)
        for _ in range(5):
            state = step_together(state, everywhere, e_step)
        return state

    runs = [jax.tree.map(operator.itemgetter(run), (starts, history, families)) for run in range(n_runs)]
    one_by_one = [alone(*run) for run in runs]
    assert [int(state.status) for state in one_by_one] == [Status.MAX_ITER] * 3 + [Status.DEGENERATE]
    for e_step in e_steps:
        jax.tree.map(
            lambda found, expected: np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11),
            together(E_STEPS[e_step]),
            jax.tree.map(lambda *leaves: np.stack(leaves, -1), *one_by_one),
        )
