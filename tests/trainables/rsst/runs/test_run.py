"""`trainables.rsst.run`: one's own images from Python, the numbers of the other ways, events, resume, refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from tests.trainables import toy
from trainables.__main__ import main
from trainables.plugins import loading
from trainables.rsst import ConfigError, Event, ImageData, run
from trainables.rsst.data import own
from trainables.rsst.data.sources import digits
from trainables.rsst.model.saved import load_pruned
from trainables.text import shown

pytestmark = pytest.mark.usefixtures("toy")

KNOBS: dict[str, Any] = {"arch": "vit_toy", "img_size": 8, "patch_size": 4, "epochs": 2, "warmup": 1, "batch_size": 32}
KNOBS |= {"pruning_times": 3, "rate": 0.3, "augment": "none"}
TRAIN, TEST = slice(0, 200), slice(200, 260)
MINE = """
from trainables.rsst.data.sources import digits

def mine(data):
    images, labels = digits()[0]["all"].images, digits()[0]["all"].labels
    return {"train": (images[:200], labels[:200]), "test": (images[200:260], labels[200:260])}
"""


@pytest.fixture(autouse=True)
def small_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNE_RSST_CACHE", str(tmp_path / "cache"))
    loading._LOADED.clear()
    own.images_of.cache_clear()


def arrays(change: int = 0) -> list[Any]:
    images, labels = digits()[0]["all"].images.numpy() + np.uint8(change), digits()[0]["all"].labels.numpy()
    return [images[TRAIN], labels[TRAIN], images[TEST], labels[TEST]]


def quiet(_line: str) -> None:
    """For what is not looked at."""


def numbers(folder: Path) -> dict[str, Any]:
    """What a run measured: its report without times, and without where the images came from."""
    report = toy.timeless_report((folder / "report.json").read_text(encoding="utf-8"))
    return {part: report[part] for part in ("rounds", "epochs", "final", "test_top1")} | {
        "digest": report["start"]["data_digest"]
    }


def test_the_same_images_give_the_same_numbers_in_every_way(tmp_path: Path) -> None:
    """By file.py:function on the command line and in Python, by arrays, by a torch data set: equal to the bit."""
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    knobs = {**KNOBS, "amp": True}
    flags = [word for name, value in knobs.items() for word in (f"--{name}", str(value))]
    assert main([*flags, "--dataset", "mine.py:mine", "--save_dir", "command"]) == 0
    a_function = {**knobs, "dataset": str(tmp_path / "mine.py:mine"), "save_dir": "function"}
    images, labels, test_images, test_labels = map(torch.from_numpy, arrays())
    parts = [TensorDataset(images[:, 0] / 255, labels), TensorDataset(test_images[:, 0] / 255, test_labels)]
    last = {
        "function": run(a_function, say=quiet),
        "arrays": run({**knobs, "save_dir": "arrays"}, ImageData.from_arrays(*arrays()), say=quiet),
        "dataset": run({**knobs, "save_dir": "dataset"}, ImageData.from_dataset(*parts), say=quiet),
    }
    here = {name: numbers(tmp_path / name) for name in ("command", *last)}
    assert len(here["command"]["rounds"]) == 3 and here["command"]["final"]["test_top1"] > 0
    assert here["arrays"] == here["dataset"] == here["function"] == here["command"]
    assert {metrics["test_top1"] for metrics in last.values()} == {here["command"]["test_top1"]}
    models = [load_pruned(tmp_path / name).state_dict() for name in ("command", "arrays")]
    assert toy.same_tensors(*models)


def test_callbacks_get_every_event_in_order_and_the_result_is_the_last_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen: list[Event] = []
    kinds: list[str] = []
    lines: list[str] = []
    data = ImageData.from_arrays(*arrays(), classes=list("abcdefghij"))
    metrics = run(KNOBS, data, callbacks=[seen.append, lambda event: kinds.append(event.kind)], say=lines.append)
    assert kinds == ["start", *["epoch", "epoch", "round"] * 3, "final"]
    assert [event.kind for event in seen] == kinds and seen[-1].metrics == metrics
    assert "val_top1" in metrics and "test_top1" in metrics and seen[0].metrics["data_digest"] == data.digest
    assert "images: arrays, grey, 10 classes (a, b, c, d, e, f, g, h, i, j)" in "\n".join(lines)
    assert "FEWER" in capsys.readouterr().err.upper(), "a grid that is too coarse is said as elsewhere"
    assert toy.timeless(run(KNOBS, data, callbacks=seen.append, say=quiet)) == toy.timeless(metrics)
    assert len(seen) == 2 * len(kinds)


class Enough(Exception):
    pass


def test_a_callback_that_raises_ends_the_run_and_the_same_call_goes_on(tmp_path: Path) -> None:
    whole: list[Event] = []
    run(KNOBS, ImageData.from_arrays(*arrays()), callbacks=whole.append, say=quiet)
    kept = {**KNOBS, "save_dir": str(tmp_path / "run")}

    def stop(event: Event) -> None:
        if event.kind == "round" and event.metrics["round"] == 1:
            raise Enough

    with pytest.raises(Enough):
        run(kept, ImageData.from_arrays(*arrays()), callbacks=stop, say=quiet)
    assert not (tmp_path / "run/report.json").exists()
    seen: list[Event] = []
    run(kept, ImageData.from_arrays(*arrays()), callbacks=seen.append, say=quiet)
    assert toy.told(seen) == toy.told(whole), "those from before too"
    again = seen.copy()
    run(kept, ImageData.from_arrays(*arrays()), callbacks=again.append, say=quiet)
    assert [event.to_json() for event in again[len(seen) :]] == [event.to_json() for event in seen]
    assert (tmp_path / "run/model.safetensors").is_file()


def test_a_resume_with_other_images_knobs_or_without_them_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = {**KNOBS, "pruning_times": 1, "save_dir": str(tmp_path / "run")}
    data = ImageData.from_arrays(*arrays())
    run(kept, data, say=quiet)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    images, labels, test_images, test_labels = arrays()
    others = {
        "pixels": ImageData.from_arrays(*arrays(1)),
        "labels": ImageData.from_arrays(images, labels[::-1], test_images, test_labels),
        "test": ImageData.from_arrays(images, labels, test_images[1:], test_labels[1:]),
        "split": ImageData.from_arrays(*arrays(), split_seed=1),
    }
    for name, other in others.items():
        with pytest.raises(ConfigError, match="these knobs differ") as refused:
            run(kept, other, say=quiet)
        assert f"dataset arrays@{data.digest} → arrays@{other.digest}" in str(refused.value), name
    with pytest.raises(ConfigError, match="these knobs differ: lr"):
        run({**kept, "lr": 0.5}, data, say=quiet)
    with pytest.raises(ConfigError, match=r"these knobs differ: .*dataset"):
        run({**kept, "dataset": "digits"}, say=quiet)
    assert main(["--save_dir", str(tmp_path / "run"), "--resume"]) == 2
    assert "these images were given in Python: give them again" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


WRONG: dict[str, tuple[Any, Any, str]] = {
    "another data set": ({"dataset": "digits"}, {}, "dataset = digits: valid is arrays@"),
    "another size": ({"img_size": 16}, {}, "img_size = 16: valid is 8, as the images have it"),
    "another split": ({"split_seed": 4}, {}, "split_seed = 4: valid is 0, as the images have it"),
    "a folder too": ({"data": "/tmp"}, {}, "data = /tmp: valid is no such knob beside images of your own"),
    "an unknown knob": ({"epoch": 1}, {}, "epoch = (given): valid is a known key only; did you mean epochs"),
    "no knobs": ([], {}, "config = list: valid is knobs by their names"),
    "arrays alone": ({}, {"data": "images"}, "data = str: valid is an ImageData of your own images"),
    "no callback": ({}, {"callbacks": "print"}, "callbacks = p: valid is functions that take an Event"),
    "a number as callback": ({}, {"callbacks": [7]}, "callbacks = 7: valid is functions"),
    "patches that do not fit": ({"patch_size": 3}, {}, "img_size = 8: valid is a multiple of patch_size (3)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_the_images_is_refused_before_the_run(case: str, tmp_path: Path) -> None:
    knobs, more, said = WRONG[case]
    config = {**KNOBS, "save_dir": str(tmp_path / "run"), **knobs} if isinstance(knobs, dict) else knobs
    with pytest.raises(ConfigError) as refused:
        run(config, **{"data": ImageData.from_arrays(*arrays()), "say": quiet, **more})
    assert said in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_what_is_given_as_it_is_recorded_is_taken(tmp_path: Path) -> None:
    """The knobs of config.json, with those that the images decide, make the same trial again."""
    data = ImageData.from_arrays(*arrays())
    run({**KNOBS, "pruning_times": 1, "save_dir": "first"}, data, say=quiet)
    kept = {
        k: v for k, v in json.loads((tmp_path / "first/config.json").read_text()).items() if k in toy.config().knobs()
    }
    run({**kept, "save_dir": "second"}, data, say=quiet)
    assert numbers(tmp_path / "first") == numbers(tmp_path / "second")


def test_the_package_is_light_until_something_is_asked_for(repo_root: Path) -> None:
    program = (
        "import sys, trainables.rsst as rsst\n"
        "heavy = ('torch', 'timm', 'numpy', 'PIL', 'ray')\n"
        "print([name for name in heavy if name in sys.modules], 'run' in dir(rsst))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(repo_root)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.stdout.splitlines() == ["[] True"], shown(ran.stderr)
