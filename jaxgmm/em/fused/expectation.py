"""E-step of runs in lanes, number by number; see `jaxgmm.em.fused`."""

import math
from collections.abc import Sequence
from typing import Any

from jax import lax

from jaxgmm.em.fused.parameters import less, whitened
from jaxgmm.em.fused.rows import Component, Kernel, Read, Shape, State
from jaxgmm.numerics.lanes import OfRuns, OfSamples

# Blocks of samples read in one turn of a loop, so that loads overlap with arithmetic.
UNROLLED = 4

_LN_2 = math.log(2.0)


def e_step(state: State, read: Read, n_blocks: Any, kernel: Kernel) -> tuple[list[Component], OfRuns]:
    """Sums about the current means, laid out as components are, and log-likelihoods in nats."""
    (arrays, elementary, shape, *_), components = kernel, state.components
    means = [[arrays.spread(m) for m in component.mean] for component in components]
    constants = [arrays.spread(natural.constant) for natural in state.natural]
    whiteners = [[arrays.spread(v) for v in natural.whitener] for natural in state.natural]

    def of_block(block: Sequence[OfSamples]) -> list[OfSamples]:
        """All sums of one block; the last is the log-likelihood, to base 2."""
        *x, weight = block
        centred = [[own - m for own, m in zip(x, mean, strict=True)] for mean in means]
        log_joint = [_log_joint(*parts, shape) for parts in zip(constants, whiteners, centred, strict=True)]
        most = arrays.most(log_joint)
        joint = [elementary.exp2(row - most) for row in log_joint]
        density = arrays.sum(joint)
        scale = weight * elementary.reciprocal(density)
        sums = []
        for row, d in zip(joint, centred, strict=True):
            part = row * scale
            first = [part * own for own in d]
            sums += [part, *first, *(first[i] * d[j] for i, j in shape.entries)]
        return [*sums, weight * (most + elementary.log2(density))]

    def add(block: Any, sums: list[OfSamples]) -> list[OfSamples]:
        return [a + b for a, b in zip(sums, of_block(read(block)), strict=True)]

    def add_several(turn: Any, sums: list[OfSamples]) -> list[OfSamples]:
        for i in range(UNROLLED):
            sums = add(turn * UNROLLED + i, sums)
        return sums

    # From a finite number, so that it has the layout of other numbers of runs.
    zero = arrays.spread(0 * state.n_iter)
    sums = [zero] * (len(components) * shape.n_own + 1)
    n_turns = n_blocks // UNROLLED
    sums = lax.fori_loop(0, n_turns, add_several, sums)
    *sums, log_likelihood = lax.fori_loop(n_turns * UNROLLED, n_blocks, add, sums)
    totals = iter([arrays.total(row) for row in sums])
    d, v = shape.n_features, len(shape.entries)
    found = [Component(next(totals), [next(totals) for _ in range(d)], [next(totals) for _ in range(v)]) for _ in means]
    return found, _LN_2 * arrays.total(log_likelihood)


def _log_joint(constant: OfSamples, whitener: list[OfSamples], centred: list[OfSamples], shape: Shape) -> OfSamples:
    """log2 w N(x | μ, Σ) of one component."""
    return less(constant, [own * own for own in whitened(whitener, centred, shape)])
