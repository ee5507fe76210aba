"""Preparation of the runs of a chunk: standardised data sets, and the starts of every fit, all in float64."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxgmm.driver.bulk import Bulk, bulks
from jaxgmm.driver.passes import DataSets
from jaxgmm.driver.program import Layout, Models, Options
from jaxgmm.driver.runs import Begun, begun
from jaxgmm.driver.standardize import Standardization, scaled_features, standardize, to_standard
from jaxgmm.em import state as em
from jaxgmm.em.covariance import Coordinates, Family, one_of
from jaxgmm.em.expectation import as_data
from jaxgmm.em.initialization import INITIALIZERS, TURN, Task, from_labels, from_responsibilities
from jaxgmm.mixture import Mixture, with_harmless_absent
from jaxgmm.numerics.kernels import compiled
from jaxgmm.status import Status

# Range of exponents of the largest weight in which sums and squares of weights can be represented.
_MODERATE = 256


class Prepared(NamedTuple):
    """All that a chunk's runs begin with.

    Attributes:
        sets: standardised data sets.
        begun: `(C M R,)`, the runs before their first step.
        status: `(C M,)`, `RUNNING`, or why a fit cannot be made.
        wanted: `(C M R,)`, which runs are of fits that can be made.
        models: those of the options, on the device, so that they are sent once.
    """

    sets: DataSets
    begun: Begun
    status: Int[Array, " g"]
    wanted: Bool[Array, " q"]
    models: Models


def within_range(sample_weight: np.ndarray | None, lengths: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Weights scaled so that sums and squares can be represented, and the exponents of two removed from each data set.

    Devices flush the smallest numbers of float64 to zero.
    """
    if sample_weight is None:
        return None, None
    # Padding may hold the weights of other data sets.
    inside = np.arange(sample_weight.shape[1]) < lengths[:, None]
    largest = np.max(np.where(inside & np.isfinite(sample_weight), sample_weight, 0.0), axis=1, initial=0.0)
    _, exponents = np.frexp(largest)
    exponents = np.where(np.abs(exponents) > _MODERATE, exponents, 0)
    if not np.any(exponents):
        return sample_weight, None
    return np.ldexp(np.where(inside, sample_weight, 0.0), -exponents[:, None]), exponents


def statuses_of_too_few(
    x: np.ndarray | Array, lengths: np.ndarray, sample_weight: np.ndarray | None, models: Models
) -> Int[np.ndarray, " g"] | None:
    """The statuses if every data set of a chunk has fewer samples than any model has components; else None.

    `PREPARED` would find the same statuses; found on the host, they cost no compilation.
    """
    fewest = np.min(models.n_components)
    if sample_weight is None and np.max(lengths) >= fewest:
        return None
    inside = np.arange(x.shape[1]) < lengths[:, None]
    weights = np.where(inside, 1.0 if sample_weight is None else sample_weight, 0.0)
    counted = np.isfinite(weights) & (weights > 0)
    if np.max(np.sum(counted, axis=1)) >= fewest:
        return None
    is_finite = np.all(np.isfinite(weights), axis=1)
    is_finite &= np.all(np.isfinite(np.asarray(x)) | ~counted[..., None], axis=(1, 2))
    statuses = np.where(is_finite, Status.TOO_FEW_SAMPLES, Status.NONFINITE).astype(np.int32)
    return np.repeat(statuses, len(models.n_components))


