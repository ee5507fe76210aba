"""Fits as tables, for people and for files, and back.

The tables have one row for every group, for every component, or for every model tried.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int

# Results are reached through the package: importing this module does not import JAX.
import jaxgmm
from jaxgmm.doubts import combined, component_flags, model_flags
from jaxgmm.status import Status
from jaxgmm.tables.groups import Groups, check_once, taken
from jaxgmm.tables.survey import Survey

_FLAWS = ("spurious", "ridge_dominated", "start_passed_over")
_FITS = ("n_samples", "log_likelihood", "gap", "n_iter", *_FLAWS, "flags", "status", "explanation")
_CHOSEN = ("n_components", "covariance_type", "at_largest_k")
_MODELS = ("reg_covar", "n_samples", "n_parameters", "log_likelihood", "gap", "n_iter", "status", *_FLAWS, "n_agreeing")
_MODELS += ("passed_over", "chosen", "flags")


def fits_table(
    groups: Groups | Survey,
    result: "jaxgmm.FitResult",
    features: Sequence[str],
    flags: Mapping[str, np.ndarray],
    chosen: dict[str, pa.Array] | None = None,
) -> pa.Table:
    """One row for every group: its key, size, log-likelihood (nats), iterations, status, and the status explained.

    Args:
        groups: B groups, with their samples; or a table that is read in passes.
        result: fits of the same groups, in the same order.
        features: names of the D features.
        flags: `(B,)` for each reason to distrust them, as `jaxgmm.flags` returns them.
        chosen: columns with the choice for each group.

    Returns:
        the key columns, then `n_samples`, the columns `chosen`, `log_likelihood` (null where there is no answer),
        `gap` (nats per sample that were left to gain), `n_iter`, `spurious` and `ridge_dominated` (numbers of such
        components; see `jaxgmm.FitResult`), `start_passed_over`, `flags` (names of the reasons), `status` (a name) and
        `explanation` (its sentence, and how many samples hold NaN or infinity, or which features are constant, where
        that is the reason).
    """
    status = result.status.astype(np.int32)
    columns = {
        "n_samples": pa.array(groups.n_samples.astype(np.int64)),
        **(chosen or {}),
        "log_likelihood": pa.array(result.log_likelihood, from_pandas=True),
        "gap": pa.array(result.gap, from_pandas=True),
        "n_iter": pa.array(result.n_iter.astype(np.int32)),
        "spurious": pa.array(result.spurious.astype(np.int32)),
        "ridge_dominated": pa.array(result.ridge_dominated.astype(np.int32)),
        "start_passed_over": pa.array(result.start_passed_over),
        "flags": _flags(flags),
        "status": _named(status, [code.name for code in Status]),
        "explanation": _explained(status, groups, features),
    }
    return _beside(groups.keys, columns)


def components_table(
    keys: pa.Table, result: "jaxgmm.FitResult", features: Sequence[str], flags: Mapping[str, np.ndarray]
) -> pa.Table:
    """One row for every component, except absent ones, of every group.

    Args:
        keys: one row for each of B groups.
        result: fits of the same groups, in the same order; components of weight 0 are absent.
        features: names of the D features.
        flags: `(B,)` for each reason to distrust them, as `jaxgmm.flags` returns them.

    Returns:
        the key columns, then `component` (numbered from 0), `weight`, `mean_f` for every feature f in data units, and
        in squared data units `variance_f`, or the lower triangle of the covariance matrix as `covariance_f_g`, f not
        before g, null where a fit has no answer; and `flags`, those of the fit that may concern the component (see
        `jaxgmm.doubts.component_flags`).
    """
    n_groups, n_components = result.mixture.weights.shape
    means, covariances = result.mixture.means, result.mixture.covariances
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
    table["flags"] = _flags({name: own.ravel()[present] for name, own in component_flags(result, flags).items()})
    return _beside(taken(keys, group), table)


def label_columns(n_components: int, *, probabilities: bool) -> list[str]:
    """The columns of labels of rows; `probabilities` asks for those of all components."""
    of_all = of_components(n_components) if probabilities else []
    return ["component", "probability", "log_density", "p_value", *of_all]


def of_components(n_components: int) -> list[str]:
    """The columns of the probabilities of all components."""
    return [f"probability_{k}" for k in range(n_components)]


def mixture_of(components: pa.Table, n_groups: int, features: Sequence[str]) -> "jaxgmm.Mixture":
    """The mixtures of all groups from the table of their components: the inverse of `components_table`.

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
    is_diagonal = f"covariance_{features[0]}_{features[0]}" not in components.column_names

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
    return jaxgmm.Mixture(weights, means, covariances)


