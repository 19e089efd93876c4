"""A trial with its state on disk: replay, resume, fall back, never train a finished round again."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainables import toy
from trainables.rsst import experiment, reports, running, trial
from trainables.rsst.config import METHOD_VERSION, ConfigError, RSSTConfig
from trainables.rsst.data.batches import on_device
from trainables.rsst.data.load import ImageData
from trainables.rsst.event import Event
from trainables.rsst.metrics import METRICS, kept_per
from trainables.rsst.model.saved import load_pruned
from trainables.rsst.running import Running
from trainables.rsst.store.checkpoint import StoreBusy
from trainables.rsst.training import epoch
from trainables.rsst.training.epoch import TrialDiverged
from trainables.rsst.training.evaluation import evaluate
from trainables.rsst.training.setup import Training
from trainables.rsst.trial import open_trial

pytestmark = pytest.mark.usefixtures("toy")

CONFIG = toy.KNOBS
WHOLE = ["start", *["epoch", "epoch", "round"] * 3, "final"]


@pytest.fixture(scope="module")
def finished(toy: None, tiny: ImageData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a store that holds a finished trial; copy it before changing it."""
    root = tmp_path_factory.mktemp("finished")
    list(opened_events(root, tiny))
    return root


def opened_events(root: Path, tiny: ImageData, **how: Any) -> Iterator[Event]:
    config = RSSTConfig.from_knobs(CONFIG)
    with open_trial(config, root, **{"say": pytest.fail, "checkpoint_every_s": 0.0, "data": tiny} | how) as opened:
        yield from opened.events()


def store_of(root: Path) -> Path:
    return root / RSSTConfig.from_knobs(CONFIG).fingerprint


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(round, epoch) of every epoch that is really trained from here on."""
    epochs: list[tuple[int, int]] = []
    real = epoch.train_epoch

    def noted(training: Training, number: int) -> Any:
        epochs.append((training.round, number + 1))
        return real(training, number)

    monkeypatch.setattr(experiment, "train_epoch", noted)
    return epochs


def test_the_events_of_a_trial_come_in_order_and_their_numbers_have_names(finished: Path, tiny: ImageData) -> None:
    events = list(opened_events(finished, tiny))
    assert [e.kind for e in events] == WHOLE
    keys = [(e.kind, e.metrics["round"], e.metrics["epoch"]) for e in events]
    assert len(set(keys)) == len(keys)
    for event in events:
        json.dumps(event.metrics, allow_nan=False)
        assert event.metrics.keys() <= METRICS.keys()
    reported = {kind: {name for e in events if e.kind == kind for name in e.metrics} for kind in ("epoch", "round")}
    reported |= {kind: set(e.metrics) for e in events for kind in ("start", "final") if e.kind == kind}
    assert all(set(kept_per(kind)) - {"objective"} <= names for kind, names in reported.items()), (
        "what is kept is reported"
    )


def test_a_finished_trial_only_replays(
    finished: Path, tiny: ImageData, trained: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is trained, evaluated or scored, and the events equal the first ones, times included."""
    first = json.loads((store_of(finished) / "report.json").read_text())

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a finished trial computes nothing")

    monkeypatch.setattr(trial, "run", forbidden)
    monkeypatch.setattr(torch.nn.Module, "__call__", forbidden)
    events = list(opened_events(finished, tiny))
    assert [e.kind for e in events] == WHOLE and trained == []
    assert [e.metrics for e in events if e.kind == "round"] == first["rounds"]
    assert json.loads((store_of(finished) / "report.json").read_text()) == first


def test_results_lost_after_the_last_save_are_written_again(finished: Path, tiny: ImageData, tmp_path: Path) -> None:
    root = Path(shutil.copytree(finished, tmp_path / "copy"))
    names = ("report.json", "model.safetensors", "architecture.json")
    before = {name: (store_of(root) / name).read_bytes() for name in names}
    for name in names:
        (store_of(root) / name).unlink()
    list(opened_events(root, tiny))
    assert {name: (store_of(root) / name).read_bytes() for name in names} == before


