"""The arithmetic of fused kernels against `jaxgmm.em.run`, in plain JAX."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import FULL_AND_OTHERS, at_once, slow
from lanes_in_jax import narrow, stored, wide

from jaxgmm.em import fused, run
from jaxgmm.em.centred import centred_e_step
from jaxgmm.em.covariance import FAMILIES, one_of
from jaxgmm.em.e_steps import E_STEPS
from jaxgmm.em.expectation import Data
from jaxgmm.em.fused import methods
from jaxgmm.em.fused.parameters import checked
from jaxgmm.em.fused.rows import ELEMENTARY, Kernel, Shape, fixed_rows, mixtures_of, moving_rows, of_rows
from jaxgmm.em.methods import METHODS, metric, plain
from jaxgmm.em.state import RUNNING, RunState, Settings, unstarted
from jaxgmm.em.statistics import features
from jaxgmm.mixture import Mixture
from jaxgmm.status import Status

N_RUNS, N_SAMPLES, WIDTH = 8, 96, 16


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


def of_one_form(family: str) -> tuple[str, ...]:
    return tuple(name for name in FAMILIES if FAMILIES[name].diagonal == FAMILIES[family].diagonal)


@functools.cache
def in_plain_jax(shape: Shape, n_blocks: int, method: str, *, centred: bool) -> Callable[..., Any]:
    """`jaxgmm.em.fused.life` of all runs: from rows and blocks of samples to rows."""
    kernel = Kernel(
        wide(WIDTH, shape.n_components) if shape.is_wide else narrow(N_RUNS, WIDTH),
        ELEMENTARY["float64"],
        shape,
        centred,
        method,
    )
    one = functools.partial(fused.life, n_blocks=n_blocks, n_steps=10_000, kernel=kernel)

    def of_run(fixed: Any, moving: Any, kept: Any, blocks: Any) -> Any:
        def read(i: Any) -> Any:
            return [jnp.broadcast_to(row[:, None], (WIDTH, shape.n_components)) for row in blocks[:, i]]

        return jnp.stack(one(list(fixed), list(moving), stored(kept), read)[0])

    def of_all(fixed: Any, moving: Any, kept: Any, blocks: Any) -> Any:
        def read(i: Any) -> Any:
            return list(jnp.moveaxis(blocks[:, :, i], 1, 0))

        return jnp.stack(one(list(fixed), list(moving), stored(kept), read)[0])

    return at_once(jax.vmap(of_run, (1, 1, 1, 0), 1) if shape.is_wide else of_all)


def fused_runs(
    z: np.ndarray,
    weights: np.ndarray,
    start: Mixture,
    family: str,
    settings: Settings,
    *,
    is_wide: bool,
    centred: bool = False,
    method: str = "em",
) -> RunState:
    """All runs by `jaxgmm.em.fused`, in plain JAX, by the program that all families of a form share."""
    given, blocks, shape = in_lanes(z, weights, start, family, settings, is_wide=is_wide, method=method)
    rows = in_plain_jax(shape, blocks.shape[2], method, centred=centred)(*given, blocks)
    return run_state(rows, shape)


def in_lanes(
    z: np.ndarray,
    weights: np.ndarray,
    start: Mixture,
    family: str,
    settings: Settings,
    *,
    is_wide: bool,
    method: str,
) -> tuple[tuple[Any, Any, Any], np.ndarray, Shape]:
    """Fixed, moving and stored rows, blocks of samples, and the shape."""
    n_runs, n_features, n_samples = z.shape
    n_components = start.weights.shape[1]
    families = of_one_form(family)
    shape = Shape(n_components, n_features, families, is_wide)
    n_blocks = -(-n_samples // WIDTH)
    blocks = np.concatenate([z, weights[:, None]], axis=1)
    blocks = np.pad(blocks, ((0, 0), (0, 0), (0, n_blocks * WIDTH - n_samples)))
    blocks = blocks.reshape(n_runs, n_features + 1, n_blocks, WIDTH)
    unknown = np.full(n_runs, np.inf)
    state = RunState(start, None, -unknown, np.zeros(n_runs), np.full(n_runs, RUNNING), None, None, gap=unknown)
    cast = functools.partial(jax.tree.map, lambda leaf: jnp.asarray(leaf, "float64"))
    present = np.broadcast_to(settings.present, (n_runs, n_components))
    ridge = np.broadcast_to(settings.ridge, (n_runs, *settings.ridge.shape))
    asked = settings._replace(present=present, ridge=ridge)
    number = np.full(n_runs, families.index(family))
    given = rows_of(cast(asked), number, weights.sum(axis=1), cast(state), shape=shape, method=method)
    return given, blocks, shape


def run_state(rows: Any, shape: Shape) -> RunState:
    mixture = in_order(rows, shape=shape)
    of_run = np.asarray(rows[-4:, :, 0] if shape.is_wide else rows[-4:])
    log_likelihood, gap, n_iter, status = of_run
    return RunState(mixture, None, log_likelihood, n_iter.astype(int), status.astype(int), None, None, gap=gap)


@functools.partial(at_once, static_argnames=("shape", "method"))
def rows_of(
    asked: Settings, family: Any, total: Any, state: RunState, *, shape: Shape, method: str
) -> tuple[Any, Any, Any]:
    moving = moving_rows(state, shape)
    return fixed_rows(asked, family, total, shape), moving, fused.stored_rows(method, moving, shape)


in_order = at_once(mixtures_of, static_argnames=("shape",))


def plain_runs(
    z: Any, weights: Any, start: Mixture, family: str, settings: Settings, *, method: str = "em"
) -> RunState:
    """The same by `jaxgmm.em.run`, in float64."""
    families = of_one_form(family)
    number = np.int32(families.index(family))
    return by_number(z, weights, start, number, settings, families=families, method=method)


@functools.partial(at_once, static_argnames=("families", "method"))
def by_number(
    z: Any, weights: Any, start: Mixture, number: Any, settings: Settings, *, families: tuple[str, ...], method: str
) -> RunState:
    family = one_of(families, number)

    def one(z: Any, weights: Any, start: Mixture) -> RunState:
        data = Data(features(z, diagonal=family.diagonal), weights)
        return run.run(data, start, family, settings, METHODS[method])

    return jax.vmap(one)(z, weights, start)


@functools.partial(at_once, static_argnames=("name",))
def centred_runs(z: Any, weights: Any, start: Mixture, name: str, settings: Settings) -> RunState:
    """The same where components are as narrow as they can be, as slots make them."""
    family = FAMILIES[name]

    def one(z: Any, weights: Any, start: Mixture) -> RunState:
        data = Data(features(z, diagonal=family.diagonal), weights)

        def step(state: RunState) -> RunState:
            sums = centred_e_step(data, state.natural, len(z), diagonal=family.diagonal)
            return plain.advance(state, *sums, jnp.sum(weights), family, settings, e_step=E_STEPS["centred"])

        begun = plain.init(unstarted(start), settings, e_step=E_STEPS["centred"])
        return jax.lax.while_loop(lambda state: ~METHODS["em"].is_finished(state), step, begun)

    return jax.vmap(one)(z, weights, start)


def same_ends(found: RunState, expected: RunState) -> None:
    np.testing.assert_array_equal(found.status, expected.status)
    np.testing.assert_array_equal(found.n_iter, expected.n_iter)
    np.testing.assert_allclose(found.log_likelihood, expected.log_likelihood, rtol=1e-12)
    # Smaller ones are rounding.
    np.testing.assert_allclose(found.gap, expected.gap, rtol=1e-4, atol=1e-13)
    for own, other in zip(found.mixture.arrays, expected.mixture.arrays, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("is_wide", [False, True])
@pytest.mark.parametrize("family", FULL_AND_OTHERS)
def test_runs_are_those_of_em_run(family: str, *, is_wide: bool) -> None:
    diagonal = FAMILIES[family].diagonal
    z, weights, start = problem(2, 3, diagonal=diagonal)
    settings = settings_of(2, 3, diagonal=diagonal)
    found = fused_runs(z, weights, start, family, settings, is_wide=is_wide)
    same_ends(found, plain_runs(z, weights, start, family, settings))
    assert int(Status.CONVERGED) in found.status


@pytest.mark.parametrize(
    ("method", "family", "is_wide"),
    [
        ("quasi-newton", "full", False),
        ("quasi-newton", "full", True),
        slow("quasi-newton", "diag", False),
        slow("quasi-newton", "diag", True),
        slow("quasi-newton", "tied", False),
        slow("quasi-newton", "spherical", True),
        slow("squarem", "full", False),
        slow("squarem", "diag", True),
    ],
)
def test_accelerated_runs_are_those_of_em_run(method: str, family: str, *, is_wide: bool) -> None:
    """Some steps are taken back, the last ones too; and with a ridge the likelihood falls."""
    diagonal = FAMILIES[family].diagonal
    z, weights, start = problem(2, 3, diagonal=diagonal)
    usual = settings_of(2, 3, diagonal=diagonal)

    def both(settings: Settings) -> RunState:
        found = fused_runs(z, weights, start, family, settings, is_wide=is_wide, method=method)
        same_ends(found, plain_runs(z, weights, start, family, settings, method=method))
        return found

    for settings in (usual, usual._replace(tol=1e-8, max_iter=400, ridge=1e4 * usual.ridge)):
        assert int(Status.CONVERGED) in both(settings).status
    reached = [both(usual._replace(tol=0.0, max_iter=n)).log_likelihood for n in range(4, 28)]
    # Where a step is taken back, the run ends where it was before.
    assert np.any(np.diff(reached, axis=0) == 0)


@pytest.mark.parametrize("family", ["full", "diag"])
def test_rounding_of_a_step_is_that_of_centred_steps(family: str) -> None:
    """Features of the first component are nearly equal, those of the others hardly related."""
    diagonal = FAMILIES[family].diagonal
    z, weights, start = problem(3, 3, diagonal=diagonal)
    if not diagonal:
        start.covariances[:, 0] = 1 + 1e-9 * np.eye(3)
        start.covariances[:, 1] += 0.2
    settings = settings_of(3, 3, diagonal=diagonal)
    given, _, shape = in_lanes(z, weights, start, family, settings, is_wide=False, method="quasi-newton")
    state, asked = of_rows(*map(list, given[:2]), shape)
    kernel = Kernel(narrow(N_RUNS, WIDTH), ELEMENTARY["float64"], shape)
    found = methods.roundings(state._replace(natural=checked(state.components, asked, kernel)[0]), shape)
    last = jax.tree.map(lambda leaf: jnp.asarray(np.moveaxis(leaf, 0, -1)), start)
    precisions = start.covariances if diagonal else np.linalg.inv(start.covariances)
    expected = metric.rounding(last, jnp.asarray(np.moveaxis(precisions, 0, -1)), about_means=True)
    np.testing.assert_allclose(jnp.stack(found), expected, rtol=1e-6)


def test_a_run_goes_on_from_unsound_parameters_that_a_method_has_tried() -> None:
    """A kernel may end after a step to such parameters; the next one takes the step back."""
    z, weights, start = problem(2, 3, diagonal=False)
    settings = settings_of(2, 3, diagonal=False)
    given, blocks, shape = in_lanes(z, weights, start, "full", settings, is_wide=False, method="quasi-newton")
    fixed, moving, kept = map(np.array, given)
    n_rows = shape.n_components * shape.n_own
    kept[:n_rows] = moving[:n_rows]
    # The last rows are `has_moved`, `falls`, `n_em_steps`, `is_sound`, `is_second` and `n_small`.
    kept[-6:] = np.array([1, 0, 0, 0, 0, 0])[:, None]
    moving[shape.n_own - 1] = -1.0
    run = in_plain_jax(shape, blocks.shape[2], "quasi-newton", centred=False)
    n_iter = len(moving) - 2
    moving[n_iter] = 3
    found = run_state(run(fixed, moving, kept, blocks), shape)
    assert np.all(found.status == Status.CONVERGED)
    expected = plain_runs(z, weights, start, "full", settings, method="quasi-newton")
    np.testing.assert_allclose(found.log_likelihood, expected.log_likelihood, atol=1e-4 * N_SAMPLES)
    # A start that is not sound ends at once.
    moving[n_iter] = 0
    assert np.all(run_state(run(fixed, moving, kept, blocks), shape).status == Status.DEGENERATE)


@pytest.mark.parametrize(("family", "is_wide"), [slow("full", False), ("diag", True)])
def test_narrow_components_are_those_of_centred_steps(family: str, *, is_wide: bool) -> None:
    """A component is a millionth as wide as the data, and far from their middle."""
    diagonal = FAMILIES[family].diagonal
    z, weights, start = problem(2, 3, diagonal=diagonal)
    z[:, :, :20] = 2.0 + 1e-6 * z[:, :, :20]
    start.means[:, 0] = 2.0
    settings = settings_of(2, 3, diagonal=diagonal, variance_floor=64 * np.finfo(float).eps, tol=1e-7, max_iter=200)
    settings = settings._replace(ridge=1e-6 * settings.ridge)
    expected = centred_runs(z, weights, start, family, settings)
    found = fused_runs(z, weights, start, family, settings, is_wide=is_wide, centred=True)
    np.testing.assert_array_equal(found.status, expected.status)
    np.testing.assert_allclose(found.n_iter, expected.n_iter, atol=1)
    np.testing.assert_allclose(found.log_likelihood, expected.log_likelihood, rtol=1e-7)
    variances = found.mixture.covariances if diagonal else np.diagonal(found.mixture.covariances, axis1=-2, axis2=-1)
    assert np.min(variances) < 1e-10
    # What raw moments cannot represent ends there.
    lost = fused_runs(z, weights, start, family, settings._replace(variance_floor=1e-9), is_wide=is_wide)
    assert np.all(lost.status == Status.DEGENERATE)


@pytest.mark.parametrize("is_wide", [False, True])
def test_absent_components_and_far_values_end_as_in_em_run(*, is_wide: bool) -> None:
    """Of three components two are there, and two samples are as far as fill values are."""
    z, weights, start = problem(2, 3, diagonal=True)
    z[:, :, :2] *= 3e11
    present = np.array([True, False, True])
    start.weights[:] = np.where(present, 0.5, 0.0)
    settings = settings_of(2, 3, diagonal=True, present=present, max_iter=20)
    expected = plain_runs(z, weights, start, "diag", settings)
    found = fused_runs(z, weights, start, "diag", settings, is_wide=is_wide)
    np.testing.assert_array_equal(found.status, expected.status)
    assert np.sum(found.status != Status.DEGENERATE) >= 6
    np.testing.assert_allclose(found.log_likelihood, expected.log_likelihood, rtol=1e-10)
    np.testing.assert_array_equal(found.mixture.weights == 0, np.tile(~present, (N_RUNS, 1)))
