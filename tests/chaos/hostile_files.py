"""Image folders and weights files that nobody should have, from a random stream.

In: a stream and an empty folder. Out: nothing where they are read, else the program's ConfigError.
"""

from __future__ import annotations

import argparse
import functools
import io
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from timm.models.vision_transformer import VisionTransformer

from trainables.rsst.config import RSSTConfig
from trainables.rsst.data.load import load
from trainables.rsst.model.pretrained import initial_weights

FORMATS = ("png", "jpg", "gif", "bmp", "tif", "webp", "ppm", "tga", "jp2")
MODES = ("L", "RGB", "RGBA", "P", "1", "LA", "CMYK", "I;16", "F", "I")
EXIF = bytes.fromhex("4d4d002a00000008000101120003000000010006000000000000")


def image(stream: random.Random, spoilt: float) -> tuple[str, bytes]:
    """(ending, content) of an image, perhaps with an EXIF block; a share `spoilt` of them is damaged, or odd."""
    odd = stream.random() < spoilt
    ending, mode, file = stream.choice(FORMATS), stream.choice(MODES if odd else ("L", "RGB", "P")), io.BytesIO()
    side = stream.choice([1, 8, 8, 8, 33])
    pixels = np.random.default_rng(stream.randrange(2**32)).integers(0, 256, (side, side, 3), np.uint8)
    exif = bytearray(EXIF)
    for _ in range(stream.randint(0, 6) if odd else 0):
        exif[stream.randrange(len(exif))] = stream.randrange(256)
    how: dict[str, Any] = {"exif": b"Exif\0\0" + bytes(exif)} if stream.random() < 0.4 else {}
    picture = Image.fromarray(pixels)
    try:
        picture = picture.convert("L").convert(mode) if mode in ("I;16", "F", "I") else picture.convert(mode)
        picture.save(file, Image.registered_extensions()[f".{ending}"], **how)
    except Exception:  # noqa: BLE001  this format has no such mode, or its writer reads the EXIF block
        ending = "jpg"
        picture.convert("RGB").save(file := io.BytesIO(), "JPEG", **how)
    content = bytearray(file.getvalue())
    if odd and stream.random() < 0.5:
        for _ in range(stream.randint(1, 9)):
            content[stream.randrange(len(content))] = stream.randrange(256)
    if odd and stream.random() < 0.2:
        content = content[: stream.randrange(len(content))]
    return ending, bytes(content)


def odd_entry(stream: random.Random, place: Path, root: Path) -> None:
    """A pipe, a link to nowhere, in a circle, above, to a device or the system's folders, a deep or odd name."""
    at = place / stream.choice(
        ["z.png", "z", ".z.png", "z.heic", "z" * 250 + ".png", "a\nb.png", "\udcff.png", "train"]
    )
    targets = [
        "nowhere",
        at.name,
        "..",
        ".",
        "../..",
        "/",
        "/proc",
        "/proc/self",
        "/dev/zero",
        "/dev/stdin",
        "/sys",
        str(root),
    ]
    kinds: list[Callable[[], object]] = [
        lambda: os.mkfifo(at),
        lambda: at.symlink_to(stream.choice(targets)),
        lambda: at.symlink_to("x/" * 1000),
        lambda: at.mkdir(),
        lambda: at.write_bytes(b""),
        lambda: at.write_bytes(stream.randbytes(99)),
        lambda: (place / "/".join(["d"] * stream.choice([3, 25, 200]))).mkdir(parents=True),
        lambda: ((place / "l1").symlink_to("l2"), (place / "l2").symlink_to("l1")),
        lambda: ((place / "p").mkdir(), (place / "p" / "q").symlink_to(".."), (place / "p" / "r").symlink_to("q")),
        lambda: at.mkdir(mode=0),
    ]
    make = stream.choice(kinds)
    if os.path.lexists(at):
        return
    try:
        make()
    except OSError:
        return


def folders(stream: random.Random, folder: Path) -> None:
    root = folder / "images"
    parts = stream.choice([[""], ["train", "val"], ["train"], ["train", "test", "dev"]])
    spoilt = stream.choice([0.0, 0.01, 0.1, 0.5])
    places = [root / part / name for part in parts for name in ("cat", "dog", "fox")[: stream.choice([1, 2, 3, 3])]]
    for place in places:
        place.mkdir(parents=True)
        for number in range(stream.choice([0, 8, 8, 8]) if spoilt else 8):
            ending, content = image(stream, spoilt)
            (place / f"{number}.{ending}").write_bytes(content)
    for _ in range(stream.randint(0, 4)):
        odd_entry(stream, stream.choice([root, *places]), root)
    given = stream.choice([str(root)] * 30 + ["/proc", "/dev", str(root) + "/" * 5000 + "x" * 300, str(places[0])])
    load(RSSTConfig.from_knobs({"dataset": "folder", "data": given, "arch": "vit_digits", "img_size": 8}))