def prepared(
    x: Float[Array, "c n d"],
    lengths: Int[Array, " c"],
    sample_weight: Float[Array, "c n"] | None,
    start: Any,
    options: Options,
    *,
    layout: Layout,
    init: str,
) -> Prepared:
    """Standardised data sets, and their runs."""
    ridges = jnp.asarray(options.reg_covar, jnp.float64)
    samples = jax.vmap(read)(x.astype(jnp.float64), lengths, sample_weight)
    bulk = bulks(samples.x, samples.weights, layout.group)

    def all_forms(samples: Samples, bulk: Bulk) -> tuple[DataSets, Array]:
        of_kinds = [
            jax.vmap(lambda ridge, coordinates=coordinates: _standardized(samples, bulk, coordinates, ridge, layout))(
                ridges
            )
            for coordinates in layout.coordinates
        ]
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *of_kinds)

    sets, status = jax.vmap(all_forms)(samples, bulk)
    models = jax.tree.map(jnp.asarray, options.models)
    n_positive = jnp.sum(sets.weights[:, 0] > 0, axis=-1, dtype=jnp.int32)
    too_few = n_positive[:, None] < models.n_components[None, :]
    # Bad numbers take precedence over too few samples, and these over features that do not vary.
    status = status[:, models.form]
    status = jnp.where(too_few & (status != int(Status.NONFINITE)), int(Status.TOO_FEW_SAMPLES), status)
    key: Any = options.key
    key = key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.key(key)
    starts = _starts(sets, start, key, models, init, layout)
    starts = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[3:]), starts)
    sets, status = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), sets), status.ravel()
    wanted = jnp.repeat(status == em.RUNNING, layout.n_init)
    return Prepared(sets, begun(starts, jnp), status, wanted, models)


PREPARED = compiled(prepared, static_argnames=("layout", "init"))


class Samples(NamedTuple):
    """One data set as read.

    Attributes:
        x: `(D, N)`, in data units, with zeros in place of NaN and infinity.
        weights: `(N,)`, of which the largest is 1; 0 for padding.
        weight_scale: the factor by which they were divided.
        is_finite: whether all weights, and all samples with positive weight, are finite.
    """

    x: Float[Array, "d n"]
    weights: Float[Array, " n"]
    weight_scale: Float[Array, ""]
    is_finite: Bool[Array, ""]


def read(x: Float[Array, "n d"], length: Int[Array, ""], sample_weight: Float[Array, " n"] | None) -> Samples:
    """Reads one data set."""
    inside = jnp.arange(x.shape[0]) < length
    weights = inside.astype(x.dtype)
    if sample_weight is not None:
        weights = jnp.where(inside, sample_weight.astype(x.dtype), 0.0)
    usable = jnp.isfinite(weights)
    finite = jnp.all(usable) & jnp.all(jnp.isfinite(x) | ~(usable & (weights > 0))[:, None])
    weights = jnp.where(usable, weights, 0.0)
    # Only ratios of weights matter to EM, and these must fit a narrower type.
    weight_scale = jnp.max(weights, initial=0.0)
    weight_scale = jnp.where(weight_scale > 0, weight_scale, 1.0)
    return Samples(jnp.where(jnp.isfinite(x), x, 0.0).T, weights / weight_scale, weight_scale, finite)


def _standardized(
    samples: Samples, bulk: Bulk, coordinates: Coordinates, reg_covar: Array, layout: Layout
) -> tuple[DataSets, Array]:
    """One data set, standardised, and a status that says whether it can be fitted."""
    x, weights, weight_scale, finite = samples
    found = standardize(x, weights, coordinates, reg_covar, is_absolute=layout.absolute_ridge, bulk=bulk)
    status = jnp.where(found.varies, em.RUNNING, int(Status.DEGENERATE))
    status = jnp.where(finite, status, int(Status.NONFINITE)).astype(jnp.int32)
    total = jnp.sum(weights)
    n_effective = total**2 / jnp.maximum(jnp.sum(weights**2), jnp.finfo(weights.dtype).tiny)
    sizes = (total, n_effective, weight_scale)
    return DataSets(found.z, weights, *sizes, found.ridge, found.ridge_in_data_units, found.units), status


