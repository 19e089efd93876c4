"""What a sweep's own figures show, before they are drawn: accuracy against size, over the rounds, and progress.

In: a `SweepView`. Out: a `Chart`, or the reason why there is none yet. renderers.py draws charts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trainables.rsst.metrics import METRICS
from tune_rsst.ledger.objective import Objective
from tune_rsst.ledger.view import UNFINISHED, SweepView
from tune_rsst.results.ranking import at_target, best_of, pareto_front, rounds_front, standing

VALUE = METRICS["val_top1"].heading
KINDS = {"feasible": "#15803d", "infeasible": "#94a3b8", "stopped": "#d97706", "failed": "#dc2626"}
MARKERS = {
    "feasible": ("o", "circle"),
    "infeasible": ("s", "square-open"),
    "stopped": ("^", "triangle-up"),
    "failed": ("x", "x"),
    "best so far": ("o", "circle"),
    UNFINISHED: (".", "circle-open"),
    "best": ("*", "star"),
}
FRONT = "#111827"
CURVES = {**KINDS, UNFINISHED: "#0891b2", "best": "#1d4ed8"}


Point = tuple[float, float, str]
"""x, y, the trial"""


def front_points(view: SweepView) -> dict[str, list[Point]]:
    """By `standing`: (what the objective goes against, val_top1) of trials that ended after a hardened round."""
    points, places, against = dict[str, list[Point]](), standing(view), Objective.of(view.settings).against
    for trial in view.trials.values():
        m = trial.metrics
        if trial.ended_at and {against, "val_top1"} <= m.keys():
            points.setdefault(places[trial.trial], []).append((float(m[against]), float(m["val_top1"]), trial.trial))
    return points


def progress_points(view: SweepView) -> list[Point]:
    """(epochs of all ended trials, best value at the target, its trial) each time it got better, and at the end."""
    spent, best, name, points = 0, -math.inf, "", list[Point]()
    objective = Objective.of(view.settings)
    for trial in sorted((t for t in view.trials.values() if t.ended_at), key=lambda t: (t.ended_at, t.number)):
        spent += sum(int(run.own_metrics.get("epochs_trained", 0)) for run in trial.all_runs)
        value = objective.merit(trial.metrics)
        if trial.state == "finished" and at_target(view, trial) and value > best:
            best, name = value, trial.trial
            points.append((spent, objective.sign * best, name))
    if points and points[-1][0] < spent:
        points.append((spent, objective.sign * best, name))
    return points


@dataclass(frozen=True)
class Series:
    """Points (x, y, trial) in one style. `line`: none, "solid", "dot" or "hv" (steps), in plotly's words.

    A `GAP` among the points breaks the line.
    """

    name: str
    points: Sequence[Point]
    color: str = "#1f77b4"
    line: str = ""


GAP = (math.nan, math.nan, "")


@dataclass(frozen=True)
class Chart:
    """A figure before it is drawn. `hover`: what plotly shows at a point, in its notation; `marker`: pixels."""

    title: str
    x: str
    y: str
    hover: str
    series: list[Series]
    marker: int = 10


def front(view: SweepView) -> Chart | str:
    """Accuracy against size, a point for each ended trial; or why there is no such figure."""
    points, best = front_points(view), pareto_front(view)
    if not points:
        return "no trial has ended after a hardened round yet"
    on_front = sorted(point for mine in points.values() for point in mine if point[2] in best)
    series = [Series("front", on_front, KINDS["feasible"], "dot")]
    series += [Series(kind, points[kind], color) for kind, color in KINDS.items() if kind in points]
    x = METRICS[Objective.of(view.settings).against].heading
    return Chart("Accuracy against size", x, VALUE, "%{text}: val_top1 %{y:.4f}, size %{x:.4g}", series)


def progress(view: SweepView) -> Chart | str:
    """The best so far against the epochs spent; or why there is no such figure."""
    steps = progress_points(view)
    if not steps:
        return "no trial that the objective allows has finished yet"
    series = [Series("best so far", steps, line="hv")]
    metric = Objective.of(view.settings).metric
    hover = "%{text}: " + metric + " %{y:.4f} after %{x} epochs"
    best = f"best {METRICS[metric].heading}"
    return Chart("Progress of the best", "spent by the ended trials (epochs)", best, hover, series)


def pruning_curves(view: SweepView) -> Chart | str:
    """Accuracy against size over the rounds, a line for each trial; or why there is no such figure."""
    against, places, best = Objective.of(view.settings).against, standing(view), best_of(view)
    lines: dict[str, list[Point]] = {}
    for trial in view.trials.values():
        rounds = [m for m in trial.round_events if {against, "val_top1"} <= m.keys()]
        if rounds:
            kind = places[trial.trial] if trial.ended_at else UNFINISHED
            named = [(float(m[against]), float(m["val_top1"]), f"{trial.trial} --round {m['round']}") for m in rounds]
            lines.setdefault("best" if trial is best else kind, []).extend([*named, GAP])
    if not lines:
        return "no trial has hardened a round yet"
    series = [Series(kind, lines[kind][:-1], color, "solid") for kind, color in CURVES.items() if kind in lines]
    series.append(Series("front", [(o.size, o.val_top1, o.name) for o in rounds_front(view)], FRONT, "dot"))
    x, hover = METRICS[against].heading, "%{text}: val_top1 %{y:.4f}, size %{x:.4g}"
    return Chart("Accuracy against size over the rounds", x, VALUE, hover, series, marker=5)
