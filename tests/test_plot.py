"""Pictures: what is drawn is what was asked for, and looks as it did when it was looked at.

The pictures compared are in tests/images/, without letters, whose shapes change with the version of matplotlib. After a
change that is meant, `python tests/test_plot.py` writes them anew; look at them before they are committed.
"""

import importlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.testing.compare import compare_images
from matplotlib.text import Text
from scipy.stats import kstest

import jaxgmm
from jaxgmm import Mixture, Status, plot
from jaxgmm.plot.palette import EMPHASIS, colour, line, marker

mpl.use("Agg")
IMAGES = Path(__file__).parent / "images"
# Root of the mean squared difference, of 255. From matplotlib 3.8 to 3.11 there is none; elsewhere edges may be
# smoothed in another way.
TOLERANCE = 1.0


class Fit(NamedTuple):
    """Of a FitResult, what pictures read."""

    mixture: Mixture
    n_iter: Any
    status: Any
    spurious: Any = None
    history: Any = None
    snapshots: Any = None


def plane_mixture() -> Mixture:
    covariances = np.array([[[1.0, 0.6], [0.6, 1.0]], [[0.5, 0.0], [0.0, 2.0]], [[1.0, -0.3], [-0.3, 0.4]]])
    return Mixture(np.array([0.6, 0.3, 0.1]), np.array([[0.0, 0.0], [5.0, 1.0], [1.0, 5.0]]), covariances)


def line_mixture() -> Mixture:
    return Mixture(np.array([0.7, 0.3]), np.array([[0.0], [4.0]]), np.array([[[1.0]], [[0.25]]]))


def space_mixture() -> Mixture:
    covariances = np.array([np.eye(3), [[2.0, 0.5, 0.0], [0.5, 1.0, 0.3], [0.0, 0.3, 0.5]]])
    return Mixture(np.array([0.5, 0.5]), np.array([[0.0, 0.0, 0.0], [4.0, 0.0, 3.0]]), covariances)


def drawn(mixture: Mixture, n_samples: int = 200) -> np.ndarray:
    """Samples of a mixture, as NumPy draws them, which is the same in all versions of JAX."""
    rng = np.random.default_rng(0)
    component = np.sort(rng.choice(len(mixture.weights), p=mixture.weights, size=n_samples))
    noise = rng.normal(size=(n_samples, mixture.n_features))
    factors = np.linalg.cholesky(mixture.covariances)
    return mixture.means[component] + np.einsum("nij,nj->ni", factors[component], noise)


def table(**changed: Any) -> dict[str, np.ndarray]:
    """Of a sweep over two data sets, two families and K = 1…3; the last model has spurious components."""
    columns = {
        "data_set": np.repeat([0, 1], 6),
        "n_components": np.tile([1, 1, 2, 2, 3, 3], 2),
        "covariance_type": np.tile(["full", "diag"], 6),
        "reg_covar": np.full(12, 1e-6),
        "bic": np.array([90.0, 95, 60, 62, 70, 40, 10, 11, 12, 13, 14, 15]),
        "status": np.full(12, "CONVERGED"),
        "spurious": np.tile([0, 0, 0, 0, 0, 1], 2),
        "chosen": np.arange(12) % 6 == 2,
    }
    return columns | changed


def stages_of_fit() -> tuple[np.ndarray, Fit]:
    """Samples, and a fit that went from two guesses to their mixture in three iterations."""
    end = plane_mixture()
    at = [replace(end, means=end.means + step, weights=np.full(3, 1 / 3)) for step in (2.0, 0.5)]
    snapshots = jax.tree.map(lambda *leaves: np.stack(leaves), *at)
    history = np.array([-90.0, -50.0, -42.0, -41.0])
    return drawn(end), Fit(end, 3, Status.CONVERGED, 0, history, snapshots)


def many_fits(*, n_features: int = 2) -> tuple[Fit, list[np.ndarray]]:
    """Eight data sets of 10, 20, … samples, and fits of all kinds."""
    one = line_mixture() if n_features == 1 else plane_mixture()
    x = [drawn(one, 10 * (b + 1)) for b in range(8)]
    mixture = one.map(lambda leaf: np.stack([leaf] * 8))
    status = np.array([0, 0, 1, 3, 0, 2, 4, 0])
    for leaf in mixture.arrays:
        leaf[status >= 2] = np.nan
    x[3][2] = np.nan
    return Fit(mixture, np.full(8, 9), status, np.array([0, 0, 2, 0, 0, 0, 0, 1])), x


def diagnosis_of(mixture: Mixture, n_samples: int = 200, **options: Any) -> jaxgmm.Diagnosis:
    return jaxgmm.diagnose(mixture, drawn(mixture, n_samples), **options)


# Pictures that are compared, each drawn into axes of a figure.

PICTURES: dict[str, tuple[tuple[int, int], Callable[[Any], Any]]] = {
    "mixture": ((1, 1), lambda ax: plot.mixture(plane_mixture(), drawn(plane_mixture()), ax=ax[0])),
    "contours": ((1, 1), lambda ax: plot.mixture(plane_mixture(), drawn(plane_mixture()), ax=ax[0], contours=True)),
    "histogram": ((1, 1), lambda ax: plot.histogram(line_mixture(), drawn(line_mixture()), ax=ax[0])),
    "stages": ((1, 4), lambda ax: plot.stages(*stages_of_fit()[::-1], ax=ax)),
    "criterion": ((1, 1), lambda ax: plot.criterion(table(), ax=ax[0])),
    "pairs": ((3, 3), lambda ax: plot.pairs(space_mixture(), drawn(space_mixture()), ax=ax)),
    "overview": ((2, 4), lambda ax: plot.overview(*many_fits(), ax=ax, n=8)),
    "overview_1d": ((2, 4), lambda ax: plot.overview(*many_fits(n_features=1), ax=ax, n=8, by="size")),
    "diagnosis": ((2, 2), lambda ax: plot.diagnosis(diagnosis_of(plane_mixture()), ax=ax)),
}


