"""The floors of the house: imports go one way."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "jaxgmm"

# A module may import from floors below its own, and from its own floor where listed as one group.
FLOORS = [
    {"status", "settings", "forking", "cholesky", "reductions", "elementary", "kernels", "criteria"},
    {"elimination"},
    {"mixture", "posterior"},
    {"splitting"},
    {"em"},
    {"engine"},
    {"program", "soundness"},
    {"passes"},
    {"findings"},
    {"runs"},
    {"search"},
    {"chunk", "plan", "arguments"},
    {"fitting", "pieces"},
    {"density"},
    {"sampling"},
    {"resampling", "held_out", "choice"},
    {"sweeping"},
    {"schema", "groups", "keys", "tabular", "files", "wording"},
    {"sklearn", "frames", "tables", "storage", "plot", "diagnosis", "job", "parts", "cli", "__main__"},
]
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def floor_of(module: str) -> int:
    return next(height for height, rooms in enumerate(FLOORS) if module.split(".")[1] in rooms)


def imports_of(path: Path) -> list[tuple[str, bool]]:
    """Modules of the package that a file imports, and whether inside a function."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jaxgmm"):
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names]
                if node.module in {"jaxgmm", "jaxgmm.em"}
                else []
            )
            found += [(name, node.col_offset > 0) for name in names or [node.module]]
        elif isinstance(node, ast.Import):
            found += [(alias.name, node.col_offset > 0) for alias in node.names if alias.name.startswith("jaxgmm.")]
    return found


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_down(path: Path) -> None:
    own = name_of(path)
    for imported, _ in imports_of(path):
        if imported.count(".") == 1 and imported.split(".")[1] not in set().union(*FLOORS):
            continue  # a public name of the package, not a module
        assert floor_of(imported) <= floor_of(own), f"{own} imports {imported}, which stands above it"


def test_imports_have_no_cycle() -> None:
    modules = {name_of(path): path for path in MODULES}
    graph = {
        name: {_module(target, modules) for target, _ in imports_of(path)} & modules.keys() - {name}
        for name, path in modules.items()
    }
    while graph:
        leaves = {name for name, targets in graph.items() if not targets & graph.keys()}
        assert leaves, f"these modules import each other in a circle: {sorted(graph)}"
        graph = {name: targets for name, targets in graph.items() if name not in leaves}


def _module(target: str, modules: dict[str, Path]) -> str:
    return target if target in modules else target.rpartition(".")[0]


def test_every_module_stands_on_a_floor() -> None:
    assert all(floor_of(name_of(path)) >= 0 for path in MODULES)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_import_of_the_package_inside_a_function(path: Path) -> None:
    if floor_of(name_of(path)) < len(FLOORS) - 1:
        assert [name for name, inside in imports_of(path) if inside] == []


def test_one_run_knows_nothing_of_the_engine() -> None:
    for path in (PACKAGE / "em").glob("*.py"):
        assert not [name for name, _ in imports_of(path) if name.startswith("jaxgmm.engine")]


@pytest.mark.parametrize("module", ["slots", "fused"])
def test_ways_of_a_pass_know_no_statistics(module: str) -> None:
    assert imports_of(PACKAGE / "engine" / f"{module}.py") == [("jaxgmm.engine.some", False)]
