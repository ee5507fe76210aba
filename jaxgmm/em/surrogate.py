"""The step after a pass over samples of which only some are at hand.

A pass reads all samples at parameters θ₀ and gives the means S(θ₀) of their sufficient statistics; EM would go to
M(S(θ₀)). How S changes with the parameters is known from a sample of them, which is kept. So S is replaced by

    S(θ) ≈ s(θ) + S(θ₀) - s(θ₀),

with s the means over the sample, and θ by the fixed point of θ = M(that). It is the maximum of

    ℓ(θ) + (S(θ₀) - s(θ₀)) · η(θ),

with ℓ the mean log-likelihood of the sample and η the natural parameters: a surrogate of the mean log-likelihood of all
samples, with the same gradient at θ₀. So a pass leaves of the distance to the optimum a share that falls with the size
of the sample, as 1 / √n (Jordan, Lee and Yang, 2019, "Communication-efficient distributed statistical inference";
statistics are corrected in the same way by Chen et al., 2018, "Stochastic expectation maximization with
variance reduction").
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxgmm.em.covariance import Family
from jaxgmm.em.expectation import Data, Tiles, e_step, natural_parameters, over_tiles
from jaxgmm.em.maximization import m_step
from jaxgmm.em.methods import METHODS
from jaxgmm.em.state import RunState, Settings, unstarted
from jaxgmm.em.statistics import SufficientStatistics
from jaxgmm.mixture import Mixture
from jaxgmm.status import Status

_METHOD = METHODS["quasi-newton"]

# This many standard errors are subtracted from a predicted gain; or as many as counts and means of the sample are away
# from those of all samples, if that is more.
STANDARD_ERRORS = 3.0

# Iterations without a better bound after which the search ends: it goes astray.
_PATIENCE = 10

# A gain that is no more than rounding, in nats per sample.
_ROUNDING = 1e-13


class Solved(NamedTuple):
    """The step after a pass.

    Attributes:
        mixture: the parameters after it.
        statistics: means of the statistics; their M-step gives the mixture.
        gain: predicted gain of the mean log-likelihood, in nats per sample; infinite where the sample is no guide, so
            that the step is EM's.
        gap: how much is left to gain by the same prediction: no less than by this step.
        is_sound: whether every component keeps its support and its variance.
    """

    mixture: Mixture
    statistics: SufficientStatistics
    gain: Float[Array, ""]
    gap: Float[Array, ""]
    is_sound: Bool[Array, ""]


class _Search(NamedTuple):
    """The way to the maximum of the surrogate.

    Attributes:
        state: the run.
        best: natural parameters with the best bound so far.
        bound: that bound on the gain.
        at: the iteration that found it, or -1.
        most: the largest gain that was predicted for any parameters, whether or not the sample can vouch for it.
        upper: the largest upper bound on it.
    """

    state: RunState
    best: Float[Array, "k f"]
    bound: Float[Array, ""]
    at: Int[Array, ""]
    most: Float[Array, ""]
    upper: Float[Array, ""]


def solved(
    data: Data | Tiles, passed: SufficientStatistics, start: Mixture, family: Family, settings: Settings
) -> Solved:
    """The step from the parameters of a pass.

    Args:
        data: the sample.
        passed: means of the statistics of all samples, at `start`.
        start: the parameters of the pass, in the coordinates of the sample.
        family: a row of `jaxgmm.em.covariance.FAMILIES`.
        settings: ridge, tolerance and limits.
    """
    diagonal, n_features, total = family.diagonal, start.n_features, jnp.sum(data.weights)
    natural, _ = natural_parameters(start)
    own, _ = e_step(data, natural, n_features, diagonal=diagonal)
    correction = jax.tree.map(lambda of_all, of_sample: total * of_all - of_sample, passed, own)
    unlike = _standard_errors(correction, passed, data, diagonal=diagonal)
    taken_off = jnp.maximum(STANDARD_ERRORS, unlike)

    def sums(natural: Array) -> tuple[SufficientStatistics, Array]:
        statistics, log_likelihood = e_step(data, natural, n_features, diagonal=diagonal)
        merit = log_likelihood + jnp.sum(_joined(correction, diagonal=diagonal) * natural)
        return jax.tree.map(jnp.add, statistics, correction), merit

    def gain_and_bound(other: Array) -> tuple[Array, Array]:
        expected = jnp.sum(_joined(passed, diagonal=diagonal) * (other - natural))
        divergence, squares = _divergences(data, natural, other, diagonal=diagonal)
        gain = expected + divergence / total
        return gain, gain - taken_off * jnp.sqrt(squares) / total

    def step(search: _Search) -> _Search:
        here = _METHOD.read(search.state)
        gain, bound = gain_and_bound(here)
        is_better = bound > search.bound
        return _Search(
            state=_METHOD.advance(search.state, *sums(here), total, family, settings),
            best=jnp.where(is_better, here, search.best),
            bound=jnp.where(is_better, bound, search.bound),
            at=jnp.where(is_better, search.state.n_iter, search.at),
            most=jnp.fmax(search.most, gain),
            upper=jnp.fmax(search.upper, 2 * gain - bound),
        )

    def unfinished(search: _Search) -> Array:
        return ~_METHOD.is_finished(search.state) & (search.state.n_iter <= search.at + _PATIENCE)

    by_em, is_sound_by_em = sound_m_step(passed, family, settings)
    _, bound = gain_and_bound(natural_parameters(by_em)[0])
    bound = jnp.where(is_sound_by_em, bound, 0.0)
    begun = _METHOD.init(unstarted(start), settings)
    # At the optimum EM's step gains by rounding, which any other may equal.
    bound = jnp.where(bound < _ROUNDING, -_ROUNDING, bound)
    begin = _Search(begun, natural, bound, begun.n_iter - 1, jnp.zeros_like(bound), jnp.zeros_like(bound))
    search = lax.while_loop(unfinished, step, begin)
    found = jax.tree.map(lambda leaf: leaf / total, sums(search.best)[0])
    by_sample, is_sound = sound_m_step(found, family, settings)
    is_guided = (search.at >= 0) & is_sound
    mixture, statistics = jax.tree.map(
        lambda own, other: jnp.where(is_guided, own, other), (by_sample, found), (by_em, passed)
    )
    gain = jnp.where(is_guided, gain_and_bound(natural_parameters(by_sample)[0])[0], jnp.inf)
    # A step that the bound has cut short gains little though much is left.
    gap = jnp.where(jnp.abs(gain) >= search.most, gain, search.most)
    gap = jnp.where(is_guided, gap, search.upper)
    return Solved(mixture, statistics, gain, gap, is_guided | is_sound_by_em)


def sound_m_step(means: SufficientStatistics, family: Family, settings: Settings) -> tuple[Mixture, Bool[Array, ""]]:
    """The M-step, and whether every component keeps its support and its variance."""
    mixture = m_step(means, family, settings.ridge, settings.present)
    state = _METHOD.init(unstarted(mixture), settings)
    is_finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(array)) for array in mixture.arrays]))
    return mixture, is_finite & (state.status != int(Status.DEGENERATE))


def _divergences(
    data: Data | Tiles, natural: Float[Array, "k f"], other: Float[Array, "k f"], *, diagonal: bool
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Σ w KL(r | r') and Σ w² KL², for the responsibilities at two sets of natural parameters."""

    def sums(data: Data, _: None) -> tuple[Array, Array]:
        before, after = (jnp.matmul(own, data.features, precision=lax.Precision.HIGHEST) for own in (natural, other))
        shares = jax.nn.softmax(before, axis=0)
        # Rounding may make a small one negative.
        divergence = jnp.sum(shares * (jax.nn.log_softmax(before, axis=0) - jax.nn.log_softmax(after, axis=0)), axis=0)
        weighted = data.weights * divergence
        return jnp.sum(weighted), jnp.sum(weighted**2)

    return over_tiles(data, None, sums, diagonal=diagonal)


