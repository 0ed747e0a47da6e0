"""Which odefend this is."""

import ast
import hashlib
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

VERSION = version("odefend")
ROOT = Path(__file__).parent


@lru_cache
def code_digest() -> str:
    """12 hex digits that change with torch's version and with any line of the package's sources."""
    digest = hashlib.sha256(version("torch").encode())
    for path in sorted(ROOT.rglob("*.py")):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


NOT_DECIDING = (
    "errors.py",
    "files.py",
    "download.py",
    "progress.py",
    "version.py",
    "ledger/storage.py",
    "models/catalogue.py",
)
"""Modules that units import and that decide no row: they carry, name and store."""


@lru_cache
def code_of(*modules: str) -> str:
    """The version, and a digest of torch's version and of the code that these modules of the package run, as in 0.1.0+1a2b3c4d:
    rows made by other code are other rows.

    The code is theirs and that of the modules that they import, found from their imports; comments, docstrings and the way in which
    it is laid out do not count.
    """
    digest = hashlib.sha256(version("torch").encode())
    for path in sorted(_closure(modules)):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + _meaning(path).encode())
    return f"{VERSION}+{digest.hexdigest()[:8]}"


def _closure(modules: tuple[str, ...]) -> set[Path]:
    """The files of the modules and of all that they import from the package, directly or not."""
    found, todo = set[Path](), [_file(name) for name in modules if name.startswith("odefend.")]
    while todo:
        path = todo.pop()
        if path is not None and path not in found and path.relative_to(ROOT).as_posix() not in NOT_DECIDING:
            found.add(path)
            todo += [_file(name) for name in _imported(path)]
    return found


def _file(module: str) -> Path | None:
    place = ROOT.joinpath(*module.split(".")[1:])
    return next((one for one in (place.with_suffix(".py"), place / "__init__.py") if one.is_file()), None)


@lru_cache
def _imported(path: Path) -> tuple[str, ...]:
    """The modules that a file takes something from. A name that a package only passes on is followed to where it comes from."""
    return tuple(
        _origin(node.module, alias.name)
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("odefend.")
        for alias in node.names
    )


def _origin(module: str, name: str) -> str:
    if _file(f"{module}.{name}"):
        return f"{module}.{name}"
    file = _file(module)
    if file is not None and file.name == "__init__.py":
        for node in _tree(file).body:
            if isinstance(node, ast.ImportFrom) and node.module and any(one.name == name for one in node.names):
                return _origin(node.module, name)
    return module


@lru_cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@lru_cache
def _meaning(path: Path) -> str:
    """What a file says to Python, and not to its readers."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in _documented(tree):
        node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)


def _documented(
    tree: ast.Module,
) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node, clean=False
        ):
            yield node
