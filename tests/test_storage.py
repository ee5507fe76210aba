"""Results in files come back as they were, and files that are not right are refused in one line."""

import json
import os
import pickle
import struct
import tracemalloc
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save as serialized

import jaxgmm
from jaxgmm import storage
from jaxgmm.record import Record, field_names
from jaxgmm.tables import results

RNG = np.random.default_rng(0)
OPTIONS = {"n_components": 3, "covariance_type": "full", "tol": 1e-5, "n_finalists": None, "split": True, "ks": [1, 2]}


def mixture(*batch, n_components=2, n_features=3, diagonal=False):
    means = RNG.normal(size=(*batch, n_components, n_features))
    spread = np.ones(n_features) if diagonal else np.eye(n_features)
    covariances = np.broadcast_to(spread, (*batch, n_components, *spread.shape)).copy()
    return jaxgmm.Mixture(np.full((*batch, n_components), 1 / n_components), means, covariances)


def fit_result(*batch, **options):
    """Any numbers, NaN among them, of the shapes of a fit with two starts."""
    result = jaxgmm.FitResult(
        mixture=mixture(*batch, **options),
        log_likelihood=RNG.normal(size=batch)[()],
        gap=RNG.random(size=batch)[()],
        n_iter=RNG.integers(9, size=batch, dtype=np.int32)[()],
        status=RNG.integers(5, size=batch, dtype=np.int32)[()],
        spurious=RNG.integers(2, size=batch, dtype=np.int32)[()],
        ridge_dominated=RNG.integers(2, size=batch, dtype=np.int32)[()],
        start_passed_over=(RNG.random(size=batch) < 0.5)[()],
        n_samples=RNG.random(size=batch)[()],
        n_parameters=RNG.integers(9, size=batch, dtype=np.int32)[()],
        ridge=RNG.random(size=(*batch, options.get("n_features", 3))),
        start_log_likelihood=RNG.normal(size=(*batch, 2)),
        start_status=RNG.integers(5, size=(*batch, 2), dtype=np.int32),
        start_spurious=RNG.integers(2, size=(*batch, 2), dtype=np.int32),
        history=None,
        efficiency=0.75,
        seconds=1.5,
    )
    result.start_log_likelihood[..., 0] = np.nan
    result.mixture.means[..., 1, :] = np.nan
    return result


def traced(*batch):
    return replace(fit_result(*batch), history=RNG.normal(size=(*batch, 7)), snapshots=mixture(*batch, 4))


def sweep(n_data_sets=3):
    table = {
        "data_set": np.repeat(np.arange(n_data_sets), 2),
        "n_components": np.tile([1, 2], n_data_sets),
        "covariance_type": np.tile(["full", "spherical"], n_data_sets),
        "bic": RNG.normal(size=2 * n_data_sets),
        # NumPy keeps room for the longest name that there is, which need not be in the column.
        "status": np.full(2 * n_data_sets, "MAX_ITER", dtype="U15"),
        "chosen": np.tile([True, False], n_data_sets),
    }
    return jaxgmm.Sweep(table, fit_result(n_data_sets))


def bootstrap(*batch):
    return jaxgmm.Bootstrap(mixture(*batch, 5), RNG.normal(size=(*batch, 5)), np.zeros((*batch, 5), np.int32))


RESULTS = {
    "mixture": mixture(),
    "mixtures": mixture(4),
    "mixtures by two axes": mixture(4, 2, diagonal=True),
    "float32": jax.tree.map(np.float32, mixture(4)),
    "fits": fit_result(4),
    "fit": fit_result(),
    "axis-aligned fit": fit_result(diagonal=True),
    "fits with history": traced(4),
    "fit with history": traced(),
    "sweep": sweep(),
    "bootstrap": bootstrap(),
    "bootstraps": bootstrap(4),
    "no data sets": fit_result(0),
}


