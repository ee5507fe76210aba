"""Interrupts of the command take effect at once, from its start on, and leave no half-written file.

As long as no file is half written, the signal handler ends the process immediately: an exception would have to
propagate out of imports and libraries, where it can get lost. While files are being written (`unwinding`), the handler
raises KeyboardInterrupt, which unwinds the writing; there the main thread only waits and writes, and long work and
imports run in another thread (`interruptible`, `each`).
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn, TypeVar

Answer = TypeVar("Answer")
Item = TypeVar("Item")

INTERRUPTED = 130

# Seconds between two looks for a signal that arrived just before the wait began, and so did not end it.
_GLANCE = 0.1

_kept: Callable[[], str] = lambda: "nothing was written."  # noqa: E731
_is_listening = False


class Interrupted(Exception):  # noqa: N818
    """The user's interrupt, with a sentence on what is kept, and whether work is still running in a thread."""

    def __init__(self, sentence: str, *, is_running: bool) -> None:
        super().__init__(sentence)
        self.is_running = is_running


def listen() -> None:
    """From here on an interrupt ends the process, unless the parent process has interrupts ignored."""
    global _is_listening  # noqa: PLW0603 (a process has one handler)
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        _is_listening = True
        signal.signal(signal.SIGINT, _end)


def keeps(kept: Callable[[], str]) -> None:
    """Sets the function that says what is kept. It is called at an interrupt, and may block briefly."""
    global _kept  # noqa: PLW0603
    _kept = kept


def kept() -> str:
    """A sentence on what is kept after an interrupt."""
    return _kept()


def say(sentence: str) -> None:
    """Prints one line on stderr that the command was interrupted."""
    sys.stderr.write(_line(sentence))
    sys.stderr.flush()


def end() -> NoReturn:
    """Ends the process. Threads in compiled code cannot be stopped, and an orderly exit would wait for them."""
    os._exit(INTERRUPTED)


@contextmanager
def unwinding() -> Iterator[None]:
    """While files are being written, an interrupt is an exception that unwinds this; a second one ends the process.

    Raises:
        Interrupted: the user has interrupted the program.
    """
    try:
        if _is_listening:
            signal.signal(signal.SIGINT, _unwind)
        yield
    except KeyboardInterrupt:
        raise Interrupted(kept(), is_running=False) from None
    finally:
        if _is_listening:
            signal.signal(signal.SIGINT, _end)


def interruptible(work: Callable[[], Answer]) -> Answer:
    """What `work` returns. It runs in another thread, so that this one handles an interrupt at once.

    Raises:
        Interrupted: the user has interrupted the program.
    """
    answer: Future[Answer] = Future()

    def run() -> None:
        try:
            answer.set_result(work())
        except BaseException as error:
            answer.set_exception(error)

    try:
        threading.Thread(target=run, daemon=True).start()
        while not answer.done():
            wait([answer], _GLANCE)
        return answer.result()
    except KeyboardInterrupt:
        raise Interrupted(kept(), is_running=not answer.done()) from None


def each(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, each made in another thread; none of them is None."""
    while (item := interruptible(lambda: next(items, None))) is not None:
        yield item


def _end(_signal: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, _end_again)
    # Not through `sys.stderr`, as the signal may have arrived in the middle of a write to it.
    os.write(2, _line(kept()).encode())
    end()


def _unwind(_signal: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, _end_again)
    raise KeyboardInterrupt


def _line(sentence: str) -> str:
    # A terminal shows ^C or a bar where the line would begin, and its cursor may be hidden.
    begin = "\x1b[?25h\n" if sys.stderr.isatty() else ""
    return f"{begin}jaxgmm: interrupted; {sentence}\n"


def _end_again(_signal: int, _frame: FrameType | None) -> None:
    end()
