"""Compiled blocks: timm's numbers, one program for every width, nothing uncompiled without a word."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from tests.trainables import toy
from trainables import progress
from trainables.progress import Work, watched
from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.data.load import ImageData
from trainables.rsst.model import accepted
from trainables.rsst.model.accepted import architecture
from trainables.rsst.model.vit import Architecture, build
from trainables.rsst.training import block as blocks
from trainables.rsst.training.block import compiled_blocks
from trainables.rsst.training.device import choose_device
from trainables.rsst.training.kernels import fast_kernels, repeatable

pytestmark = pytest.mark.usefixtures("toy")
SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 1, "num_classes": 10}
SIZES |= {"embed_dim": 16, "depth": 3, "num_heads": 4, "mlp_ratio": 2.0}
Widths = tuple[tuple[int, ...], tuple[int, ...]]


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """Programs as torch traces them, without Inductor; the value counts those of the test so far."""
    monkeypatch.setattr(blocks, "BACKEND", "aot_eager")
    program = blocks._program
    torch._dynamo.reset()
    program.cache_clear()
    counters.clear()
    yield lambda: counters["stats"]["unique_graphs"]
    torch._dynamo.reset()
    program.cache_clear()


def gradients(model: nn.Module, images: Tensor, amp: bool) -> dict[str, Tensor]:
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=amp), fast_kernels("cpu", amp):
        logits = model(images)
    F.cross_entropy(logits.float(), torch.arange(len(images)) % 10).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None} | {"logits": logits}


def seeded(arch: Architecture) -> nn.Module:
    torch.manual_seed(0)
    model = build(arch).train()
    with torch.no_grad():
        for parameter in model.parameters():  # biases start at 0, norms at 1
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def same_twice(model: nn.Module, images: Tensor, amp: bool = False) -> bool:
    """Whether timm's blocks and the compiled ones give the same bits, forward and backward."""
    usual = gradients(model, images, amp)
    with compiled_blocks(model, len(images), amp=amp):
        compiled = gradients(model, images, amp)
    return usual.keys() == compiled.keys() and all(torch.equal(usual[name], compiled[name]) for name in usual)


def widths_of(scope: str, rounds: int = 15) -> list[Widths]:
    """Heads and neurons of three layers, round by round, never down to one."""
    found = []
    for round in range(rounds):
        share, draw = 0.9**round, torch.Generator().manual_seed(round)
        uneven = torch.rand(3, generator=draw) if scope == "global" and round else torch.full((3,), 0.5)
        heads = tuple(max(2, min(4, int(4 * share + u))) for u in uneven.tolist())
        found.append((heads, tuple(max(2, int(32 * share * (0.5 + u))) for u in uneven.tolist())))
    return found


@pytest.mark.medium
@pytest.mark.parametrize("amp", [False, True], ids=["float32", "amp"])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_one_program_for_fifteen_rounds_and_timms_bits(traced: Callable[[], int], scope: str, amp: bool) -> None:
    """Mutations seen to fail: no symbols (nine widths: FailOnRecompileLimitHit); symbols for heads alone."""
    full = Architecture("", SIZES, 4, (4,) * 3, (32,) * 3)
    images, tried = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1)), widths_of(scope)
    assert len({width for _, neurons in tried for width in neurons}) >= 9
    for heads, neurons in tried:
        assert same_twice(seeded(full.with_counts(heads, neurons)), images, amp)
        assert traced() == 1


FEW: list[Widths] = [
    ((4, 4, 4), (4, 4, 4)),
    ((3, 2, 4), (2, 9, 4)),
    ((1, 2, 1), (5, 6, 7)),
    ((3, 3, 2), (1, 1, 3)),
    ((1, 1, 1), (1, 1, 1)),
    ((2, 1, 3), (31, 1, 8)),
]


def test_a_layer_of_one_head_or_one_neuron_has_its_own_program(traced: Callable[[], int]) -> None:
    full = Architecture("", SIZES, 4, (4,) * 3, (32,) * 3)
    images, seen = torch.randn(6, 1, 8, 8), []
    for heads, neurons in FEW:
        assert same_twice(seeded(full.with_counts(heads, neurons)), images)
        seen.append(traced())
    assert seen == [1, 1, 2, 3, 4, 4]


