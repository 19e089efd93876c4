"""Files that are refused: each in one line that names the file, the tensor or the reason, and what to do."""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer

from tests.trainables.rsst.model.test_weights_taken import below, computes_the_same, started, vit
from trainables.__main__ import main
from trainables.rsst.config import ConfigError
from trainables.rsst.model.weight_files import read_weights

Tensors = dict[str, torch.Tensor]
BLOCK = "blocks.1.mlp.fc1.weight"


def refusal(path: Path, model: VisionTransformer | None = None, **knobs: Any) -> str:
    """The one line that says why, which names the file; the model is as it was."""
    model = vit() if model is None else model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ConfigError) as caught:
        started(path, model, **knobs)
    line = str(caught.value)
    assert caught.value.key == "weights" and "\n" not in line, line
    assert path.name in line and len(line) < 500
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    return line


# (the file's model, the model that is to start from it, what the line says)
OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "8 blocks into 6": (
        {"depth": 8},
        {"depth": 6},
        r"blocks\.6\.\S+ \(and 23 more\) of the file have no place",
    ),
    "6 blocks into 8": ({"depth": 6}, {"depth": 8}, r"blocks\.6\.\S+ \(and 23 more\) of the model have no"),
    "another width": (
        {"embed_dim": 64},
        {},
        r"\(1, 1, 32\) in the model and \(1, 1, 64\).*embed dim 64",
    ),
    "another MLP": ({"mlp_ratio": 4.0}, {}, r"blocks\.0\.mlp\.fc1\.weight is \(64, 32\) .* \(128, 32\).*MLP 128"),
    "LayerScale into none": (
        {"init_values": 1.0},
        {},
        r"blocks\.0\.ls1\.gamma \(and 3 more\) of the file have no",
    ),
    "none into LayerScale": ({}, {"init_values": 1.0}, r"blocks\.0\.ls1\.gamma \(and 3 more\) of the model have no"),
    "no qkv bias": ({"qkv_bias": False}, {}, r"attn\.qkv\.bias \(and 1 more\) of the model have no"),
    "a qkv bias too many": ({}, {"qkv_bias": False}, r"attn\.qkv\.bias \(and 1 more\) of the file have no place"),
    "no proj bias": ({"proj_bias": False}, {}, r"attn\.proj\.bias"),
    "q_norm into none": ({"qk_norm": True}, {}, r"attn\.\w_norm\."),
    "none into q_norm": ({}, {"qk_norm": True}, r"attn\.\w_norm\."),
    "registers into none": ({"reg_tokens": 4}, {}, r"reg_token of the file has no place"),
    "none into registers": ({}, {"reg_tokens": 4}, r"reg_token of the model has no source"),
    "4 registers into 2": ({"reg_tokens": 4}, {"reg_tokens": 2}, r"reg_token is \(1, 2, 32\).*\(1, 4, 32\)"),
    "no class token": (
        {"class_token": False, "global_pool": "map"},
        {},
        r"cls_token of the model has no source|attn_pool",
    ),
    "a class token too many": (
        {"fc_norm": False},
        {"class_token": False, "global_pool": "avg"},
        r"cls_token",
    ),
    "norm into fc_norm": ({}, {"global_pool": "avg"}, r"norm\.bias \(and 1 more\) of the file have no place"),
    "fc_norm into norm": ({"global_pool": "avg"}, {}, r"fc_norm\.bias \(and 1 more\) of the file have no place"),
    "map pooling into none": ({"global_pool": "map"}, {}, r"attn_pool\."),
    "none into map pooling": ({}, {"global_pool": "map"}, r"attn_pool\."),
    "pre-norm into none": ({"pre_norm": True}, {}, r"norm_pre\.bias"),
    "none into pre-norm": ({}, {"pre_norm": True}, r"patch_embed\.proj\.bias|norm_pre\.weight"),
    "no final norm": ({"final_norm": False}, {}, r"norm\.bias"),
    "no positions": ({"pos_embed": "none"}, {}, r"pos_embed of the model has no source"),
    "positions too many": ({}, {"pos_embed": "none"}, r"pos_embed of the file has no place"),
    "a grid that is no square": ({"img_size": (16, 32)}, {}, r"pos_embed of 33 tokens is no square grid"),
}


