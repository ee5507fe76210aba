"""One group of a frame: its fit with its samples."""

from dataclasses import replace
from typing import Any

import numpy as np

from jaxgmm.diagnosis import Diagnosis, diagnose
from jaxgmm.doubts import FLAGS
from jaxgmm.fit_result import FitResult
from jaxgmm.flagging import flags
from jaxgmm.mixture import Mixture
from jaxgmm.record import Block, Record, counted, record, written
from jaxgmm.resampling import Bootstrap, bootstrap
from jaxgmm.selection.sweep_result import Sweep
from jaxgmm.tables.groups import unusable
from jaxgmm.tables.wording import listed, title_of


@record
class GroupFit(Record):
    """The fit of one group, with its samples. What takes a mixture takes it as well.

    Attributes:
        key: the group's key, a value for each key column.
        features: names of the D features.
        x: `(N, D)`, its samples.
        sample_weight: `(N,)`, or None for 1.
        rows: `(N,)`, the rows of the frame that they are, numbered from 0.
        result: its fit, without a batch axis.
        sweep: all models fitted to it; None where there was no choice.
    """

    key: tuple[Any, ...]
    features: tuple[str, ...]
    x: np.ndarray
    sample_weight: np.ndarray | None
    rows: np.ndarray
    result: FitResult
    sweep: Sweep | None

    @property
    def mixture(self) -> Mixture:
        """The group's mixture."""
        return self.result.mixture

    @property
    def name(self) -> str:
        """The key as a title: `P04, 67`."""
        return title_of(self.key)

    @property
    def doubts(self) -> list[str]:
        """The reasons to distrust the fit, residuals included, each a sentence; see `jaxgmm.flags`.

        If samples hold NaN or infinity, the last sentence names their rows.
        """
        sentences = [f"{self.name} {FLAGS[name]}." for name, holds in self.flags().items() if np.any(holds)]
        rows = self.rows[unusable(self.x, self.sample_weight)]
        if len(rows):
            n, noun = f"{len(rows):,} of {counted(len(self.x), 'sample')}", "row" if len(rows) == 1 else "rows"
            sentences.append(f"{self.name} holds NaN or infinity in {n}: {noun} {listed(rows)} of the frame.")
        return sentences

    def flags(self) -> dict[str, np.ndarray]:
        """The reasons to distrust the fit, residuals included, and whether each holds; see `jaxgmm.flags`."""
        return flags(self.result if self.sweep is None else self.sweep, self.x, self.sample_weight)

    def diagnose(self) -> Diagnosis:
        """See `jaxgmm.diagnose`."""
        return replace(diagnose(self.result, self.x, self.sample_weight), features=self.features)

    def bootstrap(self, n_replicates: int = 1000, **options: Any) -> Bootstrap:
        """See `jaxgmm.bootstrap`, whose options these are."""
        return bootstrap(self.result, self.x, n_replicates, sample_weight=self.sample_weight, **options)

    @property
    def _batch(self) -> tuple[int, ...]:
        return ()

    def _described(self) -> tuple[str, list[Block]]:
        title, blocks = self.result._described(".result")
        doubts = self.doubts
        title = f"{self.name}: {counted(len(self.x), 'sample')}, {title.partition(': ')[2]}"
        return title, [*blocks, *([written(doubts, is_kept=True)] if doubts else [])]
