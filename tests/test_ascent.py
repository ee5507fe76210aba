"""fit_by_gradient: EM's optimum by other means, objectives that EM does not have, and data in minibatches."""

import itertools
import sys
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from compilation import FULL_AND_OTHERS

import jaxgmm
from jaxgmm import Mixture

optax = pytest.importorskip("optax")

N, K = 200, 2
# The same objects, so that tests share programs.
SLOWING = optax.adam(optax.cosine_decay_schedule(0.1, 400))
BRIEF = optax.adam(0.05)


def problem(family: str = "full", n_data_sets: int = 3) -> tuple[np.ndarray, Mixture]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n_data_sets, N, 2)) + 3 * rng.integers(2, size=(n_data_sets, N, 1))
    spread = np.ones((2, 2)) if family in ("diag", "spherical") else np.stack([np.eye(2)] * 2)
    return x, Mixture(np.full(K, 0.5), np.array([[0.0, 0.0], [3.0, 3.0]]), spread)


@pytest.mark.parametrize("family", FULL_AND_OTHERS)
def test_it_ends_where_em_does(family: str) -> None:
    x, init = problem(family)
    found = jaxgmm.fit_by_gradient(x, init, SLOWING, n_steps=400, covariance_type=family)
    by_em = jaxgmm.fit(x, K, covariance_type=family, init=init, reg_covar=0.0)
    np.testing.assert_allclose(found.mixture.means, by_em.mixture.means, atol=1e-3)
    np.testing.assert_allclose(found.mixture.covariances, by_em.mixture.covariances, atol=1e-3)
    np.testing.assert_allclose(found.objective[:, -1], by_em.log_likelihood / N, atol=1e-6)


def test_the_first_objective_is_that_of_the_start() -> None:
    x, init = problem()

    def penalty(mixture: Mixture) -> Any:
        return -jnp.sum(mixture.means**2)

    found = jaxgmm.fit_by_gradient(x, init, BRIEF, penalty=penalty, n_steps=2)
    expected = jaxgmm.log_prob(init, x).mean(axis=1) - np.sum(init.means**2)
    np.testing.assert_allclose(found.objective[:, 0], expected, rtol=1e-12)
    assert np.all(found.objective[:, 1] > found.objective[:, 0])
    assert "2 steps" in repr(found)


@pytest.mark.slow
def test_a_line_search_finds_the_optimum_of_a_penalised_likelihood() -> None:
    # With one component there is a closed form: an inverse-Wishart prior draws the covariance to its own.
    x, own, strength = problem(n_data_sets=1)[0][0], 2.0 * np.eye(2), 0.5

    def penalty(mixture: Mixture) -> Any:
        precision = jnp.linalg.inv(mixture.covariances[0])
        return 0.5 * strength * (jnp.linalg.slogdet(precision)[1] - jnp.sum(jnp.asarray(own) * precision))

    init = Mixture(np.ones(1), np.zeros((1, 2)), np.eye(2)[None])
    found = jaxgmm.fit_by_gradient(x, init, optax.lbfgs(), penalty=penalty, n_steps=30)
    np.testing.assert_allclose(found.mixture.means[0], x.mean(axis=0), atol=1e-6)
    expected = (np.cov(x.T, bias=True) + strength * own) / (1 + strength)
    np.testing.assert_allclose(found.mixture.covariances[0], expected, atol=1e-6)


def test_minibatches_come_near() -> None:
    x, init = problem()
    found = jaxgmm.fit_by_gradient(x, init, SLOWING, n_steps=400, batch_size=50)
    by_em = jaxgmm.fit(x, K, init=init)
    reached = jaxgmm.log_prob(found.mixture, x).mean(axis=1)
    assert np.all(reached > by_em.log_likelihood / N - 1e-2)
    again = jaxgmm.fit_by_gradient(x, init, SLOWING, n_steps=400, batch_size=50)
    other = jaxgmm.fit_by_gradient(x, init, SLOWING, n_steps=400, batch_size=50, key=1)
    np.testing.assert_array_equal(again.objective, found.objective)
    assert np.all(other.objective[:, -1] != found.objective[:, -1])


def test_an_iterator_gives_the_minibatches_and_may_end_early() -> None:
    x, init = problem()
    expected = jaxgmm.fit_by_gradient(x, init, BRIEF, n_steps=5)
    source = iter(itertools.repeat(x))
    found = jaxgmm.fit_by_gradient(source, init, BRIEF, n_steps=5)
    np.testing.assert_allclose(found.objective, expected.objective, rtol=1e-12)
    short = jaxgmm.fit_by_gradient(iter([x] * 3), init, BRIEF, n_steps=5)
    assert short.objective.shape == (3, 3)
    one = jaxgmm.fit_by_gradient(iter([x[0]] * 3), init, BRIEF, n_steps=2)
    assert one.objective.shape == (2,)