def test_who_stops_at_the_final_event_finds_the_results(finished: Path, tiny: ImageData, tmp_path: Path) -> None:
    """As the Ray trainable does: it asks for nothing after the final event."""
    shutil.copytree(finished, tmp_path / "root")
    store = store_of(tmp_path / "root")
    (store / "report.json").unlink()
    (store / "model.safetensors").unlink()
    events = opened_events(tmp_path / "root", tiny)
    assert next(e for e in events if e.kind == "final").metrics["test_top1"] >= 0
    assert (store / "report.json").exists() and (store / "model.safetensors").exists()


def test_a_finished_round_is_never_trained_again(
    tiny: ImageData, tmp_path: Path, trained: list[tuple[int, int]]
) -> None:
    """Saved only at the end of rounds (the interval is never over); stopped after every event in turn."""
    for number in range(1, len(WHOLE) + 1):
        list(islice(opened_events(tmp_path, tiny, checkpoint_every_s=1e9), number))
    assert sorted(set(trained)) == [(r, e) for r in range(3) for e in (1, 2)]
    assert [r for r, _ in trained] == sorted(r for r, _ in trained)  # no epoch of a round after one of a later round
    events = list(opened_events(tmp_path, tiny))
    count = len(trained)
    assert [e.kind for e in events] == WHOLE and len(trained) == count


def test_a_damaged_checkpoint_costs_the_epochs_since_the_one_before_and_nothing_else(
    finished: Path, tiny: ImageData, tmp_path: Path, trained: list[tuple[int, int]]
) -> None:
    root, said = tmp_path, list[str]()
    list(islice(opened_events(root, tiny), 6))  # start, two epochs, round 0, two epochs of round 1
    newest = max(p for p in store_of(root).iterdir() if p.name.startswith("r0"))
    assert newest.name == "r001-e002-n00006"
    content = bytearray((newest / "tensors.safetensors").read_bytes())
    content[-1] ^= 1
    (newest / "tensors.safetensors").write_bytes(content)
    trained.clear()
    events = list(opened_events(root, tiny, say=said.append))
    assert len(said) == 1 and "r001-e002-n00006" in said[0] and "damaged" in said[0]
    assert trained == [(1, 2), (2, 1), (2, 2)]
    assert toy.told(events) == toy.told(opened_events(finished, tiny))


@pytest.mark.parametrize("events", [1, 3, 4, len(WHOLE)], ids=["a start", "an epoch", "a round", "the end"])
def test_other_images_are_refused_before_a_number_is_handed_out(tiny: ImageData, tmp_path: Path, events: int) -> None:
    list(islice(opened_events(tmp_path, tiny), events))
    other = dataclasses.replace(tiny, about=dataclasses.replace(tiny.about, digest="other"))
    with pytest.raises(ConfigError, match=rf"^data = digits: .* began with \(digest {tiny.digest}, not other\)"):
        open_trial(RSSTConfig.from_knobs(CONFIG), tmp_path, say=pytest.fail, data=other)
    list(opened_events(tmp_path, tiny))  # the old ones are taken again, and the store is free


def test_a_finished_trial_whose_images_are_gone_says_where_its_numbers_are(
    finished: Path, tiny: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_: RSSTConfig) -> ImageData:
        raise ConfigError("data", "x", "an existing folder", "give data=PATH")

    monkeypatch.setattr(trial, "load", gone)
    with pytest.raises(ConfigError, match=r"give data=PATH; the trial is finished, its numbers are in its report.json"):
        list(opened_events(finished, tiny, data=None))
    list(opened_events(finished, tiny))


def test_the_store_says_by_which_method_it_was_trained(finished: Path, tiny: ImageData, tmp_path: Path) -> None:
    assert trial.method_of(store_of(finished)) == METHOD_VERSION
    assert json.loads((store_of(finished) / "report.json").read_text())["method"] == METHOD_VERSION
    shutil.copytree(finished, tmp_path / "old")
    for state in store_of(tmp_path / "old").glob("r*/state.json"):  # the first version did not write it down
        state.write_text(json.dumps({k: v for k, v in json.loads(state.read_text()).items() if k != "method"}))
    assert trial.method_of(store_of(tmp_path / "old")) == 1
    assert trial.method_of(tmp_path) is None


