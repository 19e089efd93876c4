"""Trains a sweep's trials one after the other in this process: the real core and its checkpoints, without Ray.

In: a driver and the sweep's folder. Out: each report that the driver has taken, one by one, as in replay.py. A trial
that was begun earlier continues from its newest checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from trainables.errors import FAILS_AGAIN, PluginError
from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.trial import TrialDiverged, dense_folder, open_trial
from tune_rsst.ledger.view import TrialView
from tune_rsst.runners import replay
from tune_rsst.runners.replay import Json, TrialFailed
from tune_rsst.storage.folder import SweepFolder

if TYPE_CHECKING:
    from tune_rsst.intake import Intake


def reports(driver: Intake, folder: SweepFolder) -> Iterator[tuple[TrialView, Json]]:
    """Train what `driver` gives out; the trials' stores are those of `folder`. Ends as `replay.reports` does."""
    return replay.reports(driver, partial(_trained, folder))


def run(driver: Intake, tick: Callable[[], object], folder: SweepFolder) -> None:
    """`reports` as a runner (`tune_rsst.runners.Runner`)."""
    for _ in reports(driver, folder):
        tick()


def _trained(folder: SweepFolder, trial: TrialView, config: RSSTConfig) -> Iterator[Json]:
    config = RSSTConfig.from_knobs(folder.with_own_weights(config.knobs()))
    try:
        with open_trial(config, folder.trials, say=lambda line: None, dense=dense_folder(config)) as running:
            for event in running.events():
                yield event.to_json()
    except (TrialDiverged, PluginError) as error:
        raise TrialFailed(f"{FAILS_AGAIN}{error}") from error
    except ConfigError as error:
        raise TrialFailed(str(error)) from error
