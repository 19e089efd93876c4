"""The state of a trial as a value: all that is needed to go on bit for bit, as tensors and JSON.

Tensors are named by group: weights/…, rewind/…, optimizer/PARAMETER/KEY, doomed/… and dead/… (granularity = element).
Learning rate, ramp, data order and augmentation follow from (seed, round, epoch, step): no generator has a state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class TrialState:
    """Where a trial stands after `epoch` epochs of round `round`, and every event it has reported so far.

    `meta` is JSON-able: round, epoch, full (architecture), alive, doomed, init, removal, doomed_norm_start, history,
    data_digest, environment, dense_key, fingerprint, method.
    """

    meta: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @property
    def round(self) -> int:
        """Rounds that are done."""
        return int(self.meta["round"])

    @property
    def epoch(self) -> int:
        """Epochs of the present round that are done."""
        return int(self.meta["epoch"])

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        history = self.meta["history"]
        return bool(history) and history[-1]["kind"] == "final"

    @property
    def method(self) -> int:
        """The METHOD_VERSION that it was trained by; the first one was not recorded."""
        return int(self.meta.get("method", 1))

    def group(self, name: str) -> dict[str, Tensor]:
        """The tensors of one group, without its prefix."""
        prefix = f"{name}/"
        return {key[len(prefix) :]: tensor for key, tensor in self.tensors.items() if key.startswith(prefix)}


def grouped(groups: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """One flat dict of contiguous CPU copies, named GROUP/NAME."""
    return {
        f"{group}/{name}": tensor.detach().to("cpu", copy=True).contiguous()
        for group, tensors in groups.items()
        for name, tensor in tensors.items()
    }


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """Optimizer state by PARAMETER/KEY; empty before the first step."""
    return {
        f"{name}/{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` took out; moments go to their parameter's device."""
    parameters = dict(model.named_parameters())
    for name, value in tensors.items():
        parameter, key = name.rsplit("/", 1)
        on_device = value.to(parameters[parameter].device) if key != "step" or _fused(optimizer) else value
        optimizer.state[parameters[parameter]][key] = on_device.clone()


def _fused(optimizer: torch.optim.Optimizer) -> bool:
    groups: Iterable[dict[str, Any]] = optimizer.param_groups
    return any(group.get("fused") for group in groups)
