"""fit(): thousands of data sets, one number of components, one covariance family."""

import math
import numbers
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgmm.chunk import ChunkFits, fit_chunk
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.em.initialization import INITIALIZERS
from jaxgmm.engine.batch import Batch, batch, padded, per_sample
from jaxgmm.engine.devices import machine, map_chunks
from jaxgmm.engine.progress import progress_bar
from jaxgmm.mixture import Mixture, full_covariances
from jaxgmm.plan import Chunk, chunks
from jaxgmm.search import Options, Program

Precision = Literal["mixed", "float32", "float64"]
PRECISIONS = ("mixed", "float32", "float64")


class FitResult(NamedTuple):
    """Fits of B data sets, with R starts each. NumPy arrays; for one `(N, D)` data set the B axis is absent.

    Attributes:
        mixture: weights `(B, K)`, means `(B, K, D)`, covariances `(B, K, D, D)`, or variances `(B, K, D)` for `"diag"`
            and `"spherical"`. NaN where no sound parameters were found.
        log_likelihood: `(B,)`, total nats of the (weighted) data at the returned parameters.
        n_iter: `(B,)`, iterations of the chosen run.
        status: `(B,)`, codes of `jaxgmm.Status`.
        start_log_likelihood: `(B, R)`, total nats each start led to. In mixed precision those not chosen are known in
            float32, as the search left them.
        start_status: `(B, R)`, how each start's run ended.
        history: `(B, T)`, log-likelihood of the chosen run at its start and after every iteration, NaN beyond its
            end; None unless asked for.
        efficiency: of all run-iterations executed, the share that some run still needed.
    """

    mixture: Mixture
    log_likelihood: np.ndarray
    n_iter: np.ndarray
    status: np.ndarray
    start_log_likelihood: np.ndarray
    start_status: np.ndarray
    history: np.ndarray | None
    efficiency: float


def fit(
    x: Any,
    n_components: int,
    *,
    covariance_type: str = "full",
    init: Any = "k-means++",
    n_init: int = 10,
    n_finalists: int | None = None,
    tol: float = 1e-5,
    max_iter: int = 1000,
    reg_covar: float = 1e-6,
    sample_weight: Any = None,
    key: Any = 0,
    precision: Precision = "mixed",
    history: bool = False,
    progress: bool = False,
) -> FitResult:
    """Fits a Gaussian mixture to every data set by expectation-maximisation (Dempster, Laird and Rubin, 1977).

    A data set's answer depends on that data set alone. Bad data never raise: `status` says what is wrong with which
    data set, and `jaxgmm.Status(code).sentence` what to do about it.

    Args:
        x: one data set `(N, D)`, a stack `(B, N, D)`, or a sequence of `(N_i, D)`. NumPy or JAX arrays.
        n_components: K, at least 1.
        covariance_type: `"full"` (each component its own covariance), `"tied"` (one for all), `"diag"` (axis-aligned)
            or `"spherical"` (one variance for each component).
        init: `"k-means++"`, `"kmeans"`, `"random"` (responsibilities) or `"random_from_data"` (samples as means); or
            explicit starts, one run for each data set: a `Mixture` with or without batch axis, responsibilities
            `(…, N, K)`, or integer labels `(…, N)` numbered from 0. EM begins with an M-step from the last two.
        n_init: R, the number of starts. An explicit start counts as one.
        n_finalists: take only the best so many starts of each data set to their ends, judged after 12 iterations; the
            others end there as `MAX_ITER`. None takes all. (Biernacki, Celeux and Govaert, 2003, "Choosing starting
            values for the EM algorithm".)
        tol: stop when the mean log-likelihood per sample gains less than this in one iteration (or, with a ridge, loses
            less); 0 never stops early.
        max_iter: iterations at most; one iteration is an E-step, then an M-step.
        reg_covar: ridge added to every component variance, as a fraction of that feature's variance in the data set
            (of their mean for `"spherical"`).
        sample_weight: not negative, shaped as `x` without its last axis. Weight 0 removes a sample, weight 2 counts it
            twice.
        key: seed or JAX random key. Every data set draws from the same key, whatever its place.
        precision: `"mixed"` searches among starts in float32, unless there is little to do, and finishes in float64;
            `"float32"` and `"float64"` do all iterations in one precision. Preparation and results are float64 always.
        history: record the log-likelihood of every iteration.
        progress: show a progress bar (needs rich).

    Returns:
        the best run of every data set, and how all runs ended.

    Raises:
        ValueError: wrong shapes or options. Nothing has been computed then.

    Example:
        >>> import numpy as np, jaxgmm
        >>> x = np.concatenate([np.full(60, -3.0), np.full(40, 3.0)]) + np.tile([-1.0, 1.0], 50)
        >>> result = jaxgmm.fit(x[:, None], 2)
        >>> sorted(result.mixture.weights.round(3).tolist())
        [0.4, 0.6]
        >>> jaxgmm.Status(result.status).name
        'CONVERGED'
    """
    _check_options(n_components, covariance_type, n_init, n_finalists, tol, max_iter, reg_covar, precision)
    data = batch(x)
    weights = None if sample_weight is None else _weights(sample_weight, data)
    init_name, start = _start(init, data, n_components, covariance_type)
    n_init = int(n_init) if start is None else 1
    program = Program(
        n_components=int(n_components),
        has_absent=False,
        covariance_type=covariance_type,
        init=init_name,
        n_init=n_init,
        n_finalists=n_init if n_finalists is None else min(int(n_finalists), n_init),
        precision=precision,
        search_dtype="float32",
        n_history=int(max_iter) + 1 if history else 0,
        n_slots=1,
        n_stacked_slots=0,
        tile=0,
    )
    options = Options(float(tol), int(max_iter), float(reg_covar), _key(key), int(n_components))
    hardware = machine()
    planned = chunks(data, program, options, hardware)
    result = _empty_result(data, program)
    executed, useful = [], []

    def work(chunk: Chunk) -> int:
        fits = _fit_padded(chunk, data, weights, start, options)
        _store(fits, chunk.data_sets, result)
        executed.append(fits.executed)
        useful.append(fits.useful)
        return len(chunk.data_sets) * n_init

    def program_of(chunk: Chunk) -> tuple:
        dtypes = [None if rows is None else rows.dtype.str for rows in (data.samples, weights)]
        return (chunk.program, chunk.size, chunk.n_samples, data.samples.shape[1], *dtypes)

    with progress_bar(data.n_data_sets * n_init, shown=progress) as report:
        map_chunks(work, planned, program_of, Chunk.halves, hardware, report)
    result = result._replace(efficiency=sum(useful) / max(1, sum(executed)))
    if result.history is not None:
        longest = int(np.max(result.n_iter)) + 1
        result = result._replace(history=result.history[:, :longest].copy())
    return _without_batch_axis(result) if data.is_single else result


