"""Pictures and the report, drawn from a made-up ledger: what is in them, and that axes say what they show."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import psutil
import pytest
from optuna.distributions import FloatDistribution, distribution_to_json

from tests.tune_rsst.recorded import Recorder, sweep_events
from trainables.figures import CAPTIONS, trial_figures
from trainables.rsst.pruning.ramps import ramp
from trainables.storage.files import is_temporary
from tune_rsst.ledger.view import SweepView
from tune_rsst.report import charts, optuna_figures, renderers, sweep_figures
from tune_rsst.report.page import write_report
from tune_rsst.report.pictures import draw
from tune_rsst.results import ranking
from tune_rsst.results.ranking import pareto_front
from tune_rsst.storage.folder import Sweep, SweepFolder

DRAWN = {"lr": FloatDistribution(1e-4, 1e-2, log=True), "rate": FloatDistribution(0.2, 0.5)}
KNOBS = {"struct": "rsst", "RST_schedule": "exp_custom_exponents", "reg_granularity_prune": 0.3, "exponents": 2.0}


def complete(event: dict[str, Any]) -> dict[str, Any]:
    """The recorded events with what a real sweep also has: distributions, the penalty's knobs, neurons by layer."""
    if event["event"] == "suggested":
        distributions = {name: distribution_to_json(d) for name, d in DRAWN.items()}
        return {**event, "distributions": distributions, "knobs": {**event["knobs"], **KNOBS}}
    if event["event"] == "reported" and event["kind"] == "start":
        return {**event, "metrics": {**event["metrics"], "class_ratio": 4.0, "images": {"classes": ["cat", "dog"]}}}
    if event["event"] == "reported" and event["kind"] in ("round", "final"):
        return {**event, "metrics": {**event["metrics"], "neurons_kept_per_layer": [50, 40, 30, 20]}}
    return event


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    folder = SweepFolder(tmp_path_factory.mktemp("home") / "demo")
    folder.path.mkdir()
    Recorder(folder.ledger).write(*map(complete, sweep_events(trials=8)))
    return folder


@pytest.fixture(scope="module")
def view(folder: SweepFolder) -> SweepView:
    return Sweep.of(folder).view


def test_a_trial_has_its_rounds_its_penalty_and_its_layers(view: SweepView) -> None:
    trial = view.trials["t0000"]
    figures = dict(trial_figures(trial))
    assert list(figures) == list(CAPTIONS)
    before, after = figures["rounds"].axes[0].lines
    assert list(after.get_ydata()) == [event["val_top1"] for event in trial.round_events]
    assert list(before.get_ydata()) == [event["val_top1_before_hardening"] for event in trial.round_events]
    curve = figures["penalty"].axes[0].lines[0]
    assert curve.get_xdata()[-1] == trial.knobs["epochs"]
    assert curve.get_ydata()[100] == ramp("exp_custom_exponents", 0.5, 0.3, 2.0)
    maps = [axes for axes in figures["layers"].axes if axes.images]
    assert maps[1].images[0].get_array().tolist() == [[50] * 3, [40] * 3, [30] * 3, [20] * 3]


def test_classes_are_drawn_where_they_are_uneven_the_least_accurate_first(folder: SweepFolder) -> None:
    trial = Sweep.of(folder).view.trials["t0000"]
    dense, last = (event["val_class_accuracy"] for event in (trial.round_events[0], trial.round_events[-1]))
    axes = dict(trial_figures(trial))["classes"].axes[0]
    order = sorted((0, 1), key=lambda n: last[n])
    assert [label.get_text() for label in axes.get_yticklabels()] == [("cat", "dog")[n] for n in order]
    assert [bar.get_width() for bar in axes.patches] == [*(dense[n] for n in order), *(last[n] for n in order)]
    for event in trial.round_events:
        event["val_class_accuracy"] = [0.5, None]  # no images of the second class
    assert len(dict(trial_figures(trial))["classes"].axes[0].patches) == 2
    trial.origin["class_ratio"] = 1.4
    assert "classes" not in dict(trial_figures(trial))


