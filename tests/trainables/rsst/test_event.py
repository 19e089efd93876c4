"""A report is the same value wherever it goes: as JSON and back nothing is lost, and no two of a trial look alike."""

from __future__ import annotations

import json

import pytest

from tests.trainables import toy
from trainables.rsst.data.load import ImageData
from trainables.rsst.event import Event
from trainables.rsst.experiment import run

pytestmark = pytest.mark.usefixtures("toy")


def test_the_events_of_a_trial_survive_json_and_have_keys_of_their_own(tiny: ImageData) -> None:
    events = list(run(toy.config(), tiny))
    assert [Event.from_json(json.loads(json.dumps(event.to_json()))) for event in events] == events
    assert len({event.key for event in events}) == len(events) >= 6
    assert {event.to_json()["kind"] for event in events} == {"start", "epoch", "round", "final"}


def test_an_event_that_was_read_back_has_no_state() -> None:
    event = Event.from_json({"kind": "round", "round": 2, "epoch": 1})
    assert (event.kind, event.metrics, event.key) == ("round", {"round": 2, "epoch": 1}, ("round", 2, 1))
    with pytest.raises(RuntimeError, match="no state"):
        event.snapshot()