def _joined(statistics: SufficientStatistics, *, diagonal: bool) -> Float[Array, "k f"]:
    """Statistics in the order of the natural parameters."""
    counts, first, second = statistics
    if not diagonal:
        rows, columns = np.tril_indices(first.shape[1])
        second = second[:, rows, columns]
    return jnp.concatenate([counts[:, None], first, second], axis=1)


def _standard_errors(
    correction: SufficientStatistics, passed: SufficientStatistics, data: Data | Tiles, *, diagonal: bool
) -> Float[Array, ""]:
    """By how many standard errors counts and first moments of the sample differ from those of all samples, at most.

    Standard errors of responsibilities between 0 and 1 are at most those of 0 and 1.
    """
    total = jnp.sum(data.weights)
    n_effective = total**2 / jnp.sum(data.weights**2)
    second = passed.second if diagonal else jnp.diagonal(passed.second, axis1=1, axis2=2)
    variances = jnp.concatenate([(passed.counts * (1 - passed.counts))[:, None], second], axis=1)
    differences = jnp.concatenate([correction.counts[:, None], correction.first], axis=1) / total
    # With one component, counts do not vary, and differ by rounding.
    errors = differences / jnp.sqrt(jnp.maximum(variances, jnp.finfo(variances.dtype).eps) / n_effective)
    return jnp.max(jnp.abs(errors))
