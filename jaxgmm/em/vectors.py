"""The E-step of runs on small data sets, by vectors along the samples.

The same sums as those of `jaxgmm.em.expectation`, written for one CPU kernel (`jaxgmm.numerics.kernels`): one run after
another, every operation a loop along the samples of one data set; results that several operations read are kept.
"""

import functools
import operator

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxgmm.em.expectation import Data
from jaxgmm.em.statistics import SufficientStatistics, from_sums
from jaxgmm.numerics.elementary import exp_nonpositive, log_from_one
from jaxgmm.numerics.kernels import apart, in_one_kernel


def e_steps(
    data: Data,
    rows: Int[Array, " s"],
    natural: Float[Array, "k f s"],
    wanted: Int[Array, " s"],
    n_wanted: Int[Array, ""],
    n_features: int,
    *,
    diagonal: bool,
) -> tuple[SufficientStatistics, Float[Array, " s"]]:
    """Sufficient statistics under the posterior of the components, and the total log-likelihood in nats, of S runs.

    Args:
        data: C data sets in a leading axis.
        rows: the data set of each run.
        natural: the natural parameters of each run.
        wanted: numbers of the runs, of which the first `n_wanted` count; the others take no time.
        n_wanted: how many runs are wanted.
        n_features: D.
        diagonal: whether components are axis-aligned.

    Returns:
        statistics `(K, …, S)` and log-likelihoods, 0 for runs that are not wanted.
    """
    # As one array, so that the kernel reads some of it even if the compiler finds parts to be constant.
    order = jnp.concatenate([n_wanted[None], wanted, rows])
    sums, log_likelihood = _all_sums(*data, natural, order)
    statistics = jax.vmap(lambda sums: from_sums(sums, n_features, diagonal=diagonal), -1, -1)(sums)
    return statistics, log_likelihood


@in_one_kernel
def _all_sums(
    features: Float[Array, "c f n"],
    weights: Float[Array, "c n"],
    natural: Float[Array, "k f s"],
    order: Int[Array, " o"],
) -> tuple[Float[Array, "k f s"], Float[Array, " s"]]:
    """`order` holds the number of wanted runs, their numbers, and the data set of every run."""
    n_runs = natural.shape[-1]

    def add(i: Array, all_sums: tuple[Array, Array]) -> tuple[Array, Array]:
        run = _at(order, 1 + i)
        row = _at(order, 1 + n_runs + run)
        sums = _e_step(_at(features, row), _at(weights, row), _at(natural, run, -1))
        return jax.tree.map(lambda kept, new: lax.dynamic_update_index_in_dim(kept, new, run, -1), all_sums, sums)

    return lax.fori_loop(0, order[0], add, (jnp.zeros_like(natural), jnp.zeros_like(natural[0, 0])))


def _e_step(
    features: Float[Array, "f n"], weights: Float[Array, " n"], natural: Float[Array, "k f"]
) -> tuple[Float[Array, "k f"], Float[Array, ""]]:
    """Sums of the features under the posterior of each component, and the log-likelihood, of one run."""
    log_joint = [_log_joint(parameters, features) for parameters in natural]
    shift = _maximum(*log_joint)
    joint = [_exp_of_difference(row, shift) for row in log_joint]
    density = _sum(*joint)
    log_likelihood = _inner(weights, _log_density(shift, density))
    scale = _ratio(weights, density)
    return jnp.stack([_inner(features, _product(row, scale)) for row in joint]), log_likelihood


@apart
def _log_joint(parameters: Float[Array, " f"], features: Float[Array, "f n"]) -> Float[Array, " n"]:
    # The first feature is 1.
    terms = [parameters[f] * features[f] for f in range(1, len(features))]
    return functools.reduce(operator.add, terms, jnp.broadcast_to(parameters[0], features.shape[1:]))


@apart
def _maximum(*rows: Float[Array, " n"]) -> Float[Array, " n"]:
    return functools.reduce(jnp.maximum, rows)


@apart
def _exp_of_difference(row: Float[Array, " n"], shift: Float[Array, " n"]) -> Float[Array, " n"]:
    difference = row - shift
    return exp_nonpositive(difference) if row.dtype == jnp.float32 else jnp.exp(difference)


@apart
def _sum(*rows: Float[Array, " n"]) -> Float[Array, " n"]:
    return functools.reduce(operator.add, rows)


@apart
def _log_density(shift: Float[Array, " n"], density: Float[Array, " n"]) -> Float[Array, " n"]:
    # The largest term of the density is exp(0).
    return shift + (log_from_one(density) if density.dtype == jnp.float32 else jnp.log(density))


@apart
def _ratio(weights: Float[Array, " n"], density: Float[Array, " n"]) -> Float[Array, " n"]:
    return weights / density


@apart
def _product(a: Float[Array, " n"], b: Float[Array, " n"]) -> Float[Array, " n"]:
    return a * b


@apart
def _inner(rows: Float[Array, "*f n"], vector: Float[Array, " n"]) -> Float[Array, "*f"]:
    return jnp.matmul(rows, vector, precision=lax.Precision.HIGHEST)


def _at(array: Array, index: Array, axis: int = 0) -> Array:
    return lax.dynamic_index_in_dim(array, index, axis, keepdims=False)
