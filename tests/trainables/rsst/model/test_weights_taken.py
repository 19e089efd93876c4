"""Files that are taken: the model then computes what the source computes, whatever names, wrappers and types it has."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from timm.models._manipulate import adapt_input_conv
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer

from tests.trainables.rsst.model.test_weight_files import jax_layout
from trainables.rsst.config import RSSTConfig
from trainables.rsst.model.pretrained import InitReport, copy_verified, initial_weights, resolve
from trainables.rsst.model.weight_files import read_weights

Tensors = dict[str, torch.Tensor]
SIZES: dict[str, Any] = {"embed_dim": 32, "depth": 2, "num_heads": 4, "mlp_ratio": 2.0, "img_size": 16, "patch_size": 4}
IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))


def vit(kind: Callable[..., VisionTransformer] = VisionTransformer, /, seed: int = 0, **changed: Any) -> Any:
    """A small ViT with random values in all of its tensors."""
    model = kind(**{**SIZES, "num_classes": 5, **changed}).eval()
    generator = torch.Generator().manual_seed(seed)
    for tensor in model.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
    return model


def started(path: Path, model: VisionTransformer, **knobs: Any) -> InitReport:
    """`model` after it took the weights at `path` as a trial does."""
    given = {"dataset": "cifar10", "arch": "vit_digits", "pretrained": True, "weights": str(path), **knobs}
    return initial_weights(RSSTConfig.from_knobs(given), model)


def computes_the_same(model: VisionTransformer, source: VisionTransformer, within: float = 0.0) -> bool:
    """Whether both give the same features, none of which is farther than `within` from the other's."""
    with torch.no_grad():
        ours, theirs = (m.forward_head(m.forward_features(IMAGES), pre_logits=True) for m in (model, source))
    return bool((ours - theirs).abs().max() <= within)


