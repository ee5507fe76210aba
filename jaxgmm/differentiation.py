"""fit_differentiable(): fits that are functions of their data, inside a user's own JAX program.

The parameters of a converged fit are a fixed point of EM, θ = M(θ; x, w, ridge), and their derivatives follow by
the implicit function theorem (`jaxgmm.em.run`). Coordinates are constants of the derivative; the ridge is not
(`jaxgmm.driver.standardize`).
"""

import functools
import math
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxgmm.driver.prepare import read
from jaxgmm.driver.runs import ACCURATE_IN_FLOAT64, SOUND
from jaxgmm.driver.search import LEAST_IN_FLOAT32, RIDGE_OF_FLOAT32
from jaxgmm.driver.standardize import at_constant_units, to_data_units, to_standard
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.em.expectation import as_data
from jaxgmm.em.methods import METHODS
from jaxgmm.em.run import run
from jaxgmm.em.state import RUNNING, Settings, unstarted
from jaxgmm.engine.arrays import is_traced
from jaxgmm.mixture import Mixture, as_mixture
from jaxgmm.record import Block, Record, counted, record, span, statuses
from jaxgmm.settings import Method, check_model, check_runs
from jaxgmm.status import Status

# Derivatives have half the digits of the likelihood, so runs go on for longer than those of `fit`.
_TOL = {"float32": LEAST_IN_FLOAT32, "float64": 1e-12}


@record
class DifferentiableFit(Record):
    """Fits of B data sets, as JAX arrays; for one `(N, D)` data set the B axis is absent.

    Attributes:
        mixture: weights `(B, K)`, means `(B, K, D)`, covariances `(B, K, D, D)`, or variances `(B, K, D)` for `"diag"`
            and `"spherical"`, in data units. NaN where no run could be made.
        log_likelihood: `(B,)`, total nats of the (weighted) data at these parameters.
        gap: `(B,)`, how much log-likelihood the run is estimated to have left to gain, in nats per sample. A constant
            of derivatives.
        n_iter: `(B,)`, iterations.
        status: `(B,)`, codes of `jaxgmm.Status`.
    """

    mixture: Mixture
    log_likelihood: Any
    gap: Any
    n_iter: Any
    status: Any

    @property
    def _batch(self) -> tuple[int, ...]:
        return self.status.shape

    @property
    def converged(self) -> Any:
        """`(B,)`, which fits have converged, and so have derivatives."""
        return self.status == int(Status.CONVERGED)

    def filled(self) -> "DifferentiableFit":
        """The same with constants in place of what has not converged: standard normal components, log-likelihood 0.

        Whatever is computed of these has a derivative of 0, so it can be masked by `converged`.
        """

        def kept(own: Array, constant: Any) -> Array:
            trailing = [1] * (own.ndim - self.status.ndim)
            return jnp.where(self.converged.reshape(*self.status.shape, *trailing), own, constant)

        mixture = self.mixture.map(kept, _standard_normal(self.mixture))
        return replace(self, mixture=mixture, log_likelihood=kept(self.log_likelihood, 0.0))

    def _described(self) -> tuple[str, list[Block]]:
        of = f"K = {self.mixture.n_components}, D = {self.mixture.n_features}"
        data_sets = counted(math.prod(self._batch), "data set")
        rows = [["iterations", span(self.n_iter)], ["log-likelihood", span(self.log_likelihood)]]
        return f"DifferentiableFit: {data_sets}, {of}", [statuses(self.status.ravel(), "data set"), Block(rows)]


