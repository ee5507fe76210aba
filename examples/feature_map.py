"""A feature map, learned through a thousand fits.

A thousand groups of samples have ten channels. In one direction of the channels, the same for all groups, each group
has two clusters; the others are noise, and no group alone has enough samples to find the direction. The map from ten
channels to one feature is learned by gradient descent: a mixture is fitted to the feature in every group, and the loss
says how badly these mixtures separate. No label is used.

`jaxgmm.fit` finds the best of several starts on the host. `jaxgmm.fit_differentiable` begins at what it found, and the
derivative of its mixtures with regard to the samples, and so to the map, is that of the optimum, by the implicit
function theorem.

    pip install '.[optax]'
    python examples/feature_map.py
"""

import functools
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxgmm
from jaxgmm import Mixture

N_CHANNELS, N_SAMPLES, N_STEPS = 10, 60, 40
# Distance of the clusters, in standard deviations along the best direction.
DISTANCE = 4.0
# Fraction of the variance; no component may shrink onto a few samples.
RIDGE = 1e-3


class Groups(NamedTuple):
    """Groups of samples, and what only the report reads: which cluster each comes from, and the best direction.

    Attributes:
        x: `(B, N, C)`.
        is_second: `(B, N)`.
        direction: `(C,)`.
    """

    x: np.ndarray
    is_second: np.ndarray
    direction: np.ndarray


def groups(n_groups: int, seed: int = 0) -> Groups:
    """Correlated channels with two clusters in each group, whose place and shares differ from group to group."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(7).normal(size=(N_CHANNELS, N_CHANNELS)) / np.sqrt(N_CHANNELS)
    is_second = rng.random((n_groups, N_SAMPLES)) < rng.uniform(0.3, 0.7, (n_groups, 1))
    sources = rng.normal(size=(n_groups, N_SAMPLES, N_CHANNELS))
    sources[..., 0] += DISTANCE * is_second + rng.normal(size=(n_groups, 1))
    best = np.linalg.inv(mixing)[:, 0]
    return Groups(sources @ mixing, is_second, best / np.linalg.norm(best))


def feature(direction: jax.Array, x: jax.Array) -> jax.Array:
    """The map: `(B, N, C)` to `(B, N, 1)`."""
    return jnp.einsum("bnc,c->bn", x, direction / jnp.linalg.norm(direction))[..., None]


def loss(direction: jax.Array, x: jax.Array, start: Mixture) -> tuple[jax.Array, jax.Array]:
    """Minus the mean log ratio of total to within-component variance, and the share of fits that have converged.

    Fits that have not converged have no derivative, and are left out.
    """
    fit = jaxgmm.fit_differentiable(feature(direction, x), start, reg_covar=RIDGE).filled()
    weights, means, variances = fit.mixture.weights, fit.mixture.means[..., 0], fit.mixture.covariances[..., 0, 0]
    centre = jnp.sum(weights * means, axis=1, keepdims=True)
    between, within = jnp.sum(weights * (means - centre) ** 2, axis=1), jnp.sum(weights * variances, axis=1)
    ratios = jnp.where(fit.converged, jnp.log1p(between / within), 0.0)
    share = jnp.mean(jnp.where(fit.converged, 1.0, 0.0))
    return -jnp.mean(ratios) / share, share


def fitted(direction: np.ndarray, x: np.ndarray, n_init: int = 3) -> Mixture:
    """The best of some starts for each group, found outside of the program that is differentiated."""
    return jaxgmm.fit(feature(direction, x), 2, n_init=n_init, tol=1e-6, reg_covar=RIDGE).mixture


def share_right(direction: np.ndarray, held_out: Groups) -> float:
    """The share of samples of other groups whose component is their cluster, whichever is called which."""
    components = jaxgmm.predict(fitted(direction, held_out.x), np.asarray(feature(direction, held_out.x)))
    agreement = np.mean((components == 1) == held_out.is_second, axis=1)
    return float(np.mean(np.maximum(agreement, 1 - agreement)))


def learned(x: np.ndarray, direction: np.ndarray, n_steps: int = N_STEPS) -> np.ndarray:
    """The direction after some steps of Adam, each with new starts."""
    optimiser = optax.adam(0.1)

    @functools.partial(jax.jit, donate_argnums=1)
    def step(direction: jax.Array, state: optax.OptState, x: jax.Array, start: Mixture) -> tuple:
        (value, converged), slope = jax.value_and_grad(loss, has_aux=True)(direction, x, start)
        change, state = optimiser.update(slope, state)
        return optax.apply_updates(direction, change), state, value, converged

    with jax.enable_x64(True):
        on_device, current = jnp.asarray(x), jnp.asarray(direction)
        state = optimiser.init(current)
        for i in range(n_steps):
            start = fitted(np.asarray(current), x)
            current, state, value, converged = step(current, state, on_device, start)
            if i % 10 == 0 or i == n_steps - 1:
                print(f"step {i:3d}: loss {value:.4f}, {converged:.1%} of the fits converged")
        return np.asarray(current / jnp.linalg.norm(current))


def main(n_groups: int = 1000) -> tuple[float, float]:
    """Learns the map, prints what it does for held-out groups before and after, and returns both shares."""
    training, held_out = groups(n_groups), groups(200, seed=1)
    first = np.ones(N_CHANNELS) / np.sqrt(N_CHANNELS)
    began = time.perf_counter()
    last = learned(training.x, first)
    seconds = time.perf_counter() - began
    shares = []
    for name, direction in (("before", first), ("after", last), ("best", training.direction)):
        shares.append(share_right(direction, held_out))
        print(f"{name:>6}: {shares[-1]:.1%} of held-out samples are in their cluster")
    print(f"{N_STEPS} steps through {n_groups:,} fits took {seconds:.0f} s, compilation included")
    return shares[0], shares[1]


if __name__ == "__main__":
    main()
