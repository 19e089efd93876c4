"""Imports a file of the user's as Python would run it.

In: a path, or a module's dotted name. Out: the module; what it raises is for the caller to say, in one line.
What lies beside a file can be imported, and a file in a package (a folder with __init__.py) is imported as part of it,
so that relative imports work. Whoever goes on with a sweep asks `source.py` first whether the file may be run.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType


def module_at(path: Path) -> ModuleType:
    """The module that the file `path` is; whatever its code raises comes out."""
    with _first_on_the_path(top_of(path.parent)):
        return _in_package(path) if os.path.exists(path.parent / "__init__.py") else _alone(path)


def module_named(name: str) -> ModuleType:
    """The module of that dotted name, from the current folder or installed; whatever its code raises comes out."""
    with _first_on_the_path(Path.cwd()):
        return importlib.import_module(name)


def top_of(folder: Path) -> Path:
    """The folder that the package of `folder` lies in; `folder` itself outside a package."""
    while (folder / "__init__.py").exists():
        folder = folder.parent
    return folder


def place_of(error: BaseException, folder: Path) -> str:
    """ " (NAME, line 3)": the last line of a file below `folder` that `error` went through; "" if there is none."""
    found, frame = "", error.__traceback__
    while frame is not None:
        file = Path(frame.tb_frame.f_code.co_filename)
        if folder in file.parents and "site-packages" not in file.parts:
            found = f" ({file.name}, line {frame.tb_lineno})"
        frame = frame.tb_next
    return found


def in_one_line(error: BaseException, folder: Path) -> str:
    """What was raised, with the line of the user's file where that is known."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}{'' if isinstance(error, SyntaxError) else place_of(error, folder)}"


def _in_package(path: Path) -> ModuleType:
    name = ".".join(path.relative_to(top_of(path.parent)).with_suffix("").parts)
    module = importlib.import_module(name)
    if Path(str(module.__file__)).resolve() != path.resolve():
        raise ImportError(f"{name} is {module.__file__} here: give the package another name")
    return module


def _alone(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tune_rsst_space_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError("not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@contextmanager
def _first_on_the_path(folder: Path) -> Iterator[None]:
    """Imports look in `folder` first, and last after that: a function may import when it is called."""
    before = list(sys.path)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = before if str(folder) in before else [*before, str(folder)]
