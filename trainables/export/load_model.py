"""Loads the model that lies beside this file, and classifies images as its training did; copied into every export.

In: model.safetensors, architecture.json, preprocessing.json; image files. Out: a timm model; classes.
Needs torch, timm, safetensors, numpy and Pillow, and nothing of the program that trained the model:

    python load_model.py IMAGE …
    from load_model import inputs, load; logits = load()(inputs(["a.png", "b.png"]))
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file
from timm.layers import Mlp
from timm.models.vision_transformer import Attention, VisionTransformer

HERE = Path(__file__).parent


def load(folder: Path | str = HERE) -> VisionTransformer:
    """A timm VisionTransformer with the heads and neurons that are left, in eval mode, on the CPU.

    Raises:
        OSError: model.safetensors or architecture.json is missing.
        RuntimeError: they do not fit each other.
    """
    folder = Path(folder)
    arch = json.loads((folder / "architecture.json").read_text(encoding="utf-8"))
    name, sizes = arch["timm_name"], arch["arguments"]
    model: Any = timm.create_model(name, pretrained=False, **sizes) if name else VisionTransformer(**sizes)
    for block, heads, neurons in zip(model.blocks, arch["heads"], arch["neurons"], strict=True):
        old = block.attn
        if old.num_heads != heads:
            block.attn = Attention(old.qkv.in_features, num_heads=heads, attn_head_dim=arch["head_dim"],
                                   dim_out=old.proj.out_features, qkv_bias=old.qkv.bias is not None,
                                   proj_bias=old.proj.bias is not None)  # fmt: skip
            block.attn.q_norm, block.attn.k_norm = old.q_norm, old.k_norm
        full = block.mlp
        if full.fc1.out_features != neurons:
            bias = (full.fc1.bias is not None, full.fc2.bias is not None)
            block.mlp = Mlp(full.fc1.in_features, neurons, full.fc2.out_features, type(full.act), bias=bias)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval()


def preprocessing(folder: Path | str = HERE) -> dict[str, Any]:
    """What is known of the images that the model was trained on: classes in order, mean, std, how they were resized."""
    return json.loads((Path(folder) / "preprocessing.json").read_text(encoding="utf-8"))


def inputs(images: Iterable[Path | str], folder: Path | str = HERE) -> torch.Tensor:
    """What the model takes, float32 (B, C, H, W), of image files."""
    about = preprocessing(folder)
    pixels = torch.stack([pixels_of(image, about) for image in images])
    mean, std = (torch.tensor(about[name]).reshape(-1, 1, 1) for name in ("mean", "std"))
    return (pixels.float() / 255.0 - mean) / std


def pixels_of(path: Path | str, about: dict[str, Any]) -> torch.Tensor:
    """An image file as the training saw it, uint8 (C, side, side)."""
    side, grey = about["img_size"], about["in_chans"] == 1
    with Image.open(path) as image:
        upright = eight_bit(ImageOps.exif_transpose(image), about["white"]).convert("L" if grey else "RGB")
    if about["resize"] == "cover":
        upright = ImageOps.fit(upright, (side, side), Image.Resampling.BILINEAR)
    array = np.array(upright, dtype=np.uint8)
    pixels = torch.from_numpy(array[None] if grey else array.transpose(2, 0, 1))
    if pixels.shape[1:] == (side, side):
        return pixels
    if about["resize"] != "stretch":
        raise ValueError(f"{path}: the model takes images of {side} x {side} pixels, this one is {upright.size}")
    scaled = torch.nn.functional.interpolate(pixels[None].float(), size=(side, side), mode="bilinear", antialias=True)
    return scaled[0].round().clamp(0, 255).to(torch.uint8)


def eight_bit(image: Image.Image, white: dict[str, float]) -> Image.Image:
    """8 bits a channel: larger values scaled as those of the training were, what is transparent laid on white."""
    if image.mode == "F" or image.mode.startswith("I"):
        kind = "floats" if image.mode == "F" else "integers"
        if kind not in white:
            raise ValueError(f"the model was trained on no images of {kind} (mode {image.mode}): save it with 8 bits")
        scaled = np.rint(np.asarray(image).astype(np.float64) * (255.0 / white[kind]))
        return Image.fromarray(scaled.clip(0, 255).astype(np.uint8))
    if image.mode in ("La", "RGBa", "PA"):
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    if not image.has_transparency_data:
        return image
    full = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", full.size, "white"), full).convert("RGB")


def main(images: list[str]) -> None:
    """Print the class of each image file, and how sure the model is of it."""
    classes = preprocessing()["classes"]
    with torch.no_grad():
        chances = load()(inputs(images)).softmax(dim=1)
    for image, (chance, number) in zip(images, zip(*chances.max(dim=1), strict=True), strict=True):
        print(f"{image}: {classes[int(number)]} ({float(chance):.4f})")


if __name__ == "__main__":
    main(sys.argv[1:])