def picture(name: str) -> Figure:
    """One of the pictures, small, in matplotlib's own style and without letters."""
    (rows, columns), draw = PICTURES[name]
    with mpl.rc_context(mpl.rcParamsDefault):
        figure = Figure(figsize=(2 * columns + 1, 2 * rows + 1), dpi=50)
        draw(figure.subplots(rows, columns, squeeze=False).ravel())
        for text in figure.findobj(Text):
            text.set_visible(False)
        for panel in figure.axes:
            panel.tick_params(labelbottom=False, labelleft=False)
            if panel.get_legend():
                # Its size, and its place among lines, are those of its letters.
                panel.get_legend().remove()
        return figure


def save(figure: Figure, path: Path) -> str:
    figure.savefig(path, metadata={"Software": None})
    return str(path)


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_look_as_they_did(name: str, tmp_path: Path) -> None:
    difference = compare_images(str(IMAGES / f"{name}.png"), save(picture(name), tmp_path / "now.png"), TOLERANCE)
    assert difference is None, difference


@pytest.mark.parametrize("name", PICTURES)
def test_other_pictures_are_noticed(name: str, tmp_path: Path) -> None:
    figure = picture(name)
    # Any one thing that is drawn for a component or a model, in any panel.
    panel = figure.axes[-1]
    things = [*panel.collections, *ellipses(panel), *panel.lines]
    things[0].set_visible(False)
    assert compare_images(str(IMAGES / f"{name}.png"), save(figure, tmp_path / "other.png"), TOLERANCE) is not None


def test_images_are_small_and_all_in_use() -> None:
    assert sorted(path.stem for path in IMAGES.glob("*.png")) == sorted(PICTURES)
    assert all(path.stat().st_size < 60_000 for path in IMAGES.glob("*.png"))


# Axes.


@pytest.mark.parametrize("name", PICTURES)
def test_axes_given_are_drawn_into_and_returned(name: str) -> None:
    (rows, columns), draw = PICTURES[name]
    axes = Figure().subplots(rows, columns, squeeze=False).ravel()
    returned = np.atleast_1d(draw(axes)).ravel()
    assert all(given is back for given, back in zip(axes, returned, strict=True))
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    ("draw", "shape"),
    [
        (lambda: plot.mixture(plane_mixture()), ()),
        (lambda: plot.histogram(line_mixture()), ()),
        (lambda: plot.criterion(table()), ()),
        (lambda: plot.stages(*stages_of_fit()[::-1]), (4,)),
        (lambda: plot.pairs(space_mixture(), drawn(space_mixture())), (3, 3)),
        (lambda: plot.overview(*many_fits(), n=7), (7,)),
        (lambda: plot.diagnosis(diagnosis_of(plane_mixture())), (4,)),
    ],
    ids=["mixture", "histogram", "criterion", "stages", "pairs", "overview", "diagnosis"],
)
def test_without_axes_there_is_one_new_figure(draw: Callable[[], Any], shape: tuple[int, ...]) -> None:
    axes = draw()
    assert np.shape(axes) == shape
    (number,) = plt.get_fignums()
    assert {panel.figure.number for panel in np.atleast_1d(axes).ravel()} == {number}
    plt.figure(number).canvas.draw()


# Numbers of axes.


def far_away(mixture: Mixture) -> Mixture:
    """A mixture of epoch seconds, an hour for each unit."""
    return Mixture(mixture.weights, 3600 * mixture.means + 1.7e9, 3600**2 * mixture.covariances)


def stages_far_away() -> tuple[np.ndarray, Fit]:
    x, fit = stages_of_fit()
    history = fit.history - 1_234_500
    ends = {"mixture": far_away(fit.mixture), "snapshots": far_away(fit.snapshots)}
    return 3600 * x + 1.7e9, fit._replace(history=history, **ends)


@pytest.mark.parametrize(
    ("draw", "label"),
    [
        (lambda: plot.stages(*stages_far_away()[::-1])[-1], "log-likelihood (nats) + 1,234,500"),
        (lambda: plot.stages(*stages_far_away()[::-1])[0], "feature 1 − 1,700,000,000, in 1e3"),
        (lambda: plot.mixture(far_away(plane_mixture())), "feature 1 − 1,700,000,000, in 1e3"),
        (lambda: plot.histogram(far_away(line_mixture())), "density, in 1e-6"),
        (lambda: plot.pairs(far_away(space_mixture()), None)[2, 0], "feature 2\n− 1,700,000,000, in 1e3"),
        (lambda: plot.criterion(table(bic=1e7 * table()["bic"])), "BIC above its minimum (lower is better), in 1e6"),
        (lambda: plot.diagnosis(diagnosis_of(plane_mixture(), sample_weight=np.full(200, 1e4)))[1], "component"),
    ],
    ids=["likelihood", "stages", "mixture", "histogram", "pairs", "criterion", "diagnosis"],
)
def test_offsets_and_powers_are_in_labels_not_across_titles(draw: Callable[[], Axes], label: str) -> None:
    ax = draw()
    assert ax.get_ylabel() == label
    ax.figure.canvas.draw()
    written = [axis.offsetText for panel in ax.figure.axes for axis in (panel.xaxis, panel.yaxis)]
    assert not any(text.get_visible() and text.get_text() for text in written)


def test_numbers_and_offset_of_an_axis_add_up_to_its_values() -> None:
    ax = plot.mixture(far_away(plane_mixture()))
    ticks = [tick.get_text().replace("−", "-") for tick in ax.get_xticklabels()]
    np.testing.assert_allclose([1000 * float(tick) + 1.7e9 for tick in ticks], ax.get_xticks(), rtol=0, atol=1)
    assert plot.mixture(plane_mixture()).get_xlabel() == "feature 0"


# Colours.


