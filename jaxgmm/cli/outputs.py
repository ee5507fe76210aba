"""Files that a command writes: what may be replaced, and what an interrupt leaves."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jaxgmm.cli import interrupts
from jaxgmm.tables import atomic
from jaxgmm.tables.places import Place, local


def check_writable(out: Path, kinds: Sequence[str], *, overwrite: bool, read: Sequence[Place] = ()) -> None:
    """Checks that a file of one of these kinds can be written, before the work that fills it.

    Args:
        out: the file.
        kinds: the suffixes that it may have.
        overwrite: whether it may replace another file.
        read: files that the command reads, which it never replaces.

    Raises:
        ValueError: another kind, a URI, or a file that is read.
        OSError: its directory does not exist, or it does.
    """
    out = local(out)
    if not out.name.lower().endswith(tuple(kinds)):
        raise ValueError(f"--out must name a file that ends in {', '.join(kinds)}; got {out}.")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"{out.parent} does not exist; make it, or name another file.")
    if out.is_dir():
        raise IsADirectoryError(f"{out} is a directory; name a file.")
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} exists already; remove it, name another file, or give --overwrite.")
    if out.resolve() in [path.resolve() for path in read if isinstance(path, Path)]:
        raise ValueError(f"{out} is read by this command; name another file.")


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """While a file is being written, an interrupt leaves it complete, or as it was."""
    before = atomic.state(out)
    interrupts.keeps(lambda: "nothing was written." if atomic.state(out) == before else f"{out} was written.")
    with interrupts.unwinding():
        yield
