"""Two clusters that overlap, on which EM is slow: what accelerated and gradient methods are tried on."""

import functools

import jax.numpy as jnp
import numpy as np
import reference

from jaxgmm import Mixture
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.em.expectation import Data
from jaxgmm.em.state import Settings
from jaxgmm.em.statistics import features

N = 200


def settings_for(family: str, *, tol: float = 1e-10, max_iter: int = 2000, ridge: float = 1e-9) -> Settings:
    """All of fixed types, which programs depend on."""
    ridges = np.full(2, ridge) if FAMILIES[family].diagonal else ridge * np.eye(2)
    return Settings(*map(jnp.asarray, (ridges, np.float64(tol), np.int32(max_iter), np.float64(1e-13))))


def problem(family: str = "full", distance: float = 1.5) -> tuple[np.ndarray, Data, Mixture]:
    """Two clusters that overlap, standardised, and a start."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 2)) * np.array([1.0, 0.6]) + distance * rng.integers(2, size=(N, 1))
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    diagonal = FAMILIES[family].diagonal
    spread = np.ones((2, 2)) if diagonal else np.stack([np.eye(2)] * 2)
    start = Mixture(*map(jnp.asarray, (np.array([0.4, 0.6]), x[[0, -1]], spread)))
    return x, Data(features(jnp.asarray(x.T), diagonal=diagonal), jnp.ones(N)), start


@functools.cache
def to_ems_fixed_point(family: str, distance: float = 1.5, ridge: float = 1e-9) -> reference.TwinFit:
    """The iterations of the NumPy twin from the start of a problem to EM's fixed point."""
    x, _, start = problem(family, distance)
    twin = reference.em(x, (start.weights, start.means, np.stack([np.eye(2)] * 2)), family, 2500, ridge=ridge)
    assert abs(twin.log_likelihood - twin.trace[-100]) < 1e-11 * N
    return twin