def test_another_environment_is_said(tiny: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    list(islice(opened_events(tmp_path, tiny), 3))
    said: list[str] = []
    monkeypatch.setattr(trial, "environment", lambda *_: {"torch_version": "9.9", "num_threads": 1})
    events = opened_events(tmp_path, tiny, say=said.append)
    list(islice(events, 4))
    events.close()
    assert len(said) == 1 and "torch_version" in said[0] and "9.9" in said[0]


def test_a_trial_is_open_once_and_closing_frees_it(tiny: ImageData, tmp_path: Path) -> None:
    config = toy.config()
    first = open_trial(config, tmp_path, say=pytest.fail, data=tiny)
    with pytest.raises(StoreBusy):
        open_trial(config, tmp_path, say=pytest.fail, data=tiny)
    first.close()
    open_trial(config, tmp_path, say=pytest.fail, data=tiny).close()
    open_trial(toy.config(seed=1), tmp_path, say=pytest.fail, data=tiny).close()


def test_a_divergent_trial_diverges_again_and_keeps_what_it_had(tiny: ImageData, tmp_path: Path) -> None:
    config = toy.config(lr=1e30)
    messages = []
    for _ in range(2):
        with open_trial(config, tmp_path, say=pytest.fail, data=tiny) as opened:
            with pytest.raises(TrialDiverged) as raised:
                list(opened.events())
            messages.append(str(raised.value))
    assert messages[0] == messages[1]


def test_the_exported_model_gives_the_trials_logits(finished: Path, tiny: ImageData) -> None:
    """As a plain timm model, with the test accuracy reported and a file that shrank with the model."""
    report = json.loads((store_of(finished) / "report.json").read_text())
    model = load_pruned(store_of(finished))
    assert type(model).__module__ == "timm.models.vision_transformer" and not model.training
    assert sum(p.numel() for p in model.parameters()) == report["rounds"][-1]["params"] < report["rounds"][0]["params"]
    images = on_device(tiny, torch.device("cpu"))
    test = images.batch(images.test)
    *_, final = opened_events(finished, tiny)
    logits = model(test.images)
    assert float((logits.argmax(1) == test.targets).double().mean()) == report["test_top1"]
    live = live_model(tiny)
    with torch.no_grad():
        assert torch.allclose(live.eval()(test.images), logits, rtol=0, atol=1e-5)
    size = (store_of(finished) / "model.safetensors").stat().st_size
    assert size == pytest.approx(4 * report["rounds"][-1]["params"], abs=8000)
    assert final.metrics["test_top1"] == report["test_top1"]


def live_model(tiny: ImageData) -> torch.nn.Module:
    """The model of an uninterrupted run at its end, taken out of the running trial."""
    found: list[Running] = []
    real = Running.fresh

    def caught(*arguments: Any) -> Running:
        found.append(real(*arguments))
        return found[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Running, "fresh", caught)
        list(experiment.run(toy.config(), tiny))
    return found[0].model


def test_a_snapshot_is_a_value(tiny: ImageData) -> None:
    """What a later step does to the model does not reach a state that was taken before."""
    events = experiment.run(toy.config(), tiny)
    state = next(e.snapshot() for e in events if e.kind == "epoch")
    copy = {name: tensor.clone() for name, tensor in state.tensors.items()}
    meta = json.dumps(state.meta)
    list(events)
    assert toy.same_tensors(copy, state.tensors) and json.dumps(state.meta) == meta


@pytest.mark.parametrize(("struct", "evaluations"), [("rsst", 4 + 1 + 1), ("refill", 4 + 1 + 1)])
def test_the_same_weights_are_validated_once(
    tiny: ImageData, monkeypatch: pytest.MonkeyPatch, struct: str, evaluations: int
) -> None:
    """2 rounds of 2 epochs: after each epoch, after the removal; and the test."""
    calls = []
    for module in (running, reports):
        monkeypatch.setattr(module, "evaluate", lambda *given: calls.append(1) or evaluate(*given))
    list(experiment.run(toy.config(struct=struct, pruning_times=2, epochs=2), tiny))
    assert len(calls) == evaluations
