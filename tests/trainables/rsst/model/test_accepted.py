"""What is accepted ends its trials: a timm name for each combination of parts of timm's ViTs; other models.

The models are made small by arguments (2 layers of 3 heads of 8); everything else is the path of a real trial.
"""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.layers import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch.utils.flop_counter import FlopCounterMode

from trainables.export.load_model import load
from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.data.load import ImageData
from trainables.rsst.experiment import run
from trainables.rsst.model import accepted
from trainables.rsst.model.accepted import architecture
from trainables.rsst.model.saved import load_pruned
from trainables.rsst.model.vit import Architecture, build, built_with
from trainables.rsst.pruning.compact import Units, narrowed, slice_weights, unit_masks, zeroed
from trainables.rsst.training.setup import make_optimizer
from trainables.rsst.trial import open_trial

pytestmark = pytest.mark.usefixtures("toy")
SMALL = {"depth": 2, "embed_dim": 24, "num_heads": 3}
MODULES = ["vision_transformer", "deit", "vision_transformer_hybrid", "vitamin"]  # where timm makes VisionTransformers
COMBINATIONS = {
    "vit_base_patch16_gap_224": "mean of patches, no class token",
    "vit_betwixt_patch16_gap_256": "the same, LayerScale, qkv without bias",
    "vit_base_patch32_siglip_gap_256": "mean of patches, GELU by tanh",
    "vit_so150m2_patch16_reg1_gap_256": "mean, 1 register, norm after the mean, LayerScale, qkv without bias",
    "test_vit2": "mean, 1 register, norm after the mean, LayerScale, images of any size",
    "test_vit4": "the same with RmsNorm",
    "vit_betwixt_patch16_reg1_gap_256": "mean, 1 register without a position, LayerScale",
    "vit_so150m_patch16_reg4_gap_256": "mean, 4 registers, norm before the mean",
    "vit_base_patch16_reg4_gap_256": "mean, 4 registers without a position, norm after the mean",
    "vit_betwixt_patch16_reg4_gap_256": "the same with LayerScale",
    "eva_large_patch14_196": "mean beside a class token",
    "vit_base_patch16_siglip_224": "attention pooling",
    "vit_base_patch32_siglip_256": "attention pooling, GELU by tanh",
    "test_vit3": "attention pooling, 1 register, LayerScale",
    "vit_so150m_patch16_reg4_map_256": "attention pooling, 4 registers",
    "vit_base_patch16_224_miil": "class token, qkv without bias",
    "deit_base_patch16_224": "class token",
    "vit_base_patch16_clip_224": "class token, norm before the blocks, no bias of the patches",
    "vit_base_patch14_dinov2": "class token, LayerScale",
    "vit_base_patch16_clip_quickgelu_224": "class token, norm before the blocks, QuickGELU",
    "test_vit": "class token, images of any size",
    "vit_intern300m_patch14_448": "class token, LayerScale, no final norm, images of any size",
    "flexivit_base": "class token without a position",
    "deit3_base_patch16_224": "class token without a position, LayerScale",
    "vit_base_patch14_reg1_tipsv2": "class token and 1 register without a position, LayerScale",
    "vit_base_patch14_reg4_dinov2": "class token and 4 registers without a position, LayerScale",
    "vit_giant_patch16_radio_v3": "class token and 7 registers without a position, no final norm",
    "vit_base_patch16_radio_v3": "the same with LayerScale",
    "vit_huge_patch16_radio_v4": "class token and 9 registers, no final norm",
    "deit_base_distilled_patch16_224": "class and distillation token, two heads",
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """timm's models in a size for tests."""
    real = timm.create_model
    accepted._accepted.cache_clear()
    monkeypatch.setattr(timm, "create_model", lambda name, **given: real(name, **SMALL | given))
    yield
    accepted._accepted.cache_clear()


@pytest.fixture(scope="module")
def few(tiny: ImageData) -> ImageData:
    return dataclasses.replace(tiny, train=tiny.train[:16], val=tiny.val[:8], test=tiny.test[:8])


def config_of(arch: str, **knobs: Any) -> RSSTConfig:
    given = {"dataset": "digits", "img_size": 8, "patch_size": 4, "epochs": 1, "warmup": 0, "batch_size": 8}
    return RSSTConfig.from_knobs(given | {"arch": arch, "pruning_times": 2, "rate": 0.4, **knobs})


def counted_on_cpu(model: VisionTransformer, arch: Architecture) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.requires_grad_(False)(torch.randn(1, *arch.input_shape()))
    return counter.get_total_flops() / 2e9


@pytest.mark.parametrize("arch", COMBINATIONS)
def test_a_trial_ends_and_removed_is_zeroed_exported_is_trained_counted_is_counted(
    arch: str, small: None, few: ImageData, tmp_path: Path
) -> None:
    """Every map-pooled ViT was accepted, trained, and broke in the MAC counter."""
    with open_trial(config_of(arch), tmp_path, say=print, data=few) as trial:
        *_, final = trial.events()
    state, exported = final.snapshot(), load_pruned(trial.folder)
    full = Architecture.from_json(state.meta["full"])
    alive = Units.from_json(state.meta["alive"])
    pruned = narrowed(full, alive)
    trained = built_with(pruned, state.group("weights")).eval()
    images = torch.randn(4, 1, 8, 8)
    assert torch.equal(exported(images), trained(images)) and torch.equal(load(trial.folder)(images), trained(images))
    assert counted_on_cpu(exported, pruned) == pytest.approx(final.metrics["gmacs"], rel=1e-12)
    removed_is_zeroed(full, alive, images)


@torch.no_grad()
def removed_is_zeroed(full: Architecture, keep: Units, images: torch.Tensor) -> None:
    """On random weights: as LayerScale starts, the blocks hardly act and any mistake would pass."""
    weights = {name: 0.3 * torch.randn_like(tensor) for name, tensor in build(full).state_dict().items()}
    gone = Units(*(tuple(tuple(u for u in range(n) if u not in k) for n, k in zip(full.counts(kind), keep.of(kind),
                   strict=True)) for kind in ("head", "neuron")))  # fmt: skip
    as_zero = built_with(full, zeroed(weights, unit_masks(weights, full, gone))).eval()(images)
    removed = built_with(narrowed(full, keep), slice_weights(weights, full, keep)).eval()(images)
    scale = float(as_zero.abs().max())
    assert float((as_zero - removed).abs().max()) <= 1e-5 * max(scale, 1.0)
    assert not torch.allclose(as_zero, built_with(full, weights).eval()(images), atol=1e-3 * scale)


@pytest.mark.parametrize("knobs", [{"criteria": "saliency", "scope": "global"}, {"struct": "refill"}, {"amp": True},
                                   {"granularity": "element"}], ids=str)  # fmt: skip
def test_attention_pooling_goes_with_the_other_options(knobs: dict[str, Any], small: None, few: ImageData) -> None:
    *_, final = run(config_of("test_vit3", **knobs), few)
    assert final.kind == "final"


@pytest.mark.medium
def test_the_combinations_are_all_that_timm_has_and_each_is_tried_once() -> None:
    """Over all names of timm's ViTs, in a small size: a version of timm with new parts fails here."""
    known: dict[tuple[object, ...], list[str]] = {}
    for name in timm.list_models(module=MODULES):
        try:
            with torch.device("meta"), warnings.catch_warnings(action="ignore"):
                model = timm.create_model(name, img_size=32, patch_size=16, weight_init="skip", **SMALL | {"depth": 1})
            accepted._require_plain(name, 0, model.blocks[0])
        except (AssertionError, ConfigError):  # a patch embedding or blocks that are not plain
            continue
        assert type(model) is VisionTransformer or "distilled" in name
        assert type(model.patch_embed) is PatchEmbed
        known.setdefault(parts(model), []).append(name)
    tried = {combination: [name for name in names if name in COMBINATIONS] for combination, names in known.items()}
    assert all(len(names) == 1 for names in tried.values()), tried
    assert len(known) == len(COMBINATIONS) and sum(map(len, known.values())) >= 150


def parts(model: VisionTransformer) -> tuple[object, ...]:
    block = model.blocks[0]
    made_of = [type(part).__name__ for part in (model, block.norm1, block.mlp.act, block.ls1, block.attn.q_norm,
               model.norm, model.fc_norm, model.norm_pre, model.attn_pool)]  # fmt: skip
    biased = [layer.bias is not None for layer in (block.attn.qkv, block.attn.proj, block.mlp.fc1)]
    tokens = (model.has_class_token, model.num_reg_tokens, model.no_embed_class, model.dynamic_img_size)
    return (model.global_pool, *tokens, *made_of, *biased)


REFUSED = {
    "vit_smal": "did you mean vit_small",
    "VIT_SMALL": "did you mean vit_small?",
    "ViT_Small_Patch16_224": "did you mean vit_small_patch16_224?",
    "vit small": "did you mean vit_small",
    "vit_tiny_patch16_224 ": "did you mean vit_tiny_patch16_224",
    "vit_small_patch16": "did you mean vit_small_patch16_",
    "ViT-B/16": "addresses and paths are not taken",
    "vit[": "timm has no model of that name",
    "*": "timm has no model of that name",
    "": "a name that is not empty",
    "vit_small_patch16_224.": "did you mean vit_small_patch16_224",
    "vit_small_patch16_224.nonsense": "Invalid pretrained tag (nonsense)",
    "hf-hub:timm/vit_small_patch16_224.augreg_in21k": "addresses and paths are not taken",
    "timm/vit_tiny_patch16_224": "addresses and paths are not taken",
    "local-dir:/models/vit": "addresses and paths are not taken",
    "./vit_small.pth": "addresses and paths are not taken",
    "resnet18": "this one is a ResNet",
    "swin_tiny_patch4_window7_224": "this one is a SwinTransformer",
    "beit_base_patch16_224": "this one is a Beit",
    "eva02_tiny_patch14_224": "this one is a Eva",
    "mobilevit_s": "this one is a ByobNet",
    "samvit_base_patch16": "this one is a VisionTransformerSAM",
    "vit_relpos_small_patch16_224": "this one is a VisionTransformerRelPos",
    "vit_tiny_r_s16_p8_224": "its patch_embed is a HybridEmbed",
    "vit_base_mci_224": "its patch_embed is a HybridEmbed",
    "vit_base_patch16_xp_224": "blocks.0 is a ParallelScalingBlock",
    "vit_base_patch16_rpn_224": "blocks.0 is a ResPostBlock",
    "vit_small_patch16_18x2_224": "blocks.0 is a ParallelThingsBlock",
    "vit_dwee_patch16_reg1_gap_256": "blocks.0.attn is a DiffAttention",
    "aimv2_large_patch14_224": "blocks.0.mlp is a SwiGLU",
    "beit3_base_patch16_224": "blocks.0.attn.norm.weight acts across heads or neurons",
}


SIZES = {"img_size": 32, "patch_size": 16}
GIVEN = [(arch, SIZES) for arch in ("vit_smal", "resnet18", "vit_tiny_r_s16_p8_224", "vit_dwee_patch16_reg1_gap_256")]


@pytest.mark.parametrize(("arch", "sizes"), [*((arch, {}) for arch in REFUSED), *GIVEN], ids=str)
def test_other_models_are_refused_in_one_line_that_says_what_is_in_the_way(arch: str, sizes: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=re.escape(REFUSED[arch])) as refusal:
        architecture(RSSTConfig.from_knobs({"arch": arch, **sizes}), in_chans=3, num_classes=10)
    assert refusal.value.key == "arch" and "\n" not in str(refusal.value)
    assert not re.search(r"Error|\(\)|None", str(refusal.value))


def test_what_does_not_run_is_refused_before_training(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The MAC counter and the step of a pruned model, each broken on purpose; torch's errors often have no text."""

    def fails(*_: object) -> Any:
        raise AssertionError

    for part in ("gmacs", "build"):
        accepted._accepted.cache_clear()
        with monkeypatch.context() as patch:
            patch.setattr(accepted, part, fails)
            with pytest.raises(ConfigError, match="a ViT that can be trained, pruned and counted") as refusal:
                architecture(config_of("test_vit"), in_chans=1, num_classes=10)
        assert "it says no reason" in str(refusal.value)


@pytest.mark.parametrize(("arch", "tokens"), [
    ("test_vit3", {"pos_embed", "reg_token", "attn_pool.latent"}),
    ("deit_base_distilled_patch16_224", {"pos_embed", "cls_token", "dist_token"}),
    ("vit_base_patch14_reg4_dinov2", {"pos_embed", "cls_token", "reg_token"}),
])  # fmt: skip
def test_tokens_and_what_timm_frees_are_free_of_weight_decay(arch: str, tokens: set[str], small: None) -> None:
    """dist_token and the latent of attention pooling were decayed."""
    config = config_of(arch, weight_decay=0.25)
    model = build(architecture(config, in_chans=1, num_classes=10))
    names = {id(p): name for name, p in model.named_parameters()}
    decayed, free = ({names[id(p)] for p in group["params"]} for group in make_optimizer(config, model).param_groups)
    assert model.no_weight_decay() & set(names.values()) <= tokens
    assert {name for name in free if dict(model.named_parameters())[name].ndim > 1} == tokens
    assert decayed == {n for n, p in model.named_parameters() if n.endswith(".weight") and p.ndim > 1}
