"""Plays a sweep from curves, not training: formulas, or what an earlier sweep recorded. Needs neither Ray nor torch.

In: a driver, and a curve: the events of each trial. Out: each report that the driver has taken, one by one. Whoever
stops iterating leaves the sweep as kill -9 would; iterating over a new driver of the same ledger resumes it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from trainables.rsst.config import RSSTConfig
from tune_rsst.ledger.view import TrialView

if TYPE_CHECKING:
    from tune_rsst.intake import Intake

Json = dict[str, Any]
"""An event of the core as `Event.to_json` writes it: {"kind": "epoch", "round": 0, …}."""
Curve = Callable[[TrialView, RSSTConfig], Iterable[Json]]
"""All events of a trial from its first; the driver skips those that it has. Raises `TrialFailed`."""


class TrialFailed(RuntimeError):
    """The trial can't continue. One line."""


def reports(driver: Intake, curve: Curve, at_once: int = 1) -> Iterator[tuple[TrialView, Json]]:
    """Play what `driver` gives out, `at_once` trials at a time, one event each in turn.

    Ends when the driver gives nothing more, or when it is broken. A trial that has ended by an event is no longer
    running when that event is yielded.
    """
    live: list[tuple[TrialView, Generator[Json]]] = []
    try:
        while not driver.interruption.broken:
            while len(live) < at_once and (trial := driver.next_trial()) is not None:
                live.append((trial, _stream(curve, trial, RSSTConfig.from_knobs(driver.knobs_of(trial)))))
            if not live:
                return
            for trial, stream in list(live):
                if driver.interruption.broken:
                    return
                event, result = _step(stream)
                if driver.take({"trial_key": trial.trial, **result}):
                    live.remove((trial, stream))
                    stream.close()
                yield trial, event
    finally:
        for _, stream in live:
            stream.close()


def run(driver: Intake, tick: Callable[[], object], curve: Curve, at_once: int = 1) -> None:
    """`reports` as a runner (`tune_rsst.runners.Runner`)."""
    for _ in reports(driver, curve, at_once):
        tick()


def recorded(events: Iterable[Mapping[str, Any]]) -> Curve:
    """The curves that a ledger holds: a trial's reports, found by its configuration."""
    curves: dict[str, list[Json]] = {}
    by_trial: dict[str, list[Json]] = {}
    for event in events:
        if event["event"] == "suggested":
            by_trial[event["trial"]] = curves.setdefault(event["fingerprint"], [])
        elif event["event"] == "reported":
            by_trial[event["trial"]].append({"kind": event["kind"], **event["metrics"]})
    return lambda trial, config: curves.get(config.fingerprint, ())


def _stream(curve: Curve, trial: TrialView, config: RSSTConfig) -> Generator[Json]:
    """The curve as something that can be closed, which ends what the curve holds open."""
    yield from curve(trial, config)


def _step(stream: Generator[Json]) -> tuple[Json, dict[str, Any]]:
    """The next event, and the result that hands it to the driver."""
    try:
        event = next(stream, None)
    except TrialFailed as error:
        return {}, {"failed": str(error)}
    return (event, {"events": [event]}) if event else ({}, {"failed": "its curve ends before the trial does"})
