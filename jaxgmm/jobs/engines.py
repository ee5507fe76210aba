"""The engines that do the parts of a job."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import TypeVar

from jaxgmm.jobs import ways
from jaxgmm.jobs.cluster import on_ray
from jaxgmm.jobs.finished import Finished, Progress
from jaxgmm.jobs.work import Work

Item = TypeVar("Item")

# Does some parts of a job. It tells how far a part is, and the event is set while there is nothing to fit.
Engine = Callable[[Work, Sequence[int], Progress, Event], Iterator[Finished]]


def in_process(work: Work, wanted: Sequence[int], progress: Progress, waits: Event) -> Iterator[Finished]:
    """Parts are fitted here, one after another on all cores; each is read while the previous one is fitted."""
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


ENGINES: dict[str, Engine] = {"process": in_process, "ray": on_ray}
