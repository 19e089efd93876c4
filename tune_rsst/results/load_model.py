"""Loads the compacted model that lies beside this file; copied into every export. Needs torch, timm and safetensors.

from load_model import load; logits = load()((pixels - mean) / std), where pixels are float32 (B, C, H, W) in [0, 1] and
mean and std stand in preprocessing.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import timm
from safetensors.torch import load_file
from timm.layers import Mlp
from timm.models.vision_transformer import Attention, VisionTransformer


def load(folder: Path | str = Path(__file__).parent) -> VisionTransformer:
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
