"""Every mode and range of values that PIL and common tools write has an 8-bit value, or is refused by name."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.trainables.rsst.data.image_files import SIDE, halves, huge_png, palette, png, saved, tiff
from trainables.export import load_model
from trainables.rsst.config import ConfigError
from trainables.rsst.data.folder.pixels import Pixels, is_grey, pixels, stored, warnings_remarked, whites

Make = Callable[[Path], Path]
RED, TEAL, WHITE, HALF_RED = (200, 10, 20), (0, 130, 120), (255, 255, 255), (227, 132, 137)
WIDE, NARROW = ((51400, 0, 65535), (0, 33153, 0)), ((200, 0, 255), (0, 129, 0))


def read(path: Path, *others: Path) -> Pixels:
    """`path` as it is prepared in a set with `others`, grey or in colour as it is."""
    with warnings_remarked():
        white = whites([(one, stored(one)) for one in (path, *others)])
        return pixels(path, SIDE, 1 if is_grey(path) else 3, white)


def grey(name: str, left: float, right: float, dtype: Any = np.uint8) -> Make:
    return lambda folder: saved(folder / name, halves(left, right, dtype))


def black_and_white(name: str) -> Make:
    return lambda folder: saved(folder / name, Image.fromarray(halves(0, 255)).convert("1"))


def colour(name: str, mode: str, left: Any, right: Any, **how: Any) -> Make:
    return lambda folder: saved(folder / name, halves(left, right), mode, **how)


def two_entries(name: str, **how: Any) -> Make:
    return lambda folder: palette(folder / name, RED, TEAL, **how)


def raw_png(bits: int, colour_type: int, values: Any, transparent: bytes = b"") -> Make:
    return lambda folder: png(folder / "x.png", bits, colour_type, values, transparent=transparent)


def raw_tiff(bits: int, values: Any, **how: int) -> Make:
    return lambda folder: tiff(folder / "x.tif", bits, values, **how)


def frames(name: str, left: Any = 10, right: Any = 200, **how: Any) -> Make:
    first, second = (Image.fromarray(halves(*sides)) for sides in ((left, right), (right, left)))
    return lambda folder: saved(folder / name, first, save_all=True, append_images=[second], **how)


def cut(name: str, size: int) -> Make:
    """An image of noise, of which only the first `size` bytes are there."""

    def make(folder: Path) -> Path:
        path = saved(folder / name, np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8))
        assert path.stat().st_size > size
        return _bytes(path, path.read_bytes()[:size])

    return make


TAKEN: dict[str, tuple[Make, Any, Any]] = {
    # what: file, value on the left, on the right (a number: grey; three: RGB)
    "1, PNG": (black_and_white("x.png"), 0, 255),
    "1, TIFF": (black_and_white("x.tif"), 0, 255),
    "L, PNG": (grey("x.png", 10, 200), 10, 200),
    "L, BMP": (grey("x.bmp", 10, 200), 10, 200),
    "L, GIF with a grey palette": (grey("x.gif", 10, 200), 10, 200),
    "L, PGM": (grey("x.pgm", 10, 200), 10, 200),
    "L, TGA": (grey("x.tga", 10, 200), 10, 200),
    "L, JPEG 2000": (grey("x.jp2", 10, 200), 10, 200),
    "L, SGI": (grey("x.sgi", 10, 200), 10, 200),
    "L, TIFF, min is white": (raw_tiff(8, halves(0, 55), photometric=0), 255, 200),
    "LA, opaque": (colour("x.png", "LA", (10, 255), (200, 255)), 10, 200),
    "LA, half and fully transparent": (colour("x.png", "LA", (10, 128), (200, 0)), 132, 255),
    "L with a transparent value": (raw_png(8, 0, halves(10, 200), b"\0\x0a"), 255, 200),
    "P": (two_entries("x.png"), RED, TEAL),
    "P, GIF": (two_entries("x.gif"), RED, TEAL),
    "P, grey palette": (lambda f: palette(f / "x.png", (10,) * 3, (200,) * 3), 10, 200),
    "P with a transparent entry": (two_entries("x.png", transparency=0), WHITE, TEAL),
    "P, GIF with a transparent entry": (two_entries("x.gif", transparency=0), WHITE, TEAL),
    "P with alphas": (two_entries("x.png", transparency=b"\xff\0"), RED, WHITE),
    "RGB, PNG": (colour("x.png", "RGB", RED, TEAL), RED, TEAL),
    "RGB, TIFF": (colour("x.tiff", "RGB", RED, TEAL), RED, TEAL),
    "RGB, WebP": (colour("x.webp", "RGB", RED, TEAL, lossless=True), RED, TEAL),
    "RGB, QOI": (colour("x.qoi", "RGB", RED, TEAL), RED, TEAL),
    "RGB, PCX": (colour("x.pcx", "RGB", RED, TEAL), RED, TEAL),
    "RGB, PPM": (colour("x.ppm", "RGB", RED, TEAL), RED, TEAL),
    "RGB, ICO": (colour("x.ico", "RGB", RED, TEAL, sizes=[(SIDE, SIDE)]), RED, TEAL),
    "RGB with a transparent colour": (raw_png(8, 2, halves(RED, TEAL), struct.pack(">3H", *RED)), WHITE, TEAL),
    "RGBA, opaque": (colour("x.png", "RGBA", (*RED, 255), (*TEAL, 255)), RED, TEAL),
    "RGBA, half and fully transparent": (colour("x.png", "RGBA", (*RED, 128), (*TEAL, 0)), HALF_RED, WHITE),
    "RGBA, WebP": (colour("x.webp", "RGBA", (*RED, 255), (0, 0, 0, 0), lossless=True), RED, WHITE),
    "RGBA, TIFF": (colour("x.tif", "RGBA", (*RED, 255), (*TEAL, 0)), RED, WHITE),
    "RGBa, half transparent": (
        raw_tiff(8, halves((100, 5, 10, 128), (*TEAL, 255)), photometric=2, extra=1), HALF_RED, TEAL),
    "CMYK, TIFF": (colour("x.tif", "CMYK", (0, 255, 255, 0), (255, 0, 0, 55)), (255, 0, 0), (0, 200, 200)),
    "YCbCr, TIFF": (colour("x.tif", "YCbCr", (100, 128, 128), (200, 128, 128)), (100,) * 3, (200,) * 3),
    "I;16, the full range": (grey("x.png", 0, 65535, np.uint16), 0, 255),
    "I;16, 257 · v": (grey("x.png", 257 * 10, 257 * 200, np.uint16), 10, 200),
    "I;16, 14 bits": (grey("x.png", 0, 16383, np.uint16), 0, 255),
    "I;16, 12 bits": (grey("x.png", 2048, 4095, np.uint16), 128, 255),
    "I;16, 10 bits": (grey("x.png", 0, 1023, np.uint16), 0, 255),
    "I;16, 8 bits": (grey("x.png", 10, 200, np.uint16), 10, 200),
    "I;16, TIFF": (grey("x.tif", 0, 65535, np.uint16), 0, 255),
    "I;16, JPEG 2000": (grey("x.jp2", 0, 65535, np.uint16), 0, 255),
    "I;16B, TIFF": (grey("x.tif", 257, 65535, ">u2"), 1, 255),
    "I, TIFF of 32 bits": (grey("x.tif", 0, 65535, np.int32), 0, 255),
    "I, signed 16 bits without a sign": (raw_tiff(16, halves(0, 32767, np.int16), sample_format=2), 0, 127),
    "I, PGM of 12 bits": (lambda f: _pgm(f / "x.pgm", 4095, 0, 4095), 0, 255),
    "F, 0 … 1": (grey("x.tif", 0.2, 1.0, np.float32), 51, 255),
    "F, 0 … 0.8": (grey("x.tif", 0.0, 0.8, np.float32), 0, 204),
    "F, 0 … 255": (grey("x.tif", 10.4, 255.0, np.float32), 10, 255),
    "F, 0 … 4095": (grey("x.tif", 2048.0, 4095.0, np.float32), 128, 255),
    "F, 0 … 65535": (grey("x.tif", 0.0, 65535.0, np.float32), 0, 255),
    "16-bit RGB": (raw_png(16, 2, halves(*WIDE, np.uint16)), *NARROW),
    "16-bit RGB, TIFF": (raw_tiff(16, halves(*WIDE, np.uint16), photometric=2), *NARROW),
    "16-bit RGBA": (raw_png(16, 6, halves((51400, 0, 0, 65535), (0, 0, 0, 0), np.uint16)), (200, 0, 0), WHITE),
    "16-bit grey and alpha": (raw_png(16, 4, halves((51400, 65535), (0, 0), np.uint16)), (200,) * 3, WHITE),
    "animated GIF": (frames("x.gif"), 10, 200),
    "animated PNG": (frames("x.png"), 10, 200),
    "animated WebP": (frames("x.webp", RED, TEAL, lossless=True), RED, TEAL),
    "TIFF of two pages": (frames("x.tif"), 10, 200),
    "a BMP under the name of a PNG": (lambda f: grey("x.bmp", 10, 200)(f).rename(f / "x.png"), 10, 200),
}  # fmt: skip

REFUSED: dict[str, tuple[Make, str]] = {
    "LAB": (colour("x.tif", "LAB", (50, 3, 3), (90, 3, 3)), "mode LAB"),
    "I, below 0": (grey("x.tif", -5, 100, np.int32), r"-5 … 100"),
    "I, beyond 16 bits": (grey("x.tif", 0, 70000, np.int32), r"integers are 0 … 70000"),
    "I, 32 bits without a sign": (raw_tiff(32, halves(0, 2**31 + 9, np.uint32)), "integers are -2"),
    "I, signed 16 bits": (raw_tiff(16, halves(-9, 32767, np.int16), sample_format=2), "-9 …"),
    "F, NaN": (grey("x.tif", 0, np.nan, np.float32), "NaN"),
    "F, infinite": (grey("x.tif", 0, np.inf, np.float32), "infinite"),
    "F, below 0": (grey("x.tif", -0.5, 0.5, np.float32), "floats are -0.5 … 0.5"),
    "F, beyond 16 bits": (grey("x.tif", 0, 1e6, np.float32), r"floats are 0 … 1e\+06"),
    "F, 64 bits": (raw_tiff(64, halves(0, 1, np.float64), sample_format=3), "cannot identify"),
    "F, 16 bits": (raw_tiff(16, halves(0, 1, np.float16), sample_format=3), "cannot identify"),
    "TIFF, signed 8 bits": (raw_tiff(8, halves(-5, 5, np.int8), sample_format=2), "signed"),
    "TIFF, min is white, 16 bits": (raw_tiff(16, halves(0, 65535, np.uint16), photometric=0), "0 means white"),
    "I;16 with a transparent value": (raw_png(16, 0, halves(0, 65535, np.uint16), b"\0\0"), "transparent colour"),
    "16-bit RGB with a transparent colour": (
        raw_png(16, 2, halves((0, 0, 0), (65535, 0, 0), np.uint16), b"\0" * 6), "transparent colour"),
    "a bomb": (lambda f: huge_png(f / "x.png", 30_000), "exceeds limit"),
    "PostScript under the name of a PNG": (
        lambda f: _bytes(f / "x.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n"), "cannot identify"),
    "HTML": (lambda f: _bytes(f / "x.jpg", b"<html>not found</html>"), "cannot identify"),
    "text": (lambda f: _bytes(f / "x.png", b"../other/x.png"), "cannot identify"),
    "a cut PNG": (cut("x.png", 400), "truncated|broken"),
    "a cut JPEG": (cut("x.jpg", 700), "truncated"),
    "a cut GIF": (cut("x.gif", 900), "truncated|not enough|EOF"),
    "a cut BMP": (cut("x.bmp", 1500), "truncated"),
    "a cut TIFF": (cut("x.tif", 600), "truncated|identify"),
    "a cut WebP": (cut("x.webp", 60), "identify|truncated|decode"),
    "a cut JPEG 2000": (cut("x.jp2", 150), "truncated|broken|identify|error"),
}  # fmt: skip


def _bytes(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _pgm(path: Path, most: int, left: int, right: int) -> Path:
    return _bytes(path, b"P5 %d %d %d\n" % (SIDE, SIDE, most) + halves(left, right, ">u2").tobytes())


@pytest.mark.parametrize("what", TAKEN)
def test_what_is_taken_has_its_value(what: str, tmp_path: Path) -> None:
    make, left, right = TAKEN[what]
    values = read(make(tmp_path)).values.astype(int)
    for column, expected in ((0, left), (SIDE - 1, right)):
        assert values[:, 0, column] == pytest.approx(
            np.atleast_1d(expected), abs=1 if "half" in what or "RGBa" in what else 0
        )


@pytest.mark.parametrize("what", TAKEN)
def test_an_exported_model_reads_a_file_as_the_training_did(what: str, tmp_path: Path) -> None:
    path = TAKEN[what][0](tmp_path)
    white = whites([(path, stored(path))])
    about: dict[str, Any] = {"img_size": 6, "in_chans": 1 if is_grey(path) else 3, "resize": "cover", "white": white}
    ours = pixels(path, 6, about["in_chans"], white).values
    assert np.array_equal(load_model.pixels_of(path, about), ours)


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_is_named_in_one_line(what: str, tmp_path: Path) -> None:
    make, reason = REFUSED[what]
    path = make(tmp_path)
    with pytest.raises(ConfigError, match=reason) as refused:
        read(path)
    assert str(refused.value).startswith(f"data = {path}: valid is ") and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("what", "remark"),
    [
        ("animated GIF", "several frames"),
        ("TIFF of two pages", "several frames"),
        ("CMYK, TIFF", "CMYK"),
        ("16-bit RGB", "16 bits a channel"),
        ("RGBA, half and fully transparent", "laid on white"),
    ],
)
def test_what_was_decided_is_remarked(what: str, remark: str, tmp_path: Path) -> None:
    assert remark in " ".join(read(TAKEN[what][0](tmp_path)).remarks)


@pytest.mark.parametrize("what", ["L, PNG", "RGB, PNG", "RGBA, opaque", "LA, opaque"])
def test_what_is_exact_needs_no_remark(what: str, tmp_path: Path) -> None:
    assert read(TAKEN[what][0](tmp_path)).remarks == ()


def test_one_rule_for_all_files_of_a_set(tmp_path: Path) -> None:
    """Else a dim image would come out as bright as a bright one."""
    dim, bright = (saved(tmp_path / f"{v}.png", halves(0, v, np.uint16)) for v in (1000, 4000))
    assert int(read(dim, bright).values.max()) == 62 and int(read(dim).values.max()) == 249
    floats = [saved(tmp_path / f"{v}.tif", halves(0, v, np.float32)) for v in (0.5, 100.0)]
    assert int(read(*floats).values.max()) == 0, "0.5 of 255, not 128"


@pytest.mark.parametrize(("orientation", "corner"), [(1, 10), (2, 200), (3, 200), (6, 10), (8, 200), (99, 10)])
def test_images_are_turned_upright(orientation: int, corner: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(halves(10, 200))
    assert abs(int(read(saved(tmp_path / "x.png", image, exif=exif)).values[0, 0, 0]) - corner) < 2


def test_damaged_exif_is_remarked(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.jpg", Image.new("L", (SIDE, SIDE), 77), exif=b"Exif\0\0II*\0\x08\0\0\0\x09\0\x12\x01")
    assert "read with a warning of PIL (Corrupt EXIF data." in " ".join(read(path).remarks)
