"""diagnose(): whether a mixture describes its data, and how far apart and how certain its components are.

Residuals are those of Rosenblatt (1952), "Remarks on a multivariate transformation": every feature goes through its
distribution function given the features before it,

    u_d = P(X_d ≤ x_d | x_1, …, x_{d-1}),

and if the mixture is right, u is uniform on the unit cube. Given the features before it, a feature of a mixture of
Gaussians is a mixture again: its components are Gaussian, and weighed by how well they explain those features. With
Σ_k = L_k L_kᵀ and z_k = L_k⁻¹ (x - μ_k),

    u_d = Σ_k p(k | x_1, …, x_{d-1}) Φ(z_kd),    p(k | x_1, …, x_{d-1}) ∝ w_k Π_{j<d} exp(-z_kj² / 2) / L_kjj.

These residuals alone are not enough. What u shows depends on the order of the features: clusters that are separate in
the last feature may be hidden if the features before predict it. So every feature also goes through its marginal
distribution function, Σ_k w_k Φ((x_d - μ_kd) / σ_kd). And a column does not see the others: a mixture without
covariances, fitted to correlated features, may have uniform columns of either kind. The radius Σ_d Φ⁻¹(u_d)² shows it;
its distribution is χ² with D degrees of freedom if the mixture is right.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxgmm.driver.arguments import checked_weights, numeric_mixture
from jaxgmm.engine.batch import Batch, batch, padded, padded_lengths
from jaxgmm.engine.devices import power_of_two_above, power_of_two_below
from jaxgmm.mixture import Mixture, as_mixture, with_harmless_absent
from jaxgmm.numerics.cholesky import cholesky, inverse_lower, log_determinant
from jaxgmm.record import Block, Record, counted, of_all, record, span

# Numbers held at a time for the samples of a chunk and the pairs of its components, in each of a few arrays.
_MOST_HELD = 2**22
# Padding by this many samples takes less time than another compilation.
_TOLERATED = 2**18


@record
class Diagnosis(Record):
    """Checks of B fits. NumPy arrays; for one `(N, D)` data set the B axis is absent.

    Arrays over samples have the layout of the samples, `(B, N, …)`; for data sets of unequal length they are lists of
    `(N_i, …)`. NaN where a mixture holds NaN; a component of weight 0 is absent, and also NaN.

    Attributes:
        weights: `(B, K)`, of the mixtures.
        pit: `(B, N, D)`, from 0 to 1: each feature's distribution function given the features before it. Uniform if the
            mixture is right.
        marginal: `(B, N, D)`, from 0 to 1: each feature's marginal distribution function. Uniform if the mixture is
            right.
        radius: `(B, N)`, from 0 to 1: the distribution function of the distance from the centre, after `pit` is
            transformed to normal scores. Uniform if the mixture is right; near 1 for outliers.
        uncertainty: `(B, N)`, 1 minus the largest responsibility: 0 for samples that clearly belong to a component.
        sample_weight: `(B, N)`, as given, or None for 1.
        misfits: `(B, 2 D + 1)`, Kolmogorov-Smirnov distances from uniform: of `pit` by feature, then of `marginal` by
            feature, then of `radius`. For the first feature, `pit` and `marginal` are the same.
        p_values: `(B, 2 D + 1)`, of these distances. Optimistic if the mixture was fitted to the same samples, since it
            is then closer to them than to others; not adjusted for multiple testing.
        counts: `(B, K)`, sums of (weighted) responsibilities.
        effective_counts: `(B, K)`, Kish's effective number of samples, (Σ a)² / Σ a² of these responsibilities a.
        component_uncertainty: `(B, K)`, mean `uncertainty` of the samples of a component, weighted by their (weighted)
            responsibilities.
        separation: `(B, K, K)`, Bhattacharyya distances between components, in nats. exp(-separation) is their
            overlap ∫ √(p q), from 0 to 1, regardless of the component weights.
        entropy: `(B,)`, mean entropy of the responsibilities of a sample, in nats: 0 if all assignments are certain,
            log K if all components are equally probable.
        features: names of the D features, if they are known, as of the groups of a frame.
    """

    weights: np.ndarray
    pit: Any
    marginal: Any
    radius: Any
    uncertainty: Any
    sample_weight: Any
    misfits: np.ndarray
    p_values: np.ndarray
    counts: np.ndarray
    effective_counts: np.ndarray
    component_uncertainty: np.ndarray
    separation: np.ndarray
    entropy: np.ndarray
    features: tuple[str, ...] | None = of_all(default=None)

    @property
    def misfit(self) -> np.ndarray | np.floating:
        """The largest of each data set's `misfits`, `(B,)`."""
        return np.max(self.misfits, axis=-1)

    @property
    def table(self) -> dict[str, np.ndarray]:
        """Columns of equal length, one row for every component with positive weight, in order.

        `data_set`, `component`, `weight`, `count`, `effective_count`, `uncertainty` (of the component), `nearest` (the
        component that overlaps it most, -1 if it is alone), `overlap` (with that one), and for the whole mixture
        `entropy` and `misfit`. Mixtures of NaN have no rows.
        """
        weights, separation = np.atleast_2d(self.weights), self.separation.reshape(-1, *self.separation.shape[-2:])
        data_set, component = np.nonzero(weights > 0)
        # -1 with itself, and with absent components.
        overlap = np.where(np.isnan(separation) | np.eye(weights.shape[1], dtype=bool), -1.0, np.exp(-separation))
        largest = np.max(overlap, axis=-1)
        of_components = {
            "weight": weights,
            "count": self.counts,
            "effective_count": self.effective_counts,
            "uncertainty": self.component_uncertainty,
            "nearest": np.where(largest < 0, -1, np.argmax(overlap, axis=-1)),
            "overlap": np.maximum(largest, 0.0),
        }
        columns = {name: np.atleast_2d(values)[data_set, component] for name, values in of_components.items()}
        of_mixtures = {"entropy": self.entropy, "misfit": self.misfit}
        columns |= {name: np.atleast_1d(values)[data_set] for name, values in of_mixtures.items()}
        return {"data_set": data_set, "component": component, **columns}

    @property
    def _batch(self) -> tuple[int, ...]:
        return self.weights.shape[:-1]

    def _described(self) -> tuple[str, list[Block]]:
        of = f"{counted(len(self), 'data set')}, " if self._batch else ""
        table, least = self.table, np.min(self.p_values, axis=-1)
        rows = [
            ["largest misfit", span(self.misfit, ".3g"), ".misfits"],
            ["least p-value", span(least, ".3g"), ".p_values"],
            ["effective samples of a component", span(table["effective_count"], ".3g"), ".effective_counts"],
            ["uncertainty of a component", span(table["uncertainty"], ".3g"), ".component_uncertainty"],
            ["overlap with the nearest", span(table["overlap"], ".3g"), ".table"],
        ]
        k, n_features = self.weights.shape[-1], (self.misfits.shape[-1] - 1) // 2
        return f"Diagnosis: {of}K = {k}, D = {n_features}", [Block(rows)]


