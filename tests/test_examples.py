"""The pages under examples/ that redo published teaching examples run, and give the answers that they promise."""

import functools
import json
import runpy
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxgmm
from jaxgmm import Mixture, Status
from jaxgmm.record import field_names

EXAMPLES = Path(__file__).parent.parent / "examples"
NOTEBOOKS = json.loads((Path(__file__).parent / "data" / "notebooks.json").read_text())

pytestmark = pytest.mark.slow


@pytest.fixture
def run_page(capsys):
    """Runs a page, checks that it says what it is about, and returns its result and the lines that it printed."""

    def run(name):
        page = runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name=name)
        assert len(page["__doc__"].split("\n\n")) > 2
        result = page["main"]()
        return result, capsys.readouterr().out.splitlines()

    return run


def assert_published(result, name, tolerance):
    """The fit is the stored one: parameters to the tolerance, log-likelihood to 1e-9."""
    published = NOTEBOOKS[name]
    for field in field_names(Mixture):
        np.testing.assert_allclose(
            getattr(result.mixture, field), published["final"][field], rtol=0, atol=tolerance, err_msg=field
        )
    np.testing.assert_allclose(result.log_likelihood, published["log_likelihood_trace"][-1], rtol=1e-9)
    assert (result.status, result.n_iter) == (Status.MAX_ITER, published["n_iter"])


def numbers_after(label, lines):
    """The numbers on the one line that begins with the label."""
    (line,) = (line for line in lines if line.strip().startswith(label))
    return [float(word) for word in line.strip().removeprefix(label).split()]


def test_three_clusters_page_gives_the_published_weights_and_shows_the_published_number_fall(run_page):
    result, lines = run_page("three_clusters")
    assert_published(result, "three_clusters", 1e-7)
    assert numbers_after("weights:", lines) == [0.33330769, 0.33346979, 0.33322252]

    iterations, log_likelihood, published_number = np.array([line.split() for line in lines[1:18]], dtype=float).T
    np.testing.assert_array_equal(iterations, np.arange(1, 18))
    # Printed to four decimals.
    np.testing.assert_allclose(log_likelihood, NOTEBOOKS["three_clusters"]["log_likelihood_trace"][1:], atol=6e-5)
    assert np.all(np.diff(log_likelihood) >= 0)
    assert np.all(np.diff(published_number[:13]) < 0)
    assert published_number[-1] == pytest.approx(300 * np.log(1 / 3), abs=0.01)


def test_correlated_clusters_page_gives_the_published_answer_in_fewer_iterations(run_page):
    (published, enough), lines = run_page("correlated_clusters")
    assert_published(published, "correlated_clusters", 1e-7)
    assert numbers_after("weights:", lines) == [0.33333333, 0.33332184, 0.33334483]
    assert numbers_after("first mean:", lines) == [5.8929956, 6.1620124]

    assert enough.status == Status.CONVERGED
    assert enough.n_iter < 20
    np.testing.assert_allclose(enough.mixture.means, published.mixture.means, atol=1e-6)
    assert lines[-1].endswith("True")


def test_from_samples_page_stops_on_the_way_and_then_finishes(run_page):
    (published, finished), lines = run_page("from_samples")
    assert_published(published, "from_samples", 1e-6)
    assert published.history[30] - published.history[29] == pytest.approx(7.0, abs=0.01)
    assert Status.MAX_ITER.sentence in "\n".join(lines)

    assert finished.status == Status.CONVERGED
    assert finished.log_likelihood - published.log_likelihood == pytest.approx(194.55, abs=0.01)


def test_from_kmeans_page_stops_near_the_top_that_its_own_starts_reach(run_page):
    (published, best_of_ten), lines = run_page("from_kmeans")
    assert_published(published, "from_kmeans", 1e-6)
    assert published.history[30] - published.history[29] == pytest.approx(0.0274, abs=1e-4)
    assert lines[0].startswith("MAX_ITER after 30 iterations, log-likelihood -13344.8286")

    assert best_of_ten.status == Status.CONVERGED
    assert 0.03 < best_of_ten.log_likelihood - published.log_likelihood < 0.05


def test_five_dimensional_page_gives_a_mixture_and_ten_starts_do_better(run_page):
    (result, best_of_ten), lines = run_page("five_dimensional")
    assert_published(result, "five_dimensional", 1e-6)
    assert numbers_after("weights:", lines) == np.round(NOTEBOOKS["five_dimensional"]["final"]["weights"], 8).tolist()
    assert numbers_after("weights sum to", lines) == [1.0]
    assert "mean responsibilities are the weights: True" in lines

    assert best_of_ten.status == Status.CONVERGED
    assert best_of_ten.log_likelihood > result.log_likelihood + 1


def test_ridges_page_differentiates_a_sweep_of_its_own(capsys):
    page = runpy.run_path(str(EXAMPLES / "ridges.py"), run_name="ridges")
    scores, slopes = page["main"]()
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(page["RIDGES"])
    # Between neighbouring ridges the score changes as the slopes promise, wherever both led to one optimum.
    best = np.argmax(scores[:5])
    assert np.all(slopes[:best] > 0)
    assert np.all(np.abs(slopes[:3] - np.gradient(scores, page["RIDGES"])[:3]) < 0.3 * np.abs(slopes[:3]))


def test_feature_map_page_learns_by_the_derivatives_of_finite_differences(capsys, monkeypatch):
    pytest.importorskip("optax")
    page = runpy.run_path(str(EXAMPLES / "feature_map.py"), run_name="feature_map")
    x, _, best = page["groups"](8)
    # Where clusters overlap, EM is slow, and its values have too few digits for differences.
    direction = best + 0.1
    start = page["fitted"](direction, x)
    with jax.enable_x64(True), monkeypatch.context() as patch:
        # Differences need more digits than derivatives, and plain EM goes as far as rounding.
        exact = functools.partial(jaxgmm.fit_differentiable, method="em", tol=1e-15, max_iter=20_000)
        patch.setattr(jaxgmm, "fit_differentiable", exact)
        program = jax.jit(jax.value_and_grad(page["loss"], has_aux=True))
        slope = np.asarray(program(direction, x, start)[1])
        h, along = 1e-5, np.random.default_rng(0).normal(size=len(direction))
        above, below = (float(program(direction + by * along, x, start)[0][0]) for by in (h, -h))
    expected = (above - below) / (2 * h)
    assert np.sum(slope * along) == pytest.approx(expected, rel=1e-4)
    with jax.numpy_dtype_promotion("standard"):  # optax promotes
        before, after = page["main"](n_groups=200)
    assert before < 0.7
    assert after > 0.9
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0].strip() for line in lines[-4:-1]] == ["before", "after", "best"]


def test_pictures_page_draws_what_it_is_asked_for(tmp_path, capsys):
    page = runpy.run_path(str(EXAMPLES / "pictures.py"), run_name="pictures")
    assert all(draw.__doc__ or draw.__qualname__.endswith("<locals>.draw") for draw in page["PICTURES"].values())
    page["main"](tmp_path, ["mixture", "stages"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mixture.png", "stages.png"]
    assert len(capsys.readouterr().out.splitlines()) == 2