@pytest.mark.parametrize("how", ["scratch", "error"])
@pytest.mark.parametrize("case", OTHERS)
def test_weights_of_another_model(tmp_path: Path, case: str, how: str) -> None:
    theirs, ours, reason = OTHERS[case]
    save_file(dict(vit(**theirs).state_dict()), tmp_path / "w.safetensors")
    line = refusal(tmp_path / "w.safetensors", vit(seed=1, **ours), on_missing_weights=how)
    assert re.search(reason, line) and "give the arch that it is of, or another file" in line


def test_distillation_tokens_into_none_and_none_into_distillation(tmp_path: Path) -> None:
    torch.save(vit(VisionTransformerDistilled).state_dict(), tmp_path / "dist.pth")
    torch.save(vit().state_dict(), tmp_path / "plain.pth")
    assert "dist_token of the file has no place" in refusal(tmp_path / "dist.pth")
    line = refusal(tmp_path / "plain.pth", vit(VisionTransformerDistilled))
    assert "dist_token of the model has no source" in line


def test_what_patch_embed_reinit_leaves_and_what_not(tmp_path: Path) -> None:
    """The patch embedding needs no source then; all else does."""
    source = vit()
    without = {name: t for name, t in source.state_dict().items() if not name.startswith("patch_embed.")}
    save_file(without, tmp_path / "w.safetensors")
    assert re.search(r"patch_embed\.proj\.\w+ \(and 1 more\) of the model have no", refusal(tmp_path / "w.safetensors"))
    model = vit(seed=1)
    model.patch_embed.load_state_dict(source.patch_embed.state_dict())
    started(tmp_path / "w.safetensors", model, patch_embed="reinit")
    assert computes_the_same(model, source)
    del without["norm.bias"]
    save_file(without, tmp_path / "w.safetensors")
    assert "norm.bias of the model has no source" in refusal(tmp_path / "w.safetensors", patch_embed="reinit")


def changed(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Tensors], Any]:
    return lambda tensors: {**tensors, name: change(tensors[name])}


def at(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def put(tensor: torch.Tensor) -> torch.Tensor:
        new = tensor.clone()
        new[0, 3] = value
        return new

    return put


def quantised(tensor: torch.Tensor) -> torch.Tensor:
    return torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)


class Own:
    """What a checkpoint must not hold."""