def below(prefix: str) -> Callable[[Tensors], Any]:
    return lambda tensors: {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def inside(*keys: str) -> Callable[[Tensors], Any]:
    def wrap(tensors: Tensors) -> Any:
        content: Any = tensors
        for key in reversed(keys):
            content = {key: content}
        return content

    return wrap


def optimizer_of(tensors: Tensors) -> Any:
    return {"state": {i: {"exp_avg": t, "step": torch.ones(())} for i, t in enumerate(tensors.values())}}


def dino(tensors: Tensors) -> Any:
    head = {"module.head.mlp.0.weight": torch.ones(3, 3), "module.head.last_layer.weight_v": torch.ones(3)}
    backbone = {f"module.backbone.{name}": t for name, t in tensors.items()}
    return {"teacher": backbone | head, "epoch": 3, "dino_loss": {"center": torch.ones(9)}}


def lightning(tensors: Tensors) -> Any:
    state = {f"model._orig_mod.{name}": tensor for name, tensor in tensors.items()}
    state |= {"criterion.weight": torch.ones(5), "val_acc.total": torch.zeros(7)}
    return {
        "epoch": 1,
        "state_dict": state,
        "optimizer_states": [optimizer_of(tensors)],
        "hyper_parameters": {"lr": 0.1, "num_heads": 4},
        "loops": {"fit_loop": {"state_dict": {}}},
        "pytorch-lightning_version": "2.4",
    }


def timm_training(tensors: Tensors) -> Any:
    other = {name: tensor + 1 for name, tensor in tensors.items()}
    args = argparse.Namespace(model="vit_x", num_heads=4, opt="adamw")
    wrapped = {"arch": "vit_x", "state_dict": other, "state_dict_ema": tensors, "args": args, "metric": 0.5}
    return {**wrapped, "optimizer": optimizer_of(tensors), "amp_scaler": {"scale": torch.ones(2)}}


def fsdp(tensors: Tensors) -> Any:
    return {
        "_fsdp_wrapped_module." + re.sub(r"^(blocks\.\d+\.)", r"\1_checkpoint_wrapped_module.", name): tensor
        for name, tensor in tensors.items()
    }


WRAPPED: dict[str, Callable[[Tensors], Any]] = {
    "plain": lambda t: t,
    "torch.compile": below("_orig_mod."),
    "DDP": below("module."),
    "compile in DDP": below("module._orig_mod."),
    "DDP in compile": below("_orig_mod.module."),
    "compile per block": lambda t: {re.sub(r"^(blocks\.\d+\.)", r"\1_orig_mod.", n): v for n, v in t.items()},
    "FSDP": fsdp,
    "model.": below("model."),
    "backbone.": below("backbone."),
    "encoder.": below("encoder."),
    "net.": below("net."),
    "vit.": below("vit."),
    "student.backbone.": below("student.backbone."),
    "a name of one's own": below("my_wonderful.trunk_2."),
    "transformer.": below("transformer."),
    "state_dict": inside("state_dict"),
    "model": inside("model"),
    "model_state": inside("model_state"),
    "model_state_dict": inside("model_state_dict"),
    "checkpoint.model.state_dict": inside("checkpoint", "model", "state_dict"),
    "state_dict of module.model.": lambda t: inside("state_dict")(below("module.model.")(t)),
    "params_ema": inside("params_ema"),
    "a list": lambda t: [t],
    "with an optimizer": lambda t: {"model": t, "optimizer": optimizer_of(t), "epoch": 7, "best_acc": 0.5},
    "averages of torch": lambda t: {"n_averaged": torch.tensor(4), **below("module.")(t)},
    "DINO": dino,
    "Lightning": lightning,
    "timm's training script": timm_training,
    "the same model twice": lambda t: {"state_dict": t, "model": below("module.")(t)},
    "two, one with a decoder": lambda t: {**below("encoder.")(t), **below("decoder.")(t)},
    "MAE": lambda t: {"model": {**t, "mask_token": torch.ones(1, 1, 8), **below("decoder_")(t)}},
    "classifier.": below("classifier."),
    "EMA in capitals": lambda t: {"net": {n: v + 1 for n, v in t.items()}, "net_EMA": t},
    "a head of two layers": lambda t: {**t, "head.0.weight": torch.ones(3, 3), "pre_logits.fc.bias": torch.ones(2)},
}


@pytest.mark.parametrize("ending", ["pth", "ckpt"])
@pytest.mark.parametrize("wrapping", WRAPPED)
def test_prefixes_and_wrappers(tmp_path: Path, wrapping: str, ending: str) -> None:
    source, model = vit(), vit(seed=1)
    content = WRAPPED[wrapping](dict(source.state_dict()))
    if isinstance(content, list):
        content = {"models": content}
    torch.save(content, tmp_path / f"w.{ending}")
    report = started(tmp_path / f"w.{ending}", model)
    assert computes_the_same(model, source)
    assert report.init_effective == "pretrained" and len(report.transferred) == len(source.state_dict()) - 2
    assert f"  ✓ 迁移了 {len(report.transferred)} 个参数" in report.lines and "✓ 成功加载预训练权重" in report.lines


def test_what_was_decided_is_said(tmp_path: Path) -> None:
    tensors = dict(vit().state_dict())
    torch.save(timm_training({name: t.half() for name, t in tensors.items()}), tmp_path / "w.pth.tar")
    said = "\n".join(started(tmp_path / "w.pth.tar", vit(seed=1)).lines)
    assert "below 'state_dict_ema.' (the average; not 'state_dict.')" in said
    assert "optimizer (64)" in said and "30 tensors of float16 taken as float32" in said


def no_embed_of(source: Any, registers: int) -> VisionTransformer:
    """The same function with positions for patches alone, as DINOv2's and DeiT III's models in timm."""
    same = vit(no_embed_class=True, reg_tokens=registers)
    tensors = dict(source.state_dict())
    tokens, positions = tensors["cls_token"].clone(), tensors["pos_embed"]
    tensors["cls_token"] = tokens + positions[:, :1]
    if registers:
        tensors["reg_token"] = tensors["reg_token"] + positions[:, 1 : 1 + registers]
    same.load_state_dict(tensors | {"pos_embed": positions[:, 1 + registers :]})
    return same


@pytest.mark.parametrize("registers", [0, 2, 4])
@pytest.mark.parametrize("ours_embed", [True, False])
@pytest.mark.parametrize("theirs_embed", [True, False])
def test_prefix_tokens_are_fitted_exactly(tmp_path: Path, registers: int, ours_embed: bool, theirs_embed: bool) -> None:
    source = vit(reg_tokens=registers) if theirs_embed else no_embed_of(vit(reg_tokens=registers), registers)
    model = vit(seed=1, reg_tokens=registers, no_embed_class=not ours_embed)
    save_file(dict(source.state_dict()), tmp_path / "w.safetensors")
    report = started(tmp_path / "w.safetensors", model)
    assert computes_the_same(model, source, within=0.0 if ours_embed == theirs_embed else 2e-5)
    assert any("added to the tokens" in line for line in report.lines) == (ours_embed != theirs_embed)


def test_dinov2s_own_file_with_registers(tmp_path: Path) -> None:
    """Its table has a row for the class token and none for the registers, which have another name."""
    source = vit(reg_tokens=4, no_embed_class=True, init_values=1.0)
    theirs = dict(source.state_dict())
    first = torch.full((1, 1, 32), 0.25)
    theirs["pos_embed"] = torch.cat([first, theirs["pos_embed"]], dim=1)
    theirs |= {"cls_token": theirs["cls_token"] - first, "register_tokens": theirs.pop("reg_token")}
    torch.save({**theirs, "mask_token": torch.ones(1, 32)}, tmp_path / "w.pth")
    model = vit(seed=1, reg_tokens=4, no_embed_class=True, init_values=1.0)
    started(tmp_path / "w.pth", model)
    assert computes_the_same(model, source, within=2e-5)


KINDS: dict[str, dict[str, Any]] = {
    "LayerScale": {"init_values": 1.0},
    "pre-norm": {"pre_norm": True},
    "average pooling, fc_norm": {"global_pool": "avg"},
    "average pooling, norm": {"global_pool": "avg", "fc_norm": False},
    "map pooling": {"global_pool": "map", "class_token": False},
    "no class token": {"global_pool": "avg", "class_token": False},
    "no bias": {"qkv_bias": False, "proj_bias": False},
    "qk norm": {"qk_norm": True},
    "no final norm": {"final_norm": False},
}


@pytest.mark.parametrize("kind", KINDS)
def test_equal_models_of_every_kind(tmp_path: Path, kind: str) -> None:
    source, model = vit(**KINDS[kind]), vit(seed=1, **KINDS[kind])
    save_file(dict(source.state_dict()), tmp_path / "w.safetensors")
    started(tmp_path / "w.safetensors", model)
    assert computes_the_same(model, source)


def test_a_distilled_model_into_one(tmp_path: Path) -> None:
    source, model = vit(VisionTransformerDistilled), vit(VisionTransformerDistilled, seed=1)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    assert [name for name in started(tmp_path / "w.pth", model).reinitialised if "head" not in name] == []
    with torch.no_grad():
        assert torch.equal(model.forward_features(IMAGES), source.forward_features(IMAGES))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_other_floats_are_taken_and_said(tmp_path: Path, kind: torch.dtype, ending: str) -> None:
    source, model = vit(), vit(seed=1)
    tensors = {name: tensor.to(kind) for name, tensor in source.state_dict().items()}
    path = tmp_path / f"w.{ending}"
    save_file(tensors, path) if ending == "safetensors" else torch.save(tensors, path)
    report = started(path, model)
    source.load_state_dict(tensors)
    assert computes_the_same(model, source)
    assert f"30 tensors of {str(kind).removeprefix('torch.')} taken as float32" in " ".join(report.lines)


# other programs' names


def to_clip(source: VisionTransformer) -> Tensors:
    rules = (("patch_embed.proj.", "conv1."), ("pos_embed", "positional_embedding"), ("cls_token", "class_embedding"))
    rules += (("norm_pre.", "ln_pre."), ("blocks.", "transformer.resblocks."), (".norm1.", ".ln_1."))
    rules += ((".norm2.", ".ln_2."), ("attn.qkv.", "attn.in_proj_"), ("attn.proj.", "attn.out_proj."))
    rules += (("mlp.fc1.", "mlp.c_fc."), ("mlp.fc2.", "mlp.c_proj."))
    tensors = {}
    for name, tensor in source.state_dict().items():
        new = re.sub(r"^norm\.", "ln_post.", name)
        for ours, theirs in rules:
            new = new.replace(ours, theirs)
        if not name.startswith("head."):
            tensors[f"visual.{new}"] = tensor.reshape(tensor.shape[-1:] if name == "cls_token" else tensor.shape)
    tensors["visual.positional_embedding"] = tensors["visual.positional_embedding"][0]
    text = {"transformer.resblocks.0.ln_1.weight", "token_embedding.weight", "positional_embedding", "text_projection"}
    return {
        **tensors,
        **{name: torch.ones(4, 4) for name in text},
        "visual.proj": torch.ones(32, 8),
        "logit_scale": torch.ones(()),
    }


def to_hugging_face(source: VisionTransformer) -> Tensors:
    rules = (("patch_embed.proj.", "embeddings.patch_embeddings.projection."), ("cls_token", "embeddings.cls_token"))
    rules += (("pos_embed", "embeddings.position_embeddings"), ("blocks.", "encoder.layer."))
    rules += ((".norm1.", ".layernorm_before."), (".norm2.", ".layernorm_after."))
    rules += ((".attn.proj.", ".attention.output.dense."), (".mlp.fc1.", ".intermediate.dense."))
    rules += ((".mlp.fc2.", ".output.dense."),)
    tensors = {}
    for name, tensor in source.state_dict().items():
        if name.startswith("head."):
            tensors[f"classifier.{name[5:]}"] = tensor
            continue
        new = re.sub(r"^norm\.", "layernorm.", name)
        for ours, theirs in rules:
            new = new.replace(ours, theirs)
        parts = zip(("query", "key", "value"), tensor.chunk(3), strict=True) if ".qkv." in new else ((None, tensor),)
        for part, values in parts:
            tensors[f"vit.{new.replace('.attn.qkv.', f'.attention.attention.{part}.')}"] = values
    return tensors


@pytest.mark.parametrize("prefix", ["", "module."])
def test_openais_clip(tmp_path: Path, prefix: str) -> None:
    source, model = vit(pre_norm=True), vit(seed=1, pre_norm=True)
    torch.save(below(prefix)(to_clip(source)), tmp_path / "w.pt")
    assert "names of CLIP read as timm's" in " ".join(started(tmp_path / "w.pt", model).lines)
    assert computes_the_same(model, source)


def test_hugging_faces_vit(tmp_path: Path) -> None:
    source, model = vit(), vit(seed=1)
    save_file(
        {name: tensor.contiguous() for name, tensor in to_hugging_face(source).items()}, tmp_path / "model.safetensors"
    )
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 4, "num_hidden_layers": 2}))
    started(tmp_path / "model.safetensors", model)
    assert computes_the_same(model, source)


