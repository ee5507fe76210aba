"""A batch in chunks, which are dispatched to all devices."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from jaxgmm.driver.chunk import Inputs
from jaxgmm.driver.plan import Chunk, ModelSet, plan_for
from jaxgmm.driver.program import Combination, Request
from jaxgmm.driver.search import has_search
from jaxgmm.engine.batch import Batch, Sizes, of_each, padded, placed, successive
from jaxgmm.engine.devices import machine, map_chunks
from jaxgmm.mixture import Mixture

Value = TypeVar("Value")


def on_chunks(
    work: Callable[[Chunk], Value],
    data: Batch,
    models: Sequence[Combination],
    request: Request,
    report: Callable[[int], None],
    *,
    sizes: Sizes | None = None,
    by_components: bool = False,
) -> Iterator[tuple[Chunk, Value]]:
    """Cuts data sets into chunks and calls `work` on each, on all devices; yields each chunk and the value returned.

    `sizes` are those of all data sets of the job of which these are a part, if there are more.
    """
    hardware = machine(request.threads)
    planned = plan_for(sizes or data.sizes, models, request, hardware, by_components=by_components)

    def program_of(chunk: Chunk) -> tuple:
        shapes = [
            (
                *(model_set.program, has_search(model_set.options, model_set.program)),
                *(model_set.n_samples, len(model_set.options.models.form), len(model_set.options.reg_covar)),
            )
            for model_set in chunk.model_sets
        ]
        return (chunk.size, data.samples.shape[1], data.samples.dtype.str, *shapes)

    for chunk, value in map_chunks(work, planned.chunks(data.lengths), program_of, Chunk.halves, hardware):
        report(chunk.n_runs)
        yield chunk, value


def inputs_of(
    chunk: Chunk,
    model_set: ModelSet,
    data: Batch,
    start: Any = None,
    active: np.ndarray | None = None,
    last_start: Mixture | None = None,
) -> Inputs:
    """The inputs from which a set of models is fitted to a chunk, padded with empty data sets.

    Data sets that are not `active` are not fitted. `last_start` replaces the last start of every fit.
    """
    # The padding is empty, so it is not fitted.
    lengths = np.zeros(chunk.size, data.lengths.dtype)
    lengths[: len(chunk.data_sets)] = data.lengths[successive(chunk.data_sets)]
    if active is not None:
        lengths[: len(active)][~active] = 0
    if start is None:
        chunk_start = last_start
    elif isinstance(start, Mixture):
        chunk_start = of_each(start, chunk.data_sets, chunk.size)
    else:
        chunk_start = padded(start, data, chunk.data_sets, model_set.n_samples, chunk.size)
    chunk_weights = None if data.weights_of is None else data.weights_of(chunk.filled_up, model_set.n_samples)
    x = placed(data.samples, data, chunk.data_sets, model_set.n_samples, chunk.size)
    return Inputs(x, lengths, chunk_weights, chunk_start, model_set.options, model_set.program)
