"""Names of a ViT's tensors in other programs, read as timm's.

In: the tensors of one ViT by the names of the program that wrote them.
Out: the same tensors by timm's names: renamed, split and joined, no number changed.
Tensors that no rule renames keep their name, so that whoever compares them with a model finds them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """`rules`: (pattern, replacement) pairs, all applied in order."""

    title: str
    rules: tuple[tuple[str, str], ...]


TIMM = Layout(  # DINOv2's and DeiT III's own files differ in these two
    "timm", ((r"^register_tokens$", "reg_token"), (r"^(blocks\.\d+)\.gamma_([12])$", r"\1.ls\2.gamma"))
)
CLIP = Layout(
    "CLIP",
    (
        (r"^conv1\.", "patch_embed.proj."),
        (r"^class_embedding$", "cls_token"),
        (r"^positional_embedding$", "pos_embed"),
        (r"^proj$", "head.proj"),
        (r"^ln_pre\.", "norm_pre."),
        (r"^ln_post\.", "norm."),
        (r"^transformer\.resblocks\.", "blocks."),
        (r"\.ln_([12])\.", r".norm\1."),
        (r"\.attn\.in_proj_", ".attn.qkv."),
        (r"\.attn\.out_proj\.", ".attn.proj."),
        (r"\.mlp\.c_fc\.", ".mlp.fc1."),
        (r"\.mlp\.c_proj\.", ".mlp.fc2."),
    ),
)
TORCHVISION = Layout(
    "torchvision",
    (
        (r"^conv_proj\.", "patch_embed.proj."),
        (r"^class_token$", "cls_token"),
        (r"^encoder\.pos_embedding$", "pos_embed"),
        (r"^encoder\.ln\.", "norm."),
        (r"^heads\.", "head."),
        (r"^encoder\.layers\.encoder_layer_", "blocks."),
        (r"\.ln_([12])\.", r".norm\1."),
        (r"\.self_attention\.in_proj_", ".attn.qkv."),
        (r"\.self_attention\.out_proj\.", ".attn.proj."),
        (r"\.mlp\.(linear_1|0)\.", ".mlp.fc1."),
        (r"\.mlp\.(linear_2|3)\.", ".mlp.fc2."),
    ),
)
HUGGING_FACE = Layout(
    "Hugging Face's ViT",
    (
        (r"^embeddings\.(cls_token|mask_token)$", r"\1"),
        (r"^embeddings\.distillation_token$", "dist_token"),
        (r"^embeddings\.position_embeddings$", "pos_embed"),
        (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
        (r"^layernorm\.", "norm."),
        (r"^encoder\.layer\.", "blocks."),
        (r"\.layernorm_before\.", ".norm1."),
        (r"\.layernorm_after\.", ".norm2."),
        (r"\.attention\.attention\.", ".attn."),
        (r"\.attention\.output\.dense\.", ".attn.proj."),
        (r"\.intermediate\.dense\.", ".mlp.fc1."),
        (r"^(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    ),
)
_ATTENTION = r"\.MultiHeadDotProductAttention_[01]"
JAX = Layout(  # Google's vision_transformer and big_vision, with / written as a dot
    "Google's JAX",
    (
        (r"^embedding\.", "patch_embed.proj."),
        (r"^cls$", "cls_token"),
        (r"^(Transformer\.posembed_input\.)?pos_embedding$", "pos_embed"),
        (r"^Transformer\.encoder_norm\.", "norm."),
        (r"^Transformer\.encoderblock_", "blocks."),
        (r"^(blocks\.\d+)\.LayerNorm_0\.", r"\1.norm1."),
        (r"^(blocks\.\d+)\.LayerNorm_[12]\.", r"\1.norm2."),
        (rf"^(blocks\.\d+){_ATTENTION}\.out\.", r"\1.attn.proj."),
        (rf"^(blocks\.\d+){_ATTENTION}\.", r"\1.attn."),
        (r"^MAPHead_0\.probe$", "attn_pool.latent"),
        (r"^MAPHead_0\.LayerNorm_0\.", "attn_pool.norm."),
        (rf"^MAPHead_0{_ATTENTION}\.out\.", "attn_pool.proj."),
        (rf"^MAPHead_0{_ATTENTION}\.query\.", "attn_pool.q."),
        (rf"^MAPHead_0{_ATTENTION}\.", "attn_pool."),
        (r"^MAPHead_0\.", "attn_pool."),
        (r"\.MlpBlock_[03]\.Dense_0\.", ".mlp.fc1."),
        (r"\.MlpBlock_[03]\.Dense_1\.", ".mlp.fc2."),
        (r"\.(kernel|scale)$", ".weight"),
    ),
)
# a tensor that only this layout has, by its name
LAYOUTS: dict[str, Layout] = {
    "blocks.0.norm1.weight": TIMM,
    "class_embedding": CLIP,
    "encoder.layers.encoder_layer_0.ln_1.weight": TORCHVISION,
    "encoder.layer.0.layernorm_before.weight": HUGGING_FACE,
    "Transformer.encoderblock_0.LayerNorm_0.scale": JAX,
    "Transformer.encoderblock.LayerNorm_0.scale": JAX,
}
ANCHORS = tuple(LAYOUTS)
# parts that timm keeps as one tensor
JOINED = {"attn.qkv": ("attn.query", "attn.key", "attn.value"), "attn_pool.kv": ("attn_pool.key", "attn_pool.value")}
_TOKENS = ("cls_token", "reg_token", "dist_token", "pos_embed", "attn_pool.latent")  # timm's have three dimensions


def in_timms_names(layout: Layout, found: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int | None]:
    """`found` by timm's names and in its orientation, and the number of heads where the shapes tell it.

    Raises:
        KeyError, IndexError, RuntimeError: a part is missing, twice there, or of a shape that the layout does not have.
    """
    heads = None
    renamed: dict[str, Tensor] = {}
    for old, tensor in (_unstacked(found) if layout is JAX else found).items():
        name = old
        for pattern, replacement in layout.rules:
            name = re.sub(pattern, replacement, name)
        if layout is JAX:
            if old.endswith(".query.kernel") and not old.startswith("MAPHead"):
                heads = tensor.shape[1]
            tensor = _as_torch(old, tensor)
        if name in renamed:
            raise KeyError(f"{old} stands for {name}, which is there already")
        renamed[name] = tensor[(None,) * (3 - tensor.ndim)] if name in _TOKENS and tensor.ndim < 3 else tensor
    return _joined(renamed), heads


def _unstacked(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Blocks that big_vision keeps in one array, one by one."""
    stack = "Transformer.encoderblock."
    single = {name: tensor for name, tensor in found.items() if not name.startswith(stack)}
    for name, tensor in found.items():
        if name.startswith(stack):
            for index, part in enumerate(tensor):
                single[f"Transformer.encoderblock_{index}.{name.removeprefix(stack)}"] = part
    return single


def _as_torch(name: str, tensor: Tensor) -> Tensor:
    """A JAX array in torch's orientation: (in, out) → (out, in), (in, heads, K) → (heads·K, in), HWIO → OIHW."""
    if ".MultiHeadDotProductAttention_" in name:
        if name.endswith(".out.kernel"):
            return tensor.flatten(0, 1).T
        if name.endswith(".kernel"):
            return tensor.flatten(1).T
        return tensor.reshape(-1)
    if name.endswith("kernel"):
        return tensor.permute(3, 2, 0, 1) if tensor.ndim == 4 else tensor.T
    return tensor


def _joined(parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """`parts` with query, key and value as one tensor."""
    out: dict[str, Tensor] = {}
    for name, tensor in parts.items():
        for whole, pieces in JOINED.items():
            match = re.fullmatch(rf"(.*?)({'|'.join(map(re.escape, pieces))})\.(weight|bias)", name)
            if match:
                start, _, kind = match.groups()
                out[f"{start}{whole}.{kind}"] = torch.cat([parts[f"{start}{piece}.{kind}"] for piece in pieces])
                break
        else:
            out[name] = tensor
    return out
