"""A sweep's pictures by name, interactive (plotly) and as PNG: those of charts.py and those of Optuna.

In: a `SweepView`. Out: figures by name, and files; for what can't be drawn, the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from trainables.figures import save
from trainables.storage.files import replaced
from tune_rsst.ledger.view import SweepView
from tune_rsst.report import charts
from tune_rsst.report.charts import Chart
from tune_rsst.report.optuna_figures import FROM_OPTUNA, by_optuna, study_of
from tune_rsst.report.renderers import in_matplotlib, in_plotly

CAPTIONS = {
    "front": "Accuracy against size: each trial's last model, feasible (finished, at the target, within the limits), "
    "infeasible (finished, but not so), stopped early or failed; the line joins the finished ones that no other beats",
    "pruning_curves": "Accuracy against size over the rounds: one line a trial, one point a hardened round, the dense "
    "model at the right; the dots join the models that no other beats, of any round (tune-rsst export --trial --round)",
    "progress": "The best so far against the epochs that the ended trials took",
    "parallel_coordinates": "Parallel coordinates: one line per finished trial",
    "importances": "How much each parameter decides (PED-ANOVA over the finished trials)",
    "slices": "Each parameter against the accuracy",
}
OURS = {"front": charts.front, "pruning_curves": charts.pruning_curves, "progress": charts.progress}
PLOTLY = "plotly.min.js"


def interactive(view: SweepView) -> Iterator[tuple[str, Any]]:
    """(name, plotly figure, or why it can't be drawn) for each of CAPTIONS."""
    yield from _drawn(view, in_plotly, "plotly")


def still(view: SweepView) -> Iterator[tuple[str, Any]]:
    """(name, matplotlib figure, or why it can't be drawn) for each of CAPTIONS."""
    import matplotlib

    matplotlib.use("Agg")
    yield from _drawn(view, in_matplotlib, "matplotlib")


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
    for name, describe in OURS.items():
        chart = describe(view)
        yield name, chart if isinstance(chart, str) else render(chart)
    study = study_of(view)
    for name, function in FROM_OPTUNA.items():
        yield name, by_optuna(study, function, by)
