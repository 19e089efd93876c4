"""Each kind of weights file that is read, and each that is refused."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

from trainables.rsst.config import ConfigError
from trainables.rsst.model.weight_files import Weights, read_weights

TENSORS = {"blocks.0.norm1.weight": torch.arange(6.0).reshape(2, 3), "blocks.0.norm1.bias": torch.ones(2)}


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def same(weights: Weights) -> bool:
    read = weights.tensors
    return read.keys() == TENSORS.keys() and all(torch.equal(read[name], TENSORS[name]) for name in TENSORS)


@pytest.mark.parametrize("nested", [None, "state_dict", "model", "module."])
@pytest.mark.parametrize("ending", ["pth", "pt", "bin", "pth.tar"])
def test_torch_files(tmp_path: Path, nested: str | None, ending: str) -> None:
    content: Any = {nested: TENSORS, "epoch": 1} if nested else TENSORS
    if nested == "module.":
        content = {f"module.{name}": tensor for name, tensor in TENSORS.items()}
    torch.save(content, tmp_path / f"w.{ending}")
    assert same(read_weights(tmp_path / f"w.{ending}"))


def test_safetensors_and_plain_numpy(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "w.safetensors")
    np.savez(tmp_path / "w.npz", **{name: tensor.numpy() for name, tensor in TENSORS.items()})
    assert same(read_weights(tmp_path / "w.safetensors")) and same(read_weights(tmp_path / "w.npz"))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_torch_file_that_needs_unpickling_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    torch.save({"w": Bomb(tmp_path / "ran")}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ConfigError, match=r"weights = .*w\.pth.*would run code"):
        read_weights(tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


def test_a_bare_pickle_and_an_object_array_are_refused_and_not_run(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    np.savez(tmp_path / "w.npz", a=np.array([Bomb(tmp_path / "ran")], dtype=object))
    for name in ("w.pth", "w.npz"):
        with pytest.raises(ConfigError, match="weights = "):
            read_weights(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.npz"])
def test_a_truncated_or_foreign_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    save_file(TENSORS, tmp_path / "w.safetensors")
    torch.save(TENSORS, tmp_path / "w.pth")
    np.savez(tmp_path / "w.npz", **{k: v.numpy() for k, v in TENSORS.items()})
    path = tmp_path / name
    for content in (path.read_bytes()[:-40], b"", b"hello, world\n"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=rf"weights = .*{name}.*damaged or of another format"):
            read_weights(path)


def test_a_file_without_tensors_and_an_unknown_ending_are_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 1}, tmp_path / "w.pth")
    torch.save(torch.ones(2), tmp_path / "one.pth")
    (tmp_path / "w.h5").write_bytes(b"x")
    for name, reason in (("w.pth", "no tensor"), ("one.pth", "a Tensor"), ("w.h5", r"ends in \.h5")):
        with pytest.raises(ConfigError, match=reason):
            read_weights(tmp_path / name)


def jax_layout(model: VisionTransformer) -> dict[str, np.ndarray]:
    """A timm ViT's tensors under the names and in the shapes of Google's archives."""
    t = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    dim, heads = model.embed_dim, model.blocks[0].attn.num_heads
    out = {
        "embedding/kernel": t["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": t["patch_embed.proj.bias"],
        "cls": t["cls_token"],
        "Transformer/posembed_input/pos_embedding": t["pos_embed"],
        "Transformer/encoder_norm/scale": t["norm.weight"],
        "Transformer/encoder_norm/bias": t["norm.bias"],
        "head/kernel": t["head.weight"].T,
        "head/bias": t["head.bias"],
    }
    for i in range(len(model.blocks)):
        theirs, ours = f"Transformer/encoderblock_{i}/", f"blocks.{i}."
        attention = f"{theirs}MultiHeadDotProductAttention_1/"
        for j, part in enumerate(("query", "key", "value")):
            rows = slice(j * dim, (j + 1) * dim)
            out[f"{attention}{part}/kernel"] = t[f"{ours}attn.qkv.weight"][rows].T.reshape(dim, heads, -1)
            out[f"{attention}{part}/bias"] = t[f"{ours}attn.qkv.bias"][rows].reshape(heads, -1)
        out[f"{attention}out/kernel"] = t[f"{ours}attn.proj.weight"].T.reshape(heads, -1, dim)
        out[f"{attention}out/bias"] = t[f"{ours}attn.proj.bias"]
        for norm, name in (("LayerNorm_0", "norm1"), ("LayerNorm_2", "norm2")):
            out[f"{theirs}{norm}/scale"] = t[f"{ours}{name}.weight"]
            out[f"{theirs}{norm}/bias"] = t[f"{ours}{name}.bias"]
        for j in (0, 1):
            out[f"{theirs}MlpBlock_3/Dense_{j}/kernel"] = t[f"{ours}mlp.fc{j + 1}.weight"].T
            out[f"{theirs}MlpBlock_3/Dense_{j}/bias"] = t[f"{ours}mlp.fc{j + 1}.bias"]
    return out


def test_googles_archives_are_converted_by_timm(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = VisionTransformer(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=7)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    np.savez(tmp_path / "w.npz", **jax_layout(model))
    read = read_weights(tmp_path / "w.npz").tensors
    wanted = model.state_dict()
    assert read.keys() == wanted.keys()
    assert all(torch.equal(read[name], wanted[name]) for name in wanted)