def test_torchvisions_vit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.VisionTransformer(16, 4, 2, 4, 32, 64, num_classes=5).eval()
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    model = vit()
    started(tmp_path / "w.pth", model)
    with torch.no_grad():
        theirs.heads = torch.nn.Identity()
        assert torch.allclose(model.forward_features(IMAGES)[:, 0], theirs(IMAGES), atol=1e-5)


def stacked(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Google's older names as big_vision's: one array for all blocks, other numbers."""
    out: dict[str, np.ndarray] = {}
    for original, array in arrays.items():
        name = original.replace("Transformer/posembed_input/pos_embedding", "pos_embedding")
        for old, new in (
            ("Attention_1/", "Attention_0/"),
            ("MlpBlock_3", "MlpBlock_0"),
            ("LayerNorm_2", "LayerNorm_1"),
        ):
            name = name.replace(old, new)
        if "encoderblock_0" in name:
            second = arrays[original.replace("encoderblock_0", "encoderblock_1")]
            out[name.replace("_0/", "/", 1)] = np.stack([array, second])
        elif "encoderblock_1" not in name:
            out[name] = array
    return out


@pytest.mark.parametrize("prefix", ["", "opt/target/", "params/", "params/img/"])
@pytest.mark.parametrize("form", [dict, stacked])
def test_googles_archives(tmp_path: Path, prefix: str, form: Callable[[Any], dict[str, np.ndarray]]) -> None:
    source, model = vit(), vit(seed=1)
    arrays = {f"{prefix}{name}": array for name, array in form(jax_layout(source)).items()}
    beside = {"opt/target/": ["opt/state/step"], "params/": ["opt/mu"], "params/img/": ["params/txt/x"]}
    np.savez(tmp_path / "w.npz", **arrays, **{name: np.ones((2, 2)) for name in beside.get(prefix, ())})
    started(tmp_path / "w.npz", model)
    assert computes_the_same(model, source)
    assert read_weights(tmp_path / "w.npz").heads == {4}


def test_a_plain_archive_of_timms_names(tmp_path: Path) -> None:
    source, model = vit(), vit(seed=1)
    np.savez_compressed(tmp_path / "w.npz", **{f"params/{n}": t.numpy() for n, t in source.state_dict().items()})
    started(tmp_path / "w.npz", model)
    assert computes_the_same(model, source)


def test_deits_own_names_of_layer_scale(tmp_path: Path) -> None:
    source, model = vit(init_values=1.0), vit(seed=1, init_values=1.0)
    torch.save(
        {"model": {re.sub(r"ls([12])\.gamma", r"gamma_\1", name): t for name, t in source.state_dict().items()}},
        tmp_path / "w.pth",
    )
    started(tmp_path / "w.pth", model)
    assert computes_the_same(model, source)


def test_our_own_dense_model_is_a_start(tmp_path: Path) -> None:
    source, model = vit(), vit(seed=1)
    save_file(dict(source.state_dict()), tmp_path / "model.safetensors")
    (tmp_path / "architecture.json").write_text(json.dumps({"arguments": {"num_heads": 4}, "heads": [4, 4]}))
    started(tmp_path / "model.safetensors", model)
    assert computes_the_same(model, source)


@pytest.mark.parametrize(
    ("arch", "how"),
    [
        ("vit_tiny_patch16_224", {}),
        ("flexivit_small", {"interpolation": "bilinear", "antialias": False}),
        ("vit_base_patch16_radio_v3", {"interpolation": "bilinear", "antialias": False, "align_corners": True}),
        ("vit_large_patch16_radio_v3", {"interpolation": "bilinear", "antialias": False, "align_corners": False}),
    ],
)
def test_positions_are_interpolated_as_timm_does_for_that_model(tmp_path: Path, arch: str, how: dict[str, Any]) -> None:
    source, model = vit(img_size=32), vit(seed=1)
    save_file(dict(source.state_dict()), tmp_path / "w.safetensors")
    assert started(tmp_path / "w.safetensors", model, arch=arch).resampled == ("pos_embed",)
    assert torch.equal(model.pos_embed, resample_abs_pos_embed(source.pos_embed, [4, 4], **how))


def test_timms_siglip_that_averages_leaves_the_pooling_out_by_rule(tmp_path: Path) -> None:
    source = vit(global_pool="map", class_token=False)
    average = {"global_pool": "avg", "fc_norm": False, "class_token": False}
    save_file(dict(source.state_dict()), tmp_path / "w.safetensors")
    report = started(tmp_path / "w.safetensors", vit(seed=1, **average), arch="vit_base_patch16_siglip_gap_224")
    assert sum(line.startswith("attn_pool.") for line in report.skipped) == 13


@pytest.mark.parametrize(("theirs", "ours", "how"), [(3, 1, "summed"), (1, 3, "scaled"), (3, 4, "scaled"), (3, 3, "")])
def test_other_channels_are_fitted_as_timm_does_and_said(tmp_path: Path, theirs: int, ours: int, how: str) -> None:
    source, model = vit(in_chans=theirs), vit(seed=1, in_chans=ours)
    save_file(dict(source.state_dict()), tmp_path / "w.safetensors")
    said = " ".join(started(tmp_path / "w.safetensors", model).lines)
    patches = source.patch_embed.proj.weight
    assert torch.equal(model.patch_embed.proj.weight, adapt_input_conv(ours, patches, base_chans=theirs))
    assert (f"of {theirs} channels for images of {ours}" in said and how in said) == (theirs != ours)


def test_tensors_that_share_memory_can_be_copied(tmp_path: Path) -> None:
    source = vit()
    np.savez(tmp_path / "w.npz", **stacked(jax_layout(source)))
    one = torch.cat([tensor.reshape(-1) for tensor in source.state_dict().values()])
    parts = one.split([tensor.numel() for tensor in source.state_dict().values()])
    views = {n: p.view(t.shape) for p, (n, t) in zip(parts, source.state_dict().items(), strict=True)}
    torch.save(views, tmp_path / "w.pth")
    for file in ("w.npz", "w.pth"):
        knobs = {"dataset": "cifar10", "arch": "vit_digits", "pretrained": True, "weights": str(tmp_path / file)}
        copy = copy_verified(resolve(RSSTConfig.from_knobs(knobs)), tmp_path / "sweep")
        started(copy.path or tmp_path, model := vit(seed=1))
        assert computes_the_same(model, source)


def test_a_sweeps_copy_says_what_the_file_said(tmp_path: Path) -> None:
    torch.save({"model_ema": vit().half().state_dict(), "args": {"num_heads": 4}}, tmp_path / "w.pth")
    knobs = {"dataset": "cifar10", "arch": "vit_digits", "pretrained": True, "weights": str(tmp_path / "w.pth")}
    copy = copy_verified(resolve(RSSTConfig.from_knobs(knobs)), tmp_path / "sweep")
    first, again = started(tmp_path / "w.pth", vit(seed=1)), started(copy.path or tmp_path, vit(seed=1))
    assert first.digest == again.digest
    assert first.lines[7:] == again.lines[7:] != ()
    assert read_weights(copy.path or tmp_path).heads == {4}
