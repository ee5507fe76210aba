"""A sweep of your own: held-out likelihood against the ridge, with its derivative.

`jaxgmm.sweep` fits ridges from a list. One run of EM is also a pure JAX function, `jaxgmm.em.run.run`, so a ridge can
be mapped with `jax.vmap` and differentiated with `jax.grad`: the derivative is that of the optimum that EM has reached,
by the implicit function theorem, and costs no memory per iteration.

The data are few for their dimension, so that some ridge helps. Where the held-out likelihood rises with the ridge, its
derivative is positive; where it is zero, the ridge is best.

    python examples/ridges.py
"""

import jax
import jax.numpy as jnp
import numpy as np

import jaxgmm
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.em.expectation import as_data
from jaxgmm.em.run import Settings, run

N_FEATURES, N_COMPONENTS = 4, 2
RIDGES = np.geomspace(1e-3, 1.0, 7)


def samples(seed: int, n_samples: int) -> np.ndarray:
    """Two clusters in four dimensions, standardised."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_samples, N_FEATURES))
    x[::2] += 2.5
    return (x - 1.25) / np.sqrt(1 + 1.25**2)


def main() -> tuple[np.ndarray, np.ndarray]:
    """Prints held-out log-likelihood and slope for each ridge, and returns both."""
    x, held_out = samples(0, 40), samples(1, 1000)
    start = jaxgmm.fit(x, N_COMPONENTS, reg_covar=0.1).mixture
    family = FAMILIES["full"]
    with jax.enable_x64(True):
        data = as_data(jnp.asarray(x.T), jnp.ones(len(x)), 0, diagonal=family.diagonal)
        begin = start.map(jnp.asarray)

        def score(ridge: jax.Array) -> jax.Array:
            """Mean log-likelihood of held-out samples, nats."""
            settings = Settings(
                ridge=ridge * jnp.eye(N_FEATURES),
                tol=jnp.asarray(1e-13),
                max_iter=jnp.asarray(10_000, jnp.int32),
                variance_floor=jnp.asarray(1e-12),
            )
            mixture = run(data, begin, family, settings).mixture
            return jnp.mean(jaxgmm.log_prob(mixture, jnp.asarray(held_out)))

        scores, slopes = jax.jit(jax.vmap(jax.value_and_grad(score)))(jnp.asarray(RIDGES))
        scores, slopes = np.asarray(scores), np.asarray(slopes)
    print("ridge   held-out nats per sample   slope")
    for ridge, value, slope in zip(RIDGES, scores, slopes, strict=True):
        print(f"{ridge:.3f}   {value:24.4f}   {slope:+.3f}")
    return scores, slopes


if __name__ == "__main__":
    main()
