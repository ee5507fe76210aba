"""fit_groups(): a mixture for every group of a data frame."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import narwhals as nw
import numpy as np
import pyarrow as pa

from jaxgmm.fit_result import FitResult
from jaxgmm.fitting import fit
from jaxgmm.flagging import flags
from jaxgmm.frames.columns import native
from jaxgmm.frames.group_fits import GroupFits
from jaxgmm.ordering import align_components, checked_reference, in_named_order
from jaxgmm.selection.sweep_result import Sweep
from jaxgmm.selection.sweeping import sweep
from jaxgmm.settings import check_order, is_integer
from jaxgmm.tables.frame import arrow, selected
from jaxgmm.tables.groups import Groups, check_name, group, names_in
from jaxgmm.tables.tabular import check_output_columns, chosen_columns, components_table, fits_table, models_table
from jaxgmm.tables.unchanged import checksums
from jaxgmm.tables.wording import remedy

# Options that have other names here than in scikit-learn, or than they have in words.
_MEANT = {"random_state": "key", "init_params": "init", "means_init": "init", "n_starts": "n_init", "starts": "n_init"}


def fit_groups(
    df: Any,
    by: str | Sequence[str],
    features: str | Sequence[str],
    n_components: int | Iterable[int],
    *,
    weights: str | None = None,
    dropna: bool = True,
    order_by: str = "mean",
    align_to: Any = None,
    **options: Any,
) -> GroupFits:
    """Fits a mixture to every group of a data frame.

    Groups are sorted by key, column after column, nulls last; categories are sorted as texts.

    Args:
        df: a pandas or Polars DataFrame, a PyArrow Table, or another eager frame that Narwhals knows; one sample in
            each row. An index is ignored, and so are columns that are not named below, whatever their names. Sparse
            columns are densified.
        by: the columns that make a group's key: texts, numbers, dates, booleans or categories.
        features: the D numeric columns to fit. Where one is null, the group's status is `NONFINITE`.
        n_components: K, for `jaxgmm.fit`. Several K, families or ridges, or a criterion, request a choice among models
            by `jaxgmm.sweep`.
        weights: a column of sample weights, not negative.
        dropna: leave out rows where a key is null, as pandas does. False makes null a key like any other. NaN counts as
            null where it does for the frame: in pandas, but not in Polars and PyArrow.
        order_by: the order of components, the same in every group: `"mean"`, the smallest mean of the first feature
            first; a feature, whose mean counts instead; `"weight"`, the largest first; or `"start"`, as EM's start
            happened to number them. These three come before features of the same names.
        align_to: one mixture, or the fit of one data set, with the same features: components get the numbers of those
            they match; see `jaxgmm.align_components`. It replaces `order_by`.
        **options: of `jaxgmm.fit` or `jaxgmm.sweep`.

    Returns:
        tables with a row for each group, each component and each model, and the arrays behind them.

    Raises:
        ValueError: not a frame or a lazy one, columns that are missing or of the wrong type, no rows, or wrong options.

    Example:
        >>> import pandas as pd
        >>> from jaxgmm.frames import fit_groups
        >>> df = pd.DataFrame({"cell": ["b"] * 4 + ["a"] * 4, "red": [1.0, 2.0, 3.0, 4.0, 6.0, 7.0, 8.0, None]})
        >>> fit_groups(df, "cell", "red", 1).fits[["cell", "n_samples", "status"]]
          cell  n_samples     status
        0    a          4  NONFINITE
        1    b          4  CONVERGED
    """
    by, features = [] if by is None else names_in("by", by), names_in("features", features)
    if not by:
        raise ValueError("no key column is named; for one mixture of all rows, use jaxgmm.fit(df[features], …).")
    check_name("weights", weights)
    check_order(order_by, features)
    reference = None if align_to is None else checked_reference(align_to, len(features), "align_to")
    frame = selected(df, by, features, weights)
    criteria = _criteria(n_components, options)
    call = sweep if criteria else fit
    unknown = [name for name in options if name not in inspect.signature(call).parameters]
    if unknown:
        raise ValueError(
            f"{unknown[0]!r} is not an option of jaxgmm.{call.__name__}, which fits these groups; "
            f"{_remedy(unknown[0], _options_of(call))}"
        )
    for criterion in criteria or [None]:
        check_output_columns(by, features, criterion)
    if "sample_weight" in options:
        raise ValueError("fit_groups takes sample weights from a column; name it as weights.")
    if dropna and len(frame):
        frame = frame.drop_nulls(subset=by)
        if len(frame) == 0:
            raise ValueError("every row has a null in its key; pass dropna=False to make null a key like any other.")
    groups = group(arrow(frame), by, features, weights)
    # With one number and no criterion there is no choice, and this is `fit`.
    fitted: FitResult | Sweep = call(groups.x, n_components, sample_weight=groups.sample_weight, **options)  # pyright: ignore[reportArgumentType]
    fitted = in_named_order(fitted, order_by, features) if reference is None else align_components(fitted, reference)
    # Keys are rows of the frame itself, so that they keep the type they have there.
    keys = frame.select(nw.col(by))[groups.rows[groups.offsets[:-1]], :]
    tables = _tables(fitted, groups, features, criteria)
    fits, components, models = (None if table is None else native(keys, table) for table in tables)
    result, swept = (fitted.best, fitted) if isinstance(fitted, Sweep) else (fitted, None)
    named = tuple(by), tuple(features), weights
    return GroupFits(fits, components, models, result, swept, *named, df, checksums(groups))


def _tables(
    fitted: FitResult | Sweep, groups: Groups, features: list[str], criteria: list[str]
) -> tuple[pa.Table, pa.Table, pa.Table | None]:
    """Fits, components and models, with the number of the group in place of its key."""
    n_groups, found = len(groups.n_samples), flags(fitted)
    numbers = pa.table({"group": np.arange(n_groups)})
    groups = groups._replace(keys=numbers)
    if not isinstance(fitted, Sweep):
        return fits_table(groups, fitted, features, found), components_table(numbers, fitted, features, found), None
    chosen = chosen_columns(fitted.table, n_groups, criteria[0])
    fits = fits_table(groups, fitted.best, features, found, chosen)
    components = components_table(numbers, fitted.best, features, found)
    return fits, components, models_table(numbers, fitted.table, found)


def _options_of(call: Callable[..., Any]) -> list[str]:
    """The options of `fit_groups` and of the call that fits the groups, without those that columns stand for."""
    names = [*inspect.signature(fit_groups).parameters, *inspect.signature(call).parameters]
    return [name for name in dict.fromkeys(names) if name not in ("df", "x", "sample_weight", "options")]


def _remedy(name: str, known: Iterable[str]) -> str:
    """What to write instead of an option that does not exist."""
    return remedy(_MEANT.get(name, name), known, "leave it out.")


def _criteria(n_components: Any, options: dict[str, Any]) -> list[str]:
    """The criteria by which models are compared, of which the first chooses; empty if there is only one model."""
    families, ridges = options.get("covariance_type", "full"), options.get("reg_covar", 0.0)
    is_one = is_integer(n_components) and isinstance(families, str) and not isinstance(ridges, Iterable)
    return [] if is_one and "criterion" not in options else _several(options.get("criterion", "bic")) or ["bic"]


def _several(values: Any) -> list[str]:
    """Names as a list; `jaxgmm.sweep` checks them."""
    return list(map(str, values)) if isinstance(values, Iterable) and not isinstance(values, str) else [str(values)]
