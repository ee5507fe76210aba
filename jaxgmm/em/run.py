"""One run: from one start on one data set to its end.

`step` is one iteration, and `run` joins steps in a loop of its own; the engine joins those of many runs, in the same
two halves, in one loop (`jaxgmm.engine.slots`). Everything here is pure: it works under `jit` and `vmap` and, for
`run`, under `grad` and `jvp`.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxgmm.em import expectation
from jaxgmm.em.covariance import Family
from jaxgmm.em.expectation import Data, Tiles, natural_parameters
from jaxgmm.em.implicit import solve_linearised
from jaxgmm.em.maximization import m_step
from jaxgmm.em.methods import METHODS, Method
from jaxgmm.em.state import RunState, Settings, unstarted
from jaxgmm.mixture import Mixture

_EM = METHODS["em"]


def step(data: Data | Tiles, state: RunState, family: Family, settings: Settings, method: Method = _EM) -> RunState:
    """One iteration: the E-step, then the method's `advance`. A finished run is unchanged."""
    parameters, n_features = method.read(state), state.mixture.n_features
    statistics, log_likelihood = expectation.e_step(data, parameters, n_features, diagonal=family.diagonal)
    return method.advance(state, statistics, log_likelihood, jnp.sum(data.weights), family, settings)


def run(data: Data | Tiles, start: Mixture, family: Family, settings: Settings, method: Method = _EM) -> RunState:
    """A run from its start to its end.

    Derivatives are those of the fixed point θ = M(E(θ)) that a converged run has reached, by the implicit function
    theorem (`jaxgmm.em.implicit`), so they cost no memory per iteration and none flow to the start: converge tightly
    before using them.

    Args:
        data: features `(F, N)` and weights `(N,)` of a standardised data set.
        start: mixture to begin from, in the same coordinates.
        family: a row of `jaxgmm.em.covariance.FAMILIES`.
        settings: ridge, tolerance and limits.
        method: how the run advances, a row of `jaxgmm.em.methods.METHODS`.

    Returns:
        The final state.
    """

    def em_map(mixture: Mixture) -> Mixture:
        natural, _ = natural_parameters(mixture)
        statistics, _ = expectation.e_step(data, natural, mixture.n_features, diagonal=family.diagonal)
        return m_step(statistics, family, settings.ridge, settings.present)

    def residual(mixture: Mixture) -> Mixture:
        return jax.tree.map(jnp.subtract, mixture, em_map(mixture))

    def solve(_: object, start: Mixture) -> tuple[Mixture, tuple[Array, Array, Array]]:
        state = lax.while_loop(
            lambda state: ~method.is_finished(state),
            lambda state: step(data, state, family, settings, method),
            method.init(unstarted(start), settings),
        )
        # custom_root differentiates the auxiliary output too, and integers have no tangents.
        dtype = state.log_likelihood.dtype
        return state.mixture, (state.n_iter.astype(dtype), state.status.astype(dtype), state.gap)

    mixture, (n_iter, status, gap) = lax.custom_root(residual, start, solve, solve_linearised, has_aux=True)
    state = method.init(unstarted(mixture), settings)
    _, log_likelihood = expectation.e_step(data, method.read(state), mixture.n_features, diagonal=family.diagonal)
    counts = {"n_iter": n_iter.astype(jnp.int32), "status": status.astype(jnp.int32)}
    return state._replace(log_likelihood=log_likelihood, gap=gap, **counts)
