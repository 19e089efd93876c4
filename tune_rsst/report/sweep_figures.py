"""A sweep's pictures: front, progress, parallel coordinates, importances, slices; interactive (plotly) and as PNG.

In: a `SweepView`. Out: figures by name, and files; for what can't be drawn, the reason. Front and progress are
described once (`Chart`) and drawn by two renderers; Optuna draws the others both ways. So a PNG needs no browser.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.figures import new_figure, save
from trainables.rsst.config import KNOBS
from trainables.rsst.metrics import METRICS
from trainables.storage.files import replaced
from tune_rsst.ledger.objective import Objective
from tune_rsst.ledger.view import SweepView
from tune_rsst.results.ranking import at_target, pareto_front, standing

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from optuna.study import Study


VALUE = METRICS["val_top1"].heading
KINDS = {"feasible": "#15803d", "infeasible": "#94a3b8", "stopped": "#d97706", "failed": "#dc2626"}
MARKERS = {
    "feasible": ("o", "circle"),
    "infeasible": ("s", "square-open"),
    "stopped": ("^", "triangle-up"),
    "failed": ("x", "x"),
    "best so far": ("o", "circle"),
}
CAPTIONS = {
    "front": "Accuracy against size: each trial's last model, feasible (finished, at the target, within the limits), "
    "infeasible (finished, but not so), stopped early or failed; the line joins the finished ones that no other beats",
    "progress": "The best so far against the epochs that the ended trials took",
    "parallel_coordinates": "Parallel coordinates: one line per finished trial",
    "importances": "How much each parameter decides (PED-ANOVA over the finished trials)",
    "slices": "Each parameter against the accuracy",
}
FROM_OPTUNA = {"parallel_coordinates": "parallel_coordinate", "importances": "param_importances", "slices": "slice"}
NEEDS_FINISHED = 2
PLOTLY = "plotly.min.js"
IMPORTANCE_AXES = ("importance (share)", "parameter (name)")


@dataclass(frozen=True)
class Point:
    """A trial as a point of the front: `size` is what the objective goes against, val_top1 a share."""

    trial: str
    kind: str
    size: float
    val_top1: float


def front_points(view: SweepView) -> list[Point]:
    """Every trial that has ended after at least one hardened round."""
    points, places, against = [], standing(view), Objective.of(view.settings).against
    for trial in view.trials.values():
        m = trial.metrics
        if trial.ended_at and {against, "val_top1"} <= m.keys():
            points.append(Point(trial.trial, places[trial.trial], float(m[against]), float(m["val_top1"])))
    return points


def progress_points(view: SweepView) -> list[tuple[int, float, str]]:
    """(epochs of all ended trials, best val_top1 at the target, its trial) each time the best rose, and at the end."""
    spent, best, name, points = 0, -math.inf, "", []
    for trial in sorted((t for t in view.trials.values() if t.ended_at), key=lambda t: (t.ended_at, t.number)):
        spent += int(trial.metrics.get("epochs_trained", 0))
        value = trial.metrics.get("val_top1", -math.inf)
        if trial.state == "finished" and at_target(view, trial) and value > best:
            best, name = value, trial.trial
            points.append((spent, best, name))
    if points and points[-1][0] < spent:
        points.append((spent, best, name))
    return points


def study_of(view: SweepView) -> Study:
    """The finished trials as an Optuna study in memory; parameters have their units in their names.

    Optuna numbers by position. Failed trials without parameters, which it does not draw, keep each trial at its number.
    """
    import optuna
    from optuna.distributions import json_to_distribution
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize")
    for trial in view.trials.values():
        if trial.state != "finished" or "val_top1" not in trial.metrics:
            continue
        study.add_trials([create_trial(state=TrialState.FAIL)] * (trial.number - len(study.trials)))
        drawn = [name for name in trial.params if name in trial.distributions]
        params = {with_unit(name): trial.params[name] for name in drawn}
        ranges = {with_unit(name): json_to_distribution(trial.distributions[name]) for name in drawn}
        study.add_trial(create_trial(value=trial.metrics["val_top1"], params=params, distributions=ranges))
    return study


def with_unit(name: str) -> str:
    """The name of a searched parameter, with its unit behind it where it has one."""
    return KNOBS[name].heading if name in KNOBS else name


@dataclass(frozen=True)
class Series:
    """Points (x, y, trial) in one style. `line`: none, "dot" or "hv" (steps), in plotly's words."""

    name: str
    points: Sequence[tuple[float, float, str]]
    color: str = "#1f77b4"
    line: str = ""


@dataclass(frozen=True)
class Chart:
    """A figure before it is drawn. `hover`: what plotly shows at a point, in its notation."""

    title: str
    x: str
    y: str
    hover: str
    series: list[Series]


def _front(view: SweepView) -> Chart | str:
    points, best = front_points(view), pareto_front(view)
    if not points:
        return "no trial has ended after a hardened round yet"
    on_front = sorted((p.size, p.val_top1, p.trial) for p in points if p.trial in best)
    series = [Series("front", on_front, KINDS["feasible"], "dot")]
    for kind, color in KINDS.items():
        if mine := [(p.size, p.val_top1, p.trial) for p in points if p.kind == kind]:
            series.append(Series(kind, mine, color))
    x = METRICS[Objective.of(view.settings).against].heading
    return Chart("Accuracy against size", x, VALUE, "%{text}: val_top1 %{y:.4f}, size %{x:.4g}", series)


