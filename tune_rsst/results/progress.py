"""How far a sweep is, and where its running trials are within their rounds.

In: the ledger's view; the folder of the sweep, where a running trial leaves how far it is within an epoch.
Out: text. Rounds and epochs are counted from 1 here.
"""

from __future__ import annotations

from trainables.progress import TRAINING, kept
from trainables.rsst.metrics import said
from trainables.text import duration
from tune_rsst.ledger.objective import Objective
from tune_rsst.ledger.spending import BUDGETS, limits, of_budgets
from tune_rsst.ledger.view import SweepView, TrialView
from tune_rsst.results import columns as columns_module
from tune_rsst.results.ranking import at_target, order
from tune_rsst.storage.folder import SweepFolder


class Progress:
    """How far the sweep is, and an estimate of what is left, from the rounds that this run has seen."""

    def __init__(self, view: SweepView, trials: int, clock: float, called: str = "trials") -> None:
        self.view, self.trials, self.called = view, trials, called
        self._began, self._rounds_at_start = clock, self.rounds_done
        self._spent_at_start = {name: budget.spent(view.spending) for name, budget in BUDGETS.items()}
        self._judged: set[str] = set()
        self._best: TrialView | None = None

    def best(self) -> TrialView | None:
        """`best_of` the sweep; each ended trial is judged once, because a sweep may have thousands."""
        for trial in self.view.trials.values():
            if trial.ended_at and trial.trial not in self._judged:
                self._judged.add(trial.trial)
                if trial.state == "finished" and at_target(self.view, trial):
                    objective = Objective.of(self.view.settings)
                    self._best = min((t for t in (self._best, trial) if t), key=lambda t: order(objective, t))
        return self._best

    @property
    def rounds_done(self) -> int:
        return sum(map(_rounds, self.view.trials.values()))

    def rounds_left(self) -> float:
        """Rounds still to run; trials that are not suggested yet count as much as the ended ones took on average."""
        ended = [t for t in self.view.trials.values() if t.ended_at]
        each = sum(map(_rounds, ended)) / len(ended) if ended else _mean_rounds(self.view)
        open_rounds = sum(min(t.rounds * t.seeds, max(each, _rounds(t) + 1)) - _rounds(t) for t in self.view.unfinished)
        return open_rounds + max(0, self.trials - len(self.view.trials)) * each

    def eta_s(self, now: float) -> float | None:
        """Seconds to the end or, where that is earlier, to that of a budget; None before the first rounds."""
        done, passed = self.rounds_done - self._rounds_at_start, now - self._began
        if done < 2:
            return None
        left = [passed / done * self.rounds_left()]
        for name, limit in limits(self.view.settings).items():
            spent = BUDGETS[name].spent(self.view.spending)
            if (here := spent - self._spent_at_start[name]) > 0:
                left.append(passed / here * max(0.0, limit - spent))
        return min(left)

    def line(self, now: float) -> str:
        """One line of counts, best and ETA."""
        view = self.view
        best = self.best()
        ended = len(view.trials) - len(view.unfinished)
        parts = [f"{ended} of {self.trials} {self.called} ended ({columns_module.counts(view) or 'none started'})"]
        if best is not None:
            parts.append(f"best {best.trial} {said(best.metrics, Objective.of(view.settings).metric)}")
        parts += of_budgets(view.spending, view.settings)
        parts.append(duration(now - self._began))
        if ended < self.trials:
            eta = self.eta_s(now)
            parts.append("time left not known yet" if eta is None else f"about {duration(max(1.0, eta))} left")
        return " · ".join(parts)


def _rounds(trial: TrialView) -> int:
    """Rounds that its runs have done."""
    return sum(len(run.round_events) for run in trial.all_runs)


def _mean_rounds(view: SweepView) -> float:
    rounds = [t.rounds * t.seeds for t in view.trials.values()]
    return sum(rounds) / len(rounds) if rounds else 1.0


def round_of(trial: TrialView) -> str:
    """ "2/15"; "–/15" before it begins to train."""
    if not trial.last_epoch:
        return f"{'1' if trial.origin else '–'}/{trial.rounds}"
    on_to_the_next = not trial.ended_at and _hardened(trial)
    return f"{min(trial.last_epoch['round'] + 1 + on_to_the_next, trial.rounds)}/{trial.rounds}"


def _hardened(trial: TrialView) -> bool:
    """Whether the round of the newest epoch has come to its end."""
    return bool(trial.last_epoch) and len(trial.round_events) > trial.last_epoch["round"]


def within_round(trial: TrialView, folder: SweepFolder | None) -> str:
    """Where a running trial is: "epoch 3/80, 43 %", "epoch 3/80, evaluating 7 %", "preparing the images 12 %"."""
    if trial.over or not columns_module.begun(trial):
        return ""
    work = kept(folder.store(trial.fingerprint)) if folder else None
    epochs, last = trial.knobs.get("epochs"), trial.last_epoch
    done = 0 if _hardened(trial) or not last else last["epoch"]
    place = [f"epoch {done + 1}/{epochs}"] if epochs and done < epochs and (last or work) else []
    if work is None:
        return "".join(place)
    if not work.total:
        return ", ".join([*place, work.words[0]])
    share = f"{work.done / work.total:.0%}".replace("%", " %")
    return ", ".join([*place, share if work.what == TRAINING else f"{work.what} {share}"])
