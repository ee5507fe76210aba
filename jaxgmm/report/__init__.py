"""Reports: one self-contained HTML file about thousands of fits, to walk through in a browser without a network.

Both faces make a `Content`, `jaxgmm.frames` from a frame and `jaxgmm report` from files, and `write` makes the file.
"""

try:
    import narwhals  # noqa: F401
    import pyarrow  # noqa: F401
except ImportError as missing:
    raise ImportError(f"jaxgmm.report needs more packages ({missing}): pip install 'jaxgmm[frames]'.") from None

from jaxgmm.report.content import Content, content_of_groups
from jaxgmm.report.framed import content_of_frame, write_report
from jaxgmm.report.page import pieces, write

__all__ = ["Content", "content_of_frame", "content_of_groups", "pieces", "write", "write_report"]