def fit_differentiable(
    x: Any,
    start: Any,
    *,
    covariance_type: str = "full",
    sample_weight: Any = None,
    tol: float | None = None,
    max_iter: int = 1000,
    reg_covar: Any = 1e-12,
    method: Method | None = None,
) -> DifferentiableFit:
    """Fits a Gaussian mixture to every data set, as a pure function under your own `jit`, `vmap`, `grad` and `jvp`.

    The mixture and its log-likelihood have derivatives with regard to `x`, `sample_weight` and `reg_covar`, in reverse
    and forward mode, by the implicit function theorem; they cost no memory per iteration. None flow to `start`: it only
    says which optimum is meant. The ridge is a fraction of each feature's variance, and its derivative is included.

    Derivatives are those of a converged fit. Where `status` is not `CONVERGED`, they are NaN. To go without such data
    sets, compute losses from `fit.filled()` and mask them, `jnp.where(fit.converged, losses, 0.0)`.

    Args:
        x: one data set `(N, D)` or a stack `(B, N, D)`. Arithmetic is in its precision: float64 needs
            `jax.enable_x64(True)` around your program, since JAX otherwise reads all arrays as float32. Pad data sets
            of unequal length, by samples of weight 0.
        start: a `Mixture`, with or without batch axis, or the result of a fit, in data units: covariances
            `(…, K, D, D)` for `"full"` and `"tied"`, variances `(…, K, D)` for `"diag"` and `"spherical"`. No component
            may be absent. `jaxgmm.fit` of the current data, outside of your program, is a good one.
        covariance_type: `"full"`, `"tied"`, `"diag"` or `"spherical"`.
        sample_weight: not negative, `(N,)` or `(B, N)`; None for 1. A sample of weight 0 is not read, and the
            derivative with regard to its weight is 0.
        tol: as for `fit`, but positive. None is 1e-12 in float64 and 1e-6 in float32. The relative error of a
            derivative is about the square root of it, and ten times that or more where components overlap.
        max_iter: maximum number of iterations, as for `fit`.
        reg_covar: ridge, as for `fit`; in float32, at least 1e-6. May be a traced scalar.
        method: as for `fit`; None is `"quasi-newton"`.

    Returns:
        one fit for each data set. Where no run can be made, because of NaN or infinity, too few samples, a feature that
        does not vary or an unsound start, `status` says so, and parameters are NaN; other data sets are not changed.

    Raises:
        ValueError: wrong shapes or options, also while JAX traces.
        ImportError: a package that an option needs is not installed.

    Example:
        >>> import jax, numpy as np, jaxgmm
        >>> x = np.concatenate([np.full(60, -3.0), np.full(40, 3.0)]) + np.tile([-1.0, 1.0], 50)
        >>> start = jaxgmm.fit(x[:, None], 2).mixture
        >>> def distance(x):
        ...     means = jaxgmm.fit_differentiable(x, start).mixture.means
        ...     return abs(means[1, 0] - means[0, 0])
        >>> with jax.enable_x64(True):
        ...     print(jax.grad(distance)(x[:, None])[-1].round(3))
        [0.025]
    """
    is_array = isinstance(reg_covar, jax.Array) and not is_traced(reg_covar) and reg_covar.ndim == 0
    ridge = 1.0 if is_traced(reg_covar) else float(reg_covar) if is_array else reg_covar
    check_model(1, covariance_type, ridge)
    check_runs(1, None, 1.0 if tol is None else tol, max_iter, "float64", method)
    if tol == 0:
        raise ValueError("tol must be positive, since only a converged fit has derivatives; got 0.")
    x = jnp.asarray(x)
    # Integers have the precision that JAX gives them in arithmetic; float16 is too narrow.
    other = jnp.float32 if jnp.issubdtype(x.dtype, jnp.floating) else jnp.result_type(float)
    dtype = x.dtype if x.dtype in (jnp.float32, jnp.float64) else jnp.dtype(other)
    start = as_mixture(start).map(lambda leaf: lax.stop_gradient(jnp.asarray(leaf, dtype)))
    weights = jnp.ones(x.shape[-2:-1], dtype) if sample_weight is None else jnp.asarray(sample_weight, dtype)
    if sample_weight is not None and not is_traced(sample_weight) and np.any(np.asarray(sample_weight) < 0):
        raise ValueError("sample_weight must not be negative.")
    reg_covar = jnp.asarray(reg_covar, dtype)
    _check_shapes(x, start, weights, reg_covar, covariance_type)
    tol = _TOL[dtype.name] if tol is None else float(tol)
    return _fits(
        *(x.astype(dtype), start, weights, reg_covar, jnp.asarray(tol, dtype), jnp.asarray(max_iter, jnp.int32)),
        covariance_type=covariance_type,
        method=method or next(iter(METHODS)),
    )


def _check_shapes(x: Array, start: Mixture, weights: Array, reg_covar: Array, covariance_type: str) -> None:
    """Raises ValueError unless arrays belong together."""
    if x.ndim not in (2, 3) or 0 in x.shape:
        raise ValueError(f"x must be one data set (N, D) or a stack (B, N, D), and not empty; it has shape {x.shape}.")
    *batch, n_samples, n_features = x.shape
    n_components = start.weights.shape[-1] if start.weights.ndim else 0
    spread = (n_features,) if FAMILIES[covariance_type].diagonal else (n_features, n_features)
    shapes = tuple(leaf.shape for leaf in start.arrays)
    own = ((n_components,), (n_components, n_features), (n_components, *spread))
    if n_components == 0 or shapes not in (own, tuple((*batch, *shape) for shape in own)):
        raise ValueError(
            f"start must have weights (K,), means (K, {n_features}) and covariances (K, {', '.join(map(str, spread))}) "
            f"with covariance_type={covariance_type!r}, all of them with the batch axis of x or without; its shapes "
            f"are {shapes[0]}, {shapes[1]} and {shapes[2]}."
        )
    if weights.shape not in ((n_samples,), (*batch, n_samples)):
        raise ValueError(
            f"sample_weight must have shape {(n_samples,)} or {(*batch, n_samples)}; it has shape {weights.shape}."
        )
    if reg_covar.shape != ():
        raise ValueError(f"reg_covar must be one number; it has shape {reg_covar.shape}.")


