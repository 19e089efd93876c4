"""Reads a local weights file: the tensors of one ViT by timm's names, and a digest that names its contents.

In: the path of a .safetensors, .pth/.pt/.bin/.ckpt/.pth.tar (weights_only) or .npz file.
Out: `Weights`, on the CPU.
Nothing here runs code from a file: a file that would need unpickling is refused. So is whatever is no regular file, or
would grow far beyond its own size in memory.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import pickle
import re
import stat
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trainables.rsst.config import ConfigError
from trainables.rsst.model.saved import ARCHITECTURE, MODEL
from trainables.rsst.model.weight_names import Tensors, find_vit
from trainables.storage.files import replaced
from trainables.text import shown

SAFETENSORS = (".safetensors",)
TORCH = (".pth", ".pt", ".bin", ".tar", ".ckpt")
NUMPY = (".npz",)
VALID = "a readable .safetensors, .pth, .ckpt or .npz file of tensors"
HEADS = r"num_heads|num_attention_heads|n_heads"  # how files call it
ARCH = r"arch|architecture|model|model_name"  # how they call a timm name
NOTES = "tune_rsst_notes"  # key of a copy's metadata
BOMB_MIB, BOMB_TIMES = 256, 20  # an archive that unpacks to more than both is refused; weights hardly compress
SMALL_JSON = 1 << 20
# the first bytes of what is often saved under a weights file's name
IMPOSTORS = (
    (b"version https://git-lfs", "it is a Git LFS pointer, not the weights: fetch them with git lfs pull"),
    (b"<!doctype html", "it is a web page (an error page?), not the weights: download the file itself again"),
    (b"<html", "it is a web page (an error page?), not the weights: download the file itself again"),
    (b"<?xml", "it is an XML page (an error page?), not the weights: download the file itself again"),
    (b"\x89hdf", "it is an HDF5 file: save the tensors as .safetensors or .npz"),
    (b"gguf", "it is a GGUF file: give the original weights"),
)


@dataclass(frozen=True)
class Weights:
    """A ViT's tensors by timm's names.

    `heads`: numbers of heads that the file or one beside it names, `heads_said_by` which. `notes`: what was decided
    while reading. `exported`: a file of this program's export stands beside it.
    """

    tensors: Tensors
    notes: tuple[str, ...] = ()
    heads: frozenset[int] = frozenset()
    heads_said_by: str = ""
    exported: bool = False


def read_weights(path: Path) -> Weights:
    """The one ViT in `path`."""
    _require_weights(path)
    ending = path.suffix.lower()
    facts: dict[str, Any] = {}
    if ending in SAFETENSORS:
        found = _read_safetensors(path, facts)
    elif ending in TORCH:
        found = _read_torch(path, facts)
    else:
        found = _read_numpy(path)
    if not found:
        raise ConfigError("weights", path, VALID, "there is no tensor in it")
    named = find_vit(path, found)
    said = {path.name: _heads(facts, HEADS) | ({named.heads} if named.heads else set())}
    beside = _beside(path)
    said |= {name: _heads(about, rf"{HEADS}|heads\.\d+") for name, about in beside.items()}
    said |= {
        f"the timm name in {name}": _heads_of_arch(about, named.tensors)
        for name, about in [(path.name, facts), *beside.items()]
    }
    by, heads = next(((name, heads) for name, heads in said.items() if heads), ("", frozenset()))
    notes = (*str(facts.get(NOTES, "")).splitlines(), *named.notes)
    return Weights(named.tensors, tuple(dict.fromkeys(notes)), frozenset(heads), by, ARCHITECTURE in beside)


def write_weights(weights: Weights, path: Path) -> None:
    """Write a copy as .safetensors; what was said of heads and decided while reading goes along."""
    about = {NOTES: "\n".join(weights.notes)}
    if len(weights.heads) == 1:
        about["num_heads"] = str(next(iter(weights.heads)))
    with replaced(path) as new:
        own = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in weights.tensors.items()}
        save_file(own, new, metadata=about)  # it refuses tensors that share memory


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


def _require_weights(path: Path) -> None:
    """Refuse by name what can be no weights file, before anything of it is read for good."""
    try:
        about = path.stat()
    except OSError as error:
        raise ConfigError("weights", path, VALID, f"it can't be opened: {error.strerror}") from error
    if not stat.S_ISREG(about.st_mode):
        what = "a folder: name the file in it" if stat.S_ISDIR(about.st_mode) else "no regular file"
        raise ConfigError("weights", path, VALID, f"it is {what}")
    if path.suffix.lower() not in SAFETENSORS + TORCH + NUMPY:
        raise ConfigError("weights", path, VALID, f"its name ends in {path.suffix.lower() or 'nothing'}")
    if about.st_size == 0:
        raise ConfigError("weights", path, VALID, "it is empty (damaged or of another format)")
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise ConfigError("weights", path, VALID, f"it can't be opened: {error.strerror}") from error
    first = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for magic, reason in IMPOSTORS:
        if first.startswith(magic):
            raise ConfigError("weights", path, VALID, reason)
    if not start.strip(b"\0"):
        raise ConfigError("weights", path, VALID, "it begins with zero bytes only: a download that was cut off?")
    unpacked = _unpacked(path)
    if unpacked > max(BOMB_MIB << 20, BOMB_TIMES * about.st_size):
        hint = f"{about.st_size >> 10} KiB would unpack to {unpacked >> 20} MiB: no weights compress like this"
        raise ConfigError("weights", path, VALID, hint)


def _unpacked(path: Path) -> int:
    """Bytes that an archive says it holds; 0 where it is none, or damaged: whoever reads it says so."""
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    except Exception:  # noqa: BLE001  a damaged archive raises what its bytes happen to say
        return 0


def _read_safetensors(path: Path, facts: dict[str, Any]) -> Tensors:
    try:
        with safe_open(path, framework="pt") as file:
            facts.update(file.metadata() or {})
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dictionary
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _read_torch(path: Path, facts: dict[str, Any]) -> Tensors:
    """torch.load with weights_only: plain containers, numbers, words and tensors, no code."""
    try:
        with (
            torch.serialization.safe_globals([argparse.Namespace]),
            warnings.catch_warnings(),
        ):  # timm's script saves one
            warnings.simplefilter("ignore")  # of sparse tensors and odd pickles: what is wrong with them is said below
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" not in str(error).lower():  # not a pickle at all, or cut off
            raise _unreadable(path, error) from error
        needs = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"Python objects ({needs[1]})" if needs else "Python objects"
        reason = f"it holds {what}, and reading those would run code from the file; save its state_dict() alone"
        raise ConfigError("weights", path, VALID, reason) from error
    except Exception as error:
        raise _unreadable(path, error) from error
    if not isinstance(content, Mapping | argparse.Namespace):
        raise ConfigError("weights", path, VALID, f"it holds a {type(content).__name__}, not tensors by name")
    tensors: Tensors = {}
    for address, value in _leaves(content):
        if not isinstance(value, Tensor):
            facts[address] = value
        elif address in tensors:
            raise ConfigError("weights", path, VALID, f"two of its tensors are called {address}")
        else:
            tensors[address] = value.detach()
    return tensors


def _leaves(content: Any) -> Iterator[tuple[str, Any]]:
    """(address, value) of whatever is no container; a container that stands in several places counts once."""
    seen: set[int] = set()
    waiting = [("", content)]
    while waiting:
        address, value = waiting.pop()
        if not isinstance(value, Mapping | list | tuple | argparse.Namespace):
            yield address, value
        elif id(value) not in seen:
            seen.add(id(value))
            inner = vars(value) if isinstance(value, argparse.Namespace) else value
            pairs = inner.items() if isinstance(inner, Mapping) else enumerate(inner)
            waiting += [(f"{address}.{key}" if address else str(key), below) for key, below in pairs][::-1]


def _read_numpy(path: Path) -> Tensors:
    """Arrays by name; the / in the names of Google's archives becomes a dot."""
    try:
        if not zipfile.is_zipfile(path):
            raise zipfile.BadZipFile("not a NumPy archive")
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
            if foreign := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
                raise ValueError(f"{foreign[0]} is no array")
    except Exception as error:
        if "allow_pickle" in str(error):
            reason = "it holds Python objects, and reading those would run code from the file"
            raise ConfigError("weights", path, VALID, reason) from error
        raise _unreadable(path, error) from error
    tensors = {}
    for name, array in arrays.items():
        try:
            tensors[name.replace("/", ".")] = torch.from_numpy(array)
        except (TypeError, ValueError) as error:
            hint = f"{name} is of type {array.dtype}: save it as float32 in this machine's byte order"
            raise ConfigError("weights", path, VALID, hint) from error
    return tensors


