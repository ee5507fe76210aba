"""Quotes of files and values in errors, kept short."""

import difflib
import re
import reprlib
from collections.abc import Iterable
from itertools import islice
from typing import Any

_LONGEST, _MOST_NAMES = 200, 20
_QUOTED = reprlib.Repr()
_QUOTED.maxstring = _QUOTED.maxother = 80
# Among them are all ends of lines.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def shortened(text: str) -> str:
    """A text on one line, cut if it is long."""
    line = " ".join(text[: 10 * _LONGEST].split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def quoted(value: Any) -> str:
    """A value as Python writes it, abbreviated if it is long."""
    return shortened(_QUOTED.repr(value))


def counted(n: int, noun: str) -> str:
    """`3 groups`, `1 group`."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def counted_are(n: int, noun: str) -> str:
    """`3 parts are`, `1 part is`."""
    return f"{counted(n, noun)} {'is' if n == 1 else 'are'}"


def listed(names: Iterable[Any]) -> str:
    """Names separated by commas, as many as fit."""
    names = list(islice(names, _MOST_NAMES + 1))
    return shortened(", ".join([*map(str, names[:_MOST_NAMES]), *(["…"] if len(names) > _MOST_NAMES else [])]))


def title_of(key: Iterable[Any]) -> str:
    """A key as a title: `P04, 67`. A text of nothing is `''`, and control characters are written as Python does."""
    texts = ("null" if value is None else _CONTROL.sub(lambda found: repr(found[0])[1:-1], str(value)) for value in key)
    return ", ".join(text or "''" for text in texts)


def remedy(name: str, known: Iterable[str], otherwise: str) -> str:
    """A question that suggests the known name closest to a wrong one; another remedy if none is close."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else otherwise
