"""The documentation says what is so: its code prints what is shown, and what it names and links to is there."""

import importlib
import inspect
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
from code_blocks import FENCE, blocks, run_blocks

import jaxgmm
from jaxgmm import Status, cli, plot
from jaxgmm.cli import commands as declared
from jaxgmm.em.covariance import FAMILIES
from jaxgmm.em.initialization import INITIALIZERS
from jaxgmm.selection.criteria import CRITERIA

ROOT = Path(__file__).parents[1]
PAGES = {path.relative_to(ROOT / "docs").as_posix(): path.read_text() for path in sorted(ROOT.glob("docs/**/*.md"))}
WITH_CODE = [name for name, page in PAGES.items() if blocks(page)]
# Longer lines scroll sideways.
LONGEST_LINE = 78

TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
EXTRAS = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


@pytest.fixture
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder. What a page tells JAX about its cache is forgotten, as the settings of every test are."""
    monkeypatch.chdir(tmp_path)


def commands(block: str) -> list[list[str]]:
    """The words of every command of a shell block."""
    lines = block.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def run_shell(block: str) -> None:
    """Runs what is a command of jaxgmm's, and looks up whatever else there is."""
    for words in commands(block):
        if words[0] == "jaxgmm":
            assert cli.main(words[1:]) == 0, words
        elif words[:2] == ["pip", "install"]:
            name, _, extras = words[2].rstrip("]").partition("[")
            assert name in (".", "jaxgmm")
            assert set(filter(None, extras.split(","))) <= EXTRAS
        else:
            assert words[0] == "make"
            assert words[1] in TARGETS


@pytest.mark.slow
@pytest.mark.usefixtures("_elsewhere")
@pytest.mark.parametrize("page", WITH_CODE)
def test_code_prints_what_the_page_shows(page: str) -> None:
    run_blocks(PAGES[page], page, run_shell)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_of_a_kind_that_is_run(page: str) -> None:
    fences = re.findall(r"^\s*(?:```|~~~)", PAGES[page], re.MULTILINE)
    assert len(fences) == 2 * len(FENCE.findall(PAGES[page])), "a block is indented, or not closed"
    assert {language for language, _, _ in blocks(PAGES[page])} <= {"python", "sh"}
    shown = [source for language, source in FENCE.findall(PAGES[page]) if language == "text"]
    assert shown == [shown for language, _, shown in blocks(PAGES[page]) if language == "python" and shown]


@pytest.mark.parametrize(
    "command",
    ["pip install jaxgmm[nothing]", "make nothing", "nothing", "jaxgmm nothing"],
)
def test_a_command_that_is_not_there_is_noticed(command: str) -> None:
    with pytest.raises(AssertionError):
        run_shell(command)


@pytest.mark.parametrize("page", PAGES)
def test_every_row_of_a_table_is_one_line(page: str) -> None:
    prose = FENCE.sub("", PAGES[page]).splitlines()
    broken = [line for line in prose if line.startswith("|") and not line.rstrip().endswith("|")]
    assert broken == []


@pytest.mark.parametrize("page", ["README.md", *WITH_CODE])
def test_lines_of_code_and_of_what_it_prints_are_short(page: str) -> None:
    text = PAGES[page] if page in PAGES else (ROOT / page).read_text()
    lines = [line for _, block in FENCE.findall(text) for line in block.splitlines()]
    assert [line for line in lines if len(line) > LONGEST_LINE] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_name_is_there(page: str) -> None:
    text = FENCE.sub("", PAGES[page])
    for name in re.findall(r"`jaxgmm\.([\w.]+)", text):
        first, *rest = name.rstrip(".").split(".")
        found = getattr(jaxgmm, first, None) or importlib.import_module(f"jaxgmm.{first}")
        for part in rest if inspect.ismodule(found) or inspect.isclass(found) else []:
            found = getattr(found, part)
    assert set(re.findall(r"`make ([\w-]+)", text)) <= TARGETS


def test_every_option_of_the_command_is_there() -> None:
    commands = typer.main.get_group(declared.app).commands.values()
    known = {flag for command in commands for parameter in command.params for flag in parameter.opts}
    named = set(re.findall(r"`(--[\w-]+)", PAGES["command-line.md"]))
    assert named <= known | {"--help"}


def test_every_status_has_a_section_that_shows_its_sentence() -> None:
    page = PAGES["statuses.md"]
    assert re.findall(r"^## ([A-Z_]+)$", page, re.MULTILINE) == [status.name for status in Status]
    for status in Status:
        section = page.partition(f"\n## {status.name}\n")[2].partition("\n## ")[0]
        assert f"{status.name} weights" in section
        assert status.sentence in " ".join(section.split())


@pytest.mark.parametrize(
    ("page", "heading", "names"),
    [
        ("choosing-k.md", "Criteria", list(CRITERIA)),
        ("choosing-k.md", "How sure are the parameters?", ["weighted", "nonparametric", "parametric"]),
        ("from-mclust.md", "Families", FAMILIES),
        ("numerics.md", "Starts", INITIALIZERS),
    ],
)
def test_tables_are_complete(page: str, heading: str, names: list[str]) -> None:
    section = PAGES[page].partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = "".join(line for line in section.splitlines() if line.startswith("|"))
    assert [name for name in names if f'`"{name}"`' not in rows] == []


@pytest.mark.parametrize(
    "option", ["tol", "reg_covar", "max_iter", "n_init", "init"], ids=lambda option: f"default of {option}"
)
def test_defaults_beside_those_of_scikit_learn_are_so(option: str) -> None:
    value = re.search(rf"^\| `[^|]*\| `{option}=([^`]+)` \|", PAGES["from-scikit-learn.md"], re.MULTILINE)
    assert value is not None
    assert eval(value[1]) == inspect.signature(jaxgmm.fit).parameters[option].default


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built pages. Strict: a page beside the navigation, or a link or picture or anchor to nowhere, is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.mark.slow
def test_every_page_is_built_and_in_the_navigation(site: Path) -> None:
    start = (site / "index.html").read_text()
    for name in PAGES:
        target = Path(name).with_suffix(".html").as_posix()
        assert (site / target).is_file()
        assert f'href="{target}" class="md-nav__link' in start


def test_every_public_name_is_in_the_api(site: Path) -> None:
    documented = set(re.findall(r"heading: jaxgmm\.([\w.]+),", PAGES["api.md"]))
    assert documented >= {*jaxgmm.__all__, *(f"plot.{name}" for name in plot.__all__)}
    built = (site / "api.html").read_text()
    assert [name for name in jaxgmm.__all__ if not re.search(rf"jaxgmm\.{name}\b", built)] == []


def test_pictures_of_the_page_are_those_that_its_code_saves() -> None:
    saved = set(re.findall(r"savefig\(\"([\w.]+)\"", PAGES["pictures.md"]))
    assert saved == set(re.findall(r"\]\(pictures/([\w.]+)\)", PAGES["pictures.md"]))
    drawn_from_figures = {"scaling.png"}  # by benchmarks.report, of committed results
    assert saved | drawn_from_figures == {path.name for path in (ROOT / "docs" / "pictures").iterdir()}
    assert {f"plot.{name}" for name in plot.__all__} <= set(re.findall(r"plot\.\w+", PAGES["pictures.md"]))


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    for page in site.glob("**/*.html"):
        loading = re.findall(
            r"<(?:script|img|iframe|link)\b[^>]*(?:src|href)=[\"']?((?:https?:)?//[^\"'\s>]+)", page.read_text()
        )
        assert loading == [], page
