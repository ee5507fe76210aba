"""Where compiled programs are kept."""

import subprocess
import sys
from pathlib import Path

import pytest

from jaxgmm.engine import programs


def test_the_cache_is_where_xdg_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert programs._cache_of_user() == tmp_path / "jaxgmm" / "programs"


@pytest.mark.parametrize(
    ("platform", "cache"),
    [("linux", ".cache"), ("darwin", "Library/Caches"), ("win32", "AppData/Local")],
)
@pytest.mark.parametrize("xdg", ["", "relative/to/nothing"])
def test_the_cache_is_where_each_system_has_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, platform: str, cache: str, xdg: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", xdg)
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    monkeypatch.setattr(programs.sys, "platform", platform)
    monkeypatch.setattr(programs.Path, "home", lambda: tmp_path)
    assert programs._cache_of_user() == tmp_path / cache / "jaxgmm" / "programs"


PROGRAM = """
import sys, numpy as np, jaxgmm
from jaxgmm.engine import programs
programs.keep_for_next_time()
print(programs.kept_in())
jaxgmm.log_prob(jaxgmm.Mixture(np.ones(1), np.zeros((1, 1)), np.ones((1, 1))), np.zeros((1, 1)))
"""


def kept_in(**environment: str) -> str:
    command = [sys.executable, "-c", PROGRAM]
    import os

    own = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_COMP", "XDG_CACHE"))}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=own | environment, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_what_the_user_says_goes_first(tmp_path: Path) -> None:
    said = tmp_path / "said"
    assert kept_in(JAX_COMPILATION_CACHE_DIR=str(said), XDG_CACHE_HOME=str(tmp_path / "xdg")) == str(said)
    assert not (tmp_path / "xdg").exists()


def test_a_cache_that_cannot_be_written_breaks_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert kept_in(XDG_CACHE_HOME=str(tmp_path / "file")) == "None"
    # JAX itself takes a directory that the user names, whatever it is.
    said = str(tmp_path / "file" / "below")
    assert kept_in(JAX_COMPILATION_CACHE_DIR=said) == said
