"""Image files as programs write them: by PIL where it can, else byte by byte. Each holds two halves, left and right."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

SIDE = 8


def halves(left: Any, right: Any, dtype: Any = np.uint8) -> npt.NDArray[Any]:
    """SIDE × SIDE values (and channels): `left` in the left half, `right` in the right one."""
    left, right = (np.asarray(value, dtype=dtype) for value in (left, right))
    image = np.empty((SIDE, SIDE, *left.shape), dtype=dtype)
    image[:, : SIDE // 2], image[:, SIDE // 2 :] = left, right
    return image


def saved(path: Path, image: Image.Image | npt.NDArray[Any], mode: str | None = None, **how: Any) -> Path:
    """Save `image` (an array: as PIL takes it, or raw in `mode`) under a name that says the format."""
    if not isinstance(image, Image.Image):
        image = Image.frombytes(mode, (SIDE, SIDE), image.tobytes()) if mode else Image.fromarray(image)
    image.save(path, **how)
    return path


def palette(path: Path, left: Sequence[int], right: Sequence[int], **how: Any) -> Path:
    """An image of two palette entries."""
    image = Image.frombytes("P", (SIDE, SIDE), halves(0, 1).tobytes())
    image.putpalette([*left, *right])
    return saved(path, image, **how)


def png(path: Path, bits: int, colour_type: int, values: npt.NDArray[Any], *, transparent: bytes = b"") -> Path:
    """A PNG of 8 or 16 bits a channel; `transparent` is the content of a tRNS chunk."""
    rows = values.astype(">u2" if bits == 16 else "u1")
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    height, width = values.shape[:2]
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))]
    chunks += [(b"tRNS", transparent)] if transparent else []
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(map(_chunk, [*chunks, (b"IDAT", data), (b"IEND", b"")])))
    return path


def _chunk(named: tuple[bytes, bytes]) -> bytes:
    name, data = named
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def huge_png(path: Path, side: int) -> Path:
    """A PNG of a few bytes whose head promises `side` × `side` pixels."""
    head = _chunk((b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + head + _chunk((b"IDAT", zlib.compress(b"\0" * 99))) + _chunk((b"IEND", b""))
    )
    return path


def tiff(
    path: Path, bits: int, values: npt.NDArray[Any], *, photometric: int = 1, sample_format: int = 1, extra: int = -1
) -> Path:
    """An uncompressed TIFF. `photometric`: 0 min-is-white, 1 min-is-black, 2 RGB. `extra`: 1 premultiplied alpha."""
    raw, samples = values.tobytes(), values.shape[2] if values.ndim == 3 else 1
    tags: dict[int, tuple[int, ...]] = {
        256: (SIDE,), 257: (SIDE,), 258: (bits,) * samples, 259: (1,), 262: (photometric,), 273: (0,),
        277: (samples,), 278: (SIDE,), 279: (len(raw),), 339: (sample_format,) * samples,
    }  # fmt: skip
    if extra >= 0:
        tags[338] = (extra,)
    directory = io.BytesIO()
    data_at = 8 + 2 + 12 * len(tags) + 4
    tags[273] = (data_at + 8 * len(tags),)  # after room for the values that don't fit into their entry
    beyond = b""
    directory.write(struct.pack("<H", len(tags)))
    for tag, value in sorted(tags.items()):
        packed = struct.pack(f"<{len(value)}H", *value)
        if len(packed) > 4:
            beyond, packed = beyond + packed, struct.pack("<I", data_at + len(beyond))
        directory.write(struct.pack("<HHI", tag, 3, len(value)) + packed.ljust(4, b"\0"))
    directory.write(struct.pack("<I", 0))
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + directory.getvalue() + beyond.ljust(8 * len(tags), b"\0") + raw)
    return path
