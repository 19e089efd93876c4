"""The best trial's knobs and model as files: best.yaml and best_model.

In: a sweep. Out: files.
"""

from __future__ import annotations

import json
import shutil

from trainables.rsst.metrics import said
from trainables.rsst.model.saved import ARCHITECTURE, MODEL, PREPROCESSING, REPORT
from trainables.storage.files import replaced, replaced_folder
from trainables.text import one_line
from tune_rsst.ledger.view import TrialView
from tune_rsst.results import replicated
from tune_rsst.results.commands import of_a_rerun
from tune_rsst.results.confirmed.table import remark
from tune_rsst.results.ranking import best_of
from tune_rsst.storage.bucket import fetch_model
from tune_rsst.storage.folder import Sweep

MODEL_FILES = (MODEL, ARCHITECTURE, REPORT)


def best_is_written(sweep: Sweep) -> bool:
    """Whether best.yaml and the best model are there, as far as there is a best trial."""
    folder = sweep.folder
    return best_of(sweep.view) is None or (
        folder.best.exists() and all((folder.best_model / n).exists() for n in MODEL_FILES)
    )


def write_best(sweep: Sweep) -> TrialView | None:
    """Write best.yaml and best_model/ of the best trial there is; the file and the folder are replaced at once."""
    folder, best = sweep.folder, best_of(sweep.view)
    if best is None:
        return None
    told = said(best.metrics, "val_top1", "test_top1", "kept_share", "top1_drop", "init_effective")
    head = [
        f"# Sweep {folder.name}, trial {best.trial}: {told}",
        *(f"# {line}" for line in (remark(sweep.view), replicated.remark(sweep.view, best)) if line),
        f"# Searched: {', '.join(best.params)}. Fingerprint {best.fingerprint}.",
        "# python -m trainables --config best.yaml --save_dir FOLDER",
    ]
    lines = [*map(one_line, head), *(f"{name}: {json.dumps(value)}" for name, value in of_a_rerun(best.knobs).items())]
    with replaced(folder.best) as new:
        new.write_text("\n".join(lines) + "\n", encoding="utf-8")
    fetch_model(folder, sweep.view.settings.get("storage"), best.fingerprint)
    with replaced_folder(folder.best_model) as new:
        for name in (*MODEL_FILES, PREPROCESSING):
            file = folder.store(best.fingerprint) / name
            if name in MODEL_FILES or file.exists():  # trials of older versions have none
                shutil.copy2(file, new / name)
    return best
