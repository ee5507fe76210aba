"""The request of a sweep."""

from typing import NamedTuple

import numpy as np

from jaxgmm.driver.program import Combination
from jaxgmm.em.covariance import n_parameters
from jaxgmm.engine.batch import Batch, Sizes
from jaxgmm.selection.criteria import CRITERIA, Criterion


class SweepRequest(NamedTuple):
    """The models that are fitted to each data set, and how one is chosen.

    Attributes:
        data: B data sets.
        sizes: those of all data sets of the job of which these are a part.
        models: M combinations of K, family and ridge.
        criteria: names, of which the first chooses.
        patience: the number of consecutive K without improvement after which raising K stops; None for no limit.
        split: whether the fit of one K provides a start for the next.
        n_replicates: R of the likelihood-ratio test.
    """

    data: Batch
    sizes: Sizes
    models: list[Combination]
    criteria: list[str]
    patience: int | None
    split: bool
    n_replicates: int

    @property
    def criterion(self) -> Criterion:
        """The one that chooses."""
        return CRITERIA[self.criteria[0]]

    @property
    def reads(self) -> set[str]:
        """What criteria need of a fit, beside what every fit has: fields of `Evidence`."""
        return {field for name in self.criteria if (field := CRITERIA[name].reads)}

    @property
    def compares_ridges(self) -> bool:
        """Whether ridges are compared with each other."""
        return not self.criterion.is_information

    @property
    def n_components(self) -> np.ndarray:
        """K of each model, `(M,)`."""
        return np.array([k for k, _, _ in self.models])

    @property
    def n_parameters(self) -> np.ndarray:
        """Free parameters of each model, `(M,)`."""
        n_features = self.data.samples.shape[1]
        return np.array([n_parameters(k, n_features, family) for k, family, _ in self.models])

    @property
    def by_components(self) -> bool:
        """Whether the models of one K must wait for those of the previous K."""
        return self.patience is not None or self.split
