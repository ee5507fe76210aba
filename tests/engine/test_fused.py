"""The fused pass in plain JAX: rounds, choice and `fit` as with kernels, on any machine."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import at_once, slow
from lanes_in_jax import narrow, stored, wide

import jaxgmm
from jaxgmm import Status, fitting
from jaxgmm.driver import dispatch, passes, runs
from jaxgmm.driver.choose import ChunkFits, without_fits
from jaxgmm.driver.chunk import Inputs
from jaxgmm.driver.prepare import PREPARED
from jaxgmm.em.fused import METHODS
from jaxgmm.engine import devices, fused
from jaxgmm.engine.devices import machine
from jaxgmm.numerics.kernels import EFFORTS
from jaxgmm.numerics.lanes import Store

TAKE_ON = runs.TAKE_ON["at once"]


def plain_kernel(life: fused.Life, lanes: fused.Lanes) -> Callable[..., Any]:
    """What a kernel computes, by arrays of JAX."""
    arrays = wide(lanes.samples, lanes.width) if lanes.is_wide else narrow(lanes.runs, lanes.width)

    def of_block(limits: Any, samples: Any, fixed: Any, moving: Any, kept: Any) -> Any:
        def read(i: Any) -> list[Any]:
            rows = list(samples[i])
            return [jnp.broadcast_to(row[:, None], (len(row), lanes.width)) for row in rows] if lanes.is_wide else rows

        rows, kept, made = life(list(fixed), list(moving), stored(kept), read, limits[0], limits[1], arrays)
        return jnp.stack(rows), jnp.stack(kept), made

    def call(limits: Any, samples: Any, *rows: Any) -> Any:
        if not lanes.is_wide:
            rows = tuple(own.reshape(len(own), -1, lanes.runs) for own in rows)
        moved, kept, made = jax.vmap(of_block, (1, 0, 1, 1, 1), (1, 1, 0))(limits, samples, *rows)
        if not lanes.is_wide:
            moved, kept = (own.reshape(len(own), -1) for own in (moved, kept))
        return moved, kept, made

    return call


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Makes a machine that has kernels, in plain JAX; tells the types of the passes that were made in them."""
    made: list[str] = []

    def counted(*args: Any, program: passes.PassProgram) -> Any:
        if isinstance(program.way, fused.Lanes):
            made.append(program.dtype)
        return TAKE_ON(*args, program=program)

    monkeypatch.setattr(fused, "_kernel", plain_kernel)
    monkeypatch.setattr(dispatch, "machine", lambda _threads: machine()._replace(has_kernels=True))
    for effort in EFFORTS:
        monkeypatch.setitem(runs.TAKE_ON, effort, counted)
    return made


