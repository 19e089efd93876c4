"""A criterion and a ramp of the user's: the numbers they give, what they may not give, which code a trial runs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.trainables import toy
from trainables import plugins
from trainables.__main__ import main
from trainables.plugins import loading
from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.data import own
from trainables.rsst.data.load import ImageData, load
from trainables.rsst.data.sources import describe, train_images
from trainables.rsst.experiment import run
from trainables.rsst.pruning import own_parts, ramps

pytestmark = pytest.mark.usefixtures("toy")
SUMS = """
    found = 0.0
    for images, targets in batches:
        each = [{of} for a in units.activations(images)]
        found = each if found == 0.0 else [x + y for x, y in zip(found, each)]
"""
OWN = {  # as the built-in ones, but for what divides all scores of a layer
    "magnitude": "def f(units, batches):\n    return [w.double().abs().sum(dim=1) for w in units.weights()]\n",
    "l1": "def f(units, batches):" + SUMS.format(of="a.double().abs().sum(dim=(0, 1, 3))") + "    return found\n",
    "l2": "def f(units, batches):" + SUMS.format(of="a.double().square().sum(dim=(0, 1, 3))") + "    return found\n",
    "saliency": """
def f(units, batches):
    found = None
    for images, targets in batches:
        pairs = units.gradients(images, targets)
        each = [(a.double() * g.double()).sum(dim=(1, 3)).abs().sum(dim=0) for a, g in pairs]
        found = each if found is None else [x + y for x, y in zip(found, each)]
    return found
