"""Public names that load what they need when they are first used, so that `import odefend` takes a moment."""

import ast
import sys
from collections.abc import Callable
from importlib import import_module

from odefend.errors import unknown


def lazy(package: str) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` (PEP 562) and `__all__` of a package that lists its names as `from HOME import NAME as NAME`.

    The list is read from the package's source and not run, so that type checkers and people see ordinary imports. The modules
    that it imports from are attributes of the package too, as after ordinary imports.
    """
    here = sys.modules[package]
    assert here.__spec__ is not None and here.__spec__.loader is not None
    source: str = here.__spec__.loader.get_source(package)  # type: ignore[attr-defined]
    listed = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom) and node.module]
    homes = {alias.asname: (str(node.module), alias.name) for node in listed for alias in node.names if alias.asname}
    parts = {module.rpartition(".")[2]: module for module, _ in homes.values()}

    def find(name: str) -> object:
        if name in parts:
            return import_module(parts[name])
        if name not in homes:
            raise AttributeError(str(unknown(f"attribute of {package}", name, homes)))
        module, original = homes[name]
        found = getattr(import_module(module), original)
        setattr(here, name, found)
        return found

    return find, lambda: sorted({*vars(here), *homes, *parts}), [name for name in homes if not name.startswith("_")]
