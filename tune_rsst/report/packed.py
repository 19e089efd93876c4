"""What makes a page large, made small: plotly as gzip that the browser unpacks, pictures as WebP without a loss.

In: plotly figures, PNG files. Out: HTML that needs no network. Browsers since 2023 can unpack; an older one gets a
sentence in place of the figures.
"""

from __future__ import annotations

import base64
import gzip
import io
from pathlib import Path
from typing import Any

from PIL import Image

from trainables.text import in_html

FIGURE = """<div id="{name}" class="plotly-graph-div"></div>
<script type="application/json" data-figure="{name}">{json}</script>"""
DRAW = """<script type="text/plain" id="plotly">{packed}</script>
<script>(async () => {{
  const figures = document.querySelectorAll("script[data-figure]");
  try {{
    const bytes = Uint8Array.from(atob(document.getElementById("plotly").textContent), c => c.charCodeAt(0));
    const code = document.createElement("script");
    code.text = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
    document.head.append(code);
    for (const figure of figures) {{
      const {{data, layout}} = JSON.parse(figure.textContent);
      await Plotly.newPlot(figure.dataset.figure, data, layout, {{responsive: true}});
    }}
  }} catch (error) {{
    for (const figure of figures)
      document.getElementById(figure.dataset.figure).textContent = "This browser could not draw the figure: " + error;
  }}
}})();</script>"""


def figure_html(figure: Any, name: str) -> str:
    """The place of `figure` in the page, with the id `name`, and its data."""
    return FIGURE.format(name=name, json=figure.to_json().replace("</", "<\\/").replace("<!--", "<\\u0021--"))


def draw_html() -> str:
    """What draws every figure of the page; it stands once, after them."""
    from plotly.offline import get_plotlyjs

    packed = gzip.compress(get_plotlyjs().encode(), mtime=0)
    return DRAW.format(packed=base64.b64encode(packed).decode())


def picture_html(file: Path, alt: str) -> str:
    """The picture in `file`, pixel by pixel, in about two fifths of its bytes."""
    webp = io.BytesIO()
    with Image.open(file) as image:
        image.save(webp, "WEBP", lossless=True, method=2)
    data = base64.b64encode(webp.getvalue()).decode()
    return f'<img alt="{in_html(alt)}" src="data:image/webp;base64,{data}">'
