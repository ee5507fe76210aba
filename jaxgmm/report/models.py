"""The models that were tried for every group, one for each K and family."""

from typing import NamedTuple

import numpy as np

from jaxgmm.report.content import Content
from jaxgmm.selection.criteria import CRITERIA
from jaxgmm.soundness import is_sound
from jaxgmm.status import Status

_CODES = {status.name: int(status) for status in Status}


class Models(NamedTuple):
    """M models of B groups, group after group, in the order in which they were tried.

    Attributes:
        criterion: the criterion of the choice.
        families: names, in the order in which they were tried.
        offsets: `(B + 1,)`; the models of group `b` are `offsets[b]` to `offsets[b + 1]`.
        k: `(M,)`, numbers of components.
        family: `(M,)`, numbers of families.
        status: `(M,)`, codes.
        value: `(M,)`, the criterion; NaN where there is none.
        chosen: `(M,)`, whether it was chosen.
        hollow: `(M,)`, whether it is degenerate or has spurious components, which the choice does not reward.
        passed_over: `(M,)`, whether its criterion is lower than that of the chosen model for this reason alone.
        at_largest_k: `(M,)`, whether it was chosen, and no larger K was tried.
    """

    criterion: str
    families: list[str]
    offsets: np.ndarray
    k: np.ndarray
    family: np.ndarray
    status: np.ndarray
    value: np.ndarray
    chosen: np.ndarray
    hollow: np.ndarray
    passed_over: np.ndarray
    at_largest_k: np.ndarray

    @property
    def of_group(self) -> np.ndarray:
        """`(M,)`, the group of every model."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    @property
    def is_test(self) -> bool:
        """Whether values are p-values of K against K + 1."""
        return CRITERIA[self.criterion].is_test

    @property
    def above(self) -> np.ndarray:
        """`(M,)`, how far the criterion is above the lowest of the group; p-values as they are."""
        if self.is_test:
            return self.value
        lowest = self._least(np.isfinite(self.value))
        with np.errstate(invalid="ignore"):
            return self.value - lowest[self.of_group]

    @property
    def lead(self) -> np.ndarray:
        """`(B,)`, by how much the criterion of the best sound model with another K is higher than that of the chosen.

        NaN where nothing was chosen, where there is no other, and for p-values, which cannot be compared.
        """
        k, value = self.of_chosen(self.k, 0), self.of_chosen(self.value, np.nan)
        if self.is_test:
            return np.full(len(value), np.nan)
        others = ~self.hollow & (self.k != k[self.of_group]) & np.isfinite(self.value)
        least = self._least(others)
        return np.where(np.isfinite(least), least, np.nan) - value

    def of_chosen(self, column: np.ndarray, otherwise: float) -> np.ndarray:
        """`(B,)`, the values of a column for the chosen models; otherwise where nothing was chosen."""
        found = np.full(len(self.offsets) - 1, otherwise, dtype=np.result_type(column.dtype, type(otherwise)))
        found[self.of_group[self.chosen]] = column[self.chosen]
        return found

    def any_of_group(self, column: np.ndarray) -> np.ndarray:
        """`(B,)`, whether a column is true for any model of a group."""
        return np.bincount(self.of_group[column], minlength=len(self.offsets) - 1) > 0

    def _least(self, among: np.ndarray) -> np.ndarray:
        least = np.full(len(self.offsets) - 1, np.inf)
        np.minimum.at(least, self.of_group[among], self.value[among])
        return least


def models(content: Content) -> Models | None:
    """The models that were tried; None where there was no choice.

    Of several ridges, one is kept for each K and family: the chosen one, or else the best of the sound ones.
    """
    table = content.models
    if table is None or content.criterion is None:
        return None
    names = table["covariance_type"].astype(str)
    families = list(dict.fromkeys(names.tolist()))
    family = np.array([families.index(name) for name in names.tolist()], dtype=np.int64)
    status = np.array([_CODES[name] for name in table["status"].tolist()], dtype=np.int64)
    hollow = ~is_sound(status, table["spurious"])
    value, chosen = table[content.criterion].astype(np.float64), table["chosen"].astype(bool)
    rows = _one_ridge(table["data_set"], table["n_components"], family, np.array([~chosen, hollow, value]))
    return Models(
        criterion=content.criterion,
        families=families,
        offsets=np.searchsorted(table["data_set"][rows], np.arange(content.keys.num_rows + 1)),
        k=table["n_components"][rows].astype(np.int64),
        family=family[rows],
        status=status[rows],
        value=value[rows],
        chosen=chosen[rows],
        hollow=hollow[rows],
        passed_over=table["passed_over"][rows].astype(bool),
        at_largest_k=table["at_largest_k"][rows].astype(bool),
    )


def _one_ridge(group: np.ndarray, k: np.ndarray, family: np.ndarray, preference: np.ndarray) -> np.ndarray:
    """Rows of the models to keep, in their order; of those with equal group, K and family, the least by preference."""
    order = np.lexsort((*preference[::-1], family, k, group))
    same = np.array([group, k, family])[:, order]
    is_first = np.concatenate([[True], np.any(same[:, 1:] != same[:, :-1], axis=0)])
    return np.sort(order[is_first])