def assert_same(found, expected):
    # What a note counts is known only to the sweep that made it: loaded, it is a plain text.
    kind = str if isinstance(expected, str) else type(expected)
    assert type(found) is kind or isinstance(expected, float)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        found, expected = found.values(), expected.values()
    if isinstance(expected, str):
        assert found == expected
    elif expected is None or isinstance(expected, float):
        np.testing.assert_array_equal(found, expected)
    elif isinstance(expected, np.ndarray | np.generic):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected, strict=True)
    else:
        if isinstance(expected, Record):
            found, expected = ([getattr(value, name) for name in field_names(value)] for value in (found, expected))
        for part, expected_part in zip(found, expected, strict=True):
            assert_same(part, expected_part)


def with_header(path, **changes):
    """Writes a file whose header is that of another one but for some texts; None leaves one out."""
    header = {"format": "jaxgmm", "format_version": "1", "jaxgmm_version": "0", "kind": "Mixture"}
    header |= {"options": "{}", "columns": "[]"} | changes
    path.write_bytes(
        serialized(vars(mixture()), metadata={name: text for name, text in header.items() if text is not None})
    )
    return path


@pytest.mark.parametrize("name", RESULTS)
def test_results_come_back_as_they_were(tmp_path, name):
    value = RESULTS[name]
    storage.save(tmp_path / "file", value)
    assert_same(storage.load(tmp_path / "file"), value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_what_fit_sweep_and_bootstrap_return_comes_back(tmp_path):
    x = RNG.normal(size=(3, 40, 1)) + np.where(np.arange(40) % 2, -3, 3)[:, None]
    x[1, 0] = np.nan
    fits = jaxgmm.fit(x, 2, n_init=2, max_iter=9, history=(0, 3))
    results = [fits, jaxgmm.fit(x[0], 2, n_init=1, max_iter=9)]
    results.append(jaxgmm.sweep(x, (1, 2), covariance_type=("diag", "spherical"), n_init=1, max_iter=9))
    results.append(jaxgmm.bootstrap(results[1].mixture, x[0], 3, max_iter=9))
    for number, value in enumerate(results):
        storage.save(tmp_path / str(number), value)
        assert_same(storage.load(tmp_path / str(number)), value)
    assert_same(storage.load(tmp_path / "2").chosen, results[2].chosen)


def test_jax_arrays_come_back_as_numpy(tmp_path):
    storage.save(tmp_path / "file", jax.tree.map(jnp.asarray, RESULTS["float32"]))
    assert_same(storage.load(tmp_path / "file"), RESULTS["float32"])


def test_arrays_of_other_byte_order_and_strides_come_back(tmp_path):
    plain = RESULTS["mixtures"]
    turned = plain.map(lambda leaf: np.asfortranarray(leaf).astype(">f8"))
    storage.save(tmp_path / "file", turned)
    assert_same(storage.load(tmp_path / "file"), plain)


def test_loaded_arrays_can_be_written_to(tmp_path):
    storage.save(tmp_path / "file", RESULTS["fits"])
    storage.load(tmp_path / "file").mixture.means[0] = 0


def test_info_tells_kind_shapes_options_and_versions(tmp_path):
    storage.save(tmp_path / "file", RESULTS["sweep"], options=OPTIONS | {"n": np.int64(3), "ratio": np.float32(0.5)})
    about = storage.info(tmp_path / "file")
    assert (about.kind, about.format_version, about.jaxgmm_version) == ("Sweep", 2, jaxgmm.__version__)
    assert about.options == OPTIONS | {"n": 3, "ratio": 0.5}
    assert about.shapes["best.mixture.means"] == (3, 2, 3)
    assert about.shapes["table.status"] == (6,)
    assert "best.history" not in about.shapes


def test_info_does_not_read_arrays(tmp_path, monkeypatch):
    storage.save(tmp_path / "file", RESULTS["sweep"])
    monkeypatch.setattr(storage, "put_together", None)
    assert storage.info(tmp_path / "file").options == {}


@pytest.mark.parametrize(
    "options",
    [{"f": print}, {"x": np.zeros(3)}, {"tol": float("nan")}, {"a": {"b": 1}}, {1: 2}, {"b": b"1"}, {"l": [1, {}]}, 3],
)
def test_options_that_are_no_text_and_numbers_are_refused(tmp_path, options):
    with pytest.raises(ValueError, match="options m"):
        storage.save(tmp_path / "file", RESULTS["mixture"], options=options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"weights": 1}, "a Mixture, FitResult, Sweep, Bootstrap or Stream can be saved; got dict"),
        (replace(mixture(), means=np.zeros((3, 3))), "this Mixture cannot be saved: means has shape"),
        (replace(mixture(), means=np.zeros((2, 3), int)), "this Mixture cannot be saved: means holds int64"),
        (replace(mixture(), means=jnp.zeros((2, 3), jnp.bfloat16)), "means holds bfloat16"),
        (replace(mixture(), means=np.zeros((2, 3), np.longdouble)), "means holds "),
        (replace(mixture(), weights=np.float64(1)), "weights has shape"),
        (replace(fit_result(2), status=None), "this FitResult cannot be saved: it lacks status"),
        (fit_result(2, 2), "mixture.weights has shape"),
        (replace(fit_result(2), n_iter=np.zeros(3, int)), "n_iter has shape"),
        (jaxgmm.Sweep({}, fit_result(1)), "its table does not say what was chosen"),
        (jaxgmm.Sweep({"chosen": np.ones(2, bool), "x": np.ones(3)}, fit_result(1)), "table.x has shape"),
        (jaxgmm.Sweep({"chosen": np.ones(1, bool), "x": np.array([object()])}, fit_result(1)), "table.x holds object"),
    ],
)
def test_what_could_not_be_read_again_is_not_saved(tmp_path, value, words):
    with pytest.raises(ValueError, match=words):
        storage.save(tmp_path / "file", value)
    assert list(tmp_path.iterdir()) == []


