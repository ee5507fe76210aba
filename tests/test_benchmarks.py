"""The benchmark suite, in the smallest sizes: processes are started, watched, and timed."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from reference import em

import jaxgmm
from benchmarks import (
    acceleration,
    card_tables,
    compilation,
    gpu,
    honesty,
    kernels,
    limits,
    optima,
    outcome,
    peers,
    reference,
    report,
    run,
    scaling,
    scikit,
    tables,
    targets,
)
from benchmarks.environment import environment
from benchmarks.measure import Plan, measure
from benchmarks.rows import Results
from benchmarks.scenarios import NOT_QUICK, REG_COVAR, SCENARIOS, Model, padded, problem, starts
from benchmarks.systems import systems
from jaxgmm.engine import fused
from jaxgmm.settings import TOL
from tests.engine.test_fused import plain_kernel

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
FAST = Plan(repeats=2, seconds=0.1, sample_seconds=0.01)
TIMED = {"seconds", "seconds_for_all", "compile_seconds", "repeats", "n_measured", "run_iterations_per_second"}
QUALITY = {"failures", "statuses", "mean_log_likelihood", "max_difference", "reference", "efficiency", "peak_bytes"}


def tiny(name, n_data_sets=6):
    return SCENARIOS[name].shrunk()._replace(n_data_sets=n_data_sets)


@pytest.fixture(scope="module")
def rows():
    wanted = ["jaxgmm float32", "NumPy float64", "C limit"]
    return measure(problem(tiny("steps-2d")), run.chosen([*wanted, "scikit-learn"])[:4], FAST)


@pytest.mark.parametrize("family", ["full", "tied"])
def test_numpy_reference_makes_the_textbooks_iterations(family):
    work = problem(tiny("tiles", 3)._replace(models=(Model(3, family),), n_init=2, tol=0.0))
    begin = starts(work, 3)
    fit = reference.em(*padded(work.data), begin, Model(3, family), tol=0, max_iter=5, reg_covar=0, dtype="float64")
    for b, r in np.ndindex(3, 2):
        twin = em(work.data[b], [leaf[b, r] for leaf in begin], family, 5)
        np.testing.assert_allclose(fit.log_likelihood[b, r], twin.log_likelihood, rtol=1e-9)
        np.testing.assert_allclose(fit.start.means[b, r], twin.mixture.means, rtol=1e-6)


def test_numpy_reference_equals_jaxgmm_on_ragged_data():
    work = problem(tiny("gene-pairs")._replace(start="given", tol=0.0))
    begin, options = starts(work, 2), {"tol": 0.0, "max_iter": 7, "reg_covar": REG_COVAR}
    numpy = reference.em(*padded(work.data), begin, Model(2, "full"), dtype="float64", **options)
    init = jaxgmm.Mixture(*(leaf[:, 0] for leaf in begin))
    own = jaxgmm.fit(work.data, 2, init=init, precision="float64", **options)
    np.testing.assert_allclose(own.log_likelihood, numpy.log_likelihood[:, 0], rtol=1e-9)


def test_score_is_the_log_likelihood():
    work = problem(tiny("gene-pairs", 3))
    fit = jaxgmm.fit(work.data, 2, n_init=1, precision="float64")
    fits = outcome.Fits(*fit.mixture.arrays, {}, None)
    scores = outcome.mean_log_likelihoods(work, fits, 10)
    np.testing.assert_allclose(scores * work.lengths, fit.log_likelihood, rtol=1e-9)


def test_rows_are_complete(rows):
    assert [row["system"] for row in rows if "error" not in row][:2] == ["jaxgmm float32", "NumPy float64"]
    for row in rows:
        if row["system"] != "C limit":
            assert row.keys() >= TIMED | QUALITY, row.get("error")
            assert row["run_iterations"] == 6 * 50 * row["n_measured"] // row["n_data_sets"]
            assert row["seconds"]["min"] <= row["seconds"]["median"] <= row["seconds"]["max"]
            # After 50 iterations runs are on their way, where float32 and float64 differ by what an iteration gains.
            assert row["max_difference"] < 2e-3


def test_a_row_says_with_which_tol_its_system_stopped():
    tol = {system.name: system.tol(SCENARIOS["tiles"]) for system in systems()}
    assert tol["jaxgmm mixed"] == TOL
    assert tol["NumPy float64"] == SCENARIOS["tiles"].tol
    assert {system.tol(SCENARIOS["steps-1d"]) for system in systems()} == {0.0}


def test_system_that_fails_is_a_row_with_its_error():
    def prepare(_):
        raise ImportError("no such package")

    broken = outcome.System("peer", "cpu", "float32", lambda _: True, prepare)
    (row,) = measure(problem(tiny("steps-1d", 2)), [broken], FAST)
    assert row["error"] == "ImportError: no such package"


def test_system_that_fails_while_it_is_timed_leaves_the_others_rows():
    steady = run.chosen(["NumPy float64"])[0]
    calls = iter([steady.prepare(problem(tiny("steps-1d", 2)))()])
    broken = outcome.System("twice", "cpu", "float32", lambda _: True, lambda _: lambda: next(calls))
    first, second = measure(problem(tiny("steps-1d", 2)), [broken, steady], FAST._replace(seconds=0.0))
    assert first["system"] == "NumPy float64"
    assert first["failures"] == 0
    assert second["error"].startswith("StopIteration")


def test_missing_scikit_learn_is_a_row_with_its_error(monkeypatch):
    monkeypatch.setattr(scikit, "MISSING", ImportError("no sklearn"))
    rows = measure(problem(tiny("steps-1d", 2)), scikit.systems(), FAST)
    assert [row["error"] for row in rows] == ["ImportError: no sklearn"] * 2


def test_scenario_that_raises_leaves_the_rest(tmp_path):
    def draw(*_):
        raise MemoryError("too large")

    scenarios = [tiny("steps-1d", 2)._replace(draw=draw), tiny("steps-1d", 2)]
    rows = run.run(scenarios, run.chosen(["NumPy float64"]), FAST, "quick", tmp_path / "rows.json", minutes=1)
    assert rows[0]["error"] == "MemoryError: too large"
    assert rows[1]["failures"] == 0
    assert json.loads((tmp_path / "rows.json").read_text())["rows"] == rows


def test_first_data_sets_are_the_same_however_many_there_are():
    scenario = SCENARIOS["steps-1d"]
    np.testing.assert_array_equal(
        problem(scenario._replace(n_data_sets=3)).data, problem(scenario._replace(n_data_sets=4)).data[:3]
    )


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenarios_can_be_run(name):
    scenario = SCENARIOS[name]
    assert name == scenario.name
    assert not (scenario.start == "given" and scenario.n_init > 1)
    assert name in NOT_QUICK or scenario.shrunk().n_data_sets <= 100_000
    data = problem(tiny(name, 2)).data
    assert all(np.isfinite(x).all() and x.shape[1] == scenario.n_features for x in data)


def test_report_puts_tables_between_the_markers(rows, tmp_path):
    file, readme = tmp_path / "rows.json", tmp_path / "README.md"
    file.write_text(json.dumps({"environment": {**environment(), "size": "quick"}, "rows": rows}))
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    results = Results([file])
    for _ in range(2):
        report.insert(readme, report.performance(results))
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert text.count("`steps-2d`: 6 × 300 × 2, K = 3") == 1


def invented(scenario, system, *, card=True, **changes):
    """A row that nobody measured, of 50 iterations unless `tol` says otherwise."""
    return {
        "scenario": scenario,
        "stands_for": "a job",
        "system": system,
        "device": "a card" if card else "cpu",
        "tol": 0.0,
        "max_iter": 50,
        "n_data_sets": 2_000,
        "n_init": 1,
        "n_samples": 300,
        "n_features": 2,
        "n_components": [3],
        "covariance_type": ["full"],
        "extrapolated": False,
        "seconds_for_all": 1.0,
        "run_iterations_per_second": 1e6,
        "failures": 0,
        "efficiency": None,
        "mean_log_likelihood": None,
        "n_scored": 200,
    } | changes


def results_of(folder, *parts):
    """Results of files with these rows, of which all but the first were written on a machine with a card."""
    files = [folder / f"{number}.json" for number in range(len(parts))]
    about = {"commit": "abc", "date": "today", "cpu": "a CPU", "cores": 2, "versions": {"jax": "1.2.3"}}
    for number, (file, rows) in enumerate(zip(files, parts, strict=True)):
        gpu = {"gpu": {"device_kind": "a card"}} if number else {}
        file.write_text(json.dumps({"environment": about | gpu, "rows": rows}))
    return Results(files)


def cells(table):
    """The cells of a table by its columns, for every row by its first words."""
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]
    return {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rows}


def test_rates_of_a_card_stand_beside_its_limit_and_its_peer(tmp_path):
    measured = {gpu.FLOAT32: 1e6, gpu.FLOAT32_ON_CARD: 2e6, gpu.LIMIT: 4e6, gpu.PEER: 1e4}
    of_card = [invented("steps-2d-many", name, run_iterations_per_second=rate) for name, rate in measured.items()]
    of_card += [invented("scaling-1000000", gpu.FLOAT32, failures=3)]
    on_cpu = [invented("steps-2d", gpu.FLOAT32, card=False), invented("steps-2d", "C limit", card=False)]
    results = results_of(tmp_path, on_cpu, of_card)
    rows = cells(card_tables.exact(results))
    # What was not measured has no column.
    assert rows["`steps-2d-many`: 2,000 × 300 × 2, K = 3"] == {
        "gmm-gpu": "10 k",
        "jaxgmm float32": "1 M",
        "float32, data on the card": "2 M",
        "float32 over gmm-gpu": "100 ×",
        "float32, data on the card, of the CUDA limit": "0.50",
    }
    assert list(rows["`scaling-1000000`: 2,000 × 300 × 2, K = 3"].values()) == ["–", "1 M*", "–", "–", "–"]
    (row,) = cells(tables.exact(results)).values()
    assert row == {"jaxgmm float32": "1 M", "float32 over scikit-learn": "–", "of the C limit": "1.00"}


def test_times_of_a_card_stand_beside_those_of_a_cpu_for_the_same_work(tmp_path):
    converged = {"tol": 1e-5, "run_iterations_per_second": None}
    several = converged | {"n_components": [1, 4], "covariance_type": ["full", "full"]}
    on_cpu = [
        invented("cells", gpu.MIXED, card=False, mean_log_likelihood=[-1.0, -2.0], **several),
        invented("million", gpu.MIXED, card=False, **converged),
    ]
    of_card = [
        invented("cells", gpu.MIXED, seconds_for_all=0.1, efficiency=0.5, mean_log_likelihood=[-1.25, -1.5], **several),
        # Of another size than on the CPU.
        invented("million", gpu.MIXED, n_data_sets=9, **converged),
        invented("gene-pairs-million", gpu.SWEEP, seconds_for_all=123.4, n_init=5, failures=7, **several),
        invented("one-large", gpu.MIXED),
        invented("steps-2d-many", gpu.FLOAT32),
    ]
    # Measured again on the CPU, with another rule to stop by than on the card.
    later = [invented("cells", gpu.MIXED, card=False, seconds_for_all=5.0, **several | {"tol": 1e-9})]
    results = results_of(tmp_path, on_cpu, of_card, later)
    assert "| 5 |" in tables.converged(results)
    rows = {name.split(":")[0]: row for name, row in cells(card_tables.beside_cpu(results)).items()}
    assert list(rows["`cells`"].values()) == ["1", "0.1", "10.0 ×", "50%", "0 / 0", "-2e-1 to +5e-1"]
    assert list(rows["`million`"].values()) == ["–", "1", "–", "–", "– / 0", "–"]
    assert list(rows["`gene-pairs-million`"].values()) == ["–", "123", "–", "–", "– / 7", "–"]
    assert list(rows["`cells`"])[:2] == ["2 CPU cores", "a card"]
    assert list(rows) == ["`cells`", "`million`", "`gene-pairs-million`", "`one-large`"]
    assert "K = 1–4, 5 starts, one sweep |" in card_tables.beside_cpu(results)
    assert "K = 3, exactly 50 iterations |" in card_tables.beside_cpu(results)
    short = card_tables.in_short(results)
    in_words = "a job (`gene-pairs-million`): 2,000 data sets of 300 × 2, K = 1–4, 5 starts, one sweep"
    assert f"| {in_words} | – | 123 s | – |" in short
    assert "by -2e-1 to +5e-1 nats per sample; 0 of the card's fits failed" in short
    assert short.endswith("Measured on a card: commit abc, today, jax 1.2.3; a CPU: commit abc, today, jax 1.2.3.")
    assert "card" not in "".join(cells(tables.converged(results)))


def test_what_a_card_did_not_measure_is_named_until_it_has_been(tmp_path):
    lost = [{"scenario": "survey", "system": None, "error": "took too long"}]
    no_compiler = {"scenario": "steps-2d-many", "system": gpu.LIMIT, "error": "RuntimeError: no nvcc | was found"}
    once = [invented("steps-2d-many", gpu.FLOAT32), no_compiler, *lost]
    begin, of_limit = "Without a figure on the card:", "`steps-2d-many` by CUDA limit (RuntimeError)"
    assert card_tables.lacking(results_of(tmp_path, [], once)) == f"{begin} {of_limit}, `survey` (took too long)."
    later = results_of(tmp_path, [], once, [invented("survey", gpu.MIXED, tol=1e-5)])
    assert card_tables.lacking(later) == f"{begin} {of_limit}."
    assert card_tables.in_short(results_of(tmp_path, once[:1])) == ""


def test_files_without_rows_are_known_or_refused(tmp_path):
    file = tmp_path / "other.json"
    file.write_text(json.dumps({"environment": environment(), "something": 1}))
    with pytest.raises(ValueError, match=r"other\.json holds neither rows nor any of finalists"):
        report.performance(Results([file]))


def test_pages_show_the_committed_results(tmp_path, monkeypatch):
    pages = {name: (ROOT / "docs" / name).read_text() for name in ("performance.md", "on-a-gpu.md")}
    for name, text in pages.items():
        (tmp_path / name).write_text(text)
        report.insert(tmp_path / name, "of earlier results")
    monkeypatch.setattr(sys, "argv", ["benchmarks.report", "--docs", str(tmp_path)])
    report.main()
    assert {name: (tmp_path / name).read_text() for name in pages} == pages, "run python -m benchmarks.report"
    assert (tmp_path / "pictures" / "scaling.png").is_file()


def test_optima_are_those_of_scikit_learn_where_clusters_are_clear(tmp_path):
    work = problem(tiny("converge-2d", 12))
    rng = np.random.default_rng(0)
    corners = 20 * np.array([[0, 0], [1, 0], [0, 1]])
    work = work._replace(data=(corners[rng.integers(3, size=(12, 300))] + rng.normal(size=(12, 300, 2))).astype("f4"))
    results = optima.measured(work, n_seeds=2, n_compared=2)
    for row in [*results["jaxgmm"], *results["scikit-learn, other seeds"]]:
        assert abs(row["mean_difference"]) < 1e-5
        assert row["share_better"] == row["share_worse"] == row["failures"] == 0
    for row in (results["finalists"]["finalists"], results["finalists"]["fewer"]):
        assert row["share_same"] == 1
        # Clusters so clear leave little to save.
        assert 0 < row["share_of_iterations"] < 1.1
    file = tmp_path / "optima.json"
    file.write_text(json.dumps({"environment": environment(), **results}))
    text = report.performance(Results([file]))
    assert "Ten starts on all 12 data sets of `converge-2d`" in text
    assert "5 finalists reach the optimum of all of them for 100% of the data sets" in text


def test_what_fits_have_left_grows_with_their_tolerance_and_ends_with_it():
    stacks = [honesty.Stack(2, 3, 112, "tied")]
    loose = honesty.measured(stacks, 8, {"tol": 1e-3, "method": "em"})
    tight = honesty.measured(stacks, 8, {"tol": honesty.LIMIT_TOL, "max_iter": 50_000})
    for results in (loose, tight):
        rows = results["rows"]
        assert rows["all"]["n_fits"] == rows["tied"]["n_fits"] == 8
        assert [rows[name]["n_fits"] for name in honesty.SEPARATIONS] == [2, 2, 2, 2]
        assert rows["all"]["n_judged"] == rows["all"]["n_converged"] - rows["all"]["n_limit_unsound"] > 4
        assert rows["all"]["n_compared_with_one"] == 8
    assert loose["rows"]["all"]["left"]["1"] > 1e-3
    assert loose["rows"]["all"]["share_with_more_left"]["1e-06"] > 0
    assert abs(tight["rows"]["all"]["left"]["1"]) < 1e-9
    assert tight["rows"]["all"]["share_bic_falls"] == 0
    header, columns, first, *_ = honesty.table(loose)
    assert "have left" in header
    assert columns.split()[0] == "judged"
    assert first.split()[0] == "all"


def test_fits_that_do_not_converge_are_not_judged():
    results = honesty.measured([honesty.Stack(1, 2, 112, "diag")], 3, {"max_iter": 0})
    assert results["rows"]["all"]["n_converged"] == results["rows"]["all"]["n_judged"] == 0
    assert results["rows"]["all"]["left"]["1"] is None
    assert "0 of 3" in honesty.table(results)[2]


def test_report_tells_what_a_first_fit_takes(tmp_path):
    first_fit = {"without_cache": {"total": 2.04}, "with_cache": {"total": 0.61}}
    file = tmp_path / "compilation.json"
    file.write_text(json.dumps({"environment": environment(), "first_fit": first_fit, "search": {"n_programs": 11}}))
    text = report.performance(Results([file]))
    assert "takes 2.0 s, imports included, and 0.6 s where programs were kept" in text
    assert "compile 11 programs" in text


def test_repeats_do_not_pay_for_compilation():
    def prepare(_):
        calls = iter([10.0, *[0.01] * 20])
        nothing = outcome.Fits(np.empty((0, 0)), *[np.empty((0, 0, 0))] * 2, Counter(), None)
        return lambda: outcome.Outcome([nothing], next(calls))

    system = outcome.System("slow at first", "cpu", "float32", lambda _: True, prepare)
    (row,) = measure(problem(tiny("steps-1d", 2)), [system], FAST._replace(repeats=5))
    assert row["repeats"] == 5
    assert row["compile_seconds"] == pytest.approx(9.99)


def test_figure_is_drawn(rows, tmp_path):
    growing = [
        {**row, "scenario": f"scaling-{n}", "n_data_sets": n} for row in rows if "error" not in row for n in (10, 99)
    ]
    file = tmp_path / "rows.json"
    file.write_text(json.dumps({"environment": {}, "rows": growing}))
    scaling.draw(Results([file]), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_targets_are_judged():
    rates = {"jaxgmm float32": 400.0, "scikit-learn": 1.0, "C limit": 2000.0}
    lines = targets.judge(
        [{"scenario": "steps-2d", "system": name, "run_iterations_per_second": rate} for name, rate in rates.items()]
    )
    assert lines[0].split()[-4:] == ["400", "≥", "330", "met"]
    assert lines[1].split()[-1] == "MISSED"
    assert all(line.endswith("not measured") for line in lines[2:])


# Stands in for `benchmarks.run`: what a scenario does is its name.
STAND_IN = """
import json, os, sys, time
out, names = sys.argv[sys.argv.index("--out") + 1], sys.argv[sys.argv.index("--only") + 1:]
rows = []
for name in names:
    if name == "hangs":
        time.sleep(60)
    if name == "ends":
        sys.exit("no memory")
    rows.append({"scenario": name, "system": "jaxgmm float32"} | ({"error": "lost"} if name == "loses" else {}))
    with open(out + "x", "w") as file:
        json.dump({"rows": rows}, file)
    os.replace(out + "x", out)
    time.sleep(1.0 if name == "loses" else 0.0)
