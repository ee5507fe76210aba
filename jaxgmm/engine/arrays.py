"""Conversion of numbers in any form that users pass to NumPy arrays, with errors that say why one is not possible.

Frames, columns and tensors of other libraries are read through NumPy's own protocol, `__array__`. Arrays of objects,
such as those with missing values, are converted object by object; a missing value is NaN.
"""

import numbers
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

_NATIVE = (np.dtype(np.float32), np.dtype(np.float64))
_NUMBERS = (numbers.Real, Decimal, np.bool_, type(None))


def numeric(values: Any, name: str) -> np.ndarray:
    """Real numbers as an array of float32 or float64; other types become float64.

    Raises:
        ValueError: text, dates, complex numbers, masked entries, not an array, or a traced array.
    """
    if isinstance(values, jax.Array) and not is_traced(values):
        values = np.asarray(values)
    if type(values) is np.ndarray and values.dtype in _NATIVE and values.dtype.isnative:
        return values
    array = _numbers(values, name)
    # Compiled programs read the machine's own byte order, whatever the dtype says.
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return array if array.dtype in _NATIVE else array.astype(np.float64)


def holds_integers(values: Any, name: str) -> bool:
    """Whether all values are integers of any type; 1.0 is not one."""
    array = _as_array(values, name)
    if array.dtype == object:
        return all(issubclass(kind, (numbers.Integral, np.bool_)) for kind in set(map(type, array.ravel().tolist())))
    return array.dtype.kind in "iub"


def is_sequence(values: Any, n_axes: int) -> bool:
    """Whether values are a sequence of arrays, not one array.

    A list of numbers, or of lists of them, is one array, unless it has more than `n_axes` axes, the number that belongs
    to one data set.
    """
    if isinstance(values, np.ndarray):
        return values.dtype == object and values.ndim == 1 and any(map(_is_array, values))
    if not isinstance(values, Sequence) or isinstance(values, (str, bytes, memoryview)):
        return False
    return len(values) == 0 or any(_is_array(item) or _depth(item) >= n_axes for item in values)


def is_traced(values: Any) -> bool:
    """Whether JAX is tracing values, so that they are not concrete."""
    return isinstance(values, Tracer)


def refuse_traced(values: Any, name: str) -> None:
    """Raises ValueError if JAX is tracing values that the host has to know."""
    if is_traced(values):
        raise ValueError(_traced(name))


def hint(values: Any, name: str, n_features: int = 1) -> str:
    """A hint on how to pass values that have one axis too few, where there should be so many features."""
    if len(values) == n_features > 1:
        return f" For one sample, pass {name}[None]."
    column = f"{name}.to_frame()" if hasattr(values, "to_frame") else f"{name}[:, None]"
    return f" For one feature, pass {column}."


def _is_array(item: Any) -> bool:
    """Whether an item of a sequence is an array, frame or column, not a number."""
    return hasattr(item, "__array__") and not isinstance(item, np.generic) and getattr(item, "ndim", 1) != 0


def _depth(item: Any) -> int:
    """How many axes a list of lists has."""
    depth = 0
    while isinstance(item, (list, tuple)):
        item, depth = item[0] if item else None, depth + 1
    return depth


def _traced(name: str) -> str:
    return (
        f"{name} is traced by jax.jit, vmap or grad, and this function runs on the host: call it outside of them, or "
        "through jax.pure_callback; inside, jaxgmm.fit_differentiable fits from a start that you give."
    )


def _as_array(values: Any, name: str) -> np.ndarray:
    """The values as NumPy converts them."""
    refuse_traced(values, name)
    try:
        return np.asarray(values)
    except jax.errors.TracerArrayConversionError:
        raise ValueError(_traced(name)) from None
    except ValueError as error:
        raise ValueError(
            f"{name} is not an array: {str(error).rstrip('.')}. Pass data sets of unequal length as a list of arrays."
        ) from None
    except (TypeError, RuntimeError, AttributeError) as error:
        # Tensors on another device, or in a graph, raise these errors.
        raise ValueError(f"{name} cannot be read as a NumPy array: {error}") from None


def _numbers(values: Any, name: str) -> np.ndarray:
    """An array of bools, integers or floating-point numbers."""
    array = _as_array(values, name)
    if isinstance(values, np.ma.MaskedArray) and np.any(np.ma.getmaskarray(values)):
        raise ValueError(f"{name} has masked entries; give their samples weight 0, or remove them.")
    if array.dtype.kind in "OUS":
        if array.ndim == 0:
            raise ValueError(f"{name} must be an array of real numbers; got {_described(values)}.{_remedy(values)}")
        return _from_objects(values, np.asarray(values, dtype=object), name)
    if array.dtype.kind == "V" and jnp.issubdtype(array.dtype, jnp.number):
        # JAX's bfloat16, and its numbers of a few bits, are unknown to NumPy.
        return array.astype(np.float32)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold real numbers; its dtype is {array.dtype}.")
    return array


def _from_objects(values: Any, array: np.ndarray, name: str) -> np.ndarray:
    """The numbers in an array of objects; None and NA become NaN."""
    objects = array.ravel().tolist()
    kinds = set(map(type, objects))
    missing = tuple(kind for kind in kinds if kind.__name__ == "NAType")
    wrong = tuple(kind for kind in kinds if not issubclass(kind, (*_NUMBERS, *missing)))
    if wrong:
        first = next(i for i, item in enumerate(objects) if type(item) in wrong)
        place = np.unravel_index(first, array.shape)
        columns = getattr(values, "columns", None)
        column = "" if columns is None or array.ndim != 2 else f", in column {_column_name(values, int(place[1]))!r},"
        raise ValueError(
            f"{name} must hold real numbers; {name}[{', '.join(map(str, place))}]{column} is "
            f"{_described(objects[first])}.{_remedy(objects[first])}"
        )
    if missing:
        array = np.array([np.nan if isinstance(item, missing) else item for item in objects]).reshape(array.shape)
    try:
        return array.astype(np.float64)
    except (OverflowError, ValueError) as error:
        raise ValueError(f"{name} must hold real numbers that float64 can represent: {error}.") from None


def _column_name(frame: Any, place: int) -> Any:
    names = getattr(frame, "column_names", frame.columns)
    return names[place]


def _described(item: Any) -> str:
    """An object in a sentence."""
    told = repr(item)
    kind = type(item).__name__
    return f"{told} ({kind})" if len(told) <= 40 and "\n" not in told else f"an object of type {kind}"


def _remedy(item: Any) -> str:
    """A hint on how to make an array."""
    if hasattr(item, "toarray"):
        return " Pass its .toarray()."
    if hasattr(item, "collect"):
        return " Pass its .collect()."
    is_iterable = hasattr(item, "__iter__") and not isinstance(item, (str, bytes, dict))
    return " Pass a list or an array of what it yields." if is_iterable else ""
