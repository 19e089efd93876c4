"""What is taken away computes what the trial computed, and holds all that its user must know."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from trainables.export import files, load_model
from trainables.export.__main__ import main
from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.data.folder.layout import listing
from trainables.rsst.data.folder.reading import read
from trainables.rsst.data.load import load
from trainables.rsst.model.saved import SavedModel, load_pruned
from trainables.rsst.trial import open_trial

CLASSES = ("beech", "oak", "ash tree")
OURS = ("tune_rsst", "trainables", "search_spaces")
WITHOUT_US = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Blocker())
sys.path.insert(0, {folder!r})
"""
ALONE = """
import json, torch, load_model
images = sys.argv[1:]
load_model.main(images)
with torch.no_grad():
    print(json.dumps(load_model.load()(load_model.inputs(images)).tolist()))
"""


def pictures(root: Path, each: int, first: int = 0, low: int = 0) -> Path:
    """Colour images of other sizes than the model's, `each` a class."""
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + each):
            draw = np.random.default_rng([label, number])
            pixels = draw.integers(low + 40 * label, 130 + 60 * label, (9 + number % 3, 12, 3)).clip(0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, torch.Tensor]]:
    """A finished trial's store, the images of its folder, and its logits of them in the order of their paths."""
    home = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNE_RSST_CACHE", str(home / "cache"))
        data = pictures(home / "data", 10)
        knobs = {"dataset": str(data), "arch": "vit_digits", "img_size": 8, "epochs": 1, "warmup": 0, "batch_size": 8}
        config = RSSTConfig.from_knobs({**knobs, "patch_size": 4, "pruning_times": 3, "rate": 0.3})
        with open_trial(config, home / "state", say=pytest.fail) as trial:
            list(trial.events())
        store, about = home / "state" / config.fingerprint, load(config).about
        pixels = read(listing(str(data)), 8)[0]["all"].images
        mean, std = (torch.tensor(v).reshape(-1, 1, 1) for v in (about.mean, about.std))
        with torch.no_grad():
            yield store, data, load_pruned(store)((pixels.float() / 255.0 - mean) / std)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.medium
def test_a_script_that_holds_only_the_exported_folder_classifies_as_the_trial_did(
    trained: tuple[Path, Path, torch.Tensor], tmp_path: Path
) -> None:
    store, data, logits = trained
    folder = tmp_path / "taken"
    files.export(files.find(store), folder, ["safetensors"], lambda line: None)
    images = [str(path) for path, _ in listing(str(data)).files["all"]]
    program = WITHOUT_US.format(blocked=OURS, folder=str(folder)) + ALONE
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", program, *images],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    *lines, last = done.stdout.splitlines()
    assert torch.allclose(torch.tensor(json.loads(last)), logits, rtol=0, atol=1e-5)
    wanted = [sorted(CLASSES)[i] for i in logits.argmax(dim=1).tolist()]
    assert [line.removeprefix(f"{image}: ").rpartition(" (")[0] for image, line in zip(images, lines, strict=True)] == (
        wanted
    )


def test_what_happens_to_the_images_after_the_trial_changes_no_byte(
    trained: tuple[Path, Path, torch.Tensor], tmp_path: Path
) -> None:
    store, data, _ = trained
    taken = []
    kept = shutil.copytree(data, tmp_path / "kept")
    for change in (None, lambda: pictures(data, 20, first=100, low=120), lambda: shutil.rmtree(data)):
        if change is not None:
            change()
        folder = tmp_path / f"taken{len(taken)}"
        files.export(files.find(store), folder, ["safetensors"], lambda line: None)
        taken.append(bytes_of(folder))
    shutil.copytree(kept, data)
    assert taken[0] == taken[1] == taken[2]
    facts = json.loads(taken[0]["preprocessing.json"])
    assert facts["classes"] == sorted(CLASSES) and (facts["in_chans"], facts["img_size"]) == (3, 8)
    start = json.loads((store / "report.json").read_text())["start"]["images"]
    assert {name: facts[name] for name in start} == start, "what the trial read, and nothing else"
    assert set(taken[0]) == {
        "model.safetensors", "architecture.json", "preprocessing.json", "report.json", "load_model.py"
    }  # fmt: skip


