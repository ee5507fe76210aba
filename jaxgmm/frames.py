"""Tables of many groups: rows to data sets, and fits back to tables.

Groups are sorted by their keys, column after column, nulls last; within a group, rows keep their order. Rows whose key
is null form a group of their own. No step here loops over rows or groups in Python.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Int

from jaxgmm.em.covariance import FAMILIES
from jaxgmm.fit import FitResult
from jaxgmm.mixture import Mixture
from jaxgmm.status import Status

_FITS = ("n_samples", "log_likelihood", "n_iter", "spurious", "status", "explanation")
_CHOSEN = ("n_components", "covariance_type")
_MODELS = ("reg_covar", "n_samples", "n_parameters", "log_likelihood", "n_iter", "status", "spurious", "n_agreeing")
_MODELS += ("start_passed_over", "passed_over", "chosen")


class Groups(NamedTuple):
    """The rows of a table, group after group.

    Attributes:
        keys: one row for each of B groups, the columns grouped by.
        samples: `(M, D)`, the features of all rows; NaN where the table holds null.
        weights: `(M,)`, the samples' weights, or None.
        offsets: `(B + 1,)`; group `b` is rows `offsets[b]` to `offsets[b + 1]`.
    """

    keys: pa.Table
    samples: Float[np.ndarray, "m d"]
    weights: Float[np.ndarray, " m"] | None
    offsets: Int[np.ndarray, " boundaries"]

    @property
    def n_samples(self) -> Int[np.ndarray, " b"]:
        """`(B,)`, the size of every group."""
        return np.diff(self.offsets)

    @property
    def x(self) -> list[np.ndarray]:
        """The groups' samples, `(N_b, D)` each, as `jaxgmm.fit` takes them. Views, no copies."""
        return np.split(self.samples, self.offsets[1:-1])

    @property
    def sample_weight(self) -> list[np.ndarray] | None:
        """The groups' weights, `(N_b,)` each, as `jaxgmm.fit` takes them, or None."""
        return None if self.weights is None else np.split(self.weights, self.offsets[1:-1])


def group(table: pa.Table, by: Sequence[str], features: Sequence[str], weights: str | None = None) -> Groups:
    """Groups the rows of a table.

    Args:
        table: with the columns named below; others are ignored.
        by: the columns that make a group's key, at least one; text, numbers, dates or truth values.
        features: the columns of numbers to be fitted. Nulls become NaN, which `jaxgmm.fit` answers with a status.
        weights: a column of sample weights, not negative.

    Returns:
        the groups, sorted by key.

    Raises:
        ValueError: no rows, a column named twice, one that is missing or of the wrong type, or a negative weight.

    Example:
        >>> import pyarrow as pa
        >>> table = pa.table({"cell": ["b", "a", "b"], "red": [1, 2, 3]})
        >>> groups = group(table, ["cell"], ["red"])
        >>> groups.keys["cell"].to_pylist(), groups.n_samples.tolist()
        (['a', 'b'], [1, 2])
    """
    check_named(by, features)
    _check_holds(table, [*by, *features, *([] if weights is None else [weights])])
    columns = [numbers(table[name], name) for name in features]
    sample_weight = None if weights is None else checked_weights(table[weights], weights)
    codes = key_codes(table, by)
    order = np.argsort(codes, kind="stable")
    sorted_codes = codes[order]
    offsets = np.flatnonzero(np.concatenate([[True], sorted_codes[1:] != sorted_codes[:-1], [True]]))
    return Groups(
        keys=table.select(list(by)).take(order[offsets[:-1]]),
        samples=np.stack([column[order] for column in columns], axis=1),
        weights=None if sample_weight is None else sample_weight[order],
        offsets=offsets,
    )


def fits_table(
    keys: pa.Table, n_samples: Int[np.ndarray, " b"], result: FitResult, chosen: dict[str, pa.Array] | None = None
) -> pa.Table:
    """One row for every group: its key, size, log-likelihood (nats), iterations, status, and the status explained.

    Args:
        keys: one row for each of B groups.
        n_samples: `(B,)`, the groups' sizes.
        result: fits of the same groups, in the same order.
        chosen: columns that say what was chosen for each group.

    Returns:
        the key columns, then `n_samples`, what was `chosen`, `log_likelihood` (null where there is no answer),
        `n_iter`, `spurious` (components that are spikes), `status` (a name) and `explanation` (its sentence).
    """
    status = result.status.astype(np.int32)
    columns = {
        "n_samples": pa.array(n_samples.astype(np.int64)),
        **(chosen or {}),
        "log_likelihood": pa.array(result.log_likelihood, from_pandas=True),
        "n_iter": pa.array(result.n_iter.astype(np.int32)),
        "spurious": pa.array(result.spurious.astype(np.int32)),
        "status": _named(status, [code.name for code in Status]),
        "explanation": _named(status, [code.sentence for code in Status]),
    }
    return _beside(keys, columns)