def diagnose(mixture: Any, x: Any, sample_weight: Any = None) -> Diagnosis:
    """Checks mixtures against data: residuals, effective counts, separation, uncertainty of assignments.

    One call checks thousands of fits. A data set's answer depends on that data set alone, and bad data do not raise.
    Memory holds several arrays of N K D numbers for a single data set: if it has millions of samples, check a subset.

    Args:
        mixture: the mixture of each data set, with batch axis `(B, K, …)`, or one for all; or the result of a fit.
        x: one data set `(N, D)`, a stack `(B, N, D)`, or a sequence of `(N_i, D)`, as for `fit`. Only samples to which
            the mixture was not fitted give honest p-values.
        sample_weight: not negative, with the shape of `x` without its last axis. Samples of weight 0 have residuals,
            but do not contribute to sums over samples.

    Returns:
        residuals and uncertainties of all samples, and their summaries by component and mixture.

    Raises:
        ValueError: wrong shapes. It is raised before anything is computed.

    Example:
        >>> import numpy as np, jaxgmm
        >>> x = np.random.default_rng(0).normal(size=(400, 1)) + 6 * (np.arange(400) < 100)[:, None]
        >>> diagnosis = jaxgmm.diagnose(jaxgmm.fit(x, 2).mixture, x)
        >>> diagnosis.table["overlap"].round(2)
        array([0.01, 0.01])
        >>> diagnosis.misfit < 0.05, jaxgmm.diagnose(jaxgmm.fit(x, 1).mixture, x).misfit < 0.05
        (np.True_, np.False_)
    """
    data = batch(x)
    mixture = _checked(mixture, data)
    weights = None if sample_weight is None else checked_weights(sample_weight, data).astype(np.float64, copy=False)
    n_rows, n_features = data.samples.shape
    b, k = data.n_data_sets, mixture.n_components
    found = Diagnosis(
        weights=mixture.weights,
        pit=np.empty((n_rows, n_features)),
        marginal=np.empty((n_rows, n_features)),
        radius=np.empty(n_rows),
        uncertainty=np.empty(n_rows),
        sample_weight=weights,
        misfits=np.empty((b, 2 * n_features + 1)),
        p_values=np.empty((b, 2 * n_features + 1)),
        counts=np.empty((b, k)),
        effective_counts=np.empty((b, k)),
        component_uncertainty=np.empty((b, k)),
        separation=np.empty((b, k, k)),
        entropy=np.empty(b),
    )
    for data_sets, n_samples in _chunks(data, k):
        _diagnose_chunk(mixture, data, data_sets, n_samples, found)
    return _laid_out(found, data)