def _fit_padded(chunk: Chunk, data: Batch, weights: np.ndarray | None, start: Any, options: Options) -> ChunkFits:
    """Runs the compiled programs on a chunk, filled up by repeating a data set."""
    missing = chunk.size - len(chunk.data_sets)
    rows = np.concatenate([chunk.data_sets, np.repeat(chunk.data_sets[:1], missing)])

    def rows_of(table: Any) -> Any:
        return padded(table, data, rows, chunk.n_samples)

    # What fills up is empty, and so not fitted.
    lengths = np.where(np.arange(chunk.size) < len(chunk.data_sets), data.lengths[rows], 0)
    if isinstance(start, Mixture):
        chunk_start = Mixture(*(leaf[rows] for leaf in start))
    else:
        chunk_start = None if start is None else rows_of(start)
    chunk_weights = None if weights is None else rows_of(weights)
    return fit_chunk(rows_of(data.samples), lengths, chunk_weights, chunk_start, options, chunk.program)


def _check_options(
    n_components: Any,
    covariance_type: Any,
    n_init: Any,
    n_finalists: Any,
    tol: Any,
    max_iter: Any,
    reg_covar: Any,
    precision: Any,
) -> None:
    at_least_one = {"n_components": n_components, "n_init": n_init}
    if n_finalists is not None:
        at_least_one["n_finalists"] = n_finalists
    for name, value, least in (*((name, value, 1) for name, value in at_least_one.items()), ("max_iter", max_iter, 0)):
        if not isinstance(value, numbers.Integral) or isinstance(value, bool) or not least <= int(value) < 2**31:
            raise ValueError(f"{name} must be an integer of at least {least}, and less than 2**31; got {value!r}.")
    for name, value in (("tol", tol), ("reg_covar", reg_covar)):
        if not isinstance(value, (int, float, np.number)) or not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be a finite number of at least 0; got {value!r}.")
    for name, value, known in (
        ("covariance_type", covariance_type, FAMILIES),
        ("precision", precision, PRECISIONS),
    ):
        if not isinstance(value, str) or value not in known:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}; got {value!r}.")


def _weights(sample_weight: Any, data: Batch) -> np.ndarray:
    weights = per_sample(sample_weight, data, "sample_weight")
    negative = np.flatnonzero(weights < 0)
    if len(negative):
        b = int(np.searchsorted(data.offsets, negative[0], side="right")) - 1
        raise ValueError(
            f"sample_weight must not be negative; sample {negative[0] - data.offsets[b]} of data set {b} has weight "
            f"{weights[negative[0]]}. Give samples to be left out weight 0."
        )
    return weights


