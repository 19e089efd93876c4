"""Optuna's figures of a sweep: parallel coordinates, importances, slices; by plotly or matplotlib.

In: a `SweepView`, of which Optuna gets a study in memory. Out: a figure, or why it can't be drawn.
"""

from __future__ import annotations

import re
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from trainables.figures import LONGEST_NAME
from trainables.rsst.config import KNOBS
from trainables.text import shown
from tune_rsst.ledger.objective import Objective
from tune_rsst.ledger.view import SweepView
from tune_rsst.report.charts import VALUE

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from optuna.distributions import BaseDistribution
    from optuna.study import Study


FROM_OPTUNA = {"parallel_coordinates": "parallel_coordinate", "importances": "param_importances", "slices": "slice"}
NEEDS_FINISHED = 2
IMPORTANCE_AXES = ("importance (share)", "parameter (name)")


def study_of(view: SweepView) -> Study:
    """The finished trials as an Optuna study in memory; parameters have their units in their names.

    Optuna numbers by position. Failed trials without parameters, which it does not draw, keep each trial at its number.
    """
    import optuna
    from optuna.distributions import json_to_distribution
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    objective = Objective.of(view.settings)
    study = optuna.create_study(direction=objective.directions[0])
    for trial in view.trials.values():
        if trial.state != "finished" or objective.metric not in trial.metrics:
            continue
        study.add_trials([create_trial(state=TrialState.FAIL)] * (trial.number - len(study.trials)))
        drawn = [name for name in trial.params if name in trial.distributions]
        params = {with_unit(name): drawable(trial.params[name]) for name in drawn}
        with suppress(ValueError, KeyError, TypeError):  # a range that is none is not drawn
            ranges = {with_unit(name): _range(json_to_distribution(trial.distributions[name])) for name in drawn}
            study.add_trial(create_trial(value=trial.metrics[objective.metric], params=params, distributions=ranges))
    return study


def drawable(value: Any) -> Any:
    """`value` as both libraries draw it: a text without what plotly takes for HTML, and matplotlib for a formula."""
    return re.sub(r"[<>&$\\]", "?", shown(value, LONGEST_NAME)) if isinstance(value, str) else value


def _range(found: BaseDistribution) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution

    if not isinstance(found, CategoricalDistribution):
        return found
    return CategoricalDistribution([drawable(choice) for choice in found.choices])


def with_unit(name: str) -> str:
    """The name of a searched parameter, with its unit behind it where it has one."""
    return KNOBS[name].heading if name in KNOBS else name


def by_optuna(study: Study, function: str, by: str) -> Any:
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