SPOILT: dict[str, tuple[Callable[[Tensors], Any], str]] = {
    "NaN": (changed(BLOCK, at(float("nan"))), r"blocks\.1\.mlp\.fc1\.weight holds NaN .* \(1 of 2048\)"),
    "infinite": (changed(BLOCK, at(float("-inf"))), r"fc1\.weight holds NaN or infinite"),
    "too large for float32": (changed(BLOCK, lambda t: at(1e300)(t.double())), r"fc1\.weight holds NaN or infinite"),
    "NaN below a prefix": (lambda t: below("module.")(changed(BLOCK, at(float("nan")))(t)), r"module\.blocks\.1\.mlp"),
    "whole numbers": (changed(BLOCK, lambda t: t.to(torch.int64)), r"fc1\.weight is of type int64"),
    "bytes": (changed("norm.bias", lambda t: t.to(torch.uint8)), r"norm\.bias is of type uint8"),
    "truth values": (changed("cls_token", lambda t: t > 0), r"cls_token is of type bool"),
    "complex": (changed(BLOCK, lambda t: t.to(torch.complex64)), r"fc1\.weight is of type complex64"),
    "float8": (changed(BLOCK, lambda t: t.to(torch.float8_e4m3fn)), r"fc1\.weight is of type float8"),
    "quantised": (changed(BLOCK, quantised), r"fc1\.weight is of type qint8"),
    "sparse": (changed(BLOCK, torch.Tensor.to_sparse), r"fc1\.weight is sparse"),
    "compressed rows": (changed(BLOCK, torch.Tensor.to_sparse_csr), r"fc1\.weight is sparse"),
    "no numbers": (changed(BLOCK, lambda t: t.to("meta")), r"fc1\.weight has a shape but no numbers"),
    "one number as many": (changed(BLOCK, lambda t: t[:1, :1].expand(10**6, 10**6)), r"fc1\.weight is larger than"),
    "a sparse head": (changed("head.weight", torch.Tensor.to_sparse), r"head\.weight is sparse"),
    "a quantised head": (changed("head.weight", quantised), r"head\.weight is of type qint8"),
    "all zero": (lambda t: {name: torch.zeros_like(tensor) for name, tensor in t.items()}, r"every number .* is 0"),
    "a tensor of nobody": (lambda t: {**t, "lora.A": torch.ones(2, 2)}, r"lora\.A of the file has no place"),
    "a tensor beside the model": (lambda t: {"model": t, "adapter": {"A": torch.ones(2)}}, r"adapter\.A stands beside"),
    "no tensor": (lambda t: {"epoch": 3}, r"there is no tensor in it"),
    "a bare tensor": (lambda t: t[BLOCK], r"it holds a Tensor"),
    "a list of tensors": (lambda t: list(t.values()), r"it holds a list"),
    "student and teacher": (
        lambda t: {"student": t, "teacher": {name: tensor + 1 for name, tensor in t.items()}},
        r"different models below 'student\.' and 'teacher\.'; save the one you mean",
    ),
    "two wrappers": (
        lambda t: {"model": t, "state_dict": {name: tensor + 1 for name, tensor in t.items()}},
        r"different models below 'model\.' and 'state_dict\.'",
    ),
    "two averages": (
        lambda t: {"model_ema": t, "state_dict_ema": {name: tensor + 1 for name, tensor in t.items()}},
        r"different models below 'model_ema\.' and 'state_dict_ema\.'",
    ),
    "twice by one name": (lambda t: {**t, "_orig_mod.norm.bias": t["norm.bias"]}, r"two .* called norm\.bias"),
    "twice by one address": (lambda t: {"a.b": t[BLOCK], "a": {"b": t[BLOCK]}}, r"two of its tensors are called a\.b"),
    "positions of four dimensions": (changed("pos_embed", lambda t: t[None]), r"pos_embed has 4 dimensions"),
    "a flat patch embedding": (
        changed("patch_embed.proj.weight", lambda t: t.flatten(1)),
        r"patch_embed\.proj\.weight has 2 dimensions in the file",
    ),
    "a whole module": (lambda t: {"model": torch.nn.Linear(2, 2)}, r"objects \(torch\.nn\.\S+Linear\)"),
    "hyper-parameters as objects": (lambda t: {"state_dict": t, "hyper_parameters": Own()}, r"objects \(.*Own\)"),
    "a NumPy number": (lambda t: {"model": t, "best": np.float64(3)}, r"Python objects \(numpy\."),
    "a ResNet": (lambda t: {"layer1.0.conv1.weight": t[BLOCK]}, r"of a ResNet"),
    "OpenMMLab": (lambda t: {"backbone.layers.0.ln1.weight": t["norm.bias"]}, r"of OpenMMLab"),
    "Hugging Face's BERT": (lambda t: {"bert.encoder.layer.0.output.dense.weight": t[BLOCK]}, r"another Hugging Face"),
    "Hugging Face's CLIP": (
        lambda t: {"vision_model.encoder.layers.0.self_attn.q_proj.weight": t[BLOCK]},
        r"of Hugging Face's CLIP",
    ),
    "BEiT": (
        lambda t: {**t, "blocks.0.attn.q_bias": t["norm.bias"], "blocks.0.attn.v_bias": t["norm.bias"]},
        r"blocks\.0\.attn\.q_bias \(and 1 more\) of the file have no place",
    ),
    "other names": (lambda t: {f"layer_{i}": tensor for i, tensor in enumerate(t.values())}, r"such as layer_0"),
    "numbers as names": (lambda t: dict(enumerate(t.values())), r"such as 0"),
    "other heads": (lambda t: {"model": t, "args": {"num_heads": 8}}, r"the model has 4 heads, w\.pth says 8"),
    "other heads, HF": (lambda t: {"model": t, "config": {"vit": {"num_attention_heads": 2}}}, r"w\.pth says 2"),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILT)
