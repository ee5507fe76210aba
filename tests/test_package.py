"""The package imports what is asked for, when it is asked for."""

import importlib
import pickle
import pydoc
import subprocess
import sys

import pytest

import jaxgmm

MODULES = {
    "distributed": "pyarrow",
    "em": None,
    "frames": "narwhals",
    "plot": "matplotlib",
    "report": "narwhals",
    "sklearn": "sklearn",
    "storage": "safetensors",
}


def in_a_process(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_imports_no_jax_nor_numpy() -> None:
    program = "import sys, jaxgmm; dir(jaxgmm), jaxgmm.__version__, jaxgmm.Status; print(sorted(sys.modules))"
    found = in_a_process(program)
    for name in ("jax", "jaxlib", "numpy", "scipy", "matplotlib", "pandas", "sklearn"):
        assert f"'{name}'" not in found


def test_public_names_are_listed_and_there() -> None:
    for name in (*jaxgmm.__all__, *MODULES, "__version__"):
        assert name in dir(jaxgmm)
        assert hasattr(jaxgmm, name)
    assert not hasattr(jaxgmm, "fits")
    with pytest.raises(AttributeError, match="module 'jaxgmm' has no attribute 'fits'"):
        jaxgmm.fits  # noqa: B018


def test_no_module_has_the_name_of_something_in_the_package() -> None:
    # On some disks, Mixture is mixture.
    for name in filter(str.islower, jaxgmm.__all__):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(f"jaxgmm.{name}")


@pytest.mark.parametrize(
    "first", ["jaxgmm.fitting", "jaxgmm.selection.sweeping", "jaxgmm.resampling", "jaxgmm.cli.fit"]
)
def test_names_are_functions_whatever_is_imported_before_or_after(first: str) -> None:
    program = f"""
import jaxgmm, {first}
import jaxgmm.selection.sweeping, jaxgmm.resampling, jaxgmm.fitting
from jaxgmm import *
for name in ("fit", "sweep", "bootstrap"):
    assert callable(getattr(jaxgmm, name)) and getattr(jaxgmm, name) is globals()[name]
"""
    in_a_process(program)


def test_threads_may_ask_at_the_same_time() -> None:
    program = """
import threading, jaxgmm
names, found, barrier = jaxgmm.__all__ * 2, [], threading.Barrier(2 * len(jaxgmm.__all__))

def ask(name):
    barrier.wait()
    found.append((name, getattr(jaxgmm, name)))

threads = [threading.Thread(target=ask, args=(name,)) for name in names]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert len(found) == len(names) and len({(name, id(value)) for name, value in found}) == len(jaxgmm.__all__)
"""
    in_a_process(program)


def test_all_of_em_is_reached_through_the_package() -> None:
    in_a_process("from jaxgmm import em; em.run.run, em.covariance.FAMILIES, em.vectors, em.spurious")


def test_names_can_be_pickled() -> None:
    for name in jaxgmm.__all__:
        value = getattr(jaxgmm, name)
        again = pickle.loads(pickle.dumps(value))
        assert again is value if callable(value) else again == value


def test_help_explains_what_is_public() -> None:
    explained = pydoc.plain(pydoc.render_doc(jaxgmm))
    assert "fit(x: Any, n_components: int" in explained
    assert "class Mixture" in explained


@pytest.mark.parametrize("name", [name for name, package in MODULES.items() if package])
def test_a_missing_extra_is_named_in_one_sentence(name: str) -> None:
    program = f"""
import sys
sys.modules[{MODULES[name]!r}] = None
import jaxgmm
assert not hasattr(jaxgmm, {name!r}) and {name!r} in dir(jaxgmm)
said = []
for statement in ("jaxgmm.{name}.anything", "from jaxgmm import {name}", "import jaxgmm.{name}"):
    try:
        exec(statement)
    except (AttributeError, ImportError) as error:
        said.append((type(error).__name__, str(error)))
print(said)
"""
    found = eval(in_a_process(program))
    assert [kind for kind, _ in found] == ["AttributeError", "ImportError", "ImportError"]
    for _, sentence in found:
        assert f"jaxgmm.{name} needs" in sentence
        assert "pip install 'jaxgmm[" in sentence
        assert "\n" not in sentence
