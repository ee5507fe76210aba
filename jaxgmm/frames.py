"""fit_groups(): a mixture for every group of a data frame.

pandas, Polars and PyArrow tables are read through Narwhals, and the results are tables of the same kind.
"""

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jaxgmm.driver.arguments import is_integer
from jaxgmm.fit_result import FitResult, remarks
from jaxgmm.fitting import fit
from jaxgmm.record import Block, Record, counted, record, rows_within, span, statuses
from jaxgmm.selection.sweep_result import chosen_models
from jaxgmm.selection.sweeping import sweep
from jaxgmm.tables.wording import quoted, remedy, shortened

try:
    import narwhals as nw
    import pyarrow as pa

    from jaxgmm.tables.groups import check_named, group, plain
    from jaxgmm.tables.tabular import check_output_columns, chosen_columns, components_table, fits_table, models_table
except ImportError as missing:
    raise ImportError(f"jaxgmm.frames needs more packages ({missing}): pip install 'jaxgmm[frames]'.") from None


# Options of scikit-learn that have other names here.
_OF_SCIKIT_LEARN = {"random_state": "key", "init_params": "init", "means_init": "init"}


@record
class GroupFits(Record):
    """Fits of B groups: tables of the same kind as the input frame, and arrays.

    Attributes:
        fits: a row for each group, sorted by key: the key columns, `n_samples`, the choice if there was one
            (`n_components`, `covariance_type`, `at_largest_k`, whether no larger K was tried, and the criterion),
            `log_likelihood` (nats), `n_iter`, `spurious` and `ridge_dominated` (numbers of such components; see
            `jaxgmm.FitResult`), `start_passed_over`, `status`, and `explanation`, a sentence that says what the status
            means.
        components: a row for each component of each group: the key columns, `component` (from 0), `weight`, `mean_F`
            for every feature F, and `variance_F` (families `"diag"` and `"spherical"` only) or the lower triangle of
            the covariance matrix: `covariance_F_F`, and `covariance_G_F` where F is named before G.
        models: a row for each model fitted to each group, as in `jaxgmm.Sweep.table`; None where there was no choice.
        result: the fits of the groups, or the chosen ones, in the order of `fits`.
        notes: notes on the choice, one sentence each, as in `jaxgmm.Sweep`.
    """

    fits: Any
    components: Any
    models: Any
    result: FitResult
    notes: tuple[str, ...] = ()

    def of(self, index: Any) -> "GroupFits":
        """The fits of one group, given its row of `fits`, or of several: a slice, a mask or an array of integers.

        Notes are about the whole, and are left out.

        Raises:
            ValueError: these are the fits of one group already, or the index is none of these.
            IndexError: there is no such group.
        """
        rows = self._rows(index)
        chosen = np.atleast_1d(np.arange(len(self))[rows])
        components = np.sum(self.result.mixture.weights != 0, axis=-1)
        models = None if self.models is None else _part(self.models, _models_of_each(self.models), chosen)
        fits = _part(self.fits, np.ones(len(self), int), chosen)
        return GroupFits(fits, _part(self.components, components, chosen), models, self.result.of(rows))

    @property
    def _batch(self) -> tuple[int, ...]:
        return self.result._batch

    def _described(self) -> tuple[str, list[Block]]:
        n_groups = len(self) if self._batch else 1
        of = f"{counted(n_groups, 'group')}, D = {self.result.mixture.n_features}"
        fits = nw.from_native(self.fits, eager_only=True)
        blocks = []
        if self.models is not None:
            names = ("n_components", "covariance_type")
            answered = fits.filter(~nw.col(names[0]).is_null())
            blocks.append(chosen_models({name: answered[name].to_numpy() for name in names}, "group"))
        rows = [["log-likelihood", span(self.result.log_likelihood)], *remarks(self.result, "group")]
        blocks += [statuses(self.result.status, "group"), Block(rows)]
        tables = ", ".join(f".{name}" for name in ("fits", "components", "models") if getattr(self, name) is not None)
        blocks.append(Block([[f"tables: {tables}"], *([note] for note in self.notes)]))
        return f"GroupFits: {of}", blocks


