"""Stepwise EM: statistics that follow a stream of samples, of which no old one is read again.

The state holds means of the sufficient statistics, per unit of weight. New samples are read once, at the current
parameters, and their statistics are mixed in (Cappé and Moulines, 2009, "On-line expectation-maximization algorithm for
latent data models"):

    s ← ρ s + (1 - ρ) s_new,    θ ← M(s).

Where u is the weight seen so far, in units of the first samples', and α the exponent, step sizes u^-α along the stream
leave

    ρ = exp(-∫ u^-α du)

of the old statistics. So ρ does not depend on how the new samples are cut into batches. With α = 1 all samples count
alike, also those that were read at early parameters; with a smaller α these are forgotten.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgmm.em.statistics import SufficientStatistics


def retained(
    before: Float[Array, ""], weight: Float[Array, ""], unit: Float[Array, ""], exponent: Float[Array, ""]
) -> Float[Array, ""]:
    """ρ, the share of the old statistics that new samples leave.

    Args:
        before: weight of all earlier samples.
        weight: that of the new ones.
        unit: that of the first ones.
        exponent: α, above 1/2 and at most 1.
    """
    ratio, power = jnp.log1p(weight / before), 1 - exponent
    grown = jnp.where(power > 0, jnp.expm1(power * ratio) / jnp.where(power > 0, power, 1.0), ratio)
    return jnp.exp(-((before / unit) ** power) * grown)


def followed(
    means: SufficientStatistics, sums: SufficientStatistics, weight: Float[Array, ""], kept: Float[Array, ""]
) -> SufficientStatistics:
    """Means of the statistics after new samples, given the sums over these, their weight, and the share kept."""
    return jax.tree.map(lambda old, new: kept * old + (1 - kept) * (new / weight), means, sums)
