"""Programs of questions to a mixture are found again by the shapes of what they read."""

import jax
import numpy as np
import pytest
from test_density import mixtures, samples

import jaxgmm
from jaxgmm import pieces


@pytest.mark.parametrize(
    "ask",
    [
        lambda shift: jaxgmm.log_prob(mixtures().map(lambda leaf: leaf * shift), samples(20, 2)),
        lambda shift: jaxgmm.log_prob(mixtures(3).map(lambda leaf: leaf * shift), samples(3, 20, 2)),
        lambda shift: jaxgmm.log_prob(mixtures().map(lambda leaf: leaf * shift), samples(20_000, 2)),
        lambda shift: jaxgmm.sample(0, mixtures(3).map(lambda leaf: leaf * shift), 5),
    ],
    ids=["one piece", "a batch", "many pieces", "draws"],
)
def test_another_mixture_of_the_same_shape_lowers_nothing(ask) -> None:
    ask(1)
    before = pieces._compiled.cache_info()
    ask(2)
    after = pieces._compiled.cache_info()
    assert after.misses == before.misses
    assert after.hits > before.hits


def test_mixtures_of_another_device_have_programs_of_their_own() -> None:
    """With one device, a device that is named is the same as none, but other factors are kept for it."""
    mixture, x = mixtures(), samples(20, 2)
    expected = jaxgmm.log_prob(mixture, x)
    kept = pieces._kept_factors.cache_info().misses
    with jax.default_device(jax.devices()[0]):
        np.testing.assert_array_equal(jaxgmm.log_prob(mixture, x), expected)
    assert pieces._kept_factors.cache_info().misses == kept + 1
