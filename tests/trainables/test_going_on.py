"""`--save_dir X --resume` alone goes on with what X holds; `--dry-run` says what a run takes and writes nothing."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.trainables import toy
from trainables import __main__ as single
from trainables import dry_run, text
from trainables.console import Console
from trainables.rsst import trial
from trainables.rsst.config import RSSTConfig
from trainables.rsst.measure import Measured, course_of

pytestmark = pytest.mark.usefixtures("toy")

SHORT = "--arch vit_toy --dataset digits --epochs 2 --warmup 1 --pruning_times 3 --rate 0.3 --batch_size 32".split()  # noqa: SIM905
STEP = Measured("cpu", train_s=2e-3, train_small_s=1e-3, eval_s=1e-4, peak_mib=400.0)


@pytest.fixture(autouse=True)
def small_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trial, "load", toy.images)
    monkeypatch.setattr(single, "draw_run", lambda folder: "none")


@pytest.fixture(scope="module")
def begun(toy: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was interrupted after its first round."""
    folder = tmp_path_factory.mktemp("begun") / "run"
    shown: list[str] = []

    def interrupted(_console: Console, event: Any) -> None:
        shown.append(event.kind)
        if event.kind == "round":
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "load", lambda config: toy_images(config))
        patch.setattr(Console, "show", interrupted)
        assert single.main([*SHORT, "--lr", "0.004", "--save_dir", str(folder)]) == 130
    return folder


def toy_images(config: RSSTConfig) -> Any:
    return toy.images(config)


@pytest.fixture
def held(begun: Path, tmp_path: Path) -> Path:
    """A copy of it, elsewhere."""
    return Path(shutil.copytree(begun, tmp_path / "moved"))


TAKEN = [
    [],
    ["--device", "cpu"],
    ["--micro_batch_size", "16"],
    ["--strict"],
    ["--lr", "4e-3"],
    ["--epochs", "2", "--rate", "0.3"],
    SHORT,
]


