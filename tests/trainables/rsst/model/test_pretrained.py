"""Pretrained weights in timm's own layout: real counts, timm's own resampling, digests, fallbacks and refusals."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from timm.models.vision_transformer import VisionTransformer

from trainables.rsst.config import ConfigError, RSSTConfig, models
from trainables.rsst.model import pretrained
from trainables.rsst.model.accepted import architecture
from trainables.rsst.model.hub import HubFile
from trainables.rsst.model.vit import build
from trainables.rsst.model.weight_files import digest_of, read_weights

Tensors = dict[str, torch.Tensor]


def randoms(model: torch.nn.Module) -> Tensors:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(t.shape, generator=generator, device="cpu") * 0.02 for name, t in model.state_dict().items()
    }


@pytest.fixture(scope="module")
def source() -> Tensors:
    """Random values in the tensors of a small ViT for 224 × 224 images in patches of 16."""
    with torch.device("meta"):
        sizes = {"embed_dim": 64, "depth": 4, "num_heads": 4, "mlp_ratio": 2.0}
        return randoms(VisionTransformer(img_size=224, patch_size=16, num_classes=1000, **sizes))


@pytest.fixture(scope="module")
def source_file(source: Tensors, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_file(source, path)
    return path


def start(path: Path | None, *, in_chans: int = 3, **knobs: Any) -> tuple[pretrained.InitReport, Tensors, Tensors]:
    """The report, the model's tensors after and before; the model fits `source` but for its sizes and its head."""
    given = {"dataset": "cifar100", "arch": "vit_digits", "pretrained": True, "weights": path and str(path), **knobs}
    config = RSSTConfig.from_knobs(given)
    torch.manual_seed(1)
    model = build(architecture(config, in_chans=in_chans, num_classes=100))
    before = {name: t.clone() for name, t in model.state_dict().items()}
    return pretrained.initial_weights(config, model), model.state_dict(), before


def test_vit_small_counts_lines_and_resampling(tmp_path: Path) -> None:
    """The issue's own figures, for the layout of timm's vit_small_patch16_224."""
    with torch.device("meta"):
        source = randoms(timm.create_model("vit_small_patch16_224"))
    assert len(source) == 152
    save_file(source, tmp_path / "small.safetensors")
    report, after, before = start(tmp_path / "small.safetensors", arch="vit_small")
    assert report.init_effective == "pretrained" and report.warning is None
    assert len(report.transferred) == 150
    assert report.resampled == ("pos_embed", "patch_embed.proj.weight")
    assert report.reinitialised == ("head.weight", "head.bias")
    assert [s.partition(":")[0] for s in report.skipped] == ["head.bias", "head.weight"]
    for name in report.transferred:
        if name not in report.resampled:
            assert torch.equal(after[name], source[name])
    assert all(torch.equal(after[name], before[name]) for name in report.reinitialised)
    assert len(report.listing()) == 154
    assert report.lines[:6] == (
        "build model: vit_small",
        "正在迁移预训练权重...",
        "  ✓ 迁移了 150 个参数",
        "  ⚠ 跳过了 2 个参数（形状不匹配或不存在）",
        "  ℹ 分类头已重新初始化、patch embedding已插值以适配CIFAR",
        "✓ 成功加载预训练权重",
    )
    assert torch.equal(
        after["patch_embed.proj.weight"], resample_patch_embed(source["patch_embed.proj.weight"], [4, 4])
    )
    assert torch.equal(after["pos_embed"], resample_abs_pos_embed(source["pos_embed"], [8, 8]))
    assert torch.equal(after["pos_embed"][:, 0], source["pos_embed"][:, 0])


def test_reinit_keeps_the_models_own_patch_embedding(source_file: Path) -> None:
    report, after, before = start(source_file, patch_embed="reinit")
    for name in ("patch_embed.proj.weight", "patch_embed.proj.bias"):
        assert name in report.reinitialised and torch.equal(after[name], before[name])
    assert len(report.transferred) == 52
    assert "  ✓ 迁移了 52 个参数" in report.lines
    assert "  ℹ 分类头和patch embedding已重新初始化以适配CIFAR" in report.lines


def test_grey_images_get_the_sum_over_colours(source: Tensors, source_file: Path) -> None:
    _, after, _ = start(source_file, in_chans=1)
    colour = resample_patch_embed(source["patch_embed.proj.weight"], [4, 4])
    assert torch.equal(after["patch_embed.proj.weight"], colour.sum(1, keepdim=True))


def test_equal_shapes_are_taken_over_but_for_the_head(source: Tensors, source_file: Path) -> None:
    report, after, _ = start(source_file, img_size=224, patch_size=16)
    assert report.resampled == () and len(report.transferred) == 54
    assert torch.equal(after["pos_embed"], source["pos_embed"])


def test_weights_of_another_model_are_refused(source_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"weights = .*weights of a vit_tiny.*\(1, 1, 192\).*\(1, 1, 64\)") as refused:
        start(source_file, arch="vit_tiny")
    assert refused.value.key == "weights"


