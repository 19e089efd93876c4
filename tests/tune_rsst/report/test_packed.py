"""What a page holds in few bytes is what was put in: plotly's code, a figure's data, a picture's pixels."""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from plotly import graph_objects
from plotly.offline import get_plotlyjs

from tune_rsst.report import packed


def test_plotly_is_whole_and_at_most_half_as_large() -> None:
    page = packed.draw_html()
    [code] = re.findall(r'id="plotly">(.*?)</script>', page, re.S)
    assert gzip.decompress(base64.b64decode(code)).decode() == get_plotlyjs()
    assert len(page) < 0.5 * len(get_plotlyjs())


@pytest.mark.parametrize(
    "text", ["</script><script>alert(1)</script>", "<!-- <script>", "a\u2028b", "<b>&amp;'\"</b>", "层"]
)
def test_a_figure_s_text_stays_data(text: str) -> None:
    figure = graph_objects.Figure(graph_objects.Scatter(x=[1, 2], y=[0.5, None], name=text))
    [data] = re.findall(r'data-figure="figure-x">(.*)</script>', packed.figure_html(figure, "figure-x"), re.S)
    assert "</" not in data and "<!--" not in data
    assert json.loads(data)["data"] == json.loads(figure.to_json())["data"]


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_picture_keeps_every_pixel(tmp_path: Path, mode: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, len(mode)), dtype=np.uint8)
    Image.fromarray(pixels, mode).save(tmp_path / "a.png")
    found = packed.picture_html(tmp_path / "a.png", '"quoted"')
    [data] = re.findall(r'alt="&quot;quoted&quot;" src="data:image/webp;base64,(.*)">', found)
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert(mode))
    opaque = pixels[..., 3] > 0 if mode == "RGBA" else np.ones((20, 30), bool)
    assert np.array_equal(shown[opaque], pixels[opaque])