def test_the_curves_have_every_hardened_round_of_every_trial(view: SweepView) -> None:
    chart = charts.pruning_curves(view)
    best = ranking.best_of(view)
    points = {series.name: [p for p in series.points if p is not charts.GAP] for series in chart.series}
    assert list(points) == ["feasible", "stopped", "failed", "best", "front"]
    front = {tuple(text.split("-r")): (x, y) for x, y, text in points.pop("front")}
    rounds = {(t.trial, m["round"]): (m["density"], m["val_top1"]) for t in view.trials.values()
              for m in t.round_events}  # fmt: skip
    drawn = {(text.split()[0], int(text.split()[-1])): (x, y) for mine in points.values() for x, y, text in mine}
    assert front and {(trial, f"{number:03d}"): at for (trial, number), at in rounds.items()}.items() >= front.items()
    assert drawn == rounds and {text.split()[0] for *_, text in points["best"]} == {best.trial}
    feasible = next(series for series in chart.series if series.name == "feasible")
    lines = 1 + sum(point is charts.GAP for point in feasible.points)
    assert lines == len({text.split()[0] for *_, text in points["feasible"]}), "a line for each trial"
    [axes] = renderers.in_matplotlib(chart).axes
    assert [line.get_label() for line in axes.lines] == [*points, "front"]
    *shown, dots = renderers.in_plotly(chart).data
    assert all("lines" in trace.mode and "markers" in trace.mode for trace in shown) and dots.mode == "lines"


def test_a_running_sweep_has_curves_of_its_running_trials() -> None:
    events = [e for e in sweep_events(trials=2) if e["event"] not in ("ended", "sweep_ended")]
    view = SweepView.of([{**event, "time": 1.0} for event in events])
    assert [series.name for series in charts.pruning_curves(view).series] == ["running", "front"]
    assert "no trial" in charts.pruning_curves(SweepView.of([{**event, "time": 1.0} for event in events[:2]]))


def test_a_trial_that_removes_first_has_no_penalty_and_one_without_rounds_has_no_curves(view: SweepView) -> None:
    trial = SweepView.of([{**e, "time": 1.0} for e in map(complete, sweep_events(trials=1))][:2]).trials["t0000"]
    assert [name for name, _ in trial_figures(trial)] == ["penalty"]
    trial.knobs["struct"] = "refill"
    assert not list(trial_figures(trial))


def test_every_axis_says_what_it_is_and_in_which_unit(view: SweepView) -> None:
    unit = re.compile(r"\((share|epochs|number|no unit|name|share of prunable parameters( kept)?)\)")
    figures = dict(trial_figures(view.trials["t0000"])) | dict(sweep_figures.still(view))
    assert set(figures) == {*CAPTIONS, *sweep_figures.CAPTIONS}
    for name in ("rounds", "penalty", "classes", "front", "pruning_curves", "progress"):
        for axes in figures[name].axes:
            assert unit.search(axes.get_ylabel()), (name, axes.get_ylabel())
        assert unit.search(figures[name].axes[0].get_xlabel()), name
    pages = dict(sweep_figures.interactive(view))
    for name in ("front", "pruning_curves", "progress", "importances"):
        layout = pages[name].layout
        assert unit.search(layout.xaxis.title.text) and unit.search(layout.yaxis.title.text), name
    labels = list(pages["parallel_coordinates"].layout.xaxis.ticktext)
    assert labels == ["val_top1 (share)", "lr", "rate (share)"]


def kinds_of(view: SweepView) -> dict[str, str]:
    """Trial → how the front shows it."""
    return {trial: kind for kind, points in charts.front_points(view).items() for _, _, trial in points}


def test_the_front_keeps_finished_stopped_and_failed_apart(view: SweepView) -> None:
    kinds = kinds_of(view)
    assert (kinds["t0000"], kinds["t0002"], kinds["t0003"]) == ("feasible", "stopped", "failed")
    view.settings["target_density"] = 0.2
    try:
        assert kinds_of(view)["t0000"] == "infeasible"
    finally:
        view.settings["target_density"] = 0.3


def test_progress_counts_the_epochs_of_all_ended_trials_and_only_rises(view: SweepView) -> None:
    steps = charts.progress_points(view)
    assert steps[-1][0] == sum(t.metrics["epochs_trained"] for t in view.trials.values())
    assert [value for _, value, _ in steps] == sorted(value for _, value, _ in steps)
    assert steps[-1][2] == ranking.rank(view)[0].trial


def test_optunas_figures_number_the_trials_as_the_sweep_does(view: SweepView) -> None:
    finished = [t for t in view.trials.values() if t.state == "finished"]
    assert [t.number for t in finished] != list(range(len(finished)))
    drawn = [t for t in optuna_figures.study_of(view).trials if t.values is not None]
    assert [t.number for t in drawn] == [t.number for t in finished]
    colours = [n for trace in dict(sweep_figures.interactive(view))["slices"].data for n in trace.marker.color]
    assert set(colours) == {t.number for t in finished}


