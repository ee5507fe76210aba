"""Tables that a command reads."""

from jaxgmm.cli import interrupts
from jaxgmm.tables.dataset import Dataset, find


def found(*named: str, separator: str) -> tuple[Dataset, list[str]]:
    """The files of a table, and the names of its columns. Another machine may have to be asked, which takes time.

    Raises:
        OSError: nothing is there, or it may not be read.
        ValueError: not a table.
    """

    def ask() -> tuple[Dataset, list[str]]:
        file = find(*named)
        return file, file.column_names(separator)

    return interrupts.interruptible(ask)
