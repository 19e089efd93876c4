"""The code of a plug-in by value, so that it can be sent to a worker: its file, and what it imports from beside it.

In: the path of a file, or a module that is installed. Out: `Code`, with the digest of trainables/user_code/source.py.
Nothing is executed here.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from trainables.storage.files import regular_bytes
from trainables.user_code.source import MOST_BYTES, Source

DIGITS = 16


@dataclass(frozen=True)
class Code:
    """Files by their name below the folder where imports look; `entry` is the one that the function is in."""

    entry: str
    files: Mapping[str, bytes]

    @classmethod
    def of(cls, source: Source) -> Code:
        """The files of `source` as they are now.

        Raises:
            OSError: one can't be read.
        """
        return cls(source.entry, {name: regular_bytes(source.root / name, MOST_BYTES) for name in source.files})

    @classmethod
    def at(cls, path: Path) -> Code:
        """The file `path` and what it imports from beside it.

        Raises:
            OSError: one can't be read, or is no regular file.
        """
        return cls.of(Source.of(path))

    @classmethod
    def installed(cls, module: str) -> Code:
        """An installed module, with what it imports from beside it; nothing of it is imported but its packages.

        Raises:
            OSError, ValueError, ImportError: it can't be found or read.
        """
        spec = importlib.util.find_spec(module)
        if spec is None or not str(spec.origin).endswith(".py"):
            raise ValueError(f"there is no Python file of the module {module}")
        return cls.at(Path(str(spec.origin)))

    @property
    def digest(self) -> str:
        """16 hex digits over the names and the files, as a sweep's copy is called."""
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(self.files.items())}
        return Source(Path(), self.entry, digests).digest[:DIGITS]

    @property
    def modules(self) -> dict[str, str]:
        """Dotted name of a module → its file."""
        found = {}
        for name in self.files:
            parts = PurePosixPath(name).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = name
        return found

    def to_json(self) -> dict[str, Any]:
        """For a worker's orders."""
        return {"entry": self.entry, "files": {name: content.decode() for name, content in self.files.items()}}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Code:
        """What `to_json` made."""
        return cls(found["entry"], {name: text.encode() for name, text in found["files"].items()})


def copied(folder: Path, path: str, digest: str) -> Code | None:
    """The copy below `folder` (of a sweep, a run) of the code whose file was at `path`; None where there is none."""
    parts = PurePosixPath(path).parts
    for depth in range(1, len(parts)):
        file = (folder / digest).joinpath(*parts[-depth:])
        try:
            source = Source.of(file)
            if source.intact and (code := Code.of(source)).digest == digest:
                return code
        except (OSError, ValueError):
            continue
    return None
