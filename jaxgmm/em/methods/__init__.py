"""How runs get from one E-step to the next parameters, as rows of one table.

A step has two halves: the E-step reads samples at the parameters that the method names, and the method advances the run
from what was summed up. So a method never sees a sample, and works with every E-step and every family.

    em    plain EM

A new method is a module here, and a row. Kernels of a GPU have methods of their own, of the same names
(`jaxgmm.em.fused.METHODS`); runs of others pass through slots.
"""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array, Bool

from jaxgmm.em.methods import plain
from jaxgmm.em.state import RunState


class Method(NamedTuple):
    """What a method does with runs. All arrays may have further trailing axes, of runs that step together.

    Attributes:
        init: from starts and settings to the states before the first step; see `plain.init`.
        read: from states to the parameters `(K, F)` at which the E-step reads samples.
        advance: from states and what the E-step found to the next states; finished ones stay. See `plain.advance`.
        is_finished: which runs have ended.
    """

    init: Callable[..., RunState]
    read: Callable[[RunState], Array]
    advance: Callable[..., RunState]
    is_finished: Callable[[RunState], Bool[Array, "*s"]]


METHODS = {"em": Method(plain.init, plain.read, plain.advance, plain.is_finished)}
