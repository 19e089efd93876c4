"""A real sweep of toys, without Ray and without MLflow: ledger, study, settings, checkpoints, models, dense rounds.

In: an empty home, which TUNE_RSST_HOME names. Out: the folder of a finished sweep; what it says, without times.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.trainables import toy
from trainables.user_code.source import Source
from tune_rsst.driver import Driver, assemble
from tune_rsst.interrupt import Interruption
from tune_rsst.ledger.file import Ledger
from tune_rsst.ledger.lines import Place, encode
from tune_rsst.ledger.view import SweepView
from tune_rsst.planning.plan import Plan
from tune_rsst.planning.resume import go_on
from tune_rsst.runners import serial
from tune_rsst.search.spaces import VALIDATION_DRAWS, digest, samples, settled
from tune_rsst.settings.addresses import without_secrets
from tune_rsst.settings.written import HEAD, sealed
from tune_rsst.storage.folder import Sweep, SweepFolder

SPACE = '''
"""Toys that learn nothing much; 2 or 3 rounds."""


def toys(trial):
    return {
        "dataset": "digits", "arch": "vit_toy", "epochs": 1, "warmup": 0, "batch_size": 256,
        "lr": trial.suggest_float("lr", 1e-3, 4e-3, log=True),
        "rate": trial.suggest_float("rate", 0.35, 0.55),
    }
'''


def make(home: Path, name: str = "toys", *words: str) -> SweepFolder:
    """A sweep of four trials that has ended."""
    toy.install()
    folder = SweepFolder(home / name)
    folder.path.mkdir(parents=True)
    file = home.with_name(f"{home.name}-space") / "toy_space.py"
    file.parent.mkdir(exist_ok=True)
    file.write_text(SPACE, encoding="utf-8")
    source = Source.of(file)
    source.copy_into(folder.code)
    given = [f"space={file}:toys", f"name={name}", f"optuna_storage={folder.study}"]
    given += [f"mlflow_tracking_uri=sqlite:///{home / 'mlflow.db'}", "trials=4", "target_density=0.4", *words]
    settings, space = settled(given)
    kept = {name: one for name, one in settings.flat().items() if "sqlite:" not in str(one)}  # as the driver does
    folder.settings.write_text(sealed(f"{HEAD}{name}\n", yaml.safe_dump(without_secrets(kept))), encoding="utf-8")
    ledger = Ledger(folder.ledger)
    drawn = [draw for draw, _ in samples(space, settings.fixed_in_trials, VALIDATION_DRAWS)]
    about = {"space_digest": digest(drawn, settings.fixed), "seed": 0, "sources": {"space": source.record()}}
    driver = assemble(ledger, settings, space, about=about)
    to_the_end(driver, folder)
    ledger.close()
    return folder


def to_the_end(driver: Driver, folder: SweepFolder) -> None:
    for _ in serial.reports(driver, folder):
        pass
    driver.record("sweep_ended")


def resumed(folder: SweepFolder) -> Sweep:
    """The sweep after it went on to its end, where anything was left."""
    plan = go_on(Sweep.of(folder), {})
    return went_on(folder, plan) if isinstance(plan, Plan) else Sweep.of(folder)


def went_on(folder: SweepFolder, plan: Plan) -> Sweep:
    """The sweep after it went on to its end by `plan`, of a resume, an extension or a second try."""
    ledger = Ledger(folder.ledger)
    driver = assemble(ledger, plan.settings, plan.space, plan.weights, interruption=Interruption())
    driver.reopen(plan.again)
    if plan.more_trials:
        driver.record("extended", trials=plan.settings.trials, by=plan.more_trials)
    driver.record("resumed", versions={})
    to_the_end(driver, folder)
    ledger.close()
    return Sweep.of(folder)


def said(view: SweepView) -> dict[str, Any]:
    """What a sweep has found: each trial with its state, knobs and metrics, without times and places."""
    return {
        name: (
            trial.number, trial.state, trial.reason, trial.rung, trial.params, trial.fingerprint, trial.knobs,
            trial.distributions, [toy.timeless(one) for one in trial.round_events],
            toy.timeless(trial.final or {}), toy.timeless(trial.last_epoch), toy.timeless(trial.origin),
            sorted(trial.seen),
        )
        for name, trial in sorted(view.trials.items())
    }  # fmt: skip


def rewrite(path: Path, events: list[dict[str, Any]]) -> None:
    """A ledger of these events."""
    place, content = Place(), b""
    for event in events:
        line = encode(event, place)
        place.move_on(line, True)
        content += line
    path.write_bytes(content)