def _starts(sets: DataSets, start: Any, key: Array, models: Models, init: str, layout: Layout) -> Mixture:
    """Starts `(C, M, R, K, …)` in standardised coordinates, of data sets `(C, P, …)`."""
    n_forms = sets.n_effective.shape[1]

    def form(p: Any) -> DataSets:
        # A single form needs no lookup.
        return jax.tree.map(lambda leaf: leaf[:, 0 if n_forms == 1 and jnp.ndim(p) == 0 else p], sets)

    def task(sets: DataSets, x: Array, m: Array | int) -> Task:
        present = jnp.arange(layout.n_components, dtype=jnp.int32) < models.n_components[m]
        data = as_data(sets.z, sets.weights, layout.tile, diagonal=layout.diagonal)
        return Task(x, sets.z, data, present, one_of(layout.families, models.family[m]), sets.ridge)

    def from_rows(sets: DataSets, rows: Array) -> Mixture:
        own = task(sets, sets.z, 0)
        return from_labels(rows, own) if init == "labels" else from_responsibilities(rows.astype(sets.z.dtype).T, own)

    def from_key(sets: DataSets, m: Array, r: Array) -> Mixture:
        # Clusters may show in whitened features or in features that are only scaled, so starts alternate.
        x = jnp.where(r % 2 == 0, sets.z, scaled_features(sets.z, sets.units))
        return INITIALIZERS[init](jax.random.fold_in(key, r), r, task(sets, x, m))

    if init == "mixture":
        explicit = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), start)
        family = one_of(layout.families, models.family[0])
        explicit = jax.vmap(lambda own, units: _explicit(own, units, family))(explicit, form(0).units)
        return jax.tree.map(lambda leaf: leaf[:, None, None], explicit)
    if init in ("labels", "responsibilities"):
        explicit = jax.vmap(from_rows)(form(0), jnp.asarray(start))
        return jax.tree.map(lambda leaf: leaf[:, None, None], explicit)

    # Only a few starts of every data set are made at a time, so that memory does not grow with their number, and only
    # for as many data sets at a time as fit a cache.
    def of_all(numbers: tuple[Array, Array]) -> Mixture:
        m, r = numbers
        group = min(max(1, layout.group // layout.together), len(sets.n_effective))
        return lax.map(lambda sets: from_key(sets, m, r), form(models.form[m]), batch_size=group)

    n_models = len(models.form)
    order = np.arange(n_models * layout.n_init)
    if layout.together > 1:
        # Starts made together wait for the slowest, so starts of one kind are neighbours.
        order = np.argsort(order % layout.n_init % TURN, kind="stable")
    m, r = np.divmod(order, layout.n_init)
    made = lax.map(
        of_all, (jnp.asarray(m), jnp.asarray(r)), batch_size=layout.together if layout.together > 1 else None
    )
    if layout.together > 1:
        made = jax.tree.map(lambda leaf: leaf[np.argsort(order)], made)
    shape = (n_models, layout.n_init)
    starts = jax.tree.map(lambda leaf: jnp.moveaxis(leaf.reshape(*shape, *leaf.shape[1:]), 2, 0), made)
    return starts if start is None else _with_last(starts, start, form(models.form).units, models, layout)


def _explicit(start: Mixture, units: Standardization, family: Family) -> Mixture:
    """A start in data units, standardised. EM would leave covariances outside the family; accelerated runs may not."""
    start = with_harmless_absent(to_standard(start, units))
    return replace(start, covariances=family.of_start(start.weights, start.covariances))


def _with_last(starts: Mixture, last: Mixture, units: Standardization, models: Models, layout: Layout) -> Mixture:
    """Starts `(C, M, R, K, …)`, the last of each fit replaced by a mixture in data units unless that is NaN."""
    last = jax.tree.map(lambda leaf, own: leaf.reshape(own[:, :, 0].shape), last, starts)
    is_given = jnp.all(jnp.isfinite(last.weights), axis=-1)

    def explicit(start: Mixture, units: Standardization, family: Any) -> Mixture:
        return _explicit(start, units, one_of(layout.families, family))

    last = jax.vmap(jax.vmap(explicit), (0, 0, None))(last, units, models.family)

    def replaced(own: Array, new: Array) -> Array:
        given = is_given.reshape(*is_given.shape, *[1] * (own.ndim - 3))
        return own.at[:, :, -1].set(jnp.where(given, new, own[:, :, -1]))

    return jax.tree.map(replaced, starts, last)