@functools.partial(jax.jit, static_argnames=("covariance_type", "method"))
def _fits(
    x: Float[Array, "*b n d"],
    start: Mixture,
    weights: Float[Array, "*c n"],
    reg_covar: Float[Array, ""],
    tol: Float[Array, ""],
    max_iter: Array,
    *,
    covariance_type: str,
    method: str,
) -> DifferentiableFit:
    """The fits of a stack, or of one data set."""

    def of_one(x: Array, start: Mixture, weights: Array) -> DifferentiableFit:
        return _fit(x, start, weights, reg_covar, tol, max_iter, covariance_type, method)

    if x.ndim == 2:
        return of_one(x, start, weights)
    in_axes = (0, 0 if start.weights.ndim == 2 else None, 0 if weights.ndim == 2 else None)
    return jax.vmap(of_one, in_axes)(x, start, weights)


def _fit(
    x: Float[Array, "n d"],
    start: Mixture,
    weights: Float[Array, " n"],
    reg_covar: Float[Array, ""],
    tol: Float[Array, ""],
    max_iter: Array,
    covariance_type: str,
    method: str,
) -> DifferentiableFit:
    """The fit of one data set."""
    family, dtype = FAMILIES[covariance_type], x.dtype
    samples = read(x, jnp.asarray(len(x)), weights)
    is_enough = jnp.sum(samples.weights > 0) >= start.n_components
    is_usable = samples.is_finite & is_enough
    # What cannot be fitted is replaced before anything is computed, since NaN times a derivative of 0 is NaN.
    x = jnp.where(is_usable, samples.x, 0.0)
    weights = jnp.where(is_usable, jnp.where(samples.weights > 0, samples.weights, 0.0), 1.0)
    if dtype == jnp.float32:
        reg_covar = jnp.maximum(reg_covar, RIDGE_OF_FLOAT32)
    data = at_constant_units(x, weights, family.coordinates, reg_covar)
    floor = (ACCURATE_IN_FLOAT64 if dtype == jnp.float64 else SOUND) * float(jnp.finfo(dtype).eps)
    settings = Settings(data.ridge, tol, max_iter, jnp.asarray(floor, dtype))
    start = to_standard(start, data.units)
    start = replace(start, covariances=family.of_start(start.weights, start.covariances))
    is_begun = data.varies & (METHODS[method].init(unstarted(start), settings).status == RUNNING)
    is_possible = is_usable & is_begun
    start = start.map(lambda leaf, other: jnp.where(is_possible, leaf, other), _standard_normal(start))
    state = run(as_data(data.z, weights, 0, diagonal=family.diagonal), start, family, settings, METHODS[method])
    status = jnp.where(is_begun, state.status, int(Status.DEGENERATE))
    status = jnp.where(is_enough, status, int(Status.TOO_FEW_SAMPLES))
    status = jnp.where(samples.is_finite, status, int(Status.NONFINITE)).astype(jnp.int32)
    log_likelihood = samples.weight_scale * (state.log_likelihood - jnp.sum(weights) * data.units.log_scale)
    found = (to_data_units(state.mixture, data.units), log_likelihood)
    mixture, log_likelihood = _answer(is_possible, status == int(Status.CONVERGED), found)
    gap = jnp.where(is_possible, lax.stop_gradient(state.gap), jnp.nan)
    return DifferentiableFit(mixture, log_likelihood, gap, jnp.where(is_possible, state.n_iter, 0), status)


def _standard_normal(like: Mixture) -> Mixture:
    """Mixtures of standard normal components, in the shape of others."""
    dtype, n_features = like.means.dtype, like.n_features
    unit = jnp.ones(n_features, dtype) if like.is_diagonal else jnp.eye(n_features, dtype=dtype)
    shares = jnp.full_like(like.weights, 1 / like.n_components)
    return Mixture(shares, jnp.zeros_like(like.means), jnp.broadcast_to(unit, like.covariances.shape))


_Found = tuple[Mixture, Array]


@jax.custom_jvp
def _answer(is_possible: Bool[Array, ""], _is_converged: Bool[Array, ""], found: _Found) -> _Found:
    """What was found, and its derivatives; NaN in place of the one or the other where it has no meaning."""
    return jax.tree.map(lambda leaf: jnp.where(is_possible, leaf, jnp.nan), found)


@_answer.defjvp
def _derivative_of_answer(primals: tuple, tangents: tuple) -> tuple[_Found, _Found]:
    _, is_converged, _ = primals
    return _answer(*primals), jax.tree.map(functools.partial(_or_nan, is_converged), tangents[-1])


def _or_nan(is_known: Bool[Array, ""], tangent: Array) -> Array:
    """A derivative, or NaN; 0 stays 0, in both modes, so that what is masked later is no obstacle."""

    def marked(_: Any, given: Array) -> Array:
        return jnp.where(is_known | (given == 0), given, jnp.nan)

    return lax.custom_linear_solve(lambda vector: vector, tangent, marked, transpose_solve=marked)
