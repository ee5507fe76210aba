"""Programs that are kept from one process to the next."""

import os
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

import jaxgmm
from jaxgmm.engine import programs

OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture(autouse=True)
def _settings_are_restored() -> Iterator[None]:
    before = {name: getattr(jax.config, name) for name in OPTIONS}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def entry(directory: Path, name: str, content: bytes, age: float) -> Path:
    """A file of JAX's cache, written so many seconds ago."""
    path = directory / f"{name}-cache"
    path.write_bytes(content)
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def test_truncated_programs_are_removed_and_no_others(tmp_path: Path) -> None:
    whole = zlib.compress(bytes(range(256)) * 50)
    kept = [
        entry(tmp_path, "whole", whole, 100),
        # Another process may be writing this one.
        entry(tmp_path, "young", whole[:40], 0),
    ]
    removed = [entry(tmp_path, "truncated", whole[:-5], 100), entry(tmp_path, "empty", b"", 100)]
    jaxgmm.keep_programs(tmp_path)
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in removed)
    # What was written since is checked the next time, and the rest is not read again.
    os.utime(kept[1], (time.time() - 11, time.time() - 11))
    os.utime(tmp_path / programs._CHECKED, (time.time() - 20, time.time() - 20))
    jaxgmm.keep_programs(tmp_path)
    assert [path.exists() for path in kept] == [True, False]


def test_a_directory_that_the_user_has_set_holds_small_programs_too(tmp_path: Path) -> None:
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    programs.keep_for_next_time()
    assert programs.kept_in() == str(tmp_path)
    assert jax.config.jax_persistent_cache_min_compile_time_secs < 1  # pyright: ignore[reportAttributeAccessIssue]


def test_a_directory_that_cannot_be_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    jaxgmm.keep_programs(tmp_path / "file" / "below")