def test_points_of_one_size_or_accuracy_stay_within_what_can_be(view: SweepView) -> None:
    pages = dict(
        sweep_figures.interactive(SweepView.of([{**e, "time": 1.0} for e in map(complete, sweep_events(trials=1))]))
    )
    for name in ("front", "progress"):
        (low, high), (least, most) = pages[name].layout.xaxis.range, pages[name].layout.yaxis.range
        assert 0 < low < high and 0 <= least < most <= 1.01, name


def test_with_one_finished_trial_the_figures_of_optuna_say_why_they_are_not_there() -> None:
    view = SweepView.of([{**event, "time": float(i)} for i, event in enumerate(map(complete, sweep_events(trials=1)))])
    reasons = {name: figure for name, figure in sweep_figures.still(view) if isinstance(figure, str)}
    assert set(reasons) == set(optuna_figures.FROM_OPTUNA)
    assert "2 finished trials, there are 1" in reasons["importances"]


@pytest.mark.medium
def test_drawing_in_another_process_leaves_files_and_a_report_that_needs_no_network(folder: SweepFolder) -> None:
    for _ in draw(folder, "t0000", "t0002"):
        pass
    assert {trial: sorted(p.stem for p in (folder.pictures / trial).glob("*.png")) for trial in ("t0000", "t0002")} == {
        "t0000": ["classes", "layers", "penalty", "rounds"],
        "t0002": ["classes", "layers", "penalty", "rounds"],
    }
    for _ in draw(folder, "--sweep"):
        pass
    assert {p.stem for p in folder.pictures.glob("*.png")} == set(sweep_figures.CAPTIONS)
    assert (folder.pictures / "plotly.min.js").exists() and (folder.pictures / "front.html").exists()
    page = folder.report.read_text(encoding="utf-8")
    assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(?:https?:)?//', page)
    assert page.count('id="figure-') == len(sweep_figures.CAPTIONS)
    with pytest.raises(RuntimeError, match=r"pictures: .*t9999"):
        list(draw(folder, "t9999"))


def test_names_from_outside_are_text_on_the_page(folder: SweepFolder, tmp_path: Path) -> None:
    view = SweepView.of([{**event, "time": float(i)} for i, event in enumerate(map(complete, sweep_events(trials=1)))])
    view.name = "<script>alert(1)</script>"
    view.trials["t0000"].reason = json.dumps("<img src=x>")
    page = write_report(Sweep(folder, view, "finished"), tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script>alert(1)" not in page and "<img src=x>" not in page


def test_the_front_is_of_finished_trials_only_though_stopped_and_failed_ones_are_better(view: SweepView) -> None:
    """A stopped trial's last model was hardened at a larger size; it is no result of the sweep."""
    better = SweepView.of([{**e, "time": 1.0} for e in sweep_events(trials=8)])
    for trial in better.trials.values():
        if trial.state != "finished":
            trial.round_events[-1] |= {"val_top1": 1.0, "density": 0.01}
    front, kinds = pareto_front(better), kinds_of(better)
    assert front and {better.trials[name].state for name in front} == {"finished"}
    assert set(kinds.values()) == {"feasible", "stopped", "failed"} and {kinds[name] for name in front} == {"feasible"}
    drawn = dict(sweep_figures.interactive(better))["front"]
    assert [trace.name for trace in drawn.data] == ["front", "feasible", "stopped", "failed"]
    assert len({trace.marker.symbol for trace in drawn.data[1:]}) == 3


def test_against_compute_the_front_is_drawn_over_compute(view: SweepView) -> None:
    view.settings |= {"objective": "pareto", "pareto_against": "gmacs"}
    try:
        sizes = [size for points in charts.front_points(view).values() for size, _, _ in points]
        drawn = dict(sweep_figures.interactive(view))["front"]
    finally:
        view.settings["objective"] = "val_top1"
        del view.settings["pareto_against"]
    assert set(sizes) == {0.5} and "GMACs" in drawn.layout.xaxis.title.text


def test_what_a_killed_drawing_was_writing_goes(folder: SweepFolder) -> None:
    """Found by `make chaos --seed 73`: a temporary name of a picture stayed after a kill -9 of the picture process."""
    before = set(psutil.Process().children())
    drawing = draw(folder, "t0000", "--sweep")
    next(drawing)
    (child,) = set(psutil.Process().children()) - before
    places = [folder.path, folder.pictures, folder.pictures_of("t0000")]
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
        for pid in (child.pid, 1):
            (place / f".x.png.{pid}-0123456789ab.tmp").write_bytes(b"half")
    child.kill()
    with pytest.raises(RuntimeError, match="pictures: "):
        list(drawing)
    left = [path for path in folder.path.rglob("*.tmp") if is_temporary(path)]
    assert sorted(left) == sorted(place / ".x.png.1-0123456789ab.tmp" for place in places)
