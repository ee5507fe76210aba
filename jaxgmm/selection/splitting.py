"""A start with one more component: a mixture whose widest component is split in two.

Moves that split a component are those of Ueda, Nakano, Ghahramani and Hinton (2000), "SMEM algorithm for mixture
models"; here the choice of the component is simpler.
"""

import numpy as np

from jaxgmm.mixture import Mixture

# Distance of either half from the middle, in standard deviations of the component that is split. The halves keep the
# rest of the variance, so that the mixture keeps its first two moments.
DISTANCE = 0.7


def split_widest(mixture: Mixture, n_present: int) -> Mixture:
    """Splits, in each of B mixtures, the component that contributes most to the variance in one direction.

    Features count in units of the mixture's own standard deviation. Axis-aligned components are split along an axis.

    Args:
        mixture: `(B, K, …)`, of which the first `n_present` components are present. NumPy arrays.
        n_present: fewer than K.

    Returns:
        the same with one more component; NaN stays NaN.
    """
    weights, means, covariances = (np.array(leaf) for leaf in mixture.arrays)
    b, k = np.arange(len(weights)), n_present
    present = weights[:, :k, None]
    own = covariances if mixture.is_diagonal else np.diagonal(covariances, axis1=-2, axis2=-1)
    centre = np.sum(present * means[:, :k], axis=1, keepdims=True)
    scale = np.sqrt(np.sum(present * (own[:, :k] + (means[:, :k] - centre) ** 2), axis=1))
    # The direction and length of the widest axis of every component.
    if mixture.is_diagonal:
        relative = covariances[:, :k] / scale[:, None] ** 2
        axis = np.argmax(relative, axis=-1)
        width = np.max(relative, axis=-1)
        directions = np.eye(means.shape[-1])[axis]
    else:
        relative = covariances[:, :k] / (scale[:, None, :, None] * scale[:, None, None, :])
        values, vectors = np.linalg.eigh(np.where(np.isfinite(relative), relative, 0.0))
        width, directions = values[..., -1], vectors[..., -1]
    widest = np.argmax(weights[:, :k] * width, axis=1)
    step = DISTANCE * np.sqrt(width[b, widest])[:, None] * directions[b, widest] * scale
    weights[:, k] = weights[b, widest] = weights[b, widest] / 2
    means[:, k] = means[b, widest] + step
    means[b, widest] -= step
    taken = step**2 if mixture.is_diagonal else step[:, :, None] * step[:, None, :]
    covariances[b, widest] -= taken
    covariances[:, k] = covariances[b, widest]
    return Mixture(weights, means, covariances)
