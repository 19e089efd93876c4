"""What the units of a model give to the next layer: the inputs of every `proj` and `fc2`.

In: a model. Out: tensors by kind and layer, of the next forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from trainables.rsst.model.vit import Kind, blocks_of


@contextmanager
def captured(model: VisionTransformer) -> Iterator[dict[tuple[Kind, int], Tensor]]:
    """The inputs of every layer's `proj` and `fc2` in the next forward pass; they keep their gradients."""
    found: dict[tuple[Kind, int], Tensor] = {}

    def keep(kind: Kind, layer: int) -> Callable[..., None]:
        def hook(_module: object, inputs: tuple[Tensor, ...]) -> None:
            found[kind, layer] = inputs[0]
            if inputs[0].requires_grad:
                inputs[0].retain_grad()

        return hook

    handles = []
    for layer, block in blocks_of(model):
        handles.append(block.attn.proj.register_forward_pre_hook(keep("head", layer)))
        handles.append(block.mlp.fc2.register_forward_pre_hook(keep("neuron", layer)))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
