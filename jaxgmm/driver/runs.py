"""The runs of a chunk, and the findings about them as they advance.

`jaxgmm.driver.search` decides which runs advance how far in which precision; `jaxgmm.driver.passes` advances them, and
`jaxgmm.driver.findings` examines them in the same program.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxgmm.driver.findings import CLOSER_LOOK, FirstLook, Judgement, Pass, first_look, none_yet
from jaxgmm.driver.passes import Given, Limits, PassProgram, take_to_ends
from jaxgmm.driver.program import Options, Program, Way
from jaxgmm.em import state as em
from jaxgmm.em.spurious import Findings
from jaxgmm.mixture import Mixture
from jaxgmm.numerics.kernels import compiled
from jaxgmm.soundness import is_sound
from jaxgmm.status import Status


class Known(NamedTuple):
    """What the search knows of runs `(Q,)`, on the host.

    Attributes:
        status: how they ended, or `RUNNING`.
        spurious: number of their spurious components.
        ridge_dominated: number that owe much of a variance to the ridge; after a search, to the ridge that it added.
        mean_scores: the scores by which they are compared, per sample of weight 1; -inf where there is none.
    """

    status: Int[np.ndarray, " q"]
    spurious: Int[np.ndarray, " q"]
    ridge_dominated: Int[np.ndarray, " q"]
    mean_scores: Float[np.ndarray, " q"]


class Runs(NamedTuple):
    """The current state of the runs of a chunk; run `(c M + m) R + r` is start `r` of model `m` on data set `c`.

    Attributes:
        states: `(C M R,)`, float64.
        judgement: `(C M R,)`, findings and scores.
        known: `(C M R,)`, the part of that on which the search decides.
        finished: `(C M R,)`, whether a run was finished in the precision of the answer, and so may be chosen.
        executed: number of run-iterations that were made.
        useful: number of those that some run needed.
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


# What must be left of a variance in float64, in machine epsilons, for its relative error to be a ten-millionth; and for
# it to have any correct digit if samples are centred on each component, where nothing cancels.
ACCURATE_IN_FLOAT64 = 2**22
SOUND = 64


def begun(starts: Mixture, program: Program) -> Runs:
    """Runs `(Q,)` that have made no step yet. Made on the host, which saves a dispatch for each array."""
    n_runs, n_history, n_snapshots = len(starts.weights), program.n_history, program.n_snapshots

    def full(value: float, dtype: type, *shape: int) -> Any:
        return np.full(shape, value, dtype)

    states = em.RunState(
        mixture=starts,
        natural=None,
        log_likelihood=full(np.nan, np.float64, n_runs),
        gap=full(np.inf, np.float64, n_runs),
        n_iter=full(0, np.int32, n_runs),
        status=full(em.RUNNING, np.int32, n_runs),
        history=full(np.nan, np.float64, n_runs, n_history) if n_history else None,
        snapshots=starts.map(lambda leaf: full(np.nan, np.float64, n_runs, n_snapshots, *leaf.shape[1:]))
        if n_snapshots
        else None,
    )
    judgement = none_yet(n_runs)
    known = Known(*map(np.asarray, _known(states, judgement)))
    return Runs(states, judgement, known, np.zeros(n_runs, bool), 0, 0)


class Passes(NamedTuple):
    """The common part of all passes over the runs of a chunk.

    Attributes:
        given: data sets, starts and models.
        options: tolerance and limits.
        program: the static part.
    """

    given: Given
    options: Options
    program: Program

    def in_float32(self, found: Runs, wanted: Bool[np.ndarray, " q"], limits: Limits, way: Way) -> Runs:
        """Advances the wanted runs from their state in `found`; others are unchanged."""
        return self._take_on(found, wanted, limits, way, "float32")

    def in_float64(
        self,
        found: Runs,
        wanted: Bool[np.ndarray, " q"],
        rivals: Bool[np.ndarray, " q"],
        limits: tuple[float, int],
        way: Way,
    ) -> Runs:
        """The same in float64, with sums about each component's mean for runs too narrow for raw moments.

        A run that has become too narrow on a few samples is spurious, and ends there if a rival of the same fit is
        sound and better. `limits` are tolerance and maximum number of iterations.
        """
        n_init = self.program.layout.n_init
        before = found.by_fit(n_init)
        found = self._take_on(found, wanted, Limits(*limits, ACCURATE_IN_FLOAT64), way, "float64")
        lost = wanted & (found.known.status == Status.DEGENERATE)
        if not np.any(lost):
            return found
        if self.options.avoids_spurious:
            # A run that was centred before is lost at once, and keeps its earlier score.
            scores = np.maximum(found.by_fit(n_init), before)
            is_rival = rivals & is_sound(found.known.status, found.known.spurious)
            best = np.max(np.where(is_rival.reshape(scores.shape), scores, -np.inf), axis=1, keepdims=True)
            is_worse = (scores > -np.inf) & (scores < best)
            lost &= (found.known.spurious == 0) | ~is_worse.ravel()
            if not np.any(lost):
                return found
        return self._take_on(found, lost, Limits(*limits, SOUND), self.program.centred, "float64")

    def _take_on(self, found: Runs, wanted: Bool[np.ndarray, " q"], limits: Limits, way: Way, dtype: str) -> Runs:
        given, layout, effort = self.given, self.program.layout, self.program.effort
        before, limits = found.judgement.findings, limits._replace(snapshots=self.options.snapshots)
        # Most of the time is spent in its loops, so it is compiled with more effort than code that runs once.
        states, first, counts = TAKE_ON["quickly" if effort == "at once" else "well"](
            *(given, found.states, before, wanted, limits), program=PassProgram(layout, self.program.method, way, dtype)
        )
        judgement = first.judgement
        known, counts, is_small, is_suspect = jax.device_get(
            (_known(states, judgement), counts, first.any_small, first.any_suspect)
        )
        if is_small or is_suspect:
            made = _made(states, before, wanted, limits)
            judgement = CLOSER_LOOK[effort](made, first, given, layout=layout, has_suspects=bool(is_suspect))
            known = jax.device_get(_known(states, judgement))
        useful, executed = (total + int(own) for total, own in zip((found.useful, found.executed), counts, strict=True))
        return Runs(states, judgement, Known(*known), found.finished, executed, useful)


def _known(states: em.RunState, judgement: Judgement) -> tuple[Any, ...]:
    """`Known`, on the device. The host fetches it all at once: on a GPU each fetch costs as much as a dozen kernels."""
    findings = judgement.findings
    return states.status, findings.spurious, findings.ridge_dominated, judgement.mean_scores


def _made(states: em.RunState, before: Findings, wanted: Any, limits: Limits) -> Pass:
    return Pass(states._replace(history=None, snapshots=None), wanted, before, limits.extra_ridge)


def _take_on(
    given: Given, states: em.RunState, before: Findings, wanted: Any, limits: Limits, *, program: PassProgram
) -> tuple[em.RunState, FirstLook, tuple[Int[Array, ""], Int[Array, ""]]]:
    """A pass and the first look, in one program; also returns the numbers of useful and executed run-iterations."""
    states, useful, executed = take_to_ends(given, states, wanted, limits, program)
    made = _made(states, before, wanted, limits)
    first = first_look(made, given, program.layout)
    return states, first, (useful, executed)


TAKE_ON = compiled(_take_on, static_argnames=("program",))
