"""What one call of `jaxgmm fit` or `jaxgmm sweep` asks for."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import jaxgmm
from jaxgmm.cli import options as of
from jaxgmm.settings import LRT, check_options, check_order, check_test
from jaxgmm.tables.condition import parsed
from jaxgmm.tables.dataset import Dataset, find


class Request(NamedTuple):
    """The job that one call of the command requests.

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
    def columns(self) -> list[str]:
        """The columns to read."""
        return list(dict.fromkeys([*self.by, *self.features, *([self.weights] if self.weights else [])]))

    @property
    def description(self) -> dict[str, Any]:
        """The request as recorded in the outputs. A modified file counts as a different file."""
        described = {"jaxgmm": jaxgmm.__version__} | self.file.description
        described |= {"call": self.call, "by": self.by, "features": self.features, "weights": self.weights}
        described["order_by"] = self.order_by
        described |= {} if self.where is None else {"where": self.where}
        described |= {} if self.separator == "," else {"separator": self.separator}
        return described | self.models | self.options


def requested(
    paths: Sequence[Path],
    separator: str,
    by: list[str] | None,
    features: list[str],
    weights: str | None,
    order_by: str,
    call: str,
    models: dict[str, Any],
    options: dict[str, Any],
    *,
    where: str | None = None,
) -> Request:
    """The request, whether or not the table has these columns."""
    file = find(*paths)
    names = file.column_names(separator)
    where = None if where is None else parsed(where).text
    # A tab may be written in two ways, which describe the same job.
    separator = "tab" if separator in ("\t", "\\t") else separator
    keys, wanted = of.keys(by, names), of.columns(features, names)
    return Request(file, separator, keys, wanted, weights, order_by, call, models, options, where)


def check(request: Request) -> None:
    """Raises ValueError for options that `fit` and `sweep` would refuse, before any row is read."""
    try:
        _check(request)
    except ValueError as error:
        raise ValueError(of.as_typed(str(error))) from None


def _check(request: Request) -> None:
    check_order(request.order_by, request.features)
    given = request.options
    if request.passes and request.by:
        raise ValueError("passes are made over a whole table; leave out --passes, or --by.")
    for k, family, ridge in request.combinations:
        check_options(
            k,
            family,
            given["n_init"],
            given["n_finalists"],
            given["tol"],
            given["max_iter"],
            ridge,
            given["precision"],
            given["method"],
        )
    if request.criterion == LRT:
        check_test([LRT], request.combinations, request.weights, request.models["patience"], request.models["split"])
