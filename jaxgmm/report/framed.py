"""write_report(): a report about the fits of a data frame."""

from pathlib import Path
from typing import Any, get_args

import narwhals as nw
import numpy as np
import pyarrow as pa

from jaxgmm.record import check_some
from jaxgmm.report.content import Content, content_of_groups
from jaxgmm.report.page import write
from jaxgmm.settings import Criterion
from jaxgmm.tables.frame import arrow, read
from jaxgmm.tables.unchanged import check_unchanged


def write_report(
    found: Any,
    df: Any,
    path: str | Path,
    *,
    title: str | None = None,
    overwrite: bool = False,
) -> None:
    """Writes a page about the fits of a data frame: one HTML file, which a browser opens without a network.

    It has a table of all groups that sorts, filters and searches, pictures of all of them, maps of plates where the
    last key names wells, and beside these one group: samples, mixture, criterion, residuals, components.

    Args:
        found: B fits, as `jaxgmm.frames.fit_groups` returns them, or some of them (`found.of`).
        df: the frame that was fitted, which may hold other groups too.
        path: the HTML file; its directory must exist.
        title: of the page; without it, how many groups of what it shows.
        overwrite: whether to replace an existing file.

    Raises:
        ValueError: not fits of groups, or the frame holds other samples than were fitted.
        OSError: the file exists, or the disk refuses.
    """
    write(content_of_frame(found, df), path, title=title, overwrite=overwrite)


def content_of_frame(found: Any, df: Any) -> Content:
    """What a report about the fits of a frame is about; see `write_report`."""
    if not all(hasattr(found, name) for name in ("fits", "components", "models", "result")):
        raise ValueError(f"found must be what jaxgmm.frames.fit_groups returns; got {type(found).__name__}.")
    if np.ndim(found.result.status) != 1:
        raise ValueError("found is one group without a batch axis; select it as found.of([b]).")
    check_some(len(found.result.status))
    features, fits = list(found.features), nw.from_native(found.fits, eager_only=True)
    groups = read(df, found.keys, features, found.weights).by_group(found.keys)
    check_unchanged(groups, fits["n_samples"].to_numpy(), found.checksums)
    criterion = next((name for name in get_args(Criterion) if name in fits.columns[len(found.by) :]), None)
    return content_of_groups(groups, features, found.weights, found.result, _models(found), criterion)


def _models(found: Any) -> pa.Table | None:
    return None if found.models is None else arrow(nw.from_native(found.models, eager_only=True))
