"""From a plug-in's value to its function: the code of that digest and no other is run, once a process.

In: a value with its digest. Out: the function; its errors as `PluginError`, in one line with the plug-in's name. The
code comes from `remember` (a worker gets it with its trial, a sweep has its copy), else from where the value says, if
it still has that digest there.
"""

from __future__ import annotations

import builtins
import importlib.util
import inspect
import linecache
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from trainables.errors import ConfigError, PluginError
from trainables.plugins.address import GROUPS, Address, entries_of, read
from trainables.plugins.source import Code
from trainables.text import shown

_KNOWN: dict[str, Code] = {}
_LOADED: dict[tuple[str, str], Callable[..., Any]] = {}


def remember(codes: Iterable[Code]) -> None:
    """Code that this process may run, wherever its files are."""
    _KNOWN.update({code.digest: code for code in codes})


def load(key: str, value: str, arguments: int) -> Callable[..., Any]:
    """The function of the plug-in `value` of the knob or setting `key`; it is called with so many `arguments`."""
    if (key, value) not in _LOADED:
        address = Address.of(value)
        assert address is not None and address.digest, "the value of a plug-in"
        _LOADED[key, value] = _checked(key, address, _loaded(key, address), arguments)
    return _LOADED[key, value]


def code_for(key: str, value: str) -> Code:
    """The code of the plug-in `value`, by its digest; one that is another now is refused."""
    address = Address.of(value)
    assert address is not None and address.digest, "the value of a plug-in"
    if address.digest in _KNOWN:
        return _KNOWN[address.digest]
    code = read(key, address)
    if code.digest != address.digest:
        valid = f"code with the digest {address.digest}, not {code.digest}"
        raise ConfigError(key, address.short, valid, "it has changed since: put it back as it was, or start anew")
    return code


@contextmanager
def calling(key: str, value: str) -> Iterator[None]:
    """Around a call of the plug-in: what it raises becomes a `PluginError`."""
    address = Address.of(value)
    assert address is not None, "the value of a plug-in"
    try:
        yield
    except PluginError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"{key} {address.short}: {in_one_line(error, address)}") from error


def in_one_line(error: BaseException, address: Address) -> str:
    """What was raised, with the last line of the plug-in's files that it went through."""
    place, frame = "", error.__traceback__
    while frame is not None:
        file = frame.tb_frame.f_code.co_filename
        if file.startswith(_folder(address)):
            place = f" ({file.rpartition('/')[2]}, line {frame.tb_lineno})"
        frame = frame.tb_next
    return f"{type(error).__name__}: {shown(error)}{place}"


def _folder(address: Address) -> str:
    return f"<plug-in {address.digest}>/"


def _loaded(key: str, address: Address) -> Any:
    code = code_for(key, _value(address))
    try:
        if address.file is None:
            return entries_of(key)[address.name].load()
        made = _Modules(code, address)
        module = made.module(next(name for name, file in code.modules.items() if file == code.entry))
    except (Exception, SystemExit) as error:
        raise ConfigError(key, address.short, "a plug-in that can be imported", in_one_line(error, address)) from error
    if not hasattr(module, address.name):
        own = [name for name, found in vars(module).items() if getattr(found, "__module__", "") == module.__name__]
        raise ConfigError(key, address.short, f"a function of {address.main}", f"it has {', '.join(own) or 'none'}")
    return getattr(module, address.name)


def _value(address: Address) -> str:
    return f"{address.file + ':' if address.file else ''}{address.name}@{address.digest}"


def _checked(key: str, address: Address, function: Any, arguments: int) -> Callable[..., Any]:
    what = ""
    if not callable(function):
        what = f"it is of the type {type(function).__name__}"
    elif inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        what = "it is async, or has a yield"
    else:
        try:
            inspect.signature(function).bind(*[None] * arguments)
        except TypeError as error:
            what = str(error)
        except ValueError:  # a callable without a signature that can be read
            pass
    if what:
        valid = f"a function that takes {arguments} argument{'s' if arguments > 1 else ''}"
        raise ConfigError(key, address.short, valid, f"{what}; entry points of the group {GROUPS[key]} likewise")
    return function  # type: ignore[no-any-return]


class _Modules:
    """The modules of one plug-in. They import each other before anything else, and nobody else sees them."""

    def __init__(self, code: Code, address: Address) -> None:
        self._code, self._folder, self._files = code, _folder(address), code.modules
        self._prefix = f"tune_rsst_plugin_{address.digest}."
        self._found: dict[str, ModuleType] = {}

    def module(self, name: str) -> ModuleType:
        """The module of that dotted name, after those of the packages that it is in."""
        if name not in self._found:
            above, _, last = name.rpartition(".")
            package = self.module(above) if above else None
            if name in self._found:  # its package has imported it
                return self._found[name]
            self._execute(name)
            if package is not None:
                setattr(package, last, self._found[name])
        return self._found[name]

    def _execute(self, name: str) -> None:
        file = self._files[name]
        path, content = f"{self._folder}{file}", self._code.files[file]
        lines = content.decode(errors="replace").splitlines(keepends=True)
        linecache.cache[path] = (len(content), None, lines, path)
        made = self._found[name] = ModuleType(self._prefix + name)
        within = name if file.endswith("__init__.py") else name.rpartition(".")[0]
        made.__dict__.update({"__file__": path, "__package__": within})
        made.__dict__["__builtins__"] = {**vars(builtins), "__import__": self._import}
        sys.modules[made.__name__] = made  # dataclasses look their module up
        try:
            exec(compile(content, path, "exec"), made.__dict__)
        except BaseException:
            del self._found[name], sys.modules[made.__name__]
            raise

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        full = importlib.util.resolve_name("." * level + name, (globals or {}).get("__package__")) if level else name
        if full not in self._files:
            return __import__(name, globals, locals, fromlist or (), level)
        module = self.module(full)
        for item in fromlist or ():
            if f"{full}.{item}" in self._files:
                self.module(f"{full}.{item}")
        return module if fromlist else self.module(full.partition(".")[0])