def components_table(keys: pa.Table, result: FitResult, features: Sequence[str]) -> pa.Table:
    """One row for every component of every group that is not absent.

    Args:
        keys: one row for each of B groups.
        result: fits of the same groups, in the same order; components of weight 0 are absent.
        features: names of the D features.

    Returns:
        the key columns, then `component` (numbered from 0), and the columns that `component_columns` names: the
        weight, means in data units and covariance entries in squared data units. Null where a fit has no answer.
    """
    n_groups, n_components = result.mixture.weights.shape
    _, means, covariances = result.mixture
    if not result.mixture.is_diagonal:
        rows, columns = np.tril_indices(len(features))
        covariances = covariances[:, :, rows, columns]
    present = np.flatnonzero(result.mixture.weights != 0)
    numbers = [result.mixture.weights[..., None], means, covariances]
    values = [np.asarray(part).reshape(n_groups * n_components, -1)[present] for part in numbers]
    names = _parameter_columns(features, diagonal=result.mixture.is_diagonal)
    group, component = np.divmod(present, n_components)
    table = {"component": pa.array(component.astype(np.int32))}
    columns = np.concatenate(values, axis=1)
    table |= {name: pa.array(columns[:, i], from_pandas=True) for i, name in enumerate(names)}
    return _beside(keys.take(group), table)


def mixture_of(components: pa.Table, n_groups: int, features: Sequence[str]) -> Mixture:
    """The mixtures of all groups, out of the table of their components: the inverse of `components_table`.

    Args:
        components: that table.
        n_groups: B.
        features: names of the D features.

    Returns:
        weights `(B, K)` and so on, for the largest K; absent components have weight 0, mean 0 and unit variances.
    """
    component, n_features = components["component"].to_numpy(), len(features)
    group = np.cumsum(component == 0) - 1
    n_components = int(component.max()) + 1
    is_diagonal = f"variance_{features[0]}" in components.column_names

    def filled(leaf: np.ndarray, *place: Any, name: str) -> None:
        leaf[(group, component, *place)] = components[name].to_numpy()

    weights, means = np.zeros((n_groups, n_components)), np.zeros((n_groups, n_components, n_features))
    unit = np.ones(n_features) if is_diagonal else np.eye(n_features)
    covariances = np.tile(unit, (n_groups, n_components, *[1] * unit.ndim))
    filled(weights, name="weight")
    for i, f in enumerate(features):
        filled(means, i, name=f"mean_{f}")
        if is_diagonal:
            filled(covariances, i, name=f"variance_{f}")
        else:
            for j, g in enumerate(features[: i + 1]):
                filled(covariances, i, j, name=f"covariance_{f}_{g}")
                filled(covariances, j, i, name=f"covariance_{f}_{g}")
    return Mixture(weights, means, covariances)


def models_table(keys: pa.Table, table: dict[str, np.ndarray]) -> pa.Table:
    """One row for every model fitted to every group: the table of a sweep, with the groups' keys.

    Args:
        keys: one row for each of B groups.
        table: `jaxgmm.Sweep.table` of the same groups.

    Returns:
        the key columns, then those of the table but for `data_set`; null for NaN.
    """
    columns = {name: pa.array(values, from_pandas=True) for name, values in table.items() if name != "data_set"}
    return _beside(keys.take(table["data_set"]), columns)


def chosen_columns(table: dict[str, np.ndarray], n_groups: int, criterion: str) -> dict[str, pa.Array]:
    """What was chosen for each group: K, family, and the criterion; null where nothing was."""
    rows = np.full(n_groups, -1)
    chosen = np.flatnonzero(table["chosen"])
    rows[table["data_set"][chosen]] = chosen
    index = pa.array(rows, mask=rows < 0)
    return {name: pa.array(table[name]).take(index) for name in (*_CHOSEN, criterion)}


def component_columns(features: Sequence[str], covariance_type: str) -> list[str]:
    """Names of a component's parameters in a table.

    Returns:
        `weight`; `mean_f` for every feature f; then, for `"full"` and `"tied"`, the lower triangle with its diagonal as
        `covariance_f_g`, f not before g; or, for `"diag"` and `"spherical"`, `variance_f`.

    Example:
        >>> component_columns(["red", "blue"], "full")[3:]
        ['covariance_red_red', 'covariance_blue_red', 'covariance_blue_blue']
    """
    return _parameter_columns(features, diagonal=FAMILIES[covariance_type].diagonal)


