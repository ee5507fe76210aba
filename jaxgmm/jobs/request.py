"""What is to be fitted to the groups of a table: the request of a job."""

from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

import jaxgmm
from jaxgmm.settings import LRT, check_choice, check_integer, check_model, check_order, check_runs, check_test
from jaxgmm.tables import tabular
from jaxgmm.tables.dataset import Dataset

# Work of a part, in rows times runs times components of few features: three to thirty seconds of a core, as 300 ns were
# measured, starts and copies included. That is what a killed process may lose, and what an engine moves as a whole.
_WORK = (1e7, 1e8)

# The number of parts of a job between these bounds.
_PARTS = 64

# Rows of a part, and its numbers: these bound its memory.
_ROWS, _NUMBERS = 2**20, 2**24


class TableRequest(NamedTuple):
    """What a job fits to the groups of a table.

    Attributes:
        file: the table, in one file or several.
        separator: of its fields, if it is a CSV file.
        by: its key columns; none for one mixture of the whole table.
        features: its columns to fit.
        weights: its column of sample weights, or None.
        order_by: `mean`, `weight`, `start` or a feature: the order of components.
        call: `jaxgmm.fit` or `jaxgmm.sweep`, by name.
        models: `n_components`, `covariance_type` and `reg_covar`, each one value or a list, and for a sweep the
            options of its choice.
        options: further options of both.
        where: a condition that rows satisfy, or None.
    """

    file: Dataset
    separator: str
    by: list[str]
    features: list[str]
    weights: str | None
    order_by: str
    call: str
    models: dict[str, Any]
    options: dict[str, Any]
    where: str | None = None

    @property
    def criterion(self) -> str | None:
        """The criterion by which models are chosen, or None if there is only one."""
        return self.models.get("criterion")

    @property
    def passes(self) -> int | None:
        """The number of passes in which a whole table is read; None if it is read into memory."""
        return self.options.get("passes")

    @property
    def combinations(self) -> list[tuple[int, str, float]]:
        """The models fitted to every group."""
        several = (self.models[name] for name in ("n_components", "covariance_type", "reg_covar"))
        return list(product(*(values if isinstance(values, list) else [values] for values in several)))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the tables to write; the last is put in place last."""
        return ("components", "fits") if self.criterion is None else ("models", "components", "fits")

    @property
    def way(self) -> str:
        """How the table is read and fitted: a row of `jaxgmm.jobs.ways.WAYS`."""
        if self.passes:
            return "in passes"
        return "by group" if self.by else "whole"

    @property
    def columns(self) -> list[str]:
        """The columns to read."""
        return list(dict.fromkeys([*self.by, *self.features, *([self.weights] if self.weights else [])]))

    def rows_per_part(self, n_rows: int) -> int:
        """How many rows of a table of so many are a part. It depends on nothing else, so that any engine goes on.

        A part is some seconds of work, and takes a bounded share of memory.
        """
        least, most = _WORK
        per_row = self._work_per_row
        by_work = min(most, max(least, n_rows * per_row / _PARTS)) / per_row
        return max(1, min(int(by_work), _ROWS, _NUMBERS // len(self.columns)))

    @property
    def _work_per_row(self) -> float:
        """The work for each row: runs times components, and what these cost beside those of few features."""
        fitted_again = {"cv": 1 + self.models.get("n_folds", 0), LRT: 1 + self.models.get("n_replicates", 0)}
        n_runs = self.options["n_init"] * fitted_again.get(self.criterion or "", 1)
        # Of 1, 2, 4, 8 and 16 features, one iteration took 15, 16, 29, 43 and 137 ns for a row and a component.
        return n_runs * sum(k for k, _, _ in self.combinations) * (1 + len(self.features) ** 2 / 32)

    @property
    def description(self) -> dict[str, Any]:
        """The request as recorded in the outputs. A modified file counts as a different file."""
        described = {"jaxgmm": jaxgmm.__version__} | self.file.description
        described |= {"call": self.call, "by": self.by, "features": self.features, "weights": self.weights}
        described["order_by"] = self.order_by
        described |= {} if self.where is None else {"where": self.where}
        described |= {} if self.separator == "," else {"separator": self.separator}
        # Other criteria draw no replicates, so that their number makes no other job.
        models = {name: value for name, value in self.models.items() if name != "n_replicates" or self.criterion == LRT}
        return described | models | self.options


def check(request: TableRequest, worded: Callable[[str], str] = str) -> None:
    """Checks what can be checked before any row is read.

    Args:
        request: the request.
        worded: what is said of an option, in the words of whoever has given it.

    Raises:
        ValueError: options that `fit` and `sweep` would refuse, or two columns of the output that have one name.
    """
    try:
        _check_options(request)
    except ValueError as error:
        raise ValueError(worded(str(error))) from None
    tabular.check_output_columns(request.by, request.features, request.criterion)


def _check_options(request: TableRequest) -> None:
    check_order(request.order_by, request.features)
    given, models = request.options, request.models
    for name in ("n_components", "covariance_type", "reg_covar"):
        if isinstance(models[name], list) and not models[name]:
            raise ValueError(f"{name} must name at least one value; it is empty.")
    for model in request.combinations:
        check_model(*model)
    check_runs(*(given[name] for name in ("n_init", "n_finalists", "tol", "max_iter", "precision", "method")))
    if request.call == "sweep":
        check_choice([request.criterion], models["n_folds"], models["patience"], models["split"])
    if request.criterion == LRT:
        check_integer("n_replicates", models["n_replicates"], 1)
        check_test([LRT], request.combinations, request.weights, models["patience"], models["split"])
