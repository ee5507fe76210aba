"""What a page holds: read back from the file, it is what was fitted."""

import base64
import hashlib
import html
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from report_contents import ODD, filled, page_of, tried

import jaxgmm
from jaxgmm import Status, doubts
from jaxgmm.report import write
from jaxgmm.report.columns import adjusted
from jaxgmm.report.drawn import LEVELS, MOST, WEIGHT_LEVELS
from jaxgmm.report.models import models
from jaxgmm.report.packing import packed, unpacked

ASSETS = sorted((Path(jaxgmm.__file__).parent / "report" / "assets").iterdir())


def test_arrays_come_back_from_their_texts() -> None:
    given = {
        "bytes": np.arange(7, dtype=np.uint8),
        "words": np.array([0, 1, 65535], np.uint16),
        "long": np.array([2**32 - 1], np.uint32),
        "single": np.array([[1.5, np.nan], [-np.inf, 0]], np.float32),
        "double": np.array([np.pi, 1e300]),
        "none": np.empty(0, np.float32),
    }
    back = unpacked(packed(given))
    assert list(back) == list(given)
    for name, values in given.items():
        assert back[name].dtype == values.dtype
        np.testing.assert_array_equal(back[name], values.ravel())


def test_overlaps_are_computed_once(monkeypatch) -> None:
    computed = []
    distances = doubts._bhattacharyya
    monkeypatch.setattr(doubts, "_bhattacharyya", lambda pair: computed.append(pair) or distances(pair))
    page_of(filled(3, 1))
    assert len(computed) == 1


@pytest.mark.parametrize("n_features", [1, 2, 5])
def test_samples_and_mixtures_come_back_from_the_file(n_features: int) -> None:
    content = filled(3, n_features)
    page = page_of(content)
    (block,) = page.blocks
    assert page.meta["features"] == content.features
    low, span = (block[name].reshape(3, n_features) for name in ("low", "span"))
    np.testing.assert_array_equal(block["n"], [40] * 3)
    levels = np.stack([block[f"x{j}"] for j in range(n_features)], axis=-1).reshape(3, 40, n_features)
    levels[..., 0] = np.cumsum(levels[..., 0], axis=1, dtype=np.uint16)
    drawn = low[:, None] + levels / LEVELS * span[:, None]
    for own, samples in zip(drawn, content.samples.reshape(3, 40, n_features), strict=True):
        in_order = samples[np.argsort(samples[:, 0])]
        np.testing.assert_allclose(own, in_order, rtol=0, atol=0.51 * np.max(span) / LEVELS)
    means = block["mean"].reshape(3, 2, n_features) * span[:, None] + low[:, None]
    np.testing.assert_allclose(means, content.result.mixture.means, atol=1e-4)
    rows, columns = np.tril_indices(n_features)
    covariances = block["cov"].reshape(3, 2, -1) * (span[:, rows] * span[:, columns])[:, None]
    expected = content.result.mixture.covariances[:, :, rows, columns]
    np.testing.assert_allclose(covariances, expected, rtol=1e-6)


def test_variances_are_drawn_as_matrices() -> None:
    content = filled(2, 2)
    mixture = content.result.mixture
    diagonal = jaxgmm.Mixture(mixture.weights, mixture.means, np.ones((2, 2, 2)))
    own = page_of(content._replace(result=replace(content.result, mixture=diagonal)))
    np.testing.assert_array_equal(own.column("cov"), page_of(content).column("cov"))


def test_a_single_group_has_a_page() -> None:
    page = page_of(filled(1, 2))
    assert page.meta["title"] == "1 group by plate, well"
    assert page.core["k"].tolist() == [2]
    assert page.blocks[0]["k"].tolist() == [2]


def test_groups_are_divided_into_blocks_in_order() -> None:
    page = page_of(filled(130, 1, n_samples=5))
    assert [len(block["n"]) for block in page.blocks] == [64, 64, 2]
    low = page.column("low")
    assert np.all(np.diff(low) > 50)


def test_groups_without_answer_say_so() -> None:
    content = filled(3, 2)
    mixture = content.result.mixture.map(np.copy)
    for leaf in mixture.arrays:
        leaf[1] = np.nan
    content.samples[45] = np.nan
    changed = {"mixture": mixture, "status": np.array([0, 3, 0], np.int32)}
    page = page_of(content._replace(result=replace(content.result, **changed)))
    assert page.core["k"].tolist() == [2, 0, 2]
    assert page.core["status"].tolist() == [0, Status.NONFINITE, 0]
    assert np.isnan(page.core["p"]).tolist() == [False, True, False]
    assert page.flags(1) == ["no_answer"]
    assert page.column("k").tolist() == [2, 0, 2]
    assert page.column("lost").tolist() == [0, 1, 0]
    assert page.column("n").tolist() == [40, 39, 40]


