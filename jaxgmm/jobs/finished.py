"""What an engine tells of a part."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

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
