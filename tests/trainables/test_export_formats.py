"""ONNX and torch.export of a pruned model give the model's own logits, at batch sizes they were not made with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trainables import export
from trainables.rsst.config import RSSTConfig
from trainables.rsst.model import saved
from trainables.rsst.model.accepted import architecture
from trainables.rsst.model.saved import save_pruned
from trainables.rsst.model.vit import build
from trainables.rsst.pruning.compact import Units, all_units, narrowed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A digits ViT without two heads and a hundred neurons of its first layer, with random weights."""
    config = RSSTConfig.from_knobs({"dataset": "digits"})
    full = architecture(config, in_chans=1, num_classes=10)
    gone = Units(((0, 2), (), (), ()), (tuple(range(100)), (), (), ()))
    arch = narrowed(full, all_units(full).without(gone))
    torch.manual_seed(0)
    model = build(arch)
    path = tmp_path_factory.mktemp("model")
    save_pruned(arch, dict(model.state_dict()), path)
    return path


@pytest.mark.medium
def test_both_formats_give_the_models_logits(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    files = [tmp_path / "m.onnx", tmp_path / "m.pt2"]
    assert export.main([str(folder), "--onnx", str(files[0]), "--pt2", str(files[1])]) == 0
    assert all(file.stat().st_size > 0 for file in files)
    assert capsys.readouterr().out.count("largest difference of a logit") == 2


def test_a_difference_is_seen(folder: Path) -> None:
    model = saved.load_pruned(folder)
    assert export.difference(model, lambda images: model(images) + 1e-3, (1, 8, 8)) == pytest.approx(1e-3, rel=1e-2)


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export.main([str(tmp_path), "--pt2", str(tmp_path / "m.pt2")]) == 2
    assert export.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 2