def test_a_data_set_is_fitted_as_alone() -> None:
    x, init = problem()
    x[1, 3] = np.nan
    for batch_size in (None, 50):
        together = jaxgmm.fit_by_gradient(x, init, BRIEF, n_steps=30, batch_size=batch_size)
        alone = jaxgmm.fit_by_gradient(x[2], init, BRIEF, n_steps=30, batch_size=batch_size)
        np.testing.assert_allclose(together.of(2).mixture.means, alone.mixture.means, rtol=1e-9)
        np.testing.assert_allclose(together.of(2).objective, alone.objective, rtol=1e-9)
        # All steps see the bad sample, or the draws that hit it.
        assert np.all(np.isnan(together.mixture.means[1]))


def test_units_of_the_data_do_not_matter() -> None:
    x, init = problem()
    found = jaxgmm.fit_by_gradient(x, init, BRIEF, n_steps=30)
    far = Mixture(init.weights, 1e3 * init.means + 1e6, 1e6 * init.covariances)
    moved = jaxgmm.fit_by_gradient(1e3 * x + 1e6, far, BRIEF, n_steps=30)
    np.testing.assert_allclose((moved.mixture.means - 1e6) / 1e3, found.mixture.means, atol=1e-6)
    np.testing.assert_allclose(moved.mixture.covariances / 1e6, found.mixture.covariances, atol=1e-6)


def test_weights_and_lengths_count() -> None:
    x, init = problem()
    weights = np.ones((3, N))
    weights[:, 100:] = 0.0
    weights[:, :50] = 2.0
    found = jaxgmm.fit_by_gradient(x, init, BRIEF, n_steps=5, sample_weight=weights)
    ragged = [np.concatenate([own[:50], own[:100]]) for own in x]
    ragged[0] = np.concatenate([ragged[0], ragged[0]])
    expected = jaxgmm.fit_by_gradient(ragged, init, BRIEF, n_steps=5)
    np.testing.assert_allclose(found.mixture.means, expected.mixture.means, rtol=1e-10)


def test_minibatches_are_drawn_in_proportion_to_weights() -> None:
    x, init = problem()
    weights = np.zeros((3, N))
    weights[:, :10] = 3.0
    few = jaxgmm.fit_by_gradient(x, init, BRIEF, n_steps=30, sample_weight=weights, batch_size=50)
    expected = jaxgmm.fit_by_gradient(x[:, :10], init, BRIEF, n_steps=30, batch_size=50)
    np.testing.assert_allclose(few.mixture.means, expected.mixture.means, rtol=1e-9)


def test_an_absent_component_stays_absent() -> None:
    x, init = problem()
    three = Mixture(np.append(init.weights, 0.0), np.append(init.means, np.zeros((1, 2)), 0), np.stack([np.eye(2)] * 3))
    found = jaxgmm.fit_by_gradient(x, three, BRIEF, n_steps=5)
    expected = jaxgmm.fit_by_gradient(x, init, BRIEF, n_steps=5)
    np.testing.assert_allclose(found.mixture.means[:, :2], expected.mixture.means, rtol=1e-10)
    np.testing.assert_array_equal(found.mixture.weights[:, 2], 0.0)


def unequal(init: Mixture) -> Mixture:
    return Mixture(init.weights, init.means, init.covariances * np.array([1.0, 2.0])[:, None, None])


WRONG: dict[str, tuple[Callable[[np.ndarray, Mixture], Any], str]] = {
    "optimizer": (lambda x, m: jaxgmm.fit_by_gradient(x, m, "adam"), "optimizer must be an optax"),
    "penalty": (lambda x, m: jaxgmm.fit_by_gradient(x, m, BRIEF, penalty=1.0), "penalty must be a function"),
    "vector": (
        lambda x, m: jaxgmm.fit_by_gradient(x, m, BRIEF, penalty=lambda m: m.weights),
        "penalty must return one",
    ),
    "n_steps": (lambda x, m: jaxgmm.fit_by_gradient(x, m, BRIEF, n_steps=0), "n_steps must be an integer"),
    "batch_size": (lambda x, m: jaxgmm.fit_by_gradient(x, m, BRIEF, batch_size=0), "batch_size must be an integer"),
    "family": (
        lambda x, m: jaxgmm.fit_by_gradient(x, m, BRIEF, covariance_type="round"),
        "covariance_type must be one",
    ),
    "tied": (lambda x, m: jaxgmm.fit_by_gradient(x, unequal(m), BRIEF, covariance_type="tied"), "init must be of the"),
    "iterator": (lambda x, m: jaxgmm.fit_by_gradient(iter([x]), m, BRIEF, batch_size=3), "an iterator already gives"),
    "empty": (lambda x, m: jaxgmm.fit_by_gradient(iter([]), m, BRIEF), "an iterator without minibatches"),
    "features": (lambda x, m: jaxgmm.fit_by_gradient(x[..., :1], m, BRIEF), "init.means must have shape"),
}


@pytest.mark.parametrize("name", WRONG)
def test_misuse_is_refused_in_words(name: str) -> None:
    call, sentence = WRONG[name]
    with pytest.raises(ValueError, match=sentence):
        call(*problem())


def test_a_missing_optax_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    x, init = problem()
    monkeypatch.setitem(sys.modules, "optax", None)
    with pytest.raises(ImportError, match=r"fit_by_gradient needs optax: pip install 'jaxgmm\[optax\]'"):
        jaxgmm.fit_by_gradient(x, init, BRIEF)
