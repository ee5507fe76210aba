"""Unconstrained coordinates: every mixture has them, the gradient in them is true, and their metric is EM's."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from compilation import FULL_DIAG_AND_OTHERS, at_once, slow
from jax.scipy.special import logsumexp

from jaxgmm import Mixture
from jaxgmm.em import centred, expectation, unconstrained
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.em.expectation import Data
from jaxgmm.em.methods import metric
from jaxgmm.em.statistics import features
from jaxgmm.em.unconstrained import Point
from jaxgmm.mixture import log_joint

K = 3
reference_of = at_once(unconstrained.reference)
mixture_at = at_once(unconstrained.mixture_at)
coordinates = at_once(unconstrained.coordinates)
gradient = at_once(unconstrained.gradient)
in_family = at_once(unconstrained.in_family, static_argnames=("family",))
natural_parameters, centred_parameters = map(at_once, (expectation.natural_parameters, centred.centred_parameters))
e_step, centred_e_step = (
    at_once(sums, static_argnames=("n_features", "diagonal")) for sums in (expectation.e_step, centred.centred_e_step)
)
inner_products = at_once(metric.inner_products)


def problem(family: str, d: int = 2) -> tuple[np.ndarray, Mixture]:
    """Samples, and a mixture of a family."""
    rng = np.random.default_rng(d)
    x = rng.normal(size=(40, d))
    start = reference.random_start(rng, x, family, K)
    spread = start.covariances
    if FAMILIES[family].diagonal:
        spread = np.diagonal(spread, axis1=1, axis2=2)
    return x, Mixture(*map(jnp.asarray, (start.weights, start.means, spread)))


def a_step(family: str, d: int = 2, seed: int = 0) -> Point:
    """A step that need not leave the family."""
    rng, shape = np.random.default_rng(seed), (K, d) if FAMILIES[family].diagonal else (K, d, d)
    factors = rng.normal(size=shape)
    return Point(*map(jnp.asarray, (rng.normal(size=K), rng.normal(size=(K, d)), np.tril(factors))))


def rows_last(tree: Any, *others: Any) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves, axis=-1), tree, *others)


@pytest.mark.parametrize(("family", "d"), [("full", 3), ("diag", 2)])
def test_every_mixture_has_coordinates(family: str, d: int) -> None:
    _, mixture = problem(family, d)
    about = reference_of(mixture)
    step = a_step(family, d)
    there = mixture_at(step, about)
    again = mixture_at(coordinates(reference_of(there), about), about)
    for found, expected in zip(again.arrays, there.arrays, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
    assert float(jnp.sum(there.weights)) == pytest.approx(1, rel=1e-12)
    nowhere = mixture_at(jax.tree.map(jnp.zeros_like, step), about)
    for found, expected in zip(nowhere.arrays, mixture.arrays, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("about_means", [False, True])
@pytest.mark.parametrize(("family", "d"), [slow("full", 1), ("full", 3), ("diag", 2)])
def test_the_gradient_is_that_of_the_plain_log_likelihood(family: str, d: int, about_means: bool) -> None:
    x, mixture = problem(family, d)
    weights = np.random.default_rng(1).uniform(size=len(x))
    about, diagonal = reference_of(mixture), FAMILIES[family].diagonal

    def log_likelihood(step: Point) -> jax.Array:
        there = unconstrained.mixture_at(step, about)
        return jnp.sum(weights * logsumexp(log_joint(there, jnp.asarray(x)), axis=1))

    nowhere = jax.tree.map(jnp.zeros_like, a_step(family, d))
    data = Data(features(jnp.asarray(x.T), diagonal=diagonal), jnp.asarray(weights))
    if about_means:
        statistics, _ = centred_e_step(data, centred_parameters(mixture)[0], d, diagonal=diagonal)
        found = gradient(about, statistics, mixture.means)
    else:
        statistics, _ = e_step(data, natural_parameters(mixture)[0], d, diagonal=diagonal)
        found = gradient(about, statistics)
    for own, expected in zip(found, at_once(jax.grad(log_likelihood))(nowhere), strict=True):
        np.testing.assert_allclose(own, expected, rtol=1e-9, atol=1e-9)

    # And by differences, with the twin that shares no code.
    def by_twin(step: Point) -> float:
        there = mixture_at(step, about)
        spread = np.asarray(there.covariances)
        spread = spread[..., None] * np.eye(d) if diagonal else spread
        return reference.e_step(x, (np.asarray(there.weights), np.asarray(there.means), spread), weights)[1]

    step, h = a_step(family, d), 1e-5
    up, down = (by_twin(jax.tree.map(lambda part, s=s: s * h * part, step)) for s in (1, -1))
    slope = sum(float(jnp.sum(a * b)) for a, b in zip(found, step, strict=True))
    assert (up - down) / (2 * h) == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_an_orthogonal_projection(family: str) -> None:
    _, mixture = problem(family)
    about, row = reference_of(mixture), FAMILIES[family]
    a, b = a_step(family), a_step(family, seed=1)
    inside = in_family(a, about, row)
    for once, twice in zip(inside, in_family(inside, about, row), strict=True):
        np.testing.assert_allclose(once, twice, rtol=1e-12, atol=1e-15)
    left = float(jnp.sum(inside.factors * b.factors))
    assert left == pytest.approx(float(jnp.sum(a.factors * in_family(b, about, row).factors)), rel=1e-10)
    spread = np.asarray(mixture_at(inside, about).covariances)
    if family == "tied":
        np.testing.assert_allclose(spread, np.broadcast_to(spread[:1], spread.shape), rtol=1e-12)
    if family == "spherical":
        np.testing.assert_allclose(spread, np.broadcast_to(spread[:, :1], spread.shape), rtol=1e-12)
    if family in ("full", "diag"):
        np.testing.assert_allclose(inside.factors, a.factors, rtol=1e-15)


@pytest.mark.parametrize("family", FULL_DIAG_AND_OTHERS)
def test_the_metric_is_that_of_the_complete_data(family: str) -> None:
    _, mixture = problem(family)
    about = reference_of(mixture)
    step = in_family(a_step(family), about, FAMILIES[family])
    # But for the direction in which all weights grow alike.
    root = jnp.sqrt(mixture.weights)
    step = step._replace(weights=step.weights - root * jnp.sum(root * step.weights))
    h = 1e-5
    forward, back = (mixture_at(jax.tree.map(lambda part, s=s: s * h * part, step), about) for s in (1, -1))
    tangent = jax.tree.map(lambda a, b: ((a - b) / (2 * h))[..., None], forward, back)
    precisions = 1 / mixture.covariances if mixture.is_diagonal else jnp.linalg.inv(mixture.covariances)
    parts = inner_products([tangent], mixture.weights[:, None], precisions[..., None])
    square = sum(float(jnp.sum(leaf**2)) for leaf in step)
    assert float(parts.products(mixture.weights[:, None])[0, 0]) == pytest.approx(square, rel=1e-7)


def test_absent_components_stay_as_they_are() -> None:
    _, mixture = problem("full")
    weights = mixture.weights.at[1].set(0.0)
    mixture = Mixture(weights / jnp.sum(weights), mixture.means, mixture.covariances)
    about = reference_of(mixture)
    step = in_family(a_step("full"), about, FAMILIES["tied"])
    there = mixture_at(step, about)
    assert float(there.weights[1]) == 0
    np.testing.assert_allclose(there.covariances[1], mixture.covariances[1], rtol=1e-12)
    back = coordinates(reference_of(there), about)
    assert all(np.all(np.asarray(leaf[1]) == 0) for leaf in back)
    assert all(np.all(np.isfinite(leaf)) for leaf in back)


@pytest.mark.parametrize("family", ["full", slow("tied"), slow("spherical")])
def test_runs_in_trailing_axes_are_as_alone(family: str) -> None:
    x, mixture = problem(family)
    other = mixture.map(lambda leaf: leaf[::-1])
    both, row = rows_last(mixture, other), FAMILIES[family]
    step = a_step(family)
    steps = rows_last(step, jax.tree.map(jnp.negative, step))
    data = Data(features(jnp.asarray(x.T), diagonal=row.diagonal), jnp.ones(len(x)))
    sums = [e_step(data, natural_parameters(one)[0], 2, diagonal=row.diagonal)[0] for one in (mixture, other)]

    def all_of(mixture: Mixture, step: Point, statistics: Any) -> Any:
        about = reference_of(mixture)
        inside = in_family(step, about, row)
        there = mixture_at(inside, about)
        return inside, there, coordinates(reference_of(there), about), gradient(about, statistics)

    together = all_of(both, steps, rows_last(*sums))
    for s, one in enumerate((mixture, other)):
        alone = all_of(one, jax.tree.map(lambda leaf, s=s: leaf[..., s], steps), sums[s])
        for found, expected in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(found[..., s], expected, rtol=1e-10, atol=1e-12)