def test_spoilt_checkpoints(tmp_path: Path, case: str) -> None:
    spoil, reason = SPOILT[case]
    torch.save(spoil(dict(vit().state_dict())), tmp_path / "w.pth")
    assert re.search(reason, refusal(tmp_path / "w.pth"))


def test_nan_in_a_head_that_is_left_out_does_not_matter(tmp_path: Path) -> None:
    torch.save(changed("head.weight", at(float("nan")))(dict(vit().state_dict())), tmp_path / "w.pth")
    assert started(tmp_path / "w.pth", vit(seed=1)).init_effective == "pretrained"


def test_heads_that_a_safetensors_file_or_its_neighbour_names(tmp_path: Path) -> None:
    tensors = dict(vit().state_dict())
    save_file(tensors, tmp_path / "a.safetensors", metadata={"num_heads": "2"})
    assert "the model has 4 heads, a.safetensors says 2" in refusal(tmp_path / "a.safetensors")
    save_file(tensors, tmp_path / "model.safetensors")
    for name, content in (("config.json", {"num_attention_heads": 8}), ("architecture.json", {"heads": [2, 2]})):
        (tmp_path / name).write_text(json.dumps(content))
        assert re.search(rf"the model has 4 heads, {name} says [28]", refusal(tmp_path / "model.safetensors"))
        (tmp_path / name).unlink()


@pytest.mark.parametrize(("heads", "refuses"), [(4, True), (3, False)])
def test_heads_that_a_timm_name_in_the_file_tells(tmp_path: Path, heads: int, refuses: bool) -> None:
    """deit_tiny has 3 heads; a name of another size, such as a teacher's, tells nothing."""
    sizes = {"embed_dim": 192, "depth": 12, "num_heads": heads}
    source = vit(num_heads=3, **{k: v for k, v in sizes.items() if k != "num_heads"})
    args = argparse.Namespace(model="deit_tiny_patch16_224", teacher=argparse.Namespace(arch="vit_base_patch16_224"))
    torch.save({"state_dict": source.state_dict(), "args": args}, tmp_path / "w.pth")
    if refuses:
        line = refusal(tmp_path / "w.pth", vit(**sizes))
        assert f"the model has {heads} heads, the timm name in w.pth says 3" in line
    else:
        assert started(tmp_path / "w.pth", vit(**sizes)).init_effective == "pretrained"


def test_our_own_pruned_model_is_named(tmp_path: Path) -> None:
    tensors = dict(vit().state_dict())
    narrow = {"attn.qkv.weight": 0, "attn.qkv.bias": 0}
    for name, dim in narrow.items():
        tensors[f"blocks.1.{name}"] = tensors[f"blocks.1.{name}"].narrow(dim, 0, 48)
    tensors["blocks.1.attn.proj.weight"] = tensors["blocks.1.attn.proj.weight"][:, :16].contiguous()
    save_file(tensors, tmp_path / "model.safetensors")
    reason = r"blocks\.1\.attn\.qkv\.weight is \(96, 32\) .* \(48, 32\).*a pruned model is no start: give the dense one"
    assert re.search(reason, refusal(tmp_path / "model.safetensors"))
    save_file(dict(vit(mlp_ratio=1.0).state_dict()), tmp_path / "model.safetensors")
    (tmp_path / "architecture.json").write_text(json.dumps({"heads": [4, 4], "neurons": [32, 32]}))
    line = refusal(tmp_path / "model.safetensors")
    assert "MLP 32, exported here (if it was pruned, give the dense one)" in line


# archives of arrays


