"""The bootstrap: the uncertainty of a fit's parameters, and a test of K components against K + 1.

A replicate is another run of the engine: the same samples with other weights, or samples drawn from the fit.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxgmm.driver.arguments import checked_key, checked_mixture, checked_weights, ridge_in
from jaxgmm.driver.program import Combination, Request
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.engine.batch import Batch, batch
from jaxgmm.engine.progress import progress_bar
from jaxgmm.families import families_of, of_family
from jaxgmm.fit_result import FitResult
from jaxgmm.fitting import fit_batch
from jaxgmm.mixture import Mixture, as_mixture, draw, full_covariances, unknown, with_room
from jaxgmm.ordering import matched
from jaxgmm.record import Block, Record, counted, record, span, statuses
from jaxgmm.settings import TOL, Method, Precision, check_integer, check_model, check_progress, check_runs, method_for
from jaxgmm.status import Status

Kind = Literal["weighted", "parametric", "nonparametric"]
KINDS = ("weighted", "parametric", "nonparametric")

# Numbers drawn from fits at a time, which bounds the memory of replicates.
_MOST_DRAWN = 2**22


@record
class Bootstrap(Record):
    """Replicates of B fits, R of each; for one data set the B axis is absent.

    Attributes:
        mixture: `(B, R, K, …)`, components in the order of the fitted ones; NaN where a replicate has no answer. Where
            a fit has fewer components than another, absent ones have weight 0, mean 0 and unit variances.
        log_likelihood: `(B, R)`, total nats of each replicate's own data; NaN where it has no answer.
        status: `(B, R)`, codes of `jaxgmm.Status`; that of the fit where the fit itself has no answer.
    """

    mixture: Mixture
    log_likelihood: np.ndarray
    status: np.ndarray

    @property
    def _batch(self) -> tuple[int, ...]:
        return self.status.shape[:-1]

    def _described(self) -> tuple[str, list[Block]]:
        of = f"{counted(len(self), 'data set')}, " if self._batch else ""
        k, d = self.mixture.n_components, self.mixture.n_features
        title = f"Bootstrap: {of}{counted(self.status.shape[-1], 'replicate')}, K = {k}, D = {d}"
        return title, [statuses(self.status, "replicate"), Block([["log-likelihood", span(self.log_likelihood)]])]

    def percentiles(self, q: float | Sequence[float] = (2.5, 97.5)) -> Any:
        """Percentiles of every parameter over the replicates that have an answer.

        Args:
            q: percentages, one or several.

        Returns:
            a mixture with the fit's shapes, or a tuple of one for each percentage. It holds percentiles of single
            parameters: its weights need not sum to 1, nor need its covariances be positive definite.

        Raises:
            ValueError: q looks like quantiles: all are below 1, and 1 - q are the same ones.
        """
        if isinstance(q, Sequence | np.ndarray):
            if len(q) > 1 and max(q) < 1 and np.allclose(np.sort(q), np.sort(1 - np.asarray(q))):
                raise ValueError(f"percentiles are percentages, such as 2.5 and 97.5; got {tuple(q)}.")
            return tuple(map(self.percentiles, q))
        answered = np.any(np.isfinite(self.log_likelihood), axis=-1)

        def of_replicates(leaf: np.ndarray) -> np.ndarray:
            found = np.full(np.delete(leaf.shape, answered.ndim), np.nan)
            found[answered] = np.nanpercentile(leaf[answered], q, axis=1)
            return found

        return self.mixture.map(of_replicates)


def bootstrap(
    mixture: Any,
    x: Any,
    n_replicates: int = 1000,
    *,
    kind: Kind = "weighted",
    covariance_type: str | None = None,
    sample_weight: Any = None,
    tol: float = TOL,
    max_iter: int = 1000,
    reg_covar: float = 1e-12,
    key: Any = 0,
    precision: Precision = "mixed",
    method: Method | None = None,
    progress: bool | Callable[[int, int], None] = False,
) -> Bootstrap:
    """Fits replicates of data sets, each started from the parameters of the fit itself.

    The weighted-likelihood bootstrap leaves no sample out, and so keeps small components that the nonparametric
    bootstrap loses (O'Hagan, Murphy, Scrucca and Gormley, 2019, "Investigation of parameter uncertainty in clustering
    using a Gaussian mixture model via jackknife, bootstrap and weighted likelihood bootstrap").

    Args:
        mixture: the fit of each data set, or its result, with a batch axis if `x` has one. Components of weight 0 are
            left out, and have weight 0 in all replicates. A result may hold fits without an answer, whose replicates
            have none either.
        x: one data set `(N, D)`, a stack `(B, N, D)`, or a sequence of `(N_i, D)`, as for `fit`.
        n_replicates: R.
        kind: `"weighted"` multiplies sample weights by independent exponential variables (Newton and Raftery, 1994);
            `"nonparametric"` draws samples with replacement, as weights; `"parametric"` draws samples from the fit.
        covariance_type: the family that was fitted to all data sets. None infers it for each: the narrowest family that
            the covariances belong to, and that has the number of parameters that a result counts.
        sample_weight: as for `fit`, but a sample is one observation, whatever its weight; to count it several times,
            repeat it. Samples of weight 0 are left out. `"parametric"` draws as many samples as are left, of weight 1.
        tol: as for `fit`.
        max_iter: as for `fit`.
        reg_covar: as for `fit`.
        key: as for `fit`. Every data set draws from the same key.
        precision: as for `fit`.
        method: as for `fit`.
        progress: show a progress bar (needs rich); or a function that receives the numbers of finished and of all runs.

    Returns:
        the replicates.

    Raises:
        ValueError: wrong shapes or options. It is raised before anything is computed.
        ImportError: a package that an option needs is not installed.

    Example:
        >>> import numpy as np, jaxgmm
        >>> x = np.random.default_rng(0).normal(size=(400, 1))
        >>> fitted = jaxgmm.fit(x, 1).mixture
        >>> low, high = jaxgmm.bootstrap(fitted, x, 200).percentiles((2.5, 97.5))
        >>> (high.means - low.means).round(1)  # 4 / √400, about
        array([[0.2]])
    """
    data = batch(x)
    fitted, status = _of_data_sets(mixture, data)
    answered = np.isfinite(fitted.weights[:, 0])
    check_model(fitted.n_components, "full" if covariance_type is None else covariance_type, reg_covar)
    check_runs(1, None, tol, max_iter, precision, method)
    check_integer("n_replicates", n_replicates, 1)
    check_progress(progress)
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(map(repr, KINDS))}; got {kind!r}.")
    if sample_weight is not None:
        weights = checked_weights(sample_weight, data)
        is_kept = weights != 0
        data = data.kept(is_kept)
        data = data if kind == "parametric" else data.weighted(weights[is_kept])
    random, n_replicates = jax_key(key), int(n_replicates)
    if covariance_type is None:
        families = families_of(fitted, getattr(mixture, "n_parameters", None))
    else:
        families = np.full(data.n_data_sets, covariance_type)
    parts = _parts(fitted, families, np.flatnonzero(answered), data)
    settings = precision, float(tol), int(max_iter), checked_key(key)
    request = Request("mixture", 1, 1, *settings, method=method_for(method, tol))
    # Variances have no room for another family that is named.
    is_diagonal = fitted.is_diagonal and all(FAMILIES[part.family].diagonal for part in parts)
    axes = data.n_data_sets, n_replicates
    mixtures = unknown(axes, fitted.n_components, fitted.n_features, is_diagonal=is_diagonal)
    found = Bootstrap(mixtures, np.full(axes, np.nan), np.repeat(status[:, None], n_replicates, axis=1))
    with progress_bar(int(np.sum(answered)) * n_replicates, shown=progress) as report:
        for part in parts:
            own, ridge = data.part(part.rows), ridge_in(precision, reg_covar)
            if kind == "parametric":
                replicates = simulated(part.fitted, own, n_replicates, random)
            else:
                everything = slice(0, len(part.rows)), slice(0, n_replicates)
                replicates = [Replicates(*everything, _reweighted(kind, own, n_replicates, random))]
            for some in replicates:
                start = some.each_of(part.fitted)
                result = fit_batch(some.data, start, (start.n_components, part.family, ridge), request, report)
                _put(found, part, some, result, start)
    return jax.tree.map(lambda leaf: leaf[0], found) if data.is_single else found


def likelihood_ratio_p_values(
    data: Batch,
    fitted: Mixture,
    statistic: np.ndarray,
    model: Combination,
    n_replicates: int,
    request: Request,
) -> np.ndarray:
    """The bootstrap test of K components against K + 1 (McLachlan, 1987), for B data sets.

    Args:
        data: the data sets.
        fitted: their fits of K components, `(B, K, …)`, from which replicates are drawn.
        statistic: `(B,)`, twice the gain in log-likelihood of K + 1 components.
        model: K, family and ridge.
        n_replicates: R.
        request: how replicates are fitted: from starts of their own, with K components and with K + 1.

    Returns:
        `(B,)`, the share of replicates, counting the data themselves as one, that gain at least as much: (1 + b) / (1 +
        R) as in mclust's `mclustBootstrapLRT`. Replicates without an answer are left out.
    """
    n_components, family, ridge = model
    key = jax.random.fold_in(jax_key(request.key), n_components)
    as_large, answered = np.zeros((2, data.n_data_sets), np.int64)
    for some in simulated(fitted, data, n_replicates, key):
        smaller, larger = (
            fit_batch(some.data, None, (k, family, ridge), request, lambda _: None).log_likelihood
            for k in (n_components, n_components + 1)
        )
        own = some.data_sets
        gains = 2 * (larger - smaller).reshape(own.stop - own.start, -1)
        as_large[own] += np.sum(gains >= statistic[own, None], axis=1)
        answered[own] += np.sum(np.isfinite(gains), axis=1)
    return (1 + as_large) / (1 + answered)


class Replicates(NamedTuple):
    """Some replicates of some data sets: all of these for the first data set, then for the next.

    Attributes:
        data_sets: which data sets.
        numbers: which of the R replicates of each.
        data: the replicates.
    """

    data_sets: slice
    numbers: slice
    data: Batch

    def each_of(self, fitted: Mixture) -> Mixture:
        """The fit of B that each replicate belongs to."""
        n_each = self.numbers.stop - self.numbers.start
        return fitted.of(self.data_sets).map(lambda leaf: np.repeat(leaf, n_each, axis=0))


def simulated(mixture: Mixture, data: Batch, n_replicates: int, key: Array) -> Iterator[Replicates]:
    """Samples drawn from B mixtures: R data sets from each, of the lengths of the data. Memory holds a part of them."""
    longest, n_features = int(np.max(data.lengths)), mixture.n_features
    at_once = max(1, _MOST_DRAWN // max(1, longest * n_features))
    n_sets, n_each = max(1, at_once // n_replicates), min(n_replicates, at_once)
    with jax.enable_x64(True):
        keys = jax.random.split(key, (n_replicates, 2))
    for first, begin in product(range(0, data.n_data_sets, n_sets), range(0, n_replicates, n_each)):
        data_sets = slice(first, min(first + n_sets, data.n_data_sets))
        numbers = slice(begin, min(begin + n_each, n_replicates))
        with jax.enable_x64(True):
            # All mixtures draw from the same keys, so that no draw depends on a mixture's place.
            drawn = _drawn(keys[numbers], mixture.of(data_sets).map(jnp.asarray), n_samples=longest)
        samples = np.asarray(drawn).reshape(-1, n_features)
        lengths = np.repeat(data.lengths[data_sets], numbers.stop - numbers.start)
        replicates = Batch(samples, np.arange(len(lengths)) * longest, lengths, is_single=False)
        yield Replicates(data_sets, numbers, replicates)


@functools.partial(jax.jit, static_argnames=("n_samples",))
def _drawn(keys: Array, mixtures: Mixture, *, n_samples: int) -> Array:
    def of_one(mixture: Mixture) -> Array:
        return jax.vmap(lambda keys: draw(keys, mixture, n_samples)[0])(keys)

    return jax.vmap(of_one)(mixtures)


def _reweighted(kind: str, data: Batch, n_replicates: int, key: Array) -> Batch:
    """R replicates of each data set: the same samples, with weights multiplied by random factors."""
    repeated = data.repeated(n_replicates)

    def weights_of(replicates: np.ndarray, n_samples: int) -> np.ndarray:
        data_sets, numbers = np.divmod(replicates, n_replicates)
        with jax.enable_x64(True):
            factors = np.asarray(_factors(key, numbers, data.lengths[data_sets], n_samples=n_samples, kind=kind))
        return factors if repeated.weights_of is None else factors * repeated.weights_of(replicates, n_samples)

    return repeated._replace(weights_of=weights_of)


@functools.partial(jax.jit, static_argnames=("n_samples", "kind"))
def _factors(key: Array, numbers: Array, lengths: Array, *, n_samples: int, kind: str) -> Array:
    """Factors `(C, n_samples)` by which replicates `(C,)` multiply the weights of their samples."""

    def of_one(number: Array, length: Array) -> Array:
        own = jax.random.fold_in(key, number)
        # One key for each sample, so that its draws do not depend on how many samples follow it.
        keys = jax.vmap(lambda n: jax.random.fold_in(own, n))(jnp.arange(n_samples))
        if kind == "weighted":
            return jax.vmap(lambda k: jax.random.exponential(k, dtype=jnp.float64))(keys)
        uniform = jax.vmap(lambda k: jax.random.uniform(k, dtype=jnp.float64))(keys)
        drawn = jnp.minimum((uniform * length.astype(uniform.dtype)).astype(length.dtype), length - 1)
        is_draw = (jnp.arange(n_samples) < length).astype(jnp.float64)
        return jnp.zeros(n_samples, jnp.float64).at[drawn].add(is_draw)

    return jax.vmap(of_one)(numbers, lengths)


class _Part(NamedTuple):
    """Data sets whose fits have the same number of components, and are of one family.

    Attributes:
        rows: `(C,)`, their numbers.
        fitted: their fits, without absent components.
        places: `(C, K)`, for each of all K places the component that belongs there; absent ones come last.
        family: its name.
    """

    rows: np.ndarray
    fitted: Mixture
    places: np.ndarray
    family: str


def _of_data_sets(given: Any, data: Batch) -> tuple[Mixture, np.ndarray]:
    """The fit of each data set, `(B, K, …)`, all of it NaN where it has no answer; and how it ended, `(B,)`."""
    mixture = as_mixture(given).map(lambda leaf: np.asarray(leaf, dtype=np.float64))
    if data.is_single and mixture.weights.ndim == 1:
        mixture = mixture.map(lambda leaf: leaf[None])
    weights, means, covariances = mixture.arrays
    shape = (data.n_data_sets, weights.shape[-1] if weights.ndim else 0, data.samples.shape[1])
    if weights.shape != shape[:2] or means.shape != shape or covariances.shape not in (shape, (*shape, shape[2])):
        raise ValueError(
            f"mixture must hold a fit for each of the {data.n_data_sets} data sets with {data.samples.shape[1]} "
            f"features; its leaves have shapes {', '.join(str(leaf.shape) for leaf in as_mixture(given).arrays)}."
        )
    is_known = np.all([np.all(np.isfinite(leaf.reshape(len(leaf), -1)), axis=1) for leaf in mixture.arrays], axis=0)
    if not np.all(is_known) and not hasattr(given, "status"):
        raise ValueError(
            "mixture holds NaN or infinity; leave out data sets whose fit has no answer, or pass the result of fit."
        )
    status = np.reshape(getattr(given, "status", np.zeros(data.n_data_sets)), -1).astype(np.int32)
    return mixture.map(lambda leaf: np.where(is_known.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, np.nan)), status


def _parts(fitted: Mixture, families: np.ndarray, rows: np.ndarray, data: Batch) -> list[_Part]:
    """The fits of some data sets by number of components and family. Checks them."""
    n_present, families, parts = np.sum(fitted.weights[rows] > 0, axis=1), families[rows], []
    for k, family in sorted(set(zip(n_present.tolist(), families.tolist(), strict=True))):
        own = rows[(n_present == k) & (families == family)]
        order = np.argsort(fitted.weights[own] == 0, axis=1, kind="stable")
        present = of_family(_in_order(fitted.of(own), order).components(slice(k)), family)
        fits = checked_mixture(present, data.part(own), k, family)
        parts.append(_Part(own, fits, np.argsort(order, axis=1), family))
    return parts


def _in_order(mixture: Mixture, order: np.ndarray) -> Mixture:
    """Mixtures `(C, K, …)` with the components in an order of their own, `(C, K)`."""
    return mixture.map(lambda leaf: leaf[np.arange(len(order))[:, None], order])


def _put(found: Bootstrap, part: _Part, some: Replicates, result: FitResult, start: Mixture) -> None:
    """Puts some replicates in their place, with components where they are in the fit that they started from."""
    mixtures = with_room(matched(result.mixture, start), found.mixture.n_components)
    place, places = (part.rows[some.data_sets], some.numbers), part.places[some.data_sets]
    n_data_sets = len(places)
    mixtures = _in_order(mixtures, np.repeat(places, len(mixtures.weights) // n_data_sets, axis=0))
    if not found.mixture.is_diagonal:
        mixtures = replace(mixtures, covariances=full_covariances(mixtures))
    found.status[place] = result.status.reshape(n_data_sets, -1)
    leaves = (*found.mixture.arrays, found.log_likelihood), (*mixtures.arrays, result.log_likelihood)
    for leaf, own in zip(*leaves, strict=True):
        own[result.status == Status.DEGENERATE] = np.nan
        leaf[place] = own.reshape(n_data_sets, -1, *own.shape[1:])


def jax_key(key: Any) -> Array:
    """A JAX random key from what users pass as one."""
    key = checked_key(key)
    # Without 64-bit types, a seed would lose half of its bits.
    with jax.enable_x64(True):
        return jax.random.key(int(key)) if isinstance(key, np.integer) else key
