"""fit_by_gradient(): mixtures fitted by any optax optimiser, to an objective of one's own, over minibatches.

Coordinates are those of `jaxgmm.em.unconstrained`, relative to the start: they need no pass over the data, and scale
with them.
"""

import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

from jaxgmm.driver.arguments import checked_key, checked_mixture, weighted
from jaxgmm.em.covariance import FAMILIES, Family
from jaxgmm.em.unconstrained import Point, Reference, in_family, mixture_at, reference
from jaxgmm.engine.batch import Batch, batch, padded
from jaxgmm.mixture import Mixture, as_mixture, log_joint, with_harmless_absent
from jaxgmm.record import Block, Record, counted, record, span
from jaxgmm.settings import FAMILIES as FAMILY_NAMES
from jaxgmm.settings import check_integer, check_optax

Penalty = Callable[[Mixture], Any]

# Steps between two visits to the host, and numbers of samples that are drawn for them at most.
_STEPS, _MOST_DRAWN = 64, 2**24


@record
class GradientFit(Record):
    """Mixtures fitted by gradient ascent to B data sets, in T steps; for one data set the B axis is absent.

    Attributes:
        mixture: `(B, K, …)`, after the last step, in data units; NaN where a step has read NaN or infinity.
        objective: `(B, T)`, the objective before every step, on its minibatch, in nats per sample.
    """

    mixture: Mixture
    objective: np.ndarray

    @property
    def _batch(self) -> tuple[int, ...]:
        return self.objective.shape[:-1]

    def _described(self) -> tuple[str, list[Block]]:
        of = f"{counted(len(self), 'data set')}, " if self._batch else ""
        k, d, n_steps = self.mixture.n_components, self.mixture.n_features, self.objective.shape[-1]
        rows = [["first objective", span(self.objective[..., :1])], ["last", span(self.objective[..., -1:])]]
        return f"GradientFit: {of}K = {k}, D = {d}, {counted(n_steps, 'step')}", [Block(rows)]


class _Climb(NamedTuple):
    """The static part of a program."""

    optimizer: Any
    penalty: Penalty | None
    family: Family


class _State(NamedTuple):
    """Where the ascents are, and what their optimisers remember."""

    point: Point
    optimizer: Any


def fit_by_gradient(
    x: Any,
    init: Any,
    optimizer: Any,
    *,
    penalty: Penalty | None = None,
    n_steps: int = 1000,
    batch_size: int | None = None,
    covariance_type: str = "full",
    sample_weight: Any = None,
    key: Any = 0,
) -> GradientFit:
    """Maximises the mean log-likelihood plus a penalty of one's own, with an optimiser of optax, over minibatches.

    It is for objectives that EM does not maximise, and for data that do not fit in memory; `fit` is better at
    everything else. It makes exactly `n_steps` steps, in float64, from one start, and does not judge where they end.
    Parameters are unconstrained on the way: logarithms of weights, means, and Cholesky factors of covariances with the
    logarithms of their diagonals, all relative to the start. In these a step of 0.1 moves the mean of a component
    of weight w by 0.1 / √w of its standard deviations. There is no ridge: a component may shrink onto one
    sample, unless the penalty prevents it.

    Args:
        x: one data set `(N, D)`, a stack `(B, N, D)`, or a sequence of `(N_i, D)`, as for `fit`, `np.memmap` included;
            or an iterator of minibatches `(n, D)`, or `(B, n, D)`, one for each step, which may end early.
        init: where to begin: a `Mixture` or the result of a fit, with a batch axis or one for all data sets. The
            largest step of the optimiser should be small in units of its components.
        optimizer: an `optax.GradientTransformation`. It sees a loss: the objective with the opposite sign. Those that
            search along lines, such as `optax.lbfgs()`, need the same data at every step. Every data set has its own
            state of it.
        penalty: a JAX function from one `Mixture`, in data units, to a number in nats per sample, which is added to the
            mean log-likelihood: the logarithm of a prior's density, divided by N. None for maximum likelihood.
        n_steps: T, the number of steps.
        batch_size: samples of each data set, drawn with replacement, of which a step is made. None for all.
        covariance_type: as for `fit`. `init` must be of the family.
        sample_weight: as for `fit`; not for an iterator.
        key: seed or JAX random key of the minibatches. Every data set draws from the same.

    Returns:
        the mixtures, and the objective on the way. Programs are compiled for an optimiser and a penalty: pass the same
        objects again to use them again.

    Raises:
        ValueError: wrong shapes or options. Nothing has been computed then, unless a later minibatch of an iterator has
            another shape than the first.
        ImportError: optax is not installed.

    Example:
        >>> import numpy as np, optax, jaxgmm
        >>> x = np.random.default_rng(0).normal(5.0, 2.0, size=(1000, 1))
        >>> init = jaxgmm.Mixture(np.ones(1), np.full((1, 1), 4.0), np.ones((1, 1, 1)))
        >>> optimizer = optax.adam(optax.cosine_decay_schedule(0.1, 500))
        >>> found = jaxgmm.fit_by_gradient(x, init, optimizer, n_steps=500)
        >>> bool(np.isclose(found.mixture.means[0, 0], x.mean(), atol=1e-4))
        True
    """
    check_optax("fit_by_gradient")
    _check_options(optimizer, penalty, n_steps, batch_size, covariance_type)
    if isinstance(x, Iterator):
        if batch_size is not None or sample_weight is not None:
            raise ValueError("an iterator already gives minibatches; leave out batch_size and sample_weight.")
        first = next(x, None)
        if first is None:
            raise ValueError("x is an iterator without minibatches.")
        data, drawn = batch(first), _given(first, x, int(n_steps))
    else:
        data = weighted(batch(x), sample_weight)
        drawn = _all_of(data) if batch_size is None else _drawn(data, int(batch_size), checked_key(key))
    start = _checked_start(init, data, covariance_type)
    climb = _Climb(optimizer, penalty, FAMILIES[covariance_type])
    with jax.enable_x64(True):
        _check_penalty(penalty, start)
        mixture, objective = _ascended(start, drawn, int(n_steps), climb)
    result = GradientFit(mixture.map(np.asarray), objective)
    return result.of(0) if data.is_single else result