ARRAYS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "big-endian": (lambda a: a.astype(">f4"), r"blocks\.1\.mlp\.fc1\.weight is of type >f4"),
    "long double": (lambda a: a.astype(np.longdouble), r"fc1\.weight is of type float128"),
    "objects": (lambda a: a.astype(object), r"Python objects"),
    "words": (lambda a: a.astype("U8"), r"fc1\.weight is of type <U8"),
    "complex": (lambda a: a.astype(np.complex64), r"fc1\.weight is of type complex64"),
    "whole numbers": (lambda a: a.astype(np.int32), r"fc1\.weight is of type int32"),
    "NaN": (lambda a: a * np.nan, r"fc1\.weight holds NaN"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_spoilt_archives(tmp_path: Path, case: str) -> None:
    spoil, reason = ARRAYS[case]
    arrays = {name: tensor.numpy() for name, tensor in vit().state_dict().items()}
    np.savez(tmp_path / "w.npz", **{**arrays, BLOCK: spoil(arrays[BLOCK])})
    assert re.search(reason, refusal(tmp_path / "w.npz"))


def test_a_google_archive_that_is_not_whole(tmp_path: Path) -> None:
    from tests.trainables.rsst.model.test_weight_files import jax_layout

    arrays = jax_layout(vit())
    query = "Transformer/encoderblock_1/MultiHeadDotProductAttention_1/query/kernel"
    np.savez(tmp_path / "a.npz", **{name: array for name, array in arrays.items() if name != query})
    assert re.search(r"no whole Google's JAX archive: .*blocks\.1\.attn\.query\.weight", refusal(tmp_path / "a.npz"))
    np.savez(tmp_path / "b.npz", **arrays, **{"Transformer/adapter/kernel": np.ones((2, 2), np.float32)})
    assert "Transformer.adapter.weight of the file has no place" in refusal(tmp_path / "b.npz")
    assert "has no place" in refusal(tmp_path / "b.npz", vit(num_heads=8))
    np.savez(tmp_path / "c.npz", **arrays)
    assert "the model has 8 heads, c.npz says 4" in refusal(tmp_path / "c.npz", vit(num_heads=8))


# files that are none


def bomb(path: Path) -> None:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("w.npy", "w") as entry,
    ):
        for _ in range(300):
            entry.write(bytes(1 << 20))


