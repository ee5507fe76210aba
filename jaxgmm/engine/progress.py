"""A progress bar for long work: what is being done, finished runs, rate, time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from jaxgmm.engine import compilation


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


def per_second(rate: float) -> str:
    """A rate in digits that tell it from 0."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


@contextmanager
def bar(
    n_all: int | None, unit: str, n_before: int = 0, doing: Callable[[], str] = lambda: "fitting"
) -> Iterator[Callable[[float, int], None]]:
    """A bar on stderr. Yields a function that is called with the numbers of finished and of all items.

    Args:
        n_all: number of all items; None if it is not known yet.
        unit: their name.
        n_before: number of items finished earlier, which do not count for the rate.
        doing: what is being done, in a word. While JAX compiles, the bar says that.

    Raises:
        ImportError: rich is not installed.
    """
    try:
        from rich import progress
        from rich.console import Console
        from rich.text import Text
    except ImportError:
        raise ImportError("progress=True needs rich: pip install 'jaxgmm[cli]'.") from None

    class Doing(progress.ProgressColumn):
        def render(self, task: progress.Task) -> Text:  # noqa: ARG002 (rich passes it)
            # As wide as the longest word, so that the bar stays where it is.
            return Text(f"{'compiling' if compilation.is_compiling() else doing():10}")

    class Count(progress.ProgressColumn):
        def render(self, task: progress.Task) -> str:
            of_all = "" if task.total is None else f" of {task.total:,.0f}"
            return f"{task.completed:,.0f}{of_all} {unit}"

    class Rate(progress.ProgressColumn):
        # Over the whole time: rich's own rate covers only the last moments.
        def render(self, task: progress.Task) -> str:
            rate = (task.completed - n_before) / task.elapsed if task.elapsed else 0
            return f"{per_second(rate)} {unit}/s"

    compilation.watch()
    columns = (
        Doing(),
        progress.BarColumn(),
        Count(),
        Rate(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("left"),
    )
    with progress.Progress(*columns, console=Console(stderr=True)) as shown:
        task = shown.add_task("", total=n_all, completed=n_before)
        yield lambda n_done, n_all: shown.update(task, completed=n_done, total=n_all)
