"""One part of a job: how it is read and fitted, and the tables that come of it.

A part is a pure function of the work, its number, and the rows sorted aside: neither the engine that does it nor what
was done before changes its tables.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

# Whatever computes is reached through the package: importing this module does not import JAX.
import jaxgmm
from jaxgmm.jobs import streamed
from jaxgmm.jobs.request import TableRequest
from jaxgmm.jobs.work import Work
from jaxgmm.selection.notes import Note
from jaxgmm.settings import named_order
from jaxgmm.tables import parts, tabular, whole
from jaxgmm.tables.groups import Groups, group
from jaxgmm.tables.survey import Survey, survey

# The numbers of finished and of all runs, or rows.
Progress = Callable[[int, int], None]


class Way(NamedTuple):
    """How parts are read, each as one item, and how such an item is fitted.

    Attributes:
        read: the items of some parts, in turn.
        fit: the fits or the sweep of an item, and notes for the user.
    """

    read: Callable[[Work, Sequence[int]], Iterator[Groups | Survey]]
    fit: Callable[[Work, Any, Progress], tuple[Any, list[str]]]


def read(work: Work, some: Sequence[int]) -> Iterator[Groups | Survey]:
    """The groups of some parts, ascending, each part when it is wanted."""
    return WAYS[work.request.way].read(work, some)


def fit(work: Work, part: int, groups: Groups | Survey, progress: Progress) -> list[str]:
    """Fits the groups of a part and keeps their tables; returns notes for the user."""
    fitted, notes = WAYS[work.request.way].fit(work, groups, progress)
    work.job.keep(part, _tables(work.request, groups, fitted))
    return notes


def _read_by_group(work: Work, some: Sequence[int]) -> Iterator[Groups]:
    request = work.request

    def grouped(table: pa.Table) -> Groups:
        return group(table, request.by, request.features, request.weights)

    # Not a loop, whose variable would hold a table while its groups are fitted.
    return map(grouped, parts.read(work.rows, work.plan.cut, request.columns, some, work.aside))


def _read_whole(work: Work, some: Sequence[int]) -> Iterator[Groups]:
    request = work.request
    return (whole.read(work.rows, work.plan.cut.n_rows, request.features, request.weights) for _ in some)


def _read_sample(work: Work, some: Sequence[int]) -> Iterator[Survey]:
    request, seed = work.request, work.request.options["key"]
    return (survey(work.rows, work.plan.cut.n_rows, request.features, request.weights, seed) for _ in some)


def _fit_by_group(work: Work, groups: Groups, progress: Progress) -> tuple[Any, list[str]]:
    # Programs are chosen for the whole job: how it is cut changes no bit.
    return _fit_in_memory(work, groups, {"part_of": work.plan.sizes, "progress": progress})


def _fit_whole(work: Work, groups: Groups, progress: Progress) -> tuple[Any, list[str]]:
    return _fit_in_memory(work, groups, {"progress": progress})


def _fit_in_memory(work: Work, groups: Groups, further: dict[str, Any]) -> tuple[Any, list[str]]:
    request = work.request
    options: dict[str, Any] = {**request.models, **request.options, "sample_weight": groups.sample_weight, **further}
    return (jaxgmm.fit(groups.x, **options), []) if request.criterion is None else swept(groups.x, options)


def _fit_in_passes(work: Work, table: Survey, progress: Progress) -> tuple[Any, list[str]]:
    options = work.request.models | work.request.options
    return streamed.fit(table, options, options.pop("passes"), work.job.checkpoint, progress), []


WAYS = {
    "by group": Way(_read_by_group, _fit_by_group),
    "whole": Way(_read_whole, _fit_whole),
    "in passes": Way(_read_sample, _fit_in_passes),
}


def swept(x: list[np.ndarray], options: dict[str, Any]) -> tuple["jaxgmm.Sweep", list[str]]:
    """A sweep and its notes. Numbers of data sets, which are those of one part, are left out.

    So are notes that flags repeat for each group.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sweep = jaxgmm.sweep(x, **options)
    for warning in caught:
        if str(warning.message) not in sweep.notes:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    notes = [note for note in sweep.notes if isinstance(note, Note)]
    return sweep, [note.sentence.format("some groups") for note in notes if not note.is_flagged]


def _tables(request: TableRequest, groups: Groups | Survey, fitted: Any) -> dict[str, pa.Table]:
    """The output tables of one part, from its fits or its sweep."""
    if request.order_by != "start":
        fitted = jaxgmm.order_components(fitted, named_order(request.order_by, request.features))
    flags, keys = jaxgmm.flags(fitted), groups.keys
    result, chosen, models = fitted, None, {}
    if request.criterion is not None:
        result, chosen = fitted.best, tabular.chosen_columns(fitted.table, keys.num_rows, request.criterion)
        models = {"models": tabular.models_table(keys, fitted.table, flags)}
    components = tabular.components_table(keys, result, request.features, flags)
    return {
        **models,
        "components": components,
        "fits": tabular.fits_table(groups, result, request.features, flags, chosen),
    }
