"""What a resume accepts: resume=auto, must and never; more trials by `extend`; other data refused."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.tune_rsst.fake_sweep import FakeSweep, events, settings_of, tiny
from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.data.load import load as load_images
from tune_rsst.conduct import _assemble
from tune_rsst.driver import assemble
from tune_rsst.intake import OtherData
from tune_rsst.interrupt import Interruption
from tune_rsst.ledger.file import Ledger
from tune_rsst.ledger.lines import LedgerError
from tune_rsst.planning import begin, plan, resume
from tune_rsst.planning.plan import Finished
from tune_rsst.results.as_json import as_json
from tune_rsst.results.commands import next_commands
from tune_rsst.search.spaces import Space, find
from tune_rsst.settings import written
from tune_rsst.storage import home
from tune_rsst.storage.folder import Sweep, SweepFolder

DIGITS = find("digits")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepFolder:
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    found = SweepFolder(home.home() / "fake")
    found.path.mkdir(parents=True)
    return found


def planned(*words: str, name: str | None = None, flag: bool = False) -> plan.Plan:
    return begin.make_plan(written.given(None, words), name, flag)


def begun(folder: SweepFolder, *words: str, reports: int | None = None, space_digest: str | None = None) -> FakeSweep:
    """A sweep over the digits space, trained by formulas: to its end, or killed after some reports."""
    made = planned("trials=4", *words, name=folder.name)
    made.copy_files()
    about = {**made.record(), "space_digest": space_digest or made.space_digest}
    sweep = FakeSweep(folder.path, made.space, made.settings, **about)
    sweep.run(reports=reports)
    if sweep.driver.complete:
        sweep.driver.record("sweep_ended")
    sweep.ledger.close()
    return sweep


def test_must_goes_on_or_refuses_auto_goes_on_or_begins(folder: SweepFolder) -> None:
    for words in (["resume=must"], ["resume=must", "name=other"]):
        with pytest.raises(ConfigError, match=r"^(resume|name) = (must|other): valid is "):
            planned(*words)
    assert not planned("resume=auto").resumes and not planned("resume=auto", "name=other").resumes
    begun(folder, reports=3)
    for words in (["resume=must"], ["resume=auto"], ["resume=auto", "name=fake"]):
        assert planned(*words).folder == folder and planned(*words).resumes
    assert not planned("resume=never").resumes and not planned().resumes
    with pytest.raises(ConfigError, match="name = fake"):
        planned("resume=never", name="fake")


SPOILT: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a link to itself": lambda path: path.symlink_to(path),
    "an endless device": lambda path: path.symlink_to("/dev/zero"),
    "empty": lambda path: path.touch(),
    "zeros": lambda path: path.write_bytes(b"\0" * 500),
    "another content": lambda path: path.write_bytes(b"hello\n" * 500),
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_where_a_ledger_cannot_be_read_no_other_sweep_begins(folder: SweepFolder, spoilt: str) -> None:
    """Found by `make chaos`: a folder in its place, and resume=auto planned a new sweep over the old one."""
    begun(folder, reports=3)
    (folder.trials / "0123").mkdir(parents=True, exist_ok=True)
    folder.ledger.unlink()
    SPOILT[spoilt](folder.ledger)
    for how in ("auto", "never"):
        with pytest.raises(LedgerError, match=r"put it right: tune-rsst repair fake$"):
            planned(f"resume={how}", name="fake")


def test_the_bare_flag_is_must_for_a_name_and_auto_without_one(folder: SweepFolder) -> None:
    assert not planned(flag=True).resumes
    with pytest.raises(ConfigError, match="name = other: valid is a sweep in "):
        planned(flag=True, name="other")
    begun(folder, reports=3)
    assert planned(flag=True).resumes and planned(flag=True, name="fake").resumes
    assert planned("resume=must", flag=True).resumes
    for words in (["resume=never"], ["resume=perhaps"]):
        with pytest.raises(ConfigError, match=r"^resume = "):
            planned(*words, flag=True)


def test_how_it_was_resumed_is_no_part_of_the_sweeps_settings(folder: SweepFolder) -> None:
    assert "resume" not in planned("resume=auto").settings.flat()


def extended(folder: SweepFolder, more: int, monkeypatch: pytest.MonkeyPatch) -> FakeSweep:
    """`tune-rsst extend`, apart from Ray and MLflow."""

    class NoUploader:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def start(self, after_s: float = 0.0) -> None: ...
        def notify(self, hurry: bool = False) -> None: ...
        def run_ids(self) -> dict[str, str]:
            return {}

    monkeypatch.setattr("tune_rsst.tracking.uploader.Uploader", NoUploader)
    made = resume.extension(folder.name, more)
    ledger = Ledger(folder.ledger, clock=lambda: 2.0)
    sweep = FakeSweep.of(_assemble(made, ledger, None, Interruption())[0])
    sweep.ledger = ledger
    return sweep


@pytest.mark.parametrize("reports", [None, 9], ids=["finished", "interrupted"])
def test_extend_goes_on_by_so_many_trials_and_is_in_the_ledger(
    folder: SweepFolder, reports: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = begun(folder, reports=reports)
    known = {name: t.fingerprint for name, t in before.view.trials.items()}
    sweep = extended(folder, 3, monkeypatch)
    assert not sweep.view.ended and sweep.driver.remaining > 3 - 1
    sweep.run(reports=4)
    sweep.ledger.close()
    again = planned(flag=True, name="fake")  # killed in the middle: a plain resume knows of the extension
    assert again.settings.trials == 7 and again.resumes
    sweep = FakeSweep(folder.path, again.space, again.settings)
    sweep.run()
    sweep.driver.record("sweep_ended")
    view = Sweep.of(folder).view
    assert view.ended and len(view.trials) == 7 and not view.unfinished
    assert {name: view.trials[name].fingerprint for name in known} == known
    assert view.settings["trials"] == 7


def test_extend_of_a_sweep_that_is_not_there_is_one_line(folder: SweepFolder) -> None:
    with pytest.raises(ConfigError, match="sweep = nosuch: valid is a sweep in"):
        resume.extension("nosuch", 3)


def start_event(digest: str) -> dict[str, object]:
    return {"kind": "start", "round": 0, "epoch": 0, "epochs_trained": 0, "data_digest": digest}


def test_other_images_in_the_middle_break_the_sweep_off_before_they_are_compared(tmp_path: Path) -> None:
    sweep = FakeSweep(tmp_path, Space("tiny", tiny), settings_of(Space("tiny", tiny)))
    first, second = sweep.driver.next_trial(), sweep.driver.next_trial()
    assert first is not None and second is not None
    sweep.driver.take({"trial_key": first.trial, "events": [start_event("a")]})
    with pytest.raises(OtherData, match=r"t0001 found other images \(digest b\)"):
        sweep.driver.take({"trial_key": second.trial, "events": [start_event("b")]})
    assert second.state == "running" and not second.seen
    sweep.ledger.close()
    driver = assemble(Ledger(tmp_path / "ledger.jsonl"), sweep.settings, Space("tiny", tiny))
    with pytest.raises(OtherData):  # the ledger remembers
        driver.take({"trial_key": second.trial, "events": [start_event("b")]})


def images(folder: Path, shade: int) -> Path:
    from PIL import Image

    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True)
        for number in range(12):
            pixels = np.random.default_rng([shade, number, label == "cat"]).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    return folder


def test_a_resume_takes_data_from_another_folder_but_no_other_data(
    folder: SweepFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNE_RSST_CACHE", str(tmp_path / "cache"))
    mine, copy, other = (images(tmp_path / n, s) for n, s in (("mine", 10), ("copy", 10), ("other", 90)))
    words = ["dataset=folder", f"data={mine}", "img_size=8", "patch_size=4", "arch=vit_digits"]
    made = planned("trials=2", *words, name="fake")
    digest = load_images(
        RSSTConfig.from_knobs({"dataset": "folder", "data": str(mine), "img_size": 8, "patch_size": 4})
    ).digest
    sweep = FakeSweep(folder.path, made.space, made.settings, space_digest=made.space_digest)
    trial = sweep.driver.next_trial()
    assert trial is not None
    sweep.driver.take({"trial_key": trial.trial, "events": [start_event(digest)]})
    sweep.ledger.close()
    assert planned(flag=True).resumes
    assert planned(f"data={copy}", flag=True).settings.fixed["data"] == str(copy)
    with pytest.raises(ConfigError, match=rf"^data = {other}: valid is the images that the sweep began with"):
        planned(f"data={other}", flag=True)


def test_a_finished_sweep_is_not_shown_as_the_result_of_other_images(folder: SweepFolder, tmp_path: Path) -> None:
    mine, other = images(tmp_path / "mine", 10), images(tmp_path / "other", 90)
    words = ["dataset=folder", "img_size=8", "patch_size=4", "arch=vit_digits"]
    made = planned("trials=2", *words, f"data={mine}", name="fake")
    knobs = {"dataset": "folder", "data": str(mine), "img_size": 8, "patch_size": 4, "arch": "vit_digits"}
    digest = load_images(RSSTConfig.from_knobs(knobs)).digest
    sweep = FakeSweep(folder.path, made.space, made.settings, space_digest=made.space_digest)
    for trial in (sweep.driver.next_trial(), sweep.driver.next_trial()):
        assert trial is not None
        first = {**start_event(digest), "init_effective": "scratch"}
        reports = [first, *events(RSSTConfig.from_knobs(trial.knobs))]
        sweep.driver.take({"trial_key": trial.trial, "events": reports})
    sweep.driver.record("sweep_ended")
    sweep.ledger.close()
    assert isinstance(planned(flag=True, name="fake"), Finished)
    assert isinstance(planned(f"data={mine}", flag=True, name="fake"), Finished)
    for again in ([f"data={other}"], [*words, f"data={other}"]):
        with pytest.raises(ConfigError, match=rf"^data = {other}: valid is the images that the sweep began with"):
            planned(*again, flag=True, name="fake")
    images(mine / "more", 200)  # the same folder with other content
    (mine / "more" / "cat").rename(mine / "bird")
    with pytest.raises(ConfigError, match=rf"^data = {mine}: valid is"):
        planned(f"data={mine}", flag=True, name="fake")


@pytest.mark.parametrize("recorded", [{"method": 1}, {}], ids=["recorded", "as the first version wrote it"])
@pytest.mark.parametrize("reports", [None, 9], ids=["finished", "interrupted"])
def test_a_sweep_of_another_method_is_read_and_not_trained(
    folder: SweepFolder, reports: int | None, recorded: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tune_rsst.driver.sweep.METHOD_VERSION", 1)
    begun(folder, reports=reports)
    if not recorded:
        lines = [json.loads(line) for line in folder.ledger.read_text().splitlines()]
        folder.ledger.unlink()
        ledger = Ledger(folder.ledger)
        for line in lines:
            fields = {k: v for k, v in line.items() if k not in ("time", "crc", "method")}
            ledger.append(fields.pop("event"), **fields)
        ledger.close()
    for again in (
        lambda: resume.extension("fake", 3),
        lambda: planned("resume=must", "lr=0.1", name="fake"),
        lambda: planned(flag=True, name="fake") if reports else resume.extension("fake", 1),
    ):
        with pytest.raises(ConfigError) as refused:
            again()
        line = str(refused.value)
        assert line.startswith("name = fake: valid is a sweep of method 2, not 1: their trials give other numbers; its")
        assert "tune-rsst show, report, export fake" in line and "\n" not in line
    if reports is None:
        assert isinstance(planned(flag=True, name="fake"), Finished)
    sweep = Sweep.of(folder)
    assert len(as_json(sweep, None)["trials"]) == len(sweep.view.trials) > 0


def test_settings_that_differ_are_refused_on_a_finished_sweep_too(folder: SweepFolder) -> None:
    begun(folder)
    assert isinstance(planned("resume=must", name="fake"), Finished)
    assert isinstance(planned("resume=must", "max_concurrent_trials=1", name="fake"), Finished)
    with pytest.raises(ConfigError, match=r"trials \(4 → 9\); for more trials: tune-rsst extend fake N"):
        planned("resume=must", "trials=9", name="fake")
    with pytest.raises(ConfigError, match=r"lr \("):
        planned("resume=must", "lr=0.1", name="fake")
    assert isinstance(planned("resume=must", "trials=4", name="fake"), Finished)


def test_a_resume_notices_a_changed_space_and_takes_an_unchanged_one(
    folder: SweepFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # else a text of the same length and second is not read again
    mine = tmp_path / "mine.py"
    text = """def space(trial):
    optimizer = trial.suggest_categorical("optimizer", ["adamw", "sgd"])
    knobs = {"dataset": "digits", "epochs": 2, "warmup": 0, "rate": 0.4, "optimizer": optimizer}
    if optimizer == "sgd":
        knobs["momentum"] = trial.suggest_float("momentum", 0.5, 0.9)
    return {**knobs, "lr": trial.suggest_float("lr", 1e-4, 1e-3, log=True)}
