"""What a checkpoint is called and holds, and its JSON read back. Needs no tensors, so it is there in an instant.

In: the folder of a checkpoint, or of a trial's store.
Out: `TrialState.meta`, once it is known to be what was written; else `Damaged`, in one line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainables.rsst.event import REPORT
from trainables.storage.files import sha256_of
from trainables.storage.forms import SHA256, Form, anything, listed, record, text, whole
from trainables.storage.state_files import LOST, read_state

TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
CONTENT = record({TENSORS: text(SHA256), STATE: text(SHA256)})
"""What a manifest holds: sha256 by file."""
SMALL = 1 << 20  # bytes of a manifest, at most
ANY_STATE = record(
    {"fingerprint": text(most=100), "round": whole(), "epoch": whole(), "history": listed(anything)}, more=True
)
"""What every state has, whatever else is in it."""
_WITH_REPORTS = record({"history": listed(REPORT)}, more=True)
_NAME = re.compile(r"r(\d+)-e(\d+)-n(\d+)")


class Damaged(ValueError):
    """A checkpoint that is not what was written; says what is wrong with it."""


@contextmanager
def damage_is_said() -> Iterator[None]:
    """Within, an error that means that a checkpoint is not what was written becomes `Damaged`; others go through."""
    try:
        yield
    except Damaged:
        raise
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno not in LOST:
            raise
        raise Damaged((str(error) or type(error).__name__).splitlines()[0]) from error


def read_meta(folder: Path, form: Form, checked: Iterable[str] = (TENSORS, STATE)) -> dict[str, Any]:
    """The JSON of the checkpoint in `folder`, of this form; `checked`: the files whose sha256 is compared.

    Raises:
        Damaged: it is not what was written.
        OSError: it can't be read now, for a reason that does not mean that it is damaged.
    """
    with damage_is_said():
        written = read_state(folder / MANIFEST, CONTENT, seal="none", most=SMALL)
        for name in checked:
            if sha256_of(folder / name) != written[name]:
                raise Damaged(f"{name} has another sha256 than its manifest says")
        meta: dict[str, Any] = read_state(folder / STATE, form, seal="none")
    return meta


def history_in(store: Path) -> list[dict[str, Any]]:
    """Reports in the newest whole checkpoint of a trial's store, without a look at its tensors; empty without one.

    One that vanishes meanwhile is passed over, as a damaged one is.
    """
    for name in checkpoint_names(entry.name for entry in store.iterdir()) if store.is_dir() else ():
        try:
            return list(read_meta(store / name, _WITH_REPORTS, (STATE,))["history"])
        except (Damaged, OSError):
            continue
    return []


def name_of(meta: Mapping[str, Any]) -> str:
    """The folder of the checkpoint of such a state."""
    return f"r{int(meta['round']):03d}-e{int(meta['epoch']):03d}-n{len(meta['history']):05d}"


def checkpoint_names(names: Iterable[str]) -> list[str]:
    """Those of `names` that are names of checkpoints, newest first."""
    found = [match for name in names if (match := _NAME.fullmatch(name))]
    return [m.group() for m in sorted(found, key=lambda m: [int(part) for part in m.groups()], reverse=True)]
