"""What `tune-rsst confirm` has found, as text, rows, a line for best.yaml, and JSON. And which trials it repeats.

In: a sweep. Out: text, JSON-able objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from trainables.rsst.config import ConfigError
from trainables.rsst.metrics import METRICS
from trainables.text import counted
from tune_rsst.ledger.objective import Objective
from tune_rsst.ledger.repeats.spread import CONFIDENCE, Spread
from tune_rsst.ledger.repeats.wanted import Wanted
from tune_rsst.ledger.trial import replicates_in
from tune_rsst.ledger.view import SweepView, TrialView
from tune_rsst.results.columns import reasons
from tune_rsst.results.confirmed.choice import Repeated, choice, over, repeated, tied
from tune_rsst.results.ranking import best_of, ranking
from tune_rsst.storage.folder import Sweep

if TYPE_CHECKING:
    from tune_rsst.settings.settings import SweepSettings

LEGEND = (
    "val_top1, test_top1: mean over n fresh seeds; std: sample standard deviation; interval: "
    f"{100 * CONFIDENCE:.0f} % by Student's t; val of the trial: the single run that the sweep ranked by. "
    "The choice is by mean val_top1, never by test."
)


def wanted(view: SweepView, top: int, seeds: int, split: bool, say: Callable[[str], None]) -> Wanted:
    """The best `top` finished trials, each with `seeds` fresh seeds; says where there are fewer trials."""
    best = ranking(view)[:top]
    if not best:
        raise ConfigError("confirm", view.name, "a sweep with a finished trial that its objective allows")
    if len(best) < top:
        say(f"top = {top}: the sweep has {counted(len(best), 'finished trial')} to choose from; {len(best)} it is")
    found = Wanted.of(view, best, seeds, split)
    if found.left(view):
        say(begin(view, found))
    return found


def begin(view: SweepView, wanted: Wanted) -> str:
    """What is about to be trained, in a line."""
    seeds, left = len(wanted.seeds), counted(len(wanted.left(view)), "run")
    return (
        f"Confirming {', '.join(wanted.trials)} with {seeds} fresh seeds each, without early stopping: {left} to train"
    )


def owed(view: SweepView, settings: SweepSettings) -> Wanted | None:
    """What is to be confirmed at the end of a sweep, and is not yet; None where nothing is."""
    best = ranking(view)[: settings.confirm or 0]
    found = Wanted.of(view, best, settings.confirm_seeds, split=False) if best else None
    return found if found and found.left(view) else None


def failed(view: SweepView) -> list[TrialView]:
    """Runs of what was asked for last that have failed."""
    return [run for one in repeated(view) for run in one.runs if run.state == "failed"]


def heads(view: SweepView) -> tuple[str, ...]:
    """What stands above the columns of `rows`."""
    metric = Objective.of(view.settings).metric
    return ("trial", "n", metric, "std", "interval", "test_top1", "test std", "test interval", "val of the trial")


def rows(view: SweepView) -> Iterator[tuple[Repeated, list[str]]]:
    """A row for each trial, best first, with the cells of `heads`."""
    metric = Objective.of(view.settings).metric
    text = METRICS[metric].text
    for one in repeated(view):
        cells = [one.trial.trial, str(one.val.n if one.val else 0)]
        for spread, form in ((one.val, text), (one.test, METRICS["test_top1"].text)):
            cells += _cells(spread, form)
        yield one, [*cells, text(one.trial.metrics.get(metric))]


def _cells(spread: Spread | None, text: Callable[[Any], str]) -> list[str]:
    if spread is None:
        return ["", "", ""]
    if spread.low is None:
        return [text(spread.mean), "", ""]
    return [text(spread.mean), text(spread.deviation), f"{text(spread.low)} – {text(spread.high)}"]


def lines(view: SweepView) -> list[str]:
    """What the table means: the choice, ties, what its intervals do not tell apart, what is missing."""
    wanted = Wanted.last(view)
    if wanted is None:
        return []
    several = replicates_in(view.settings) > 1
    found = [LEGEND.replace("the single run that", "the mean of the runs that") if several else LEGEND]
    found.append(f"Seeds: {', '.join(map(str, wanted.seeds))}; {_of_the_split(wanted)}.")
    found += reasons(failed(view))
    runs = [run for one in repeated(view) for run in one.runs]
    if not over(view):
        ended = sum(not run.unfinished for run in runs)
        return [*found, f"{ended} of {len(wanted.trials) * len(wanted.seeds)} runs have ended: nothing is chosen yet."]
    first = choice(view)
    if first is None:
        return [*found, "Nothing is chosen: each of these trials has a run that failed."]
    found.append(f"Chosen: {first.trial.trial}, by mean {Objective.of(view.settings).metric}.")
    if others := [one.trial.trial for one in tied(view)[1:]]:
        found.append(f"{', '.join(others)} had the same mean: fewer parameters decided, then the lower number.")
    if unsure := _not_told_apart(view, first):
        found.append(f"Its interval overlaps with that of {', '.join(unsure)}: these seeds do not tell them apart.")
    best = best_of(view)
    if best is not None and best.trial not in wanted.trials:
        found.append(f"{best.trial}, which finished since then, ranks above all of these: confirm again.")
    return found


def _of_the_split(wanted: Wanted) -> str:
    if wanted.split:
        return "weights, order and the split of the images are those of the seed"
    return "weights and order are those of the seed, the split of the images is the sweep's own"


def _not_told_apart(view: SweepView, first: Repeated) -> list[str]:
    tie = {one.trial.trial for one in tied(view)}
    others = [one for one in repeated(view) if one.complete and one.trial.trial not in tie]
    return [one.trial.trial for one in others if first.val and one.val and first.val.overlaps(one.val)]


def remark(view: SweepView) -> str | None:
    """One line for whoever reads the best trial's knobs; None where it was not confirmed."""
    first, best = choice(view), best_of(view)
    if first is None or first.val is None or best is None or first.trial.trial != best.trial:
        return None
    metric, val = Objective.of(view.settings).metric, first.val
    text = METRICS[metric].text
    spread = f"{text(val.mean)} ± {text(val.deviation)}, interval {text(val.low)} – {text(val.high)}"
    among = (
        f"the best mean of {len(repeated(view))} trials" if len(repeated(view)) > 1 else "no other trial was repeated"
    )
    return f"Confirmed with {val.n} fresh seeds: mean {metric} {spread} ({among})"


