"""`python -m trainables`: the guide's flags, what a run leaves behind, resume, refusals in one line."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainables import toy
from trainables import __main__ as single
from trainables import console as console_module
from trainables import text
from trainables.console import Console
from trainables.rsst import trial
from trainables.rsst.config import KNOBS, RSSTConfig, knobs_in_file
from trainables.rsst.data.batches import on_device
from trainables.rsst.data.load import ImageData
from trainables.rsst.model.saved import load_pruned

pytestmark = pytest.mark.usefixtures("toy")

# the guide's example 1 as it stands there, but for the program's name; tests replace some of its values
EXAMPLE_1 = """
    --arch vit_small --pretrained --dataset cifar100 --struct rsst --criteria l1 --epochs 80 --batch_size 64 --lr 0.0005
    --warmup 20 --pruning_times 15 --rate 0.15 --RST_schedule exp_custom_exponents --reg_granularity_prune 0.3
    --exponents 2 --save_dir results/vit_small_pretrained_rsst
"""
GUIDE = [
    EXAMPLE_1,
    "--arch vit_small --dataset cifar100 --pretrained --struct rsst --epochs 120",
    "--arch vit_small --dataset cifar100 --struct rsst --epochs 120",
    """--arch vit_small --pretrained --dataset cifar100 --epochs 80 --lr 0.0005 --warmup 20 --batch_size 64
    --pruning_times 15 --rate 0.15""",
    """--arch vit_small --dataset cifar100 --epochs 150 --lr 0.001 --warmup 40 --batch_size 64 --pruning_times 15
    --rate 0.15""",
    "--arch vit_small --pretrained --save_dir results/vit_pretrained",
    "--arch vit_small --save_dir results/vit_scratch",
]
SHORT = "--arch vit_toy --dataset digits --epochs 2 --warmup 1 --pruning_times 3 --rate 0.3 --batch_size 32".split()  # noqa: SIM905
ROUND_KEYS = {"round", "density", "heads_kept", "neurons_kept", "val_top1_before_hardening", "val_top1", "params"}
ROUND_KEYS |= {"gmacs", "seconds"}


def replaced(arguments: str, **by: Any) -> list[str]:
    words = shlex.split(arguments)
    for name, value in by.items():
        words[words.index(f"--{name}") + 1] = str(value)
    return words


@pytest.fixture(autouse=True)
def small_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs start in an empty folder and see the tiny images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNE_RSST_CACHE", str(tmp_path / "cache"))  # no dense round of another test
    monkeypatch.setattr(trial, "load", toy.images)


@pytest.fixture(scope="module")
def done(toy: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished short run."""
    folder = tmp_path_factory.mktemp("done") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "load", lambda config: toy_images(config))
        assert single.main([*SHORT, "--save_dir", str(folder)]) == 0
    return folder


def toy_images(config: RSSTConfig) -> ImageData:
    return toy.images(config)


def test_the_guides_example_1_runs_and_says_that_it_fell_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = replaced(EXAMPLE_1, arch="vit_toy", dataset="digits", epochs=2, warmup=1, pruning_times=3)
    assert single.main(changed) == 0
    said = capsys.readouterr()
    folder = tmp_path / "results/vit_small_pretrained_rsst"
    report = json.loads((folder / "report.json").read_text())
    assert report["init_effective"] == "scratch" and report["config"]["pretrained"] is True
    assert report["final"]["init_effective"] == "scratch"
    assert "!!!!" in said.err and "scratch" in said.out
    rounds = [line for line in said.out.splitlines() if re.match(r"round \d/3 · val_top1", line)]
    assert len(rounds) == 3
    frame = [line for line in said.err.splitlines() if line.startswith("!")]
    assert len(frame) >= 3 and len({len(line) for line in frame}) == 1, "as wide as its text"
    assert [r["kept_share_asked"] for r in report["rounds"]] == pytest.approx([1, 0.85, 0.85**2])
    assert str(folder / "report.json") in said.out


