"""Accelerations: EM's fixed points in fewer steps, steps that are taken back, and a gap that is true."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from compilation import at_once, slow
from overlapping import N, problem, settings_for, to_ems_fixed_point

from jaxgmm import Mixture, Status
from jaxgmm.em import run as em
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.em.expectation import e_step
from jaxgmm.em.methods import METHODS, accelerated, metric
from jaxgmm.em.methods.quasi_newton import QUASI_NEWTON
from jaxgmm.em.methods.squarem import SQUAREM
from jaxgmm.em.state import RunState, Settings, unstarted
from jaxgmm.em.statistics import SufficientStatistics

METHOD = METHODS["quasi-newton"]
run = at_once(em.run, static_argnames=("family", "method"))
step = at_once(em.step, static_argnames=("family", "method"))
init = at_once(accelerated.init)
e_step = at_once(e_step, static_argnames=("n_features", "diagonal"))
inner_products = at_once(metric.inner_products)
advance = at_once(METHOD.advance, static_argnames=("family",))


@pytest.mark.parametrize(
    ("method", "factor", "family"),
    [
        *(("quasi-newton", 4, family) for family in ("full", "diag")),
        *(slow("quasi-newton", 4, family) for family in ("tied", "spherical")),
        ("squarem", 2, "full"),
        slow("squarem", 2, "diag"),
    ],
)
def test_a_run_ends_at_ems_fixed_point_in_far_fewer_steps(method: str, factor: int, family: str) -> None:
    _, data, start = problem(family, distance=0.7)
    state = run(data, start, FAMILIES[family], settings_for(family), METHODS[method])
    assert state.status == Status.CONVERGED
    twin = to_ems_fixed_point(family, distance=0.7)
    assert float(state.log_likelihood) == pytest.approx(twin.log_likelihood, abs=2e-10 * N)
    np.testing.assert_allclose(state.mixture.means, twin.mixture.means, atol=1e-3)
    # EM itself needs so many to come as near.
    n_of_em = int(np.argmax(twin.trace > twin.log_likelihood - 1e-9 * N))
    assert factor * int(state.n_iter) < n_of_em


@pytest.mark.parametrize("method", ["quasi-newton", "squarem"])
def test_the_gap_is_what_is_left_to_gain(method: str) -> None:
    _, data, start = problem()
    limit = run(data, start, FAMILIES["full"], settings_for("full", tol=1e-13), METHOD).log_likelihood
    for tol in (1e-4, 1e-6, 1e-8):
        state = run(data, start, FAMILIES["full"], settings_for("full", tol=tol), METHODS[method])
        left = float(limit - state.log_likelihood) / N
        assert state.status == Status.CONVERGED
        assert left < tol
        assert left / 20 < float(state.gap) < min(tol, 5 * left)


def test_before_curvature_is_known_the_gap_is_far_too_large() -> None:
    _, data, start = problem(distance=0.7)
    limit = run(data, start, FAMILIES["full"], settings_for("full", tol=1e-13), METHOD).log_likelihood
    begun = run(data, start, FAMILIES["full"], settings_for("full", max_iter=0), METHOD)
    assert float(begun.gap) > 100 * float(limit - begun.log_likelihood) / N


def products_of(r: float, s: float, y: float) -> accelerated.Products:
    """Inner products where there is one dimension."""
    return accelerated.Products(*(jnp.asarray(value) for value in (r * r, r * s, r * y, s * s, s * y, y * y)))


def test_no_gap_is_less_than_what_ems_own_step_promises() -> None:
    # EM's steps turn round: the next one leads too far.
    products = products_of(r=-2.0, s=1.0, y=3.0)
    direction = QUASI_NEWTON.direction(products, jnp.sqrt)
    assert direction.promise == pytest.approx(2 / 3)
    assert accelerated.gap_of(products, jnp.asarray(True), QUASI_NEWTON) == pytest.approx(2.0)


@pytest.mark.parametrize("family", ["full", "diag"])
def test_rounding_is_that_of_variances_times_their_inflation(family: str) -> None:
    rng, k, d = np.random.default_rng(3), 2, 3
    factors = rng.normal(size=(k, d, d))
    covariances = factors @ np.swapaxes(factors, 1, 2)
    means, weights = rng.normal(size=(k, d)), np.array([0.3, 0.7])
    precisions, variances = np.linalg.inv(covariances), np.einsum("kii->ki", covariances)
    # The share of a feature's variance that regression on the others leaves.
    inflation = variances * np.einsum("kii->ki", precisions)
    if FAMILIES[family].diagonal:
        covariances, precisions, inflation = variances, 1 / variances, np.ones((k, d))
    eps = np.finfo(float).eps
    for about_means, extra in ((True, 0.0), (False, inflation * means**2 / variances)):
        error = metric.ROUNDINGS * eps * np.sum(inflation + extra, axis=1)
        found = metric.rounding(
            *jax.tree.map(jnp.asarray, (Mixture(weights, means, covariances), precisions)), about_means=about_means
        )
        np.testing.assert_allclose(found, weights * error**2 / 2)


def test_covariances_that_are_known_only_to_rounding_have_no_say() -> None:
    weights, rounding = jnp.asarray([0.5, 0.5]), jnp.asarray([1e-6, 1e-20])
    of_covariances = jnp.asarray([[1e-6, 1e-6], [3.0, 3.0], [5.0, 5.0]])
    parts = metric.Parts(jnp.ones((3, 2)), 2 * jnp.ones((3, 2)), of_covariances)
    known = parts.known(weights, rounding)
    np.testing.assert_array_equal(known.of_covariances, of_covariances.at[:, 0].set(0))
    np.testing.assert_allclose(known.products(weights), [3 + 2.5e-7, 3 + 0.75, 3 + 1.25])


def test_squared_extrapolation_is_exact_where_steps_shrink_by_one_factor() -> None:
    # Steps of 1, 0.9, 0.81, … lead to 10; the last step was 1, the next is 0.9, and 9 are left.
    along = SQUAREM.direction(products_of(r=0.9, s=1.0, y=0.1), jnp.sqrt).along
    assert float(along[0] * 0.9 + along[1] * 1.0 + along[2] * 0.1) == pytest.approx(9.0)
    # Where they do not shrink, the extrapolation is long, and finite.
    along = SQUAREM.direction(products_of(r=1.0, s=1.0, y=0.0), jnp.sqrt).along
    assert np.all(np.isfinite(np.asarray(along)))


def test_squared_extrapolation_follows_two_steps_of_em() -> None:
    _, data, start = problem(distance=0.7)
    settings = settings_for("full", tol=0.0)
    state, made = init(unstarted(start), settings), []
    for _ in range(20):
        state = step(data, state, FAMILIES["full"], settings, METHODS["squarem"])
        made.append(int(state.memory.n_em_steps))
    leaps = np.flatnonzero(np.array(made) == 0)
    assert len(leaps) >= 4
    assert made[: leaps[0] + 1] == [2, 0]
    for leap in leaps[leaps + 3 < 20]:
        # Either it is kept, or EM's step before it follows.
        assert made[leap + 1 : leap + 4] in ([1, 2, 0], [1, 2, 3])


def test_the_likelihood_falls_by_rounding_at_most() -> None:
    _, data, start = problem()
    settings = settings_for("full", tol=0.0)
    state, values = init(unstarted(start), settings), []
    for _ in range(60):
        state = step(data, state, FAMILIES["full"], settings, METHOD)
        values.append(float(state.log_likelihood))
    assert np.all(np.diff(values) > -2e-7 * N)


def narrow(array: jax.Array) -> jax.Array:
    """Floats as float32."""
    return array.astype(np.float32) if jnp.issubdtype(array.dtype, jnp.floating) else array


@pytest.mark.parametrize("family", ["full", slow("diag")])
def test_second_steps_of_weighted_samples_in_float32_lead_to_the_limit_in_float64(family: str) -> None:
    _, data, start = problem(family, distance=0.7)
    data = data._replace(weights=jnp.asarray(np.resize([1.0, 2.0, 0.5, 0.0], N)))
    settings = settings_for(family, tol=0.0)
    settings = settings._replace(ridge=1e3 * settings.ridge)
    narrow_data, narrow_start, narrow_settings = jax.tree.map(narrow, (data, start, settings))
    state, values, n_second = init(unstarted(narrow_start), narrow_settings), [], 0
    for _ in range(80):
        state = step(narrow_data, state, FAMILIES[family], narrow_settings, METHOD)
        values.append(float(state.log_likelihood))
        n_second += bool(state.memory.is_second & (state.memory.n_em_steps == 0))
    assert n_second > 0
    total = float(jnp.sum(data.weights))
    assert np.min(np.diff(values)) > -2e-6 * total
    limit = run(data, start, FAMILIES[family], settings._replace(tol=jnp.asarray(1e-12)), METHOD).log_likelihood
    assert values[-1] == pytest.approx(float(limit), abs=2e-6 * total)


def test_a_start_at_a_fixed_point_has_converged() -> None:
    _, data, start = problem()
    limit = run(data, start, FAMILIES["full"], settings_for("full", tol=1e-13), METHOD)
    again = run(data, limit.mixture, FAMILIES["full"], settings_for("full", tol=1e-9), METHOD)
    assert again.status == Status.CONVERGED
    assert again.n_iter <= 3
    np.testing.assert_allclose(again.mixture.means, limit.mixture.means, atol=1e-6)


def test_a_wide_ridge_leaves_ems_fixed_point() -> None:
    # The likelihood falls on the way there, and so is no measure of steps.
    _, data, start = problem()
    settings = settings_for("full", tol=1e-12, ridge=0.2)
    state = run(data, start, FAMILIES["full"], settings, METHOD)
    twin = to_ems_fixed_point("full", ridge=0.2)
    np.testing.assert_allclose(state.mixture.means, twin.mixture.means, atol=1e-5)
    assert np.max(twin.trace) > twin.trace[-1] + 1e-3
    n_of_em = int(run(data, start, FAMILIES["full"], settings, METHODS["em"]).n_iter)
    assert 3 * int(state.n_iter) < n_of_em


def test_a_run_leaves_a_saddle() -> None:
    # Components that are nearly alike: EM's steps away from there are short at first, and grow.
    _, data, _ = problem(distance=4.0)
    means = np.array([[0.0, 0.0], [0.0, 0.0]]) + 1e-4 * np.array([[1.0], [-1.0]])
    start = Mixture(*map(jnp.asarray, (np.full(2, 0.5), means, np.stack([np.eye(2)] * 2))))
    settings = settings_for("full")
    found, by_em = (run(data, start, FAMILIES["full"], settings, METHODS[name]) for name in ("quasi-newton", "em"))
    assert found.status == Status.CONVERGED
    assert float(found.log_likelihood) > float(by_em.log_likelihood) - 1e-6 * N
    assert 2 * int(found.n_iter) < int(by_em.n_iter)
    assert float(jnp.max(jnp.abs(found.mixture.means[0] - found.mixture.means[1]))) > 1


def leaping() -> tuple[RunState, SufficientStatistics, Settings, jax.Array]:
    """A run at parameters that are not EM's, and what an E-step reads there."""
    _, data, start = problem()
    settings = settings_for("full")
    state = init(unstarted(start), settings)
    while state.memory.n_em_steps > 0:
        state = step(data, state, FAMILIES["full"], settings, METHOD)
    natural = METHOD.read(state)
    statistics, log_likelihood = e_step(data, natural, 2, diagonal=False)
    return state, statistics, settings, log_likelihood


