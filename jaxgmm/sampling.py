"""sample(): draws from mixtures."""

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jaxgmm.density import as_jax, precision
from jaxgmm.driver.arguments import check_mixture, numeric_mixture, random_key
from jaxgmm.engine.arrays import is_traced
from jaxgmm.engine.batch import Sizes, padded_lengths
from jaxgmm.engine.devices import power_of_two_above, power_of_two_below
from jaxgmm.mixture import Mixture, as_mixture, draw
from jaxgmm.pieces import at_once, cut
from jaxgmm.settings import check_integer

if TYPE_CHECKING:
    # NumPy and JAX arrays mix freely here, which their type stubs do not.
    Floats = Ints = Any
else:
    Floats, Ints = Float[Array | np.ndarray, "..."], Int[Array | np.ndarray, "..."]

# Numbers that are drawn at a time.
_DRAWN = 2**22


def sample(key: Any, mixture: Any, n_samples: int) -> tuple[Floats, Ints]:
    """Draws samples from a mixture, and returns the component of each.

    Args:
        key: as for `fit`: an integer seed or a JAX random key. Mixtures of a batch draw independently of each other.
        mixture: as for `log_prob`.
        n_samples: N, samples drawn from each mixture.

    Returns:
        samples `(…, N, D)` in data units, and components `(…, N)` numbered from 0. NaN and -1 from a mixture that holds
        NaN, or whose weights are all 0.

    Raises:
        ValueError: an invalid key, mixture or number of samples.
    """
    check_integer("n_samples", n_samples, 0)
    key, mixture = random_key(key), as_mixture(mixture)
    if isinstance(key, np.integer):
        # Without 64-bit types, a seed would lose half of its bits.
        with jax.enable_x64(True), jax.ensure_compile_time_eval():
            key = jax.random.key(int(key))
    kept = precision(mixture)
    if any(map(is_traced, (key, *mixture.arrays))):
        own = mixture.map(lambda leaf: jnp.asarray(leaf, kept))
        check_mixture(own, None)
        draw_all = functools.partial(draw, n_samples=int(n_samples))
        for _ in range(own.weights.ndim - 1):
            draw_all = jax.vmap(draw_all)
        return draw_all(jax.random.split(key, (*own.weights.shape[:-1], 2)), own)
    own = numeric_mixture(mixture)
    check_mixture(own, None)
    drawn = _samples(key, own, int(n_samples), kept or np.dtype(np.float64))
    return drawn if kept is None else jax.tree.map(as_jax, drawn)


def _samples(key: Array, mixture: Mixture, n_samples: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Samples of mixtures `(…, K, …)`, and their components. Padding is drawn last."""
    leading, (n_components, n_features) = mixture.weights.shape[:-1], mixture.means.shape[-2:]
    flat = mixture.map(lambda leaf: leaf.reshape(-1, *leaf.shape[len(leading) :]))
    n_mixtures = len(flat.weights)
    computed = dtype if dtype.itemsize >= 4 else np.dtype(np.float32)
    samples = np.empty((n_mixtures, n_samples, n_features), dtype)
    components = np.empty((n_mixtures, n_samples), np.int64)
    alone = Sizes(np.array([n_samples]), 0, 1, is_single=True, is_weighted=False)
    size = int(padded_lengths(alone, 0)[0])
    most = power_of_two_below(_DRAWN // (size * (n_components + n_features)))
    with jax.enable_x64(True):
        keys = at_once(_split, key, n=power_of_two_above(max(1, n_mixtures)))
        for start, n in cut(n_mixtures, 1, most, cost=1):
            some = np.arange(start, min(start + n, n_mixtures))
            own = flat.of(np.resize(some, n)).map(lambda leaf: leaf.astype(computed, copy=False))
            drawn, of_drawn = at_once(_drawn, keys, np.int64(start), own, n_samples=size)
            samples[some] = np.asarray(drawn)[: len(some), :n_samples]
            components[some] = np.asarray(of_drawn)[: len(some), :n_samples]
    return samples.reshape(*leading, *samples.shape[1:]), components.reshape(*leading, n_samples)


@functools.partial(jax.jit, static_argnames=("n",))
def _split(key: Array, n: int) -> Array:
    return jax.random.split(key, (n, 2))


@functools.partial(jax.jit, static_argnames=("n_samples",))
def _drawn(keys: Array, start: Array, mixtures: Mixture, *, n_samples: int) -> tuple[Array, Array]:
    keys = lax.dynamic_slice_in_dim(keys, start, len(mixtures.weights))
    return jax.vmap(lambda keys, mixture: draw(keys, mixture, n_samples))(keys, mixtures)