@pytest.mark.parametrize("command", GUIDE)
def test_every_command_of_the_guide_is_understood(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert single.main([*shlex.split(command), "--print-config"]) == 0
    printed = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert printed["arch"] == '"vit_small"' and printed["pretrained"] == str("--pretrained" in command).lower()


def test_the_report_has_the_contracts_keys(done: Path) -> None:
    report = json.loads((done / "report.json").read_text())
    assert {"config", "init_effective", "rounds", "test_top1", "fingerprint", "weights_digest", "final"} <= set(report)
    assert len(report["rounds"]) == 3 and len(report["epochs"]) == 6
    assert all(set(r) >= ROUND_KEYS for r in report["rounds"])
    assert RSSTConfig.from_knobs(report["config"]).fingerprint == report["fingerprint"]
    assert [r["round"] for r in report["rounds"]] == [0, 1, 2]
    assert report["test_top1"] == report["final"]["test_top1"]
    assert report["rounds"][-1]["val_top1"] == report["final"]["val_top1"]
    densities = [r["density"] for r in report["rounds"]]
    assert densities[0] == 1.0 and densities == sorted(set(densities), reverse=True)


def test_the_saved_model_is_the_trials(done: Path, tiny: ImageData) -> None:
    report = json.loads((done / "report.json").read_text())
    model = load_pruned(done)
    images = on_device(tiny, torch.device("cpu"))
    test = images.batch(images.test)
    with torch.no_grad():
        top1 = float((model(test.images).argmax(1) == test.targets).double().mean())
    assert top1 == report["test_top1"]
    assert sum(p.numel() for p in model.parameters()) == report["final"]["params"]
    assert {p.suffix for p in done.rglob("*") if p.is_file()} <= {".json", ".safetensors", ".log", ".png", ""}


def test_a_run_leaves_its_pictures_or_says_why_not(
    done: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = ["classes.png", "layers.png", "penalty.png", "rounds.png"]  # the toy's few images are uneven
    assert sorted(p.name for p in (done / "pictures").iterdir()) == drawn
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert single.main([*SHORT, "--save_dir", str(done), "--resume"]) == 0
    assert "pictures: none, matplotlib" in capsys.readouterr().out.splitlines()[-1]


def test_the_log_holds_what_was_said(done: Path) -> None:
    log = (done / "run.log").read_text()
    assert log.count("val_top1") >= 4 and "finished · test_top1" in log
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in log.splitlines())


def test_a_finished_run_is_not_written_over_and_resume_only_replays(
    done: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (done / "report.json").read_bytes()
    assert single.main([*SHORT, "--save_dir", str(done)]) == 2
    refusal = capsys.readouterr()
    assert refusal.out == "" and refusal.err.count("\n") == 1
    assert "save_dir" in refusal.err and "--resume" in refusal.err
    monkeypatch.setattr(trial, "run", None)
    assert single.main([*SHORT, "--save_dir", str(done), "--resume"]) == 0
    assert (done / "report.json").read_bytes() == before
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "nothing is left to do: this run has finished before" and len(said) == 4, said
    final = json.loads(before)["final"]
    least = min(share for share in final["test_class_accuracy"] if share is not None)
    assert re.search(rf"least accurate ones: \d {least:.2%},", said[2]), "the toy's few images are uneven"


def test_resume_refuses_another_trial_and_names_the_knobs(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert single.main([*SHORT, "--lr", "0.5", "--seed", "3", "--save_dir", str(done), "--resume"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and re.search(r"lr 0\.001 → 0\.5", said) and "seed 0 → 3" in said


def test_a_run_of_another_method_is_refused_by_name(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = Path(shutil.copytree(done, tmp_path / "old"))
    (store,) = (old / "state").iterdir()
    for state in store.glob("r*/state.json"):  # the first version did not write its method down
        state.write_text(json.dumps({k: v for k, v in json.loads(state.read_text()).items() if k != "method"}))
    store.rename(store.with_name("0123456789abcdef"))
    assert single.main([*SHORT, "--save_dir", str(old), "--resume"]) == 2
    said = capsys.readouterr().err
    assert (
        said.count("\n") == 1 and "valid is the folder of a trial of method 2; this one was trained by method 1" in said
    )


def test_an_interrupted_run_exits_130_says_how_to_go_on_and_does(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[str] = []
    real = Console.show

    def interrupted(console: Console, event: Any) -> None:
        real(console, event)
        shown.append(event.kind)
        if len(shown) == 6:  # start, epoch, epoch, round, epoch, epoch
            raise KeyboardInterrupt

    monkeypatch.setattr(Console, "show", interrupted)
    assert single.main([*SHORT, "--save_dir", "run"]) == 130
    monkeypatch.setattr(Console, "show", real)
    assert not (tmp_path / "run/report.json").exists()
    line = capsys.readouterr().out.splitlines()[-1]
    command = line.partition("go on with: ")[2]
    assert command.startswith(f"{shlex.quote(sys.executable)} -m trainables ") and command.endswith("--resume")
    assert single.main(shlex.split(command)[3:]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "going on after round 2/3, epoch 2/2 · scratch", "the interruption saved its epochs"
    assert [line.split(" · ")[0] for line in said if "kept" in line] == ["round 2/3", "round 3/3"]
    logged = [line[20:] for line in (tmp_path / "run/run.log").read_text().splitlines()]
    ends = [line for line in logged if re.match(r"round \d/3 · |first epoch|vit_toy on|finished", line)]
    assert len(ends) == 6 and len(set(ends)) == 6, ends
    reports = [toy.timeless_report((folder / "report.json").read_text()) for folder in (tmp_path / "run", done)]
    for report in reports:
        del report["config"]["save_dir"]
    assert reports[0] == reports[1]


def test_rounds_count_from_one_in_every_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console_module, "_PLAIN_EVERY_S", 0.0)
    assert single.main([*SHORT, "--save_dir", "run"]) == 0
    said = capsys.readouterr().out.splitlines()
    places = [m[0] for line in said if (m := re.match(r"round \d+/3( epoch \d+/2)?", line))]
    epochs = [[f"round {r}/3 epoch 1/2", f"round {r}/3 epoch 2/2", f"round {r}/3"] for r in (1, 2, 3)]
    assert places == [place for one in epochs for place in one]


def test_one_round_of_one_epoch_is_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    once = ["--epochs", "1", "--warmup", "0", "--pruning_times", "1", "--save_dir", "run"]
    assert single.main([*SHORT, *once]) == 0
    assert "· 1 round of 1 epoch ·" in capsys.readouterr().out
    assert text.counted(2, "round") == "2 rounds"


def test_a_frame_is_as_wide_as_its_longest_line_and_breaks_no_path() -> None:
    path = "/a-long/" + "folder-" * 30
    lines = text.framed(f"{'word ' * 60}\nsee {path}").splitlines()
    assert len({len(line) for line in lines}) == 1 and set(lines[0]) == {"!"} and any(path in line for line in lines)


def test_an_arch_with_a_slip_is_named_before_any_data_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nothing(_config: RSSTConfig) -> ImageData:
        raise AssertionError("data was looked for")

    monkeypatch.setattr(trial, "load", nothing)
    assert single.main(["--arch", "vit_smal", "--dataset", "cifar100"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: arch = vit_smal") and said.endswith("did you mean vit_small or flexivit_small?\n")
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_that_is_none_may_be_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert single.main(["--dataset", "/nothere"]) == 2
    said = capsys.readouterr().err
    assert "or an existing folder of images; there is no folder /nothere" in said
    assert single.main(["--dataset", "cifar1O"]) == 2
    assert "did you mean cifar10?" in capsys.readouterr().err


def test_a_key_of_a_file_that_is_none_is_a_short_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for key, hint in (("foo", "`python -m trainables --help` lists them"), ("epoch", "did you mean epochs?")):
        (tmp_path / "best.yaml").write_text(f"{key}: 1\n")
        assert single.main(["--config", "best.yaml"]) == 2
        said = capsys.readouterr().err
        assert hint in said and len(said) < 150


def test_who_looks_whether_a_run_is_alive_does_not_stop_it_from_beginning() -> None:
    words = dict(zip(SHORT[::2], SHORT[1::2], strict=True))
    Path("knobs.json").write_text(json.dumps({name[2:]: value for name, value in words.items()}))
    lock = Path("run/state") / RSSTConfig.from_knobs(knobs_in_file("knobs.json")).fingerprint / "lock"
    lock.parent.mkdir(parents=True)
    with lock.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        threading.Timer(0.3, fcntl.flock, (file.fileno(), fcntl.LOCK_UN)).start()
        assert single.main(["--config", "knobs.json", "--save_dir", "run"]) == 0


def test_resume_begins_where_nothing_is(tmp_path: Path) -> None:
    assert single.main([*SHORT, "--pruning_times", "1", "--save_dir", "new", "--resume"]) == 0
    assert (tmp_path / "new/report.json").exists()


BAD = [
    (["--learning_rate", "1"], "learning_rate"),
    (["--rates", "1"], "rates"),
    (["--rate", "0"], "rate"),
    (["--rate", "1"], "rate"),
    (["--rate"], "rate"),
    (["--lr", "-0.1"], "lr"),
    (["--warmup", "3"], "warmup"),
    (["--dataset", "mnist"], "dataset"),
    (["--criteria", "best"], "criteria"),
    (["--img_size", "9"], "img_size"),
    (["--pretrained", "perhaps"], "pretrained"),
    (["--config", "missing.yaml"], "config"),
    (["--arch", "vit_nonsense"], "arch"),
    (["--dataset", "folder", "--data", "nowhere"], "data"),
    (["--pretrained", "--strict"], "pretrained"),
]


@pytest.mark.parametrize(("arguments", "key"), BAD, ids=lambda x: " ".join(x) if isinstance(x, list) else x)
def test_bad_input_is_one_line_exit_2_names_the_key_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], key: str
) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    try:
        code = single.main([*SHORT, *arguments, "--save_dir", "run"])
    except SystemExit as left:
        code = left.code  # type: ignore[assignment]
    said = capsys.readouterr()
    assert code == 2
    assert (
        said.err.startswith("error: ") and said.err.count("\n") == 1 and key in said.err and "Traceback" not in said.err
    )
    assert list(tmp_path.iterdir()) == []


def test_after_a_refusal_the_corrected_command_runs_in_the_same_folder(tmp_path: Path) -> None:
    assert single.main([*SHORT, "--arch", "vit_nonsense", "--save_dir", "run"]) == 2
    assert single.main([*SHORT, "--save_dir", "run"]) == 0
    before = sorted((tmp_path / "run").rglob("*"))
    assert single.main([*SHORT, "--save_dir", "run", "--data", "x", "--resume"]) == 0
    assert sorted((tmp_path / "run").rglob("*")) == before


def test_an_output_folder_below_a_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert single.main([*SHORT, "--save_dir", "file/run"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: save_dir = file/run: ") and said.count("\n") == 1


def test_a_trial_that_diverges_exits_1_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert single.main([*SHORT, "--lr", "1e30", "--save_dir", "run"]) == 1
    line = capsys.readouterr().out.splitlines()[-1]
    assert re.match(r"error: round 0, epoch \d", line)


def test_a_full_disk_exits_1_and_the_run_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from trainables.rsst.store import checkpoint

    real, saves = checkpoint.save_file, []

    def full(tensors: Any, path: Path) -> None:
        saves.append(path)
        if len(saves) == 2:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        real(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", full)
    assert single.main([*SHORT, "--save_dir", "run"]) == 1
    assert "No space left" in capsys.readouterr().out
    assert single.main([*SHORT, "--save_dir", "run", "--resume"]) == 0
    assert "round 2/3" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [[], ["--arch", "vit_tiny"], ["--pretrained"], SHORT, ["--target_density", "0.2"]]
)
def test_print_config_parses_back_to_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert single.main([*arguments, "--print-config"]) == 0
    first = capsys.readouterr().out
    (tmp_path / "config.yaml").write_text(first)
    assert single.main(["--config", "config.yaml", "--print-config"]) == 0
    assert capsys.readouterr().out == first
    assert [line.split(":")[0] for line in first.splitlines()] == list(KNOBS)


def test_flags_win_over_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "best.yaml").write_text("lr: 1e-3\nrate: 0.2\npretrained: true\n")
    assert single.main(["--config", "best.yaml", "--rate", "0.4", "--pretrained", "false", "--print-config"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert {"lr: 0.001", "rate: 0.4", "pretrained: false"} <= set(printed)


def test_help_names_every_knob(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        single.main(["--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"--{name} " in shown for name in KNOBS)
    assert "[./results/<arch>-<dataset>-<hash>]" in re.sub(r"\s+", " ", shown).replace("- ", "-")


ALONE = """
import sys
from tests import base_only
from tests.trainables import toy
toy.install()
sys.argv = ["trainables", *sys.argv[1:]]
import os
sys.addaudithook(lambda event, _: event == "socket.__new__" and os.write(1, b"OPENED A SOCKET"))
import runpy
runpy.run_module("trainables", run_name="__main__")
"""


@pytest.mark.medium
def test_it_runs_with_what_the_base_installs_alone_and_sigterm_is_resumable(tmp_path: Path, repo_root: Path) -> None:
    """One process: example 1 on the whole digits, interrupted by SIGTERM after its first round."""
    changed = replaced(EXAMPLE_1, arch="vit_toy", dataset="digits", epochs=2, warmup=1, pruning_times=3, save_dir="run")
    program = [sys.executable, "-c", ALONE, *changed]
    process = subprocess.Popen(
        program, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(repo_root)}, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    lines = []
    deadline = time.monotonic() + 120
    for line in process.stdout:
        lines.append(line)
        if line.startswith("round 1/3"):
            process.send_signal(signal.SIGTERM)
            break
        assert time.monotonic() < deadline
    rest = process.communicate(timeout=60)[0]
    assert process.returncode == 130, "".join(lines) + rest
    assert f"go on with: {shlex.quote(sys.executable)} -m trainables" in rest
    assert "OPENED" not in "".join(lines) + rest, "a single run opens no socket"
    environment = os.environ | {"PYTHONPATH": str(repo_root)}
    again = [*program, "--resume"]
    done = subprocess.run(
        again, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run/report.json").read_text())["test_top1"] > 0.2
