"""What `sweep` returns."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxgmm.fit_result import FitResult, lasted, numbers_of, remarks
from jaxgmm.record import Block, Record, counted, record, rows_within, shown, statuses, written
from jaxgmm.selection.criteria import CRITERIA


@record
class Sweep(Record):
    """All fits of B data sets, and the choice among them.

    Attributes:
        table: columns of equal length, one row for every data set, K, family and ridge, in this order: `data_set`,
            `n_components`, `covariance_type`, `reg_covar`, `n_samples` (or the sum of the sample weights),
            `n_parameters`, `log_likelihood` (total nats), a column for each criterion, `gap` (see `FitResult`),
            `n_iter`, `status` (names), `spurious` and `ridge_dominated` (numbers of such components; see `FitResult`),
            `n_agreeing` (number of starts that reached the log-likelihood of the best, to within 1e-3 nats per sample),
            `start_passed_over` (whether a start with spurious components, or a degenerate one, had a higher
            log-likelihood than the one chosen), `passed_over` (whether this model has a lower criterion than the chosen
            one, but only because of spurious components or a degenerate end), `chosen`, `at_largest_k` (whether it is
            chosen, and K is the largest of several that were tried).
        best: the chosen fit of every data set, with room for the largest K: absent components have weight 0, mean 0 and
            unit variances. Covariances are matrices, unless all families are axis-aligned.
        notes: notes on the choice, a sentence each: that K was at its limit, that ridges were not compared,
            that weights are not counts, or that a criterion is infinite.
    """

    table: dict[str, np.ndarray]
    best: FitResult
    notes: tuple[str, ...] = ()

    @property
    def chosen(self) -> dict[str, np.ndarray]:
        """The rows of the table that were chosen: one for each data set that has an answer."""
        return self._table_at(self.table["chosen"])

    def of(self, index: Any) -> "Sweep":
        """The sweep of one data set, given its number, or of several: a slice, a mask or an array of integers.

        They are numbered anew, from 0. Notes are about the whole, and are left out.

        Raises:
            ValueError: this is of one data set already, or the index is none of these.
            IndexError: there is no such data set.
        """
        rows = self._rows(index)
        chosen = np.atleast_1d(np.arange(len(self))[rows])
        # Rows of the table are in the order of the data sets.
        counts = np.bincount(self.table["data_set"], minlength=len(self))
        table = self._table_at(rows_within(counts, chosen))
        table["data_set"] = np.repeat(np.arange(len(chosen)), counts[chosen])
        return Sweep(table, self.best.of(rows))

    def _table_at(self, which: np.ndarray) -> dict[str, np.ndarray]:
        return {name: column[which] for name, column in self.table.items()}

    @property
    def _batch(self) -> tuple[int, ...]:
        return self.best._batch

    def _described(self) -> tuple[str, list[Block]]:
        n_models = f"{counted(len(self.table['data_set']), 'model')}, D = {self.best.mixture.n_features}"
        notes = [written(self.notes)] if self.notes else []
        if not self._batch:
            rows = lasted(self.best)
            return f"Sweep: {n_models}", [_described_models(self.table), *([Block(rows)] if rows else []), *notes]
        rows = [*numbers_of(self.best), *remarks(self.best, within=".best")]
        title = f"Sweep: {counted(len(self), 'data set')}, {n_models}"
        return title, [
            chosen_models(self.chosen),
            statuses(self.best.status, "data set"),
            Block(rows, is_kept=True),
            *notes,
        ]


def chosen_models(chosen: Mapping[str, np.ndarray], noun: str = "data set") -> Block:
    """How many data sets, or groups, each model was chosen for."""
    texts = [
        f"K = {int(k)}, {family}" for k, family in zip(chosen["n_components"], chosen["covariance_type"], strict=True)
    ]
    found, first, counts = np.unique(texts, return_index=True, return_counts=True)
    order = np.lexsort((found, chosen["n_components"][first])) if len(found) else []
    return shown([[str(found[i]), f"chosen for {counted(counts[i], noun)}"] for i in order])


def _described_models(table: Mapping[str, np.ndarray]) -> Block:
    """The models of one data set, those that the criterion prefers first."""
    criteria = [name for name in table if name in CRITERIA]
    preferred = np.lexsort((table[criteria[0]], ~table["chosen"]))
    # Successive K are tested, so the order of p-values means nothing.
    if CRITERIA[criteria[0]].is_test:
        preferred = np.lexsort((table["n_components"], ~table["chosen"]))
    ridges = ("ridge",) if len(np.unique(table["reg_covar"])) > 1 else ()
    names = ("K", "family", *ridges, *criteria, "status", "spurious", "")
    columns = [
        map(str, table["n_components"]),
        map(str, table["covariance_type"]),
        *([f"{ridge:g}" for ridge in table["reg_covar"]] for _ in ridges),
        *([f"{value:,.8g}" for value in table[name]] for name in criteria),
        map(str, table["status"]),
        map(str, table["spurious"]),
        np.where(table["chosen"], "chosen", "").tolist(),
    ]
    rows = list(zip(*columns, strict=True))
    return shown([rows[i] for i in preferred], names)