def _ascended(start: Mixture, drawn: Iterator[Any], n_steps: int, climb: _Climb) -> tuple[Mixture, np.ndarray]:
    """Mixtures after steps on blocks of minibatches, each with its number of steps if it limits them."""
    about, state = _begun(start.map(jnp.asarray), climb=climb)
    values: list[np.ndarray] = []
    made = 0
    for x, weights, most in drawn:
        now = min(n_steps - made, most)
        state, objective = _advanced(state, about, x, weights, now, climb=climb)
        values.append(np.asarray(objective)[:, :now])
        made += now
        if made == n_steps:
            break
    return _mixtures(state.point, about), np.concatenate(values, axis=1)


@functools.partial(jax.jit, static_argnames=("climb",))
def _begun(start: Mixture, *, climb: _Climb) -> tuple[Reference, _State]:
    def one(start: Mixture) -> tuple[Reference, _State]:
        about = reference(with_harmless_absent(start))
        point = Point(*(jnp.zeros_like(leaf) for leaf in about))
        return about, _State(point, _relaxed(climb.optimizer.init)(point))

    return jax.vmap(one)(start)


@functools.partial(jax.jit, static_argnames=("climb",))
def _advanced(
    state: _State,
    about: Reference,
    x: Float[Array, "t b n d"],
    weights: Float[Array, "t b n"],
    n_steps: Any,
    *,
    climb: _Climb,
) -> tuple[_State, Array]:
    """States after some steps, which take the minibatches in turn, and the objectives `(B, _STEPS)` before them."""

    def one(state: _State, about: Reference, x: Array, weights: Array) -> tuple[_State, Array]:
        def step(t: Array, carry: tuple[_State, Array]) -> tuple[_State, Array]:
            state, values = carry
            own = x[t % len(x)], weights[t % len(x)]
            state, value = _step(state, about, *own, climb)
            return state, values.at[t].set(value)

        return lax.fori_loop(0, n_steps, step, (state, jnp.zeros(_STEPS)))

    return jax.vmap(one, in_axes=(0, 0, 1, 1))(state, about, x, weights)


def _step(
    state: _State, about: Reference, x: Float[Array, "n d"], weights: Float[Array, " n"], climb: _Climb
) -> tuple[_State, Float[Array, ""]]:
    """One step, and the objective before it."""

    def loss(point: Point) -> Array:
        mixture = mixture_at(point, about)
        mean = jnp.sum(weights * _log_density(mixture, x, about.weights > 0)) / jnp.sum(weights)
        return -mean if climb.penalty is None else -(mean + climb.penalty(mixture))

    value, slope = jax.value_and_grad(loss)(state.point)
    slope = in_family(slope, about, climb.family)
    # Optimisers that search along lines want the objective, too; the others are given what they do not look at.
    update = importlib.import_module("optax").with_extra_args_support(climb.optimizer).update
    of_loss = {"value": value, "grad": slope, "value_fn": loss}
    updates, optimizer = _relaxed(update)(slope, state.optimizer, state.point, **of_loss)
    updates = in_family(updates, about, climb.family)
    return _State(jax.tree.map(jnp.add, state.point, updates), optimizer), -value


def _log_density(mixture: Mixture, x: Float[Array, "n d"], is_present: Array) -> Float[Array, " n"]:
    # The logarithm of an absent component's weight has no derivative.
    there = Mixture(jnp.where(is_present, mixture.weights, 1), mixture.means, mixture.covariances)
    return logsumexp(jnp.where(is_present[None], log_joint(there, x), -jnp.inf), axis=1)


