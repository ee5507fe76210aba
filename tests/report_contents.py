"""Reports to test: fits that are made up, and what a file holds, read back."""

import json
import re
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

import jaxgmm
from jaxgmm.report import Content, pieces
from jaxgmm.report.flags import FLAGS
from jaxgmm.report.packing import unpacked

# Keys that would break a page which took them for anything but texts.
ODD = ("A01 </script><b>&'\"\u00b5", "<!--<script>", "\u2028", "", "x" * 10_000, None)


class Page(NamedTuple):
    """The parts of a file."""

    text: str
    meta: dict[str, Any]
    core: dict[str, np.ndarray]
    blocks: list[dict[str, np.ndarray]]

    def column(self, name: str) -> np.ndarray:
        return np.concatenate([block[name] for block in self.blocks])

    def flags(self, b: int) -> list[str]:
        return [name for bit, (name, *_) in enumerate(FLAGS) if self.core["flags"][b] >> bit & 1]


def read(text: str) -> Page:
    parts = dict(re.findall(r'<script type="[\w/]+" id="(\w+)">(.*?)</script>', text))
    blocks = [unpacked(parts[f"b{number}"]) for number in range(len(parts) - 2)]
    return Page(text, json.loads(parts["meta"]), unpacked(parts["core"]), blocks)


def page_of(content: Content, title: str | None = None) -> Page:
    return read(b"".join(pieces(content, title)).decode("ascii"))


def filled(n_groups: int, n_features: int, n_samples: int = 40, **changed: Any) -> Content:
    """Groups of two clusters, and the mixtures that they were drawn from."""
    rng = np.random.default_rng(n_features)
    means = np.stack([np.zeros(n_features), np.full(n_features, 6.0)]) + 100 * np.arange(n_groups)[:, None, None]
    which = rng.integers(2, size=(n_groups, n_samples))
    samples = np.take_along_axis(means, which[..., None], axis=1) + rng.normal(size=(n_groups, n_samples, n_features))
    covariances = np.tile(np.eye(n_features), (n_groups, 2, 1, 1))
    none = np.empty((n_groups, 0))
    zeros = np.zeros(n_groups, np.int32)
    result = jaxgmm.FitResult(
        mixture=jaxgmm.Mixture(np.full((n_groups, 2), 0.5), means, covariances),
        log_likelihood=np.full(n_groups, -1.0),
        gap=np.zeros(len(zeros)),
        n_iter=zeros,
        status=zeros,
        spurious=zeros,
        ridge_dominated=zeros,
        start_passed_over=zeros.astype(bool),
        n_samples=np.full(n_groups, float(n_samples)),
        n_parameters=zeros,
        ridge=np.zeros((n_groups, n_features)),
        start_log_likelihood=none,
        start_status=none.astype(np.int32),
        start_spurious=none.astype(np.int32),
        history=None,
        efficiency=1.0,
    )
    made = Content(
        keys=pa.table({"plate": [1] * n_groups, "well": [f"A{b:03}" for b in range(n_groups)]}),
        features=[f"f{j}" for j in range(n_features)],
        weights=None,
        samples=samples.reshape(-1, n_features),
        sample_weight=None,
        offsets=n_samples * np.arange(n_groups + 1),
        result=result,
        models=None,
        criterion=None,
    )
    return made._replace(**changed)


def tried(**columns: Any) -> dict[str, np.ndarray]:
    """Models as in the table of a sweep."""
    n = len(columns["data_set"])
    others = {
        "covariance_type": ["full"] * n,
        "reg_covar": [1e-12] * n,
        "status": ["CONVERGED"] * n,
        "spurious": [0] * n,
        "n_agreeing": [2] * n,
        "passed_over": [False] * n,
        "at_largest_k": [False] * n,
    }
    return {name: np.array(values) for name, values in (others | columns).items()}