""",
}
SQUARE = "def f(t):\n    return t ** 2\n"


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    """What a test has loaded is forgotten after it, as in another process."""
    yield
    forget()


def forget() -> None:
    loading._KNOWN.clear()
    loading._LOADED.clear()
    ramps._sums.cache_clear()
    own.images_of.cache_clear()


def file(folder: Path, text: str, name: str = "mine.py") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return f"{folder / name}:f"


@pytest.mark.parametrize("name", OWN)
def test_a_criterion_like_a_built_in_one_prunes_the_same(name: str, tmp_path: Path, tiny: ImageData) -> None:
    """Its scores rank as those of the built-in one in each layer; the whole trial is equal bit for bit."""
    own = toy.outcome(toy.config(criteria=file(tmp_path, OWN[name]), granularity="both"), tiny)
    assert own == toy.outcome(toy.config(criteria=name), tiny)


@pytest.mark.parametrize("form", ["l2", "normalized"])
def test_a_ramp_like_a_built_in_one_presses_the_same(form: str, tmp_path: Path, tiny: ImageData) -> None:
    """l2 takes λ itself, bit for bit; normalized the sum over 4,096 steps, which is off by less than 1e-7."""
    own = toy.outcome(toy.config(RST_schedule=file(tmp_path, SQUARE), penalty_form=form), tiny)
    built_in = toy.outcome(toy.config(RST_schedule="x^2", penalty_form=form), tiny)
    if form == "l2":
        assert own == built_in
    for (_, one), (_, other) in zip(own, built_in, strict=True):
        if "doomed_norm_left" in one:
            assert one["doomed_norm_left"] == pytest.approx(other["doomed_norm_left"], rel=1e-4)
    value = plugins.named("RST_schedule", file(tmp_path, SQUARE), ())
    for t in (0.0, 1e-4, 0.1, 0.333, 0.9999, 1.0):
        assert ramps.pressed(value, t, 0.3) == pytest.approx(t**3, abs=1e-7)
        assert ramps.ramp(value, t, 0.3) == pytest.approx(0.3 * t**2)
    assert ramps.pressed(value, 1.0, 0.3) == 1.0 and ramps.pressed(value, 0.5, 0.0) == 0.0


CRITERIA = {
    "raises": ("def f(units, batches):\n    return units.nothing()\n", "AttributeError"),
    "a tensor": ("import torch\ndef f(units, batches):\n    return torch.ones(2)\n", "not a list of 4 tensors"),
    "too few": ("def f(units, batches):\n    return units.weights()[:1]\n", "it gave 1 of them"),
    "a matrix": ("def f(units, batches):\n    return units.weights()\n", "the 2 heads of layer 0 it gave the shape"),
    "numbers": (
        "def f(units, batches):\n    return [[1.0] * n for _, _, n in units.groups]\n",
        "it gave list, not (2,)",
    ),
    "nan": (
        "def f(units, batches):\n    return [w.sum(1) / 0 - w.sum(1) / 0 for w in units.weights()]\n",
        "is not finite",
    ),
    "random": (
        "import torch\ndef f(units, batches):\n    return [torch.rand(n) for _, _, n in units.groups]\n",
        "other",
    ),
    "trains": (
        "def f(units, batches):\n    units.model.norm.bias.data += 1\n    return [w.sum(1) for w in units.weights()]\n",
        "changes the weights",
    ),
    "arguments": ("def f(units):\n    return []\n", "takes 2 arguments"),
    "none": ("def f(units, batches):\n    pass\n", "NoneType"),
}
HEAD = "import numpy as np\nimport torch\nx, y = np.zeros((40, 8, 8), np.uint8), np.arange(40) % 4\n"
DATASETS = {
    "raises": ("def f(data):\n    return open(data + '/none.npy')\n", "TypeError"),
    "none": ("def f(data):\n    pass\n", "all is no pair (images, labels)"),
    "floats": ("def f(data):\n    return x + 2.0, y\n", "all_images = float64 (40, 8, 8) from 2 to 2: valid is uint8"),
    "channels last": (
        "def f(data):\n    return np.zeros((40, 8, 8, 3), np.uint8), y\n",
        "(40, 8, 8, 3): valid is uint8",
    ),
    "labels": ("def f(data):\n    return x, y[:30]\n", "all_labels = int64 (30,): valid is 40 whole numbers"),
    "negative": ("def f(data):\n    return x, y - 1\n", "valid is 40 whole numbers from 0"),
    "classes": ("def f(data):\n    return {'all': (x, y), 'classes': ['a']}\n", "labels go up to 3"),
    "one class": ("def f(data):\n    return x, y * 0\n", "labels of at least two classes"),
    "parts": ("def f(data):\n    return {'train': (x, y), 'dev': (x, y)}\n", "its parts are train, dev"),
    "no train": ("def f(data):\n    return {'val': (x, y)}\n", "its parts are val"),
    "shapes": ("def f(data):\n    return {'train': (x, y), 'val': (x[:, 1:], y)}\n", "images of other shapes"),
    "a gap": ("def f(data):\n    return x, y * 2\n", "no image of all has the class 1"),
    "nan": ("def f(data):\n    return x * np.nan, y\n", "with NaN or infinity"),
    "empty": ("def f(data):\n    return x[:0], y[:0]\n", "uint8 (0, 8, 8): "),
}
RAMPS = {
    "falls": ("def f(t):\n    return t if t < 0.5 else 1.5 * t - 0.5 if t > 0.6 else 0.4\n", "does not fall"),
    "does not begin at 0": ("def f(t):\n    return 0.5 + t / 2\n", "f(0) = 0.5"),
    "does not end at 1": ("def f(t):\n    return t / 2\n", "f(1) = 0.5"),
    "above 1": ("def f(t):\n    return min(2 * t, 2.0)\n", "f(1) = 2"),
    "nan": ("def f(t):\n    return t if t != 0.5 else float('nan')\n", "a ramp is finite"),
    "raises": ("def f(t):\n    return 1 / t\n", "ZeroDivisionError"),
    "text": ("def f(t):\n    return 'steep'\n", "ValueError"),
    "arguments": ("def f(t, g):\n    return t\n", "takes 1 argument"),
}


CASES = {"criteria": CRITERIA, "RST_schedule": RAMPS, "dataset": DATASETS}


@pytest.mark.parametrize(("key", "case"), [(key, case) for key, cases in CASES.items() for case in cases])
def test_what_can_not_be_one_is_refused_before_the_run(key: str, case: str, tmp_path: Path) -> None:
    text, said = CASES[key][case]
    text = HEAD + text if key == "dataset" else text
    with pytest.raises(ConfigError) as refused:
        own_parts.check(toy.config(**{key: file(tmp_path, text)}))
    assert str(refused.value).startswith(f"{key} = ") and said in str(refused.value)
    assert "mine.py" in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("key", ["criteria", "RST_schedule"])
def test_equal_sources_are_equal_trials_wherever_they_lie_and_others_are_not(key: str, tmp_path: Path) -> None:
    text = OWN["l1"] if key == "criteria" else SQUARE

    def found(value: str, **more: Any) -> str:
        return toy.config(**{key: value}, **more).fingerprint

    here, moved = file(tmp_path / "a", text), file(tmp_path / "b", text)
    other = file(tmp_path / "c", text + "# other\n")
    assert found(here) == found(moved) != found(other)
    assert found(here) != toy.config().fingerprint
    assert found(here, pruning_times=1) == found(other, pruning_times=1) == toy.config(pruning_times=1).fingerprint
    rounds = [toy.config(**{key: value}).of_round_0.fingerprint for value in (here, other)]
    assert rounds[0] == rounds[1], "the dense round is the same"
    config = toy.config(**{key: here})
    assert RSSTConfig.from_knobs(json.loads(json.dumps(config.knobs()))) == config
    if key == "criteria":
        assert found(here, calibration_images=8) != found(here, calibration_images=64), "it looks at them"


def test_a_trial_that_was_stopped_goes_on_bit_for_bit(tmp_path: Path, tiny: ImageData) -> None:
    config = toy.config(criteria=file(tmp_path, OWN["saliency"]), RST_schedule=file(tmp_path, SQUARE, "ramp.py"))
    whole = list(run(config, tiny))
    for at in (2, 5, 8):
        states = iter(run(config, tiny))
        for _ in range(at):
            event = next(states)
        state = event.snapshot()
        forget()
        rest = toy.outcome(config, tiny, state)
        assert rest == toy.told(whole[at:])


RUN = "--dataset digits --arch vit_toy --epochs 1 --warmup 0 --pruning_times 3 --rate 0.4 --batch_size 128"


def ran(folder: Path, *more: str) -> int:
    forget()
    return main([*shlex.split(RUN), "--save_dir", str(folder), *more])


def test_a_criterion_that_fails_in_a_round_ends_the_run_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it raises on the trial's images; the run stands where it was, and the copy of the file is there."""
    text = OWN["l1"].replace("batches):", "batches):\n    assert units.arch.neurons[0] < 32, 'too wide'", 1)
    assert ran(tmp_path / "run", "--criteria", file(tmp_path / "user", text)) == 2
    said = capsys.readouterr()
    last = (said.out + said.err).strip().splitlines()[-1]
    assert last.startswith("error: criteria mine.py:f: AssertionError: too wide (mine.py, line 2)")
    assert "--resume" in last
    assert "Traceback" not in said.out + said.err
    assert [path.name for path in (tmp_path / "run" / "code").rglob("*.py")] == ["mine.py"]
    assert (tmp_path / "run" / "config.json").exists()