@pytest.mark.medium
def test_onnx_and_pt2_hold_the_facts_and_give_the_models_logits(
    trained: tuple[Path, Path, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx = pytest.importorskip("onnx")
    assert main([str(trained[0]), "--to", str(tmp_path), "--round", "1", "--formats", "pt2,onnx"]) == 0
    assert capsys.readouterr().out.count("largest difference of a logit") == 2
    props = {entry.key: entry.value for entry in onnx.load(tmp_path / "model.onnx").metadata_props}
    texts = dict.fromkeys(("preprocessing.json", "architecture.json", "trial.json"), "")
    torch.export.load(tmp_path / "model.pt2", extra_files=texts)
    for found in (props, texts):
        assert json.loads(found["preprocessing.json"]) == json.loads((tmp_path / "preprocessing.json").read_text())
        assert json.loads(found["trial.json"])["round"] == 1
        assert json.loads(found["architecture.json"])["heads"]


@pytest.mark.parametrize("number", [0, 1, 2, None])
def test_each_round_can_be_taken(trained: tuple[Path, Path, torch.Tensor], tmp_path: Path, number: int | None) -> None:
    files.export(files.find(trained[0], number), tmp_path, ["safetensors"], lambda line: None)
    reports = json.loads((trained[0] / "report.json").read_text())["rounds"]
    found = json.loads((tmp_path / "report.json").read_text())
    assert (found["final"] if number is None else found)["val_top1"] == reports[2 if number is None else number][
        "val_top1"
    ]
    arch = json.loads((tmp_path / "architecture.json").read_text())
    assert arch["heads"] == reports[2 if number is None else number]["heads_kept_per_layer"]


REFUSED = [
    (["--formats", "onx"], "formats = onx", "did you mean onnx?"),
    (["--formats", ","], "formats = ", "safetensors, pt2, onnx"),
    (["--round", "7"], "round = 7", "there is 0, 1, 2"),
    (["--round", "-1"], "round = -1", "there is 0, 1, 2"),
    (["--to", "/proc/none"], "to = /proc/none", "a folder that can be made"),
    (["MISSING"], "folder = ", "there is no such folder"),
    (["EMPTY"], "folder = ", "rounds that --round can take: none"),
    (["STRANGE-REPORT", "--to", "."], "to = ", "a folder without files of another model"),
    (["EMPTY", "--round", "0"], "round = 0", "there is none"),
    (["UNFINISHED"], "folder = ", "rounds that --round can take: 0, 1, 2"),
    (["DAMAGED"], "folder = ", "can be read"),
    (["NO-ARCHITECTURE"], "folder = ", "architecture.json"),
    (["DAMAGED-ROUND", "--round", "1"], "round = 1", "is damaged"),
]


@pytest.mark.parametrize(("words", "key", "hint"), REFUSED)
def test_what_can_not_be_taken_is_one_line(
    trained: tuple[Path, Path, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, words: list[str], key: str, hint: str,
) -> None:  # fmt: skip
    case = words[0] if words[0].isupper() else ""
    folder = tmp_path / "MISSING" if case == "MISSING" else tmp_path
    if case not in ("MISSING", "EMPTY"):
        shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    if case == "STRANGE-REPORT":
        monkeypatch.chdir(tmp_path)
        folder = shutil.copytree(trained[0], tmp_path / "run")
        (tmp_path / "report.json").write_text("no JSON")
    if case == "UNFINISHED":
        (tmp_path / "model.safetensors").unlink()
    if case == "DAMAGED":
        (tmp_path / "model.safetensors").write_bytes(b"no model")
    if case == "NO-ARCHITECTURE":  # a model of an older version
        save_file(load_file(tmp_path / "model.safetensors"), tmp_path / "model.safetensors")
        (tmp_path / "architecture.json").unlink()
    if case == "DAMAGED-ROUND":
        [file] = (tmp_path / "models").glob("r001-*")
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert (
        main([str(folder), *words[bool(case) :], *([] if "--formats" in words else ["--formats", "safetensors"])]) == 2
    )
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert said.err.startswith(f"error: {key}") and hint in said.err


def test_a_model_of_an_older_version_is_taken_and_what_is_missing_is_said(
    trained: tuple[Path, Path, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "old"
    shutil.copytree(trained[0], old)
    shutil.rmtree(old / "models")
    (old / "preprocessing.json").unlink()
    save_file(load_file(old / "model.safetensors"), old / "model.safetensors")
    report = json.loads((old / "report.json").read_text())
    del report["start"]["images"], report["crc"]  # written before there were checksums
    (old / "report.json").write_text(json.dumps(report))
    assert main([str(old), "--formats", "safetensors"]) == 0
    assert "does not hold mean, std, class names and the resize rule" in capsys.readouterr().out
    assert not (old / "exports/final/preprocessing.json").exists()
    with pytest.raises(ConfigError, match=r"register = .*does not hold mean"):
        files.on_pixels(SavedModel.read(old / "model.safetensors"))


def test_a_difference_is_seen(trained: tuple[Path, Path, torch.Tensor], tmp_path: Path, monkeypatch: Any) -> None:
    model = load_pruned(trained[0])
    assert files.difference(model, lambda images: model(images) + 1e-3, (3, 8, 8)) == pytest.approx(1e-3, rel=1e-2)
    monkeypatch.setattr(load_model, "load", lambda folder: lambda images: model(images) + 1e-3)
    assert main([str(trained[0]), "--to", str(tmp_path), "--formats", "safetensors"]) == 1


def test_files_of_two_models_never_lie_in_one_folder(
    trained: tuple[Path, Path, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(trained[0]), "--to", str(tmp_path), "--formats", "safetensors"]
    assert main([*words, "--round", "0"]) == 0 and main([*words, "--round", "0"]) == 0
    before = bytes_of(tmp_path)
    for other in (["--round", "1"], []):
        capsys.readouterr()
        assert main([*words, *other]) == 2
        said = capsys.readouterr()
        assert said.err.startswith("error: to = ") and "round 0: give another folder" in said.err
        assert said.out == "" and said.err.count("\n") == 1 and bytes_of(tmp_path) == before


def test_an_export_can_be_exported_again(trained: tuple[Path, Path, torch.Tensor], tmp_path: Path) -> None:
    files.export(files.find(trained[0], 1), tmp_path, ["safetensors"], lambda line: None)
    before = bytes_of(tmp_path)
    for _ in range(2):  # into itself, and elsewhere
        files.export(files.find(tmp_path), tmp_path, ["safetensors"], lambda line: None)
    assert bytes_of(tmp_path) == before


def test_pixels_become_logits_where_only_the_registry_is(trained: tuple[Path, Path, torch.Tensor]) -> None:
    store, data, logits = trained
    pixels = read(listing(str(data)), 8)[0]["all"].images
    with torch.no_grad():
        found = files.on_pixels(files.find(store))(pixels.float() / 255.0)
    assert torch.allclose(found, logits, rtol=0, atol=1e-5)