def _beside(path: Path) -> dict[str, dict[str, Any]]:
    """What the files next to a model's own file say of it, by file and address."""
    said: dict[str, dict[str, Any]] = {}
    for name in (ARCHITECTURE, "config.json") if path.name in (MODEL, "pytorch_model.bin") else ():
        file = path.with_name(name)
        with suppress(OSError, ValueError, RecursionError):
            if file.stat().st_size < SMALL_JSON:
                said[name] = dict(_leaves(json.loads(file.read_bytes())))
    return said


def _heads(facts: Mapping[str, Any], named: str) -> set[int]:
    """Numbers of heads among `facts`."""
    found = (value for address, value in facts.items() if re.search(rf"(^|\.)({named})$", address))
    return {int(value) for value in found if str(value).isdecimal()}


def _heads_of_arch(facts: Mapping[str, Any], tensors: Tensors) -> set[int]:
    """Numbers of heads of the timm models of this depth and width that `facts` names."""
    names = {str(value) for address, value in facts.items() if re.search(rf"(^|\.)({ARCH})$", address)}
    found = set()
    for name in filter(timm.is_model, names):
        with torch.device("meta"), warnings.catch_warnings(), suppress(RuntimeError):
            warnings.simplefilter("ignore")  # of old names
            model = timm.create_model(name)
            shapes = {key: len(tensor) for key, tensor in model.state_dict().items() if key.endswith("norm1.weight")}
            if shapes == {key: len(tensor) for key, tensor in tensors.items() if key.endswith("norm1.weight")}:
                found |= {block.attn.num_heads for block in model.blocks}
    return found


def _unreadable(path: Path, error: Exception) -> ConfigError:
    said = f"{type(error).__name__}: {shown(error, 120)}"
    return ConfigError("weights", path, VALID, f"it is damaged or of another format ({said})")
