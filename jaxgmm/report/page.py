"""A report as one HTML file that loads nothing.

The file holds, in this order, so that a browser can paint before it has read everything: style, page, `#meta` (JSON),
`#core` (columns of the table), the script, and `#b0`, `#b1`, … (blocks of groups). It is ASCII, names the hashes of its
style and script, and allows no others; texts of the user become text nodes only.
"""

import base64
import hashlib
import html
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jaxgmm
from jaxgmm.report.blocks import SIZE, blocks
from jaxgmm.report.columns import columns, keys
from jaxgmm.report.content import Content
from jaxgmm.report.drawn import LEVELS, WEIGHT_LEVELS, drawn, shared_axes
from jaxgmm.report.flags import CLOSE, FLAGS, MISFIT, OVERLAP
from jaxgmm.report.models import Models, models
from jaxgmm.report.packing import packed
from jaxgmm.selection.criteria import CRITERIA
from jaxgmm.settings import LEVEL
from jaxgmm.status import Status
from jaxgmm.tables import atomic

FORMAT = 1
# In the order in which they are read; what a script needs when it is read stands before it.
SCRIPTS = (
    "decode",
    "gaussians",
    "ticks",
    "elements",
    "paint",
    "plane",
    "histogram",
    "columns",
    "filters",
    "list",
    "plates",
    "plots",
    "sentences",
    "group",
    "keyboard",
    "address",
    "print",
    "begin",
)
STYLES = ("page", "list", "group", "print")
_ASSETS = Path(__file__).parent / "assets"


def write(content: Content, path: str | Path, *, title: str | None = None, overwrite: bool = False) -> None:
    """Writes a report, completely or not at all.

    Args:
        content: what it is about.
        path: the HTML file; its directory must exist.
        title: of the page; without it, how many groups of what it shows.
        overwrite: whether to replace an existing file.

    Raises:
        OSError: the file exists, or the disk refuses.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent} is not a directory; make it first, or name another.")
    if os.path.lexists(path) and not overwrite:
        raise FileExistsError(f"{path} exists already; remove it, name another file, or pass overwrite=True.")
    with atomic.written(path) as file:
        file.writelines(pieces(content, title))


def pieces(content: Content, title: str | None = None) -> Iterator[bytes]:
    """The text of a report, in pieces. The fits are checked before the first piece is returned."""
    checks, tried, chosen = content.diagnosed(), models(content), drawn(content)
    texts, numbers = keys(content.keys)
    meta = _meta(content, tried, texts, title)
    core = packed(numbers | columns(content, checks, tried))
    return _filled(meta, core, blocks(content, chosen, checks, tried))


def _meta(content: Content, tried: Models | None, texts: list[list[str | None]], title: str | None) -> dict[str, Any]:
    """All that is not a number of each group."""
    by, n_groups = content.keys.column_names, content.keys.num_rows
    meta = {
        "format": FORMAT,
        "title": f"{n_groups:,} group{'' if n_groups == 1 else 's'} by {', '.join(by)}" if title is None else title,
        "version": jaxgmm.__version__,
        "by": by,
        "features": content.features,
        "weights": content.weights,
        "keys": texts,
        "rows": int(content.offsets[-1]),
        "block": SIZE,
        "levels": LEVELS,
        "weightLevels": WEIGHT_LEVELS,
        "flags": FLAGS,
        "limits": {"misfit": MISFIT, "close": CLOSE, "overlap": OVERLAP},
        "status": [[status.name, status.sentence] for status in Status],
        "shared": shared_axes(content),
        "criterion": None,
        "k": [],
        "families": [],
    }
    if tried is not None:
        meta |= {"criterion": tried.criterion, "k": sorted(set(tried.k.tolist())), "families": tried.families}
        meta |= {"criterionTitle": CRITERIA[tried.criterion].title, "level": LEVEL if tried.is_test else None}
    return meta


def _filled(meta: dict[str, Any], core: str, texts: Iterable[str]) -> Iterator[bytes]:
    """The page, in pieces. Text and names of what to fill in take turns; what is filled in is not searched again."""
    style = _joined(f"{name}.css" for name in STYLES)
    # JavaScript has escapes for what is not ASCII; HTML has references, which are none within a script.
    script = _joined(f"{name}.js" for name in SCRIPTS).encode("ascii", "backslashreplace").decode()
    # "<" never stands in the JSON, so that nothing in a key can end its element.
    data = json.dumps(meta, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    filled = {
        "TITLE": html.escape(meta["title"]),
        "STYLE": style,
        "STYLE_HASH": _digest(style),
        "META": data,
        "CORE": core,
        "SCRIPT": script,
        "SCRIPT_HASH": _digest(script),
    }
    for number, piece in enumerate(re.split(r"\[\[(\w+)\]\]", _read("page.html"))):
        if number % 2 == 0:
            yield piece.encode("ascii")
        elif piece != "BLOCKS":
            yield filled[piece].encode("ascii", "xmlcharrefreplace")
        else:
            for at, text in enumerate(texts):
                yield f'<script type="text/plain" id="b{at}">{text}</script>\n'.encode("ascii")


def _joined(names: Iterable[str]) -> str:
    return "\n".join(map(_read, names))


def _read(name: str) -> str:
    return (_ASSETS / name).read_text("utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
