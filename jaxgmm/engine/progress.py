"""A progress bar for long work: runs done, rate, time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext


@contextmanager
def progress_bar(n_runs: int, *, shown: bool | Callable[[int, int], None]) -> Iterator[Callable[[int], None]]:
    """Yields a function to be told how many more runs are done.

    Args:
        n_runs: how many there are.
        shown: whether to show a bar; or a function that is told how many runs are done, and of how many.

    Raises:
        ImportError: rich is not installed.
    """
    if not shown:
        yield lambda _: None
        return
    n_done = 0
    with nullcontext(shown) if callable(shown) else bar(n_runs, "runs") as told:

        def tell(n_more: int) -> None:
            nonlocal n_done
            n_done += n_more
            told(n_done, n_runs)

        yield tell


@contextmanager
def bar(n_all: int, unit: str, n_before: int = 0) -> Iterator[Callable[[float, int], None]]:
    """A bar on stderr. Yields a function to be told how many are done, and of how many.

    Args:
        n_all: how many there are.
        unit: what they are called.
        n_before: how many were done before, and say nothing of the rate.

    Raises:
        ImportError: rich is not installed.
    """
    try:
        from rich import progress
        from rich.console import Console
    except ImportError:
        raise ImportError("progress=True needs rich: pip install 'jaxgmm[cli]'.") from None

    class Rate(progress.ProgressColumn):
        # Over all of the time: rich's own rate looks at the last moments only.
        def render(self, task: progress.Task) -> str:
            return f"{(task.completed - n_before) / task.elapsed if task.elapsed else 0:,.0f} {unit}/s"

    columns = (
        progress.TextColumn("fitting"),
        progress.BarColumn(),
        progress.TextColumn(f"{{task.completed:,.0f}} of {{task.total:,.0f}} {unit}"),
        Rate(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("left"),
    )
    with progress.Progress(*columns, console=Console(stderr=True)) as shown:
        task = shown.add_task("", total=n_all, completed=n_before)
        yield lambda n_done, n_all: shown.update(task, completed=n_done, total=n_all)