"""
    mine.write_text(text)
    monkeypatch.setattr(plan.Plan, "record", lambda self: {"space_digest": self.space_digest})  # of an earlier version
    sweep = begun(folder, f"space={mine}:space", "seed=2", reports=9)
    assert any("momentum" in trial.params for trial in sweep.view.trials.values())
    with pytest.raises(ConfigError, match=r"an earlier version began it, and recorded none; look at .*add --trust to"):
        planned(flag=True)
    mine.write_text(f"# the same\n{text}")
    assert planned("trust=true", flag=True).resumes
    for changed in (
        text.replace("1e-3", "2e-3"),
        text.replace("0.9)", "0.8)"),
        text.replace('["adamw", ', "["),
        text.replace('"momentum", 0.5', '"other", 0.5'),
    ):
        mine.write_text(changed)
        with pytest.raises(ConfigError, match=r"it differs in space \(.*gives other trials than it did"):
            planned("trust=true", flag=True)


def test_failed_trials_are_tried_again_in_the_same_place(folder: SweepFolder) -> None:
    first = begun(folder, "stopping=none", reports=7)
    ledger = Ledger(folder.ledger)
    driver = assemble(ledger, first.settings, find("digits"))
    lost = driver.view.unfinished[0]
    seen = set(lost.seen)
    driver.end(lost, "failed", "the worker was lost")
    FakeSweep.of(driver).run()
    driver.record("sweep_ended")
    ledger.close()
    with pytest.raises(ConfigError, match="retry = t0099: valid is a failed trial of fake: " + lost.trial):
        resume.second_try("fake", ["t0099"])
    again = resume.second_try("fake", [])
    assert again.again == (lost.trial,) and again.resumes
    reopened = Ledger(folder.ledger)
    driver = assemble(reopened, again.settings, again.space)
    assert driver.complete and driver.next_trial() is None
    driver.reopen(again.again)
    given_out = driver.next_trial()
    assert given_out is not None and (given_out.trial, given_out.seen) == (lost.trial, seen) and driver.remaining == 1
    assert given_out.reason is None and not driver.complete
    reopened.close()
    assert Sweep.of(folder).state == "interrupted"
    with pytest.raises(ConfigError, match="retry = fake: valid is a sweep with failed trials"):
        resume.second_try("fake", [])


def test_what_would_fail_again_is_neither_advised_nor_tried_unless_it_is_named(folder: SweepFolder) -> None:
    first = begun(folder, "stopping=none", reports=7)
    ledger = Ledger(folder.ledger)
    driver = assemble(ledger, first.settings, find("digits"))
    lost, *others = driver.view.unfinished
    driver.end(lost, "failed", "it would fail again: round 0, epoch 1, step 3: the loss is nan")
    for other in others:
        driver.end(other, "stopped")
    FakeSweep.of(driver).run()
    driver.record("sweep_ended")
    ledger.close()
    assert not any(" retry " in command for _, command in next_commands(Sweep.of(folder)))
    with pytest.raises(ConfigError, match=f"retry = fake: valid is .*; {lost.trial} would fail in the same way"):
        resume.second_try("fake", [])
    assert resume.second_try("fake", [lost.trial]).again == (lost.trial,)
