"""The fused pass in plain JAX: rounds, choice and `fit` as with kernels, on any machine."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgmm
from jaxgmm import fitting, passes
from jaxgmm.engine import fused
from jaxgmm.engine.devices import machine


def plain_kernel(life: fused.Life, lanes: fused.Lanes, _interpret: Any) -> Callable[..., Any]:
    """What a kernel computes, by arrays of JAX."""
    arrays = wide(lanes) if lanes.is_wide else narrow(lanes)

    def of_block(limits: Any, samples: Any, fixed: Any, moving: Any) -> Any:
        def read(i: Any) -> list[Any]:
            rows = list(samples[i])
            return [jnp.broadcast_to(row[:, None], (len(row), lanes.width)) for row in rows] if lanes.is_wide else rows

        rows, made = life(list(fixed), list(moving), read, limits[0], limits[1], arrays)
        return jnp.stack(rows), made

    def call(limits: Any, samples: Any, fixed: Any, moving: Any) -> Any:
        if not lanes.is_wide:
            fixed, moving = (rows.reshape(len(rows), -1, lanes.runs) for rows in (fixed, moving))
        moved, made = jax.vmap(of_block, (1, 0, 1, 1), (1, 0))(limits, samples, fixed, moving)
        return moved if lanes.is_wide else moved.reshape(len(moved), -1), made

    return call


def narrow(lanes: fused.Lanes) -> fused.Arrays:
    added, larger = functools.partial(functools.reduce, jnp.add), functools.partial(functools.reduce, jnp.maximum)
    shape = (lanes.runs, lanes.width)
    return fused.Arrays(
        lambda a: jnp.broadcast_to(a[:, None], shape), lambda a: jnp.sum(a, axis=1), larger, added, added
    )


def wide(lanes: fused.Lanes) -> fused.Arrays:
    def over(reduce: Callable[..., Any]) -> Callable[[Any], Any]:
        return lambda rows: jnp.broadcast_to(reduce(rows[0], axis=-1, keepdims=True), rows[0].shape)

    spread = lambda a: jnp.broadcast_to(a[None, :], (lanes.samples, lanes.width))  # noqa: E731
    return fused.Arrays(spread, lambda a: jnp.sum(a, axis=0), over(jnp.max), over(jnp.sum), over(jnp.sum))


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Makes a machine that has kernels, in plain JAX; tells the types of the passes that were made in them."""
    made: list[str] = []

    def counted(*args: Any, **options: Any) -> Any:
        made.append(options["dtype"])
        return in_kernels(*args, **options)

    in_kernels = jax.jit(passes.in_kernels, static_argnames=("layout", "way", "dtype"))
    monkeypatch.setattr(fused, "_kernel", plain_kernel)
    monkeypatch.setattr(fitting, "machine", lambda: machine()._replace(has_kernels=True))
    monkeypatch.setitem(passes._PASSES, fused.Lanes, dict.fromkeys(("well", "quickly", "at once"), counted))
    return made


def clusters(n_data_sets: int, n_samples: int, n_features: int, n_clusters: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = 3 * rng.normal(size=(n_data_sets, n_clusters, n_features))
    labels = rng.integers(0, n_clusters, (n_data_sets, n_samples))
    x = np.take_along_axis(centres, labels[..., None], axis=1)
    return x + rng.normal(size=x.shape)


@pytest.mark.parametrize("family", ["full", "tied", "spherical"])
def test_fits_are_those_of_slots(family: str, kernels: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    x = clusters(6, 100, 2, 3)
    options: dict[str, Any] = {"covariance_type": family, "n_init": 4, "precision": "float64"}
    found = jaxgmm.fit(x, 3, **options)
    assert set(kernels) == {"float64"}
    monkeypatch.setattr(fitting, "machine", machine)
    expected = jaxgmm.fit(x, 3, **options)
    for name in ("status", "spurious", "n_iter", "start_status"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_allclose(found.log_likelihood, expected.log_likelihood, rtol=1e-10)
    np.testing.assert_allclose(found.start_log_likelihood, expected.start_log_likelihood, rtol=1e-10)
    for own, other in zip(found.mixture, expected.mixture, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-7, atol=1e-9)
