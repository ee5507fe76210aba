"""The arithmetic of fused kernels against `jaxgmm.em.run`, in plain JAX."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgmm.em import fused, run
from jaxgmm.em.centred import centred_e_step
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.em.e_steps import E_STEPS
from jaxgmm.em.expectation import Data
from jaxgmm.em.methods import plain
from jaxgmm.em.state import RUNNING, RunState, Settings
from jaxgmm.em.statistics import features
from jaxgmm.mixture import Mixture
from jaxgmm.numerics.kernels import compiler_options
from jaxgmm.status import Status

N_RUNS, N_SAMPLES, WIDTH = 8, 96, 16
at_once = functools.partial(jax.jit, compiler_options=compiler_options("at once"))


def narrow() -> fused.Lanes:
    """Runs `(R,)`, samples `(R, W)`, components in lists."""
    return fused.Lanes(
        spread=lambda a: jnp.broadcast_to(a[:, None], (len(a), WIDTH)),
        total=lambda a: jnp.sum(a, axis=1),
        most=functools.partial(functools.reduce, jnp.maximum),
        sum=functools.partial(functools.reduce, jnp.add),
        sum_of_runs=functools.partial(functools.reduce, jnp.add),
        most_of_runs=functools.partial(functools.reduce, jnp.maximum),
    )


def wide() -> fused.Lanes:
    """Components of one run `(K,)`, samples `(W, K)`."""

    def over(rows: list[Any], reduce: Callable[..., Any]) -> Any:
        (row,) = rows
        return jnp.broadcast_to(reduce(row, axis=-1, keepdims=True), row.shape)

    return fused.Lanes(
        spread=lambda a: jnp.broadcast_to(a[None, :], (WIDTH, len(a))),
        total=lambda a: jnp.sum(a, axis=0),
        most=lambda rows: over(rows, jnp.max),
        sum=lambda rows: over(rows, jnp.sum),
        sum_of_runs=lambda rows: over(rows, jnp.sum),
        most_of_runs=lambda rows: over(rows, jnp.max),
    )


def problem(
    n_features: int, n_components: int, *, diagonal: bool, n_samples: int = N_SAMPLES, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, Mixture]:
    """Standardised samples `(R, D, N)` of unequal weights, the last of them padding, and starts."""
    rng = np.random.default_rng(seed)
    centres = 2 * rng.normal(size=(N_RUNS, n_components, n_features))
    labels = rng.integers(0, n_components, (N_RUNS, n_samples))
    x = np.take_along_axis(centres, labels[..., None], axis=1) + rng.normal(size=(N_RUNS, n_samples, n_features))
    z = np.swapaxes((x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True), 1, 2)
    weights = rng.uniform(0.5, 1.0, (N_RUNS, n_samples))
    weights[:, -7:] = 0
    unit = np.ones(n_features) if diagonal else np.eye(n_features)
    shape = (N_RUNS, n_components, *unit.shape)
    means = np.swapaxes(z[:, :, :n_components], 1, 2)
    start = Mixture(np.full(shape[:2], 1 / n_components), means, np.broadcast_to(unit, shape).copy())
    return np.where(weights[:, None] > 0, z, 0.0), weights, start


def settings_of(n_features: int, n_components: int, *, diagonal: bool, **changes: Any) -> Settings:
    unit = np.ones(n_features) if diagonal else np.eye(n_features)
    given = {"tol": 1e-4, "max_iter": 60, "variance_floor": 1e-9, "present": np.ones(n_components, bool)}
    given |= {"ridge": 1e-6 * unit} | changes
    return Settings(**given)


def fused_runs(
    z: np.ndarray,
    weights: np.ndarray,
    start: Mixture,
    families: tuple[str, ...],
    family: int,
    settings: Settings,
    *,
    is_wide: bool,
    dtype: str = "float64",
    centred: bool = False,
) -> RunState:
    """All runs by `jaxgmm.em.fused`, in plain JAX."""
    n_runs, n_features, n_samples = z.shape
    n_components = start.weights.shape[1]
    shape = fused.Shape(n_components, n_features, families, is_wide)
    n_blocks = -(-n_samples // WIDTH)
    blocks = np.concatenate([z, weights[:, None]], axis=1)
    blocks = np.pad(blocks, ((0, 0), (0, 0), (0, n_blocks * WIDTH - n_samples)))
    blocks = blocks.reshape(n_runs, n_features + 1, n_blocks, WIDTH).astype(dtype)
    state = RunState(start, None, np.full(n_runs, -np.inf), np.zeros(n_runs), np.full(n_runs, RUNNING), None, None)
    cast = functools.partial(jax.tree.map, lambda leaf: jnp.asarray(leaf, dtype))
    present = jnp.broadcast_to(settings.present, (n_runs, n_components))
    ridge = jnp.broadcast_to(settings.ridge, (n_runs, *settings.ridge.shape))
    asked = settings._replace(present=present, ridge=ridge)
    moving = fused.moving_rows(cast(state), shape)
    fixed = fused.fixed_rows(cast(asked), jnp.full(n_runs, family), jnp.asarray(weights.sum(axis=1), dtype), shape)
    machine = fused.Machine(wide() if is_wide else narrow(), fused.ELEMENTARY[dtype], shape, centred)
    one = functools.partial(fused.life, n_blocks=n_blocks, n_steps=10_000, machine=machine)
    if is_wide:

        def of_run(fixed: Any, moving: Any, blocks: Any) -> Any:
            def read(i: Any) -> Any:
                return [jnp.broadcast_to(row[:, None], (WIDTH, n_components)) for row in blocks[:, i]]

            return jnp.stack(one(list(fixed), list(moving), read)[0])

        rows = at_once(jax.vmap(of_run, (1, 1, 0), 1))(fixed, moving, blocks)
    else:
        read = lambda i: list(jnp.moveaxis(jnp.asarray(blocks)[:, :, i], 1, 0))  # noqa: E731
        rows = jnp.stack(at_once(lambda fixed, moving: one(list(fixed), list(moving), read)[0])(fixed, moving))
    of_run = rows[-3:, :, 0] if is_wide else rows[-3:]
    mixture = fused.mixtures_of(rows, shape)
    return RunState(mixture, None, of_run[0], of_run[1].astype(int), of_run[2].astype(int), None, None)


def plain_runs(z: np.ndarray, weights: np.ndarray, start: Mixture, family: Any, settings: Settings) -> RunState:
    """The same by `jaxgmm.em.run`, in float64."""

    def one(z: Any, weights: Any, start: Mixture) -> RunState:
        data = Data(features(z, diagonal=family.diagonal), weights)
        return run.run(data, start, family, jax.tree.map(jnp.asarray, settings))

    return at_once(jax.vmap(one))(z, weights, start)


@pytest.mark.parametrize("is_wide", [False, True])
@pytest.mark.parametrize("family", list(FAMILIES))
def test_runs_are_those_of_em_run(family: str, *, is_wide: bool) -> None:
    diagonal = FAMILIES[family].diagonal
    z, weights, start = problem(2, 4, diagonal=diagonal)
    settings = settings_of(2, 4, diagonal=diagonal)
    expected = plain_runs(z, weights, start, FAMILIES[family], settings)
    names = tuple(name for name in FAMILIES if FAMILIES[name].diagonal == diagonal)
    found = fused_runs(z, weights, start, names, names.index(family), settings, is_wide=is_wide)
    np.testing.assert_array_equal(found.status, expected.status)
    np.testing.assert_array_equal(found.n_iter, expected.n_iter)
    np.testing.assert_allclose(found.log_likelihood, expected.log_likelihood, rtol=1e-12)
    for own, other in zip(found.mixture.arrays, expected.mixture.arrays, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-9, atol=1e-12)
    assert int(Status.CONVERGED) in found.status


def centred_runs(z: np.ndarray, weights: np.ndarray, start: Mixture, family: Any, settings: Settings) -> RunState:
    """The same where components are as narrow as they can be, as slots make them."""

    def one(z: Any, weights: Any, start: Mixture) -> RunState:
        data, given = Data(features(z, diagonal=family.diagonal), weights), jax.tree.map(jnp.asarray, settings)

        def step(state: RunState) -> RunState:
            sums = centred_e_step(data, state.natural, len(z), diagonal=family.diagonal)
            return plain.advance(state, *sums, jnp.sum(weights), family, given, e_step=E_STEPS["centred"])

        begun = plain.init(start, given, e_step=E_STEPS["centred"])
        return jax.lax.while_loop(lambda state: ~plain.is_finished(state), step, begun)

    return at_once(jax.vmap(one))(z, weights, start)


@pytest.mark.parametrize("is_wide", [False, True])
@pytest.mark.parametrize("family", ["full", "diag"])
def test_narrow_components_are_those_of_centred_steps(family: str, *, is_wide: bool) -> None:
    """A component is a millionth as wide as the data, and far from their middle."""
    diagonal = FAMILIES[family].diagonal
    z, weights, start = problem(2, 4, diagonal=diagonal)
    z[:, :, :20] = 2.0 + 1e-6 * z[:, :, :20]
    start.means[:, 0] = 2.0
    settings = settings_of(2, 4, diagonal=diagonal, variance_floor=64 * np.finfo(float).eps, tol=1e-7, max_iter=200)
    settings = settings._replace(ridge=1e-6 * settings.ridge)
    expected = centred_runs(z, weights, start, FAMILIES[family], settings)
    found = fused_runs(z, weights, start, (family,), 0, settings, is_wide=is_wide, centred=True)
    np.testing.assert_array_equal(found.status, expected.status)
    np.testing.assert_allclose(found.n_iter, expected.n_iter, atol=1)
    np.testing.assert_allclose(found.log_likelihood, expected.log_likelihood, rtol=1e-7)
    variances = found.mixture.covariances if diagonal else np.diagonal(found.mixture.covariances, axis1=-2, axis2=-1)
    assert np.min(variances) < 1e-10
    # What raw moments cannot represent ends there.
    lost = fused_runs(z, weights, start, (family,), 0, settings._replace(variance_floor=1e-9), is_wide=is_wide)
    assert np.all(lost.status == Status.DEGENERATE)


@pytest.mark.parametrize("is_wide", [False, True])
def test_absent_components_and_far_values_end_as_in_em_run(*, is_wide: bool) -> None:
    """Of four components two are there, and two samples are as far as fill values are."""
    z, weights, start = problem(4, 4, diagonal=True)
    z[:, :, :2] *= 3e11
    present = np.array([True, False, True, False])
    start.weights[:] = np.where(present, 0.5, 0.0)
    settings = settings_of(4, 4, diagonal=True, present=present, max_iter=20)
    expected = plain_runs(z, weights, start, FAMILIES["diag"], settings)
    found = fused_runs(z, weights, start, ("diag", "spherical"), 0, settings, is_wide=is_wide)
    np.testing.assert_array_equal(found.status, expected.status)
    assert np.sum(found.status != Status.DEGENERATE) >= 6
    np.testing.assert_allclose(found.log_likelihood, expected.log_likelihood, rtol=1e-10)
    np.testing.assert_array_equal(found.mixture.weights == 0, np.tile(~present, (N_RUNS, 1)))
