"""Streams are compared bit for bit."""

from collections.abc import Sequence

import numpy as np

import jaxgmm
from jaxgmm.record import field_names


def arrays(stream: jaxgmm.Stream) -> dict[str, np.ndarray]:
    own = {name: getattr(stream, name) for name in field_names(stream) if name not in ("mixture", "passage")}
    return own | {name: getattr(stream.mixture, name) for name in field_names(stream.mixture)}


def assert_same(one: jaxgmm.Stream, other: jaxgmm.Stream, but: Sequence[str] = ()) -> None:
    for name, array in arrays(one).items():
        if name not in but:
            np.testing.assert_array_equal(array, arrays(other)[name], err_msg=name)