def models_table(keys: pa.Table, table: dict[str, np.ndarray], flags: Mapping[str, np.ndarray]) -> pa.Table:
    """One row for every model fitted to every group: the table of a sweep, with the groups' keys.

    Args:
        keys: one row for each of B groups.
        table: `jaxgmm.Sweep.table` of the same groups.
        flags: `(B,)` for each reason to distrust the fits, as `jaxgmm.flags` returns them.

    Returns:
        the key columns, then those of the table but for `data_set`, null for NaN; and `flags`: those of the fit for the
        model that was chosen, and for others those that the row shows (see `jaxgmm.doubts.model_flags`).
    """
    columns = {name: pa.array(values, from_pandas=True) for name, values in table.items() if name != "data_set"}
    columns["flags"] = _flags(model_flags(table, flags))
    return _beside(taken(keys, table["data_set"]), columns)


def chosen_columns(table: dict[str, np.ndarray], n_groups: int, criterion: str) -> dict[str, pa.Array]:
    """The choice for each group: K, whether it is the largest tried, family and criterion; null without a choice."""
    rows = np.full(n_groups, -1)
    chosen = np.flatnonzero(table["chosen"])
    rows[table["data_set"][chosen]] = chosen
    index = pa.array(rows, mask=rows < 0)
    return {name: pa.array(table[name]).take(index) for name in (*_CHOSEN, criterion)}


def check_output_columns(by: Sequence[str], features: Sequence[str], criterion: str | None = None) -> None:
    """Checks that no two columns of an output table would have the same name; `criterion` if models are chosen.

    Raises:
        ValueError: two would, or a key or feature is named twice.
    """
    check_once(by, features)
    # Both kinds of parameters are reserved: their names tell which kind a table holds when it is read back.
    kinds = [("component", *_parameter_columns(features, diagonal=diagonal), "flags") for diagonal in (False, True)]
    tables = [_FITS, *kinds]
    if criterion is not None:
        tables = [(*_FITS, *_CHOSEN, criterion), *kinds, (*_MODELS, *_CHOSEN, criterion)]
    for names in tables:
        twice = [name for name, count in Counter([*by, *names]).items() if count > 1]
        if twice:
            raise ValueError(f"two columns of the output would be called {twice[0]!r}; rename a column of the input.")


def _parameter_columns(features: Sequence[str], *, diagonal: bool) -> list[str]:
    means = [f"mean_{f}" for f in features]
    if diagonal:
        return ["weight", *means, *(f"variance_{f}" for f in features)]
    return ["weight", *means, *(f"covariance_{f}_{g}" for i, f in enumerate(features) for g in features[: i + 1])]


def _named(codes: Int[np.ndarray, " b"], names: Sequence[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(names)).dictionary_decode()


def _flags(flags: Mapping[str, np.ndarray]) -> pa.Array:
    """Names of the flags of each row, separated by commas."""
    return _named(*combined(flags))


def _explained(status: Int[np.ndarray, " b"], groups: Groups | Survey, features: Sequence[str]) -> pa.Array:
    """A sentence for each group's status, and what of its samples is the reason: NaN, or features that are constant."""

    def unusable(rows: np.ndarray) -> list[str]:
        pairs = zip(groups.n_unusable[rows].tolist(), groups.n_samples[rows].tolist(), strict=True)
        return [f"{n:,} of {n_samples:,} samples" for n, n_samples in pairs]

    def constant(rows: np.ndarray) -> list[str]:
        return [", ".join(compress(features, groups.constant(b))) for b in rows.tolist()]

    sentences, number = [code.sentence for code in Status], status.copy()
    for code, details in ((Status.NONFINITE, unusable), (Status.DEGENERATE, constant)):
        rows = np.flatnonzero(status == code)
        if not len(rows):
            continue
        found, of_found = np.unique(np.array(details(rows), object), return_inverse=True)
        number[rows] = len(sentences) + of_found
        sentences += [code.sentence[:-1] + (f" ({detail})." if detail else ".") for detail in found.tolist()]
    return _named(number, sentences)


def _beside(keys: pa.Table, columns: dict[str, pa.Array]) -> pa.Table:
    """The key columns and further columns as one table."""
    for name, values in columns.items():
        keys = keys.append_column(name, values)
    return keys
