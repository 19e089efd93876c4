"""Sweeps from Python: `tune_rsst.sweep(…)` runs one, `tune_rsst.load(…)` reads one, both give a `Sweep`.

In: settings and knobs by the names that the command line has. Out: what a sweep has found, as objects.
A sweep runs in a process of its own (child.py). So a script's own Ray, signals and threads are left alone, and what
ends the sweep's process, memory that ran out for example, does not end a notebook.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.rsst.config import ConfigError
from tune_rsst.settings.written import from_python
from tune_rsst.storage import folder as on_disk
from tune_rsst.storage import home

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("safetensors", "pt2", "onnx")
INTERRUPTED, FAILED_TRIALS = 130, 3
ROOT = str(Path(__file__).parents[2])
COLOURED = ("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE")


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
        with home.writing():
            for trial in found.view.trials.values():
                save_trial(trial, self._folder.pictures_of(trial.trial))
            save_figures(found.view, self._folder.pictures)
        with home.writing(target):
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
        target = Path(to or self._folder.export_of(files.name_of(round, chosen.trial.trial))).absolute()
        with home.writing(target):
            files.export(chosen.model, target, wanted, lambda line: None)
        return target

    def extend(self, trials: int, *, progress: bool = True, trust: bool = False) -> Sweep:
        """Go on by this many trials more, as `tune-rsst extend`; returns when they have ended."""
        asked = {"command": "extend", "sweep": self.name, "trials": _at_least_1(trials), "trust": trust}
        return _run(asked, progress)

    def retry(self, *trials: str, progress: bool = True, trust: bool = False) -> Sweep:
        """Run failed trials again from their checkpoints, these or all, as `tune-rsst retry`."""
        return _run({"command": "retry", "sweep": self.name, "trials": trials, "trust": trust}, progress)

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


def _at_least_1(trials: object) -> int:
    number = from_python({"trials": trials})["trials"]
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ConfigError("trials", trials, "a whole number from 1 on", "how many more")
    return number


def sweep(*, progress: bool = True, **settings: Any) -> Sweep:
    """Run a sweep to its end, as `tune-rsst sweep` does: settings and knobs by their names, None is its `none`.

    `progress`: print what the command prints, else nothing. Any thread may call it, for several sweeps at once too.
    Where the calling process ends, or Ctrl-C is pressed, the sweep ends in order and goes on later with
    `sweep(name=NAME, resume="must")`, or the same call with `resume="auto"`.

    Raises:
        KeyboardInterrupt: it was interrupted.
        RuntimeError: it broke off, with the reason.
    """
    return _run({"command": "sweep", "settings": from_python(settings)}, progress)


def _run(request: Mapping[str, Any], progress: bool) -> Sweep:
    """Have a child do what `request` says (`child.answer`), and say in this process how it went."""
    answer = run_child(request, progress)
    if answer.get("refused"):
        raise ConfigError(*answer["refused"])
    if not answer.get("sweep") or (answer["code"] == 2 and answer.get("reason")):
        raise RuntimeError(answer.get("reason") or f"the sweep's process ended with exit code {answer['code']}")
    name, code = answer["sweep"], answer["code"]
    go_on = f"go on with tune_rsst.sweep(name={name!r}, resume='must')"
    if code == INTERRUPTED:
        raise KeyboardInterrupt(f"{name} is interrupted; {go_on}")
    if code not in (0, FAILED_TRIALS):
        reason = answer.get("reason") or f"its process ended with exit code {code}"
        raise RuntimeError(f"{name} broke off: {reason}; {go_on}")
    return load(name)


def run_child(request: Mapping[str, Any], progress: bool) -> dict[str, Any]:
    """What the child answers, with its exit code as `code`. Its lines are printed as they come.

    On a terminal it draws there itself. Ctrl-C is passed on once it reaches the main thread; for a call in another
    thread the child hears the terminal's itself.
    """
    terminal = sys.__stdout__
    in_main = threading.current_thread() is threading.main_thread()
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "request.json", Path(folder) / "answer.json"
        asked.write_text(json.dumps(request), encoding="utf-8")
        place: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        if not progress:
            place = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        elif terminal is not None and sys.stdout is terminal and terminal.isatty():
            place = {}
        place["env"] = _environment(plain="stdout" in place)
        command = [sys.executable, "-u", "-P", "-m", "tune_rsst.cli.child", str(asked), str(answered), str(os.getpid())]
        place |= {"stdin": subprocess.DEVNULL, "process_group": 0 if in_main else None}
        with subprocess.Popen(command, **place) as child:
            _wait(child, lambda line: print(line, end="", flush=True))
        answer = json.loads(answered.read_text(encoding="utf-8")) if answered.exists() else {}
    return {"code": child.returncode, **answer}


def _environment(plain: bool) -> dict[str, str]:
    """The child's: it imports the package that this process has. `plain`: a notebook's kernel asks for colours too."""
    found = {name: value for name, value in os.environ.items() if not (plain and name in COLOURED)}
    return {**found, "PYTHONPATH": os.pathsep.join([ROOT, *filter(None, [found.get("PYTHONPATH")])])}


def _wait(child: subprocess.Popen[Any], say: Callable[[str], None]) -> None:
    """Until the child has ended; Ctrl-C, each time, is the child's."""
    while True:
        try:
            for line in child.stdout or ():
                say(line)
            child.wait()
            return
        except KeyboardInterrupt:
            child.send_signal(signal.SIGINT)
