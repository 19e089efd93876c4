"""`tune-rsst repair`: a damaged ledger says again what it said, or says what is lost and a resume makes it good."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.chaos import toy_sweep
from tests.s3_server import BUCKET, S3Server
from tests.trainables import toy
from tests.tune_rsst.ledger.test_lines import old_form
from trainables.rsst.config import ConfigError
from trainables.storage.bucket import Bucket
from tune_rsst.cli import app
from tune_rsst.ledger.file import read
from tune_rsst.ledger.lines import LedgerError
from tune_rsst.ledger.lock import SweepBusy, driving
from tune_rsst.planning.repair import find, repair
from tune_rsst.planning.resume import extension, second_try
from tune_rsst.storage import ledger_objects
from tune_rsst.storage.folder import Sweep, SweepFolder

pytestmark = pytest.mark.medium
Said = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def toys() -> Iterator[None]:
    with toy.installed():
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, toys: None) -> tuple[Path, Path]:
    """Homes with a sweep that has ended: its study in a file, and in memory."""
    homes = []
    for words in ((), ("optuna_storage=memory", "seed=3")):
        home = tmp_path_factory.mktemp("home") / "home"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TUNE_RSST_HOME", str(home))
            toy_sweep.make(home, "toys", *words)
        homes.append(home)
    return homes[0], homes[1]


def copy(home: Path, to: Path, monkeypatch: pytest.MonkeyPatch) -> SweepFolder:
    """The sweep in a home of its own; addresses follow."""
    shutil.copytree(home, to / "home")
    monkeypatch.setenv("TUNE_RSST_HOME", str(to / "home"))
    return SweepFolder(to / "home" / "toys")


@pytest.fixture
def folder(made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepFolder:
    return copy(made[0], tmp_path, monkeypatch)


def said(folder: SweepFolder) -> Said:
    return toy_sweep.said(Sweep.of(folder).view)


def lines_of(folder: SweepFolder) -> list[bytes]:
    return folder.ledger.read_bytes().splitlines(keepends=True)


def asides(folder: SweepFolder) -> list[Path]:
    return sorted(folder.path.glob("ledger.jsonl.*.aside"))


def test_where_nothing_is_wrong_nothing_is_done(folder: SweepFolder) -> None:
    before = folder.ledger.read_bytes()
    found = repair(folder, dry_run=False)
    assert found.content is None and "nothing to repair" in found.said()[0]
    assert folder.ledger.read_bytes() == before and asides(folder) == []


def test_whichever_line_is_gone_the_sweep_says_the_same_again(folder: SweepFolder) -> None:
    right, lines = said(folder), lines_of(folder)
    for at, line in enumerate(lines[:-1]):
        folder.ledger.write_bytes(b"".join(lines[:at] + lines[at + 1 :]))
        with pytest.raises(LedgerError, match="tune-rsst repair toys"):
            Sweep.of(folder)
        found = repair(folder, dry_run=False)
        sweep = Sweep.of(folder)
        assert toy_sweep.said(sweep.view) == right and sweep.state == "finished", line
        assert len(found.rebuilt) == 1 and found.lost == [] and read(folder.ledger)[-1]["event"] == "repaired"
    assert len(asides(folder)) >= 1


@pytest.mark.parametrize("seed", range(12))
def test_after_many_lines_are_gone_a_resume_ends_with_the_same(folder: SweepFolder, seed: int) -> None:
    draw, right, lines = random.Random(seed), said(folder), lines_of(folder)
    gone = set(draw.sample(range(1, len(lines)), draw.randint(2, 25)))
    folder.ledger.write_bytes(b"".join(line for at, line in enumerate(lines) if at not in gone))
    repair(folder, dry_run=False)
    done = toy_sweep.resumed(folder)
    assert done.state == "finished" and toy_sweep.said(done.view) == right


@pytest.mark.parametrize("seed", [1, 2])
def test_a_repaired_sweep_is_extended_retried_and_exported_as_any_other(
    folder: SweepFolder, seed: int, tmp_path: Path
) -> None:
    """The last report of one trial is taken out, and it is said to have failed; then lines are lost."""
    right, events, draw = said(folder), list(read(folder.ledger)), random.Random(seed)
    failed = draw.choice(sorted(right))
    last = [e for e in events if e["event"] == "reported" and e["trial"] == failed][-1]
    (end,) = [e for e in events if e["event"] == "ended" and e["trial"] == failed]
    end |= {"state": "failed", "reason": "the worker was lost"}
    toy_sweep.rewrite(folder.ledger, [event for event in events if event is not last])
    lines = lines_of(folder)
    gone = draw.sample([at for at, line in enumerate(lines) if b'"reported"' in line], 3)
    folder.ledger.write_bytes(b"".join(line for at, line in enumerate(lines) if at not in gone))
    repair(folder, dry_run=False)

    assert toy_sweep.went_on(folder, second_try("toys", [failed])).state == "finished" and said(folder) == right
    sweep = toy_sweep.went_on(folder, extension("toys", 2))
    assert sweep.state == "finished" and len(sweep.view.trials) == 6 and sweep.view.count("failed") == 0
    assert {name: one for name, one in said(folder).items() if name in right} == right
    done = CliRunner().invoke(app.app, ["export", "toys", "--to", str(tmp_path / "out"), "--formats", "safetensors"])
    assert done.exit_code == 0 and list((tmp_path / "out").rglob("*.safetensors")), done.output


@pytest.mark.parametrize("cursor", ["", "a folder", "a link that leads round"])
def test_order_doubles_and_bits_come_back_to_the_byte_and_the_old_file_is_kept(
    folder: SweepFolder, cursor: str
) -> None:
    lines, draw = lines_of(folder), random.Random(5)
    folder.cursor.unlink(missing_ok=True)
    if cursor == "a folder":
        folder.cursor.mkdir()
    elif cursor:
        folder.cursor.symlink_to(folder.cursor)
    mixed = [*lines, *lines[3:9]]
    draw.shuffle(mixed)
    spoilt = bytearray(b"".join(mixed))
    spoilt[len(mixed[0]) // 2] ^= 4
    folder.ledger.write_bytes(spoilt)
    found = repair(folder, dry_run=False)
    assert folder.ledger.read_bytes() == b"".join(lines) and found.rebuilt == found.lost == []
    assert [path.read_bytes() for path in asides(folder)] == [bytes(spoilt)] and found.aside in asides(folder)
    assert {"doubled", "order", "flipped"} <= {word for line in found.done for word in line.split()}


def test_a_dry_run_says_the_same_and_writes_nothing(folder: SweepFolder) -> None:
    lines = lines_of(folder)
    folder.ledger.write_bytes(b"".join(lines[:4] + lines[5:]))
    with driving(folder.path):  # leaves its lock file
        files = sorted(folder.path.rglob("*"))
    tried = repair(folder, dry_run=True)
    assert folder.ledger.read_bytes() == b"".join(lines[:4] + lines[5:]) and sorted(folder.path.rglob("*")) == files
    assert repair(folder, dry_run=False).rebuilt == tried.rebuilt != []


@pytest.mark.parametrize("how", ["emptied", "gone", "a folder", "a pipe", "other JSON", "zeros"])
def test_a_ledger_of_which_nothing_is_left_is_rebuilt_from_what_else_there_is(folder: SweepFolder, how: str) -> None:
    right, size = said(folder), folder.ledger.stat().st_size
    folder.ledger.unlink()
    if how == "a folder":
        folder.ledger.mkdir()
    elif how == "a pipe":
        os.mkfifo(folder.ledger)
    elif how != "gone":
        folder.ledger.write_bytes({"emptied": b"", "other JSON": b"[]\n", "zeros": bytes(size)}[how])
    found = repair(find("toys"), dry_run=False)
    assert any("the first line, from settings.yaml" in line for line in found.rebuilt)
    done = toy_sweep.resumed(folder)
    assert done.state == "finished" and {name: one[:6] for name, one in toy_sweep.said(done.view).items()} == {
        name: one[:6] for name, one in right.items()
    }


def test_what_can_not_be_rebuilt_is_said_and_trained_again(folder: SweepFolder) -> None:
    """A report of a finished trial is lost together with its checkpoints: a resume trains the trial again."""
    right, lines = said(folder), lines_of(folder)
    events = [json.loads(line) for line in lines]
    trial = next(event["trial"] for event in events if event["event"] == "ended" and event["state"] == "finished")
    at = next(at for at, e in enumerate(events) if e["event"] == "reported" and e["trial"] == trial and e["seq"] == 3)
    shutil.rmtree(folder.store(right[trial][5]))
    folder.ledger.write_bytes(b"".join(lines[:at] + lines[at + 1 :]))
    found = repair(folder, dry_run=False)
    assert any(line.startswith(f"{trial}: 1 of its reports; a resume trains it again") for line in found.lost)
    assert Sweep.of(folder).state == "interrupted"
    done = toy_sweep.resumed(folder)
    assert done.state == "finished" and toy_sweep.said(done.view).keys() == right.keys()
    again = toy_sweep.said(done.view)[trial]
    assert again[:8] == right[trial][:8] and sorted(again[-1]) == sorted(right[trial][-1])


def test_a_lost_suggestion_of_a_study_in_memory_leaves_its_trial_out_and_another_takes_its_place(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy(made[1], tmp_path, monkeypatch)
    lines = lines_of(folder)
    folder.ledger.write_bytes(b"".join(line for line in lines if not (b'"suggested"' in line and b"t0001" in line)))
    found = repair(folder, dry_run=False)
    assert any(line.startswith("t0001: its line in the ledger was lost") for line in found.lost)
    view = Sweep.of(folder).view
    assert list(view.trials) == ["t0000", "t0002", "t0003"] and [one["number"] for one in view.repeats] == [1]
    done = toy_sweep.resumed(folder)
    assert done.state == "finished" and list(done.view.trials) == ["t0000", "t0002", "t0003", "t0004"]


@pytest.mark.parametrize("at", [1, 5, 10])
def test_a_ledger_of_an_earlier_version_is_repaired_too(folder: SweepFolder, at: int) -> None:
    right = said(folder)
    old = [old_form(event.pop("event"), **event) for event in read(folder.ledger)]
    folder.ledger.write_bytes(b"".join(old))
    assert said(folder) == right and repair(folder, dry_run=False).content is None
    folder.ledger.write_bytes(b"".join(old[:at] + old[at + 1 :]))
    repair(folder, dry_run=False)
    done = toy_sweep.resumed(folder)
    assert done.state == "finished" and toy_sweep.said(done.view) == right


def test_who_repairs_holds_the_sweep(folder: SweepFolder) -> None:
    with driving(folder.path), pytest.raises(SweepBusy, match="another driver"):
        repair(folder, dry_run=True)


def test_a_first_line_that_nothing_tells_of_is_one_line_and_nothing_is_changed(folder: SweepFolder) -> None:
    lines = lines_of(folder)
    folder.ledger.write_bytes(b"".join(lines[1:]))
    folder.settings.unlink()
    with pytest.raises(LedgerError, match="its first line is lost, and it can't be rebuilt"):
        repair(folder, dry_run=False)
    assert folder.ledger.read_bytes() == b"".join(lines[1:]) and asides(folder) == []


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["tune-rsst", *words])
    with pytest.raises(SystemExit) as end:
        app.main()
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


def test_the_advice_of_the_error_message_works(
    folder: SweepFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = lines_of(folder)
    folder.ledger.write_bytes(b"".join(lines[:1] + lines[2:]))
    code, _, err = run(capsys, monkeypatch, "show", "toys")
    assert code == 1 and err.count("\n") == 1 and "line 2 is missing" in err
    advice = err.strip().rpartition("put it right: tune-rsst ")[2].split()
    assert advice == ["repair", "toys"]
    code, out, err = run(capsys, monkeypatch, *advice, "--dry-run")
    assert code == 0 and "rebuilt: t0000: how it was suggested" in out and out.endswith("nothing was written\n")
    code, out, err = run(capsys, monkeypatch, *advice)
    assert code == 0 and "the old ledger is" in out and err == ""
    for words in (["show", "toys"], ["show", "toys", "--json"], ["report", "toys"], ["list"]):
        assert run(capsys, monkeypatch, *words)[0] == 0, words
    with pytest.raises(ConfigError, match="a sweep in"):
        find("nothing")


@pytest.mark.parametrize("where", ["here", "there", "both"])
def test_a_sweep_in_a_bucket_is_repaired_here_and_there(
    s3: S3Server, made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    s3.empty()
    folder = copy(made[0], tmp_path, monkeypatch)
    events = read(folder.ledger)
    events[0]["settings"]["storage"] = f"s3://{BUCKET}/group"
    toy_sweep.rewrite(folder.ledger, events)
    bucket, lines = Bucket(f"s3://{BUCKET}/group/toys"), lines_of(folder)
    right, spoilt = said(folder), {"here": ([2], []), "there": ([], [3]), "both": ([2, 5], [3, 4])}[where]
    for key, first, last in (("ledger/000000000.jsonl", 0, 7), ("ledger/000000007.jsonl", 7, len(lines))):
        bucket.write(key, b"".join(line for at, line in enumerate(lines) if first <= at < last and at not in spoilt[1]))
    folder.ledger.write_bytes(b"".join(line for at, line in enumerate(lines) if at not in spoilt[0]))
    found = repair(folder, dry_run=False)
    assert found.rebuilt == found.lost == [] and said(folder) == right
    assert ledger_objects.read_objects(bucket) == folder.ledger.read_bytes() == b"".join(lines)


def test_the_ledger_of_another_sweep_is_refused_and_repaired(folder: SweepFolder) -> None:
    right = said(folder)
    lines = lines_of(folder)
    foreign = [json.loads(line) for line in lines]
    for event in foreign:
        if "fingerprint" in event:
            event["fingerprint"] = "0" * 16
        for name in ("line", "before", "crc"):
            event.pop(name)
    toy_sweep.rewrite(folder.ledger, foreign)
    with pytest.raises(LedgerError, match="it is that of another sweep"):
        Sweep.of(folder)
    assert "the ledger was that of another sweep" in repair(folder, dry_run=False).done[0]
    assert {name: one[:6] for name, one in said(folder).items()} == {name: one[:6] for name, one in right.items()}


def test_settings_that_somebody_has_changed_are_no_source(folder: SweepFolder) -> None:
    folder.ledger.write_bytes(b"".join(lines_of(folder)[1:]))
    folder.settings.write_text(folder.settings.read_text().replace("seed: 0", "seed: 1"))
    with pytest.raises(LedgerError, match="somebody or something has changed it"):
        repair(folder, dry_run=False)


@pytest.mark.parametrize("length", [0, 5, 24, 30, 50, 70])
def test_settings_that_are_cut_off_are_no_source(folder: SweepFolder, length: int) -> None:
    folder.ledger.write_bytes(b"".join(lines_of(folder)[1:]))
    folder.settings.write_text(folder.settings.read_text()[:length])
    with pytest.raises(LedgerError, match="its first line is lost, and it can't be rebuilt"):
        repair(folder, dry_run=False)


def test_a_torn_end_is_said(
    folder: SweepFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.ledger.write_bytes(folder.ledger.read_bytes()[:-9])
    code, out, _ = run(capsys, monkeypatch, "show", "toys")
    assert code == 0 and "The ledger's last line was cut off by a crash and does not count" in " ".join(out.split())
