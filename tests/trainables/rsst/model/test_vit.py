"""Models: parameter counts of the named ones, timm's by name."""

from __future__ import annotations

import pytest
import timm
import torch

from trainables.rsst.config import RSSTConfig
from trainables.rsst.model.accepted import architecture
from trainables.rsst.model.cost import gmacs, parameters
from trainables.rsst.model.vit import Architecture, build, built_with


def of(arch: str, **knobs: object) -> Architecture:
    return architecture(RSSTConfig.from_knobs({"arch": arch, **knobs}), in_chans=3, num_classes=100)


@pytest.mark.parametrize(
    ("arch", "count", "dim", "depth", "heads", "neurons"),
    [
        ("vit_tiny", 2_714_980, 192, 9, 3, 384),
        ("vit_small", 21_376_996, 384, 12, 6, 1536),
        ("vit_base", 85_221_220, 768, 12, 12, 3072),
    ],
)
def test_the_named_models_have_the_guides_shapes(
    arch: str, count: int, dim: int, depth: int, heads: int, neurons: int
) -> None:
    found = of(arch)
    model = build(found, "meta")
    assert parameters(model) == count
    assert model.embed_dim == dim and model.patch_embed.proj.kernel_size == (4, 4)
    assert found.heads == (heads,) * depth and found.neurons == (neurons,) * depth and found.head_dim == 64
    assert model.pos_embed.shape == (1, 65, dim)


def test_the_parameters_of_vit_digits_by_hand() -> None:
    """Block: norms 256, qkv 12,480, proj 4,160, fc1 8,320, fc2 8,256.

    Beside the blocks: patches 1,088, class token 64, positions 5 · 64, norm 128, head 650.
    """
    arch = architecture(RSSTConfig.from_knobs({"dataset": "digits"}), in_chans=1, num_classes=10)
    assert parameters(build(arch)) == 4 * (256 + 12480 + 4160 + 8320 + 8256) + 1088 + 64 + 320 + 128 + 650


def test_macs_by_hand_and_those_of_a_pruned_model() -> None:
    """Per token and layer: 3·D·HK (qkv) + HK·D (proj) + 2·N·HK (attention) + 2·D·F; N = 5 tokens.

    Beside the blocks: patches 4·16·D; head 10·D.
    """

    def by_hand(heads: int, neurons: int) -> int:
        wide = heads * 16
        return 4 * 5 * (4 * 64 * wide + 2 * 5 * wide + 2 * 64 * neurons) + 4 * 16 * 64 + 640

    arch = architecture(RSSTConfig.from_knobs({"dataset": "digits"}), in_chans=1, num_classes=10)
    assert gmacs(arch) == pytest.approx(by_hand(4, 128) / 1e9, rel=1e-12)
    assert gmacs(arch.with_counts((1,) * 4, (40,) * 4)) == pytest.approx(by_hand(1, 40) / 1e9, rel=1e-12)


def test_a_timm_name_gives_timms_model() -> None:
    knobs = {"img_size": 64, "patch_size": 16}
    arch = of("vit_tiny_patch16_224", **knobs)
    ours, theirs = build(arch), timm.create_model("vit_tiny_patch16_224", num_classes=100, **knobs)
    assert {n: t.shape for n, t in ours.state_dict().items()} == {n: t.shape for n, t in theirs.state_dict().items()}
    narrow = build(arch.with_counts((1, 2, 3) * 4, (7,) * 12))
    assert narrow(torch.zeros(2, 3, 64, 64)).shape == (2, 100)
    assert [b.attn.num_heads for b in narrow.blocks] == [1, 2, 3] * 4
    assert {b.mlp.fc1.out_features for b in narrow.blocks} == {7}


def test_an_architecture_survives_json() -> None:
    arch = of("vit_small").with_counts((1,) * 12, (5,) * 12)
    assert Architecture.from_json(arch.to_json()) == arch


def test_built_with_copies_the_weights_and_draws_no_random_number() -> None:
    whole = architecture(RSSTConfig.from_knobs({"dataset": "digits"}), in_chans=1, num_classes=10)
    arch = whole.with_counts((1, 2, 3, 4), (3, 4, 5, 128))
    weights = build(arch).state_dict()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    model = built_with(arch, weights)
    assert torch.equal(torch.get_rng_state(), before)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[name]) and tensor.data_ptr() != weights[name].data_ptr()
    with pytest.raises(RuntimeError, match=r"norm\.weight"):
        built_with(arch, {name: tensor for name, tensor in weights.items() if name != "norm.weight"})
