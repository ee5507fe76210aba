"""Labels of rows: the component of each, and how well it fits, under the mixture of the row's group."""

import numpy as np
from jaxtyping import Float, Int

from jaxgmm.engine.batch import Batch
from jaxgmm.mixture import Mixture
from jaxgmm.pieces import of_each
from jaxgmm.posterior import LABELS, LABELS_AND_RESPONSIBILITIES
from jaxgmm.tables.groups import stable_order
from jaxgmm.tables.tabular import label_columns


def labels(
    mixture: Mixture, group: Int[np.ndarray, " m"], samples: Float[np.ndarray, "m d"], *, probabilities: bool
) -> dict[str, np.ndarray]:
    """Labels of M samples.

    Args:
        mixture: `(B, K, …)`, the mixtures of the groups.
        group: `(M,)`, the number of each sample's group; -1 where it has none.
        samples: `(M, D)`.
        probabilities: whether to return the probability of every component.

    Returns:
        `(M,)` by column: `component`, -1 where there is none; `probability`, that of this component; `log_density`, in
        nats; `p_value`, of an outlier (see `jaxgmm.outlier_p_values`); and on request `probability_0` to
        `probability_K-1`. NaN where a group has no answer, or a feature is missing or infinite.
    """
    names = label_columns(mixture.n_components, probabilities=probabilities)
    values = np.full((len(names), len(group)), np.nan)
    is_known = (group >= 0) & np.all(np.isfinite(samples), axis=1)
    # Rows without labels come last.
    order = stable_order(np.where(is_known, group, len(mixture.weights)))[: np.count_nonzero(is_known)]
    if len(order):
        lengths = np.bincount(group[order], minlength=len(mixture.weights))
        owners, first = np.flatnonzero(lengths), np.cumsum(lengths) - lengths
        data = Batch(samples[order], first[owners], lengths[owners], is_single=False)
        quantity = LABELS_AND_RESPONSIBILITIES if probabilities else LABELS
        values[:, order] = of_each(quantity, mixture.of(owners), data, np.dtype(np.float64)).T
    component = np.where(values[0] >= 0, values[0], -1).astype(np.int32)
    return dict(zip(names, values, strict=True)) | {"component": component}
