"""Which files a piece of the user's code is, their digest, their copy in a sweep, and when a resume may run them.

In: a file. Out: `Source`: the file and what it imports of the files beside it, by their sha256. Nothing is run to find
that out: the import statements are read, those inside functions too. An import whose name is put together while the
program runs, and files that are no Python, are not found.

The rule (`to_run`): who begins a sweep names the file, and so wants it run. Who goes on with one may have the sweep
from somebody else. So a resume runs a file outside the home whose digest is the one that the sweep began with, and
nothing else; where the user says `trust`, the sweep's own copy with that digest.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from trainables.errors import ConfigError
from trainables.storage.files import publish, regular_bytes, temporary_folder
from trainables.user_code.loading import top_of

MOST_FILES, MOST_BYTES = 500, 1 << 22
OURS = frozenset({"tune_rsst", "search_spaces", "trainables"})
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Source:
    """A file below `root`, and those that it imports: path below `root` → sha256 of the file.

    `root` is where imports look: the file's folder, or the one that its outermost package lies in.
    """

    root: Path
    entry: str
    files: Mapping[str, str]

    @classmethod
    def of(cls, path: Path) -> Source:
        """The source of the file `path`, as it is now.

        Raises:
            OSError: `path`, or a file that it imports, can't be read; or there are too many.
        """
        root, waiting = top_of(path.parent), [path]
        files: dict[str, str] = {}
        while waiting:
            name = waiting.pop().relative_to(root).as_posix()
            if name in files:
                continue
            if len(files) == MOST_FILES:
                raise OSError(f"it imports more than {MOST_FILES} files beside it")
            content = regular_bytes(root / name, MOST_BYTES)
            files[name] = hashlib.sha256(content).hexdigest()
            waiting += _imported(content, root, PurePosixPath(name))
        return cls(root, path.relative_to(root).as_posix(), dict(sorted(files.items())))

    @classmethod
    def recalled(cls, record: Mapping[str, Any], folder: Path) -> Source:
        """What `record` says, with the copy in `folder` (`copy_into`).

        Raises:
            ValueError: it is no such record.
        """
        if wrong := wrong_record(record):
            raise ValueError(wrong)
        found = cls(folder, record["entry"], dict(record["files"]))
        return cls(folder / found.digest[:16], found.entry, found.files)

    @property
    def path(self) -> Path:
        """The file itself."""
        return self.root / self.entry

    @property
    def digest(self) -> str:
        """sha256 over the names and digests of the files."""
        return hashlib.sha256(json.dumps([self.entry, sorted(self.files.items())]).encode()).hexdigest()

    @property
    def intact(self) -> bool:
        """Whether `root` is a copy: these files with these digests, and nothing else that an import could find."""
        try:
            return Source.of(self.path) == self and self._alone
        except (OSError, ValueError):
            return False

    @property
    def _alone(self) -> bool:
        known = len(self.files)
        for folder, below, names in os.walk(self.root):
            below[:] = [name for name in below if name != "__pycache__"]  # `to_run` has none of it read
            known -= len(names)
            if known < 0:
                return False
            links = any(os.path.islink(os.path.join(folder, name)) for name in below)
            if links or len(below) > len(self.files):
                return False
        return known == 0

    def record(self) -> dict[str, Any]:
        """JSON-able, for the ledger."""
        return {"entry": self.entry, "files": dict(self.files)}

    def copy_into(self, folder: Path) -> None:
        """Copy the files into a folder of `folder` that the digest names; nothing where it is there already.

        Raises:
            OSError: a file can't be read or written, or has changed since the source was read.
        """
        copy = Source.recalled(self.record(), folder)
        if copy.intact:
            return
        with temporary_folder(copy.root) as new:
            for name, digest in self.files.items():
                content = regular_bytes(self.root / name, MOST_BYTES)
                if hashlib.sha256(content).hexdigest() != digest:
                    raise OSError(f"{self.root / name} has changed since the sweep was planned")
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                (new / name).write_bytes(content)
            publish(new, copy.root)


def wrong_record(record: Any) -> str | None:
    """Why `record` is none of a source; None of one. A name in it never leads out of its folder."""
    if not isinstance(record, dict) or not isinstance(record.get("files"), dict):
        return "it has no files"
    for name, digest in record["files"].items():
        parts = name.split("/")
        if not name.endswith(".py") or "\\" in name or "\0" in name or any(p in ("", ".", "..") for p in parts):
            return f"{name!r:.60} is no file below a folder"
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            return f"the digest of {name!r:.60} is none"
    return None if record.get("entry") in record["files"] else "its first file is not among them"


def to_run(
    key: str, record: Mapping[str, Any] | None, candidates: Sequence[Path], copies: Path, home: Path, trust: bool
) -> Path:
    """The file that a resume runs as the code of the setting `key`.

    Args:
        key: the setting.
        record: what the sweep began with; None: its ledger tells of none.
        candidates: files that the user names now, and the one that the sweep began with, in this order.
        copies: the sweep's folder of copies.
        home: TUNE_RSST_HOME; what lies in it may have come with a sweep.
        trust: run the copy where none of `candidates` has the digest.
    """
    named = candidates[0]
    if record is None:
        if trust:
            return named
        valid = "code whose digest the sweep recorded; an earlier version began it, and recorded none"
        raise ConfigError(key, named, valid, f"look at {named}, and add --trust to run it")
    began = Source.recalled(record, copies)
    states = [_state(path, began, home) for path in candidates]
    for path, state in zip(candidates, states, strict=True):
        if not state:
            return path
    if not trust:
        hint = f"look at the sweep's copy, {began.path}, and add --trust to run that" if began.intact else "put it back"
        valid = f"the file that the sweep began with, digest {began.digest[:16]}"
        raise ConfigError(key, named, valid, f"{states[0]}: {hint}")
    if not began.intact:
        valid = f"a sweep whose copy of its code has the digest {began.digest[:16]}"
        raise ConfigError(key, named, valid, f"{began.path} is gone or changed; {states[0]}")
    sys.pycache_prefix, sys.dont_write_bytecode = os.devnull, True  # what was compiled beside it is none of it
    return began.path


def _state(path: Path, began: Source, home: Path) -> str:
    """What is in the way of running `path`; "": it is the file that the sweep began with."""
    if home.resolve() in path.resolve().parents:
        return "it lies in TUNE_RSST_HOME, and may have come with the sweep"
    try:
        found = Source.of(path)
    except (OSError, ValueError) as error:
        return f"it can't be read ({getattr(error, 'strerror', None) or error})"
    other = sorted(name for name in {**found.files, **began.files} if found.files.get(name) != began.files.get(name))
    if found.entry == began.entry and not other:
        return ""
    return f"{', '.join(other[:3]) or 'its place in its package'} is not as it was"


def _imported(content: bytes, root: Path, name: PurePosixPath) -> Iterator[Path]:
    """The files below `root` that the file `name` imports, those of the packages on the way too."""
    package = name.parent.parts
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for depth in range(1, len(package) + 1):
        yield from _module_file(root, package[:depth])
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                yield from _modules(root, tuple(one.name.split(".")))
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            target = (*base, *(node.module.split(".") if node.module else ()))
            for one in node.names:
                yield from _modules(root, (*target, one.name))


def _modules(root: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    if parts[0] not in OURS:
        for depth in range(1, len(parts) + 1):
            yield from _module_file(root, parts[:depth])


def _module_file(root: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    place = root.joinpath(*parts)
    files = (place / "__init__.py", place.with_name(f"{place.name}.py"))
    yield from (file for file in files if file.is_file())