def test_nothing_but_bad_data_has_a_page() -> None:
    content = filled(2, 2)
    content.samples[:] = np.inf
    mixture = content.result.mixture.map(lambda leaf: np.full_like(leaf, np.nan))
    changed = {"mixture": mixture, "status": np.full(2, 3, np.int32)}
    page = page_of(content._replace(result=replace(content.result, **changed)))
    assert page.column("n").tolist() == [0, 0]
    assert page.core["k"].tolist() == [0, 0]
    assert page.meta["shared"] == [[0.0, 1.0]] * 2


def test_extremes_are_among_the_samples_that_are_drawn() -> None:
    content = filled(2, 2, n_samples=3 * MOST)
    content.samples[10], content.samples[700] = (0.0, -50.0), (900.0, 0.0)
    page = page_of(content)
    assert page.column("n").tolist() == [MOST, MOST]
    samples = content.samples.reshape(2, -1, 2)
    np.testing.assert_array_equal(page.column("low").reshape(2, 2), samples.min(axis=1))
    span = page.column("span").reshape(2, 2)
    np.testing.assert_allclose(span, samples.max(axis=1) - samples.min(axis=1), rtol=1e-15)


def test_equal_values_and_huge_ones_can_be_drawn() -> None:
    content = filled(2, 2)
    content.samples[:40, 0] = 7.0
    content.samples[40, 1], content.samples[41, 1] = -1.7e308, 1.7e308
    page = page_of(content)
    assert page.column("span")[0] == 1
    assert np.all(np.isfinite(page.column("span")))
    assert np.max(page.column("x1")) == LEVELS


def test_weights_are_drawn_and_counted() -> None:
    weight = np.tile([0.0, 1.0, 2.0, 4.0], 20)
    content = filled(2, 2)
    content.samples[4] = np.nan  # of weight 0
    content.samples[5] = np.nan
    page = page_of(content._replace(weights="w", sample_weight=weight))
    assert page.meta["weights"] == "w"
    assert page.core["total"].tolist() == [70, 70]
    assert page.core["n"].tolist() == [40, 40]
    assert page.column("zero").tolist() == [10, 10]
    assert page.column("lost").tolist() == [1, 0]
    assert page.column("n").tolist() == [29, 30]
    assert sorted(set(page.column("w").tolist())) == [64, 128, WEIGHT_LEVELS]


def test_weights_of_two_count_as_two_samples() -> None:
    content = filled(2, 2)
    twice = content._replace(
        samples=np.repeat(content.samples, 2, axis=0),
        sample_weight=np.full(160, 0.5),
        weights="w",
        offsets=2 * content.offsets,
    )
    # Only counts differ, as halves count half.
    np.testing.assert_allclose(page_of(twice).column("overlap"), page_of(content).column("overlap"))
    np.testing.assert_allclose(page_of(twice).column("effective"), 2 * page_of(content).column("effective"), rtol=1e-6)


def test_p_values_are_adjusted_for_their_number() -> None:
    p_values = np.array([[0.2, 0.01, 0.2, 0.5, 0.9], [1.0, 1.0, 1.0, 1.0, 1.0], [1e-20, 1, 1, 1, 1]])
    np.testing.assert_allclose(adjusted(p_values)[:2], [1 - 0.99**4, 1], rtol=1e-12)
    assert 0 < adjusted(p_values)[2] < 1e-19


def test_of_several_ridges_the_chosen_one_is_kept_else_the_best_sound_one() -> None:
    table = tried(
        data_set=[0] * 6,
        n_components=[1, 1, 1, 2, 2, 2],
        reg_covar=[1e-9, 1e-6, 1e-3] * 2,
        bic=[5.0, 6.0, 7.0, 1.0, 3.0, 2.0],
        spurious=[0, 0, 0, 1, 0, 0],
        chosen=[False, True, False, False, False, False],
    )
    found = models(filled(1, 2, models=table, criterion="bic"))
    assert found is not None
    assert found.value.tolist() == [6.0, 2.0]
    assert found.hollow.tolist() == [False, False]


