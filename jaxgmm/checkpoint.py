"""Files in which long fits keep their state, and the request that they belong to."""

import hashlib
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

import jaxgmm
from jaxgmm.record import Record

State = TypeVar("State", bound=Record)


class Checkpoint(NamedTuple, Generic[State]):
    """Where the state is kept.

    Attributes:
        kind: its type.
        path: the file, or None.
        every: number of steps between two.
        options: the request.
    """

    kind: type[State]
    path: str | Path | None
    every: int
    options: dict[str, Any]

    def read(self) -> State | None:
        """What is kept there, or None."""
        if self.path is None:
            return None
        # Here, so that a package that it needs is missed before any work.
        storage = jaxgmm.storage
        if not Path(self.path).exists():
            return None
        found, about = storage.load(self.path), storage.info(self.path)
        if not isinstance(found, self.kind) or about.options != self.options:
            differing = [name for name in self.options if about.options.get(name) != self.options[name]]
            named = f" ({', '.join(differing)})" if differing else ""
            raise ValueError(f"{self.path} is the checkpoint of another request{named}; name another file.")
        return found

    def keep(self, state: State) -> None:
        """Replaces what is kept."""
        if self.path is not None:
            jaxgmm.storage.save(self.path, state, options=self.options, overwrite=True)  # pyright: ignore[reportArgumentType]


def digest(value: Any) -> str:
    """What tells arrays, or records of them, from others."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(value):
        is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        array = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
        found.update(f"{array.dtype}{array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def in_words(options: dict[str, Any]) -> dict[str, Any]:
    """A request in the types that a file keeps; arrays and records of them by their digests."""
    plain = (bool, int, float, str, type(None))
    own = {name: value.item() if isinstance(value, np.generic) else value for name, value in options.items()}
    return {name: value if isinstance(value, plain) else digest(value) for name, value in own.items()}