@jax.jit
def _mixtures(point: Point, about: Reference) -> Mixture:
    return jax.vmap(mixture_at)(point, about)


def _all_of(data: Batch) -> Iterator[Any]:
    """All samples, again and again."""
    everything, longest = np.arange(data.n_data_sets), int(np.max(data.lengths))
    weights = data.weights(everything, longest)
    x = np.asarray(padded(data.samples, data, everything, longest), np.float64)
    # What has no weight may hold anything.
    x = np.where(weights[..., None] > 0, x, 0.0)
    while True:
        yield x[None], weights[None], _STEPS


def _drawn(data: Batch, batch_size: int, key: Any) -> Iterator[Any]:
    """Samples drawn from every data set, gathered on the host for some steps at a time."""
    rng = np.random.default_rng(_seed(key))
    rows = np.arange(data.n_data_sets)
    # Data sets without samples draw one of weight 0.
    samples = np.asarray(data.samples) if len(data.samples) else np.zeros((1, data.samples.shape[1]))
    totals = np.cumsum(data.weights(rows, int(np.max(data.lengths))), axis=1) if data.is_weighted else None
    of_one = data.n_data_sets * batch_size * samples.shape[1]
    n_steps = max(1, min(_STEPS, _MOST_DRAWN // of_one))
    while True:
        # The same uniforms for all data sets, so that no draw depends on a data set's place.
        uniform = rng.random((n_steps, 1, batch_size))
        if totals is None:
            drawn, share = uniform * data.lengths[:, None], data.lengths > 0
        else:
            # In proportion to the weights, and then with weight 1.
            drawn = np.stack([np.searchsorted(own, uniform[:, 0] * own[-1], side="right") for own in totals], axis=1)
            share = np.where(np.isfinite(totals[:, -1]), totals[:, -1] > 0, np.nan)
        numbers = np.clip(drawn, 0, np.maximum(data.lengths - 1, 0)[:, None]).astype(np.int64)
        own = np.broadcast_to(share[:, None], numbers.shape).astype(np.float64)
        x = np.asarray(samples[np.minimum(data.first[:, None] + numbers, len(samples) - 1)], np.float64)
        yield np.where(own[..., None] > 0, x, 0.0), own, n_steps


def _given(first: Any, rest: Iterator[Any], n_steps: int) -> Iterator[Any]:
    """The minibatches of an iterator, of which no more are taken than there are steps."""
    shape = None
    for step in range(n_steps):
        minibatch = first if step == 0 else next(rest, None)
        if minibatch is None:
            return
        data = batch(minibatch)
        if shape not in (None, (data.n_data_sets, data.samples.shape[1])):
            raise ValueError(f"minibatches must have the data sets and features of the first, {shape}.")
        shape = data.n_data_sets, data.samples.shape[1]
        yield *next(_all_of(data))[:2], 1


def _seed(key: Any) -> Any:
    """Entropy from a JAX random key, or a seed."""
    if isinstance(key, jax.Array):
        return np.asarray(jax.random.key_data(key)).ravel()
    return int(key) % 2**64


def _relaxed(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of optax, which counts on JAX's own rules, where a user may have made these stricter."""

    def call(*args: Any, **kwargs: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return function(*args, **kwargs)

    return call


def _check_options(optimizer: Any, penalty: Any, n_steps: Any, batch_size: Any, covariance_type: Any) -> None:
    if not (callable(getattr(optimizer, "init", None)) and callable(getattr(optimizer, "update", None))):
        raise ValueError(f"optimizer must be an optax.GradientTransformation; got {type(optimizer).__name__}.")
    if penalty is not None and not callable(penalty):
        raise ValueError(f"penalty must be a function of a Mixture, or None; got {type(penalty).__name__}.")
    check_integer("n_steps", n_steps, 1)
    if batch_size is not None:
        check_integer("batch_size", batch_size, 1)
    if not isinstance(covariance_type, str) or covariance_type not in FAMILY_NAMES:
        known = ", ".join(map(repr, FAMILY_NAMES))
        raise ValueError(f"covariance_type must be one of {known}; got {covariance_type!r}.")


def _checked_start(init: Any, data: Batch, covariance_type: str) -> Mixture:
    """The starts, one for each data set."""
    init = as_mixture(init)
    start = checked_mixture(init, data, np.shape(init.weights)[-1], covariance_type)
    spread = start.covariances
    shared = {"tied": spread[:, :1], "spherical": spread[..., :1]}.get(covariance_type, spread)
    if np.any(np.abs(spread - shared) > 1e-9 * np.abs(shared)):
        raise ValueError(f"init must be of the family; its covariances are not {covariance_type!r}.")
    return start


def _check_penalty(penalty: Penalty | None, start: Mixture) -> None:
    if penalty is None:
        return
    one = start.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], np.float64))
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(jax.eval_shape(penalty, one))]
    if shapes != [()]:
        raise ValueError(f"penalty must return one number for a mixture; it returns arrays of shapes {shapes}.")
