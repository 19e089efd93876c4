"""The round loop: what one trial does, in the order of docs/method.md, "A trial". Start reading here.

In: config, images, and the last state if there is one.
Out: events (start, epoch, round, final).
Stopping early is to stop iterating; resuming is to pass the last state.

    round 0      train the dense model
    round r ≥ 1  score the alive units with the weights that round r − 1 trained → choose the doomed
                 → start from `rewind`, sliced to what is alive → train, pressing the doomed
                 → evaluate → harden → evaluate → report
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator

from trainables.rsst.config import RSSTConfig
from trainables.rsst.data.load import ImageData
from trainables.rsst.dense import DenseRounds
from trainables.rsst.event import Event, Kind, Metrics
from trainables.rsst.reports import final_metrics, round_metrics, start_metrics
from trainables.rsst.running import Running
from trainables.rsst.state import TrialState
from trainables.rsst.training.epoch import TrialDiverged, refuse_broken, train_epoch


def run(
    config: RSSTConfig, data: ImageData, state: TrialState | None = None, dense: DenseRounds | None = None
) -> Generator[Event]:
    """Run a trial from `state` (None: from the start) to its end, yielding every event that is not in `state` yet.

    `dense`: where round 0 may come from, and goes to.

    Raises:
        TrialDiverged: a loss, a weight, a score or a metric is not finite; no event holds it.
    """
    trial = Running.resumed(config, data, state) if state else Running.fresh(config, data)
    if not trial.history:
        yield _event(trial, "start", start_metrics(trial))
    while trial.round < config.rounds:
        if trial.epoch == 0:
            begin_round(trial)
        yield from _epochs(trial) if trial.round or dense is None else _dense_epochs(trial, dense)
        yield _event(trial, "round", end_round(trial))
    if not trial.finished:
        yield _event(trial, "final", final_metrics(trial))


def _epochs(trial: Running) -> Iterator[Event]:
    """Train what is left of the present round."""
    while trial.epoch < trial.config.epochs:
        yield _event(trial, "epoch", train_one_epoch(trial))


def _dense_epochs(trial: Running, dense: DenseRounds) -> Iterator[Event]:
    """Round 0, taken over from another trial or trained for all that come later.

    One that was begun in another environment, or with another micro_batch_size, is this trial's alone.
    """
    if trial.epoch == trial.config.epochs:
        return
    if trial.epoch and not trial.uniform:
        yield from _epochs(trial)
        return
    with dense.turn(trial.dense_key, begun=trial.epoch > 0) as turn:
        if turn.state is None:
            yield from _epochs(trial)
            turn.keep(trial.dense_state())
        else:
            yield from trial.adopt(turn.state)


def begin_round(trial: Running) -> None:
    """Rounds ≥ 1: score the trained weights, choose the doomed, rewind. refill removes the doomed here already."""
    if trial.round > 0:
        try:
            trial.choose_doomed()
        except FloatingPointError as error:
            raise TrialDiverged(f"round {trial.round}, before epoch 1, step 0: {error}") from None
        if trial.config.removes_first:
            trial.harden()
        trial.rewind_weights()
    trial.start_training()


def train_one_epoch(trial: Running) -> Metrics:
    """One epoch of the present round, and validation accuracy before hardening.

    Raises:
        TrialDiverged: the training or the validation loss, or a weight, is not finite.
    """
    began = time.perf_counter()
    loss, rate = train_epoch(trial.training, trial.epoch)
    refuse_broken(trial.training, trial.epoch)
    trial.epoch_done()
    found = trial.validated()
    return {
        "round": trial.round,
        "epoch": trial.epoch,
        "epochs_trained": trial.epochs_trained,
        "train_loss": loss,
        "val_top1_before_hardening": found.top1,
        "lr": rate,
        **trial.doomed_norm_left(),
        "seconds": time.perf_counter() - began,
    }


def end_round(trial: Running) -> Metrics:
    """Harden (refill did so at the start), measure, report; the trial then stands at the start of the next round."""
    trial.harden()
    metrics = round_metrics(trial)
    trial.next_round()
    return metrics


def _event(trial: Running, kind: Kind, metrics: Metrics) -> Event:
    for name, value in metrics.items():
        numbers = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            raise TrialDiverged(f"round {metrics['round']}, epoch {metrics['epoch']}: {name} is {value}")
    event = Event(kind, metrics, trial.snapshot)
    trial.history.append(event)
    return event
