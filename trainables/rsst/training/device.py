"""Where a trial computes, and what its bits depend on besides the config.

In: a config.
Out: a torch device, and its description for reports.
"""

from __future__ import annotations

import gc
import os
import platform
from typing import Any

import torch

from trainables.rsst.config import ConfigError, RSSTConfig
from trainables.rsst.training.block import refuse_without_compiler
from trainables.rsst.training.kernels import training_numbers
from trainables.rsst.training.linear import linear_kernels

_CUBLAS, _WORKSPACES = "CUBLAS_WORKSPACE_CONFIG", (":4096:8", ":16:8")
OUT_OF_MEMORY = (
    "CUDA out of memory",
    "CUDA error: out of memory",  # from the driver itself: no room for the context, beside other trials
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
)


def choose_device(config: RSSTConfig) -> torch.device:
    """The device that `config.device` names; auto takes CUDA where there is one. `compile` needs a compiler there.

    With `deterministic` CUBLAS_WORKSPACE_CONFIG is set for this process, where a GPU is used.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device", "cuda", "cpu or auto on this machine", "torch finds no CUDA device")
    wanted = config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if config.deterministic and wanted == "cuda":
        _fix_cublas()
    if config.compile:
        refuse_without_compiler(wanted)
    return torch.device(wanted)


def _fix_cublas() -> None:
    """torch wants cuBLAS told so before its first product, in the environment of the process."""
    found = os.environ.setdefault(_CUBLAS, _WORKSPACES[0])
    if found not in _WORKSPACES:
        raise ConfigError(_CUBLAS, found, f"{' or '.join(_WORKSPACES)} with deterministic", "unset it")


def free_memory() -> None:
    """Give back what nothing refers to any more, the device's cached blocks included."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def environment(config: RSSTConfig, device: torch.device) -> dict[str, Any]:
    """What the bits of a result depend on besides the config; with `compile` the blocks' training is Inductor's."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    asked = {"block_kernels": "inductor"} if config.compile else {}
    asked |= {"kernels": "deterministic"} if config.deterministic else {}
    return {
        "torch_version": torch.__version__,
        "num_threads": config.num_threads,
        "device": device.type,
        "device_name": name,
        "training_numbers": training_numbers(device.type, config.amp),
        "linear_kernels": linear_kernels(device.type),
        **asked,
    }


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that the device or the machine could not give the memory that a step needs."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(word in text for word in OUT_OF_MEMORY)
