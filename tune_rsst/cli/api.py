"""Sweeps from Python: `tune_rsst.sweep(…)` runs one, `tune_rsst.load(…)` reads one, both give a `Sweep`.

In: settings and knobs by the names that the command line has. Out: what a sweep has found, as objects.
Both ways in plan and run a sweep by the same functions; nothing is decided here.
"""

from __future__ import annotations

import io
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from trainables.progress import every, watched
from trainables.rsst.config import ConfigError
from tune_rsst.settings.written import from_python
from tune_rsst.storage import folder as on_disk
from tune_rsst.storage import home

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from tune_rsst.planning.plan import Finished, Plan

_ONE_AT_A_TIME = threading.Lock()
FORMATS = ("safetensors", "pt2", "onnx")
INTERRUPTED, FAILED_TRIALS = 130, 3


class Sweep:
    """One sweep on disk. Every attribute is read when it is asked for, so one that runs elsewhere is seen as it is.

    Trials are dicts as `tune-rsst show --json` prints them: id, state, params, metrics, knobs and more.
    """

    def __init__(self, folder: on_disk.SweepFolder) -> None:
        self._folder = folder
        self._lines: Any = None

    @property
    def name(self) -> str:
        """Its name, which is its folder's."""
        return self._folder.name

    @property
    def path(self) -> Path:
        """Its folder."""
        return self._folder.path

    @property
    def state(self) -> str:
        """`running`, `finished` or `interrupted`."""
        return self._read().state

    @property
    def settings(self) -> dict[str, Any]:
        """Its settings and fixed knobs by name."""
        return dict(self._read().view.settings)

    @property
    def ledger(self) -> list[dict[str, Any]]:
        """Every event in the order in which it was written (docs/ledger.md)."""
        self._read()
        return [dict(event) for event in self._lines.events]

    @property
    def trials(self) -> pd.DataFrame:
        """One row a trial, ended ones by rank, then running ones; the columns are those of `tune-rsst show --csv`."""
        import pandas as pd

        from tune_rsst.results.query import ranking_rows

        names, rows = ranking_rows(self._read().view)
        found = pd.DataFrame(rows, columns=names)
        return found.astype({"rank": "Int64"})

    @property
    def best(self) -> dict[str, Any] | None:
        """The first of the ranking by the sweep's objective; None while there is none."""
        from tune_rsst.results.as_json import trial_json
        from tune_rsst.results.ranking import best_of

        best = best_of(self._read().view)
        return trial_json(best) if best else None

    @property
    def front(self) -> list[dict[str, Any]]:
        """The finished trials that no other beats in val_top1 and size both, smallest first."""
        from tune_rsst.results.as_json import trial_json
        from tune_rsst.results.ranking import pareto_front

        view = self._read().view
        return [trial_json(view.trials[name]) for name in pareto_front(view)]

    def report(self, to: str | Path | None = None) -> Path:
        """Write the HTML page and the pictures, as `tune-rsst report` does; returns the page's path."""
        from trainables.figures import save_trial
        from tune_rsst.report.page import write_report
        from tune_rsst.report.sweep_figures import save_figures

        found = self._read()
        target = Path(to or self._folder.report).absolute()
        if not target.parent.is_dir():
            raise ConfigError("to", to, "a file in a folder that exists")
        for trial in found.view.trials.values():
            save_trial(trial, self._folder.pictures / trial.trial)
        save_figures(found.view, self._folder.pictures)
        return write_report(found, target)

    def export(
        self,
        trial: str | None = None,
        round: int | None = None,
        to: str | Path | None = None,
        formats: str | tuple[str, ...] = FORMATS,
    ) -> Path:
        """Write a trial's compacted model (None: the best trial's, after its last round), as `tune-rsst export` does.

        Returns the folder: `to`, else exports/TRIAL in the sweep's own.
        """
        from trainables.export import files
        from tune_rsst.results.export import choose

        wanted = files.formats_of(formats if isinstance(formats, str) else ",".join(formats))
        chosen = choose(self.name, trial, round)
        target = Path(to or self.path / "exports" / files.name_of(round, chosen.trial.trial)).absolute()
        files.export(chosen.model, target, wanted, lambda line: None)
        return target

    def extend(self, trials: int, *, progress: bool = True) -> Sweep:
        """Go on by this many trials more, as `tune-rsst extend`; returns when they have ended."""
        from tune_rsst.planning.resume import extension

        return _run(extension(self.name, trials), progress)

    def retry(self, *trials: str, progress: bool = True) -> Sweep:
        """Run failed trials again from their checkpoints, these or all, as `tune-rsst retry`."""
        from tune_rsst.planning.resume import second_try

        return _run(second_try(self.name, list(trials)), progress)

    def _read(self) -> on_disk.Sweep:
        found = on_disk.Sweep.of(self._folder, self._lines, elsewhere=True)
        self._lines = found.lines
        return found

    def __repr__(self) -> str:
        view = self._read().view
        return f"<Sweep {self.name}: {self.state}, {len(view.trials)} trials, in {self.path}>"


