"""The README says what is so: its examples print what it shows, and what it lists and names is there."""

import importlib
import re
from pathlib import Path

import pytest
from code_blocks import blocks, run_blocks

from benchmarks.environment import RESULTS
from benchmarks.rows import Results
from jaxgmm import FitResult, Status, __version__
from jaxgmm.record import field_names
from jaxgmm.settings import TOL

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "jaxgmm"
README = (ROOT / "README.md").read_text()


def table_under(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table under a heading of a page, without its own heading."""
    section = (ROOT / "docs" / page).read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in row] for row in rows[2:]]


@pytest.mark.slow
def test_examples_print_what_the_readme_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [bool(shown) for language, _, shown in blocks(README) if language == "python"] == [True] * 3
    run_blocks(README, "README.md")


@pytest.mark.parametrize(
    "markdown",
    [
        "```python\nprint(1)\n```\n```text\n2\n```\n",
        "```python\nprint(1)\n```\n",
        "```python\npass\n```\n\n```text\n1\n```\n",
        "```python\na = 1\n```\n```python\nprint(a)\n```\n```text\n2\n```\n",
    ],
    ids=["other output", "output not shown", "output not printed", "second block"],
)
def test_other_output_than_shown_is_noticed(markdown: str) -> None:
    with pytest.raises(AssertionError, match="other output"):
        run_blocks(markdown, "README.md")


def test_every_status_stands_in_the_table_with_its_sentence() -> None:
    assert table_under("statuses.md", "All of them") == [
        [str(int(status)), status.name, status.sentence] for status in Status
    ]


def test_every_field_of_the_result_stands_in_the_table() -> None:
    assert [row[0] for row in table_under("api.md", "What fit returns")] == list(field_names(FitResult))


@pytest.mark.parametrize("name", ["performance.md", "on-a-gpu.md"])
def test_benchmarks_have_their_place(name: str) -> None:
    page = (ROOT / "docs" / name).read_text()
    assert page.count("\n<!-- benchmarks: begin -->\n") == page.count("\n<!-- benchmarks: end -->\n") == 1


def test_times_of_the_readme_are_those_that_were_measured() -> None:
    results = Results([RESULTS / "full.json", RESULTS / "gpu.json"])

    def seconds(scenario: str, system: str, *, gpu: bool = False) -> float:
        row = results(scenario, system, gpu=gpu)
        assert row is not None
        return row["seconds_for_all"]

    own, theirs = (seconds("converge-2d", system) for system in ("jaxgmm mixed", "scikit-learn, joblib"))
    on_cpu, on_card = (seconds("million", "jaxgmm mixed", gpu=gpu) for gpu in (False, True))
    text = " ".join(README.split())
    assert f"take {own:.2g} s to convergence, where scikit-learn on both cores takes about {theirs:.2g} s" in text
    # Rows with another tol than the default are of plain EM.
    is_default = results("million", "jaxgmm mixed", gpu=True)["tol"] == TOL
    method = "" if is_default else '(with `method="em"`;'
    assert f"a million mixtures of 100 × 1 take {on_cpu:.1g} s, and {on_card:.1g} s on an H100 {method}" in text


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) < 130


def test_everything_linked_to_is_there() -> None:
    targets = re.findall(r"\]\(([^)]+)\)", README)
    assert "docs/tiles.png" in targets
    assert [target for target in targets if not (ROOT / target.partition("#")[0]).is_file()] == []


def test_every_module_of_the_walk_is_there() -> None:
    section = (ROOT / "docs" / "how-it-works.md").read_text()
    names = re.findall(r"`((?:\w+\.)+\w+)`", section)
    assert len(names) >= 5
    for name in names:
        # A module, or a function or a table of rows in one.
        if not (PACKAGE / name.replace(".", "/")).with_suffix(".py").is_file():
            module, _, last = name.rpartition(".")
            found = getattr(importlib.import_module(f"jaxgmm.{module}"), last, None)
            assert callable(found) or isinstance(found, dict), name


def test_citation_names_the_version() -> None:
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
