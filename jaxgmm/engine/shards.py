"""One data set over many devices: which rows are where, and what all devices have to agree on.

The rows of a data set are divided evenly along one mesh axis, in their order. With `jax.distributed` the devices belong
to several processes, which make the same calls.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from jaxgmm.engine.arrays import is_traced, numeric
from jaxgmm.engine.batch import Batch
from jaxgmm.settings import is_integer

# The mesh axis along which samples are divided.
AXIS = "shards"

Device = Any  # a jax.Device, whose type its stubs do not export
_Tree = TypeVar("_Tree")

_NEGATIVE = "sample_weight must not be negative. Give samples to be left out weight 0."


class Shards(NamedTuple):
    """The samples of one data set, divided over devices.

    Attributes:
        mesh: the devices, along `AXIS`.
        x: `(S L, D)`, L rows on each of S devices.
        weights: `(S L,)`, or None for 1.
        n_samples: N; rows beyond are padding, of any values.
    """

    mesh: Mesh
    x: Array
    weights: Array | None
    n_samples: int

    @property
    def length(self) -> int:
        """L."""
        return self.x.shape[0] // self.mesh.size

    @property
    def as_batch(self) -> Batch:
        """A batch of this shape, for checks of other arguments; it holds no samples."""
        nothing = np.broadcast_to(np.zeros(()), (self.n_samples, self.x.shape[1]))
        return Batch(nothing, np.zeros(1, int), np.full(1, self.n_samples), is_single=True)

    @property
    def is_first(self) -> bool:
        """Whether the first device belongs to this process."""
        return self.mesh.devices.flat[0].process_index == jax.process_index()

    @property
    def n_processes(self) -> int:
        """The number of processes to which the devices belong."""
        return len({device.process_index for device in self.mesh.devices.flat})


def is_divided(x: Any) -> bool:
    """Whether an array is one data set `(N, D)` whose rows are on several devices."""
    if not isinstance(x, jax.Array) or is_traced(x) or x.ndim != 2:
        return False
    return len(x.sharding.device_set) > 1 and not x.is_fully_replicated


def shards_of(x: Any, sample_weight: Any, devices: Any) -> Shards | None:
    """The shards of a data set that is divided over devices, or is to be; None for any other.

    Args:
        x: samples.
        sample_weight: `(N,)`, not negative; None for 1.
        devices: None for those that hold `x`; else a number of local devices, or a sequence of devices.

    Raises:
        ValueError: wrong shapes, types, devices or weights.
    """
    if devices is None:
        return _divided(x, sample_weight) if is_divided(x) else None
    if is_divided(x):
        raise ValueError("x is divided over devices already; leave out devices.")
    mesh = Mesh(np.array(_checked_devices(devices)), (AXIS,))
    if isinstance(x, list | tuple) and any(np.ndim(own) > 1 for own in x[:1]):
        _refuse("is a sequence of data sets")
    rows = numeric(x, "x")
    if rows.ndim != 2 or 0 in rows.shape:
        _refuse(f"has shape {rows.shape}")
    return Shards(mesh, placed(rows, mesh), _placed_weights(sample_weight, len(rows), mesh), len(rows))


def _refuse(said: str) -> NoReturn:
    raise ValueError(
        f"devices divide one data set (N, D) that is not empty; x {said}. Leave out devices to fit many data sets."
    )


def _divided(x: Array, sample_weight: Any) -> Shards:
    """The shards of an array whose rows are on several devices."""
    if not (jnp.issubdtype(x.dtype, jnp.floating) or jnp.issubdtype(x.dtype, jnp.integer)):
        raise ValueError(f"x must hold real numbers; its dtype is {x.dtype}.")
    n_samples, n_features = x.shape
    # Devices of other mesh axes hold the same rows.
    device_of: dict[int, Device] = {}
    for device, (rows, columns) in x.sharding.devices_indices_map(x.shape).items():
        if columns.indices(n_features)[:2] != (0, n_features):
            raise ValueError("x must be divided along its samples only (axis 0), not along its features.")
        device_of.setdefault(rows.indices(n_samples)[0], device)
    mesh = Mesh(np.array([device_of[first] for first in sorted(device_of)]), (AXIS,))
    if isinstance(sample_weight, jax.Array) and not sample_weight.is_fully_addressable:
        return Shards(mesh, _moved(x, mesh), _global_weights(sample_weight, x, mesh), n_samples)
    return Shards(mesh, _moved(x, mesh), _placed_weights(sample_weight, n_samples, mesh), n_samples)


def _moved(rows: Array, mesh: Mesh) -> Array:
    """The same array, without a copy, with the sharding of a mesh that has the same rows on the same devices."""
    devices = set(mesh.devices.flat)
    own = [shard.data for shard in rows.addressable_shards if shard.device in devices]
    return jax.make_array_from_single_device_arrays(rows.shape, by_rows(mesh), own)


def _global_weights(weights: Array, x: Array, mesh: Mesh) -> Array:
    """Weights that are divided over processes."""
    if weights.shape != x.shape[:1]:
        raise ValueError(f"sample_weight must have shape {x.shape[:1]} to match x; it has shape {weights.shape}.")
    rows_of = x.sharding.devices_indices_map(x.shape)
    if {d: rows[:1] for d, rows in rows_of.items()} != weights.sharding.devices_indices_map(weights.shape):
        raise ValueError("sample_weight must be divided over devices as x is.")
    moved = _moved(weights, mesh)
    if bool(_has_negative(moved)):
        raise ValueError(_NEGATIVE)
    return moved


def _placed_weights(sample_weight: Any, n_samples: int, mesh: Mesh) -> Array | None:
    """Weights of the host."""
    if sample_weight is None:
        return None
    weights = numeric(sample_weight, "sample_weight")
    if weights.shape != (n_samples,):
        raise ValueError(f"sample_weight must have shape {(n_samples,)} to match x; it has shape {weights.shape}.")
    if np.any(weights < 0):
        raise ValueError(_NEGATIVE)
    return placed(weights, mesh)


def _checked_devices(devices: Any) -> list[Device]:
    """Devices of this process, by their number or one by one."""
    if is_integer(devices):
        local = jax.local_devices()
        if not 1 <= devices <= len(local):
            raise ValueError(
                f"devices must be a number from 1 to {len(local)}, the devices of this process, or a sequence of "
                f"jax.Device; got {devices!r}."
            )
        return local[: int(devices)]
    given = list(devices) if isinstance(devices, Sequence) and not isinstance(devices, str) else []
    if not given or not all(isinstance(device, jax.Device) for device in given) or len(set(given)) < len(given):
        raise ValueError(f"devices must be a number, or a sequence of different jax.Device; got {devices!r}.")
    if any(device.process_index != jax.process_index() for device in given):
        raise ValueError(
            "devices must belong to this process; over several processes, make x by "
            "jax.make_array_from_process_local_data and leave out devices."
        )
    return given


def placed(rows: np.ndarray, mesh: Mesh) -> Array:
    """Rows `(N, …)` of the host on the devices of a mesh, padded to as many for each."""
    length = -(-len(rows) // mesh.size)

    def of(index: Any) -> np.ndarray:
        own = rows[index]
        return np.concatenate([own, np.zeros((length - len(own), *rows.shape[1:]), rows.dtype)])

    # Otherwise float64 would become float32 on the way.
    with jax.enable_x64(True):
        return jax.make_array_from_callback((length * mesh.size, *rows.shape[1:]), by_rows(mesh), of)


def by_rows(mesh: Mesh) -> NamedSharding:
    """The sharding of arrays with a row for each sample."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def agreed(tree: _Tree, mesh: Mesh) -> _Tree:
    """Arrays of the host that belongs to the first device, in place of a host's own.

    Hosts may differ in rounding; what differs on devices would lead them to steps of different numbers.
    """

    def spread(leaf: Any) -> Array:
        own = np.asarray(leaf)[None]
        return jax.make_array_from_callback((mesh.size, *own.shape[1:]), by_rows(mesh), lambda _: own)

    return jax.tree.map(np.asarray, _of_first(jax.tree.map(spread, tree), mesh=mesh))


