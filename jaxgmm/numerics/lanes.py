"""Arrays in the lanes of a device: how a GPU kernel holds the numbers of runs.

A kernel has no small matrices. Each array holds one number: of every run, or (wide) of every component of the only run;
or of every sample that the lanes have read. `jaxgmm.engine.fused` makes them, and `jaxgmm.em.fused` computes with them.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jaxtyping import Array

# One number of every run, or of every sample.
OfRuns = Array
OfSamples = Array


class Arrays(NamedTuple):
    """How arrays of runs and of samples relate.

    Attributes:
        spread: from runs to samples.
        total: the sum over samples, of runs.
        most: the largest of the components, of samples, from their list.
        sum: the sum over the components, of samples, from their list.
        sum_of_runs: the same of runs.
        most_of_runs: the largest of the components, of runs.
    """

    spread: Callable[[OfRuns], OfSamples]
    total: Callable[[OfSamples], OfRuns]
    most: Callable[[Sequence[OfSamples]], OfSamples]
    sum: Callable[[Sequence[OfSamples]], OfSamples]
    sum_of_runs: Callable[[Sequence[OfRuns]], OfRuns]
    most_of_runs: Callable[[Sequence[OfRuns]], OfRuns]


class Store(NamedTuple):
    """Numbers of runs that are put away while samples are read, so that they occupy no registers.

    Attributes:
        begun: the first state of the store. A loop carries its state.
        load: from a state to the arrays in it.
        save: from a state and new arrays to the next state.
    """

    begun: Any
    load: Callable[[Any], list[OfRuns]]
    save: Callable[[Any, list[OfRuns]], Any]