def cut(path: Path, share: float = 0.7) -> None:
    if path.suffix == ".npz":
        np.savez(path, **{name: t.numpy() for name, t in vit().state_dict().items()})
    elif path.suffix == ".safetensors":
        save_file(dict(vit().state_dict()), path)
    else:
        torch.save(vit().state_dict(), path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def boasting(path: Path) -> None:
    """An array whose header promises more numbers than there are."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }".ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64))


def scripted(path: Path) -> None:
    torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)).save(str(path))


def writes(content: bytes) -> Callable[[Path], None]:
    return lambda path: (path.write_bytes(content), None)[1]


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
HOSTILE: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "empty": ("w.pth", writes(b""), r"it is empty"),
    "empty archive": ("w.npz", writes(b""), r"it is empty"),
    "zeros": ("w.pth", writes(bytes(5000)), r"zero bytes only"),
    "zeros, safetensors": ("w.safetensors", writes(bytes(5000)), r"zero bytes only"),
    "zeros, npz": ("w.npz", writes(bytes(5000)), r"zero bytes only"),
    "words": ("w.pth", writes(b"hello, world\n" * 9), r"damaged or of another format"),
    "a huge header": ("w.safetensors", writes(b"\xff" * 8 + b"{}"), r"damaged or of another format"),
    "a folder": ("w.pth", Path.mkdir, r"a folder: name the file in it"),
    "a FIFO": ("w.pth", os.mkfifo, r"no regular file"),
    "a device": ("w.pth", lambda path: path.symlink_to("/dev/zero"), r"no regular file"),
    "a link to nothing": ("w.pth", lambda path: path.symlink_to(path.with_name("gone")), r"there is no such file"),
    "a link to itself": ("w.pth", lambda path: path.symlink_to(path), r"symbolic links"),
    "a cut .pth": ("w.pth", cut, r"damaged or of another format"),
    "a cut .ckpt": ("w.ckpt", cut, r"damaged or of another format"),
    "a cut archive": ("w.npz", cut, r"damaged or of another format"),
    "a cut safetensors": ("w.safetensors", cut, r"damaged or of another format"),
    "a bomb": ("w.npz", bomb, r"would unpack to 300 MiB"),
    "a bomb in a .pth": ("w.pth", bomb, r"would unpack to 300 MiB"),
    "a Git LFS pointer": ("w.safetensors", writes(LFS), r"Git LFS pointer.*git lfs pull"),
    "a Git LFS pointer, .pth": ("w.pth", writes(LFS), r"Git LFS pointer"),
    "an error page": ("w.pth", writes(b"\n<!DOCTYPE html><html>404</html>"), r"web page"),
    "an error page, npz": ("w.npz", writes(b"<HTML>404"), r"web page"),
    "an XML answer": ("w.bin", writes(b"<?xml version='1.0'?><Error>"), r"XML page"),
    "HDF5": ("w.pth", writes(b"\x89HDF\r\n\x1a\n" + b"x" * 99), r"HDF5"),
    "TorchScript": ("w.pt", scripted, r"TorchScript"),
    "an array that boasts": ("w.npz", boasting, r"damaged or of another format"),
    "a .pth called .npz": ("w.npz", lambda path: torch.save({"a": torch.ones(2)}, path), r"is no array"),
    "an .npz called .pth": ("w.pth", lambda path: np.savez(path.open("wb"), a=np.ones(2)), r"damaged or of another"),
    "another ending": ("w.onnx", writes(b"x" * 99), r"ends in \.onnx"),
    "no ending": ("weights", writes(b"x" * 99), r"ends in nothing"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files(tmp_path: Path, case: str) -> None:
    name, make, reason = HOSTILE[case]
    make(tmp_path / name)
    assert re.search(reason, refusal(tmp_path / name))


@pytest.mark.parametrize("ending", ["pth", "npz", "safetensors"])
def test_damaged_bytes_are_one_line_or_a_model(tmp_path: Path, ending: str) -> None:
    """Bytes changed, lost and added at seeded places: nothing but a ConfigError comes out, and mostly that."""
    cut(path := tmp_path / f"w.{ending}", share=1.0)
    whole, chosen, read = path.read_bytes(), random.Random(7), 0
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(chosen.choice((1, 2, 8, 40))):
            place = chosen.randrange(chosen.choice((3000, len(damaged))))
            kind = chosen.randrange(3)
            damaged[place : place + (0, 1, 20)[kind]] = bytes(chosen.randrange(256) for _ in range((8, 1, 0)[kind]))
        path.write_bytes(damaged)
        with suppress(ConfigError):
            read_weights(path)
            read += 1
    assert read < 60


def test_a_container_that_holds_itself_or_doubles_itself_ends(tmp_path: Path) -> None:
    content: dict[str, Any] = {"model": dict(vit().state_dict())}
    content["self"] = content
    laughs: Any = [1]
    for _ in range(60):
        laughs = [laughs, laughs]
    content["laughs"] = laughs
    torch.save(content, tmp_path / "w.pth")
    assert started(tmp_path / "w.pth", vit(seed=1)).init_effective == "pretrained"


@pytest.mark.parametrize("strict", [[], ["--strict"]])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("MISSING", "there is no such file"),
        ("~/none.pth", "there is no such file"),
        ("8.safetensors", "blocks.6."),
    ],
)
def test_the_command_line_refuses_before_anything_is_written(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], strict: list[str], name: str, reason: str
) -> None:
    save_file(dict(vit(depth=8, embed_dim=64, patch_size=1, img_size=8).state_dict()), tmp_path / "8.safetensors")
    named = str(tmp_path / name) if name.startswith("8") else name
    flags = ["--dataset", "digits", "--pretrained", "--weights", named, "--save_dir", str(tmp_path / "run"), *strict]
    with pytest.MonkeyPatch.context() as patch:
        from trainables.rsst.config import models

        patch.setitem(models.NAMED, "vit_digits", (64, 6, 4, 2.0, None))
        assert main(flags) == 2
    errors = capfd.readouterr().err.splitlines()
    assert len(errors) == 1 and errors[0].startswith("error: weights = ") and reason in errors[0]
    assert not (tmp_path / "run").exists()
