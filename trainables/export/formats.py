"""A model in formats that other programs read: ONNX and torch.export's .pt2, with its facts in the file.

In: a model in eval mode, the shape of one image, texts by name.
Out: a file; the batch size is free in both. The texts are ONNX's metadata_props, and extra files of a .pt2.
ONNX needs the extra `onnx` (pip install 'tune-rsst[onnx]'). Shapes: B images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from trainables.storage.files import replaced

_BATCH = torch.export.Dim("batch", min=1, max=65536)


def _example(shape: tuple[int, int, int]) -> Tensor:
    """Two images of zeros: a batch of one would be taken for a constant."""
    return torch.zeros(2, *shape)


def save_onnx(model: nn.Module, shape: tuple[int, int, int], texts: Mapping[str, str], path: Path) -> None:
    """Write `model` as ONNX: input `images` float32 (B, C, H, W), output `logits` (B, classes).

    Raises:
        ImportError: the extra `onnx` is not installed.
    """
    program = torch.onnx.export(
        model,
        (_example(shape),),
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: _BATCH},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None, "dynamo=True gives a program"
    program.model.metadata_props.update(texts)
    with replaced(path) as new:
        program.save(new, external_data=False)


def save_program(model: nn.Module, shape: tuple[int, int, int], texts: Mapping[str, str], path: Path) -> None:
    """Write `model` as a torch.export program (.pt2): `torch.export.load(path).module()(images)` gives logits."""
    program = torch.export.export(model, (_example(shape),), dynamic_shapes=({0: _BATCH},))
    with replaced(path) as new, new.open("wb") as file:  # a file: for a name that does not end in .pt2 it warns
        torch.export.save(program, file, extra_files=dict(texts))