def test_files_are_replaced_only_when_asked(tmp_path):
    path = tmp_path / "file"
    storage.save(path, RESULTS["mixture"])
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match=r"file exists already; remove it.*or pass overwrite=True"):
        storage.save(path, RESULTS["fits"])
    assert path.read_bytes() == before
    storage.save(path, RESULTS["fits"], overwrite=True)
    assert_same(storage.load(path), RESULTS["fits"])


def test_failed_write_leaves_nothing_behind_and_the_old_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "file"
    storage.save(path, RESULTS["mixture"])

    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        storage.save(path, RESULTS["fits"], overwrite=True)
    assert [found.name for found in tmp_path.iterdir()] == ["file"]
    assert_same(storage.load(path), RESULTS["mixture"])


def test_places_that_cannot_be_written_to_or_read_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent is not a directory; make it first"):
        storage.save(tmp_path / "absent" / "file", RESULTS["mixture"])
    with pytest.raises(IsADirectoryError, match="is a directory; name a file"):
        storage.save(tmp_path, RESULTS["mixture"], overwrite=True)
    with pytest.raises(FileNotFoundError, match="absent does not exist; check the path"):
        storage.load(tmp_path / "absent")
    with pytest.raises(IsADirectoryError, match="is not a file"):
        storage.info(tmp_path)


