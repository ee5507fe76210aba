"""Code blocks of the README and of the documentation, run in order; what they print is compared with what is shown."""

import contextlib
import io
import itertools
import re
from collections.abc import Callable

# How many iterations the default method makes depends on the last bits, and so on the processor; and so does the time.
_COUNTS = re.compile(r"(iterations +)\d+ to \d+|(after) \d+ iterations|(seconds +)[\d,.]+")

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(markdown: str) -> list[tuple[str, str, str]]:
    """Every block but those of text: its language, itself, and the block after it if that is text, or nothing."""
    found = [*FENCE.findall(markdown), ("", "")]
    return [
        (language, source, shown if kind == "text" else "")
        for (language, source), (kind, shown) in itertools.pairwise(found)
        if language != "text"
    ]


def run_blocks(markdown: str, name: str, run_shell: Callable[[str], object] = lambda _: None) -> None:
    """Runs the Python blocks in one namespace, and gives those of the shell to `run_shell`, in order.

    Raises:
        AssertionError: a block does not print what is shown below it.
    """
    namespace: dict[str, object] = {"__name__": name}
    for language, source, shown in blocks(markdown):
        if language == "sh":
            run_shell(source)
        if language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(compile(source, name, "exec"), namespace)
            assert _COUNTS.sub(r"\1\2\3", printed.getvalue()) == _COUNTS.sub(r"\1\2\3", shown), (
                f"{name} shows other output than this prints:\n{source}\n{printed.getvalue()}"
            )
