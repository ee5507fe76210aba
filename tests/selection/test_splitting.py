"""A split mixture keeps its mean and covariance, and splits what is widest."""

import numpy as np
import pytest

from jaxgmm.mixture import Mixture, full_covariances
from jaxgmm.selection.splitting import split_widest


def mixture(*, diagonal: bool) -> Mixture:
    rng = np.random.default_rng(0)
    weights = np.array([[0.2, 0.8, 0.0, 0.0], [0.7, 0.3, 0.0, 0.0]])
    factors = rng.normal(size=(2, 4, 3, 3)) + np.eye(3)
    covariances = factors @ factors.swapaxes(-1, -2)
    covariances[1, 0] *= 50
    if diagonal:
        covariances = np.diagonal(covariances, axis1=-2, axis2=-1).copy()
    return Mixture(weights, rng.normal(size=(2, 4, 3)), covariances)


def moments(mixture: Mixture) -> tuple[np.ndarray, np.ndarray]:
    weights = mixture.weights[..., None]
    mean = np.sum(weights * mixture.means, axis=1)
    gaps = mixture.means - mean[:, None]
    spread = full_covariances(mixture) + gaps[..., :, None] * gaps[..., None, :]
    return mean, np.sum(weights[..., None] * spread, axis=1)


@pytest.mark.parametrize("diagonal", [False, True])
def test_mean_and_covariance_are_kept(diagonal: bool) -> None:
    before = mixture(diagonal=diagonal)
    after = split_widest(before, 2)
    for own, expected in zip(moments(after), moments(before), strict=True):
        np.testing.assert_allclose(own, expected, atol=1e-12)
    assert np.all(np.linalg.eigvalsh(full_covariances(after)[:, :3]) > 0)
    # In the second mixture the first component is far the widest.
    np.testing.assert_allclose(after.weights[1], [0.35, 0.3, 0.35, 0.0])
    np.testing.assert_array_equal(after.means[1, 1], before.means[1, 1])


def test_nan_stays_nan() -> None:
    before = mixture(diagonal=False).map(lambda leaf: np.full_like(leaf, np.nan))
    assert np.all(np.isnan(split_widest(before, 2).weights[:, :3]))
