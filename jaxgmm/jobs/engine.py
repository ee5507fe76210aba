"""What an engine does, in this process or elsewhere, and what it tells of a part."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Event
from typing import Any, NamedTuple

from jaxgmm.jobs.work import Count, Work

# The number of a part, and the numbers of its finished and of all its runs.
Progress = Callable[[int, int, int], None]


class Finished(NamedTuple):
    """A part that is done and kept.

    Attributes:
        part: its number.
        notes: notes for the user.
        log: where it was done, and in what time.
    """

    part: int
    notes: list[str]
    log: Mapping[str, Any]


class Engine(NamedTuple):
    """An engine.

    Attributes:
        plan: counts the groups of a table, and distributes them to parts.
        fit: does some parts of a job. It tells how far a part is, and the event is set while there is nothing to fit.
    """

    plan: Count
    fit: Callable[[Work, Sequence[int], Progress, Event], Iterator[Finished]]
