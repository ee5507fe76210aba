"""A progress bar for long work: finished runs, rate, time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext


@contextmanager
def progress_bar(n_runs: int, *, shown: bool | Callable[[int, int], None]) -> Iterator[Callable[[int], None]]:
    """Yields a function that is called with the number of newly finished runs.

    Args:
        n_runs: number of all runs.
        shown: whether to show a bar; or a function that receives the numbers of finished and of all runs.

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
    """A bar on stderr. Yields a function that is called with the numbers of finished and of all items.

    Args:
        n_all: number of all items.
        unit: their name.
        n_before: number of items finished earlier, which do not count for the rate.

    Raises:
        ImportError: rich is not installed.
    """
    try:
        from rich import progress
        from rich.console import Console
    except ImportError:
        raise ImportError("progress=True needs rich: pip install 'jaxgmm[cli]'.") from None

    class Rate(progress.ProgressColumn):
        # Over the whole time: rich's own rate covers only the last moments.
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
