"""fit_differentiable(): values of fit, derivatives of finite differences, and NaN where there are none."""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import FULL_AND_OTHERS, at_once

import jaxgmm
from jaxgmm import DifferentiableFit, Mixture, Status

pytestmark = pytest.mark.usefixtures("float64")

H = 1e-4
SCALES = np.array([1.0, 20.0])


def groups(n_groups: int = 3, distance: float = 2.5) -> np.ndarray:
    """Data sets `(B, 80, 2)` of two clusters that overlap, far from the origin and of unequal scales."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n_groups, 80, 2))
    x[:, 30:] += distance * np.array([1.0, 0.4])
    return x * SCALES + 100


def starts(x: np.ndarray, family: str, **options: Any) -> Mixture:
    return jaxgmm.fit(x, 2, covariance_type=family, n_init=1, precision="float64", **options).mixture


def summary(fit: DifferentiableFit) -> jax.Array:
    """A number for each data set that depends on all of its fit."""
    mixture = fit.mixture
    spread = mixture.covariances.reshape(*mixture.weights.shape, -1)
    numbers = (mixture.weights[..., 0], mixture.means[..., 0, 0], mixture.means[..., 1, 1] / 20, spread[..., 0, 0])
    return sum(numbers) + 0.01 * fit.log_likelihood


def outcome(
    x: Any, weights: Any, ridge: Any, start: Mixture, counts: Any = True, **options: Any
) -> tuple[jax.Array, DifferentiableFit]:
    """The sum of summaries of the data sets that count, and all fits."""
    fit = jaxgmm.fit_differentiable(x, start, sample_weight=weights, reg_covar=ridge, **options)
    return jnp.sum(jnp.where(counts, summary(fit), 0.0)), fit


def slopes_of(**options: Any) -> Callable[..., Any]:
    """A program for the outcome and its derivatives with regard to samples, weights, ridge and start."""
    return at_once(jax.value_and_grad(functools.partial(outcome, **options), argnums=(0, 1, 2, 3), has_aux=True))


slopes = slopes_of()


def problem(family: str = "full") -> tuple[np.ndarray, np.ndarray, np.ndarray, Mixture]:
    """Samples, weights, ridge and start."""
    x = groups()
    weights = np.random.default_rng(1).uniform(0.5, 1.5, x.shape[:2])
    weights[0, 70:] = 0
    return x, weights, np.asarray(0.02), starts(x, family, sample_weight=weights, reg_covar=0.02)


@pytest.mark.parametrize("family", FULL_AND_OTHERS)
def test_derivatives_are_those_of_finite_differences(family: str) -> None:
    """In reverse and forward mode, of a batch, with regard to samples, weights and ridge."""
    *arguments, start = problem(family)
    rng = np.random.default_rng(2)
    directions = [rng.normal(size=own.shape) * (np.asarray(own) != 0) for own in arguments]
    directions[0] *= SCALES
    # Differences need more digits than derivatives, and plain EM goes as far as rounding.
    exact = {"covariance_type": family, "method": "em", "tol": 1e-15, "max_iter": 20_000}
    program = slopes_of(**exact)

    def moved(i: int, by: float) -> float:
        there = [a + by * directions[i] if i == j else a for j, a in enumerate(arguments)]
        return float(program(*there, start, np.ones(3, bool))[0][0])

    gradient = program(*arguments, start, np.ones(3, bool))[1]
    along = [float(np.sum(np.asarray(g) * d)) for g, d in zip(gradient[:3], directions, strict=True)]
    for i, slope in enumerate(along):
        # Of fourth order in the step.
        difference = (8 * (moved(i, H) - moved(i, -H)) - (moved(i, 2 * H) - moved(i, -2 * H))) / (12 * H)
        assert slope == pytest.approx(difference, rel=1e-6)
    # Of the two modes, one is the transpose of the other, whatever the family.
    if family == "full":
        forward = at_once(lambda a, d: jax.jvp(lambda *a: outcome(*a, start, **exact)[0], a, d)[1])
        assert float(forward(tuple(arguments), tuple(directions))) == pytest.approx(sum(along), rel=1e-9)


@pytest.mark.slow
def test_fits_are_those_of_fit_and_no_derivative_flows_to_their_start() -> None:
    x, weights, ridge, start = problem()
    rough = start.map(lambda leaf: np.round(leaf, 1))
    expected = jaxgmm.fit(
        x, 2, init=rough, precision="float64", tol=1e-13, sample_weight=weights, reg_covar=float(ridge)
    )
    (_, found), gradient = slopes(x, weights, ridge, rough, np.ones(3, bool))
    assert set(np.asarray(found.status)) == {int(Status.CONVERGED)}
    np.testing.assert_allclose(found.log_likelihood, expected.log_likelihood, rtol=1e-7)
    found.mixture.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), expected.mixture)
    gradient[3].map(lambda leaf: np.testing.assert_array_equal(leaf, 0))
    assert repr(found).startswith("DifferentiableFit: 3 data sets, K = 2, D = 2\n  CONVERGED")
    assert repr(found.of(0)).startswith("DifferentiableFit: 1 data set")


def test_a_stack_is_its_data_sets_one_by_one() -> None:
    x, weights, ridge, start = problem()
    (_, together), of_stack = slopes(x, weights, ridge, start, np.ones(3, bool))
    for b in range(len(x)):
        (_, alone), of_one = slopes(x[b], weights[b], ridge, start.of(b), np.asarray(True))
        np.testing.assert_allclose(together.log_likelihood[b], alone.log_likelihood, rtol=1e-12)
        np.testing.assert_allclose(of_stack[0][b], of_one[0], rtol=1e-5, atol=1e-8)
        np.testing.assert_allclose(of_stack[1][b], of_one[1], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("spoil", "status"),
    [
        (lambda x, weights, start: x.__setitem__((1, 3, 0), np.nan), Status.NONFINITE),
        (lambda x, weights, start: x.__setitem__((1, slice(None), 1), 7.0), Status.DEGENERATE),
        (lambda x, weights, start: weights.__setitem__((1, slice(1, None)), 0.0), Status.TOO_FEW_SAMPLES),
        (lambda x, weights, start: start.weights.__setitem__(1, [1.0, 0.0]), Status.DEGENERATE),
        (lambda x, weights, start: start.means.__setitem__(1, np.nan), Status.DEGENERATE),
        (lambda x, weights, start: start.covariances.__setitem__(1, 0.0), Status.DEGENERATE),
    ],
    ids=["NaN", "constant feature", "too few samples", "absent component", "start of NaN", "flat start"],
)
def test_what_has_not_converged_has_no_derivatives_and_can_be_masked(spoil: Callable, status: Status) -> None:
    x, weights, ridge, start = problem()
    start = start.map(np.array)
    (_, sound), expected = slopes(x, weights, ridge, start, np.array([True, False, True]))
    spoil(x, weights, start)
    (value, fit), masked = slopes(x, weights, ridge, start, np.array([True, False, True]))
    assert np.asarray(fit.status).tolist() == [0, int(status), 0]
    np.testing.assert_array_equal(fit.log_likelihood[::2], sound.log_likelihood[::2])
    assert np.isfinite(value)
    for found, own in zip(masked[:2], expected[:2], strict=True):
        np.testing.assert_array_equal(found, own)
        np.testing.assert_array_equal(found[1], 0)
    _, unmasked = slopes(x, weights, ridge, start, np.ones(3, bool))
    np.testing.assert_array_equal(unmasked[0][::2], expected[0][::2])
    assert np.any(np.isnan(unmasked[0][1])) or np.any(np.isnan(unmasked[1][1]))


def test_what_is_filled_can_be_masked_whatever_is_computed_of_it() -> None:
    spread = jnp.asarray([[[4.0], [1.0]], [[np.nan], [np.nan]]])
    mixture = Mixture(spread[..., 0] / 5, spread, spread)
    codes = jnp.asarray([int(Status.CONVERGED), int(Status.NONFINITE)])
    fit = DifferentiableFit(mixture, spread[:, 0, 0], spread[:, 0, 0], codes, codes)

    def total(fit: DifferentiableFit) -> jax.Array:
        filled = fit.filled()
        losses = jnp.sum(jnp.log(filled.mixture.covariances), axis=(1, 2)) + jnp.log(1 + filled.log_likelihood)
        return jnp.sum(jnp.where(fit.converged, losses, 0.0))

    value, slopes = at_once(jax.value_and_grad(total, allow_int=True))(fit)
    assert float(value) == pytest.approx(np.log(4) + np.log(5))
    np.testing.assert_array_equal(slopes.mixture.covariances[..., 0], [[0.25, 1.0], [0.0, 0.0]])
    np.testing.assert_array_equal(slopes.log_likelihood, [0.2, 0.0])


def test_a_run_that_max_iter_ends_has_no_derivatives() -> None:
    x, weights, ridge, start = problem()
    far = start.map(np.array)
    far.means[:] += 0.3 * SCALES
    (_, fit), gradient = slopes_of(max_iter=2)(x[0], weights[0], ridge, far.of(0), np.asarray(True))
    assert fit.status == Status.MAX_ITER
    assert np.all(np.isfinite(fit.mixture.means))
    assert np.all(np.isnan(gradient[0][:70]))


def test_samples_of_weight_zero_are_not_read() -> None:
    x, weights, ridge, start = problem()
    (_, fit), expected = slopes(x, weights, ridge, start, np.ones(3, bool))
    x[0, 70:] = [[np.nan, 1e200]]
    (_, found), gradient = slopes(x, weights, ridge, start, np.ones(3, bool))
    jax.tree.map(np.testing.assert_array_equal, (found, gradient), (fit, expected))
    np.testing.assert_array_equal(gradient[0][0, 70:], 0)
    np.testing.assert_array_equal(gradient[1][0, 70:], 0)


@pytest.mark.parametrize(("is_enabled", "precision"), [(False, "float32"), (True, "float64")])
def test_integers_have_the_precision_that_is_enabled(is_enabled: bool, precision: str) -> None:
    x, _, _, start = problem()
    with jax.enable_x64(is_enabled):
        fit = jax.eval_shape(lambda x: jaxgmm.fit_differentiable(x, start), np.round(x).astype(int))
    assert fit.log_likelihood.dtype == precision


@pytest.mark.slow
@pytest.mark.parametrize("is_enabled", [False, True])
def test_float32_stays_float32(is_enabled: bool) -> None:
    x, weights, ridge, start = problem()
    arguments = (x - 100, weights, ridge, replace(start, means=start.means - 100))
    _, expected = slopes(*arguments, np.ones(3, bool))
    with jax.enable_x64(is_enabled):
        narrow = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), arguments)
        (_, fit), gradient = slopes_of()(*narrow, np.ones(3, bool))
    inexact = [leaf for leaf in jax.tree.leaves((fit, gradient)) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert {leaf.dtype.name for leaf in inexact} == {"float32"}
    assert set(np.asarray(fit.status)) == {int(Status.CONVERGED)}
    for found, own in zip(gradient[:2], expected[:2], strict=True):
        np.testing.assert_allclose(found, own, atol=0.02 * np.abs(own).max())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": np.ones(5)}, r"x must be one data set \(N, D\) or a stack"),
        ({"covariance_type": "diag"}, r"covariances \(K, 2\) with covariance_type='diag'"),
        ({"sample_weight": np.ones(3)}, r"sample_weight must have shape \(80,\) or \(3, 80\); it has shape \(3,\)"),
        ({"reg_covar": np.ones(2)}, "reg_covar must be a finite number"),
        ({"reg_covar": -1.0}, "reg_covar must be a finite number"),
        ({"reg_covar": jnp.float32(-1.0)}, "reg_covar must be a finite number"),
        ({"sample_weight": -np.ones(80)}, "sample_weight must not be negative"),
        ({"tol": 0.0}, "tol must be positive"),
        ({"max_iter": 0.5}, "max_iter must be an integer"),
        ({"method": "newton"}, "method must be one of"),
        ({"start": None}, "mixture must be a jaxgmm.Mixture"),
    ],
)
def test_misuse_is_refused_while_jax_traces(changes: dict, message: str) -> None:
    x = groups()
    unit = Mixture(np.full(2, 0.5), np.zeros((2, 2)), np.stack([np.eye(2)] * 2))
    given = {"x": x, "start": unit} | changes
    with pytest.raises(ValueError, match=message):
        jax.jit(
            lambda x: jaxgmm.fit_differentiable(x, **{name: value for name, value in given.items() if name != "x"})
        )(given["x"])