def lightness(name: str) -> float:
    """L* of CIELAB, from 0 for black to 100 for white."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(name)]
    return 116 * float(np.dot([0.2126, 0.7152, 0.0722], linear)) ** (1 / 3) - 16


def test_components_can_be_told_apart_in_grey() -> None:
    assert all(abs(lightness(colour(k)) - lightness(colour(k + 1))) > 5 for k in range(6))
    assert all(lightness(colour(k)) < 75 for k in range(7))
    assert len({(colour(k), marker(k)) for k in range(56)}) == 56
    assert len({(colour(k), str(line(k))) for k in range(35)}) == 35


# One mixture.


def ellipses(ax: Axes) -> list[Ellipse]:
    return [patch for patch in ax.patches if isinstance(patch, Ellipse)]


def texts(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


@pytest.mark.parametrize("features", [(0, 1), (2, 0)])
def test_ellipses_are_one_and_two_standard_deviations_from_the_mean(features: tuple[int, int]) -> None:
    mixture = space_mixture()
    drawn_ellipses = ellipses(plot.mixture(mixture, features=features))
    assert len(drawn_ellipses) == 4
    for number, ellipse in enumerate(drawn_ellipses):
        k, n_deviations = divmod(number, 2)
        on_it = ellipse.get_transform().transform(ellipse.get_path().vertices) @ np.eye(2)
        on_it = ellipse.axes.transData.inverted().transform(on_it) - mixture.means[k, list(features)]
        precision = np.linalg.inv(mixture.covariances[k][np.ix_(features, features)])
        # Bézier curves are circles to a few parts in ten thousand, and between their ends lie control points.
        ends = on_it[:-1:3]
        np.testing.assert_allclose(np.einsum("ni,ij,nj->n", ends, precision, ends), (n_deviations + 1) ** 2, rtol=1e-3)


def test_heavier_components_have_thicker_lines_and_their_weights_are_written() -> None:
    ax = plot.mixture(plane_mixture())
    widths = [ellipse.get_linewidth() for ellipse in ellipses(ax)[::2]]
    assert widths == sorted(widths, reverse=True)
    assert len(set(widths)) == 3
    assert texts(ax) == ["60%", "30%", "10%"]


def test_samples_have_the_colour_of_their_most_probable_component() -> None:
    mixture, x = plane_mixture(), drawn(plane_mixture())
    ax = plot.mixture(mixture, x, names=["height", "width"])
    component = jaxgmm.predict(mixture, x)
    for k, points in enumerate(ax.collections):
        np.testing.assert_allclose(points.get_offsets(), x[component == k])
        assert to_hex(points.get_facecolor()[0]) == colour(k).lower()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("height", "width")


def test_few_samples_have_markers_and_many_have_dots() -> None:
    few, many = (plot.mixture(plane_mixture(), drawn(plane_mixture(), n)).collections for n in (200, 20_000))
    assert len({len(points.get_paths()[0]) for points in few}) == 3
    assert len({len(points.get_paths()[0]) for points in many}) == 1


def test_very_many_samples_are_counted_in_cells_under_the_ellipses() -> None:
    x = drawn(plane_mixture(), 200_000)
    x[0] = np.nan
    ax = plot.mixture(plane_mixture(), x, sample_weight=np.arange(200_000) > 0)
    (cells,) = ax.collections
    assert len(cells.get_offsets()) < 10_000
    assert np.sum(cells.get_array()) == 199_999
    assert [to_hex(ellipse.get_edgecolor()) for ellipse in ellipses(ax)[::2]] == [colour(k).lower() for k in range(3)]
    assert all(ellipse.get_zorder() > cells.get_zorder() for ellipse in ellipses(ax))


def test_pairs_of_many_samples_are_counted_in_cells() -> None:
    axes = plot.pairs(space_mixture(), drawn(space_mixture(), 20_000))
    counts = [np.sum(panel.collections[0].get_array()) for panel in axes[np.tril_indices(3, -1)]]
    assert counts == [20_000] * 3


def test_samples_of_weight_0_are_not_drawn() -> None:
    x = drawn(plane_mixture())
    ax = plot.mixture(plane_mixture(), x, sample_weight=np.arange(200) < 50)
    assert sum(len(points.get_offsets()) for points in ax.collections) == 50


def test_absent_components_are_not_drawn() -> None:
    room = plane_mixture().map(lambda leaf: np.concatenate([leaf, leaf[:1]]))
    room.weights[3] = 0
    room.means[3] = np.nan
    assert len(ellipses(plot.mixture(room))) == 6


@pytest.mark.parametrize("contours", [False, True])
def test_of_a_mixture_of_nan_only_samples_are_drawn(contours: bool) -> None:
    nothing = plane_mixture().map(lambda leaf: np.full_like(leaf, np.nan))
    ax = plot.mixture(nothing, drawn(plane_mixture()), contours=contours)
    assert ellipses(ax) == []
    assert [len(points.get_offsets()) for points in ax.collections] == [200]


def test_contours_hold_their_share_of_the_mass() -> None:
    ax = plot.mixture(plane_mixture(), contours=True)
    (lines,) = ax.collections
    density = np.exp(jaxgmm.log_prob(plane_mixture(), drawn(plane_mixture(), 20_000)))
    shares = [np.mean(density > level) for level in lines.levels]
    np.testing.assert_allclose(shares, [0.95, 0.8, 0.5], atol=0.01)
    assert texts(ax) == ["95%", "80%", "50%"]


def outermost(ax: Axes) -> tuple[float, list[np.ndarray]]:
    """The lowest density of all contours, and its lines."""
    sets = [artist for artist in ax.collections if hasattr(artist, "levels")]
    level = min(lines.levels[0] for lines in sets)
    return level, [line for lines in sets if lines.levels[0] == level for line in lines.allsegs[0] if len(line)]


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1e-2, 1.0])
def test_contours_are_drawn_about_narrow_components_too(scale: float) -> None:
    narrow = Mixture(np.full(2, 0.5), np.array([[0.0, 0.0], [9.7, 10.3]]), np.stack([np.eye(2) * scale**2] * 2))
    _, lines = outermost(plot.mixture(narrow, contours=True))
    # The outermost line is about each component, at its standard deviations within which 95% of the mass lie.
    radii = [np.abs(line - line.mean(axis=0)).max() for line in lines]
    np.testing.assert_allclose(radii, scale * np.sqrt(-2 * np.log(0.05)), rtol=0.1)


@pytest.mark.parametrize("ratio", [1e-6, 1e-3, 0.03])
def test_the_contour_of_a_thin_component_is_one_line(ratio: float) -> None:
    along = np.array([np.cos(0.6), np.sin(0.6)])
    covariance = (1 - ratio**2) * np.outer(along, along) + ratio**2 * np.eye(2)
    mixture = Mixture(np.full(2, 0.5), np.array([[0.0, 0.0], [9.0, 9.0]]), np.stack([np.eye(2), covariance]))
    level, lines = outermost(plot.mixture(mixture, contours=True))
    # One line about each of two components that lie far apart, and each is closed.
    assert len(lines) == 2
    assert all(np.array_equal(line[0], line[-1]) for line in lines)
    (thin,) = (line for line in lines if line.mean() > 4)
    assert np.ptp(thin @ along) > 4
    np.testing.assert_allclose(np.exp(jaxgmm.log_prob(mixture, thin)), level, rtol=0.1)


def test_axis_aligned_components_are_drawn_as_their_matrices() -> None:
    variances = np.diagonal(plane_mixture().covariances, axis1=1, axis2=2)
    matrices = replace(plane_mixture(), covariances=variances[..., None] * np.eye(2))
    of_each = [ellipses(plot.mixture(m)) for m in (replace(plane_mixture(), covariances=variances), matrices)]
    for one, other in zip(*of_each, strict=True):
        assert (one.width, one.height, one.angle) == (other.width, other.height, other.angle)


# One feature.


def test_the_black_line_is_the_density_and_the_others_add_up_to_it() -> None:
    mixture = line_mixture()
    *components, total = plot.histogram(mixture, drawn(mixture)).lines
    grid = total.get_xdata()
    np.testing.assert_allclose(total.get_ydata(), np.exp(jaxgmm.log_prob(mixture, grid[:, None])), rtol=1e-9)
    np.testing.assert_allclose(sum(line.get_ydata() for line in components), total.get_ydata())
    assert [to_hex(component.get_color()) for component in components] == [colour(k).lower() for k in range(2)]
    assert len({component.get_linestyle() for component in components}) == 2


def test_bars_have_the_area_of_their_weighted_samples() -> None:
    x, weight = np.array([[0.0], [0.4], [1.5], [np.nan]]), np.array([1.0, 2.0, 5.0, 9.0])
    bars = plot.histogram(line_mixture(), x, bins=[0, 1, 2], sample_weight=weight).patches
    np.testing.assert_allclose([bar.get_height() for bar in bars], [3 / 8, 5 / 8])


def bars(ax: Axes) -> tuple[np.ndarray, np.ndarray]:
    """Left edges and heights of bars, which have one width."""
    assert len({round(bar.get_width() / ax.patches[0].get_width(), 6) for bar in ax.patches}) == 1
    return np.array([[bar.get_x(), bar.get_height()] for bar in ax.patches]).T


def one_dimensional(weights: list[float], means: list[float], scales: list[float]) -> Mixture:
    return Mixture(np.array(weights), np.array(means)[:, None], np.square(scales)[:, None, None])


@pytest.mark.parametrize("n_samples", [20, 200, 20_000])
def test_narrow_modes_far_apart_have_bars_of_their_own(n_samples: int) -> None:
    mixture = one_dimensional([0.5, 0.5], [0.0, 10.0], [0.1, 0.1])
    left, heights = bars(plot.histogram(mixture, drawn(mixture, n_samples)))
    assert np.all(heights[(left > 0.5) & (left < 9.3)] == 0)
    assert all(np.count_nonzero(heights[np.abs(left - mean) < 1]) >= 2 for mean in (0, 10))
    assert len(heights) <= 101


def test_bars_are_few_and_cover_the_bulk_whatever_the_tails() -> None:
    rng = np.random.default_rng(0)
    one = one_dimensional([1.0], [0.0], [2.0])
    for values in (rng.standard_cauchy(2000), rng.lognormal(0, 2, 2000), np.append(drawn(one, 500), 1e300)):
        left, heights = bars(plot.histogram(one, values[:, None]))
        assert 8 <= len(heights) <= 101
        assert np.count_nonzero(heights) >= 8
        width = left[1] - left[0]
        inside = np.mean((values >= left[0]) & (values <= left[-1] + width))
        assert np.sum(heights) * width == pytest.approx(inside)


def test_bars_of_integers_have_whole_widths_and_edges_between_them() -> None:
    mixture = one_dimensional([0.6, 0.4], [3.0, 9.0], [1.5, 2.0])
    left, heights = bars(plot.histogram(mixture, np.round(drawn(mixture, 1000))))
    np.testing.assert_allclose(left % 1, 0.5)
    assert np.all(heights > 0)
    # Wide ones too, so that no bar holds more integers than another.
    left, _ = bars(plot.histogram(one_dimensional([1.0], [0.0], [300.0]), np.arange(-900, 901)[:, None]))
    np.testing.assert_allclose(left % 1, 0.5)
    np.testing.assert_allclose(np.diff(left) % 1, 0)


def test_bars_of_weighted_samples_are_those_of_repeated_samples() -> None:
    x = drawn(line_mixture(), 300)
    few = np.arange(300) < 100
    weighted = bars(plot.histogram(line_mixture(), x, sample_weight=few))
    np.testing.assert_allclose(weighted, bars(plot.histogram(line_mixture(), x[few])))


def test_a_component_without_width_neither_narrows_the_bars_nor_flattens_them() -> None:
    spike = one_dimensional([0.4, 0.6], [0.0, 5.0], [1e-9, 2.0])
    x = drawn(spike, 1000)
    ax = plot.histogram(spike, x)
    assert len(ax.patches) < 40
    assert ax.get_ylim()[1] == pytest.approx(1.5 * max(bars(ax)[1]))


def test_a_density_needs_no_samples() -> None:
    ax = plot.histogram(one_dimensional([1.0], [2.0], [1.0]))
    assert (len(ax.lines), len(ax.patches)) == (2, 0)


def test_a_mixture_of_one_feature_is_a_histogram() -> None:
    ax = plot.mixture(line_mixture(), drawn(line_mixture()), names=["height"])
    assert (ax.get_xlabel(), ax.get_ylabel(), len(ax.lines)) == ("height", "density", 3)


# Sentinels and far outliers.


def with_sentinels(mixture: Mixture, n_samples: int = 300) -> np.ndarray:
    """Samples of which 30 have a first feature of -9999, and one is far away in every feature."""
    x = drawn(mixture, n_samples)
    x[::10, 0] = -9999
    x[1] = 1e20
    return x


def with_far_component(mixture: Mixture) -> Mixture:
    added = [np.zeros(1), np.full((1, mixture.n_features), -9999.0), 1e-6 * np.eye(mixture.n_features)[None]]
    far = Mixture(*map(np.concatenate, zip(mixture.arrays, added, strict=True)))
    return replace(far, weights=np.append(0.9 * mixture.weights, 0.1))


@pytest.mark.parametrize("contours", [False, True])
def test_axes_follow_the_bulk_and_words_say_how_much_is_outside(contours: bool) -> None:
    x = with_sentinels(plane_mixture())
    ax = plot.mixture(with_far_component(plane_mixture()), x, contours=contours)
    assert "outside: 31 samples, 1 component" in texts(ax)
    assert -10 < ax.get_xlim()[0] < ax.get_xlim()[1] < 15
    assert -10 < ax.get_ylim()[0] < ax.get_ylim()[1] < 15
    assert texts(plot.mixture(plane_mixture(), drawn(plane_mixture()))) == ["60%", "30%", "10%"]


def test_a_histogram_follows_the_bulk_and_says_how_much_is_outside() -> None:
    ax = plot.histogram(with_far_component(line_mixture()), with_sentinels(line_mixture()))
    assert "outside: 31 samples, 1 component" in texts(ax)
    assert -10 < ax.get_xlim()[0] < ax.get_xlim()[1] < 15


def test_components_that_dwarf_the_bulk_do_not_widen_the_axes_for_outliers() -> None:
    mixture = replace(plane_mixture(), covariances=plane_mixture().covariances * np.array([1, 1, 1e6])[:, None, None])
    ax = plot.mixture(mixture, with_sentinels(plane_mixture()))
    assert ax.get_xlim()[1] - ax.get_xlim()[0] < 60


def test_pairs_say_on_the_diagonal_how_many_samples_of_a_feature_are_outside() -> None:
    axes = plot.pairs(space_mixture(), with_sentinels(space_mixture()))
    assert [texts(panel) for panel in np.diagonal(axes)] == [
        ["outside: 31 samples"],
        ["outside: 1 sample"],
        ["outside: 1 sample"],
    ]
    assert all(limit < 20 for panel in axes[2] for limit in np.abs([panel.get_xlim(), panel.get_ylim()]).ravel())


@pytest.mark.parametrize("n_features", [1, 2])
def test_panels_of_an_overview_follow_the_bulk_and_say_how_many_samples_are_outside(n_features: int) -> None:
    result, x = many_fits(n_features=n_features)
    x[7][:5] = -9999
    *_, panel = plot.overview(result, x, by="size")
    assert panel.get_xlabel() == "N = 80, 5 outside\n1 spurious"
    assert panel.get_xlim()[0] > -20


def test_stages_follow_the_bulk_and_say_how_many_samples_are_outside() -> None:
    x, result = stages_of_fit()
    x[:3] = -9999
    start, *_ = plot.stages(result, x)
    assert "outside: 3 samples" in texts(start)
    assert start.get_xlim()[0] > -20


def test_sentinels_among_few_distinct_values_are_outside() -> None:
    one = Mixture(np.ones(1), np.ones((1, 2)), np.eye(2)[None])
    x = np.stack([np.arange(300) % 2, np.arange(300) % 3], axis=1)
    x[:20] = -9999
    assert "outside: 20 samples" in texts(plot.mixture(one, x))
    few = np.array([[-9999.0], [-9999], [1], [2], [3], [4]])
    assert "outside: 2 samples" in texts(plot.histogram(line_mixture(), few))


def test_a_small_cluster_far_away_is_not_left_out() -> None:
    x = drawn(plane_mixture())
    x[:10] += 1000
    assert plot.mixture(plane_mixture(), x).get_xlim()[1] > 1000


# Stages.


def test_stages_are_titled_and_the_log_likelihood_is_by_iteration() -> None:
    x, result = stages_of_fit()
    start, one, end, history = plot.stages(result, x, (0, 1))
    titles = [panel.get_title() for panel in (start, one, end)]
    assert titles == ["the start", "after 1 iteration", "CONVERGED after 3 iterations"]
    np.testing.assert_array_equal(history.lines[0].get_ydata(), result.history)
    np.testing.assert_array_equal(history.lines[1].get_xdata(), [0, 1])
    np.testing.assert_array_equal(history.lines[2].get_xydata(), [[3, -41]])
    assert ellipses(start)[0].get_center() == (2, 2)
    assert ellipses(end)[0].get_center() == (0, 0)
    assert start.get_xlim() == one.get_xlim() == end.get_xlim()


def test_a_stage_after_the_end_has_no_parameters() -> None:
    x, result = stages_of_fit()
    result.snapshots.weights[1] = result.snapshots.means[1] = result.snapshots.covariances[1] = np.nan
    _, late, _, history = plot.stages(result, x, (0, 50))
    assert (late.get_title(), texts(late)) == ("after 50 iterations", ["no parameters"])
    np.testing.assert_array_equal(history.lines[1].get_xdata(), [0])


def test_stages_of_one_feature_are_histograms() -> None:
    end = line_mixture()
    snapshots = end.map(lambda array: array[None])
    result = Fit(end, 2, Status.MAX_ITER, 0, np.array([-3.0, -2.0, -1.0]), snapshots)
    axes = plot.stages(result, drawn(end), (1,), names=["height"])
    assert [len(panel.lines) for panel in axes] == [3, 3, 3]
    assert [panel.get_xlabel() for panel in axes] == ["height", "height", "iteration"]


# The criterion.


def test_every_family_has_a_line_with_its_own_colour_marker_and_style() -> None:
    ax = plot.criterion(table())
    lines = [drawn for drawn in ax.lines if not drawn.get_label().startswith("_")]
    assert [drawn.get_label() for drawn in lines] == ["full", "diag"]
    np.testing.assert_array_equal(lines[0].get_xydata(), [[1, 50], [2, 20], [3, 30]])
    np.testing.assert_array_equal(lines[1].get_xydata(), [[1, 55], [2, 22], [3, 0]])
    assert all(len({getattr(drawn, f"get_{what}")() for drawn in lines}) == 2 for what in ("color", "marker"))
    assert len({drawn.get_linestyle() for drawn in lines}) == 2
    assert ax.get_ylabel() == "BIC above its minimum (lower is better)"


def test_the_chosen_model_has_a_ring_and_spurious_ones_are_hollow() -> None:
    ax = plot.criterion(table())
    (ring,) = (drawn for drawn in ax.lines if drawn.get_markeredgecolor() == EMPHASIS)
    np.testing.assert_array_equal(ring.get_xydata(), [[2, 20]])
    hollow = [drawn.get_xydata().tolist() for drawn in ax.lines if drawn.get_markerfacecolor() == "white"]
    assert hollow == [[], [[3.0, 0.0]]]
    keys = [text.get_text() for text in ax.get_legend().get_texts()]
    assert keys == ["full", "diag", "spurious or degenerate", "chosen"]


def test_ridges_have_lines_of_their_own_and_missing_values_none() -> None:
    bic = table()["bic"]
    bic[4] = np.nan
    ax = plot.criterion(table(bic=bic, reg_covar=np.tile(np.repeat([1e-6, 0.01], [4, 2]), 2)))
    keys = [text.get_text() for text in ax.get_legend().get_texts()]
    assert keys[:4] == ["full, ridge 1e-06", "diag, ridge 1e-06", "full, ridge 0.01", "diag, ridge 0.01"]
    assert len(ax.lines[4].get_xdata()) == 0


def test_another_data_set_and_a_test_of_k() -> None:
    ax = plot.criterion(table(lrt=np.linspace(0, 1, 12)), "lrt", data_set=1)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), np.array([6, 8, 10]) / 11)
    assert ax.get_ylabel() == "p-value of K against K + 1"


def test_the_minimum_of_a_criterion_is_that_of_the_data_set_and_of_finite_values() -> None:
    bic = table()["bic"]
    bic[5] = -np.inf
    ax = plot.criterion(table(bic=bic))
    assert [drawn.get_ydata().tolist() for drawn in ax.lines[::2][:2]] == [[30, 0, 10], [35, 2]]
    other = plot.criterion(table(bic=bic), data_set=1)
    np.testing.assert_array_equal(other.lines[0].get_ydata(), [0, 2, 4])
    nothing = plot.criterion(table(bic=np.full(12, np.inf)))
    assert [len(drawn.get_xdata()) for drawn in nothing.lines] == [0, 0, 0, 0]
    assert texts(nothing) == ["no model has a value"]
    assert nothing.get_legend() is None


def test_a_degenerate_model_far_below_does_not_flatten_the_others() -> None:
    bic = table()["bic"]
    bic[5] = -1e6
    ax = plot.criterion(table(bic=bic))
    assert texts(ax) == ["outside: 1 model"]
    np.testing.assert_allclose(ax.get_ylim(), (-3.5, 38.5))
    # What is chosen is shown, and so is a sound model.
    assert texts(plot.criterion(table(bic=bic, chosen=np.arange(12) % 6 == 5))) == []
    assert texts(plot.criterion(table(bic=bic, spurious=np.zeros(12, int)))) == []


def test_a_sweep_is_drawn_by_its_table() -> None:
    ax = plot.criterion(jaxgmm.Sweep(table(), None))
    assert len(ax.lines[0].get_xdata()) == 3


# Pairs.


def test_pairs_share_their_scales_and_hide_what_is_above_the_diagonal() -> None:
    axes = plot.pairs(space_mixture(), drawn(space_mixture()), names=["a", "b", "c"])
    assert [[panel.get_visible() for panel in row] for row in axes] == np.tri(3, dtype=bool).tolist()
    for row in range(3):
        for column in range(row):
            assert axes[row, column].get_xlim() == axes[column, column].get_xlim()
            assert axes[row, column].get_ylim() == axes[row, row].get_xlim()
            assert len(ellipses(axes[row, column])) == 4
    assert [panel.get_xlabel() for panel in axes[2]] == ["a", "b", "c"]
    assert [panel.get_ylabel() for panel in axes[:, 0]] == ["a", "b", "c"]


# Many fits.


def titles(axes: np.ndarray) -> list[str]:
    return [panel.get_title().removeprefix("data set ") for panel in axes]


def test_by_status_takes_some_of_each_the_worst_first() -> None:
    result, x = many_fits()
    assert titles(plot.overview(result, x, n=5)) == ["6", "3", "5", "2", "7"]
    # Among those that converged, the one with a spurious component first.
    assert titles(plot.overview(result, x, n=20)) == ["6", "3", "5", "2", "7", "0", "1", "4"]
    stack, fits = np.stack([x[7]] * 40), jaxgmm_fits(40, status=np.repeat([0, 1], [39, 1]))
    assert titles(plot.overview(fits, stack, n=4)) == ["39", "0", "19", "38"]
    # Those with spurious components are not thinned.
    fits = fits._replace(spurious=np.isin(np.arange(40), (7, 30)).astype(int))
    assert titles(plot.overview(fits, stack, n=4)) == ["39", "7", "30", "0"]


def jaxgmm_fits(n: int, *, status: np.ndarray) -> Fit:
    mixture = plane_mixture().map(lambda leaf: np.stack([leaf] * n))
    return Fit(mixture, np.zeros(n, int), status, np.zeros(n, int))


def test_by_size_goes_from_the_smallest_to_the_largest() -> None:
    result, x = many_fits()
    axes = plot.overview(result, x[::-1], by="size", n=3)
    assert titles(axes) == ["7", "3", "0"]
    assert [panel.get_xlabel() for panel in axes] == ["N = 10, 1 spurious", "N = 50", "N = 80"]


def test_by_misfit_takes_the_least_likely_first_and_those_without_answer_last() -> None:
    good = plane_mixture()
    x = np.stack([drawn(good, 300), 1.5 * drawn(good, 300), drawn(good, 300) + 1, drawn(good, 300)])
    result = jaxgmm_fits(4, status=np.array([0, 0, 0, 3]))
    for leaf in result.mixture.arrays:
        leaf[3] = np.nan
    axes = plot.overview(result, x, by="misfit")
    least = np.nanmin(jaxgmm.diagnose(result.mixture, x).p_values, axis=1, initial=1)
    assert titles(axes) == [*(str(b) for b in np.argsort(least[:3])), "3"]
    assert titles(axes)[2] == "0"
    assert axes[0].get_xlabel() == f"N = 300, p = {least.min():.1g}"
    assert axes[3].get_xlabel() == "N = 300"


@pytest.mark.parametrize("n_features", [1, 2])
def test_fits_without_answer_are_hatched_and_named(n_features: int) -> None:
    result, x = many_fits(n_features=n_features)
    axes = plot.overview(result, x, by="size", names=list("abcdefgh"))
    named = [text for panel in axes for text in texts(panel)]
    assert named == ["MAX_ITER", "NONFINITE", "DEGENERATE", "TOO_FEW_SAMPLES"]
    assert [panel.patch.get_hatch() is not None for panel in axes] == (result.status >= 2).tolist()
    assert [panel.get_title() for panel in axes] == list("abcdefgh")
    assert axes[2].get_xlabel() == "N = 30, 2 spurious"


def test_a_real_result_is_drawn() -> None:
    x = [drawn(line_mixture(), n) for n in (30, 40)]
    axes = plot.overview(jaxgmm.fit(x, 2, init=line_mixture(), precision="float64"), x)
    assert [len(panel.lines) for panel in axes] == [3, 3]


# Checks of a fit.


def test_residuals_depart_from_zero_by_the_misfit() -> None:
    diagnosis = diagnosis_of(plane_mixture(), sample_weight=np.arange(200) % 3)
    residuals, *_ = plot.diagnosis(diagnosis, names=["a", "b"])
    farthest = {drawn.get_label().split(":")[0]: np.abs(drawn.get_ydata()).max() for drawn in residuals.lines}
    for label, misfit in zip(
        ["a", "b, given the features before it", "b", "radius"], diagnosis.misfits[[0, 1, 3, 4]], strict=True
    ):
        assert farthest[label] == pytest.approx(misfit)


def test_the_band_holds_nineteen_of_twenty() -> None:
    (band,) = (patch for patch in plot.diagnosis(diagnosis_of(plane_mixture(), 2000))[0].patches)
    half = band.get_path().transformed(band.get_patch_transform()).get_extents().ymax
    rng = np.random.default_rng(0)
    beyond = [kstest(rng.uniform(size=2000), "uniform").statistic > half for _ in range(400)]
    assert 0.02 < np.mean(beyond) < 0.08


def test_counts_overlaps_and_uncertainties_are_drawn() -> None:
    diagnosis = diagnosis_of(plane_mixture())
    _, counts, overlaps, uncertainty = plot.diagnosis(diagnosis)
    np.testing.assert_allclose([bar.get_width() for bar in counts.patches], diagnosis.counts)
    np.testing.assert_allclose(counts.lines[0].get_xdata(), diagnosis.effective_counts)
    below = np.exp(-diagnosis.separation[np.tril_indices(3, -1)])
    assert texts(overlaps) == [f"{overlap:.2f}" for overlap in below]
    means = [drawn.get_xdata()[0] for drawn in uncertainty.lines[1:]]
    np.testing.assert_allclose(means, diagnosis.component_uncertainty)
    assert uncertainty.get_xlim() == (0, pytest.approx(2 / 3))


def test_one_component_has_no_pair_and_absent_ones_are_left_out() -> None:
    one = Mixture(np.array([0.0, 1.0]), np.zeros((2, 2)), np.stack([np.eye(2)] * 2))
    _, counts, overlaps, uncertainty = plot.diagnosis(diagnosis_of(one))
    assert texts(overlaps) == ["no pair"]
    assert [label.get_text() for label in counts.get_yticklabels()] == ["1"]
    assert len(uncertainty.lines) == 0


def test_without_doubt_the_panel_of_uncertainties_says_so() -> None:
    apart = replace(plane_mixture(), means=100 * plane_mixture().means)
    uncertainty = plot.diagnosis(diagnosis_of(apart))[3]
    assert texts(uncertainty) == ["no doubt: every sample\nhas a component of\na probability above 99%"]
    assert len(uncertainty.lines) == 0
    assert texts(plot.diagnosis(diagnosis_of(plane_mixture()))[3]) == []


# Misuse.


def batched(mixture: Mixture) -> Mixture:
    return mixture.map(lambda array: array[None])


X, FIT = stages_of_fit()


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda: plot.mixture(batched(plane_mixture())), r"must be one mixture.*\(1, 3\).*plot.overview"),
        (lambda: plot.mixture(plane_mixture(), np.zeros((5, 3))), r"x must be \(N, 2\).*\(5, 3\)"),
        (lambda: plot.mixture(plane_mixture(), np.ma.masked_equal(np.zeros((5, 2)), 0)), "x has masked entries"),
        (lambda: plot.mixture(plane_mixture(), np.zeros((5, 2), complex)), "x must hold real numbers"),
        (lambda: plot.mixture("text"), "mixture must be a jaxgmm.Mixture or a result of jaxgmm.fit; got str"),
        (lambda: plot.criterion(FIT), "draws a jaxgmm.Sweep, or its table, a dict of columns; got"),
        (lambda: plot.overview(plane_mixture(), X), "result must be a jaxgmm.FitResult or Sweep; got Mixture"),
        (lambda: plot.mixture(plane_mixture(), features=(0, 2)), "features must be two different of 0 to 1"),
        (lambda: plot.mixture(plane_mixture(), features=("a", "b")), r"two different of 0 to 1; got \('a', 'b'\)"),
        (lambda: plot.mixture(plane_mixture(), names=["a"]), "names must be of all 2 features"),
        (lambda: plot.mixture(plane_mixture(), X, sample_weight=[1.0]), r"sample_weight must have shape \(200,\)"),
        (lambda: plot.mixture(plane_mixture(), ax=[1]), "ax must be one matplotlib Axes; got list"),
        (lambda: plot.histogram(plane_mixture()), "one feature; this one has 2"),
        (lambda: plot.pairs(line_mixture(), None), "two features or more.*plot.histogram"),
        (lambda: plot.pairs(space_mixture(), None, ax=[None] * 4), "ax must hold 9 matplotlib Axes; it holds 4"),
        (lambda: plot.stages(FIT._replace(status=np.zeros(2)), X), "has a batch axis"),
        (lambda: plot.stages(FIT._replace(snapshots=None), X), r"no snapshots.*fit\(…, history=\(0, 1\)\)"),
        (lambda: plot.stages(X, FIT), "result must be a jaxgmm.FitResult; got ndarray"),
        (lambda: plot.stages(FIT, X, (0, 1, 2)), "has 2 snapshots; iterations names 3"),
        (lambda: plot.criterion(table(), "aic"), "criterion must be one that the sweep has, 'bic'; got 'aic'"),
        (lambda: plot.criterion(table(), data_set=2), "has no data set 2; its last is 1"),
        (lambda: plot.criterion(table(), data_set="m"), "must be the number of a data set, from 0; got 'm'.$"),
        (lambda: plot.criterion(table(), data_set=[0]), r"must be the number of a data set, from 0; got \[0\].$"),
        (lambda: plot.overview(*many_fits(), by="age"), "by must be 'status', 'size' or 'misfit'; got 'age'"),
        (lambda: plot.overview(*many_fits(), n=0), "n must be an integer of at least 1; got 0"),
        (lambda: plot.overview(*many_fits(), n="all"), "n must be an integer of at least 1; got 'all'"),
        (lambda: plot.overview(FIT, X), "with a batch axis. Use plot.mixture"),
        (lambda: plot.overview(many_fits()[0], many_fits()[1][:3]), "x holds 3 data sets, but result 8 fits"),
        (lambda: plot.overview(*many_fits(), names=["a"]), "names must be of all 8 data sets; there are 1"),
        (lambda: plot.diagnosis(jaxgmm.diagnose(plane_mixture(), X[None])), r"batch axis.*diagnosis.of\(b\)"),
        (lambda: plot.diagnosis(diagnosis_of(plane_mixture()), names=["a"]), "names must be of all 2 features"),
    ],
)
def test_misuse_is_refused_in_words(draw: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        draw()
    assert plt.get_fignums() == []


class Nameless:
    """A name that cannot be written, which is noticed while a figure is drawn."""

    def __str__(self) -> str:
        raise RuntimeError("no name")


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plot.mixture(plane_mixture(), X, names=[Nameless(), "b"]),
        lambda: plot.mixture(line_mixture(), names=[Nameless()]),
        lambda: plot.histogram(line_mixture(), np.zeros((5, 1)), bins=-1),
        lambda: plot.pairs(plane_mixture(), X, names=[Nameless(), "b"]),
        lambda: plot.stages(FIT, X, features=(0, 2)),
        lambda: plot.stages(FIT, X, features=(1, 1)),
        lambda: plot.criterion(table(chosen=np.array([None] * 11 + ["?"]))),
        lambda: plot.overview(*many_fits(), names=[Nameless()] * 8),
        lambda: plot.diagnosis(diagnosis_of(plane_mixture()), names=[Nameless(), "b"]),
    ],
)
def test_a_call_that_fails_while_it_draws_leaves_no_figure_of_its_own(draw: Callable[..., Any]) -> None:
    kept = plt.figure()
    with pytest.raises((ValueError, RuntimeError, TypeError)):
        draw()
    assert plt.get_fignums() == [kept.number]


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "jaxgmm.plot")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxgmm\[plot\]'"):
        importlib.import_module("jaxgmm.plot")


@pytest.mark.slow
def test_stages_of_other_iterations_than_named_are_refused():
    x = np.random.default_rng(0).normal(size=(60, 2)) + 4 * (np.arange(60) % 2)[:, None]
    result = jaxgmm.fit(x, 2, init=Mixture(np.full(2, 0.5), x[:2] + 3, np.stack([np.eye(2)] * 2)), history=(0, 3))
    with pytest.raises(ValueError, match="snapshot 1 is not of iteration 1; give the numbers"):
        plot.stages(result, x)
    axes = plot.stages(result, x, (0, 3))
    plt.close(axes[0].figure)


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    for name in PICTURES:
        print(save(picture(name), IMAGES / f"{name}.png"))


def test_a_fit_without_an_answer_is_not_shown_as_rejected() -> None:
    x = np.append(np.random.default_rng(0).normal(size=50), np.nan)[:, None]
    axes = plot.diagnosis(jaxgmm.diagnose(jaxgmm.fit(x, 2, n_init=1), x))
    texts = [text.get_text() for text in axes.flat[0].get_legend().get_texts()]
    assert texts == ["feature 0: p unknown", "radius: p unknown"]