def _progress(view: SweepView) -> Chart | str:
    steps = progress_points(view)
    if not steps:
        return "no trial that the objective allows has finished yet"
    series = [Series("best so far", steps, line="hv")]
    hover = "%{text}: val_top1 %{y:.4f} after %{x} epochs"
    return Chart("Progress of the best", "spent by the ended trials (epochs)", f"best {VALUE}", hover, series)


def interactive(view: SweepView) -> Iterator[tuple[str, Any]]:
    """(name, plotly figure, or why it can't be drawn) for each of CAPTIONS."""
    yield from _drawn(view, _in_plotly, "plotly")


def still(view: SweepView) -> Iterator[tuple[str, Any]]:
    """(name, matplotlib figure, or why it can't be drawn) for each of CAPTIONS."""
    import matplotlib

    matplotlib.use("Agg")
    yield from _drawn(view, _in_matplotlib, "matplotlib")


def save_figures(view: SweepView, folder: Path) -> None:
    """Write each figure into `folder`, which is made if missing, as PNG and as HTML, with one plotly.min.js for all."""
    from plotly.offline import get_plotlyjs

    save(still(view), folder, bbox_inches="tight")
    if not (folder / PLOTLY).exists():
        with replaced(folder / PLOTLY) as new:
            new.write_text(get_plotlyjs(), encoding="utf-8")
    for name, figure in interactive(view):
        if not isinstance(figure, str):
            with replaced(folder / f"{name}.html") as new:
                figure.write_html(new, include_plotlyjs=PLOTLY)


def _drawn(view: SweepView, render: Callable[[Chart], Any], by: str) -> Iterator[tuple[str, Any]]:
    for name, describe in (("front", _front), ("progress", _progress)):
        chart = describe(view)
        yield name, chart if isinstance(chart, str) else render(chart)
    study = study_of(view)
    for name, function in FROM_OPTUNA.items():
        yield name, _by_optuna(study, function, by)


def _in_plotly(chart: Chart) -> Any:
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
            marker={"color": series.color, "symbol": symbol or None, "size": 10},
            line={
                "color": series.color,
                "dash": "dot" if series.line == "dot" else None,
                "shape": "hv" if series.line == "hv" else None,
            },
            hoverinfo=None if symbol else "skip",
            hovertemplate=f"{chart.hover}<extra></extra>" if symbol else None,
        )
    points = [point for series in chart.series for point in series.points]
    xs, ys = {x for x, _, _ in points}, {y for _, y, _ in points}
    if len(xs) == 1:  # around a single value plotly would show plus and minus 1, which no size or share can be
        figure.update_xaxes(range=[0.9 * min(xs), 1.1 * min(xs)])
    if len(ys) == 1:
        figure.update_yaxes(range=[max(min(ys) - 0.05, 0), min(min(ys) + 0.05, 1.005)])
    figure.update_layout(xaxis_title=chart.x, yaxis_title=chart.y, template="plotly_white", showlegend=True)
    return figure.update_layout(margin={"l": 70, "r": 40, "t": 30, "b": 60})


def _in_matplotlib(chart: Chart) -> Figure:
    figure = new_figure(8, 5)
    axes = figure.subplots()
    for series in chart.series:
        x, y, _ = zip(*series.points, strict=True) if series.points else ((), (), ())
        marker, _ = MARKERS.get(series.name, ("", ""))
        shape, sign = "steps-post" if series.line == "hv" else "default", {"dot": ":", "hv": "-", "": ""}[series.line]
        axes.plot(x, y, marker=marker, linestyle=sign, drawstyle=shape, color=series.color, label=series.name)
    axes.set(title=chart.title, xlabel=chart.x, ylabel=chart.y)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _by_optuna(study: Study, function: str, by: str) -> Any:
    """A figure of Optuna's, or why it can't be drawn."""
    from optuna import visualization

    finished = sum(trial.values is not None for trial in study.trials)
    if finished < NEEDS_FINISHED:
        return f"it needs {NEEDS_FINISHED} finished trials, there are {finished}"
    module = visualization if by == "plotly" else visualization.matplotlib
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = getattr(module, f"plot_{function}")(study, target_name=VALUE)
    except (ValueError, RuntimeError, ZeroDivisionError) as error:
        return f"Optuna can't draw it from {finished} finished trials: {error}"
    return _plain_plotly(found, function) if by == "plotly" else _plain_matplotlib(found, function)


def _plain_plotly(figure: Any, function: str) -> Any:
    figure.update_layout(title=None, margin={"l": 70, "r": 40, "t": 60, "b": 60}, template="plotly_white")
    if function == "param_importances":
        figure.update_layout(xaxis_title=IMPORTANCE_AXES[0], yaxis_title=IMPORTANCE_AXES[1])
    if function == "slice":  # Optuna's own scale begins at white
        figure.update_traces(marker_colorscale="Viridis")
    return figure


def _plain_matplotlib(found: Any, function: str) -> Figure:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes = found.flat[0] if hasattr(found, "flat") else found
    figure: Figure = axes.figure
    figure.set_size_inches(max(9.0, 3.0 * len(figure.axes)) if function == "slice" else 9.0, 5)
    if function == "param_importances":
        axes.set(xlabel=IMPORTANCE_AXES[0], ylabel=IMPORTANCE_AXES[1])
    for place in figure.axes if function == "slice" else ():
        for dots in place.collections:
            dots.set_cmap("viridis")
        if place.get_xscale() == "log":  # ticks of less than a decade would overlap
            place.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            place.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            place.xaxis.set_minor_formatter(NullFormatter())
    return figure