def test_models_are_told_apart_by_k_and_family() -> None:
    table = tried(
        data_set=[0, 0, 0, 0, 1, 1, 1, 1],
        n_components=[1, 1, 2, 2] * 2,
        covariance_type=["full", "diag"] * 4,
        bic=[10.0, 12.0, 3.0, 4.0, np.nan, np.nan, np.nan, np.nan],
        chosen=[False, False, True, False] + [False] * 4,
        at_largest_k=[False, False, True, False] + [False] * 4,
    )
    page = page_of(filled(2, 2, models=table, criterion="bic"))
    assert page.meta["families"] == ["full", "diag"]
    assert page.meta["k"] == [1, 2]
    assert page.column("models").tolist() == [4, 4]
    assert page.column("mabove")[:4].tolist() == [7, 9, 0, 1]
    assert page.column("mflag")[:4].tolist() == [0, 0, 2, 0]
    assert page.core["lead"][0] == 7  # of K = 1
    assert np.isnan(page.core["lead"][1])
    assert "at_largest_k" in page.flags(0)


def test_p_values_of_a_test_are_left_as_they_are() -> None:
    table = tried(
        data_set=[0, 0, 0],
        n_components=[1, 2, 3],
        lrt=[0.01, 0.4, np.nan],
        chosen=[False, True, False],
        n_agreeing=[2, 1, 2],
    )
    page = page_of(filled(1, 2, models=table, criterion="lrt"))
    np.testing.assert_allclose(page.column("mabove"), [0.01, 0.4, np.nan], rtol=1e-6)
    assert page.core["value"].tolist() == [0.4]
    assert np.isnan(page.core["lead"][0])
    assert page.meta["level"] == 0.05
    assert page.flags(0) == []


def test_a_lone_start_is_one_of_several() -> None:
    content = filled(3, 2)
    starts = np.array([[-1.0, -9.0, -9.0, -9.0], [-1.0, -1.01, -9.0, -9.0], [-1.0] * 4])
    several = replace(content.result, start_log_likelihood=starts, start_status=np.zeros((3, 4), np.int32))
    few = replace(content.result, start_log_likelihood=starts[:, :2], start_status=np.zeros((3, 2), np.int32))
    page = page_of(content._replace(result=several))
    assert ["few_agreeing" in page.flags(b) for b in range(3)] == [True, False, False]
    assert page_of(content._replace(result=few)).flags(0) == []


def test_flags_that_starts_would_show_come_from_the_table() -> None:
    page = page_of(filled(3, 2)._replace(flags=["few_agreeing, spurious", "", "spurious"]))
    assert [page.flags(b) for b in range(3)] == [["few_agreeing"], [], []]


def test_odd_keys_are_texts_and_nothing_else() -> None:
    keys = pa.table({"plate": [1.5] * len(ODD), "well": list(ODD)})
    page = page_of(filled(len(ODD), 1)._replace(keys=keys), title="</title><script>\u00b5")
    assert page.meta["by"] == ["plate", "well"]
    assert page.meta["keys"][0] == ["1.5"]
    wells = [page.meta["keys"][1][code] for code in page.core["key1"]]
    assert wells == keys["well"].to_pylist()
    (meta,) = re.findall(r'id="meta">(.*?)</script>', page.text)
    assert "<" not in meta
    assert f"<title>{html.escape('</title><script>')}&#181;</title>" in page.text


def test_a_page_allows_its_own_style_and_script_only() -> None:
    text = page_of(filled(1, 1)).text
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="(.*?)"', text)
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)

    def digest(part: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}'"

    assert policy.startswith("default-src 'none'; ")
    assert f"script-src {digest(script)};" in policy
    assert f"style-src {digest(style)};" in policy
    assert re.findall(r"https?://", text.replace("http://www.w3.org/2000/svg", "")) == []


@pytest.mark.parametrize("asset", ASSETS, ids=lambda path: path.name)
def test_assets_are_short_and_are_all_in_the_page(asset: Path) -> None:
    text = asset.read_text()
    assert text.count("\n") <= 300
    if asset.suffix != ".html":
        assert max(map(len, text.splitlines())) <= 120
        assert not re.search("</(script|style)|<!--", text)
        own = text.encode("ascii", "backslashreplace").decode()
        assert own in page_of(filled(1, 1)).text


def test_a_file_is_replaced_on_request_only(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write(filled(1, 1), path, title="first")
    with pytest.raises(FileExistsError, match="exists already"):
        write(filled(1, 1), path)
    assert "first" in path.read_text()
    write(filled(1, 1), path, title="second", overwrite=True)
    assert "second" in path.read_text()
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError, match="not a directory"):
        write(filled(1, 1), tmp_path / "nowhere" / "report.html")