@pytest.mark.parametrize("value", [-1.0, np.nan])
def test_a_step_that_loses_likelihood_is_taken_back(value: float) -> None:
    state, statistics, settings, log_likelihood = leaping()
    asked = (FAMILIES["full"], settings)
    kept = advance(state, statistics, log_likelihood, jnp.asarray(float(N)), *asked)
    back = advance(state, statistics, log_likelihood + value, jnp.asarray(float(N)), *asked)
    np.testing.assert_array_equal(kept.memory.mixture.means, state.mixture.means)
    np.testing.assert_array_equal(back.memory.mixture.means, state.memory.mixture.means)
    assert back.log_likelihood == state.log_likelihood
    assert (float(back.gap), float(kept.gap) != float(state.gap)) == (float(state.gap), True)
    assert back.n_iter == state.n_iter + 1
    # It goes on from where the step began, by the curvature along the step. That costs no other E-step.
    assert (int(back.memory.n_em_steps), bool(back.memory.is_second)) == (0, True)
    step = metric.difference(state.mixture, state.memory.mixture)
    vectors = (state.memory.em_step, step, metric.difference(state.memory.em_step, kept.memory.em_step))
    precisions = jnp.asarray(np.linalg.inv(state.mixture.covariances))
    parts = metric.inner_products(vectors, state.mixture.weights, precisions)
    along = QUASI_NEWTON.direction(accelerated.Products(*parts.products(state.mixture.weights)), jnp.sqrt).along
    share = metric.share_within_limits(along, parts)
    expected = metric.moved(state.memory.mixture, [share * own for own in along], vectors)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), back.mixture, expected)
    # If that loses too, EM's own step follows.
    natural = METHOD.read(back)
    sums, _ = em.expectation.e_step(problem()[1], natural, 2, diagonal=False)
    again = advance(back, sums, log_likelihood + value, jnp.asarray(float(N)), *asked)
    assert (int(again.memory.n_em_steps), bool(again.memory.is_second)) == (1, True)
    np.testing.assert_array_equal(again.mixture.means, state.memory.mixture.means + state.memory.em_step.means)


