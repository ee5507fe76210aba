"""The header of a file of `jaxgmm.storage`, checked before any array is read.

Nothing here needs JAX, so that a file can be described without it.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxgmm.tables import atomic
from jaxgmm.tables.schema import KINDS, Column, fault
from jaxgmm.tables.wording import quoted, shortened

try:
    from safetensors import SafetensorError, safe_open
except ImportError:
    raise ImportError("jaxgmm.storage needs safetensors: pip install 'jaxgmm[files]'.") from None

# Increased whenever a version that knows the previous number could not read the file.
FORMAT_VERSION = 2

TYPES = {
    **{f"F{bits}": np.dtype(f"f{bits // 8}") for bits in (16, 32, 64)},
    **{f"I{bits}": np.dtype(f"i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"U{bits}": np.dtype(f"u{bits // 8}") for bits in (8, 16, 32, 64)},
    "BOOL": np.dtype(bool),
}


class Info(NamedTuple):
    """The description of a file in its header.

    Attributes:
        kind: `"Mixture"`, `"FitResult"`, `"Sweep"`, `"Bootstrap"` or `"Stream"`.
        shapes: of all arrays, by name, such as `"mixture.means"`, or `"table.bic"` for a column of a sweep's table.
        options: the options given to `save`.
        format_version: of the file.
        jaxgmm_version: of the library that wrote it.
    """

    kind: str
    shapes: dict[str, tuple[int, ...]]
    options: dict[str, Any]
    format_version: int
    jaxgmm_version: str


def readable(path: str | Path) -> Path:
    """Checks that a file can be read, and returns its path.

    Raises:
        OSError: it cannot.
    """
    return atomic.readable(Path(path), "one that jaxgmm.storage.save wrote")


def header(path: Path) -> tuple[Info, list[Column], list[str]]:
    """The description of a file, the columns of its table, and its notes. Raises ValueError if they are invalid."""
    try:
        with safe_open(path, framework="np") as file:
            texts = file.metadata() or {}
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            found = {name: (tuple(part.get_shape()), str(part.get_dtype())) for name, part in slices.items()}
    except (SafetensorError, OSError) as error:
        raise unreadable(path, str(error)) from error
    if texts.get("format") != "jaxgmm":
        raise _foreign(path)
    version = _version(path, texts.get("format_version", ""))
    kind = texts.get("kind", "")
    unknown = [f"{name} holds {dtype}" for name, (_, dtype) in found.items() if dtype not in TYPES]
    if kind not in KINDS or unknown:
        raise unreadable(path, unknown[0] if unknown else f"its kind is {quoted(kind)}")
    try:
        options, columns = json.loads(texts["options"]), _columns(json.loads(texts["columns"]))
        notes = json.loads(texts.get("notes", "[]"))
        if not isinstance(options, dict) or not isinstance(notes, list) or not all(isinstance(n, str) for n in notes):
            raise TypeError
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise unreadable(path, "its header does not make sense") from error
    reason = fault(
        kind,
        {name: (shape, TYPES[dtype]) for name, (shape, dtype) in found.items()},
        columns,
        is_of_format_1=version == 1,
    )
    if reason:
        raise unreadable(path, reason)
    shapes = {name: shape for name, (shape, _) in found.items()}
    return Info(kind, shapes, options, version, texts.get("jaxgmm_version", "")), columns, notes


def _version(path: Path, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) > 0):
        raise unreadable(path, f"its format version is {quoted(text)}")
    if int(text) > FORMAT_VERSION:
        raise ValueError(
            f"{path} was written by a newer jaxgmm (format {int(text)}; this one reads {FORMAT_VERSION}): upgrade."
        )
    return int(text)


def _columns(rows: Any) -> list[Column]:
    """Columns from JSON; raises TypeError if it holds something else."""
    columns = [Column(*row) for row in rows]
    for name, texts, length in columns:
        is_list_of_text = isinstance(texts, list) and all(isinstance(text, str) for text in texts)
        if not isinstance(name, str) or type(length) is not int or not (texts is None or is_list_of_text):
            raise TypeError(f"{name!r} is not a column")
    if len({column.name for column in columns}) < len(columns):
        raise TypeError("two columns have one name")
    return columns


def unreadable(path: Path, reason: str) -> ValueError:
    """The error for a file that cannot be read, or that jaxgmm did not write."""
    with path.open("rb") as file:
        head = file.read(9)
    # The header follows its length of 8 bytes, and begins with a brace.
    if not b"{".startswith(head[8:]):
        return _foreign(path)
    # A reason may quote text of any length from the file.
    reason = shortened(reason.strip().partition("\n")[0].rstrip("."))
    return ValueError(f"{path} is cut short or damaged ({reason}); copy it again, or save the result anew.")


def _foreign(path: Path) -> ValueError:
    return ValueError(f"{path} is not a file of jaxgmm; name one that jaxgmm.storage.save wrote.")
