"""A resumed sweep gives its trials the weights that it began with, from its own copy, or refuses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.model.accepted import architecture
from trainables.rsst.model.vit import build
from tune_rsst.planning.begin import make_plan
from tune_rsst.planning.plan import Plan
from tune_rsst.search.pretrained import SweepWeights
from tune_rsst.settings.written import given


def config_with(file: Path) -> RSSTConfig:
    return RSSTConfig.from_knobs({"dataset": "digits", "pretrained": True, "weights": str(file)})


def write_weights(file: Path, seed: int) -> None:
    torch.manual_seed(seed)
    arch = architecture(RSSTConfig.from_knobs({"dataset": "digits"}), in_chans=1, num_classes=10)
    save_file(dict(build(arch).state_dict()), file)


@pytest.fixture
def began(tmp_path: Path) -> tuple[RSSTConfig, SweepWeights]:
    file = tmp_path / "mine.safetensors"
    write_weights(file, seed=0)
    config = config_with(file)
    weights = SweepWeights()
    weights.look_for([config])
    weights.copy_into(tmp_path / "weights")
    return config, weights


def test_a_resume_takes_the_sweeps_own_copy_when_the_file_has_changed_or_gone(
    began: tuple[RSSTConfig, SweepWeights], tmp_path: Path
) -> None:
    config, weights = began
    first = weights.complete(config)
    for change in (
        lambda: write_weights(tmp_path / "mine.safetensors", seed=1),
        (tmp_path / "mine.safetensors").unlink,
    ):
        change()
        later = SweepWeights.recalled(weights.record(), tmp_path / "weights")
        later.look_for([config])
        later.copy_into(tmp_path / "weights")
        assert later.complete(config) == first


def test_a_damaged_copy_is_refused(began: tuple[RSSTConfig, SweepWeights], tmp_path: Path) -> None:
    _, weights = began
    copy = next((tmp_path / "weights").iterdir())
    content = bytearray(copy.read_bytes())
    content[-1] ^= 1
    copy.write_bytes(content)
    with pytest.raises(ConfigError, match="weights = "):
        SweepWeights.recalled(weights.record(), tmp_path / "weights")


def test_weights_of_another_architecture_are_refused_before_the_sweep_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNE_RSST_HOME", str(tmp_path / "home"))
    file = tmp_path / "mine.safetensors"
    write_weights(file, seed=0)
    words = [f"weights={file}", "pretrained=true", "dataset=digits"]
    plan = make_plan(given(None, words), None, False)
    assert isinstance(plan, Plan) and plan.starts == ("pretrained",)
    assert re.search(r"^weights: mine\.safetensors, digest [0-9a-f]{16}$", plan.note or "", re.MULTILINE)
    with pytest.raises(ConfigError) as caught:
        make_plan(given(None, [*words, "arch=vit_tiny", "patch_size=4"]), None, False)
    assert str(caught.value).startswith("weights = mine.safetensors: valid is weights of a vit_tiny")
    with pytest.raises(ConfigError, match=r"^weights = .*there is no such file"):
        make_plan(given(None, [*words, f"weights={tmp_path / 'MISSING'}", "on_missing_weights=scratch"]), None, False)
    assert not (tmp_path / "home").exists()


def test_each_way_to_start_from_a_file_is_checked(tmp_path: Path) -> None:
    """A file without a patch embedding fits one trial and not another; both before a worker sees it."""
    file = tmp_path / "mine.safetensors"
    write_weights(file, seed=0)
    tensors = {name: t for name, t in load_file(file).items() if not name.startswith("patch_embed.")}
    save_file(tensors, file)
    new = RSSTConfig.from_knobs({**config_with(file).knobs(), "patch_embed": "reinit"})
    weights = SweepWeights()
    weights.look_for([new])
    weights.copy_into(tmp_path / "weights")
    assert weights.complete(new).weights_digest
    with pytest.raises(ConfigError, match=r"patch_embed\.proj\.bias \(and 1 more\) of the model have no source"):
        weights.complete(config_with(file))


def test_what_is_decided_of_the_weights_is_said_once_before_the_sweep(tmp_path: Path) -> None:
    file = tmp_path / "mine.pth"
    torch.manual_seed(0)
    arch = architecture(RSSTConfig.from_knobs({"dataset": "digits"}), in_chans=3, num_classes=10)
    torch.save({"model_ema": {f"module.{name}": t.half() for name, t in build(arch).state_dict().items()}}, file)
    weights = SweepWeights()
    weights.look_for(
        [config_with(file), config_with(file), RSSTConfig.from_knobs({"arch": "vit_tiny", "pretrained": True})]
    )
    first, *said = weights.lines()
    assert first.startswith("weights: mine.pth, digest ")
    assert said == [
        "weights: mine.pth: the model is below 'model_ema.module.'",
        "weights: mine.pth: 54 tensors of float16 taken as float32",
        "weights: mine.pth: patch_embed.proj.weight of 3 channels for images of 1: summed, as timm does",
        "weights: none for vit_tiny, because vit_tiny has no ImageNet weights: its trials start from RANDOM weights",
    ]