def test_pickles_are_refused_unread(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    (tmp_path / "file").write_bytes(pickle.dumps(Trap()))
    for read in (storage.load, storage.info):
        with pytest.raises(ValueError, match="file is not a file of jaxgmm; name one that"):
            read(tmp_path / "file")
    assert not (tmp_path / "sprung").exists()


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(serialized({"weights": np.ones(3)}, metadata={"format": "pt"}))
    with pytest.raises(ValueError, match="file is not a file of jaxgmm"):
        storage.load(path)
    path.write_bytes(serialized({"weights": np.ones(3)}))
    with pytest.raises(ValueError, match="file is not a file of jaxgmm"):
        storage.load(path)
    path.write_text("weights,means\n1,0\n")
    with pytest.raises(ValueError, match="file is not a file of jaxgmm"):
        storage.load(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="file is cut short or damaged"):
        storage.load(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format_version": "3"}, r"written by a newer jaxgmm \(format 3; this one reads 2\): upgrade"),
        ({"format_version": "two"}, "damaged .its format version is 'two'"),
        ({"format_version": "0"}, "damaged .its format version is '0'"),
        ({"format_version": None}, "damaged .its format version is ''"),
        ({"kind": "Estimator"}, "damaged .its kind is 'Estimator'"),
        ({"kind": None}, "damaged .its kind is ''"),
        ({"kind": "FitResult"}, "damaged .it lacks mixture.weights"),
        ({"options": None}, "damaged .its header does not make sense"),
        ({"options": "[1]"}, "damaged .its header does not make sense"),
        ({"options": "[" * 100_000}, "damaged .its header does not make sense"),
        ({"columns": "{}{"}, "damaged .its header does not make sense"),
        ({"columns": '[["a", null, 0], ["a", null, 0]]'}, "damaged .its header does not make sense"),
        ({"columns": '[["a", [3], 4]]'}, "damaged .its header does not make sense"),
        ({"columns": '["abcd"]'}, "damaged .its header does not make sense"),
        ({"columns": '[["a", null, 0]]'}, "damaged .it lacks table.a"),
    ],
)
def test_headers_that_are_wrong_are_refused(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words) as refusal:
        storage.load(with_header(tmp_path / "file", **changes))
    assert str(tmp_path / "file") in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_texts_that_are_not_listed_or_far_too_long_are_refused(tmp_path):
    path = tmp_path / "file"
    storage.save(path, RESULTS["sweep"])
    whole = path.read_bytes()
    size = struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8 : 8 + size])
    columns = json.loads(header["__metadata__"]["columns"])
    for change, words in ((["MAX_ITER"], [], 15), "not there"), ((["MAX_ITER"], ["MAX_ITER"], 10**9), "holds texts"):
        before, texts, length = change
        changed = [["status", texts, length] if column[1] == before else column for column in columns]
        assert changed != columns
        header["__metadata__"]["columns"] = json.dumps(changed)
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + whole[8 + size :])
        with pytest.raises(ValueError, match=words):
            storage.load(path)


def with_texts(path, n_rows, texts, length):
    """Writes a sweep, and changes what its header says of the texts of its statuses."""
    storage.save(path, sweep(n_rows // 2), overwrite=True)
    whole = path.read_bytes()
    size = struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8 : 8 + size])
    columns = json.loads(header["__metadata__"]["columns"])
    changed = [["status", texts, length] if column[0] == "status" else column for column in columns]
    header["__metadata__"]["columns"] = json.dumps(changed)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + whole[8 + size :])
    return path


@pytest.mark.parametrize(
    ("texts", "length"),
    [(["MAX_ITER"], 1000), (["M" * 1000], 1000), (["MAX_ITER"], 10**9), (["MAX_ITER"], 10**4000)],
)
def test_a_file_asks_for_no_more_memory_than_belongs_to_its_size(tmp_path, texts, length):
    path = with_texts(tmp_path / "file", 20_000, texts, length)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"damaged .its table holds texts of 10+") as refusal:
        storage.load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * path.stat().st_size
    assert len(str(refusal.value)) < 500


def test_texts_of_any_length_that_a_table_may_have_come_back(tmp_path):
    value = sweep(2000)
    for text in ("x" * 15, "y" * 60):
        value.table["covariance_type"] = np.full(4000, text)
        storage.save(tmp_path / "file", value, overwrite=True)
        assert_same(storage.load(tmp_path / "file"), value)
    small = sweep(2)
    small.table["covariance_type"] = np.full(4, "z" * 20_000)
    storage.save(tmp_path / "file", small, overwrite=True)
    assert_same(storage.load(tmp_path / "file"), small)


