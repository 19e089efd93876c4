"""Switches parts of a trial off in every process that starts with this folder in PYTHONPATH; part of stock_stack.py.

In: RSST_WITHOUT, names of `PARTS` with commas between them. Python imports this file by its name when it starts, in the
workers of Ray too. A part is replaced when the module that holds it has been imported; nothing is imported here.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from types import ModuleType
from typing import Any


def _compaction(module: ModuleType) -> None:
    """Units are pressed in every round and cut out in the last one alone: all tensors keep their size till then."""
    harden = module.Running.harden

    def at_the_end(trial: Any) -> None:
        if trial.round == trial.config.rounds - 1:
            harden(trial)

    module.Running.harden = at_the_end


def _linears(module: ModuleType) -> None:
    """Linear layers are torch's own, on every processor."""
    module.fast_linears = lambda *_: nullcontext()


def _attention(module: ModuleType) -> None:
    """Attention is torch's own under amp."""
    module.fast_kernels = lambda *_: nullcontext()


PARTS: dict[str, tuple[str, Callable[[ModuleType], None]]] = {
    "compaction": ("trainables.rsst.running", _compaction),
    "linears": ("trainables.rsst.training.epoch", _linears),
    "attention": ("trainables.rsst.training.epoch", _attention),
}


class _Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds each module of `wanted` as it would be found, and changes it once it has been executed."""

    def __init__(self, wanted: dict[str, list[Callable[[ModuleType], None]]]) -> None:
        self._wanted, self._loaders = wanted, {}  # type: dict[str, list[Callable[[ModuleType], None]]], dict[str, Any]

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name not in self._wanted:
            return None
        found = importlib.machinery.PathFinder.find_spec(name, path)
        if found is None or found.loader is None:
            return None
        self._loaders[name], found.loader = found.loader, self
        return found

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        self._loaders[module.__name__].exec_module(module)
        for change in self._wanted[module.__name__]:
            change(module)


def switch_off(names: str) -> None:
    """The parts in `names`, in what is imported from now on."""
    wanted: dict[str, list[Callable[[ModuleType], None]]] = {}
    for name in filter(None, names.split(",")):
        module, change = PARTS[name]
        wanted.setdefault(module, []).append(change)
    sys.meta_path.insert(0, _Changed(wanted))


if "RSST_WITHOUT" in os.environ:
    switch_off(os.environ["RSST_WITHOUT"])
