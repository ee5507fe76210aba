"""The engines that count the groups of a job and do its parts."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from threading import Event
from typing import NamedTuple, TypeVar

from jaxgmm.jobs import ways
from jaxgmm.jobs.cluster import check_reach, on_ray
from jaxgmm.jobs.engine import Engine, Finished, Progress
from jaxgmm.jobs.request import TableRequest
from jaxgmm.jobs.work import Work
from jaxgmm.tables import parts
from jaxgmm.tables.rows import Rows

Item = TypeVar("Item")


def in_process(_: str | None) -> AbstractContextManager[Engine]:
    """All is done here, one part after another, on all cores."""
    return nullcontext(Engine(_counted, _fitted))


def _counted(request: TableRequest, rows: Rows, _: Path) -> parts.Plan:
    return parts.plan(rows, request.by, request.features, request.weights, request.rows_per_part)


def _fitted(work: Work, wanted: Sequence[int], progress: Progress, waits: Event) -> Iterator[Finished]:
    """Each part is read while the previous one is fitted."""
    for part, groups in zip(wanted, _ahead(ways.read(work, wanted), waits), strict=True):

        def advanced(done: int, of_all: int, part: int = part) -> None:
            progress(part, done, of_all)

        began = time.perf_counter()
        notes = ways.fit(work, part, groups, advanced)
        yield Finished(part, notes, {"seconds": {"fit": round(time.perf_counter() - began, 3)}})


def _ahead(items: Iterator[Item], waits: Event) -> Iterator[Item]:
    """The same items, each fetched while the previous one is processed; `waits` is set while there is none."""

    def awaited(coming: Future[Item | None]) -> Item | None:
        waits.set()
        item = coming.result()
        waits.clear()
        return item

    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := awaited(coming)) is not None:
            coming = pool.submit(next, items, None)
            yield item


def _reads_any(_request: TableRequest, _rows: Rows) -> None:
    pass


class Kind(NamedTuple):
    """A kind of engine.

    Attributes:
        ready: a context in which an engine is ready, given the address of a cluster, or None.
        check: raises ValueError for a table that it could not read.
    """

    ready: Callable[[str | None], AbstractContextManager[Engine]]
    check: Callable[[TableRequest, Rows], None]


ENGINES = {"process": Kind(in_process, _reads_any), "ray": Kind(on_ray, check_reach)}