def test_texts_that_could_not_be_read_again_are_not_saved(tmp_path):
    value = sweep(2000)
    value.table["covariance_type"] = np.full(4000, "x" * 1000)
    with pytest.raises(ValueError, match="this Sweep cannot be saved: its table holds texts of 1000 characters"):
        storage.save(tmp_path / "file", value)
    assert list(tmp_path.iterdir()) == []


LONG = "9" * 50_000


@pytest.mark.parametrize(
    "changes",
    [
        {"format_version": LONG},
        {"format_version": "v" * 50_000},
        {"format_version": "\n" * 50_000},
        {"kind": LONG},
        {"options": LONG},
        {"options": f'{{"{LONG}": NaN}}', "kind": "Sweep"},
        {"columns": f'[["{LONG}", null, 0]]'},
        {"columns": f'[["a", null, {LONG}]]'},
        {"columns": f'[["a", ["{LONG}"], 0]]', "kind": "Sweep"},
    ],
)
def test_refusals_quote_little_of_a_file(tmp_path, changes):
    for read in (storage.load, storage.info):
        with pytest.raises(ValueError, match="file is cut short or damaged") as refusal:
            read(with_header(tmp_path / "file", **changes))
        assert len(str(refusal.value)) < 500
        assert "\n" not in str(refusal.value)


def test_refusals_quote_little_of_what_was_to_be_saved(tmp_path):
    names = {"a" * 9999: object(), "b": [object()] * 9999, "c": {"d": "e" * 9999}}
    for options in ({name: value} for name, value in names.items()):
        with pytest.raises(ValueError, match="options may hold") as refusal:
            storage.save(tmp_path / "file", RESULTS["mixture"], options=options)
        assert len(str(refusal.value)) < 700
    with pytest.raises(ValueError, match="options must be a dict") as refusal:
        storage.save(tmp_path / "file", RESULTS["mixture"], options=[1.5] * 9999)
    assert len(str(refusal.value)) < 300


def test_names_of_arrays_are_quoted_in_part(tmp_path):
    metadata = {"format": "jaxgmm", "format_version": "1", "kind": "Mixture", "options": "{}", "columns": "[]"}
    (tmp_path / "file").write_bytes(serialized(vars(mixture()) | {LONG: np.ones(1)}, metadata=metadata))
    with pytest.raises(ValueError, match=r"damaged .it has 999+…") as refusal:
        storage.load(tmp_path / "file")
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F64", "shape": [2**62, 8], "data_offsets": [0, 8]},
        {"dtype": "F64", "shape": [2**40], "data_offsets": [0, 2**43]},
        {"dtype": "F64", "shape": [0, 2**62], "data_offsets": [0, 0]},
        {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]},
    ],
)
def test_headers_that_claim_what_is_not_there_are_refused(tmp_path, entry):
    metadata = {"format": "jaxgmm", "format_version": "1", "kind": "Mixture", "options": "{}", "columns": "[]"}
    header = json.dumps({"__metadata__": metadata, "weights": entry}).encode()
    (tmp_path / "file").write_bytes(struct.pack("<Q", len(header)) + header + bytes(entry["data_offsets"][1] % 2**40))
    with pytest.raises(ValueError, match="file is cut short or damaged"):
        storage.load(tmp_path / "file")
    (tmp_path / "file").write_bytes(struct.pack("<Q", 2**50) + header)
    with pytest.raises(ValueError, match="file is cut short or damaged"):
        storage.load(tmp_path / "file")


@pytest.mark.parametrize("name", ["mixture", "fits with history", "sweep", "bootstraps"])
def test_truncated_files_are_refused(tmp_path, name):
    path = tmp_path / "file"
    storage.save(path, RESULTS[name], options=OPTIONS)
    whole = path.read_bytes()
    for length in {*range(12), *np.random.default_rng(0).integers(len(whole), size=100).tolist(), len(whole) - 1}:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="file is cut short or damaged"):
            storage.load(path)


