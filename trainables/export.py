"""A finished trial's model as ONNX or torch.export: `python -m trainables.export SAVE_DIR --onnx FILE --pt2 FILE`.

In: a folder with model.safetensors and architecture.json.
Out: the files asked for, each compared with the model itself on random images.
Exit codes: 0 written and equal, 2 bad input, 1 the outputs differ.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from trainables.rsst.model.formats import save_onnx, save_program
from trainables.rsst.model.saved import ARCHITECTURE, load_pruned
from trainables.rsst.model.vit import Architecture
from trainables.storage.files import read_json

TOLERANCE = 1e-4


def main(arguments: Sequence[str] | None = None) -> int:
    """Export from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m trainables.export", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder with model.safetensors and architecture.json")
    parser.add_argument("--onnx", type=Path, metavar="FILE", help="write ONNX (needs the extra onnx)")
    parser.add_argument("--pt2", type=Path, metavar="FILE", help="write a torch.export program")
    given = parser.parse_args(arguments)
    if given.onnx is None and given.pt2 is None:
        print("error: nothing to do; give --onnx FILE or --pt2 FILE", file=sys.stderr)
        return 2
    try:
        model = load_pruned(given.folder)
        shape = Architecture.from_json(read_json(given.folder / ARCHITECTURE)).input_shape()
        differences = []
        if given.onnx is not None:
            save_onnx(model, shape, given.onnx)
            differences.append((given.onnx, difference(model, onnx_outputs(given.onnx), shape)))
        if given.pt2 is not None:
            save_program(model, shape, given.pt2)
            loaded = torch.export.load(given.pt2).module()
            differences.append((given.pt2, difference(model, lambda images: loaded(images), shape)))
    except (OSError, ValueError, RuntimeError) as error:
        print(f"error: folder = {given.folder}: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    except ImportError as error:
        print(f"error: onnx: {error.name} is missing; install it with: pip install 'tune-rsst[onnx]'", file=sys.stderr)
        return 2
    for path, worst in differences:
        print(f"{path}: written; largest difference of a logit {worst:.2e} (allowed {TOLERANCE:.0e})")
    return 0 if all(worst <= TOLERANCE for _, worst in differences) else 1


@torch.no_grad()
def difference(model: nn.Module, outputs: Callable[[Tensor], Tensor], shape: tuple[int, int, int]) -> float:
    """Largest absolute difference between the logits of `model` and `outputs` on 5 random images (C, H, W)."""
    images = torch.randn(5, *shape, generator=torch.Generator().manual_seed(0))
    return float((model(images) - outputs(images)).abs().max())


def onnx_outputs(path: Path) -> Callable[[Tensor], Tensor]:
    """A function that runs the ONNX file in onnxruntime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


if __name__ == "__main__":
    raise SystemExit(main())
