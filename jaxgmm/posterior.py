"""Log-density, responsibilities and component of samples, from log w_k N(x | μ_k, Σ_k) of one mixture's components.

A sample belongs to no component if none has a density above 0, or if one of these densities is NaN: far from all
components, at infinity, if the sample or the mixture holds NaN, or if all weights are 0. All quantities follow this
rule.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxgmm.mixture import Factors
from jaxgmm.numerics.chi_squared import survival
from jaxgmm.numerics.reductions import max_over, sum_over


class Quantity(NamedTuple):
    """A quantity computed for each sample.

    Attributes:
        of: function from logarithms `(K, N)` and the factors of the mixture to `(N,)`, or `(N, C)`.
        n_columns: C, given K; None if there is one value for each sample.
        is_integer: whether it is the number of a component.
    """

    of: Callable[[Any, Factors], Any]
    n_columns: Callable[[int], int | None]
    is_integer: bool = False

    def trailing(self, n_components: int) -> tuple[int, ...]:
        """The axes after that of samples."""
        n = self.n_columns(n_components)
        return () if n is None else (n,)


class Joint(NamedTuple):
    """Densities w_k N(x | μ_k, Σ_k) relative to the largest one of each sample.

    Attributes:
        highest: the logarithm of the largest density, by which they are divided.
        densities: the quotients, from 0 to 1.
        total: the sums of the quotients.
        is_known: whether a sample belongs to any component.
    """

    highest: Float[Array, " n"]
    densities: Float[Array, "k n"]
    total: Float[Array, " n"]
    is_known: Bool[Array, " n"]


def joint(log_joint: Float[Array, "k n"]) -> Joint:
    """Densities of the components at each sample."""
    # The shift cancels from the result, so no derivative needs to pass through the maximum.
    highest = max_over(lax.stop_gradient(log_joint), axis=0)
    is_finite = jnp.isfinite(highest)
    highest = jnp.where(is_finite, highest, 0)
    densities = jnp.exp(log_joint - highest[None])
    total = sum_over(densities, axis=0)
    # The maximum ignores NaN, the sum does not.
    return Joint(highest, densities, total, is_finite & ~jnp.isnan(total))


def log_density(log_joint: Float[Array, "k n"]) -> Float[Array, " n"]:
    """The logarithm of the density of the mixture."""
    highest, _, total, _ = joint(log_joint)
    return highest + jnp.log(total)


def posterior(log_joint: Float[Array, "k n"]) -> Float[Array, "n k"]:
    """Probabilities of the components; NaN where a sample belongs to none."""
    _, densities, total, is_known = joint(log_joint)
    return (densities / jnp.where(is_known, total, jnp.nan)[None]).T


def component(log_joint: Float[Array, "k n"]) -> Int[Array, " n"]:
    """The most probable component; -1 where a sample belongs to none."""
    return jnp.where(joint(log_joint).is_known, jnp.argmax(log_joint, axis=0), -1)


def outlier_p_value(log_joint: Float[Array, "k n"], factors: Factors) -> Float[Array, " n"]:
    """The largest probability, over components, of a sample at least as far from the mean as this one.

    NaN where the sample or the mixture holds NaN, or all weights are 0.
    """
    is_absent = factors.constants == -jnp.inf
    distances = jnp.where(is_absent[:, None], jnp.inf, 2 * (factors.constants[:, None] - log_joint))
    # Whether a minimum propagates NaN depends on how XLA vectorises it.
    is_unknown = jnp.any(jnp.isnan(distances), axis=0) | jnp.all(is_absent)
    nearest = jnp.maximum(jnp.min(distances, axis=0), 0)
    return jnp.where(is_unknown, jnp.nan, survival(nearest, factors.means.shape[1]))


def labels(log_joint: Float[Array, "k n"], factors: Factors) -> Float[Array, "n c"]:
    """In columns: the most probable component, its probability, the log-density, and the p-value of an outlier."""
    found = joint(log_joint)
    probability = jnp.where(found.is_known, 1 / found.total, jnp.nan)
    columns = [component(log_joint).astype(log_joint.dtype), probability, log_density(log_joint)]
    return jnp.stack([*columns, outlier_p_value(log_joint, factors)], axis=1)


def _labels_and_posterior(log_joint: Float[Array, "k n"], factors: Factors) -> Float[Array, "n c"]:
    return jnp.concatenate([labels(log_joint, factors), posterior(log_joint)], axis=1)


def _one(_n_components: int) -> None:
    return None


LOG_DENSITY = Quantity(lambda log_joint, _: log_density(log_joint), _one)
RESPONSIBILITIES = Quantity(lambda log_joint, _: posterior(log_joint), lambda k: k)
COMPONENT = Quantity(lambda log_joint, _: component(log_joint), _one, is_integer=True)
OUTLIER_P_VALUE = Quantity(outlier_p_value, _one)
LABELS = Quantity(labels, lambda _: 4)
LABELS_AND_RESPONSIBILITIES = Quantity(_labels_and_posterior, lambda k: 4 + k)