def fit_groups(
    df: Any,
    by: str | Sequence[str],
    features: str | Sequence[str],
    n_components: int | Iterable[int],
    *,
    weights: str | None = None,
    dropna: bool = True,
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
    by, features = _names("by", by), _names("features", features)
    if not isinstance(weights, str | None):
        raise ValueError(f"weights must be the name of a column; got {quoted(weights)}.")
    frame = _frame(df, by, features, weights)
    criteria = _criteria(n_components, options)
    call = sweep if criteria else fit
    unknown = [name for name in options if name not in inspect.signature(call).parameters]
    if unknown:
        raise ValueError(
            f"{unknown[0]!r} is not an option of jaxgmm.{call.__name__}, which fits these groups; "
            f"{_remedy(unknown[0], inspect.signature(call).parameters)}"
        )
    for criterion in criteria or [None]:
        check_output_columns(by, features, criterion)
    if "sample_weight" in options:
        raise ValueError("fit_groups takes sample weights from a column; name it as weights.")
    if dropna and len(frame):
        frame = frame.drop_nulls(subset=by)
        if len(frame) == 0:
            raise ValueError("every row has a null in its key; pass dropna=False to make null a key like any other.")
    groups = group(_arrow(frame), by, features, weights)
    numbers = pa.table({"group": np.arange(len(groups.n_samples))})
    chosen, models, notes = None, None, ()
    if criteria:
        swept = sweep(groups.x, n_components, sample_weight=groups.sample_weight, **options)
        result, models, notes = swept.best, models_table(numbers, swept.table), swept.notes
        chosen = chosen_columns(swept.table, len(groups.n_samples), criteria[0])
    else:
        # This is one number: otherwise there would be a choice.
        result = fit(groups.x, n_components, sample_weight=groups.sample_weight, **options)  # pyright: ignore[reportArgumentType]
    fits = fits_table(numbers, groups.n_samples, result, chosen)
    components = components_table(numbers, result, features)
    # Keys are rows of the frame itself, so that they keep the type they have there.
    keys = frame.select(nw.col(by))[groups.rows[groups.offsets[:-1]], :]
    models = None if models is None else _native(keys, models)
    return GroupFits(_native(keys, fits), _native(keys, components), models, result, notes)


def _part(table: Any, counts: np.ndarray, chosen: np.ndarray) -> Any:
    """The rows of some groups in a table that has `counts` rows of each."""
    frame = nw.from_native(table, eager_only=True)
    return nw.maybe_reset_index(frame[rows_within(counts, chosen), :]).to_native()


def _models_of_each(models: Any) -> np.ndarray:
    """How many models were fitted to each group: the first of them is the same for all."""
    frame = nw.from_native(models, eager_only=True)
    columns = [frame[name].to_numpy() for name in ("n_components", "covariance_type", "reg_covar")]
    first = np.flatnonzero(np.all([column == column[0] for column in columns], axis=0))
    return np.diff(first, append=len(frame))


def _remedy(name: str, known: Iterable[str]) -> str:
    """What to write instead of an option that does not exist."""
    return remedy(_OF_SCIKIT_LEARN.get(name, name), known, "leave it out.")


def _frame(df: Any, by: list[str], features: list[str], weights: str | None) -> nw.DataFrame[Any]:
    """The named columns of a frame, wrapped by Narwhals."""
    # Weights may also be a key or a feature.
    needed = [*by, *features] if weights is None or weights in (*by, *features) else [*by, *features, weights]
    # Narwhals refuses a frame with two columns of one name, even if neither is needed.
    if nw.dependencies.is_pyarrow_table(df):
        check_named(df.column_names, by, features, weights)
        df = plain(df.select(needed))
    elif nw.dependencies.is_pandas_like_dataframe(df):
        names = list(df.columns)
        check_named(names, by, features, weights)
        df = _dense(df.iloc[:, [_place(names, name) for name in needed]])
    frame = nw.from_native(df, pass_through=True)
    if isinstance(frame, nw.LazyFrame):
        raise ValueError(f"df is a lazy frame, {type(df).__name__}; collect it first.")
    if not isinstance(frame, nw.DataFrame):
        raise ValueError(f"df must be a pandas or Polars DataFrame or a PyArrow Table; got {type(df).__name__}.")
    check_named(frame.columns, by, features, weights)
    return frame.select(nw.col(needed))


def _place(names: list[Any], name: str) -> int:
    """The position of a column; names of other types may not be comparable."""
    return next(i for i, other in enumerate(names) if isinstance(other, str) and other == name)


def _dense(df: Any) -> Any:
    """A pandas frame whose sparse columns, which Arrow does not take, are made dense."""
    sparse = [name for name, dtype in df.dtypes.items() if str(dtype).startswith("Sparse[")]
    return df.assign(**{name: df[name].sparse.to_dense() for name in sparse}) if sparse else df


def _arrow(frame: nw.DataFrame[Any]) -> pa.Table:
    try:
        return frame.to_arrow()
    except (pa.ArrowException, TypeError, OverflowError) as error:
        reason = shortened(str(error).partition("\n")[0].rstrip("."))
        raise ValueError(
            f"a column holds values of several types, or of one that Arrow lacks ({reason}); convert it to one type."
        ) from error


def _names(role: str, given: Any) -> list[str]:
    """One name or several, as a list."""
    names = [given] if isinstance(given, str) or not isinstance(given, Iterable) else list(given)
    if not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"{role} must be the name of a column, or a sequence of names; got {quoted(given)}. "
            "Rename columns whose names are not strings."
        )
    return names


def _criteria(n_components: Any, options: dict[str, Any]) -> list[str]:
    """The criteria by which models are compared, of which the first chooses; empty if there is only one model."""
    families, ridges = options.get("covariance_type", "full"), options.get("reg_covar", 0.0)
    is_one = is_integer(n_components) and isinstance(families, str) and not isinstance(ridges, Iterable)
    return [] if is_one and "criterion" not in options else _several(options.get("criterion", "bic")) or ["bic"]


def _several(values: Any) -> list[str]:
    """Names as a list; `jaxgmm.sweep` checks them."""
    return list(map(str, values)) if isinstance(values, Iterable) and not isinstance(values, str) else [str(values)]


def _native(keys: nw.DataFrame[Any], table: pa.Table) -> Any:
    """A table as the kind of frame of the keys, with its first column, row numbers of keys, replaced by the keys."""
    rows, columns = table.column(0).to_numpy(), table.remove_column(0)
    values = nw.from_arrow(columns, backend=keys.implementation)
    return nw.concat([nw.maybe_reset_index(keys[rows, :]), values], how="horizontal").to_native()
