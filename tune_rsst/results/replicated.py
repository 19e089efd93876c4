"""What a trial's runs with different seeds tell (setting `replicates`): a table, a line for its best, JSON.

In: the view of a ledger. Out: rows, text, JSON-able objects; nothing in a sweep of one seed a trial.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trainables.rsst.metrics import METRICS
from tune_rsst.ledger.objective import Objective
from tune_rsst.ledger.repeats.spread import CONFIDENCE, Spread
from tune_rsst.ledger.view import SweepView, TrialView
from tune_rsst.results.ranking import rank

LEGEND = (
    "A trial's values are means over its seeds, one run for each; std: sample standard deviation; interval: "
    f"{100 * CONFIDENCE:.0f} % by Student's t. A trial that fell behind got no more seeds and is not ranked."
)


def heads(view: SweepView) -> tuple[str, ...]:
    """What stands above the columns of `rows`."""
    return ("trial", "seeds", Objective.of(view.settings).metric, "std", "interval", "test_top1", "one by one")


def rows(view: SweepView) -> Iterator[tuple[TrialView, list[str]]]:
    """A row for each trial with a run that has finished, by rank, with the cells of `heads`."""
    metric = Objective.of(view.settings).metric
    text, test = METRICS[metric].text, METRICS["test_top1"].text
    for trial in [*rank(view), *view.unfinished]:
        values = _values(trial, metric)
        spread = Spread.of(values)
        if trial.seeds == 1 or spread is None:
            continue
        sure = spread.low is not None
        interval = f"{text(spread.low)} – {text(spread.high)}" if sure else ""
        cells = [trial.trial, str(spread.n), text(spread.mean), text(spread.deviation) if sure else "", interval]
        yield trial, [*cells, test(trial.metrics.get("test_top1")), " ".join(map(text, values))]


def _values(trial: TrialView, metric: str) -> list[float]:
    """`metric` of the trial's runs that have come to their ends, seed by seed."""
    found = [run.own_metrics.get(metric) for run in trial.all_runs if run.final is not None]
    return [value for value in found if value is not None]


def remark(view: SweepView, trial: TrialView) -> str | None:
    """One line for whoever reads a trial's numbers: they are means. None where it has one run."""
    metric = Objective.of(view.settings).metric
    spread, text = Spread.of(_values(trial, metric)), METRICS[metric].text
    if spread is None or spread.low is None:
        return None
    seeds = ", ".join(str(run.knobs.get("seed")) for run in trial.all_runs)
    told = f"{text(spread.mean)} ± {text(spread.deviation)}, interval {text(spread.low)} – {text(spread.high)}"
    own = f"the knobs and the model are those of seed {trial.knobs.get('seed')}"
    return f"Means over seeds {seeds}: {metric} {told}; {own}, {metric} {text(trial.own_metrics.get(metric))}"


def as_json(trial: TrialView) -> list[dict[str, Any]]:
    """The trial's runs, the first one included, as `show --json` has them."""
    return [
        {
            "id": run.trial,
            "seed": run.knobs.get("seed"),
            "state": "finished" if run.final is not None else run.state,
            "reason": run.reason if run.final is None else None,
            "fingerprint": run.fingerprint,
            "val_top1": run.own_metrics.get("val_top1"),
            "test_top1": run.own_metrics.get("test_top1"),
        }
        for run in trial.all_runs
    ]