def check_output_columns(
    by: Sequence[str], features: Sequence[str], families: Sequence[str], criterion: str | None = None
) -> None:
    """Makes sure that no two columns of an output table would have one name; `criterion` where models are chosen.

    Raises:
        ValueError: two would.
    """
    diagonal = all(FAMILIES[family].diagonal for family in families if family in FAMILIES)
    tables = [_FITS, ("component", *_parameter_columns(features, diagonal=diagonal))]
    if criterion is not None:
        tables = [(*_FITS, *_CHOSEN, criterion), tables[1], (*_MODELS, *_CHOSEN, criterion)]
    for names in tables:
        twice = [name for name, count in Counter([*by, *names]).items() if count > 1]
        if twice:
            raise ValueError(f"two columns of the output would be called {twice[0]!r}; rename a column of the input.")


def _parameter_columns(features: Sequence[str], *, diagonal: bool) -> list[str]:
    means = [f"mean_{f}" for f in features]
    if diagonal:
        return ["weight", *means, *(f"variance_{f}" for f in features)]
    return ["weight", *means, *(f"covariance_{f}_{g}" for i, f in enumerate(features) for g in features[: i + 1])]


def check_named(by: Sequence[str], features: Sequence[str]) -> None:
    """Raises ValueError unless there are keys and features, and all of them different."""
    for role, names in (("key", by), ("feature", features)):
        if not names:
            raise ValueError(f"no {role} column is named; name at least one.")
    twice = [name for name, count in Counter([*by, *features]).items() if count > 1]
    if twice:
        raise ValueError(f"column {twice[0]!r} is named twice; name each key and each feature once.")


def _check_holds(table: pa.Table, names: Sequence[str]) -> None:
    for name in names:
        if name not in table.column_names:
            raise ValueError(f"the table has no column {name!r}; its columns are {', '.join(table.column_names)}.")
    if table.num_rows == 0:
        raise ValueError("the table is empty; it needs at least one row.")


def numbers(column: pa.ChunkedArray, name: str) -> Float[np.ndarray, " m"]:
    """A column as float64, null as NaN. Raises ValueError where it holds anything else."""
    column = _decoded(column)
    kind = column.type
    # A column of nothing but nulls has no type of its own.
    known = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null)
    if not any(is_kind(kind) for is_kind in known):
        raise ValueError(f"column {name!r} holds {kind}, not numbers; convert it, or leave it out.")
    # A copy, as Arrow's memory is read-only.
    return np.array(column.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)


def checked_weights(column: pa.ChunkedArray, name: str) -> Float[np.ndarray, " m"]:
    """Sample weights as float64. Raises ValueError if one is negative."""
    weights = numbers(column, name)
    if np.any(weights < 0):
        raise ValueError(
            f"weights must not be negative; column {name!r} holds {np.nanmin(weights)}. "
            "Give rows to be left out weight 0."
        )
    return weights


def key_codes(table: pa.Table, by: Sequence[str]) -> Int[np.ndarray, " m"]:
    """An integer for every row, equal for equal keys and in the order of the keys."""
    codes = np.zeros(table.num_rows, dtype=np.int64)
    for name in by:
        ranks, n_values = _ranks(table[name], name)
        # Renumbered after every column, so that the product stays below the square of the number of rows.
        codes = np.unique(codes * n_values + ranks, return_inverse=True)[1]
    return codes


def _ranks(column: pa.ChunkedArray, name: str) -> tuple[Int[np.ndarray, " m"], int]:
    """The rank of every row's value among the column's distinct values, null last; and how many values there are."""
    try:
        encoded = _decoded(column).combine_chunks().dictionary_encode(null_encoding="encode")
        values, indices = encoded.dictionary, encoded.indices
        in_order = np.zeros(1, np.int64)
        if not pa.types.is_null(values.type):
            # Arrow makes its compute functions at import, where a type checker does not see them.
            in_order = pc.sort_indices(values).to_numpy()  # pyright: ignore[reportAttributeAccessIssue]
    except pa.ArrowNotImplementedError:
        raise ValueError(f"column {name!r} holds {column.type}, which cannot be a key; convert it to text.") from None
    rank_of = np.empty(len(values), dtype=np.int64)
    rank_of[in_order] = np.arange(len(values))
    return rank_of[indices.to_numpy(zero_copy_only=False)], len(values)


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A dictionary-encoded column (a categorical) as the values it stands for."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _named(codes: Int[np.ndarray, " b"], names: Sequence[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(names)).dictionary_decode()


def _beside(keys: pa.Table, columns: dict[str, pa.Array]) -> pa.Table:
    """The key columns and further ones, as one table."""
    for name, values in columns.items():
        keys = keys.append_column(name, values)
    return keys
