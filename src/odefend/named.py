"""Things of a user's own by name: `file.py:name` or `package.module:name`."""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from odefend.errors import InvalidInput, unknown

Kind = TypeVar("Kind")

_FILES: list[str] = []


def is_own(name: str) -> bool:
    """Whether a name speaks of something of the user's own: it has a colon, and not just that of a Windows drive."""
    return ":" in name[2:]


def own(name: str) -> Any:
    """What a name of the user's own stands for.

    The file is run once in a process, with its folder on the path. Raises InvalidInput where it is not there or raises an error of
    its own, and UnknownName, with the nearest, for what it does not define.
    """
    module, _, attribute = name.rpartition(":")
    loaded = _module(module)
    if not hasattr(loaded, attribute):
        raise unknown(f"name in {module},", attribute, [one for one in vars(loaded) if not one.startswith("_")])
    return getattr(loaded, attribute)


def own_class(name: str, base: type[Kind] = object) -> type[Kind]:
    """A class of the user's own, which has to be a `base`. Raises InvalidInput where it is not."""
    kind = own(name)
    if not (isinstance(kind, type) and issubclass(kind, base)):
        found = kind.__name__ if isinstance(kind, type) else type(kind).__name__
        raise InvalidInput(f"{name}: expected a class derived from odefend's {base.__name__}, got {found}.")
    return kind


def source_digest(name: str) -> str:
    """16 hex digits that change with the file that such a name is defined in."""
    file = _module(name.rpartition(":")[0]).__file__
    return hashlib.sha256(Path(file).read_bytes() if file else name.encode()).hexdigest()[:16]


def class_digest(kind: type) -> str | None:
    """16 hex digits that change with the file that a class of the user's own is defined in; None for odefend's."""
    if kind.__module__.startswith("odefend."):
        return None
    file = sys.modules[kind.__module__].__file__
    return hashlib.sha256(Path(file).read_bytes() if file else kind.__module__.encode()).hexdigest()[:16]


def files_run() -> tuple[str, ...]:
    """The user's files that this process has run. What is pickled of them can be read where `run_files` has run them too."""
    return tuple(_FILES)


def run_files(files: Iterable[str]) -> None:
    """Run files of the user, each once in a process. Raises InvalidInput where one is not there or raises."""
    for file in files:
        _run(file)


def _module(name: str) -> ModuleType:
    return _run(str(Path(name).absolute())) if name.endswith(".py") else _imported(name)


@lru_cache
def _run(file: str) -> ModuleType:
    path = Path(file)
    if not path.is_file():
        raise InvalidInput(f"{path}: no such file. Name one as in nets.py:net.")
    called = f"odefend_user_{path.stem}_{hashlib.sha256(file.encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(called, path)
    assert spec is not None and spec.loader is not None  # both are there for a .py file
    module = importlib.util.module_from_spec(spec)
    sys.modules[called] = module  # as for every import, so that its classes can be found again
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[called]
        raise InvalidInput(f"{path}: cannot be run: {told(error)}. Run it by python first.") from error
    finally:
        sys.path.remove(str(path.parent))
    _FILES.append(file)
    return module


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise InvalidInput(
            f"{name}: cannot be imported: {told(error)}. Name a file, as in nets.py:net, or a module."
        ) from error


def told(error: Exception) -> str:
    """An error of a user's own code in one line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}".rstrip(": ")
