"""The table of methods: how runs get from one E-step to the next parameters.

A step has two halves: the E-step reads samples at the parameters that the method chooses, and the method advances the
run from the sums. So a method never sees a sample, and works with every E-step and every family.

    quasi-newton  EM accelerated by what successive steps say of the likelihood's curvature
    squarem       EM accelerated by squared extrapolation of every two steps
    em            plain EM
    lbfgs, adam   gradients, with directions by optax

A new method is a module here, and a row. GPU kernels know the first three (`jaxgmm.em.fused.METHODS`); runs of the
others use slots.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array, Bool

from jaxgmm.em.methods import accelerated, common, gradient, plain
from jaxgmm.em.methods.accelerated import Acceleration
from jaxgmm.em.methods.quasi_newton import QUASI_NEWTON
from jaxgmm.em.methods.squarem import SQUAREM
from jaxgmm.em.state import RunState


class Method(NamedTuple):
    """The functions of a method. All arrays may have further trailing axes, for runs that step together.

    Attributes:
        init: from records of runs and settings to the states before the next step; see `plain.init`.
        read: from states to the parameters `(K, F)` at which the E-step reads samples.
        advance: from states and the results of the E-step to the next states; finished ones are unchanged. See
            `plain.advance`.
        is_finished: which runs have ended.

    `init` and `advance` leave in `RunState.gap` how much is left to gain.
    """

    init: Callable[..., RunState]
    read: Callable[[RunState], Array]
    advance: Callable[..., RunState]
    is_finished: Callable[[RunState], Bool[Array, "*s"]]


def _accelerated(acceleration: Acceleration) -> Method:
    advance = functools.partial(accelerated.advance, acceleration=acceleration)
    return Method(accelerated.init, common.read, advance, common.is_finished)


def _by_gradients(rule: gradient.Rule) -> Method:
    init, advance = gradient.by(rule)
    return Method(init, common.read, advance, common.is_finished)


# The first is the default.
METHODS = {
    "quasi-newton": _accelerated(QUASI_NEWTON),
    "squarem": _accelerated(SQUAREM),
    "em": Method(plain.init, common.read, plain.advance, common.is_finished),
    "lbfgs": _by_gradients(gradient.lbfgs()),
    "adam": _by_gradients(gradient.adam()),
}
