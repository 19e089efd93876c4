"""One HTML page with everything a sweep found; it opens without a network.

In: a sweep. Out: report.html, which contains plotly and every picture.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from trainables import figures
from trainables.rsst.metrics import METRICS, said, shown
from trainables.storage.files import replaced
from trainables.text import in_html, short
from tune_rsst.ledger import spending
from tune_rsst.ledger.objective import Objective
from tune_rsst.ledger.trial import TrialView, replicates_in
from tune_rsst.ledger.view import SweepView
from tune_rsst.report import packed, sweep_figures
from tune_rsst.report.optuna_figures import with_unit
from tune_rsst.results import replicated
from tune_rsst.results.columns import KNOB, counts, not_valid, over_limits, points, reasons, searched, state_words
from tune_rsst.results.commands import next_commands
from tune_rsst.results.confirmed import table as confirmed
from tune_rsst.results.ranking import best_of, pareto_front, rank, ranks, standing
from tune_rsst.storage.folder import Sweep, SweepFolder

MOST_TRIALS_WITH_PICTURES = 12
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1e293b; max-width: 1200px; margin: 2em auto; padding: 0 1em }
h1, h2 { line-height: 1.2 } h2 { margin-top: 2em; border-bottom: 1px solid #e2e8f0 }
table { border-collapse: collapse; font-size: 13px; display: block; overflow-x: auto }
th, td { padding: 3px 9px; text-align: right; border-bottom: 1px solid #e2e8f0; white-space: nowrap }
tr.best { background: #dcfce7; font-weight: 600 } pre { background: #f1f5f9; padding: 8px; overflow-x: auto }
img { max-width: 100%; display: block; margin: 8px 0 } .note { color: #64748b } summary { cursor: pointer }
"""


def write_report(sweep: Sweep, path: Path) -> Path:
    """Write the page to `path` and return it."""
    with replaced(path) as new, new.open("w", encoding="utf-8") as file:
        for part in _page(sweep):
            file.write(part + "\n")
    return path


def _page(sweep: Sweep) -> Iterator[str]:
    view = sweep.view
    title = f"Sweep {in_html(view.name)}"
    yield "<!doctype html>"
    yield f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title><link rel="icon" href="data:,">'
    yield f"<style>{STYLE}</style></head><body>"
    yield f"<h1>{title}</h1>"
    yield from _head(sweep)
    yield "<h2>Trials</h2>"
    yield from _table(view)
    yield from _replicated(view)
    yield from _confirmed(view)
    for name, figure in sweep_figures.interactive(view):
        yield f"<h2>{name.replace('_', ' ').capitalize()}</h2>"
        yield f'<p class="note">{in_html(sweep_figures.CAPTIONS[name])}.</p>'
        if isinstance(figure, str):
            yield f"<p>No figure: {in_html(figure)}.</p>"
        else:
            yield packed.figure_html(figure, f"figure-{name}")
    yield packed.draw_html()
    yield from _trials(sweep.folder, view)
    yield "<h2>Commands</h2>"
    for what, command in next_commands(sweep):
        yield f"<p>{in_html(what)}:</p><pre>{in_html(command)}</pre>"
    yield "</body></html>"


def _head(sweep: Sweep) -> Iterator[str]:
    view = sweep.view
    began = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(view.started_at))
    yield f"<p>{in_html(sweep.state)}: {counts(view) or 'no trials yet'}; begun {began}."
    yield f" Objective: {in_html(Objective.of(view.settings).words)}."
    yield f" Spent: {in_html(spending.told(view.spending, view.settings))}."
    best = best_of(view)
    if best is None:
        yield " No trial that the objective allows has finished yet.</p>"
        return
    figures = in_html(said(best.metrics, "val_top1", "test_top1", "kept_share", "top1_drop", "init_effective"))
    yield f" Best: <b>{in_html(best.trial)}</b>, {figures}.</p>"
    versions = view.start.get("versions") or {}
    about = {name: view.start[name] for name in ("host", "git", "seed", "space") if view.start.get(name) is not None}
    yield f'<p class="note">{in_html(", ".join(f"{k} {v}" for k, v in {**about, **versions}.items()))}</p>'