def test_the_digest_is_of_the_tensors_not_of_the_file(source: Tensors, source_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "small.pth"
    torch.save({"state_dict": {f"module.{k}": v for k, v in reversed(source.items())}, "epoch": 3}, other)
    digest = digest_of(source)
    assert len(digest) == 16 and digest_of(read_weights(source_file).tensors) == digest
    assert digest_of(read_weights(other).tensors) == digest
    assert start(other)[0].digest == digest
    changed = source | {"cls_token": source["cls_token"] + 1e-6}
    assert digest_of(changed) != digest


def test_another_digest_than_asked_for_is_refused(source: Tensors, source_file: Path) -> None:
    assert start(source_file, weights_digest=digest_of(source))[0].init_effective == "pretrained"
    with pytest.raises(ConfigError, match="weights_digest = 0123456789abcdef"):
        start(source_file, weights_digest="0123456789abcdef")


def test_a_hub_that_gives_none_falls_back_loudly_or_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "NAMED", dict(models.NAMED, vit_digits=(64, 4, 4, 2.0, "vit_digits")))
    monkeypatch.setattr(pretrained, "fetch", lambda name: HubFile("timm/x", None, "timm/x: no answer"))
    report, after, before = start(None)
    assert report.init_effective == "scratch" and report.digest is None
    assert report.warning is not None and "RANDOM" in report.warning and "no answer" in report.warning
    assert "✗ 未能获取预训练权重，使用随机初始化" in report.lines and "✓ 成功加载预训练权重" not in report.lines
    assert all(torch.equal(after[name], before[name]) for name in after)
    with pytest.raises(ConfigError, match="pretrained = True"):
        start(None, on_missing_weights="error")


@pytest.mark.parametrize("how", ["scratch", "error"])
@pytest.mark.parametrize(
    "named", ["none.pth", "~/none.pth", "models:/vit@champion", "s3://bucket/vit.pth", "runs:/1/vit.pth", "a\0b.pth"]
)
def test_a_named_file_that_is_not_there_is_a_typing_error_everywhere(named: str, how: str) -> None:
    with pytest.raises(ConfigError, match="weights = ") as refused:
        start(None, weights=named, on_missing_weights=how)
    assert refused.value.key == "weights" and "\n" not in str(refused.value)


def test_a_tilde_and_a_relative_path_are_found(
    source: Tensors, source_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(source_file.parent))
    monkeypatch.chdir(source_file.parent)
    for named in (f"~/{source_file.name}", source_file.name, f"./{source_file.name}"):
        assert start(None, weights=named)[0].digest == digest_of(source)


def test_vit_tiny_has_none_and_says_so() -> None:
    report, _, _ = start(None, arch="vit_tiny")
    assert "⚠️  Note: ViT-Tiny通常没有ImageNet预训练权重，使用随机初始化" in report.lines
    assert report.init_effective == "scratch" and report.warning is not None
    with pytest.raises(ConfigError, match="pretrained = True"):
        start(None, arch="vit_tiny", on_missing_weights="error")


def test_scratch_is_silent_about_weights() -> None:
    report, _, _ = start(None, pretrained=False)
    assert report == pretrained.InitReport("scratch", lines=("build model: vit_digits",))


def test_a_sweep_resolves_once_and_every_trial_checks(source: Tensors, source_file: Path, tmp_path: Path) -> None:
    base = {"dataset": "cifar100", "arch": "vit_digits", "pretrained": True}
    config = RSSTConfig.from_knobs({**base, "weights": str(source_file)})
    found = pretrained.resolve(config)
    assert found.digest == digest_of(source)
    copy = pretrained.copy_verified(found, tmp_path / "sweep")
    assert copy.path is not None and copy.path.name == f"weights-{found.digest}.safetensors"
    assert [p.name for p in (tmp_path / "sweep").iterdir()] == [copy.path.name]
    inode = copy.path.stat().st_ino
    assert pretrained.copy_verified(found, tmp_path / "sweep") == copy and copy.path.stat().st_ino == inode
    report, _, _ = start(None, **copy.knobs())
    assert report.digest == found.digest
    damaged = bytearray(copy.path.read_bytes())
    damaged[-5] ^= 1
    copy.path.write_bytes(damaged)
    with pytest.raises(ConfigError, match="weights_digest"):
        start(None, **copy.knobs())
    again = pretrained.copy_verified(found, tmp_path / "sweep")
    assert start(None, **again.knobs())[0].digest == found.digest


def test_a_trial_told_that_there_are_none_does_not_look_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(name: str) -> None:
        raise AssertionError(f"asked for {name}")

    monkeypatch.setattr(pretrained, "fetch", ask)
    knobs = pretrained.ResolvedWeights(None, None, "", "no network").knobs()
    report, _, _ = start(None, **knobs)
    assert report.init_effective == "scratch"
    base = {"dataset": "cifar100", "pretrained": True}
    fallen, real = (RSSTConfig.from_knobs(base | extra) for extra in (knobs, {"weights_digest": "a" * 16}))
    assert fallen.fingerprint != real.fingerprint


def test_a_hub_file_that_is_cached_is_used(source: Tensors, monkeypatch: pytest.MonkeyPatch, source_file: Path) -> None:
    named = dict(models.NAMED, vit_digits=(64, 4, 4, 2.0, "vit_digits_patch16_224"))
    monkeypatch.setattr(pretrained, "NAMED", named)
    file = HubFile("timm/vit_digits", source_file)
    monkeypatch.setattr(pretrained, "fetch", lambda name: file if name == "vit_digits_patch16_224" else None)
    report, _, _ = start(None)
    assert report.source == "timm/vit_digits" and report.digest == digest_of(source)
    assert os.fspath(source_file) not in " ".join(report.lines)
