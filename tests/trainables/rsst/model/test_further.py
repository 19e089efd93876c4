"""A pruned model as a start: its shapes stay, its head where the classes are the same, kept_share counts on."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainables import toy
from trainables.__main__ import main
from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.data.load import ImageData
from trainables.rsst.experiment import run
from trainables.rsst.model import further
from trainables.rsst.model.saved import MODEL, SavedModel, save_pruned
from trainables.rsst.rounds import facts_of

pytestmark = pytest.mark.usefixtures("toy")
RUN = "--dataset digits --arch vit_toy --epochs 1 --warmup 0 --pruning_times 3 --rate 0.4 --batch_size 128"


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory, toy: None) -> Path:
    """A finished run of 3 rounds at rate 0.4: 0.36 of the units."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    assert main([*shlex.split(RUN), "--save_dir", str(folder)]) == 0
    return folder


def report(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "report.json").read_text()))


def test_more_rounds_go_on_from_the_shapes_and_count_against_the_original(
    pruned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Round 0 trains the pruned model as it is; each later round removes its share of what was there at the start."""
    words = ["--from", str(pruned), "--pruning_times", "2", "--rate", "0.5", "--save_dir", str(tmp_path / "more")]
    assert main(words) == 0
    first, more = report(pruned), report(tmp_path / "more")
    was = first["final"]
    assert more["rounds"][0]["heads_kept_per_layer"] == was["heads_kept_per_layer"]
    assert more["rounds"][0]["neurons_kept_per_layer"] == was["neurons_kept_per_layer"]
    assert more["rounds"][0]["kept_share"] == more["rounds"][0]["kept_share_asked"] == was["kept_share"]
    assert more["rounds"][0]["density"] == pytest.approx(was["density"])
    assert more["final"]["kept_share_asked"] == was["kept_share"] * 0.5
    halves = [max(int(0.5 * n + 0.5), 1) for n in was["neurons_kept_per_layer"]]
    assert more["final"]["neurons_kept_per_layer"] == halves
    assert (more["config"]["dataset"], more["config"]["epochs"], more["config"]["batch_size"]) == ("digits", 1, 128)
    said = capsys.readouterr().out
    assert f"begins with a pruned model: {was['heads_kept']} of 8 heads, {was['neurons_kept']} of 64 neurons" in said
    assert "the head stays: the same 10 classes" in said and "count against the unpruned vit_toy" in said
    assert SavedModel.read(tmp_path / "more" / MODEL).load().blocks[0].mlp.fc1.out_features == halves[0]


def test_the_start_computes_what_the_pruned_model_did(pruned: Path, tiny: ImageData) -> None:
    """Logits of the first state before a step are those of the file, the head with them; the bits are its own."""
    from trainables.rsst.running import Running

    config = RSSTConfig.from_knobs({**further.knobs_from(str(pruned)), "pruning_times": 1, "save_dir": None})
    running = Running.fresh(config, tiny)
    model = SavedModel.read(pruned / MODEL).load()
    images = torch.randn(5, 1, 8, 8)
    assert torch.equal(running.model.eval()(images), model(images))
    assert running.init["init_effective"] == "pretrained" and running.start_share < 0.4


def test_other_images_get_a_new_head(pruned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two classes of a function's; the folder as weights takes the model's sizes alone, not the run's other knobs."""
    (tmp_path / "even.py").write_text(
        "from trainables.rsst.data.sources import digits\n"
        "def even(data):\n"
        "    images = digits()[0]['all']\n"
        "    return {'all': (images.images, images.labels % 2), 'classes': ['even', 'odd']}\n",
        encoding="utf-8",
    )
    words = (
        f"--weights {pruned} --dataset {tmp_path / 'even.py'}:even --epochs 1 --warmup 0 --pruning_times 2 --rate 0.3"
    )
    assert main([*shlex.split(words), "--batch_size", "256", "--save_dir", str(tmp_path / "even")]) == 0
    found = report(tmp_path / "even")
    assert "the head is new: 2 classes here, 10 there" in capsys.readouterr().out
    assert found["rounds"][0]["kept_share"] == report(pruned)["final"]["kept_share"] and found["test_top1"] > 0.5
    assert found["config"]["arch"] == "vit_toy" and found["config"]["patch_size"] == 4


def test_it_is_resumed_bit_for_bit_and_adopts_its_dense_round(pruned: Path, tiny: ImageData) -> None:
    config = RSSTConfig.from_knobs({**further.knobs_from(str(pruned)), "epochs": 2, "pruning_times": 3, "rate": 0.3})
    whole = list(run(config, tiny))
    for at in (2, 4, 7):
        events = iter(run(config, tiny))
        for _ in range(at):
            event = next(events)
        assert toy.outcome(config, tiny, event.snapshot()) == toy.told(whole[at:])
    plain = RSSTConfig.from_knobs({**toy.KNOBS, "pruning_times": 3})
    assert config.of_round_0.fingerprint != plain.of_round_0.fingerprint


def test_a_resume_refuses_another_model(pruned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--pruning_times", "2", "--rate", "0.5", "--save_dir", str(tmp_path / "more")]
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in (MODEL, "report.json"):
        (copy / name).write_bytes((pruned / name).read_bytes())
    assert main(["--from", str(copy), *words]) == 0
    model = SavedModel.read(pruned / MODEL)
    weights = {name: tensor + 1 for name, tensor in model.load().state_dict().items()}
    save_pruned(model.facts, weights, copy)
    assert main(["--save_dir", str(tmp_path / "more"), "--resume"]) == 2
    assert "digest" in "".join(capsys.readouterr())


def test_a_trial_of_a_sweep_by_its_name(pruned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path))
    store = tmp_path / "mine" / "trials" / "0123456789abcdef"
    store.mkdir(parents=True)
    for name in (MODEL, "report.json"):
        (store / name).write_bytes((pruned / name).read_bytes())
    line = {"event": "suggested", "trial": "t0007", "fingerprint": "0123456789abcdef"}
    other = {"event": "suggested", "trial": "t0008", "fingerprint": "../../../etc"}
    (tmp_path / "mine" / "ledger.jsonl").write_text(f"{json.dumps(line)}\n{json.dumps(other)}\n", encoding="utf-8")
    assert further.knobs_from("mine/t0007")["weights"] == str(store / MODEL)
    for name in ("mine/t0008", "mine/t0009", "other/t0007", "mine"):
        with pytest.raises(ConfigError, match=f"from = {name}: valid is the folder of a finished run"):
            further.knobs_from(name)


REFUSED = {
    "a target": (
        ["--target_density", "0.1"],
        "target_density = 0.1: valid is left out where a pruned model is",
    ),
    "another arch": (["--arch", "vit_digits"], "arch = vit_digits: valid is vit_toy"),
    "element": (["--granularity", "element"], "granularity = element: valid is head, neuron or both"),
    "weights too": (["--weights", "x"], "weights = x: valid is left out with --from"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_go_with_it_is_one_line(
    case: str, pruned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, said = REFUSED[case]
    assert main(["--from", str(pruned), *words, "--save_dir", str(tmp_path / "new")]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1 and not (tmp_path / "new").exists()


def damaged(pruned: Path, folder: Path, how: str) -> Path:
    folder.mkdir()
    content = bytearray((pruned / MODEL).read_bytes())
    if how == "a bit":
        content[-5] ^= 1
    elif how == "cut":
        content = content[:-100]
    elif how == "no model":
        content = bytearray(b"nothing")
    if how != "missing":
        (folder / MODEL).write_bytes(content)
    if how == "element":
        model = SavedModel.read(pruned / MODEL)
        facts = type(model.facts)(
            model.facts.architecture, model.facts.images, {**model.facts.trial, "compacted": False}
        )
        save_pruned(facts, model.load().state_dict(), folder)
    if how == "report":
        (folder / "report.json").write_text("[]")
    return folder


@pytest.mark.parametrize("how", ["a bit", "cut", "no model", "missing", "element", "report"])
def test_a_model_of_another_form_or_digest_is_refused_in_one_line(
    how: str, pruned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = damaged(pruned, tmp_path / "start", how)
    key = "--from" if how == "report" else "--weights"
    assert main([key, str(folder), "--save_dir", str(tmp_path / "new"), "--dataset", "digits"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {key[2:]} = ") and err.count("\n") == 1 and "Traceback" not in err


def test_a_dense_model_of_ours_is_a_start_as_well(tiny: ImageData, tmp_path: Path) -> None:
    state = toy.last_state(toy.config(pruning_times=1), tiny)
    save_pruned(facts_of(state), state.group("weights"), tmp_path)
    knobs = further.start_of("weights", tmp_path)
    assert knobs["start_units"] == "4,4/32,32"
    config = toy.config(**knobs)
    assert next(iter(run(config, tiny))).metrics["init_effective"] == "pretrained"
    with pytest.raises(ConfigError, match="start_units = 4,4,4/32,32"):
        list(run(toy.config(**{**knobs, "start_units": "4,4,4/32,32"}), tiny))
    for units in ("4,4", "0,1/3,3", "a/b", "4,4/32,32/1"):
        with pytest.raises(ConfigError, match="start_units"):
            toy.config(**{**knobs, "start_units": units})
