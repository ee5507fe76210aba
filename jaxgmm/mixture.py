"""Gaussian mixtures: their parameters, the density of one of them, and samples drawn from it.

The density of a mixture of K Gaussians in D dimensions is

    p(x) = Σ_k w_k N(x | μ_k, Σ_k),    log N(x | μ, Σ) = -½ [D log 2π + log|Σ| + (x - μ)ᵀ Σ⁻¹ (x - μ)].

Here every sample is centred on every mean, which is accurate for any mixture. EM itself uses a faster form of the same
density, for standardised data (`jaxgmm.em.expectation`). The functions that users call, for many mixtures and samples,
are in `jaxgmm.density`.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jaxgmm.numerics.cholesky import cholesky, inverse_lower, log_determinant
from jaxgmm.numerics.reductions import sum_over
from jaxgmm.record import Block, Record, checked_index, record, shown, span

if TYPE_CHECKING:
    # NumPy and JAX arrays mix freely here, which their type stubs do not.
    Floats = Any
else:
    Floats = Float[Array | np.ndarray, "..."]

# Features of a component that are printed.
_SHOWN_FEATURES = 4
# Digits of a number in words; of a mean, more where the component is narrow.
_DIGITS, _MOST_DIGITS = 4, 16
# Rows of a whitening matrix that are multiplied together.
_ROWS = 8
# Numbers of the covariance factors that are gathered for samples at a time.
_LOOKED_UP = 2**20


@record
class Mixture(Record):
    """A Gaussian mixture, or a batch of them along leading axes. NumPy or JAX arrays.

    Attributes:
        weights: `(…, K)`, not negative, summing to 1. A component of weight 0 is absent.
        means: `(…, K, D)`, in data units.
        covariances: `(…, K, D, D)` in squared data units, or `(…, K, D)` variances when components are axis-aligned.
    """

    weights: Floats
    means: Floats
    covariances: Floats

    @property
    def arrays(self) -> tuple[Any, Any, Any]:
        """Weights, means and covariances."""
        return self.weights, self.means, self.covariances

    def of(self, index: Any) -> "Mixture":
        """Some mixtures of a batch: one for an integer, several for a slice, a mask or an array of integers.

        Args:
            index: for the first batch axis; or a tuple of these, for as many of the batch axes.

        Raises:
            ValueError: there is no such axis, or the index is none of these.
            IndexError: there is no such mixture.
        """
        several = index if isinstance(index, tuple) else (index,)
        if len(several) > len(self._batch):
            raise ValueError(f"the weights have shape {np.shape(self.weights)}: there is no batch axis for {index!r}.")
        own = tuple(checked_index(one, n) for one, n in zip(several, self._batch, strict=False))
        return self.map(lambda array: array[own])

    def components(self, index: Any) -> "Mixture":
        """Some components of every mixture: a slice, a mask or an array of integers. Weights stay as they are."""
        own = (*[slice(None)] * len(self._batch), index)
        return self.map(lambda array: array[own])

    def map(self, function: Callable[..., Any], *others: "Mixture") -> "Mixture":
        """The mixture with a function applied to each array, together with the same array of any others."""
        return Mixture(*map(function, self.arrays, *(other.arrays for other in others)))

    @property
    def _batch(self) -> tuple[int, ...]:
        return np.shape(self.weights)[:-1]

    def _described(self) -> tuple[str, list[Block]]:
        kind = "variances" if self.is_diagonal else "covariance matrices"
        of = f"K = {self.n_components}, D = {self.n_features}, {kind}"
        if not self._batch:
            return f"Mixture: {of}", [components_of(self)]
        present = np.sum(np.asarray(self.weights) != 0, axis=-1)
        rows = [["components present", span(present)], ["weights", span(self.weights)], ["means", span(self.means)]]
        return f"Mixture: {' × '.join(f'{n:,}' for n in self._batch)} mixtures, {of}", [Block(rows)]

    @property
    def n_components(self) -> int:
        """K, absent components included."""
        return self.means.shape[-2]

    @property
    def n_features(self) -> int:
        """D."""
        return self.means.shape[-1]

    @property
    def is_diagonal(self) -> bool:
        """Whether ``covariances`` holds variances `(…, K, D)` instead of matrices."""
        return len(self.covariances.shape) == len(self.means.shape)


def components_of(mixture: Mixture) -> Block:
    """The first components of one mixture, in words: weight, mean and standard deviations; absent ones left out."""
    variances = mixture.covariances
    if not mixture.is_diagonal:
        variances = np.diagonal(np.asarray(variances), axis1=-2, axis2=-1)
    deviations = np.sqrt(np.maximum(np.asarray(variances, np.float64), 0))

    def several(numbers: Any, digits: Any) -> str:
        shown = zip(numbers[:_SHOWN_FEATURES].tolist(), digits, strict=False)
        first = ", ".join(f"{number:.{int(n)}g}" for number, n in shown)
        return first if len(numbers) <= _SHOWN_FEATURES else f"{first}, …"

    means = np.asarray(mixture.means, np.float64)
    with np.errstate(all="ignore"):
        # So many that a tenth of a standard deviation is seen, also of times.
        digits = 2 + np.ceil(np.log10(np.abs(means) / deviations))
    digits = np.clip(np.nan_to_num(digits, nan=_DIGITS, posinf=_DIGITS, neginf=_DIGITS), _DIGITS, _MOST_DIGITS)
    rows = [
        [str(k), f"{weight:.4g}", several(means[k], digits[k]), several(deviations[k], [_DIGITS] * _SHOWN_FEATURES)]
        for k, weight in enumerate(np.asarray(mixture.weights))
        if weight != 0
    ]
    return shown(rows, ("component", "weight", "mean", "standard deviation")) if rows else Block([["no components"]])


def full_covariances(mixture: Mixture) -> Floats:
    """Covariance matrices `(…, K, D, D)`, also where the mixture holds variances."""
    if not mixture.is_diagonal:
        return mixture.covariances
    return mixture.covariances[..., None] * np.eye(mixture.n_features, dtype=mixture.covariances.dtype)


def unknown(batch: Sequence[int], n_components: int, n_features: int, *, is_diagonal: bool) -> Mixture:
    """Mixtures of NaN, along some batch axes."""
    spread = (n_features,) if is_diagonal else (n_features, n_features)
    return Mixture(*(np.full((*batch, n_components, *trailing), np.nan) for trailing in ((), (n_features,), spread)))


def with_room(mixture: Mixture, n_components: int) -> Mixture:
    """A mixture `(…, K, …)` of NumPy arrays with room for another number of components.

    Components of weight 0 are absent: they get mean 0 and unit variances, whatever their place. If there is less room,
    the last components are left out.
    """
    kept = min(mixture.n_components, n_components)
    spread = mixture.covariances.shape[mixture.weights.ndim :]
    unit = np.eye(spread[0]) if len(spread) == 2 else np.ones(spread)

    def with_absent(array: np.ndarray, absent: Any) -> np.ndarray:
        trailing = array.shape[mixture.weights.ndim :]
        room = np.empty((*mixture.weights.shape[:-1], n_components, *trailing))
        room[...] = absent
        axis = (*[slice(None)] * (mixture.weights.ndim - 1), slice(kept))
        present = (mixture.weights[axis] != 0).reshape(*mixture.weights[axis].shape, *[1] * len(trailing))
        room[axis] = np.where(present, array[axis], absent)
        return room

    return mixture.map(with_absent, Mixture(0.0, 0.0, unit))


def as_mixture(given: Any, name: str = "mixture") -> Mixture:
    """A mixture itself, or the one in the attribute `mixture` of a result such as `jaxgmm.FitResult`.

    `name` is what an error calls it.

    Raises:
        ValueError: anything else.
    """
    found = given if isinstance(given, Mixture) else getattr(given, "mixture", None)
    if not isinstance(found, Mixture):
        remedies = {"best": "Of a sweep, pass its .best.", "mixtures": "Pass its .mixtures, or one .group(key) of it."}
        remedy = "".join(f" {words}" for name, words in remedies.items() if hasattr(given, name))
        raise ValueError(
            f"{name} must be a jaxgmm.Mixture or a result of jaxgmm.fit; got {type(given).__name__}.{remedy}"
        )
    return found


class Factors(NamedTuple):
    """The form of a mixture from which its density is computed.

    Attributes:
        constants: log w_k - ½ (D log 2π + log|Σ_k|); -inf where a component is absent.
        means: those of the mixture.
        whitening: inverse Cholesky factors, or 1 / σ of an axis-aligned mixture.
    """

    constants: Float[Array, " k"]
    means: Float[Array, "k d"]
    whitening: Float[Array, "k *s"]


def factors(mixture: Mixture) -> Factors:
    """The factors from which the density of one mixture is computed. Of absent components only the weight is read."""
    mixture = with_harmless_absent(mixture)
    if mixture.is_diagonal:
        standard_deviations = jnp.sqrt(mixture.covariances)
        whitening, log_determinants = 1 / standard_deviations, 2 * jnp.sum(jnp.log(standard_deviations), axis=-1)
    else:
        factor = cholesky(mixture.covariances)
        whitening, log_determinants = inverse_lower(factor), log_determinant(factor)
    constants = jnp.log(mixture.weights) - 0.5 * (mixture.n_features * math.log(2 * math.pi) + log_determinants)
    return Factors(constants, mixture.means, whitening)


def log_joint(mixture: Mixture, x: Float[Array, "n d"]) -> Float[Array, "n k"]:
    """The logarithm of w_k N(x | μ_k, Σ_k) for one mixture and one data set."""
    return log_joint_from(factors(mixture), x).T


def log_joint_from(factors: Factors, x: Float[Array, "n d"]) -> Float[Array, "k n"]:
    """The same from a mixture's factors.

    Samples are the last axis and every sum is over another axis, so that a sample's answer does not depend, to the bit,
    on the number of samples.
    """
    x, (constants, means, whitening) = x.T, factors
    n_features = means.shape[1]
    is_diagonal = whitening.ndim == 2
    distances = jnp.zeros((len(means), x.shape[1]), x.dtype)
    if n_features <= _ROWS:
        centred = [x[None, i] - means[:, i, None] for i in range(n_features)]
        for i in range(n_features):
            row = [whitening[:, i, None]] if is_diagonal else [whitening[:, i, j, None] for j in range(i + 1)]
            terms = [w * c for w, c in zip(row, centred[i : i + 1] if is_diagonal else centred, strict=False)]
            whitened = sum(terms[1:], start=terms[0])
            distances += whitened * whitened
    elif is_diagonal:
        whitened = whitening[:, :, None] * (x[None] - means[:, :, None])
        distances = sum_over(whitened * whitened, axis=1)
    else:
        for first in range(0, n_features, _ROWS):
            last = min(first + _ROWS, n_features)
            centred = x[None, :last] - means[:, :last, None]

            def add_row(distances: Array, row: Array, centred: Array = centred, last: int = last) -> tuple[Array, None]:
                whitened = sum_over(row[:, :last, None] * centred, axis=1)
                return distances + whitened * whitened, None

            distances = lax.scan(add_row, distances, jnp.swapaxes(whitening[:, first:last], 0, 1))[0]
    # A sample too far for its square to be represented may be whitened to inf - inf: it is infinitely far.
    is_known = ~jnp.any(jnp.isnan(x), axis=0)[None, :] & ~jnp.any(jnp.isnan(means), axis=1)[:, None]
    distances = jnp.where(is_known & jnp.isnan(distances), jnp.inf, distances)
    return constants[:, None] - 0.5 * distances


def with_harmless_absent(mixture: Mixture) -> Mixture:
    """One mixture whose absent components, whatever they held, are standard normal."""
    is_absent = mixture.weights == 0
    unit = jnp.ones((1, 1)) if mixture.is_diagonal else jnp.eye(mixture.n_features)[None]
    return Mixture(
        weights=mixture.weights,
        means=jnp.where(is_absent[:, None], 0, mixture.means),
        covariances=jnp.where(
            is_absent.reshape(-1, *[1] * (mixture.covariances.ndim - 1)),
            unit.astype(mixture.covariances.dtype),
            mixture.covariances,
        ),
    )


def draw(keys: Array, mixture: Mixture, n_samples: int) -> tuple[Float[Array, "n d"], Int[Array, " n"]]:
    """Samples of one mixture, and their components, from two random keys.

    NaN and -1 where the mixture has no density because it holds NaN or its weights are all 0.
    """
    mixture = with_harmless_absent(mixture)
    component = jax.random.categorical(keys[0], jnp.log(mixture.weights), shape=(n_samples,))
    noise = jax.random.normal(keys[1], (n_samples, mixture.n_features), dtype=mixture.means.dtype)
    factor = jnp.sqrt(mixture.covariances) if mixture.is_diagonal else cholesky(mixture.covariances)
    if mixture.is_diagonal:
        samples = mixture.means[component] + factor[component] * noise
    else:

        def correlated(one: tuple[Array, Array]) -> Array:
            return jnp.einsum("ij,j->i", factor[one[0]], one[1], precision="highest")

        at_a_time = max(1, _LOOKED_UP // mixture.n_features**2)
        spread = lax.map(correlated, (component, noise), batch_size=at_a_time)
        samples = mixture.means[component] + spread
    is_sound = jnp.any(mixture.weights > 0) & jnp.all(mixture.weights >= 0)
    for leaf in (mixture.weights, mixture.means, factor):
        is_sound &= jnp.all(jnp.isfinite(leaf))
    return jnp.where(is_sound, samples, jnp.nan), jnp.where(is_sound, component, -1)
