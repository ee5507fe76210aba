"""The runs of a chunk, and what is found out about them as they are taken on.

`jaxgmm.search` decides which runs go how far in which precision; `jaxgmm.passes` takes them there.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxgmm.em import run as em
from jaxgmm.findings import Judgement, Pass, judged, none_yet
from jaxgmm.mixture import Mixture
from jaxgmm.passes import DataSets, Limits, take_to_ends
from jaxgmm.program import Options, Program, Way
from jaxgmm.soundness import is_sound
from jaxgmm.status import Status


class Known(NamedTuple):
    """What the search knows of runs `(Q,)`, on the host.

    Attributes:
        status: how they ended, or `RUNNING`.
        spurious: how many of their components are spurious.
        mean_scores: what they are compared by, per sample of weight 1; -inf where there is nothing.
    """

    status: Int[np.ndarray, " q"]
    spurious: Int[np.ndarray, " q"]
    mean_scores: Float[np.ndarray, " q"]


class Runs(NamedTuple):
    """The runs of a chunk, as far as they have come; run `(c M + m) R + r` is start `r` of model `m` on data set `c`.

    Attributes:
        states: `(C M R,)`, float64.
        judgement: `(C M R,)`, what is found out about them.
        known: `(C M R,)`, what of that decides where they go.
        finished: `(C M R,)`, whether a run was finished in the precision of the answer, and so may be chosen.
        executed: run-iterations that were made.
        useful: those that some run needed.
    """

    states: em.RunState
    judgement: Judgement
    known: Known
    finished: np.ndarray
    executed: int
    useful: int

    def by_fit(self, n_init: int) -> Float[np.ndarray, "g r"]:
        """Mean scores of the starts of each fit."""
        return self.known.mean_scores.reshape(-1, n_init)


# What must be left of a variance in float64 for its error to be a ten-millionth of it, and where samples are centred on
# each component, so that nothing cancels, for it to be known at all; in machine epsilons.
ACCURATE_IN_FLOAT64 = 2**22
SOUND = 64


def begun(starts: Mixture, program: Program) -> Runs:
    """Runs `(Q,)` that have made no step yet. Made on the host: that spares a dispatch for each array."""
    n_runs, n_history, n_snapshots = len(starts.weights), program.n_history, program.n_snapshots

    def full(value: float, dtype: type, *shape: int) -> Any:
        return np.full(shape, value, dtype)

    states = em.RunState(
        mixture=starts,
        natural=None,
        log_likelihood=full(np.nan, np.float64, n_runs),
        n_iter=full(0, np.int32, n_runs),
        status=full(em.RUNNING, np.int32, n_runs),
        history=full(np.nan, np.float64, n_runs, n_history) if n_history else None,
        snapshots=Mixture(*(full(np.nan, np.float64, n_runs, n_snapshots, *leaf.shape[1:]) for leaf in starts))
        if n_snapshots
        else None,
    )
    judgement = none_yet(n_runs)
    known = Known(*map(np.asarray, (states.status, judgement.findings.spurious, judgement.mean_scores)))
    return Runs(states, judgement, known, np.zeros(n_runs, bool), 0, 0)


class Work(NamedTuple):
    """What all passes over the runs of a chunk have in common."""

    sets: DataSets
    starts: Mixture
    options: Options
    program: Program

    def in_float32(self, found: Runs, wanted: Bool[np.ndarray, " q"], limits: Limits, way: Way) -> Runs:
        """Takes the wanted runs on from where they were `found`; others keep what they have."""
        return self._take_on(found, wanted, limits, way, "float32")

    def in_float64(
        self,
        found: Runs,
        wanted: Bool[np.ndarray, " q"],
        rivals: Bool[np.ndarray, " q"],
        limits: tuple[float, int],
        way: Way,
    ) -> Runs:
        """The same, with components as narrow as float64 can tell: about their own means where they need that.

        What has become too narrow on a few samples is spurious, and ends there if a rival of the same fit is sound and
        better. `limits` are tolerance and most iterations.
        """
        n_init = self.program.layout.n_init
        before = found.by_fit(n_init)
        found = self._take_on(found, wanted, Limits(*limits, ACCURATE_IN_FLOAT64), way, "float64")
        lost = wanted & (found.known.status == Status.DEGENERATE)
        if not np.any(lost):
            return found
        if self.options.avoids_spurious:
            # A run that was centred before is lost at once, and is worth what it was worth then.
            scores = np.maximum(found.by_fit(n_init), before)
            is_rival = rivals & is_sound(found.known.status, found.known.spurious)
            best = np.max(np.where(is_rival.reshape(scores.shape), scores, -np.inf), axis=1, keepdims=True)
            is_worse = (scores > -np.inf) & (scores < best)
            lost &= (found.known.spurious == 0) | ~is_worse.ravel()
            if not np.any(lost):
                return found
        return self._take_on(found, lost, Limits(*limits, SOUND), self.program.centred, "float64")

    def _take_on(self, found: Runs, wanted: Bool[np.ndarray, " q"], limits: Limits, way: Way, dtype: str) -> Runs:
        (sets, starts, options, program), models = self, self.options.models
        states, useful, executed = take_to_ends(
            *(sets, starts, found.states, wanted, models, limits, options.snapshots),
            effort="quickly" if program.effort == "at once" else "well",
            layout=program.layout,
            way=way,
            dtype=dtype,
        )
        made = Pass(
            states._replace(history=None, snapshots=None),
            *(wanted, found.judgement.findings, limits.extra_ridge, options.avoids_spurious),
        )
        judgement = judged(made, sets, models, program.layout, program.effort)
        # All at once: on a GPU each look costs as much as a dozen kernels.
        wanted_here = (states.status, judgement.findings.spurious, judgement.mean_scores)
        known, executed, useful = jax.device_get((wanted_here, executed, useful))
        executed, useful = found.executed + int(executed), found.useful + int(useful)
        return Runs(states, judgement, Known(*known), found.finished, executed, useful)
