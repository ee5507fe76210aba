"""A progress bar for long work: runs done, rate, time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(n_runs: int, *, shown: bool | Callable[[int, int], None]) -> Iterator[Callable[[int], None]]:
    """Yields a function to be told how many more runs are done.

    Args:
        n_runs: how many there are.
        shown: whether to show a bar; or a function that is told how many runs are done, and of how many.

    Raises:
        ImportError: rich is not installed.
    """
    if callable(shown):
        n_done = 0

        def tell(n_more: int) -> None:
            nonlocal n_done
            n_done += n_more
            shown(n_done, n_runs)

        yield tell
        return
    if not shown:
        yield lambda _: None
        return
    try:
        from rich import progress
        from rich.console import Console
    except ImportError:
        raise ImportError("progress=True needs rich: pip install 'jaxgmm[cli]'.") from None

    class Rate(progress.ProgressColumn):
        # Over all of the time: rich's own rate looks at the last moments only.
        def render(self, task: progress.Task) -> str:
            return f"{task.completed / task.elapsed if task.elapsed else 0:,.0f} runs/s"

    columns = (
        progress.TextColumn("fitting"),
        progress.BarColumn(),
        progress.TextColumn("{task.completed:,.0f} of {task.total:,.0f} runs"),
        Rate(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("left"),
    )
    with progress.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=n_runs)
        yield lambda n_done: bar.advance(task, n_done)
