"""The runs of a chunk, and the findings about them as they advance.

`jaxgmm.driver.search` decides which runs advance how far in which precision; `jaxgmm.driver.passes` advances them, and
`jaxgmm.driver.findings` examines them in the same program.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
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

# Which runs a pass advances.
Wanted = Bool[Array | np.ndarray, " q"]


class Known(NamedTuple):
    """What the search needs to know of runs `(Q,)` to choose among them, on the host.

    Attributes:
        status: how they ended, or `RUNNING`.
        spurious: number of their spurious components.
        ridge_dominated: number whose variance comes largely from the ridge; after a search, to the ridge that it added.
        mean_scores: the scores by which they are compared, per sample of weight 1; -inf where there is none.
    """

    status: Int[np.ndarray, " q"]
    spurious: Int[np.ndarray, " q"]
    ridge_dominated: Int[np.ndarray, " q"]
    mean_scores: Float[np.ndarray, " q"]

    def by_fit(self, n_init: int) -> Float[np.ndarray, "g r"]:
        """Mean scores of the starts of each fit."""
        return self.mean_scores.reshape(-1, n_init)


class Runs(NamedTuple):
    """The current state of the runs of a chunk; run `(c M + m) R + r` is start `r` of model `m` on data set `c`.

    Attributes:
        states: `(C M R,)`, float64.
        judgement: `(C M R,)`, findings and scores.
        finished: `(C M R,)`, whether a run was finished in the precision of the answer, and so may be chosen.
        executed: number of run-iterations that were made.
        useful: number of those that some run needed.
    """

    states: em.RunState
    judgement: Judgement
    finished: Bool[Array | np.ndarray, " q"]
    executed: int
    useful: int

    def fetch_known(self) -> Known:
        """The part on which the search decides. It waits for the device, and fetches all at once."""
        return Known(*jax.device_get(self._known))

    def begin_to_fetch_known(self) -> None:
        """Has the device send that part as soon as it is there."""
        for leaf in self._known:
            leaf.copy_to_host_async()

    @property
    def _known(self) -> tuple[Any, ...]:
        findings = self.judgement.findings
        return self.states.status, findings.spurious, findings.ridge_dominated, self.judgement.mean_scores


# What must be left of a variance in float64, in machine epsilons, for its relative error to be a ten-millionth; and for
# it to have any correct digit if samples are centred on each component, where nothing cancels.
ACCURATE_IN_FLOAT64 = 2**22
SOUND = 64


class Begun(NamedTuple):
    """Runs `(C M R,)` that have made no step yet.

    Attributes:
        states: without what is recorded of runs; see `recorded`.
        judgement: that of runs of which nothing is known.
    """

    states: em.RunState
    judgement: Judgement


def begun(starts: Mixture, xp: Any = np) -> Begun:
    """Runs before their first step, as arrays of NumPy or, in a program, of JAX."""
    n_runs = len(starts.weights)
    states = em.RunState(
        mixture=starts,
        natural=None,
        log_likelihood=xp.full(n_runs, xp.nan, xp.float64),
        gap=xp.full(n_runs, xp.inf, xp.float64),
        n_iter=xp.full(n_runs, 0, xp.int32),
        status=xp.full(n_runs, em.RUNNING, xp.int32),
        history=None,
        snapshots=None,
    )
    return Begun(states, none_yet(n_runs, xp))


def recorded(states: em.RunState, program: Program) -> em.RunState:
    """States of runs that have made no step yet, with room for what is recorded of them."""
    starts, n_history, n_snapshots = states.mixture, program.n_history, program.n_snapshots
    n_runs = len(starts.weights)

    def unknown(*shape: int) -> Any:
        return np.full((n_runs, *shape), np.nan)

    return states._replace(
        history=unknown(n_history) if n_history else None,
        snapshots=starts.map(lambda leaf: unknown(n_snapshots, *leaf.shape[1:])) if n_snapshots else None,
    )


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

    def in_float32(self, found: Runs, wanted: Wanted, limits: Limits, way: Way) -> Runs:
        """Advances the wanted runs from their state in `found`; others are unchanged."""
        return self._take_on(found, wanted, limits, way, "float32")[0]

    def in_float64(
        self,
        found: Runs,
        wanted: Wanted,
        rivals: Wanted,
        limits: tuple[float, int],
        way: Way,
    ) -> Runs:
        """The same in float64, with sums about each component's mean for runs too narrow for raw moments.

        A run that has become too narrow on a few samples is spurious, and ends there if a rival of the same fit is
        sound and better. `limits` are tolerance and maximum number of iterations.
        """
        before, n_init = found, self.program.layout.n_init
        found, any_lost = self._take_on(found, wanted, Limits(*limits, ACCURATE_IN_FLOAT64), way, "float64")
        if not any_lost:
            return found
        known = found.fetch_known()
        lost = np.asarray(wanted) & (known.status == Status.DEGENERATE)
        if self.options.avoids_spurious:
            # A run that was centred before is lost at once, and keeps its earlier score.
            scores = np.maximum(known.by_fit(n_init), before.fetch_known().by_fit(n_init))
            is_rival = np.asarray(rivals) & is_sound(known.status, known.spurious)
            best = np.max(np.where(is_rival.reshape(scores.shape), scores, -np.inf), axis=1, keepdims=True)
            is_worse = (scores > -np.inf) & (scores < best)
            lost &= (known.spurious == 0) | ~is_worse.ravel()
            if not np.any(lost):
                return found
        return self._take_on(found, lost, Limits(*limits, SOUND), self.program.centred, "float64")[0]

    def _take_on(self, found: Runs, wanted: Wanted, limits: Limits, way: Way, dtype: str) -> tuple[Runs, bool]:
        """The runs after a pass, and whether any that it advanced has ended degenerate."""
        given, layout, effort = self.given, self.program.layout, self.program.effort
        before, limits = found.judgement.findings, limits._replace(snapshots=self.options.snapshots)
        # Most of the time is spent in its loops, so it is compiled with more effort than code that runs once.
        states, first, told = TAKE_ON["quickly" if effort == "at once" else "well"](
            *(given, found.states, before, wanted, limits), program=PassProgram(layout, self.program.method, way, dtype)
        )
        found = found._replace(states=states, judgement=first.judgement)
        if layout.n_init > 1:
            found.begin_to_fetch_known()
        useful, executed, is_small, is_suspect, is_lost = jax.device_get(told).tolist()
        if is_small or is_suspect:
            made = _made(states, before, wanted, limits)
            closer = CLOSER_LOOK[effort](made, first, given, layout=layout, has_suspects=bool(is_suspect))
            found = found._replace(judgement=closer)
        return found._replace(executed=found.executed + executed, useful=found.useful + useful), bool(is_lost)


def _made(states: em.RunState, before: Findings, wanted: Any, limits: Limits) -> Pass:
    return Pass(states._replace(history=None, snapshots=None), wanted, before, limits.extra_ridge)


def _take_on(
    given: Given, states: em.RunState, before: Findings, wanted: Any, limits: Limits, *, program: PassProgram
) -> tuple[em.RunState, FirstLook, Int[Array, "5"]]:
    """A pass and the first look, in one program.

    Also returns what the host has to know at once: the numbers of useful and of executed run-iterations, whether any
    component is small, whether any is suspect, and whether any run has ended degenerate. On a GPU a fetch costs as much
    as a dozen kernels, so they are one array.
    """
    states, useful, executed = take_to_ends(given, states, wanted, limits, program)
    made = _made(states, before, wanted, limits)
    first = first_look(made, given, program.layout)
    is_lost = jnp.any(wanted & (states.status == int(Status.DEGENERATE)))
    told = (useful, executed, first.any_small, first.any_suspect, is_lost)
    return states, first, jnp.stack([jnp.asarray(number, jnp.int64) for number in told])


TAKE_ON = compiled(_take_on, static_argnames=("program",))
