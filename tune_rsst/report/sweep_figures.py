"""A sweep's pictures: front, progress, parallel coordinates, importances, slices; interactive (plotly) and as PNG.

Comes in: a `SweepView`. Goes out: figures by name, and files. Both kinds are drawn from the same points; Optuna draws
the last three, in plotly and in matplotlib, so that a PNG needs no browser. What can't be drawn says why.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.rsst.config import KNOBS
from trainables.rsst.metrics import METRICS
from trainables.storage.files import replaced
from tune_rsst.ledger.objective import Objective
from tune_rsst.ledger.view import SweepView
from tune_rsst.report.trial_figures import new_figure, save
from tune_rsst.results.ranking import at_target, pareto_front, standing

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from optuna.study import Study


VALUE = METRICS["val_top1"].heading
KINDS = {
    "feasible": ("#15803d", "o", "circle"),
    "infeasible": ("#94a3b8", "s", "square-open"),
    "stopped": ("#d97706", "^", "triangle-up"),
    "failed": ("#dc2626", "x", "x"),
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
    """(epochs spent by all ended trials, best val_top1 at the target, its trial), one for each time the best rose,
    and a last one for the end."""
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
    """The finished trials as an Optuna study in memory; parameters carry their units in their names.

    Optuna numbers by position: failed ones without parameters, which it draws nowhere, keep each trial at its number.
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
        drawn = {n: json_to_distribution(trial.distributions[n]) for n in trial.params if n in trial.distributions}
        study.add_trial(
            create_trial(
                value=trial.metrics["val_top1"],
                params={with_unit(name): trial.params[name] for name in drawn},
                distributions={with_unit(name): distribution for name, distribution in drawn.items()},
            )
        )
    return study


def with_unit(name: str) -> str:
    """The name of a searched parameter, with its unit behind it where it has one."""
    return KNOBS[name].heading if name in KNOBS else name


def interactive(view: SweepView) -> Iterator[tuple[str, Any]]:
    """(name, plotly figure or the reason why there is none) for each of CAPTIONS."""
    yield from _drawn(view, _plotly_front, _plotly_progress, "plotly")


def still(view: SweepView) -> Iterator[tuple[str, Any]]:
    """(name, matplotlib figure or the reason why there is none) for each of CAPTIONS."""
    import matplotlib

    matplotlib.use("Agg")
    yield from _drawn(view, _still_front, _still_progress, "matplotlib")


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


def _drawn(view: SweepView, front: Callable[..., Any], progress: Callable[..., Any], by: str) -> Iterator[Any]:
    points, steps = front_points(view), progress_points(view)
    yield "front", front(view, points) if points else "no trial has ended after a hardened round yet"
    yield "progress", progress(steps) if steps else "no trial that the objective allows has finished yet"
    study = study_of(view)
    for name, function in FROM_OPTUNA.items():
        yield name, _by_optuna(study, function, by)