def test_a_step_too_far_is_followed_by_one_to_where_ems_step_is_zero() -> None:
    # EM's step falls from 1 to -3 along a step of 2, and is zero after a quarter of it.
    along = QUASI_NEWTON.direction(products_of(r=-3.0, s=2.0, y=4.0).at_beginning(), jnp.sqrt).along
    assert float(along[0] * 1.0 + along[1] * 2.0 + along[2] * 4.0) == pytest.approx(0.5)


def test_an_unsound_leap_is_taken_back_and_an_unsound_step_of_em_ends_the_run() -> None:
    state, statistics, settings, log_likelihood = leaping()
    unsound = state._replace(memory=state.memory._replace(is_sound=jnp.asarray(False)))
    asked = (log_likelihood, jnp.asarray(float(N)), FAMILIES["full"], settings)
    assert advance(unsound, statistics, *asked).memory.n_em_steps == 1
    without = statistics._replace(counts=statistics.counts.at[0].set(0.0))
    by_em = unsound._replace(memory=unsound.memory._replace(n_em_steps=jnp.asarray(1, jnp.int32)))
    lost = advance(by_em, without, *asked)
    assert lost.status == Status.DEGENERATE
    np.testing.assert_array_equal(lost.mixture.means, state.mixture.means)


def test_max_iter_returns_the_best_parameters_and_their_likelihood() -> None:
    x, data, start = problem()
    for max_iter in range(6):
        state = run(data, start, FAMILIES["full"], settings_for("full", tol=0.0, max_iter=max_iter), METHOD)
        assert (int(state.n_iter), int(state.status)) == (max_iter, Status.MAX_ITER)
        expected = reference.e_step(x, state.mixture.map(np.asarray).arrays, np.ones(N))[1]
        assert float(state.log_likelihood) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("family", "d"), [("full", 2), ("full", 5), ("tied", 2), ("diag", 3)])
