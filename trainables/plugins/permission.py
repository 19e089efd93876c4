"""Which code may run for a plug-in of a trial or sweep that goes on: the file as it was, or, where trusted, a copy.

In: a plug-in's value, the folders that hold copies, and whether the user has said `trust`. Out: its `Code`. The rule is
that of trainables/user_code/source.py, `to_run`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.errors import ConfigError
from trainables.plugins.address import GROUPS, Address, is_plugin, stand_in
from trainables.plugins.loading import code_for, remember
from trainables.plugins.source import Code, copied
from trainables.user_code.source import Source


@dataclass(frozen=True)
class Permission:
    """`copies`: folders with copies by digest. `theirs`: what lies in it may have come from somebody else; None: what
    the user names is the user's, because nothing goes on.
    """

    copies: Sequence[Path]
    theirs: Path | None
    trust: bool

    def grant(self, key: str, value: str) -> Source | None:
        """From now on this process may run the plug-in; its files, to be copied, where they are those it runs."""
        address = Address.of(value)
        assert address is not None and address.digest, "the value of a plug-in"
        try:
            if address.file and self.theirs and self.theirs.resolve() in Path(address.file).resolve().parents:
                hint = "it lies with what goes on, and may have come with it"
                raise ConfigError(key, address.short, f"a file outside {self.theirs}", hint)
            code, source = code_for(key, value), Source.of(Path(address.file)) if address.file else None
        except ConfigError as problem:
            code, source = self._copy(key, address, problem), None
            stand_in(address)
        remember([code])
        return source

    def _copy(self, key: str, address: Address, problem: ConfigError) -> Code:
        if not (self.copies and address.file):
            raise problem
        found = {place: copied(place, address.file, str(address.digest)) for place in self.copies}
        place, kept = next(((p, code) for p, code in found.items() if code is not None), (self.copies[0], None))
        if kept is not None and self.trust:
            return kept
        copy = place / str(address.digest)
        hint = (
            f"look at the copy, {copy}, and add --trust to run that" if kept else f"the copy {copy} is gone or changed"
        )
        raise ConfigError(key, address.short, problem.valid, f"{problem.hint}; {hint}")


def plugins_in(knobs: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The plug-ins among knobs: (name of the knob, its value)."""
    return [(key, knobs[key]) for key in GROUPS if is_plugin(knobs.get(key))]
