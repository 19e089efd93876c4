"""The folder of a trial that runs alone: whose it is, what lies in it. For `python -m trainables` and for `run`.

In: a folder and a config. Out: config.json, code/, state/FINGERPRINT; at the end report.json and the model.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from trainables.rsst.config import KNOBS, METHOD_VERSION, ConfigError, RSSTConfig, config_in
from trainables.rsst.model.saved import ARCHITECTURE, MODEL, PREPROCESSING, REPORT
from trainables.rsst.trial import method_of
from trainables.storage.files import replaced
from trainables.storage.state_files import replace_state
from trainables.user_code.source import Source

STATE = "state"
CODE = "code"  # the user's own, by digest


def made(folder: Path, config: RSSTConfig) -> bool:
    """Make the folder, and see that it can be written; whether it was empty (or missing) before."""
    try:
        empty = not folder.exists() or not any(folder.iterdir())
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            "save_dir", config.save_dir or folder, "a folder that can be made and written", str(error)
        ) from error
    return empty


def refuse_other_work(folder: Path, config: RSSTConfig, *, resume: bool) -> None:
    """Never write over another trial, nor over this one unless --resume asks to go on with it."""
    before = config_in(folder)
    if before is None:
        return
    if not resume:
        hint = "add --resume to go on with it, or use another folder"
        raise ConfigError("save_dir", folder, "a folder that holds no trial yet", hint)
    if methods := {method_of(store) for store in (folder / STATE).glob("*")} - {METHOD_VERSION, None}:
        hint = f"this one was trained by method {methods.pop()}; its report and model stay readable: use another folder"
        raise ConfigError("save_dir", folder, f"the folder of a trial of method {METHOD_VERSION}", hint)
    then, now = RSSTConfig.from_knobs(before), config
    stores = {path.name for path in (folder / STATE).glob("*") if path.is_dir()}
    if stores and then.fingerprint not in stores:
        hint = f"checkpoints of trial {min(stores)}, config.json of {then.fingerprint}: put the right one back"
        raise ConfigError("save_dir", folder, "a folder whose files are of one trial", hint)
    names = [n for n in KNOBS if then.identity.get(n) != now.identity.get(n)]
    names += [] if (then.weights is None) == (now.weights is None) else ["weights"]
    if names:
        differing = ", ".join(f"{n} {getattr(then, n)} → {getattr(now, n)}" for n in names)
        raise ConfigError("save_dir", folder, "the folder of the same trial", f"these knobs differ: {differing}")


def begin(folder: Path, config: RSSTConfig, sources: Sequence[Source]) -> None:
    """Say whose folder it is, once its trial is open: whoever sees it finds the lock held. Keep the user's code."""
    replace_state(folder / "config.json", config.knobs())
    for source in sources:
        source.copy_into(folder / CODE)


def end(folder: Path, store: Path) -> None:
    """The report and the model of a finished trial, from its store."""
    for name in (REPORT, MODEL, ARCHITECTURE, PREPROCESSING):
        with replaced(folder / name) as new:
            shutil.copyfile(store / name, new)


def take_back(folder: Path, config: RSSTConfig) -> None:
    """Remove what a refused run has made, so that the corrected one finds the folder free."""
    store = folder / STATE / config.fingerprint
    for file in (folder / "config.json", folder / "run.log", store / "lock"):
        file.unlink(missing_ok=True)
    for made_here in (store, store.parent, folder):
        with suppress(OSError):  # something else is there
            made_here.rmdir()
