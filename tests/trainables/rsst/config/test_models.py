"""The grid of patches: a timm model's own unless it is given, said, and warned of where it is too coarse."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trainables.__main__ import main
from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.config.models import few_tokens, grid_words
from tune_rsst.planning.begin import _grids

# knobs → (img_size, patch_size, whether the grid is warned of)
GRIDS: list[tuple[dict[str, Any], tuple[int, int, bool]]] = [
    ({}, (32, 4, False)),
    ({"arch": "vit_tiny"}, (32, 4, False)),
    ({"arch": "vit_base", "dataset": "cifar10"}, (32, 4, False)),
    ({"arch": "vit_small", "img_size": 224, "patch_size": 16}, (224, 16, False)),
    ({"arch": "vit_small", "img_size": 12}, (12, 4, True)),
    ({"arch": "vit_small", "img_size": 16}, (16, 4, False)),
    ({"arch": "vit_small", "patch_size": 16}, (32, 16, True)),
    ({"dataset": "digits"}, (8, 4, False)),
    ({"dataset": "digits", "arch": "vit_tiny"}, (8, 4, False)),
    ({"dataset": "digits", "patch_size": 2}, (8, 2, False)),
    ({"dataset": "digits", "patch_size": 8}, (8, 8, True)),
    ({"dataset": "digits", "img_size": 16, "patch_size": 8}, (16, 8, True)),
    ({"dataset": "cifar10", "img_size": 8}, (8, 4, True)),
    ({"arch": "vit_small_patch16_224"}, (224, 16, False)),
    ({"arch": "vit_small_patch16_224", "dataset": "synthetic"}, (224, 16, False)),
    ({"arch": "vit_small_patch16_224", "dataset": "digits"}, (224, 16, False)),
    ({"arch": "vit_small_patch16_224", "img_size": 32}, (32, 16, True)),
    ({"arch": "vit_small_patch16_224", "img_size": 64}, (64, 16, False)),
    ({"arch": "vit_small_patch16_224", "patch_size": 32}, (224, 32, False)),
    ({"arch": "vit_small_patch16_224", "img_size": 32, "patch_size": 4}, (32, 4, False)),
    ({"arch": "vit_small_patch16_224.augreg_in21k"}, (224, 16, False)),
    ({"arch": "vit_small_patch16_384"}, (384, 16, False)),
    ({"arch": "vit_small_patch32_224"}, (224, 32, False)),
    ({"arch": "vit_base_patch16_224_in21k"}, (224, 16, False)),  # an old name of timm's
    ({"arch": "test_vit"}, (160, 16, False)),  # nothing of it in the name
    ({"arch": "test_vit3", "dataset": "digits"}, (160, 16, False)),
    ({"arch": "flexivit_small"}, (240, 16, False)),
    ({"arch": "vit_small_patch14_dinov2"}, (518, 14, False)),
    ({"arch": "vit_wee_patch16_reg1_gap_256"}, (256, 16, False)),
    ({"arch": "deit_tiny_distilled_patch16_224"}, (224, 16, False)),
    ({"arch": "vit_base_patch32_siglip_256"}, (256, 32, False)),
    ({"arch": "vit_so400m_patch14_siglip_384"}, (378, 14, False)),  # what its patches cover
]


@pytest.mark.parametrize(("knobs", "found"), GRIDS, ids=lambda value: str(value) if isinstance(value, dict) else None)
def test_the_grid_is_the_models_own_unless_it_is_given(knobs: dict[str, Any], found: tuple[int, int, bool]) -> None:
    """vit_small_patch16_224 was trained at 32 pixels, on 4 tokens, without a word; the patch was read from the name."""
    config = RSSTConfig.from_knobs(knobs)
    warning = few_tokens(config)
    assert (config.img_size, config.patch_size, warning is not None) == found
    tokens = (found[0] // found[1]) ** 2
    assert f"{found[0]} × {found[0]} pixels in patches of {found[1]} × {found[1]}: {tokens} token" in grid_words(config)
    assert warning is None or f"as {tokens} token" in warning


def test_an_image_folder_is_seen_at_the_models_own_size(tmp_path: Path) -> None:
    config = RSSTConfig.from_knobs({"dataset": str(tmp_path), "arch": "test_vit"})
    assert (config.dataset, config.img_size, config.patch_size) == ("folder", 160, 16)


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        ({"img_size": 30}, "img_size = 30: valid is a multiple of patch_size (4); give img_size 28 or 32, or another"),
        ({"arch": "vit_small_patch14_dinov2", "img_size": 32}, "give img_size 28 or 42"),
        ({"arch": "vit_small_patch16_224", "img_size": 8}, "give img_size 16, or"),
        ({"arch": "vit_small_patch16_224", "patch_size": 15}, "of patch_size (15); give img_size 210 or 225"),
        ({"img_size": 0}, "img_size = 0: valid is 1 to 4096"),
        ({"img_size": 100_000}, "img_size = 100000: valid is 1 to 4096"),
        ({"img_size": "224x112"}, "img_size = 224x112: valid is a whole number"),
        ({"img_size": 32.5}, "img_size = 32.5"),
        ({"patch_size": 0}, "patch_size = 0"),
        ({"patch_size": "4,4"}, "patch_size = 4,4"),
        ({"patch_size": 64}, "give img_size 64, or"),
    ],
    ids=str,
)
def test_sizes_that_do_not_fit_are_refused_with_those_that_do(knobs: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        RSSTConfig.from_knobs(knobs)
    assert says in str(refusal.value) and "\n" not in str(refusal.value)


def test_how_the_grid_stands_to_timms_own_is_said() -> None:
    own, given = (RSSTConfig.from_knobs({"arch": "test_vit", **k}) for k in ({}, {"img_size": 32}))
    assert grid_words(own).endswith("100 tokens, timm's own")
    assert grid_words(given).endswith("4 tokens, where timm's own are 160 and 16")
    named = RSSTConfig.from_knobs({})
    assert grid_words(named) == "images of 32 × 32 pixels in patches of 4 × 4: 64 tokens"
    assert _grids([own, own, named]) == [f"test_vit: {grid_words(own)}"]
    assert _grids([given, given]) == [f"test_vit: {grid_words(given)}", f"WARNING {few_tokens(given)}"]


def test_a_run_says_its_grid_and_warns_on_the_screen_in_the_log_and_in_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = "--dataset digits --patch_size 8 --epochs 1 --warmup 0 --pruning_times 1 --device cpu --save_dir"
    assert main([*flags.split(), str(tmp_path)]) == 0
    screen = capsys.readouterr()
    said, warned = "images of 8 × 8 pixels in patches of 8 × 8: 1 token", "as 1 token, fewer than 16"
    assert said in screen.out and warned in " ".join(screen.err.split())
    for file in ("run.log", "report.json"):
        text = (tmp_path / file).read_text(encoding="utf-8")
        assert warned in text and ("WARNING" in text or file == "report.json")


def test_the_guides_models_need_no_torch_to_be_configured(repo_root: Path) -> None:
    """--help and everything that only shows a sweep start in a third of the time."""
    code = "import sys; from trainables.rsst.config import RSSTConfig; RSSTConfig.from_knobs({'dataset': 'digits'}); " \
           "raise SystemExit('timm' in sys.modules or 'torch' in sys.modules)"  # fmt: skip
    assert subprocess.run([sys.executable, "-c", code], cwd=repo_root, timeout=60).returncode == 0