def clusters(n_data_sets: int, n_samples: int, n_features: int, n_clusters: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = 3 * rng.normal(size=(n_data_sets, n_clusters, n_features))
    labels = rng.integers(0, n_clusters, (n_data_sets, n_samples))
    x = np.take_along_axis(centres, labels[..., None], axis=1)
    return x + rng.normal(size=x.shape)


def same(found: jaxgmm.FitResult, expected: jaxgmm.FitResult) -> None:
    for name in ("status", "spurious", "n_iter", "start_status"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_allclose(found.log_likelihood, expected.log_likelihood, rtol=1e-9)
    # Smaller ones are rounding.
    known = (expected.gap > 1e-12) & np.isfinite(expected.gap)
    assert np.any(known)
    np.testing.assert_allclose(found.gap[known], expected.gap[known], rtol=1e-2)
    np.testing.assert_allclose(found.start_log_likelihood, expected.start_log_likelihood, rtol=1e-9)
    for own, other in zip(found.mixture.arrays, expected.mixture.arrays, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-6, atol=1e-9)


class Case(NamedTuple):
    """Fits in one precision, which tests share for their programs."""

    x: np.ndarray
    n_components: int
    options: dict[str, Any]


# A run shares a warp, or has a block.
NARROW = Case(clusters(6, 100, 2, 2), 2, {"covariance_type": "spherical", "n_init": 4, "precision": "float64"})
WIDE = Case(
    clusters(6, 100, 3, 3), 3, {"covariance_type": "tied", "n_init": 4, "precision": "float64", "n_finalists": 2}
)


@pytest.mark.parametrize(
    ("case", "further"),
    [(NARROW, {}), (NARROW, {"tol": 0.0, "max_iter": 7}), slow(WIDE, {})],
    ids=["narrow", "narrow to max_iter", "wide"],
)
def test_fits_are_those_of_slots(
    case: Case, further: dict[str, Any], kernels: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = case.options | further
    found = jaxgmm.fit(case.x, case.n_components, **given)
    assert set(kernels) == {"float64"}
    monkeypatch.setattr(dispatch, "machine", machine)
    same(found, jaxgmm.fit(case.x, case.n_components, **given))


@pytest.mark.slow
def test_sweeps_are_those_of_slots(kernels: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Models of several K, families and ridges share programs."""
    x = clusters(4, 100, 2, 2)
    given: dict[str, Any] = {"covariance_type": ("full", "tied"), "reg_covar": (1e-6, 0.01), "n_init": 2}
    found = jaxgmm.sweep(x, (1, 2), **given, precision="float64")
    assert kernels
    monkeypatch.setattr(dispatch, "machine", machine)
    expected = jaxgmm.sweep(x, (1, 2), **given, precision="float64")
    for name in ("status", "n_iter", "spurious"):
        np.testing.assert_array_equal(found.table[name], expected.table[name])
    np.testing.assert_allclose(found.table["log_likelihood"], expected.table["log_likelihood"], rtol=1e-9)


@pytest.mark.slow
@pytest.mark.usefixtures("float32_searches")
def test_searches_and_explicit_starts_reach_the_optima_of_slots(
    kernels: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = clusters(6, 100, 2, 3)
    found = jaxgmm.fit(x, 3, n_init=4, tol=1e-9)
    again = jaxgmm.fit(x, 3, init=found.mixture, tol=1e-9)
    assert set(kernels) == {"float32", "float64"}
    monkeypatch.setattr(dispatch, "machine", machine)
    expected = jaxgmm.fit(x, 3, n_init=4, tol=1e-9)
    for own in (found, again):
        np.testing.assert_array_equal(own.status, expected.status)
        np.testing.assert_allclose(own.log_likelihood, expected.log_likelihood, rtol=1e-8)


def test_what_fills_up_a_block_waits_for_nobody() -> None:
    """Run 0 would go on for long, and is not asked for."""

    def count_up(fixed: Any, moving: Any, store: Store, _read: Any, _n_blocks: Any, n_steps: Any, _arrays: Any) -> Any:
        made = jnp.minimum(jnp.max(fixed[0] - moving[0]).astype(jnp.int32), n_steps)
        # Only what comes out of the store goes on.
        (own,) = store.load(store.begun)
        own = jnp.minimum(fixed[0], own + made.astype(own.dtype))
        return [own], store.save(store.begun, [own]), made

    targets, zeros = jnp.asarray([[1000.0, 5.0, 3.0]]), jnp.zeros((1, 3))
    row, n_used = jnp.zeros(3, jnp.int32), jnp.asarray([8])
    problem = fused.Problem(targets, zeros, zeros, jnp.zeros((1, 2, 8)), row, n_used)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "_kernel", plain_kernel)
        wanted, lanes = jnp.asarray([False, True, True]), fused.Lanes(16, 8)
        rows, executed = fused.run_in_rounds(
            problem, wanted, count_up, lambda moving: moving[0] < targets[0], lanes, jnp.int32(2)
        )
    np.testing.assert_array_equal(rows[0], [0, 5, 3])
    assert int(executed) == 5 * lanes.runs


@pytest.mark.slow
def test_starts_made_together_are_those_made_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    x = clusters(3, 100, 2, 3)
    made: list[list[np.ndarray]] = []

    def both_ways(inputs: Inputs) -> ChunkFits:
        for together in (1, 2):
            layout = inputs.program.layout._replace(together=together)
            given = (inputs.x, inputs.lengths, inputs.sample_weight, inputs.start, inputs.options)
            prepared = PREPARED["at once"](*given, layout=layout, init=inputs.program.init)
            made.append([np.asarray(leaf) for leaf in prepared.begun.states.mixture.arrays])
        n_fits = len(inputs.x)
        return without_fits(np.full(n_fits, Status.NONFINITE, np.int32), inputs.program, 2)

    monkeypatch.setattr(fitting, "fit_chunk", both_ways)
    jaxgmm.fit(x, 3, n_init=7)
    one_by_one, together = made
    assert len(one_by_one[0]) >= 3 * 7
    for own, other in zip(together, one_by_one, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("case", [NARROW, slow(WIDE)], ids=["narrow", "wide"])
def test_a_bad_neighbour_changes_no_bit(case: Case, kernels: list[str]) -> None:
    spoilt = case.x.copy()
    spoilt[2, 5] = np.nan
    spoilt[4] = 1.0
    own, found = (
        jaxgmm.fit(case.x, case.n_components, **case.options),
        jaxgmm.fit(spoilt, case.n_components, **case.options),
    )
    assert kernels
    assert found.status[2] == Status.NONFINITE
    for row in (0, 1, 3, 5):
        for leaf, other in zip(jax.tree.leaves(found.mixture), jax.tree.leaves(own.mixture), strict=True):
            np.testing.assert_array_equal(leaf[row], other[row])


def test_weights_and_lengths_are_read_when_kernels_run(kernels: list[str]) -> None:
    x = NARROW.x
    sets = [x[0], x[1][:64], x[2][:40], x[3], x[4]]
    weights = [np.ones(len(own)) for own in sets]
    weights[3][::3] = 0
    found = jaxgmm.fit(sets, 2, sample_weight=weights, **NARROW.options)
    assert kernels
    counted = [own > 0 for own in weights]
    without, ones = ([own[rows] for own, rows in zip(of, counted, strict=True)] for of in (sets, weights))
    expected = jaxgmm.fit(without, 2, sample_weight=ones, **NARROW.options)
    np.testing.assert_allclose(found.log_likelihood, expected.log_likelihood, rtol=1e-9)


@pytest.mark.slow
def test_steps_are_made_in_rounds(kernels: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs go on where they were: how many steps a kernel makes changes nothing."""
    options = NARROW.options | {"tol": 1e-9}
    # So few runs go to their ends in one round.
    expected = jaxgmm.fit(NARROW.x, 2, **options)
    monkeypatch.setattr(fused, "FILLING", 128)
    monkeypatch.setitem(METHODS, "quasi-newton", METHODS["quasi-newton"]._replace(round=3))
    # A program of its own, as it keeps how long a round is.
    monkeypatch.setitem(globals(), "TAKE_ON", at_once(functools.partial(runs._take_on), static_argnames=("program",)))
    found = jaxgmm.fit(NARROW.x, 2, **options)
    assert set(kernels) == {"float64"}
    assert np.max(found.n_iter) > 12
    np.testing.assert_array_equal(found.n_iter, expected.n_iter)
    np.testing.assert_allclose(found.log_likelihood, expected.log_likelihood, rtol=1e-13)
    # Whoever waits for the slowest does more.
    assert found.efficiency > expected.efficiency


class Device(NamedTuple):
    platform: str = "gpu"
    device_kind: str = "card"
    compute_capability: str = "9.0"


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        (Device(compute_capability="8.0"), "compute capability 8.0"),
        (Device("tpu", "TPU v5"), "TPU v5 is not a CUDA device"),
        (Device(compute_capability="gfx942"), "not a CUDA device"),
    ],
)
def test_devices_without_kernels(device: Device, reason: str) -> None:
    assert reason in str(fused.why_not(device))


def test_users_may_do_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    devices._has_kernels.cache_clear()
    monkeypatch.setenv(devices.SWITCH, "0")
    assert not devices._has_kernels(Device())
    devices._has_kernels.cache_clear()


@pytest.mark.parametrize("version", [(0, 10, 2), (0, 13, 0)])
def test_versions_of_jax_without_kernels(version: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "__version_info__", version)
    assert "are known" in str(fused.why_not(Device()))


def test_a_failing_import_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise ImportError("no Mosaic")

    monkeypatch.setattr(jax, "__version_info__", (0, 11, 2))
    monkeypatch.setattr(fused, "_mosaic", fails)
    assert "no Mosaic" in str(fused.why_not(Device()))


def test_a_device_is_warned_of_once() -> None:
    devices._has_kernels.cache_clear()
    with pytest.warns(UserWarning, match="compute capability 8"):
        assert not devices._has_kernels(Device(compute_capability="8.6"))
    assert not devices._has_kernels(Device(compute_capability="8.6"))
    devices._has_kernels.cache_clear()


@pytest.mark.skipif(not machine().has_kernels, reason="needs a GPU that has kernels")
@pytest.mark.parametrize("precision", ["float32", "mixed", "float64"])
@pytest.mark.parametrize(
    ("family", "n_features", "n_components"), [("full", 2, 3), ("tied", 1, 2), ("spherical", 6, 3), ("full", 5, 6)]
)
def test_kernels_of_a_card(
    family: str, n_features: int, n_components: int, precision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = clusters(64, 150, n_features, n_components)
    x[5, 3] = np.nan
    options: dict[str, Any] = {"covariance_type": family, "n_init": 3, "precision": precision}
    found = jaxgmm.fit(x, n_components, **options)
    monkeypatch.setattr(dispatch, "machine", lambda _threads: machine()._replace(has_kernels=False))
    expected = jaxgmm.fit(x, n_components, **options)
    if precision == "float64":
        same(found, expected)
    assert np.mean(found.status == expected.status) > (0.95 if precision == "float32" else 0.99)
    gain = (found.log_likelihood - expected.log_likelihood) / 150
    assert np.nanmedian(np.abs(gain)) < (1e-4 if precision == "float32" else 1e-6)
    assert np.nanmean(gain) > -1e-3
