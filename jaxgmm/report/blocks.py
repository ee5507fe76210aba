"""Blocks of groups: what is drawn and told of each. A page decodes a block when one of its groups is seen."""

from collections.abc import Iterator

import numpy as np

import jaxgmm
from jaxgmm.report.content import Content
from jaxgmm.report.drawn import Drawn
from jaxgmm.report.models import Models
from jaxgmm.report.packing import packed

# Groups in a block: a screen of pictures needs two or three.
SIZE = 64


def blocks(content: Content, drawn: Drawn, checks: "jaxgmm.Diagnosis", models: Models | None) -> Iterator[str]:
    """The blocks of all groups, in order, as packed texts.

    Args:
        content: the fits.
        drawn: samples to draw.
        checks: the diagnosis of the fits.
        models: the models that were tried, or None.
    """
    components = _components(content, drawn, checks)
    n_groups = content.keys.num_rows
    first = np.searchsorted(components["group"], np.arange(n_groups + 1))
    for start in range(0, n_groups, SIZE):
        part = slice(start, min(start + SIZE, n_groups))
        arrays = _samples(drawn, part)
        arrays["p"] = checks.p_values[part].astype(np.float32)
        arrays["k"] = np.diff(first[part.start : part.stop + 1]).astype(np.uint16)
        own = slice(first[part.start], first[part.stop])
        arrays |= {name: column[own] for name, column in components.items() if name != "group"}
        yield packed(arrays if models is None else arrays | _tried(models, part))


def _samples(drawn: Drawn, part: slice) -> dict[str, np.ndarray]:
    """Samples of some groups. The first feature rises within a group: its differences are small, and compress well."""
    offsets = drawn.offsets[part.start : part.stop + 1]
    levels = drawn.levels[offsets[0] : offsets[-1]]
    steps = np.diff(levels[:, 0], prepend=levels[:1, 0])
    begins = offsets[:-1][np.diff(offsets) > 0] - offsets[0]
    steps[begins] = levels[begins, 0]
    arrays = {
        "n": np.diff(offsets).astype(np.uint16),
        "lost": drawn.n_lost[part].astype(np.uint32),
        "zero": drawn.n_zero[part].astype(np.uint32),
        "low": drawn.low[part],
        "span": drawn.span[part],
        "x0": steps,
    }
    arrays |= {f"x{j}": levels[:, j] for j in range(1, levels.shape[1])}
    return arrays if drawn.weights is None else arrays | {"w": drawn.weights[offsets[0] : offsets[-1]]}


def _components(content: Content, drawn: Drawn, checks: "jaxgmm.Diagnosis") -> dict[str, np.ndarray]:
    """All components of all groups, in units of the groups' boxes, which float32 can hold wherever the data lie."""
    mixture, table = content.result.mixture, checks.table
    group, component = table["data_set"], table["component"]
    low, unit = drawn.low[group], drawn.span[group]
    covariances = mixture.covariances[group, component]
    if mixture.is_diagonal:
        covariances = covariances[:, :, None] * np.eye(covariances.shape[1])
    with np.errstate(over="ignore"):
        means = ((mixture.means[group, component] - low) / unit).astype(np.float32)
        # One division after the other, as squares of units may leave the range of numbers.
        covariances = (covariances / unit[:, :, None] / unit[:, None, :]).astype(np.float32)
    return {
        "group": group,
        "name": component.astype(np.uint16),
        "weight": table["weight"].astype(np.float32),
        "mean": means,
        "cov": covariances[:, *np.tril_indices(means.shape[1])],
        "effective": table["effective_count"].astype(np.float32),
        "nearest": np.maximum(table["nearest"], 0).astype(np.uint16),
        "overlap": table["overlap"].astype(np.float32),
    }


def _tried(models: Models, part: slice) -> dict[str, np.ndarray]:
    """The models of some groups."""
    own = slice(models.offsets[part.start], models.offsets[part.stop])
    return {
        "models": np.diff(models.offsets[part.start : part.stop + 1]).astype(np.uint16),
        "mk": models.k[own].astype(np.uint16),
        "mfamily": models.family[own].astype(np.uint8),
        "mstatus": models.status[own].astype(np.uint8),
        "mflag": (models.hollow[own] + 2 * models.chosen[own]).astype(np.uint8),
        "mabove": models.above[own].astype(np.float32),
    }