"""


def test_scenario_that_hangs_or_ends_its_process_leaves_the_rest(tmp_path, monkeypatch):
    package = tmp_path / "benchmarks"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "run.py").write_text(STAND_IN)
    monkeypatch.chdir(tmp_path)
    part, variables = tmp_path / "part.json", os.environ | {"PYTHONPATH": str(tmp_path)}
    names = ["fine", "ends", "hangs", "loses", "last"]
    stage = gpu.Stage(tuple(names), (gpu.FLOAT32,), guard=3.0)
    rows = gpu.supervise(stage, ["--out", str(part)], variables, time.monotonic() + 50, part, lambda _: None)
    assert [row["scenario"] for row in rows] == names
    errors = ["its process ended with 1: no memory", "took too long", "lost"]
    assert [row.get("error") for row in rows] == [None, *errors, None]


def test_gpu_command_knows_its_scenarios_and_systems(monkeypatch):
    card = SimpleNamespace(platform="gpu", device_kind="a card")
    monkeypatch.setattr(jax, "local_devices", lambda: [card])
    monkeypatch.setattr(peers, "_torch_sees_a_card", lambda: True)
    known = {system.name for system in run.chosen(None, with_peers=True)}
    assert {name for stage in gpu.STAGES for name in stage.names} <= SCENARIOS.keys()
    assert {name for stage in gpu.STAGES for name in stage.systems} <= known


def test_gpu_command_passes_in_small(tmp_path):
    out = tmp_path / "gpu.json"
    command = [sys.executable, "-m", "benchmarks.gpu", "--dry-run", "--out", str(out)]
    cache = {"JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache" / "jax")}
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=os.environ | cache)
    results = json.loads(out.read_text())
    card = results["environment"]["gpu"]
    assert card["float32_flops"] > 0
    assert card["products"]["F32_F32_F32"]["flops"] > 0
    assert card["products"]["F32_F32_F32"]["largest_error"] < 1e-6
    assert [row["scenario"] for row in results["rows"]] == ["steps-1d", "converge-2d"]
    assert card["checks"][0]["max_difference"] < 1e-3


@pytest.fixture
def kernel_rows(monkeypatch):
    # What a kernel computes, by arrays of JAX.
    monkeypatch.setattr(fused, "_kernel", plain_kernel)
    case = kernels.Case("steps-2d-many", 32, 60, 2, 3, (16,), is_wide=False)
    monkeypatch.setattr(kernels, "ROUNDS", (12,))
    return [*kernels.measured(case, "em", "float64", time.monotonic() + 100, repeats=1)]


def test_kernels_are_timed_alone(kernel_rows):
    (row,) = kernel_rows
    assert (row["n_runs"], row["converged"]) == (7, 1.0)
    assert row["mean_iterations"] > 10
    assert 0 < row["rounds"][12]["useful"] <= 1
    assert row["fixed"] > 0
    assert row["compile_seconds"] > 0
    assert row["rounds"][12]["spread"] >= 0
    assert row["degenerate"] == 0
    late = list(kernels.measured(kernels.CASES[2], "em", "float32", time.monotonic() - 1))
    assert [own["width"] for own in late] == [8, 16, 32, 4]
    assert [own["is_choice"] for own in late].count(True) == 1
    assert all("no time was left" in own["error"] for own in late)
    assert [line.count("|") for line in kernels.table({"rows": [row]})] == [7, 7, 7]


def test_where_there_are_no_kernels_none_is_timed(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["kernels", "--out", str(tmp_path / "kernels.json")])
    monkeypatch.setattr(fused, "why_not", lambda device: f"{device.device_kind} is no card")
    kernels.main()
    assert "is no card. Nothing was measured." in capsys.readouterr().out
    assert not (tmp_path / "kernels.json").exists()


def test_first_fit_is_timed():
    found = compilation.measured(compilation.FIRST_FIT, ROOT / ".pytest_cache" / "jax")
    assert found["status"] == "CONVERGED"
    assert found["total"] == pytest.approx(found["import_jax"] + found["import_jaxgmm"] + found["first_fit"])


def test_methods_are_compared_by_steps_time_and_optima(tmp_path, monkeypatch):
    monkeypatch.setattr(acceleration, "REPEATS", 1)
    results = acceleration.measured([acceleration.SETS[2]._replace(n_data_sets=9)], print)
    by_means, by_samples = results["runs"]
    for row in (by_means, by_samples):
        by_em, own = row["em"], row["quasi-newton"]
        assert 3 * own["mean_steps"] < by_em["mean_steps"]
        assert own["mean_steps"] <= own["mean_steps_at_stop"]
        assert own["left"]["0.9"] < 1e-6
        # A run that goes on comes nearer.
        assert np.all(np.diff(own["median_distance"]) < acceleration.NOTICEABLE)
    calls = results["calls"][0]
    assert calls["default"]["share_noticeable_left"] < calls["em, tol 1e-5"]["share_noticeable_left"]
    assert len(acceleration.table(results)) > 10
    acceleration.draw(results | {"runs": results["runs"] * 9}, tmp_path / "steps.png")
    assert (tmp_path / "steps.png").stat().st_size > 10_000


@pytest.mark.skipif(limits.cuda_compiler() is None, reason="needs a CUDA compiler, though no card")
@pytest.mark.parametrize(("d", "k", "n"), [(1, 2, 100), (8, 8, 2000)])
def test_the_limit_of_a_card_is_compiled_without_one(d, k, n, tmp_path):
    limits.compile_for_card(tmp_path / "limit", {"D": d, "K": k, "N": n}, "9.0")
    told = subprocess.run([tmp_path / "limit", "4", "2"], check=False, capture_output=True, text=True)
    # With a card, it says how long it took.
    assert told.returncode == 0 or "no memory on the card" in told.stderr


def test_what_a_program_has_no_room_for_is_not_asked_of_it():
    suited = {name for name, scenario in SCENARIOS.items() if limits._suits_card(scenario)}
    assert {"steps-2d-many", "steps-8d-many", "scaling-1000000"} <= suited
    assert not {"one-large", "million", "tiles"} & suited
