"""Two clusters that overlap, on which EM is slow: what accelerated and gradient methods are tried on."""

import jax.numpy as jnp
import numpy as np

from jaxgmm import Mixture
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.em.expectation import Data
from jaxgmm.em.state import Settings
from jaxgmm.em.statistics import features

N = 200


def settings_for(family: str, **changes: float) -> Settings:
    ridge = np.full(2, 1e-9) if FAMILIES[family].diagonal else 1e-9 * np.eye(2)
    settings = Settings(jnp.asarray(ridge), jnp.asarray(1e-10), jnp.asarray(2000, jnp.int32), jnp.asarray(1e-13))
    return settings._replace(
        **{name: jnp.asarray(value, getattr(settings, name).dtype) for name, value in changes.items()}
    )


def problem(family: str = "full", distance: float = 1.5) -> tuple[np.ndarray, Data, Mixture]:
    """Two clusters that overlap, standardised, and a start."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 2)) * np.array([1.0, 0.6]) + distance * rng.integers(2, size=(N, 1))
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    diagonal = FAMILIES[family].diagonal
    spread = np.ones((2, 2)) if diagonal else np.stack([np.eye(2)] * 2)
    start = Mixture(*map(jnp.asarray, (np.array([0.4, 0.6]), x[[0, -1]], spread)))
    return x, Data(features(jnp.asarray(x.T), diagonal=diagonal), jnp.ones(N)), start