@pytest.mark.parametrize("flags", TAKEN, ids=" ".join)
def test_the_folder_alone_is_enough(held: Path, capsys: pytest.CaptureFixture[str], flags: list[str]) -> None:
    before = json.loads((held / "config.json").read_text())
    assert single.main([*flags, "--save_dir", str(held), "--resume"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "going on after round 1/3, epoch 2/2 · scratch"
    config = json.loads((held / "report.json").read_text())["config"]
    of_the_run = {"save_dir", "device", "micro_batch_size", "on_missing_weights"}
    assert {n: v for n, v in config.items() if n not in of_the_run} == {
        n: v for n, v in before.items() if n not in of_the_run | {"crc"}
    }
    assert config["save_dir"] == str(held) and config["lr"] == 0.004


REFUSED = [
    (["--lr", "0.5"], r"lr 0\.004 → 0\.5"),
    (["--arch", "vit_tiny"], "arch vit_toy → vit_tiny"),
    (["--seed", "3", "--rate", "0.4"], r"(rate 0\.3 → 0\.4, )?seed 0 → 3"),
    (["--pruning_times", "4"], "pruning_times 3 → 4"),
    (["--lr", "quick"], "lr = quick"),
]


@pytest.mark.parametrize(("flags", "words"), REFUSED, ids=lambda x: " ".join(x) if isinstance(x, list) else "")
def test_what_decides_the_numbers_can_not_change(
    held: Path, capsys: pytest.CaptureFixture[str], flags: list[str], words: str
) -> None:
    before = sorted(held.rglob("*"))
    assert single.main([*flags, "--save_dir", str(held), "--resume"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and re.search(words, said), said
    assert sorted(held.rglob("*")) == before


NOTHING_HELD = [
    ["--save_dir", "nothing"],
    ["--save_dir", "nothing", "--device", "cpu"],
    ["--save_dir", "file/below"],
    ["--save_dir", "empty", "--micro_batch_size", "8", "--strict"],
    [],
]


@pytest.mark.parametrize("flags", NOTHING_HELD, ids=" ".join)
def test_alone_where_nothing_is_held_it_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    assert single.main([*flags, "--resume"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: save_dir = ") and said.count("\n") == 1
    assert "a folder that holds a trial to go on with" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file"]


@pytest.mark.parametrize("content", ["", "[1, 2", '"text"', "[1]"])
def test_a_config_that_can_not_be_read_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text(content)
    assert single.main(["--save_dir", "run", "--resume"]) == 2
    said = capsys.readouterr().err
    assert "a folder whose config.json can be read" in said and said.count("\n") == 1


def test_the_printed_command_is_the_short_one(held: Path) -> None:
    words = shlex.split(text.go_on_command(held))
    assert words == [sys.executable, "-m", "trainables", "--save_dir", str(held), "--resume"]
    assert single.main(words[3:]) == 0


# --- the plan ------------------------------------------------------------------------------------------------------


def test_a_dry_run_says_sizes_epochs_hours_memory_and_disk_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """3 rounds × 2 epochs × 1,259 images at 2, 2 (what is trained is what the round before left) and 1 to 2 ms."""
    monkeypatch.setattr(dry_run.lines, "__defaults__", (lambda config: STEP,))
    assert single.main([*SHORT, "--save_dir", "run", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "(nothing has been written)" in said and str(tmp_path / "run") in said
    found = dict(re.findall(r"^  (\w+) {2,}(.*)$", said, re.MULTILINE))
    config = RSSTConfig.from_knobs({name[2:]: value for name, value in zip(SHORT[::2], SHORT[1::2], strict=True)})
    assert found["epochs"] == "6: 3 rounds of 2 epochs"
    course = course_of(config, STEP, 1.0, 1)
    assert found["time"] == f"about {text.duration(sum(course.seconds))}, 5 s of it in the dense round"
    assert course.seconds[0] == pytest.approx(1.01 * 2 * (1259 * 2e-3 + 269 * 1e-4)), "and latency, 1 %"
    assert re.match(r"5,\d{3} parameters, [\d.e-]+ GMACs$", found["dense"]) and "0.490" in found["final"]
    assert found["memory"].startswith("400 MiB") and found["disk"].endswith("MiB at most")
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_measures_real_steps_and_tells_that_it_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dry_run, "TELL_EVERY_S", 0.0)
    assert single.main([*SHORT, "--dry-run"]) == 0
    said = capsys.readouterr()
    assert re.search(r"measured  [\d.]+ ms an image in training \(dense\)", said.out)
    assert said.err.startswith("measuring a few steps") and "evaluating 512/512 images" in said.err


def test_a_dry_run_is_refused_where_the_run_is(
    held: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dry_run.lines, "__defaults__", (lambda config: STEP,))
    for flags, words in (
        (["--arch", "vit_smal"], "arch = vit_smal"),
        (["--dataset", "folder", "--data", "nowhere"], "nowhere: valid is an existing folder"),
        ([*SHORT, "--save_dir", str(held)], "a folder that holds no trial yet"),
        (["--save_dir", str(held), "--resume", "--lr", "0.5"], "lr 0.004 → 0.5"),
        (["--save_dir", "nothing", "--resume"], "a folder that holds a trial to go on with"),
    ):
        assert single.main([*flags, "--dry-run"]) == 2, flags
        said = capsys.readouterr()
        assert words in said.err and said.err.count("\n") == 1 and not said.out
    assert single.main(["--save_dir", str(held), "--resume", "--dry-run"]) == 0
    assert "what is done already is not taken off" in capsys.readouterr().out


def test_a_step_that_does_not_fit_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_room(_config: RSSTConfig) -> Measured:
        raise MemoryError

    monkeypatch.setattr(dry_run.lines, "__defaults__", (no_room,))
    assert single.main([*SHORT, "--dry-run"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("error: batch_size = 32: ") and "micro_batch_size" in said[-1]