def _start(init: Any, data: Batch, n_components: int, covariance_type: str) -> tuple[str, Any]:
    """What kind of start `init` is, and explicit starts laid out as the batch is."""
    if isinstance(init, str):
        if init not in INITIALIZERS:
            raise ValueError(
                f"init must be one of {', '.join(map(repr, INITIALIZERS))}, a Mixture, responsibilities or labels; "
                f"got {init!r}."
            )
        return init, None
    if isinstance(init, Mixture):
        return "mixture", _explicit_mixture(init, data, n_components, covariance_type)
    if init is None:
        raise ValueError("init must be a name, a Mixture, responsibilities or labels; got None.")
    first = np.asarray(init[0]) if isinstance(init, (list, tuple)) and len(init) else np.asarray(init)
    if first.dtype.kind in "iub":
        labels = per_sample(init, data, "init (labels)").astype(np.int32)
        if labels.size and (labels.min() < 0 or labels.max() >= n_components):
            raise ValueError(
                f"init (labels) must be numbered from 0 to {n_components - 1}; they run from {labels.min()} to "
                f"{labels.max()}."
            )
        return "labels", labels
    rows = per_sample(init, data, "init (responsibilities)", (int(n_components),))
    if np.any(rows < 0):
        raise ValueError(f"init (responsibilities) must not be negative; the least is {np.nanmin(rows)}.")
    return "responsibilities", rows


def _explicit_mixture(init: Mixture, data: Batch, n_components: int, covariance_type: str) -> Mixture:
    n_features = data.samples.shape[1]
    init = Mixture(*(np.asarray(leaf, dtype=np.float64) for leaf in init))
    spread = (n_features,) if FAMILIES[covariance_type].diagonal else (n_features, n_features)
    trailing = ((n_components,), (n_components, n_features), (n_components, *spread))
    is_full = init.covariances.shape[-3:] == trailing[2] and init.covariances.ndim in (3, 4)
    if not FAMILIES[covariance_type].diagonal and not is_full and init.is_diagonal:
        init = init._replace(covariances=full_covariances(init))
    for name, leaf, shape in zip(Mixture._fields, init, trailing, strict=True):
        if leaf.shape not in (shape, (data.n_data_sets, *shape)):
            raise ValueError(
                f"init.{name} must have shape {shape}, or {(data.n_data_sets, *shape)} for a start of each data set, "
                f"with covariance_type={covariance_type!r}; it has shape {leaf.shape}."
            )
    if np.any(init.weights < 0) or np.any(np.abs(init.weights.sum(axis=-1) - 1) > 1e-6):
        raise ValueError("init.weights must not be negative and must sum to 1 over the components.")
    if init.covariances.shape[-2:] == (n_features, n_features) and spread != (n_features,):
        flipped = np.swapaxes(init.covariances, -1, -2)
        if np.any(np.abs(init.covariances - flipped) > 1e-6 * np.abs(init.covariances).max(initial=0)):
            raise ValueError("init.covariances must be symmetric.")
    return Mixture(
        *(np.broadcast_to(leaf, (data.n_data_sets, *shape)) for leaf, shape in zip(init, trailing, strict=True))
    )


def _key(key: Any) -> jax.Array | np.int64:
    if isinstance(key, numbers.Integral) and not isinstance(key, bool) and -(2**63) <= int(key) < 2**63:
        return np.int64(key)
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ():
        return key
    if isinstance(key, jax.Array) and key.dtype == jnp.uint32 and key.shape == (2,):
        return jax.random.wrap_key_data(key)
    raise ValueError(f"key must be an integer of 64 bits or one JAX random key; got {key!r}.")


def _empty_result(data: Batch, program: Program) -> FitResult:
    """Arrays to be filled chunk by chunk."""
    b, k, d, r = data.n_data_sets, program.n_components, data.samples.shape[1], program.n_init
    spread = (d,) if FAMILIES[program.covariance_type].diagonal else (d, d)
    return FitResult(
        mixture=Mixture(np.empty((b, k)), np.empty((b, k, d)), np.empty((b, k, *spread))),
        log_likelihood=np.empty(b),
        n_iter=np.empty(b, np.int32),
        status=np.empty(b, np.int32),
        start_log_likelihood=np.empty((b, r)),
        start_status=np.empty((b, r), np.int32),
        history=np.empty((b, program.n_history)) if program.n_history else None,
        efficiency=math.nan,
    )


def _store(fits: ChunkFits, data_sets: np.ndarray, result: FitResult) -> None:
    """Copies a chunk's rows to their places."""

    def store(rows: np.ndarray, new: np.ndarray) -> None:
        rows[data_sets] = new[: len(data_sets)]

    # A program may have had room for more components.
    n_components = result.mixture.weights.shape[1]
    fits = fits._replace(mixture=Mixture(*(leaf[:, :n_components] for leaf in fits.mixture)))
    for name in set(FitResult._fields) & set(ChunkFits._fields):
        jax.tree.map(store, getattr(result, name), getattr(fits, name))


def _without_batch_axis(result: FitResult) -> FitResult:
    return jax.tree.map(lambda leaf: leaf[0] if isinstance(leaf, np.ndarray) else leaf, result)