@pytest.mark.parametrize("name", ["mixture", "fits with history", "sweep", "bootstraps"])
def test_damaged_files_are_refused_or_read_as_the_same_kind(tmp_path, name):
    path, rng = tmp_path / "file", np.random.default_rng(0)
    storage.save(path, RESULTS[name], options=OPTIONS)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    for trial in range(250):
        damaged = whole.copy()
        # Headers are what programs stumble over; every other trial spares the numbers.
        end = len(whole) if trial % 2 else 8 + struct.unpack("<Q", whole[:8].tobytes())[0]
        damaged[rng.integers(end, size=rng.integers(1, 4))] = rng.integers(256, dtype=np.uint8)
        path.write_bytes(damaged.tobytes())
        try:
            found = storage.load(path)
        except (ValueError, OSError) as error:
            found, words = None, str(error)
            assert words.startswith(str(path))
            assert "\n" not in words
        assert found is None or isinstance(
            found, jaxgmm.Mixture | jaxgmm.FitResult | jaxgmm.Sweep | jaxgmm.Bootstrap | jaxgmm.Stream
        )


OLD = Path(__file__).parent / "data" / "version_0_1_0"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("mixture", jaxgmm.Mixture),
        ("fits", jaxgmm.FitResult),
        ("fits_with_history", jaxgmm.FitResult),
        ("fit_of_one", jaxgmm.FitResult),
        ("sweep", jaxgmm.Sweep),
        ("bootstrap", jaxgmm.Bootstrap),
    ],
)
def test_files_of_the_first_version_are_loaded(name, kind):
    path = OLD / f"{name}.safetensors"
    loaded = storage.load(path)
    assert isinstance(loaded, kind)
    assert (storage.info(path).format_version, storage.info(path).jaxgmm_version) == (1, "0.1.0")
    fits = {jaxgmm.FitResult: lambda: loaded, jaxgmm.Sweep: lambda: loaded.best}.get(kind, lambda: None)()
    if fits is not None:
        assert np.all(fits.ridge_dominated == -1)
        assert fits.ridge.shape == (*np.shape(fits.status), fits.mixture.n_features)
        assert np.all(np.isnan(fits.ridge))
        assert np.shape(fits.start_passed_over) == np.shape(fits.status)
    if kind is jaxgmm.Sweep:
        assert loaded.notes == ()
        assert "at_largest_k" not in loaded.table


@pytest.mark.parametrize(
    ("status", "spurious", "gain", "expected"),
    [(0, 0, 5.0, False), (0, 1, 5.0, True), (2, 0, 5.0, True), (0, 1, 0.0, False), (0, 1, 1e-9, False)],
)
def test_a_file_of_the_first_version_says_what_was_passed_over(status, spurious, gain, expected):
    old = fit_result(3)
    own = np.asarray(old.log_likelihood, np.float64)
    old = replace(
        old,
        start_log_likelihood=np.stack([own, own + gain], axis=1),
        start_status=np.tile(np.array([0, status], np.int32), (3, 1)),
        start_spurious=np.tile(np.array([0, spurious], np.int32), (3, 1)),
        **dict.fromkeys(("ridge_dominated", "start_passed_over", "ridge")),
    )
    assert results._completed(old).start_passed_over.tolist() == [expected] * 3


def test_files_of_the_first_version_are_saved_as_of_this(tmp_path):
    loaded = storage.load(OLD / "fits.safetensors")
    storage.save(tmp_path / "again.safetensors", loaded)
    assert storage.info(tmp_path / "again.safetensors").format_version == storage.FORMAT_VERSION


def test_a_file_of_this_version_lacks_nothing(tmp_path):
    result = replace(fit_result(2), ridge=None)
    with pytest.raises(ValueError, match="this FitResult cannot be saved: it lacks ridge"):
        storage.save(tmp_path / "lacking.safetensors", result)


def test_notes_of_a_sweep_come_back(tmp_path):
    noted = replace(sweep(), notes=("K = 2 is the largest.", "\u03bc"))
    storage.save(tmp_path / "noted.safetensors", noted)
    assert storage.load(tmp_path / "noted.safetensors").notes == noted.notes