def test_another_width_than_the_symbols_allow_is_an_error(
    traced: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without symbols each width is a program of its own: torch may not go on without compiling."""
    monkeypatch.setattr(torch._dynamo, "mark_dynamic", lambda *_: None)
    full = Architecture("", SIZES, 4, (4,) * 3, (64,) * 3)  # what the program is compiled for
    images = torch.randn(6, 1, 8, 8)
    assert same_twice(seeded(full), images)
    with pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit):
        same_twice(seeded(full.with_counts((4,) * 3, (63,) * 3)), images)


def test_a_trial_with_other_threads_or_kernels_has_its_own_program(traced: Callable[[], int]) -> None:
    """One process serves trials of all kinds; torch compiles for these settings. Without them: an error."""
    model, images, before = seeded(Architecture("", SIZES, 4, (4,) * 3, (32,) * 3)), torch.randn(6, 1, 8, 8), []
    threads = torch.get_num_threads()
    try:
        for count, fixed, tf32 in ((1, False, False), (2, False, False), (1, True, False), (1, False, True)):
            torch.set_num_threads(count)
            torch.backends.cuda.matmul.allow_tf32 = tf32
            with repeatable(fixed):
                assert same_twice(model, images)
            before.append(traced())
        torch.backends.cuda.matmul.allow_tf32 = False
        assert same_twice(model, images) and before == [1, 2, 3, 4] and traced() == 4
    finally:
        torch.set_num_threads(threads)
        torch.backends.cuda.matmul.allow_tf32 = False


PARTS = {
    "vit_betwixt_patch16_gap_256": "LayerScale, qkv without bias, no class token",
    "vit_base_patch32_siglip_gap_256": "GELU by tanh",
    "vit_base_patch16_clip_quickgelu_224": "QuickGELU, a norm before the blocks, eps of 1e-5",
    "vit_base_patch14_reg4_dinov2": "registers",
    "deit_base_distilled_patch16_224": "two tokens and heads",
}


@pytest.mark.parametrize("arch", PARTS)
def test_every_part_that_is_taken_gives_timms_bits(
    arch: str, traced: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **given: real(name, **{"depth": 2, "embed_dim": 24,
                                                                                "num_heads": 3} | given))  # fmt: skip
    accepted._accepted.cache_clear()
    config = RSSTConfig.from_knobs({"arch": arch, "dataset": "digits", "img_size": 8, "patch_size": 4, "compile": True})
    full = architecture(config, in_chans=1, num_classes=10)
    accepted._accepted.cache_clear()
    pruned = full.with_counts([2] * full.depth, [11] * full.depth)
    assert all(same_twice(seeded(arch), torch.randn(5, 1, 8, 8)) for arch in (full, pruned)) and traced() == 1


def test_norms_of_queries_and_keys_are_taken(traced: Callable[[], int]) -> None:
    full = Architecture("", SIZES | {"qk_norm": True, "init_values": 0.1}, 4, (4,) * 3, (32,) * 3)
    accepted._require_compilable("own", full)
    assert same_twice(seeded(full), torch.randn(6, 1, 8, 8)) and traced() == 1


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "drop path": ({"drop_path_rate": 0.2}, "blocks.1.drop_path1 drops 0.1 at random"),
    "dropout": ({"proj_drop_rate": 0.3}, "blocks.0.attn.proj_drop drops 0.3 at random"),
    "dropped attention": ({"attn_drop_rate": 0.1}, "blocks.0.attn.attn_drop drops 0.1 at random"),
    "another norm": ({"norm_layer": timm.layers.RmsNorm}, "blocks.0.norm1 is a RmsNorm"),
    "an activation with weights": ({"act_layer": nn.PReLU}, "the activation blocks.0.mlp.act has weights"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_is_not_compiled_is_refused_in_one_line(name: str) -> None:
    more, reason = REFUSED[name]
    with pytest.raises(ConfigError) as refusal:
        accepted._require_compilable("own", Architecture("", SIZES | more, 4, (4,) * 3, (32,) * 3))
    assert str(refusal.value) == f"compile = True: valid is false with arch = own; {reason}; leave compile out"


def test_the_refusal_comes_with_the_architecture() -> None:
    config = RSSTConfig.from_knobs(
        {"arch": "test_vit4", "dataset": "digits", "img_size": 8, "patch_size": 4, "compile": True}
    )
    with pytest.raises(ConfigError, match=r"^compile = True: valid is false with arch = test_vit4; .*RmsNorm"):
        architecture(config, in_chans=1, num_classes=10)


@pytest.mark.parametrize(
    ("found", "refused"), [("g++", False), ("clang++", False), ("mine", True), (None, True)], ids=str
)
def test_without_a_compiler_there_is_one_line(
    found: str | None, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}" if name == found else None)
    config = toy.config(compile=True, device="cpu")
    if not refused:
        assert choose_device(config).type == "cpu"
        return
    with pytest.raises(
        ConfigError, match=r"^compile = True: valid is false without a C\+\+ compiler; there is no g\+\+"
    ):
        choose_device(config)
    assert choose_device(toy.config(device="cpu")).type == "cpu"


def test_a_trial_with_it_is_the_trial_without_it(tiny: ImageData, traced: Callable[[], int]) -> None:
    """On aot_eager, whose bits are torch's: batches of 32, a last one of 32 or of 6, pieces of 10."""
    for knobs in ({}, {"batch_size": 30, "scope": "global"}, {"micro_batch_size": 10}, {"amp": True}):
        usual, compiled = (toy.outcome(toy.config(compile=on, **knobs), tiny) for on in (False, True))
        assert {metrics.pop("block_kernels", None) for _, metrics in compiled} == {None, "inductor"}
        assert compiled == usual
    assert 4 <= traced() <= 8  # one head or none more was left at times


def test_the_last_smaller_batch_is_timms(monkeypatch: pytest.MonkeyPatch, traced: Callable[[], int]) -> None:
    sizes: list[int] = []
    real = blocks._program
    monkeypatch.setattr(blocks, "_program", lambda kind, backend: sizes.append(kind.sizes[0]) or real(kind, backend))
    model = seeded(Architecture("", SIZES, 4, (4,) * 3, (32,) * 3))
    with compiled_blocks(model, 6, amp=False):
        for count in (6, 5, 1, 6):
            gradients(model, torch.randn(count, 1, 8, 8), amp=False)
    assert sizes == [6] * 6


def test_after_an_error_the_model_is_timms() -> None:
    model = build(Architecture("", SIZES, 4, (4,) * 3, (32,) * 3))
    with suppress(ZeroDivisionError), compiled_blocks(model, 6, amp=False):
        assert all("forward" in block.__dict__ for block in model.blocks)
        raise ZeroDivisionError
    assert not any("forward" in part.__dict__ for part in model.modules())


@pytest.mark.parametrize(
    ("before", "within"), [(None, "own"), ("torch", "own"), ("/user/s", "/user/s")], ids=["unset", "torch", "user"]
)
def test_what_is_compiled_is_kept_in_the_nodes_cache(
    before: str | None, within: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TUNE_RSST_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", default_cache_dir() if before == "torch" else before or "")
    if before is None:
        monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    with suppress(ZeroDivisionError), blocks._own_cache():
        found = os.environ["TORCHINDUCTOR_CACHE_DIR"]
        raise ZeroDivisionError
    assert found == (str(tmp_path / "inductor") if within == "own" else within)
    assert os.environ.get("TORCHINDUCTOR_CACHE_DIR") == (before if before == within else None)


def test_compiling_is_told_to_whoever_watches(traced: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial that compiles for minutes does not hang."""
    told, real = list[Work](), blocks._compile

    def compiles(*given: Any) -> None:
        while len(told) < 2:
            time.sleep(0.01)
        real(*given)

    monkeypatch.setattr(progress, "KEEP_EVERY_S", 0.02)
    monkeypatch.setattr(blocks, "_compile", compiles)
    with watched(told.append):
        assert same_twice(seeded(Architecture("", SIZES, 4, (4,) * 3, (32,) * 3)), torch.randn(6, 1, 8, 8))
    assert {work.what for work in told} == {blocks.COMPILING} and traced() == 1
