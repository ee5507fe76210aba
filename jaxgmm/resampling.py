"""The bootstrap: the uncertainty of a fit's parameters, and a test of K components against K + 1.

A replicate is another run of the engine: the same samples with other weights, or samples drawn from the fit.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxgmm.driver.arguments import checked_key, checked_mixture, weighted
from jaxgmm.driver.program import Combination, Request
from jaxgmm.engine.batch import Batch, batch
from jaxgmm.engine.progress import progress_bar
from jaxgmm.fitting import fit_batch, ridge_in
from jaxgmm.mixture import Mixture, as_mixture, draw
from jaxgmm.ordering import matched
from jaxgmm.record import Block, Record, counted, record, span, statuses
from jaxgmm.settings import TOL, Method, Precision, check_integer, check_options, method_for
from jaxgmm.status import Status

Kind = Literal["weighted", "parametric", "nonparametric"]
KINDS = ("weighted", "parametric", "nonparametric")

# Numbers drawn at a time for a test, which bounds the memory of its replicates.
_MOST_DRAWN = 2**23


@record
class Bootstrap(Record):
    """Replicates of B fits, R of each; for one data set the B axis is absent.

    Attributes:
        mixture: `(B, R, K, …)`, components in the order of the fitted ones; NaN where a replicate has no answer.
        log_likelihood: `(B, R)`, total nats of each replicate's own data; NaN where it has no answer.
        status: `(B, R)`, codes of `jaxgmm.Status`.
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
        """
        if isinstance(q, Sequence | np.ndarray):
            return tuple(map(self.percentiles, q))
        return self.mixture.map(lambda leaf: np.nanpercentile(leaf, q, axis=self.status.ndim - 1))


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
            left out; all data sets must have the same number of others.
        x: one data set `(N, D)`, a stack `(B, N, D)`, or a sequence of `(N_i, D)`, as for `fit`.
        n_replicates: R.
        kind: `"weighted"` multiplies sample weights by independent exponential variables (Newton and Raftery, 1994);
            `"nonparametric"` draws samples with replacement, as weights; `"parametric"` draws samples from the fit.
        covariance_type: the family that was fitted. None infers it from the covariances.
        sample_weight: as for `fit`; not used by `"parametric"`.
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

    Example:
        >>> import numpy as np, jaxgmm
        >>> x = np.random.default_rng(0).normal(size=(400, 1))
        >>> fitted = jaxgmm.fit(x, 1).mixture
        >>> low, high = jaxgmm.bootstrap(fitted, x, 200).percentiles((2.5, 97.5))
        >>> (high.means - low.means).round(1)  # 4 / √400, about
        array([[0.2]])
    """
    mixture, data = as_mixture(mixture), batch(x)
    fitted = _present(mixture, data)
    n_components = fitted.n_components
    family = _family(fitted) if covariance_type is None else covariance_type
    check_options(n_components, family, 1, None, tol, max_iter, reg_covar, precision, method)
    fitted = checked_mixture(fitted, data, n_components, family)
    check_integer("n_replicates", n_replicates, 1)
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(map(repr, KINDS))}; got {kind!r}.")
    random, n_replicates = jax_key(key), int(n_replicates)
    if kind == "parametric":
        replicates = simulated(fitted, data, n_replicates, random)
    else:
        replicates = _reweighted(kind, weighted(data, sample_weight), n_replicates, random)
    start = fitted.map(lambda leaf: np.repeat(leaf, n_replicates, axis=0))
    settings = precision, float(tol), int(max_iter), checked_key(key)
    request = Request("mixture", 1, 1, *settings, method=method_for(method, tol))
    with progress_bar(replicates.n_data_sets, shown=progress) as report:
        model = (n_components, family, ridge_in(precision, reg_covar))
        result = fit_batch(replicates, start, model, request, report)

    def by_data_set(leaf: np.ndarray) -> np.ndarray:
        leaf = leaf.reshape(data.n_data_sets, n_replicates, *leaf.shape[1:])
        return leaf[0] if data.is_single else leaf

    answered = result.status != Status.DEGENERATE

    def known(leaf: np.ndarray) -> np.ndarray:
        return np.where(answered.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, np.nan)

    mixtures = matched(result.mixture, start).map(known)
    log_likelihood = np.where(answered, result.log_likelihood, np.nan)
    return Bootstrap(*jax.tree.map(by_data_set, (mixtures, log_likelihood, result.status)))


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
    p_values = np.empty(data.n_data_sets)
    at_once = max(1, _MOST_DRAWN // (n_replicates * int(np.max(data.lengths)) * data.samples.shape[1]))
    for first in range(0, data.n_data_sets, at_once):
        rows = slice(first, first + at_once)
        own = data.part(rows)
        replicates = simulated(fitted.of(rows), own, n_replicates, key)
        smaller, larger = (
            fit_batch(replicates, None, (k, family, ridge), request, lambda _: None).log_likelihood
            for k in (n_components, n_components + 1)
        )
        gains = 2 * (larger - smaller).reshape(-1, n_replicates)
        as_large = np.sum(gains >= statistic[rows, None], axis=1)
        p_values[rows] = (1 + as_large) / (1 + np.sum(np.isfinite(gains), axis=1))
    return p_values


def simulated(mixture: Mixture, data: Batch, n_replicates: int, key: Array) -> Batch:
    """Samples drawn from B mixtures: R data sets from each, of the lengths of the data, all held in memory."""
    longest = int(np.max(data.lengths))
    with jax.enable_x64(True):
        keys = jax.random.split(key, (n_replicates, 2))
        # All mixtures draw from the same keys, so that no draw depends on a mixture's place.
        drawn = np.asarray(_drawn(keys, mixture.map(jnp.asarray), n_samples=longest))
    n_features = mixture.n_features
    lengths = np.repeat(data.lengths, n_replicates)
    return Batch(drawn.reshape(-1, n_features), np.arange(len(lengths)) * longest, lengths, is_single=False)


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


def _present(mixture: Any, data: Batch) -> Mixture:
    """The components with positive weight, `(B, K, …)`."""
    mixture = as_mixture(mixture)
    leaves = [np.asarray(leaf, dtype=np.float64) for leaf in mixture.arrays]
    if data.is_single and leaves[0].ndim == 1:
        leaves = [leaf[None] for leaf in leaves]
    weights, means, _ = leaves
    shape = (data.n_data_sets, weights.shape[-1] if weights.ndim else 0, data.samples.shape[1])
    if weights.shape != shape[:2] or means.shape != shape or leaves[2].shape not in (shape, (*shape, shape[2])):
        raise ValueError(
            f"mixture must hold a fit for each of the {data.n_data_sets} data sets with {data.samples.shape[1]} "
            f"features; its leaves have shapes {', '.join(str(np.shape(leaf)) for leaf in mixture.arrays)}."
        )
    if not all(np.all(np.isfinite(leaf)) for leaf in leaves):
        raise ValueError("mixture holds NaN or infinity; leave out data sets whose fit has no answer.")
    counts = np.unique(np.sum(weights > 0, axis=1))
    if len(counts) > 1:
        raise ValueError(
            f"mixture has {counts.tolist()} components in different data sets; pass those of one K at a time."
        )
    order = np.argsort(weights == 0, axis=1, kind="stable")[:, : counts[0]]
    rows = np.arange(len(weights))[:, None]
    return Mixture(*leaves).map(lambda array: array[rows, order])


def _family(mixture: Mixture) -> str:
    """The narrowest family that the covariances belong to."""
    if mixture.is_diagonal:
        return "spherical" if np.all(mixture.covariances == mixture.covariances[..., :1]) else "diag"
    return "tied" if np.all(mixture.covariances == mixture.covariances[:, :1]) else "full"


def jax_key(key: Any) -> Array:
    """A JAX random key from what users pass as one."""
    key = checked_key(key)
    # Without 64-bit types, a seed would lose half of its bits.
    with jax.enable_x64(True):
        return jax.random.key(int(key)) if isinstance(key, np.integer) else key
