"""A small but real sweep on the digits, without Ray: driver, study, ledger, trials and checkpoints are ours."""

from __future__ import annotations

from pathlib import Path

from trainables.provenance import origin
from trainables.user_code.source import Source
from tune_rsst.driver import assemble
from tune_rsst.ledger.file import Ledger
from tune_rsst.results import best
from tune_rsst.runners import serial
from tune_rsst.search.spaces import VALIDATION_DRAWS, digest, samples, settled
from tune_rsst.settings.addresses import sqlite_uri
from tune_rsst.storage.folder import Sweep, SweepFolder

OVERRIDES = ("trials=4", "startup_trials=4", "target_density=0.45", "stopping=none", "mlflow_experiment=digits")
SPACE = '''
"""Four knobs on a ViT that learns in seconds; 2 to 3 rounds."""


def small(trial):
    return {
        "dataset": "digits", "epochs": 2, "batch_size": 128,
        "lr": trial.suggest_float("lr", 1e-3, 4e-3, log=True),
        "warmup": trial.suggest_int("warmup", 0, 1),
        "rate": trial.suggest_float("rate", 0.35, 0.55),
        "reg_granularity_prune": trial.suggest_float("reg_granularity_prune", 0.2, 1.0),
    }
'''


def real_sweep(home: Path, name: str = "small", overrides: tuple[str, ...] = ()) -> SweepFolder:
    """Run it to its end in `home` (about 3 s a trial); nothing is uploaded."""
    folder = SweepFolder(home / name)
    folder.path.mkdir(parents=True)
    file = home.with_name(f"{home.name}-space") / "small_space.py"
    file.parent.mkdir(exist_ok=True)
    file.write_text(SPACE, encoding="utf-8")
    words = [f"space={file}:small", f"name={name}", f"mlflow_tracking_uri={sqlite_uri(home)}", *OVERRIDES, *overrides]
    settings, space = settled(words)
    ledger = Ledger(folder.ledger)
    drawn = [draw for draw, _ in samples(space, settings.fixed_in_trials, VALIDATION_DRAWS)]
    sources = {"space": Source.of(file).record()}
    about = {**origin(), "space_digest": digest(drawn, settings.fixed), "sources": sources}
    driver = assemble(ledger, settings, space, about=about)
    for _ in serial.reports(driver, folder):
        pass
    best.write_best(Sweep(folder, driver.view, "running"))
    driver.record("sweep_ended")
    ledger.close()
    return folder
