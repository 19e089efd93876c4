"""TensorBoard's files hold every number of a trial's reports, once a step, at its time; and what it searched."""

from __future__ import annotations

import struct
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from tests.tune_rsst.recorded import EPOCHS, ROUNDS, Recorder, sweep_events
from tune_rsst.cli import app
from tune_rsst.ledger.file import read
from tune_rsst.storage.folder import Sweep, SweepFolder


def events_in(folder: Path) -> Iterator[Event]:
    """What TensorBoard reads: records of a length, its checksum, the bytes, their checksum."""
    (file,) = folder.glob("events*")
    data, at = file.read_bytes(), 0
    while at < len(data):
        (length,) = struct.unpack("<Q", data[at : at + 8])
        yield Event.FromString(data[at + 12 : at + 12 + length])
        at += 16 + length


def points_in(folder: Path) -> list[tuple[str, int, float, float]]:
    """(metric, step, time, value)"""
    found = [(event, value) for event in events_in(folder) for value in event.summary.value]
    return [
        (value.tag, event.step, event.wall_time, value.simple_value)
        for event, value in found
        if not value.tag.startswith("_hparams_/")
    ]


def searched_in(folder: Path) -> dict[str, Any]:
    for event in events_in(folder):
        for value in event.summary.value:
            if value.tag == "_hparams_/session_start_info":
                content = HParamsPluginData.FromString(value.metadata.plugin_data.content)
                hparams = content.session_start_info.hparams
                return {name: getattr(one, str(one.WhichOneof("kind"))) for name, one in hparams.items()}
    return {}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepFolder:
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path))
    found = SweepFolder(tmp_path / "demo")
    found.path.mkdir()
    Recorder(found.ledger).write(*sweep_events())
    return found


def tensorboard(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["tune-rsst", "tensorboard", *words])
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 0


def test_every_number_is_there_once_also_when_it_is_written_again(
    folder: SweepFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        tensorboard(monkeypatch, "demo")
        assert capsys.readouterr().out == f"4 trials; look at them: tensorboard --logdir {folder.tensorboard}\n"
    trials = Sweep.of(folder).view.trials
    assert sorted(path.name for path in folder.tensorboard.iterdir()) == sorted(trials)
    finished = points_in(folder.tensorboard / "t0000")
    assert set(Counter((tag, step) for tag, step, *_ in finished).values()) == {1}
    assert [step for tag, step, *_ in finished if tag == "train_loss"] == [*range(1, EPOCHS * ROUNDS + 1)]
    assert [step for tag, step, *_ in finished if tag == "val_top1"] == [EPOCHS * (at + 1) for at in range(ROUNDS)]
    told = {tag: value for tag, _, _, value in finished}
    assert told["test_top1"] == pytest.approx(trials["t0000"].metrics["test_top1"])
    assert not {"round", "epoch", "epochs_trained", "data_digest", "heads_kept_per_layer"} & told.keys()
    first = next(e for e in read(folder.ledger) if e["event"] == "reported" and e["kind"] == "epoch")
    assert {at for tag, step, at, _ in finished if (tag, step) == ("train_loss", 1)} == {first["time"]}
    assert searched_in(folder.tensorboard / "t0001") == pytest.approx(trials["t0001"].searched)


def test_a_sweep_that_has_not_reported_yet_has_no_trial_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path))
    (tmp_path / "new").mkdir()
    Recorder(tmp_path / "new" / "ledger.jsonl").write(next(iter(sweep_events("new"))))
    tensorboard(monkeypatch)
    assert capsys.readouterr().out.startswith("0 trials; ") and not [*(tmp_path / "new" / "tensorboard").iterdir()]
