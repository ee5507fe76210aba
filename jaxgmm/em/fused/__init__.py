"""EM of a run that occupies a few lanes of a GPU: the arithmetic of `jaxgmm.em.run`, written out number by number.

All of it is plain JAX on arrays of `jaxgmm.numerics.lanes`, and runs on any device; `jaxgmm.engine.fused` makes kernels
of it.

Logarithms are to base 2, which the card computes directly. Samples are centred on each component, as in
`jaxgmm.em.centred`, so that almost nothing cancels:

    log2 w_k N(x | μ_k, Σ_k) = c_k - |V_k (x - μ_k)|²,    V_k = (½ log2 e)^½ L_k⁻¹,    Σ_k = L_k L_kᵀ.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxgmm.em.fused.expectation import e_step
from jaxgmm.em.fused.methods import METHODS
from jaxgmm.em.fused.parameters import KNOWN_FAMILIES, checked
from jaxgmm.em.fused.rows import ELEMENTARY, Kernel, Read, Shape, State, of_rows, to_rows
from jaxgmm.em.state import RUNNING
from jaxgmm.numerics.lanes import OfRuns, Store
from jaxgmm.status import Status

__all__ = ["KNOWN_FAMILIES", "METHODS", "life", "life_of", "stored_rows"]


def life(
    fixed: Sequence[OfRuns],
    moving: Sequence[OfRuns],
    store: Store,
    read: Read,
    n_blocks: Any,
    n_steps: Any,
    kernel: Kernel,
) -> tuple[list[OfRuns], Any, Array]:
    """Advances runs to their ends, or by `n_steps` steps; see `jaxgmm.em.run.step`.

    Args:
        fixed: their settings, in the order of `jaxgmm.em.fused.rows.fixed_rows`.
        moving: their states, in the order of `jaxgmm.em.fused.rows.moving_rows`.
        store: holds what the method keeps from one step to the next, in the order of `stored_rows`.
        read: loads a block of samples.
        n_blocks: number of blocks.
        n_steps: maximum number of steps.
        kernel: the static part.

    Returns:
        where they are then, the state of the store, and how many steps the longest of them made.
    """
    state, asked = of_rows(fixed, moving, kernel.shape)
    natural, unsound = checked(state.components, asked, kernel)
    # A run whose start is not sound ends at once. Later parameters may be unsound: a method may take them back.
    is_lost = (unsound > 0) & (state.n_iter == 0) & (state.status == RUNNING)
    state = state._replace(
        natural=natural,
        log_likelihood=jnp.where(is_lost, jnp.nan, state.log_likelihood),
        status=jnp.where(is_lost, float(Status.DEGENERATE), state.status),
    )
    method = METHODS[kernel.method]
    form = jax.tree.structure(method.memory(kernel.shape))

    def body(carry: tuple[State, Any, Array, Array]) -> tuple[State, Any, Array, Array]:
        state, stored, count, _ = carry
        sums = e_step(state, read, n_blocks, kernel)
        state, memory = method.advance(
            state, lambda: jax.tree.unflatten(form, store.load(stored)), *sums, asked, kernel
        )
        return state, store.save(stored, jax.tree.leaves(memory)), count + 1, _any_running(state)

    def unfinished(carry: tuple[State, Any, Array, Array]) -> Array:
        *_, count, any_running = carry
        return (any_running > 0) & (count < n_steps)

    start = (state, store.begun, jnp.int32(0), _any_running(state))
    state, stored, n_made, _ = lax.while_loop(unfinished, body, start)
    return to_rows(state), stored, n_made


def life_of(shape: Shape, dtype: str, method: str, *, centred: bool) -> Callable[..., tuple[list[OfRuns], Any, Array]]:
    """`life` of a shape, precision and method, given in place of the static part how arrays relate."""

    def of_arrays(*rows_and_limits: Any) -> tuple[list[OfRuns], Any, Array]:
        *given, arrays = rows_and_limits
        return life(*given, kernel=Kernel(arrays, ELEMENTARY[dtype], shape, centred, method))

    return of_arrays


def stored_rows(method: str, moving: Float[Array, "m q *k"], shape: Shape) -> Float[Array, "r q *k"]:
    """What a method keeps of runs that are about to begin, a row of all runs for each number."""
    memory = jnp.asarray(jax.tree.leaves(METHODS[method].memory(shape)), moving.dtype)
    return jnp.broadcast_to(memory.reshape(-1, *[1] * (moving.ndim - 1)), (len(memory), *moving.shape[1:]))


def _any_running(state: State) -> Array:
    return jnp.max(jnp.where(state.status == RUNNING, 1.0, jnp.zeros_like(state.log_likelihood)))