def _by_optuna(study: Study, function: str, by: str) -> Any:
    """A figure of Optuna's, or why it can't be drawn."""
    from optuna import visualization

    finished = sum(trial.values is not None for trial in study.trials)
    if finished < NEEDS_FINISHED:
        return f"it needs {NEEDS_FINISHED} finished trials, there are {finished}"
    module = visualization if by == "plotly" else visualization.matplotlib
    draw = getattr(module, f"plot_{function}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = draw(study, target_name=VALUE)
    except (ValueError, RuntimeError, ZeroDivisionError) as error:
        return f"Optuna can't draw it from {finished} finished trials: {error}"
    if by == "plotly":
        return _in_plain_layout(found, function)
    axes = found if not hasattr(found, "flat") else found.flat[0]
    figure = axes.figure
    figure.set_size_inches(max(9.0, 3.0 * len(getattr(figure, "axes", [])) if function == "slice" else 9.0), 5)
    if function == "param_importances":
        axes.set_xlabel("importance (share)")
        axes.set_ylabel("parameter (name)")
    if function == "slice":
        _readable_slices(figure)
    return figure


def _readable_slices(figure: Figure) -> None:
    """Optuna's colours begin at white, and the ticks of a log axis of less than a decade lie on each other."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    for place in figure.axes:
        for dots in place.collections:
            dots.set_cmap("viridis")
        if place.get_xscale() == "log":
            place.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            place.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            place.xaxis.set_minor_formatter(NullFormatter())


def _in_plain_layout(figure: Any, function: str) -> Any:
    figure.update_layout(title=None, margin={"l": 70, "r": 40, "t": 60, "b": 60}, template="plotly_white")
    if function == "param_importances":
        figure.update_layout(xaxis_title="importance (share)", yaxis_title="parameter (name)")
    if function == "slice":  # Optuna's own scale begins at white
        figure.update_traces(marker_colorscale="Viridis")
    return figure


def _on_the_front(view: SweepView, points: list[Point]) -> list[Point]:
    best = pareto_front(view)
    return sorted((p for p in points if p.trial in best), key=lambda p: p.size)


def _plotly_front(view: SweepView, points: list[Point]) -> Any:
    import plotly.graph_objects as go

    figure = go.Figure()
    line = _on_the_front(view, points)
    figure.add_scatter(x=[p.size for p in line], y=[p.val_top1 for p in line], mode="lines", name="front",
                       line={"color": KINDS["feasible"][0], "dash": "dot"}, hoverinfo="skip")  # fmt: skip
    for kind, (color, _, symbol) in KINDS.items():
        mine = [p for p in points if p.kind == kind]
        if mine:
            figure.add_scatter(x=[p.size for p in mine], y=[p.val_top1 for p in mine], text=[p.trial for p in mine],
                               mode="markers", name=kind, marker={"color": color, "symbol": symbol, "size": 10},
                               hovertemplate="%{text}: val_top1 %{y:.4f}, size %{x:.4g}<extra></extra>")  # fmt: skip
    _spread(figure, [p.size for p in points], [p.val_top1 for p in points])
    return _with_axes(figure, METRICS[Objective.of(view.settings).against].heading, VALUE)


def _spread(figure: Any, sizes: list[float], shares: list[float]) -> None:
    """Where all points have one value plotly would draw plus and minus 1 around it, which no size or share can be."""
    if len(set(sizes)) == 1:
        figure.update_xaxes(range=[0.9 * sizes[0], 1.1 * sizes[0]])
    if len(set(shares)) == 1:
        figure.update_yaxes(range=[max(shares[0] - 0.05, 0), min(shares[0] + 0.05, 1.005)])


def _plotly_progress(steps: list[tuple[int, float, str]]) -> Any:
    import plotly.graph_objects as go

    figure = go.Figure()
    figure.add_scatter(x=[s[0] for s in steps], y=[s[1] for s in steps], text=[s[2] for s in steps], name="best so far",
                       mode="lines+markers", line={"shape": "hv"},
                       hovertemplate="%{text}: val_top1 %{y:.4f} after %{x} epochs<extra></extra>")  # fmt: skip
    _spread(figure, [float(s[0]) for s in steps], [s[1] for s in steps])
    return _with_axes(figure, "spent by the ended trials (epochs)", f"best {VALUE}")


def _with_axes(figure: Any, x: str, y: str) -> Any:
    figure.update_layout(xaxis_title=x, yaxis_title=y, template="plotly_white", showlegend=True)
    figure.update_layout(margin={"l": 70, "r": 40, "t": 30, "b": 60})
    return figure


def _still_front(view: SweepView, points: list[Point]) -> Figure:
    figure = new_figure(8, 5)
    axes = figure.subplots()
    line = _on_the_front(view, points)
    axes.plot([p.size for p in line], [p.val_top1 for p in line], ":", color=KINDS["feasible"][0])
    for kind, (color, marker, _) in KINDS.items():
        mine = [p for p in points if p.kind == kind]
        if mine:
            axes.scatter([p.size for p in mine], [p.val_top1 for p in mine], color=color, marker=marker, label=kind)
    axes.set_title("Accuracy against size")
    return _labelled(figure, axes, METRICS[Objective.of(view.settings).against].heading, VALUE)


def _still_progress(steps: list[tuple[int, float, str]]) -> Figure:
    figure = new_figure(8, 4)
    axes = figure.subplots()
    axes.step([s[0] for s in steps], [s[1] for s in steps], "o-", where="post", label="best so far")
    axes.set_title("Progress of the best")
    return _labelled(figure, axes, "spent by the ended trials (epochs)", f"best {VALUE}")


def _labelled(figure: Figure, axes: Any, x: str, y: str) -> Figure:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
