"""The floors of the house: imports go one way."""

import ast
import re
import sys
from pathlib import Path

import pytest

import jaxgmm

PACKAGE = Path(__file__).parents[1] / "jaxgmm"

# A module may import from floors below its own, and from its own floor where listed as one group.
FLOORS = [
    {"status", "settings", "forking", "selection.criteria"},
    {"record"},
    {"numerics"},
    {"mixture", "posterior", "doubts"},
    {"selection.splitting"},
    {"em"},
    {"engine"},
    {"soundness", "driver.program", "driver.bulk", "driver.standardize"},
    {"driver.passes"},
    {"driver.findings"},
    {"driver.runs"},
    {"driver.search"},
    {"driver"},
    {"families", "fit_result", "pieces", "checkpoint"},
    {"sharded"},
    {"fitting", "differentiation", "selection.sweep_result"},
    {"ordering"},
    {"density"},
    {"sampling"},
    {"ascent", "resampling", "selection.held_out", "selection.choice"},
    {"selection"},
    {"streams.state"},
    {"streams.updating"},
    {"streams"},
    {"tables"},
    {"diagnosis"},
    {"flagging"},
    {"jobs"},
    {"sklearn", "frames", "storage", "plot", "report", "cli", "distributed", "__main__"},
]
# A long fit keeps its state as a result, and files of results know all kinds of them. The name is looked up when a
# state is kept.
UP = ("jaxgmm.checkpoint", "jaxgmm.storage")
ROOMS = {name.split(".")[0] for rooms in FLOORS for name in rooms}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def floor_of(module: str) -> int:
    """The floor of a module that is named there, else of its room."""
    room, *rest = module.split(".")[1:]
    names = [f"{room}.{rest[0]}", room] if rest else [room]
    return next(height for name in names for height, rooms in enumerate(FLOORS) if name in rooms)


def imports_of(path: Path) -> list[tuple[str, bool]]:
    """Modules of the package that a file imports, and whether inside a function."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jaxgmm"):
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names]
                if node.module in {"jaxgmm", "jaxgmm.em", "jaxgmm.em.methods"}
                else []
            )
            found += [(name, node.col_offset > 0) for name in names or [node.module]]
        elif isinstance(node, ast.Import):
            found += [(alias.name, node.col_offset > 0) for alias in node.names if alias.name.startswith("jaxgmm.")]
    return found


def looked_up(path: Path) -> set[str]:
    """Modules of the package whose names a file looks up in it, as `jaxgmm.fit`."""
    names = {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "jaxgmm"
    }
    modules = {jaxgmm._MODULE_OF.get(name, name) for name in names}
    return {f"jaxgmm.{module}" for module in modules if module.split(".")[0] in ROOMS}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_down(path: Path) -> None:
    own = name_of(path)
    for imported, _ in imports_of(path):
        if imported.count(".") == 1 and imported.split(".")[1] not in ROOMS:
            continue  # a public name of the package, not a module
        assert floor_of(imported) <= floor_of(own), f"{own} imports {imported}, which stands above it"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_names_are_looked_up_below(path: Path) -> None:
    own = name_of(path)
    above = {(own, module) for module in looked_up(path) if floor_of(module) > floor_of(own)}
    assert above == ({UP} if own == UP[0] else set())


def test_imports_have_no_cycle() -> None:
    modules = {name_of(path): path for path in MODULES}
    graph = {}
    for name, path in modules.items():
        targets = {_module(target, modules) for target, _ in imports_of(path)}
        used = {module for module in looked_up(path) if (name, module) != UP}
        graph[name] = (targets | used) & modules.keys() - {name}
    while graph:
        leaves = {name for name, targets in graph.items() if not targets & graph.keys()}
        assert leaves, f"these modules import each other in a circle: {sorted(graph)}"
        graph = {name: targets for name, targets in graph.items() if name not in leaves}


def _module(target: str, modules: dict[str, Path]) -> str:
    return target if target in modules else target.rpartition(".")[0]


def test_contributors_are_told_of_all_rooms() -> None:
    page = (PACKAGE.parent / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| (`.*?) \|", page.partition("| room |")[2].partition("\n\n")[0], re.MULTILINE)
    names = [name.rstrip("/") for row in rows for name in re.findall(r"`([\w/]+)`", row)]
    assert sorted(names) == sorted(ROOMS - {"__main__"})


def test_every_module_stands_on_a_floor() -> None:
    assert all(floor_of(name_of(path)) >= 0 for path in MODULES)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_import_of_the_package_inside_a_function(path: Path) -> None:
    if floor_of(name_of(path)) < len(FLOORS) - 1:
        assert [name for name, inside in imports_of(path) if inside] == []


def test_one_run_and_the_engine_know_nothing_of_each_other() -> None:
    for room, other in (("em", "engine"), ("engine", "em")):
        for path in (PACKAGE / room).rglob("*.py"):
            assert not [name for name, _ in imports_of(path) if name.startswith(f"jaxgmm.{other}.")]


@pytest.mark.parametrize(("module", "others"), [("slots", []), ("fused", ["jaxgmm.numerics.lanes"])])
def test_ways_of_a_pass_know_no_statistics(module: str, others: list[str]) -> None:
    imported = [name for name, _ in imports_of(PACKAGE / "engine" / f"{module}.py")]
    assert imported == ["jaxgmm.engine.rows", *others]


def _room(module: str) -> str:
    """The room of a module; of one at the root, its own name."""
    return module.split(".")[1] if module.count(".") else module


def structure() -> str:
    """Rooms from the top down, their modules, and the rooms that these import."""
    modules: dict[str, list[str]] = {}
    imported: dict[str, set[str]] = {}
    for path in MODULES:
        room = _room(name_of(path))
        module = ".".join(name_of(path).split(".")[2:])
        modules.setdefault(room, []).extend([module] if module else [])
        imported.setdefault(room, set()).update(_room(target) for target, _ in imports_of(path))
    lines = []
    for room in sorted(modules, key=lambda room: (-floor_of(f"jaxgmm.{room}"), room)):
        inside = f" ({', '.join(modules[room])})" if modules[room] else ""
        others = sorted((imported[room] & modules.keys()) - {room}, key=lambda other: -floor_of(f"jaxgmm.{other}"))
        lines.append(f"{room}{inside}\n    imports {', '.join(others) or 'nothing of the package'}")
    return "\n".join(lines)


def test_the_structure_shows_every_room_once() -> None:
    shown = re.findall(r"^(\w+)", structure(), re.MULTILINE)
    assert len(shown) == len(set(shown))
    assert set(shown) == {_room(name_of(path)) for path in MODULES}


if __name__ == "__main__":
    sys.stdout.write(f"{structure()}\n")