def test_a_run_goes_on_with_the_file_as_it_was_or_with_trust_its_copy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = file(tmp_path / "user", OWN["l1"])
    assert ran(tmp_path / "run", "--criteria", where) == 0
    again = ("--resume",)
    forget()
    assert main(["--save_dir", str(tmp_path / "run"), *again]) == 0
    file(tmp_path / "user", OWN["l2"])
    capsys.readouterr()
    forget()
    assert main(["--save_dir", str(tmp_path / "run"), *again]) == 2
    assert "add --trust to run that" in capsys.readouterr().err
    forget()
    assert main(["--save_dir", str(tmp_path / "run"), *again, "--trust"]) == 0
    assert ran(tmp_path / "run", "--criteria", where, "--resume") == 2
    assert "criteria = mine.py:f: valid is code with the digest" in capsys.readouterr().err


def test_a_run_of_somebody_else_runs_no_code_that_lies_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = file(tmp_path / "run" / "own", OWN["l1"])
    assert ran(tmp_path / "run2", "--criteria", where) == 0
    (tmp_path / "run2").rename(tmp_path / "run" / "theirs")
    forget()
    assert main(["--save_dir", str(tmp_path / "run" / "theirs"), "--resume"]) == 0, "it lies outside of the folder"
    inside = file(tmp_path / "third" / "own", OWN["l1"])
    config = json.loads((tmp_path / "run" / "theirs" / "config.json").read_text())
    assert ran(tmp_path / "third", "--criteria", inside) == 0
    capsys.readouterr()
    forget()
    assert main(["--save_dir", str(tmp_path / "third"), "--resume"]) == 2
    assert "may have come with it" in capsys.readouterr().err and config["criteria"] != inside


