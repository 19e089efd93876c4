"""A chart drawn in two ways: by plotly for the page, by matplotlib as a still picture, which needs no browser.

In: a `Chart`. Out: a figure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainables.figures import new_figure
from tune_rsst.report.charts import GAP, MARKERS, Chart

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def in_plotly(chart: Chart) -> Any:
    """An interactive figure."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for series in chart.series:
        x, y, trials = zip(*series.points, strict=True) if series.points else ((), (), ())
        _, symbol = MARKERS.get(series.name, ("", ""))
        figure.add_scatter(
            x=x,
            y=y,
            text=trials,
            name=series.name,
            mode="+".join(["lines"] * bool(series.line) + ["markers"] * bool(symbol)),
            marker={"color": series.color, "symbol": symbol or None, "size": chart.marker},
            line={
                "color": series.color,
                "dash": "dot" if series.line == "dot" else None,
                "shape": "hv" if series.line == "hv" else None,
            },
            hoverinfo=None if symbol else "skip",
            hovertemplate=f"{chart.hover}<extra></extra>" if symbol else None,
        )
    points = [point for series in chart.series for point in series.points if point is not GAP]
    xs, ys = {x for x, _, _ in points}, {y for _, y, _ in points}
    if len(xs) == 1:  # around a single value plotly would show plus and minus 1, which no size or share can be
        figure.update_xaxes(range=[0.9 * min(xs), 1.1 * min(xs)])
    if len(ys) == 1:
        figure.update_yaxes(range=[max(min(ys) - 0.05, 0), min(min(ys) + 0.05, 1.005)])
    figure.update_layout(xaxis_title=chart.x, yaxis_title=chart.y, template="plotly_white", showlegend=True)
    return figure.update_layout(margin={"l": 70, "r": 40, "t": 30, "b": 60})


def in_matplotlib(chart: Chart) -> Figure:
    """A still one."""
    figure = new_figure(8, 5)
    axes = figure.subplots()
    for series in chart.series:
        x, y, _ = zip(*series.points, strict=True) if series.points else ((), (), ())
        marker, _ = MARKERS.get(series.name, ("", ""))
        shape, sign = "steps-post" if series.line == "hv" else "default", {"dot": ":", "": ""}.get(series.line, "-")
        size = 0.6 * chart.marker
        axes.plot(
            x, y, marker=marker, markersize=size, linestyle=sign, drawstyle=shape, color=series.color, label=series.name
        )
    axes.set(title=chart.title, xlabel=chart.x, ylabel=chart.y)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