def checksum(shards: Shards) -> str:
    """What tells samples and weights from others, whatever devices they are divided over."""
    with jax.enable_x64(True):
        columns = (shards.x,) if shards.weights is None else (shards.x, shards.weights[:, None])
        return f"{int(_checksum(columns, shards.n_samples)):016x}"


@jax.jit
def _checksum(columns: Sequence[Array], n_samples: Array) -> Array:
    found = jnp.zeros((), jnp.uint64)
    for values in columns:
        bits = lax.bitcast_convert_type(values.astype(jnp.float64), jnp.uint64)
        # A permutation of the values has another sum. The last bits of float32's values are all 0.
        place = jnp.arange(values.size, dtype=jnp.uint64).reshape(values.shape)
        mixed = (bits ^ (bits >> 32)) * (2 * place + 1)
        inside = jnp.arange(len(values)) < n_samples
        found = found * 31 + jnp.sum(jnp.where(inside[:, None], mixed, 0))
    return found


@jax.jit
def _has_negative(weights: Array) -> Array:
    return jnp.any(weights < 0)


@functools.partial(jax.jit, static_argnames=("mesh",))
def _of_first(tree: _Tree, *, mesh: Mesh) -> _Tree:
    def first(tree: _Tree) -> _Tree:
        is_first = lax.axis_index(AXIS) == 0
        return jax.tree.map(lambda leaf: lax.psum(jnp.where(is_first, leaf[0], 0), AXIS), tree)

    return jax.shard_map(first, mesh=mesh, in_specs=PartitionSpec(AXIS), out_specs=PartitionSpec(), check_vma=False)(
        tree
    )