def test_a_name_that_is_none_says_what_is_valid() -> None:
    names = {"criteria": ("salience", "saliency"), "RST_schedule": ("exp_costum", "exp_custom")}
    for key, (value, meant) in names.items():
        with pytest.raises(ConfigError, match=f"{key} = {value}") as refused:
            toy.config(**{key: value})
        assert f"did you mean {meant}?" in str(refused.value) and "path/to/file.py:function" in str(refused.value)


DIGITS = """
from trainables.rsst.data.sources import digits

def f(data):
    parts, about = digits()
    images, labels = parts["all"].images, parts["all"].labels
    return {given}
"""


def test_the_digits_from_a_function_are_the_digits(tmp_path: Path) -> None:
    """Images, splits and digest; so the trials are equal but for their fingerprint."""
    value = file(tmp_path, DIGITS.format(given="images.numpy(), labels"))
    here, there = RSSTConfig.from_knobs({"dataset": value, "img_size": 8, "patch_size": 2}), toy.config()
    found, known = load(here), load(there)
    assert found.digest == known.digest and found.about.mean == known.about.mean
    assert found.about.classes == known.about.classes and found.about.in_chans == 1
    assert train_images(here) == (1258, 270) and describe(here.dataset).num_classes == 10
    assert here.fingerprint != RSSTConfig.from_knobs({"dataset": "digits", "img_size": 8, "patch_size": 2}).fingerprint
    again = file(tmp_path / "b", DIGITS.format(given="images.numpy(), labels"))
    moved = RSSTConfig.from_knobs(here.knobs() | {"dataset": again})
    assert moved.fingerprint == here.fingerprint != RSSTConfig.from_knobs(here.knobs() | {"seed": 1}).fingerprint


def test_parts_that_are_given_stay_and_the_data_knob_is_handed_on(tmp_path: Path) -> None:
    given = '{"train": (images[:900], labels[:900]), "test": (images[900:], labels[900:]), "classes": list(data)}'
    value = file(tmp_path, DIGITS.format(given=given))
    config = RSSTConfig.from_knobs({"dataset": value, "data": "abcdefghij", "img_size": 16, "patch_size": 4})
    found = load(config)
    assert found.about.classes == tuple("abcdefghij") and found.train.images.shape[1:] == (1, 16, 16)
    assert len(found.test) == 897 and len(found.train) + len(found.val) == 900
    assert found.about.resize == "stretch" and found.about.notes[-1].startswith("val: 15% of each class of train")


def test_images_that_two_parts_of_a_function_have_in_common_are_said(tmp_path: Path) -> None:
    given = '{"train": (images[:900], labels[:900]), "test": (images[880:], labels[880:])}'
    config = RSSTConfig.from_knobs({"dataset": file(tmp_path, DIGITS.format(given=given)), "img_size": 8})
    notes = load(config).about.notes
    assert sum(int(note.split()[0]) for note in notes if note.endswith(("train too", "val too"))) == 20


def test_other_images_from_the_same_function_are_refused_on_a_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The function reads a file that changes: the code is the same, the images are not."""
    number = tmp_path / "number.txt"
    number.write_text("10")
    text = DIGITS.format(given="images[: 50 * int(open(data).read())], labels[: 50 * int(open(data).read())]")
    value = file(tmp_path / "user", text)
    words = ["--dataset", value, "--data", str(number), "--img_size", "8", "--patch_size", "4"]
    assert ran(tmp_path / "run", *words) == 0
    number.write_text("12")
    capsys.readouterr()
    assert ran(tmp_path / "run", *words, "--resume") == 2
    assert "valid is the images this trial began with" in "".join(capsys.readouterr())