def _table(view: SweepView) -> Iterator[str]:
    best, front, numbers, places = best_of(view), pareto_front(view), ranks(view), standing(view)
    names = [name.removeprefix(KNOB) for name in searched(view)]
    told = shown((t.metrics for t in view.trials.values()), Objective.of(view.settings).metric)
    metrics = [name for name in told if METRICS[name].label]
    heads = ["", "trial", "state", "front", *(METRICS[name].heading for name in metrics)]
    heads += map(with_unit, names)
    yield "<table><thead><tr>" + "".join(f"<th>{in_html(h)}</th>" for h in heads) + "</tr></thead><tbody>"
    for trial in [*rank(view), *view.unfinished]:
        m = trial.metrics
        cells = [str(numbers.get(trial.trial, "")), trial.trial, state_words(trial, places[trial.trial])]
        cells.append("yes" if trial.trial in front else "")
        cells += [METRICS[name].text(m.get(name)) for name in metrics]
        cells += [short(trial.searched.get(name, "")) for name in names]
        mark = ' class="best"' if best and best.trial == trial.trial else ""
        yield f"<tr{mark}>" + "".join(f"<td>{in_html(cell)}</td>" for cell in cells) + "</tr>"
    yield "</tbody></table>"
    why = reasons(trial for trial in view.trials.values() if trial.reason)
    for line in [*points(view), *why, *over_limits(view), *not_valid(view)]:
        yield f'<p class="note">{in_html(line)}</p>'


def _replicated(view: SweepView) -> Iterator[str]:
    """Each trial's runs with different seeds, where it has several."""
    if replicates_in(view.settings) == 1:
        return
    yield "<h2>Seeds</h2>"
    yield from _rows(replicated.heads(view), replicated.rows(view), best_of(view))
    yield f'<p class="note">{in_html(replicated.LEGEND)}</p>'


def _rows(heads: Iterable[str], rows: Iterable[tuple[TrialView, list[str]]], best: TrialView | None) -> Iterator[str]:
    yield "<table><thead><tr>" + "".join(f"<th>{in_html(head)}</th>" for head in heads) + "</tr></thead><tbody>"
    for trial, cells in rows:
        mark = ' class="best"' if best and best.trial == trial.trial else ""
        yield f"<tr{mark}>" + "".join(f"<td>{in_html(cell)}</td>" for cell in cells) + "</tr>"
    yield "</tbody></table>"


def _confirmed(view: SweepView) -> Iterator[str]:
    """The best trials again with fresh seeds, where they were repeated."""
    if view.confirm is None:
        return
    best = confirmed.choice(view)
    yield "<h2>The best trials again, with fresh seeds</h2>"
    told = ((one.trial, cells) for one, cells in confirmed.rows(view))
    yield from _rows(confirmed.heads(view), told, best.trial if best else None)
    for line in confirmed.lines(view):
        yield f'<p class="note">{in_html(line)}</p>'


def _trials(folder: SweepFolder, view: SweepView) -> Iterator[str]:
    """Pictures of the best-ranked trials, from their files where they are drawn already; the first is open."""
    yield "<h2>The trials one by one</h2>"
    shown = [trial for trial in rank(view) if trial.round_events][:MOST_TRIALS_WITH_PICTURES]
    left_out = len(view.trials) - len(shown)
    if left_out:
        yield f'<p class="note">The {len(shown)} that rank highest; {left_out} without pictures here.</p>'
    for number, trial in enumerate(shown):
        head = f"{in_html(trial.trial)}, {in_html(trial.state)}"
        yield f"<details{' open' if number == 0 else ''}><summary>{head}</summary>"
        place = folder.pictures_of(trial.trial)
        files = sorted(place.glob("*.png")) if trial.ended_at else []
        for file in files or figures.save_trial(trial, place):
            alt = f"{trial.trial}: {figures.CAPTIONS[file.stem]}"
            yield packed.picture_html(file, alt)
        knobs = (in_html(f"{name}: {value}") for name, value in trial.knobs.items() if value is not None)
        yield "<pre>" + "\n".join(knobs) + "</pre></details>"
