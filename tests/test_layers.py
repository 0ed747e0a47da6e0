"""The architecture: imports point down only, and none hides in a function."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "odefend"

LAYERS = [
    {"tensors", "errors", "rng", "threads", "version", "progress"},
    {"named", "files", "lazy", "seal", "solver", "norms", "intervals"},
    {"dose"},
    {"download", "shards"},
    {"models", "data"},
    {"attacks"},
    {"defenses"},
    {"detectors"},
    {"training"},
    {"ledger"},
    {"engine"},
    {"metrics"},
    {"experiments"},
    {"report"},
    {"studies"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FILES = sorted(SOURCE.rglob("*.py"))


def home(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def imported(tree: ast.AST):
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("odefend"):
            yield from [node.module.split(".")[1]] if "." in node.module else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("odefend."))


def test_every_module_has_a_layer():
    assert {home(path) for path in FILES} - {"__init__"} == set(LEVEL)


@pytest.mark.parametrize(
    "path", [path for path in FILES if home(path) != "__init__"], ids=lambda p: str(p.relative_to(SOURCE))
)
def test_imports_point_down(path):
    for name in imported(ast.parse(path.read_text())):
        assert name in LEVEL, f"{path.name} imports from {name}"
        assert LEVEL[name] < LEVEL[home(path)] or name == home(path), f"{path} imports upward from {name}"


@pytest.mark.parametrize(
    "path", [path for path in FILES if home(path) != "cli"], ids=lambda p: str(p.relative_to(SOURCE))
)
def test_no_import_hides_in_a_function(path):
    tree = ast.parse(path.read_text())
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            hidden = [node for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom)]
            assert not hidden, f"{path}:{hidden[0].lineno} imports inside {function.name}"


def test_no_upward_import_between_equals():
    """Layers that share a level (models and data, ...) do not import each other."""
    for path in FILES:
        for name in imported(ast.parse(path.read_text())):
            if name in LEVEL and home(path) in LEVEL and name != home(path) and LEVEL[home(path)] > 0:
                assert LEVEL[name] != LEVEL[home(path)], f"{path} imports its equal {name}"


def test_torchvision_is_never_imported():
    for path in FILES:
        assert "torchvision" not in path.read_text()