def as_json(sweep: Sweep) -> dict[str, Any]:
    """The object that `tune-rsst confirm --json` prints."""
    view, first, wanted = sweep.view, choice(sweep.view), Wanted.last(sweep.view)
    return {
        "name": sweep.name,
        "chosen": first.trial.trial if first else None,
        "tied": [one.trial.trial for one in tied(view)] if len(tied(view)) > 1 else [],
        "ranked": list(wanted.trials) if wanted else [],
        "complete": over(view),
        "seeds": list(wanted.seeds) if wanted else [],
        "split": bool(wanted and wanted.split),
        "confidence": CONFIDENCE,
        "trials": [_trial_json(one, Objective.of(view.settings).metric) for one in repeated(view)],
    }


def _trial_json(one: Repeated, metric: str) -> dict[str, Any]:
    names = (metric, "test_top1")
    runs = [
        {
            "id": run.trial,
            "seed": run.knobs["seed"],
            "state": run.state,
            "reason": run.reason,
            "fingerprint": run.fingerprint,
            **{name: run.metrics.get(name) for name in names},
        }
        for run in one.runs
    ]
    spreads = {name: vars(found) if found else None for name, found in zip(names, (one.val, one.test), strict=True)}
    own = {name: one.trial.metrics.get(name) for name in names}
    return {"id": one.trial.trial, **spreads, "of_the_trial": own, "runs": runs}
