"""Reads a local weights file into a dictionary of tensors with timm's names, and names its contents by a digest.

In: the path of a .safetensors, .pth/.pt/.bin (weights_only) or .npz file.
Out: {name: tensor} on the CPU.
Nothing here runs code from a file: a file that would need unpickling is refused.
"""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from trainables.rsst.config import ConfigError

Tensors = dict[str, Tensor]

SAFETENSORS = (".safetensors",)
TORCH = (".pth", ".pt", ".bin", ".tar")
NUMPY = (".npz",)
VALID = "a readable .safetensors, .pth or .npz file of tensors"

# where training scripts put the model inside a checkpoint; the first one found is used
_NESTED = ("state_dict_ema", "model_ema", "state_dict", "model", "module", "net")


def read_weights(path: Path) -> Tensors:
    """All tensors of `path`, by name."""
    ending = path.suffix.lower()
    if ending in SAFETENSORS:
        return _read_safetensors(path)
    if ending in TORCH:
        return _read_torch(path)
    if ending in NUMPY:
        return _read_numpy(path)
    raise ConfigError("weights", path, VALID, f"its name ends in {ending or 'nothing'}")


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """16 hex digits of sha256 over name, dtype, shape and bytes of each tensor, sorted by name.

    The file's format does not enter: equal tensors give equal digests.
    """
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha.update(f"{name} {str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()[:16]


def _read_safetensors(path: Path) -> Tensors:
    try:
        return _some(path, load_file(path))
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error


def _read_torch(path: Path) -> Tensors:
    """torch.load with weights_only: plain containers and tensors, no code."""
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" not in str(error).lower():  # not a pickle at all, or cut off
            raise _unreadable(path, error) from error
        reason = "it holds Python objects, and reading those would run code from the file; save its state_dict() alone"
        raise ConfigError("weights", path, VALID, reason) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from error
    for key in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping):
        raise ConfigError("weights", path, VALID, f"it holds a {type(content).__name__}, not tensors by name")
    tensors = {str(k): v.detach() for k, v in content.items() if isinstance(v, Tensor)}
    if tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return _some(path, tensors)


def _read_numpy(path: Path) -> Tensors:
    """Plain arrays by timm's names, or Google's own ViT archives (JAX layout), which timm converts."""
    try:
        if not zipfile.is_zipfile(path):
            raise zipfile.BadZipFile("not a NumPy archive")
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        if "allow_pickle" in str(error):
            reason = "it holds Python objects, and reading those would run code from the file"
            raise ConfigError("weights", path, VALID, reason) from error
        raise _unreadable(path, error) from error
    if "embedding/kernel" in arrays or "opt/target/embedding/kernel" in arrays:
        return _from_jax(path, arrays)
    return _some(path, {name: torch.from_numpy(a) for name, a in arrays.items() if a.dtype.kind in "fiub"})


def _from_jax(path: Path, arrays: Mapping[str, Any]) -> Tensors:
    """Build the model that the archive describes and let timm load the archive into it."""
    prefix = "" if "embedding/kernel" in arrays else "opt/target/"
    kernel = arrays[f"{prefix}embedding/kernel"]  # (P, P, C, D)
    layers = f"{prefix}Transformer/encoderblock_"
    try:
        tokens = arrays[f"{prefix}Transformer/posembed_input/pos_embedding"].shape[1] - 1
        model = VisionTransformer(
            img_size=round(tokens**0.5) * kernel.shape[0],
            patch_size=kernel.shape[0],
            in_chans=kernel.shape[2],
            embed_dim=kernel.shape[3],
            depth=sum(name.startswith(layers) and name.endswith("LayerNorm_0/scale") for name in arrays),
            num_heads=arrays[f"{layers}0/MultiHeadDotProductAttention_1/query/kernel"].shape[1],
            mlp_ratio=arrays[f"{layers}0/MlpBlock_3/Dense_0/kernel"].shape[1] / kernel.shape[3],
            num_classes=arrays[f"{prefix}head/bias"].shape[0] if f"{prefix}head/bias" in arrays else 0,
        )
        model.load_pretrained(str(path))
    except (KeyError, IndexError, ValueError, RuntimeError, AssertionError) as error:
        raise _unreadable(path, error) from error
    return {name: value.detach() for name, value in model.state_dict().items()}


def _some(path: Path, tensors: Tensors) -> Tensors:
    if not tensors:
        raise ConfigError("weights", path, VALID, "there is no tensor in it")
    return tensors


def _unreadable(path: Path, error: Exception) -> ConfigError:
    first = (str(error) or type(error).__name__).splitlines()[0][:120]
    return ConfigError("weights", path, VALID, f"it is damaged or of another format ({type(error).__name__}: {first})")