@functools.cache
def tensors() -> dict[str, torch.Tensor]:
    """Those of a small ViT for 8 × 8 grey images."""
    torch.manual_seed(0)
    return dict(_model().state_dict())


def _model() -> VisionTransformer:
    return VisionTransformer(img_size=8, patch_size=4, in_chans=1, num_classes=10, embed_dim=8, depth=1, num_heads=2)


def odd_tensor(stream: random.Random, tensor: torch.Tensor) -> Any:
    kinds: list[Callable[[], Any]] = [
        lambda: tensor.to_sparse(),
        lambda: torch.empty_like(tensor, device="meta"),
        lambda: tensor.to(torch.complex64),
        lambda: tensor.half(),
        lambda: tensor.to(torch.int8),
        lambda: tensor.bool(),
        lambda: tensor * float("nan"),
        lambda: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
        lambda: tensor[..., :0],
        lambda: tensor.expand(2, *tensor.shape),
        lambda: torch.zeros(()),
        lambda: tensor.flatten(),
        lambda: torch.nested.nested_tensor([tensor.flatten(), tensor.flatten()[:1]]),
        lambda: tensor.to(torch.float8_e4m3fn),
        lambda: tensor.as_subclass(torch.nn.Parameter),
        lambda: "text",
        lambda: None,
        lambda: [tensor],
    ]
    return stream.choice(kinds)()


class Canary:
    """What a pickle of this would run."""

    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


def odd_array(stream: random.Random, array: Any) -> Any:
    kinds: list[Callable[[], Any]] = [
        lambda: array.astype(">f4"),
        lambda: array.astype(np.longdouble),
        lambda: array.astype("U8"),
        lambda: array.astype(np.complex64),
        lambda: array.astype(np.float16),
        lambda: array.astype("M8[s]"),
        lambda: np.zeros(3, dtype=[("a", "f4")]),
        lambda: np.array([Canary()], dtype=object),
        lambda: np.zeros((0, *array.shape)),
        lambda: np.float32(1.0),
    ]
    return stream.choice(kinds)()


def weights(stream: random.Random, folder: Path) -> None:
    ending = stream.choice(["safetensors", "pth", "ckpt", "npz"])
    path, found, file = folder / f"w.{ending}", dict(tensors()), io.BytesIO()
    chosen = stream.choice(list(found))
    odd = stream.random() < 0.5
    if ending == "npz":
        arrays = {name: tensor.numpy() for name, tensor in found.items()}
        if odd:
            arrays[chosen] = odd_array(stream, arrays[chosen])
        np.savez(file, **arrays)
    elif ending == "safetensors":
        file.write(save(found, stream.choice([None, {"num_heads": "x"}, {"num_heads": "2"}])))
    else:
        content: Any = found | ({chosen: odd_tensor(stream, found[chosen])} if odd else {})
        wrapped = [
            content,
            {"model": content},
            [content],
            argparse.Namespace(a=content),
            {"x": Canary(), **content},
            7,
            None,
        ]
        torch.save(stream.choice([content, stream.choice(wrapped)]), file)
    content = bytearray(file.getvalue())
    for _ in range(stream.choice([0, 0, 1, 3, 30])):
        content[stream.randrange(min(len(content), stream.choice([64, 2000, len(content)])))] = stream.randrange(256)
    if stream.random() < 0.1:
        content = content[: stream.randrange(len(content))]
    path.write_bytes(bytes(content))
    if stream.random() < 0.1:
        path.unlink()
        _not_a_weights_file(stream, path)
    try:
        config = {"arch": "vit_digits", "pretrained": True, "weights": str(path), "dataset": "digits"}
        initial_weights(RSSTConfig.from_knobs(config), _model())
    finally:
        assert not (folder / "executed").exists(), "the file was executed"


def _not_a_weights_file(stream: random.Random, path: Path) -> None:
    def zeros() -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.npy", bytes(10**7))

    kinds: list[Callable[[], object]] = [
        zeros,
        lambda: os.mkfifo(path),
        lambda: path.symlink_to("/dev/zero"),
        lambda: path.symlink_to(path),
        path.mkdir,
        lambda: path.write_bytes(bytes(9999)),
        lambda: path.write_bytes(b"\xff\xff\xff\xff\xff\xff\xff\x7f{}"),
        lambda: None,
    ]
    stream.choice(kinds)()