def test_inner_products_are_those_of_the_complete_data(family: str, d: int) -> None:
    k, rng = 3, np.random.default_rng(1)
    weights, axes = rng.dirichlet(np.ones(k)), (k, d) if FAMILIES[family].diagonal else (k, d, d)

    def vector() -> Mixture:
        changes = rng.normal(size=axes)
        changes = changes if len(axes) == 2 else changes + np.swapaxes(changes, 1, 2)
        return Mixture(rng.normal(size=k), rng.normal(size=(k, d)), changes)

    factors = rng.normal(size=(k, d, d))
    precisions = factors @ np.swapaxes(factors, 1, 2)
    vectors = (vector(), vector(), vector())
    given = np.einsum("kii->ki", precisions) if len(axes) == 2 else precisions
    last = jax.tree.map(lambda a: a[..., None], (vectors, weights, given))
    w, m, c = inner_products(*last)
    full = precisions if len(axes) == 3 else np.einsum("ki,ij->kij", given, np.eye(d))
    expected = []
    for i in range(3):
        for j in range(i, 3):
            a, b = vectors[i], vectors[j]
            wide = [v.covariances if len(axes) == 3 else v.covariances[..., None] * np.eye(d) for v in (a, b)]
            parts = [
                a.weights * b.weights / weights**2,
                np.einsum("ki,kij,kj->k", a.means, full, b.means),
                np.einsum("kij,kjl,klm,kmi->k", full, wide[0], full, wide[1]),
            ]
            expected.append(parts)
    for found, known in zip((w, m, c), np.moveaxis(np.array(expected), 1, 0), strict=True):
        np.testing.assert_allclose(found[..., 0], known, rtol=1e-10)


