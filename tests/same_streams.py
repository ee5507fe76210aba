"""Streams are compared bit for bit."""

from collections.abc import Sequence

import numpy as np

import jaxgmm
from jaxgmm.record import field_names


def arrays(stream: jaxgmm.Stream) -> dict[str, np.ndarray]:
    own = {name: getattr(stream, name) for name in field_names(stream) if name not in ("mixture", "passage")}
    for part in (stream.mixture, stream.passage):
        own |= {} if part is None else {name: getattr(part, name) for name in field_names(part)}
    return own


def assert_same(one: jaxgmm.Stream, other: jaxgmm.Stream, but: Sequence[str] = ()) -> None:
    assert arrays(one).keys() == arrays(other).keys()
    for name, array in arrays(one).items():
        if name not in but:
            np.testing.assert_array_equal(array, arrays(other)[name], err_msg=name)