def load(name: str | None = None) -> Sweep:
    """The sweep of that name in TUNE_RSST_HOME; None: the newest."""
    return Sweep(home.find(name))


def sweep(*, progress: bool = True, **settings: Any) -> Sweep:
    """Run a sweep to its end, as `tune-rsst sweep` does: settings and knobs by their names, None is its `none`.

    `progress`: print what the command prints, else nothing. It may be called from any thread. A killed one goes on with
    `sweep(name=NAME, resume="must")`, or the same call with `resume="auto"`.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM; the sweep is resumable.
        RuntimeError: it broke off, with the reason; it is resumable.
    """
    from tune_rsst.planning.begin import make_plan
    from tune_rsst.planning.preflight import TELL_EVERY_S

    _refuse_a_second_ray()
    written = from_python(settings)
    with watched(every(TELL_EVERY_S, print if progress else lambda line: None)):
        plan = make_plan(written, None, resume=False)
    return _run(plan, progress)


def _run(plan: Plan | Finished, progress: bool) -> Sweep:
    from tune_rsst.conduct import run
    from tune_rsst.planning.plan import Finished
    from tune_rsst.results.table import say

    _refuse_a_second_ray()
    console = _console(progress)
    found = Sweep(plan.sweep.folder if isinstance(plan, Finished) else plan.folder)
    if not _ONE_AT_A_TIME.acquire(blocking=False):
        raise ConfigError("name", found.name, "no other sweep in this process", "start it in a process of its own")
    try:
        if plan.note:
            say(console, plan.note)
        code = run(plan, console)
    finally:
        _ONE_AT_A_TIME.release()
    if code not in (0, FAILED_TRIALS):
        _raise(found, code, console)
    return found


def _raise(found: Sweep, code: int, console: Console) -> NoReturn:
    go_on = f"go on with tune_rsst.sweep(name={found.name!r}, resume='must')"
    if code == INTERRUPTED:
        raise KeyboardInterrupt(f"{found.name} is interrupted; {go_on}")
    reasons = [event["reason"] for event in found.ledger if event["event"] == "interrupted" and event.get("reason")]
    said = console.file.getvalue().strip().splitlines() if isinstance(console.file, io.StringIO) else []
    reason = (reasons or said or ["what was printed says why"])[-1]
    raise RuntimeError(f"{found.name} broke off: {reason}; {go_on}")


def _console(progress: bool) -> Console:
    """Standard output; plain lines in a notebook, where each line of a table would be a block of HTML."""
    from rich.console import Console

    from tune_rsst.results.table import LOG_WIDTH, make_console

    if not progress:
        return Console(file=io.StringIO(), width=LOG_WIDTH)
    console = make_console()
    return Console(width=LOG_WIDTH, force_jupyter=False) if console.is_jupyter else console


def _refuse_a_second_ray() -> None:
    """A process has one Ray; the sweep starts or joins its own, and ends it."""
    ray = sys.modules.get("ray")
    if ray is not None and not _ONE_AT_A_TIME.locked() and ray.is_initialized():
        raise ConfigError("ray", "connected in this process", "not connected", "call ray.shutdown() before the sweep")