def _checked(mixture: Any, data: Batch) -> Mixture:
    """Float64 mixtures `(B, …)`, one for each data set."""
    mixture = numeric_mixture(as_mixture(mixture), np.float64)
    b, d = data.n_data_sets, data.samples.shape[1]
    k = mixture.weights.shape[-1] if mixture.weights.ndim else 0
    allowed = [(k,)] if data.is_single else [(k,), (b, k)]
    spreads = [(*mixture.weights.shape, d), (*mixture.weights.shape, d, d)]
    if (
        k < 1
        or mixture.weights.shape not in allowed
        or mixture.means.shape != spreads[0]
        or mixture.covariances.shape not in spreads
    ):
        of_each = "" if data.is_single else f", or with the batch axis {b} before these"
        raise ValueError(
            f"mixture must have weights (K,), means (K, {d}) and covariances (K, {d}, {d}) or variances (K, {d}) to "
            f"match x{of_each}; its shapes are {', '.join(str(leaf.shape) for leaf in mixture.arrays)}."
        )
    shape = (b, *mixture.weights.shape[-1:])
    return mixture.map(lambda leaf: np.broadcast_to(leaf, (*shape, *leaf.shape[mixture.weights.ndim :])))


def _chunks(data: Batch, n_components: int) -> list[tuple[np.ndarray, int]]:
    """Data sets that are processed together, and the length they are padded to."""
    lengths, n_features = padded_lengths(data.sizes, _TOLERATED), data.samples.shape[1]
    chunks = []
    for n_samples in np.unique(lengths):
        held = n_components * n_features * (int(n_samples) + n_components * n_features)
        # Chunks are padded to powers of two.
        size = power_of_two_below(_MOST_HELD // held)
        members = np.flatnonzero(lengths == n_samples)
        chunks += [(part, int(n_samples)) for part in np.split(members, range(size, len(members), size))]
    return chunks


def _diagnose_chunk(mixture: Mixture, data: Batch, data_sets: np.ndarray, n_samples: int, found: Diagnosis) -> None:
    """Fills in the diagnosis of some data sets."""
    # A power of two, so that other numbers of data sets find a compiled program.
    rows = np.resize(data_sets, power_of_two_above(len(data_sets)))
    with jax.enable_x64(True):
        chunk = mixture.of(rows)
        x = jnp.asarray(padded(data.samples, data, rows, n_samples), jnp.float64)
        answers = (*_at_samples(chunk, x), _separation(chunk))
        pit, marginal, shares, separation = (np.asarray(answer)[: len(data_sets)] for answer in answers)
    # Rounding may exceed the bounds. Clipped here, because compiled minima of some shapes do not keep NaN.
    pit, marginal, separation = np.minimum(pit, 1.0), np.minimum(marginal, 1.0), np.maximum(separation, 0.0)
    inside = np.arange(n_samples) < data.lengths[data_sets][:, None]
    weight = inside.astype(np.float64)
    if found.sample_weight is not None:
        weight = np.where(inside, padded(found.sample_weight, data, data_sets, n_samples), 0.0)
    radius = _radius(pit)
    uncertainty = 1 - np.max(shares, axis=-1)
    of_samples = (data.first[data_sets][:, None] + np.arange(n_samples))[inside]
    found.pit[of_samples], found.marginal[of_samples] = pit[inside], marginal[inside]
    found.radius[of_samples], found.uncertainty[of_samples] = radius[inside], uncertainty[inside]

    # Scale by powers of two, which rounds nothing, so that squares of weights stay within float64's range.
    _, exponents = np.frexp(np.max(weight, axis=1, initial=0.0))
    weight = np.ldexp(weight, -exponents[:, None])
    counted = weight > 0
    residuals = np.where(counted[..., None], np.concatenate([pit, marginal, radius[..., None]], axis=-1), 0.0)
    shares = np.where(counted[..., None], shares, 0.0)
    uncertainty = np.where(counted, uncertainty, 0.0)
    weighted = weight[..., None] * shares
    counts = np.where(found.weights[data_sets] == 0, np.nan, np.sum(weighted, axis=1))
    # A data set may have no samples.
    with np.errstate(invalid="ignore", divide="ignore"):
        total = np.sum(weight, axis=1)
        n_effective = total**2 / np.sum(weight**2, axis=1)
        found.misfits[data_sets] = misfits = _kolmogorov_smirnov(residuals, weight)
        found.p_values[data_sets] = _p_values(misfits, n_effective)
        found.counts[data_sets] = np.ldexp(counts, exponents[:, None])
        found.effective_counts[data_sets] = counts**2 / np.sum(weighted**2, axis=1)
        found.component_uncertainty[data_sets] = np.sum(weighted * uncertainty[..., None], axis=1) / counts
        surprise = -np.log(np.where(shares > 0, shares, 1.0))
        found.entropy[data_sets] = np.sum(weighted * surprise, axis=(1, 2)) / total
    found.separation[data_sets] = separation


@jax.jit
@jax.vmap
def _at_samples(
    mixture: Mixture, x: Float[Array, "n d"]
) -> tuple[Float[Array, "n d"], Float[Array, "n d"], Float[Array, "n k"]]:
    """Rosenblatt's transform, marginal distribution functions and responsibilities of one data set."""
    mixture = with_harmless_absent(mixture)
    centred = x[None, :, :] - mixture.means[:, None, :]
    if mixture.is_diagonal:
        own = scales = jnp.sqrt(mixture.covariances)
        z = centred / scales[:, None, :]
    else:
        factor = cholesky(mixture.covariances)
        own = jnp.sqrt(jnp.diagonal(mixture.covariances, axis1=-2, axis2=-1))
        scales = jnp.diagonal(factor, axis1=-2, axis2=-1)
        z = jnp.einsum("kij,knj->kni", inverse_lower(factor), centred, precision="highest")
    log_weights = jnp.log(mixture.weights)[:, None, None]
    # Up to and including each feature; constants are the same for all components.
    log_joint = log_weights - jnp.cumsum(0.5 * z * z + jnp.log(scales)[:, None, :], axis=-1)
    before = jnp.concatenate([jnp.broadcast_to(log_weights, (*z.shape[:2], 1)), log_joint[:, :, :-1]], axis=-1)
    pit = jnp.sum(jax.nn.softmax(before, axis=0) * jax.scipy.special.ndtr(z), axis=0)
    marginal = jnp.sum(mixture.weights[:, None, None] * jax.scipy.special.ndtr(centred / own[:, None, :]), axis=0)
    return pit, marginal, jax.nn.softmax(log_joint[:, :, -1], axis=0).T


@jax.jit
@jax.vmap
def _separation(mixture: Mixture) -> Float[Array, "k k"]:
    """Bhattacharyya distances, ⅛ Δᵀ Σ̄⁻¹ Δ + ½ log(|Σ̄| / √(|Σ_i| |Σ_j|)) with Δ = μ_i - μ_j and Σ̄ = (Σ_i + Σ_j) / 2."""
    is_absent = mixture.weights == 0
    mixture = with_harmless_absent(mixture)
    means, covariances = mixture.means, mixture.covariances
    apart = means[:, None] - means[None, :]
    between = 0.5 * (covariances[:, None] + covariances[None, :])
    if mixture.is_diagonal:
        whitened = apart / jnp.sqrt(between)
        log_between, log_own = (jnp.sum(jnp.log(variances), axis=-1) for variances in (between, covariances))
    else:
        factor = cholesky(between)
        whitened = jnp.einsum("klij,klj->kli", inverse_lower(factor), apart, precision="highest")
        log_between, log_own = log_determinant(factor), log_determinant(cholesky(covariances))
    distance = 0.125 * jnp.sum(whitened * whitened, axis=-1)
    distance += 0.5 * (log_between - 0.5 * (log_own[:, None] + log_own[None, :]))
    return jnp.where(is_absent[:, None] | is_absent[None, :], jnp.nan, distance)


def _radius(pit: np.ndarray) -> np.ndarray:
    """The distribution function of χ² at the squared norm of normal scores, `(…, N)`."""
    from scipy.special import chdtr, ndtri  # noqa: PLC0415 (takes long to import)

    scores = ndtri(np.clip(pit, np.finfo(np.float64).tiny, 1 - np.finfo(np.float64).epsneg))
    return chdtr(pit.shape[-1], np.sum(scores**2, axis=-1))


def _kolmogorov_smirnov(residuals: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Distances `(C, F)` of residuals `(C, N, F)` from uniform, samples having weights `(C, N)`."""
    if np.all((weight == 0) | (weight == np.max(weight, initial=0.0))):
        return _of_equal_weights(residuals, weight > 0)
    order = np.argsort(residuals, axis=1)
    residuals = np.take_along_axis(residuals, order, axis=1)
    jumps = np.take_along_axis(np.broadcast_to(weight[..., None], residuals.shape), order, axis=1)
    after = np.cumsum(jumps, axis=1)
    total = after[:, -1:]
    before = (after - jumps) / total
    return np.max(np.maximum(after / total - residuals, residuals - before), axis=1)


def _of_equal_weights(residuals: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """The same where all weights are equal or 0: values are sorted without their places, which takes half the time."""
    n, rank = np.count_nonzero(counted, axis=1)[:, None, None], np.arange(1, residuals.shape[1] + 1)[:, None]
    # NaN comes last, behind the samples that count, unless one of them is NaN.
    ordered = np.sort(np.where(counted[..., None], residuals, np.nan), axis=1)
    distances = np.maximum(rank / n - ordered, ordered - (rank - 1) / n)
    return np.max(np.where(rank <= n, distances, np.where(n > 0, 0.0, np.nan)), axis=1)


def _p_values(distances: np.ndarray, n_effective: np.ndarray) -> np.ndarray:
    """P-values of Kolmogorov-Smirnov distances, corrected for small samples as in Stephens (1970)."""
    from scipy.special import kolmogorov  # noqa: PLC0415

    root = np.sqrt(n_effective)[:, None]
    return kolmogorov((root + 0.12 + 0.11 / root) * distances)


def _laid_out(found: Diagnosis, data: Batch) -> Diagnosis:
    """Arrays over samples in the layout of the data sets, without a batch axis for a single one."""

    def by_data_set(rows: np.ndarray) -> Any:
        if data.sizes.is_ragged:
            return np.split(rows, data.first[1:])
        return rows.reshape(data.n_data_sets, -1, *rows.shape[1:])

    of_samples = ("pit", "marginal", "radius", "uncertainty", "sample_weight")
    known = {name: getattr(found, name) for name in of_samples}
    found = replace(found, **{name: by_data_set(rows) for name, rows in known.items() if rows is not None})
    return found.of(0) if data.is_single else found