def test_a_leap_keeps_covariances_positive_definite() -> None:
    # However far the pair says it is to the optimum.
    rng, k, d, n_runs = np.random.default_rng(2), 2, 3, 200
    factors = rng.normal(size=(n_runs, k, d, d))
    covariances = factors @ np.swapaxes(factors, -1, -2) + 0.01 * np.eye(d)

    def vector(size: float) -> Any:
        changes = size * rng.normal(size=(n_runs, k, d, d))
        weights = 0.1 * size * rng.normal(size=(n_runs, k))
        return Mixture(
            weights - weights.mean(axis=1, keepdims=True),
            size * rng.normal(size=(n_runs, k, d)),
            changes + np.swapaxes(changes, -1, -2),
        )

    here = Mixture(rng.dirichlet(np.ones(k), n_runs), rng.normal(size=(n_runs, k, d)), covariances)
    em_step = vector(0.5)
    pair = vector(1.0)
    # A pair of little curvature, so that the direction is long.
    fall = pair.map(lambda a: 0.01 * a)
    moved = jax.tree.map(lambda a: jnp.asarray(np.moveaxis(a, 0, -1)), (here, em_step, pair, fall))
    precisions = jnp.asarray(np.moveaxis(np.linalg.inv(covariances), 0, -1))

    def leap(here: Mixture, *vectors: Mixture) -> Mixture:
        parts = metric.inner_products(vectors, here.weights, precisions)
        along = QUASI_NEWTON.direction(accelerated.Products(*parts.products(here.weights)), jnp.sqrt).along
        share = metric.share_within_limits(along, parts)
        return metric.moved(here, [share * own for own in along], vectors)

    there = at_once(leap)(*moved)
    assert np.all(np.linalg.eigvalsh(np.moveaxis(np.asarray(there.covariances), -1, 0)) > 0)
    assert np.all(np.asarray(there.weights) > 0)
    # So does a second one from where this one began, though it is measured at its end.
    opposite = jax.tree.map(jnp.negative, moved[1:])
    precisions = jnp.moveaxis(jnp.linalg.inv(jnp.moveaxis(there.covariances, -1, 0)), 0, -1)
    for vectors in (moved[1:], opposite):
        parts = metric.inner_products(vectors, there.weights, precisions)
        along = QUASI_NEWTON.direction(accelerated.Products(*parts.products(there.weights)), jnp.sqrt).along
        share = metric.share_within_limits(along, parts)
        second = metric.moved(moved[0], [share * own for own in along], vectors)
        assert np.all(np.linalg.eigvalsh(np.moveaxis(np.asarray(second.covariances), -1, 0)) > 0)
        assert np.all(np.asarray(second.weights) > 0)
    np.testing.assert_allclose(np.sum(there.weights, axis=0), 1, rtol=1e-12)
    # Some of them are as long as they may be.
    relative = np.abs(np.asarray(there.means - moved[0].means))
    assert np.max(relative) > 0.5
