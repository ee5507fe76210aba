"""save(), load() and info(): mixtures, fits, sweeps, bootstraps and streams as safetensors files.

A file holds numbers and a header of text, so that reading it never executes anything. The header is checked against the
fields of its kind of result before any array is read. Every error names the file and the remedy in one line, and is a
`ValueError` or an `OSError`.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import jaxgmm
from jaxgmm.selection.sweep_result import Sweep
from jaxgmm.tables import atomic
from jaxgmm.tables.results import Result, kind_of, put_together, taken_apart
from jaxgmm.tables.saved import FORMAT_VERSION, TYPES, Info, header, readable, unreadable
from jaxgmm.tables.schema import fault
from jaxgmm.tables.wording import quoted, shortened

try:
    from safetensors import SafetensorError, safe_open
    from safetensors.numpy import save as serialized
except ImportError:
    raise ImportError("jaxgmm.storage needs safetensors: pip install 'jaxgmm[files]'.") from None


def save(path: str | Path, value: Result, *, options: Mapping[str, Any] | None = None, overwrite: bool = False) -> None:
    """Writes a result to a file, completely or not at all.

    Args:
        path: the file; its directory must exist. Nothing depends on its name, which usually ends in `.safetensors`.
        value: a `Mixture`, `FitResult`, `Sweep`, `Bootstrap` or `Stream`; JAX arrays are saved as NumPy arrays.
        options: the options that made the result, such as `{"n_components": 3, "key": 0}`, which `info` returns: finite
            numbers, texts, booleans, None, and sequences of these, which come back as lists.
        overwrite: whether to replace an existing file.

    Raises:
        ValueError: not a result, inconsistent arrays, or options that are not as described.
        OSError: the file exists, or the disk refuses.

    Example:
        >>> import tempfile, numpy as np, jaxgmm
        >>> from jaxgmm import storage
        >>> standard = jaxgmm.Mixture(np.ones(1), np.zeros((1, 2)), np.ones((1, 2)))
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     storage.save(f"{directory}/standard.safetensors", standard, options={"author": "Gauss"})
        ...     read = storage.load(f"{directory}/standard.safetensors")
        ...     about = storage.info(f"{directory}/standard.safetensors")
        >>> read.means, about.kind, about.options
        (array([[0., 0.]]), 'Mixture', {'author': 'Gauss'})
    """
    kind = kind_of(value)
    options = _checked_options(options)
    arrays, columns = taken_apart(value)
    found = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    reason = fault(kind, found, columns) or next(
        (f"{name} holds {dtype}" for name, (_, dtype) in found.items() if dtype not in TYPES.values()), None
    )
    if reason:
        raise ValueError(f"this {kind} cannot be saved: {shortened(reason)}.")
    texts = {
        "format": "jaxgmm",
        "format_version": str(FORMAT_VERSION),
        "jaxgmm_version": jaxgmm.__version__,
        "kind": kind,
        "options": json.dumps(options),
        "columns": json.dumps(columns),
        "notes": json.dumps(value.notes if isinstance(value, Sweep) else ()),
    }
    _write(Path(path), serialized(arrays, metadata=texts), overwrite=overwrite)


def load(path: str | Path) -> Result:
    """Reads a result that `save` wrote.

    Args:
        path: the file.

    Returns:
        the result, of the type that was saved, with NumPy arrays.

    Raises:
        OSError: no such file, or it may not be read.
        ValueError: the file is cut short or damaged, is not one of jaxgmm, or was written by a newer jaxgmm.
    """
    path = readable(path)
    about, columns, notes = header(path)
    try:
        with safe_open(path, framework="np") as file:
            # An array without axes becomes a number, which is what the fit of one data set holds.
            arrays = {name: file.get_tensor(name)[()] for name in about.shapes}
        return put_together(about.kind, arrays, columns, notes)
    except (SafetensorError, ValueError) as error:
        raise unreadable(path, str(error)) from error


def info(path: str | Path) -> Info:
    """The contents of a file, read from its header alone.

    Args:
        path: a file that `save` wrote.

    Returns:
        kind, shapes, options and versions.

    Raises:
        OSError: as for `load`.
        ValueError: as for `load`.
    """
    return header(readable(path))[0]


def _checked_options(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Options in the types that JSON has."""
    options = {} if options is None else options
    if not isinstance(options, Mapping) or not all(isinstance(name, str) for name in options):
        raise ValueError(f"options must be a dict with texts as keys; got {quoted(options)}.")
    return {name: _as_json(value, name) for name, value in options.items()}


def _as_json(value: Any, name: str) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_as_json(item, name) for item in value]
    raise ValueError(
        "options may hold finite numbers, texts, booleans, None and sequences of these; "
        f"{quoted(name)} holds {quoted(value)}."
    )


def _write(path: Path, content: bytes, *, overwrite: bool) -> None:
    """Writes a temporary file, and renames it when it is complete."""

    def check_absent() -> None:
        if os.path.lexists(path) and not overwrite:
            raise FileExistsError(f"{path} exists already; remove it, name another file, or pass overwrite=True.")

    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent} is not a directory; make it first, or name another.")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; name a file.")
    check_absent()
    with atomic.written(path) as file:
        file.write(content)
        check_absent()
