"""A method is a row: another one than plain EM goes through the loop of one run and through the engine alike."""

import functools
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import at_once, slow

from jaxgmm import Mixture, Status
from jaxgmm.driver.program import Request
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.em.expectation import Data
from jaxgmm.em.methods import METHODS, Method, plain
from jaxgmm.em.run import run
from jaxgmm.em.state import RUNNING, RunState, Settings
from jaxgmm.em.statistics import features
from jaxgmm.engine.batch import batch
from jaxgmm.fitting import fit_batch

TOL = 1e-6
NEEDS_OPTAX = pytest.mark.skipif(find_spec("optax") is None, reason="there is no optax")


def patient_init(*args: Any, **kwargs: Any) -> RunState:
    state = plain.init(*args, **kwargs)
    return state._replace(memory=(state.memory, jnp.zeros(state.status.shape, bool)))


def patient_advance(state: RunState, *args: Any, **kwargs: Any) -> RunState:
    """Plain EM that ends only with the second small step in a row."""
    *sums, total, family, settings = args
    change, is_second = state.memory
    state = state._replace(memory=change)
    eager = plain.advance(state, *sums, total, family, settings, **kwargs)
    patient = plain.advance(state, *sums, total, family, settings._replace(tol=0 * settings.tol), **kwargs)
    goes_on = (eager.status == Status.CONVERGED) & (state.status == RUNNING) & ~is_second

    def select(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(goes_on, a, b)

    following = jax.tree.map(select, patient, eager)
    return following._replace(memory=(following.memory, goes_on))


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> Method:
    method = Method(patient_init, METHODS["em"].read, patient_advance, METHODS["em"].is_finished)
    monkeypatch.setitem(METHODS, "patient", method)
    return method


def problem() -> tuple[np.ndarray, Mixture]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 300, 2)) + 3 * rng.integers(2, size=(5, 300, 1))
    spread = np.broadcast_to(np.eye(2), (5, 2, 2, 2))
    return x, Mixture(np.full((5, 2), 0.5), x[:, [0, -1]], spread)


def through_the_engine(method: str, precision: str) -> Any:
    x, starts = problem()
    request = Request("mixture", 1, 1, precision, TOL, 1000, np.int64(0), absolute_ridge=True, method=method)
    return fit_batch(batch(x), starts, (2, "full", 1e-9), request, lambda _: None)


@functools.cache
def alone(method: Method) -> RunState:
    """The same runs, each in a loop of its own. Coordinates are the data's, so the ridge is the same."""
    x, starts = problem()
    ridge = jnp.asarray(1e-9 * np.eye(2))
    settings = Settings(ridge, jnp.asarray(TOL), jnp.asarray(1000, jnp.int32), jnp.asarray(1e-13))

    def one(x: jax.Array, start: Mixture) -> RunState:
        data = Data(features(x.T, diagonal=False), jnp.ones(len(x)))
        return run(data, start, FAMILIES["full"], settings, method)

    return at_once(jax.vmap(one))(x, starts)


def test_a_method_with_a_memory_goes_through_the_engine_as_it_goes_alone(patient: Method) -> None:
    expected, found = alone(patient), through_the_engine("patient", "float64")
    assert np.all(found.status == Status.CONVERGED)
    np.testing.assert_array_equal(found.n_iter, expected.n_iter)
    np.testing.assert_allclose(found.mixture.means, expected.mixture.means, rtol=1e-9)
    # It is another method than plain EM.
    eager = alone(METHODS["em"])
    np.testing.assert_array_equal(expected.n_iter, eager.n_iter + 1)


@pytest.mark.usefixtures("patient")
def test_a_search_in_float32_forgets_what_a_method_kept() -> None:
    found, eager = (through_the_engine(method, "mixed") for method in ("patient", "em"))
    assert np.all(found.status == Status.CONVERGED)
    assert np.all(found.n_iter > eager.n_iter)
    np.testing.assert_allclose(found.log_likelihood, eager.log_likelihood, atol=300 * 1e-4)


@pytest.mark.parametrize(
    "name", ["em", "quasi-newton", slow("squarem"), pytest.param("lbfgs", marks=[NEEDS_OPTAX, pytest.mark.slow])]
)
def test_every_method_goes_through_the_engine_as_it_goes_alone(name: str) -> None:
    expected, found = alone(METHODS[name]), through_the_engine(name, "float64")
    assert np.all(found.status == Status.CONVERGED)
    np.testing.assert_array_equal(found.n_iter, expected.n_iter)
    np.testing.assert_allclose(found.mixture.means, expected.mixture.means, rtol=1e-9)
    np.testing.assert_allclose(found.gap, expected.gap, rtol=1e-3, atol=1e-12)
