"""Programs of streams: the statistics of a first batch, of a tile of a pass, and updates by new samples; all float64.

Statistics are means per unit of weight, in the coordinates in which the first batch was standardised. Nothing is
standardised again, so sums of old samples stay valid.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxgmm.driver.passes import DataSets
from jaxgmm.driver.runs import ACCURATE_IN_FLOAT64
from jaxgmm.driver.standardize import Standardization, to_data_units, to_standard
from jaxgmm.em.covariance import FAMILIES, Ridge
from jaxgmm.em.expectation import as_data, e_step, natural_parameters
from jaxgmm.em.state import Settings
from jaxgmm.em.statistics import SufficientStatistics, n_rows
from jaxgmm.em.stepwise import followed, retained
from jaxgmm.em.surrogate import Solved, solved, sound_m_step
from jaxgmm.engine.devices import power_of_two_below
from jaxgmm.mixture import Mixture, with_harmless_absent
from jaxgmm.numerics.cholesky import inverse_lower
from jaxgmm.numerics.kernels import compiled
from jaxgmm.numerics.products import product
from jaxgmm.settings import TOL

# Iterations on the sample of a stream, after each pass.
_MOST_ITERATIONS = 500
# Bytes of the features, logits and responsibilities of the samples that an E-step reads at a time.
_TILE_BYTES = 2**20


class Held(NamedTuple):
    """What the stream of a data set holds; see `jaxgmm.Stream`.

    Attributes:
        mixture: in data units; absent components have weight 0.
        statistics: means, standardised.
        shift: of the coordinates.
        scale: of the coordinates, lower-triangular, or a vector for an axis-aligned family.
        ridge: added to every covariance, standardised.
        unit: weight of the first samples.
        n_samples: weight of all samples.
    """

    mixture: Mixture
    statistics: SufficientStatistics
    shift: Float[Array, "*c d"]
    scale: Float[Array, "*c d d"] | Float[Array, "*c d"]
    ridge: Ridge
    unit: Float[Array, "*c"]
    n_samples: Float[Array, "*c"]


class Sums(NamedTuple):
    """What an E-step of new samples gives.

    Attributes:
        statistics: sums, standardised.
        log_likelihood: total nats, in data units, of the parameters at which samples were read.
        weight: Σ w.
        is_finite: whether all weights, and all samples with positive weight, are finite.
    """

    statistics: SufficientStatistics
    log_likelihood: Float[Array, "*c"]
    weight: Float[Array, "*c"]
    is_finite: Bool[Array, "*c"]


def tile_of(n_features: int, n_components: int, most: int, *, diagonal: bool) -> int:
    """How many samples an E-step reads at a time, a power of two; `most` is one, too."""
    within_bytes = _TILE_BYTES // (8 * (n_rows(n_features, diagonal=diagonal) + 2 * n_components))
    return min(most, power_of_two_below(max(16, within_bytes)))


def _settings(ridge: Ridge, mixture: Mixture) -> Settings:
    floor = jnp.asarray(ACCURATE_IN_FLOAT64 * jnp.finfo(jnp.float64).eps)
    present = mixture.weights > 0
    return Settings(ridge, jnp.asarray(TOL), jnp.asarray(_MOST_ITERATIONS), floor, present)


def _units(shift: Array, scale: Array) -> Standardization:
    if scale.ndim == 1:
        return Standardization(shift, scale, 1 / scale, jnp.sum(jnp.log(scale)))
    return Standardization(shift, scale, inverse_lower(scale), jnp.sum(jnp.log(jnp.diagonal(scale))))


def _standardized(
    x: Float[Array, "n d"], weights: Float[Array, " n"], units: Standardization
) -> tuple[Float[Array, "d n"], Float[Array, " n"], Bool[Array, ""]]:
    """Samples in the coordinates of a stream, zeros where they do not count; their weights; whether all are finite."""
    usable = jnp.isfinite(weights)
    centred = x.astype(jnp.float64) - units.shift[None]
    counted = usable & (weights > 0)
    is_finite = jnp.all(usable) & jnp.all(jnp.isfinite(centred) | ~counted[:, None])
    centred = jnp.where(counted[:, None] & jnp.isfinite(centred), centred, 0.0).T
    inverse = units.inverse
    z = inverse[:, None] * centred if inverse.ndim == 1 else product(inverse, centred)
    return z, jnp.where(counted, weights, 0.0), is_finite


def _read(x: Float[Array, "n d"], weights: Float[Array, " n"], held: Held, *, tile: int) -> tuple[Mixture, Sums]:
    """The mixture in the coordinates of the stream, and the E-step of new samples at it."""
    units = _units(held.shift, held.scale)
    mixture = with_harmless_absent(to_standard(held.mixture, units))
    z, weights, is_finite = _standardized(x, weights, units)
    diagonal = mixture.is_diagonal
    natural, _ = natural_parameters(mixture)
    data = as_data(z, weights, tile, diagonal=diagonal)
    statistics, log_likelihood = e_step(data, natural, mixture.n_features, diagonal=diagonal)
    weight = jnp.sum(weights)
    return mixture, Sums(statistics, log_likelihood - units.log_scale * weight, weight, is_finite)


def _tile_sums(x: Float[Array, "n d"], weights: Float[Array, " n"], held: Held, *, tile: int) -> Sums:
    """The E-step of some samples of one stream."""
    return _read(x, weights, held, tile=tile)[1]


def _first_sums(sets: DataSets, starts: Mixture, *, tile: int) -> SufficientStatistics:
    """Means of the statistics of C standardised data sets at mixtures in their coordinates."""

    def of_one(z: Array, weights: Array, mixture: Mixture) -> SufficientStatistics:
        natural, _ = natural_parameters(mixture)
        data = as_data(z, weights, tile, diagonal=mixture.is_diagonal)
        statistics, _ = e_step(data, natural, mixture.n_features, diagonal=mixture.is_diagonal)
        return jax.tree.map(lambda sums: sums / jnp.sum(weights), statistics)

    return jax.vmap(of_one)(sets.z, sets.weights, starts)


class Updated(NamedTuple):
    """Streams after new samples.

    Attributes:
        mixture: in data units.
        statistics: means, standardised.
        sums: of the new samples.
        is_sound: whether every component keeps its support and its variance.
    """

    mixture: Mixture
    statistics: SufficientStatistics
    sums: Sums
    is_sound: Bool[Array, " c"]


def _updated(
    x: Float[Array, "c n d"],
    lengths: Int[Array, " c"],
    weights: Float[Array, "c n"] | None,
    held: Held,
    exponent: Any,
    *,
    family: str,
    tile: int,
) -> Updated:
    """Streams of C data sets after new samples, by stepwise EM."""
    inside = jnp.arange(x.shape[1])[None] < lengths[:, None]
    weights = jnp.where(inside, 1.0 if weights is None else weights, 0.0)

    def of_one(x: Array, weights: Array, held: Held) -> Updated:
        mixture, sums = _read(x, weights, held, tile=tile)
        kept = retained(held.n_samples, sums.weight, held.unit, exponent)
        means = followed(held.statistics, sums.statistics, jnp.maximum(sums.weight, jnp.finfo(jnp.float64).tiny), kept)
        following, is_sound = sound_m_step(means, FAMILIES[family], _settings(held.ridge, mixture))
        following = to_data_units(following, _units(held.shift, held.scale))
        return Updated(following, means, sums, is_sound)

    return jax.vmap(of_one)(x, weights, held)


def _stepped(
    x: Float[Array, "n d"],
    weights: Float[Array, " n"],
    held: Held,
    passed: SufficientStatistics,
    *,
    family: str,
    tile: int,
) -> Solved:
    """The step after a pass, in data units, given a sample and the means of the statistics of all samples."""
    units = _units(held.shift, held.scale)
    start = with_harmless_absent(to_standard(held.mixture, units))
    z, weights, _ = _standardized(x, weights, units)
    data = as_data(z, weights, tile, diagonal=start.is_diagonal)
    found = solved(data, passed, start, FAMILIES[family], _settings(held.ridge, start))
    return found._replace(mixture=to_data_units(found.mixture, units))


def _by_em(held: Held, means: SufficientStatistics, *, family: str) -> Mixture:
    """The mixture after EM's own step, in data units."""
    mixture, _ = sound_m_step(means, FAMILIES[family], _settings(held.ridge, held.mixture))
    return to_data_units(mixture, _units(held.shift, held.scale))


FIRST_SUMS = compiled(_first_sums, static_argnames=("tile",))
TILE_SUMS = compiled(_tile_sums, static_argnames=("tile",))
UPDATED = compiled(_updated, static_argnames=("family", "tile"))
STEPPED = compiled(_stepped, static_argnames=("family", "tile"))
BY_EM = compiled(_by_em, static_argnames=("family",))
