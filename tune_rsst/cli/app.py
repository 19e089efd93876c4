"""`tune-rsst`: the commands. Bad input is one line and exit code 2.

In: the command line. Out: text, an exit code. Ray, Optuna and MLflow are imported only where they are used.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from trainables.leaving import Heard, interruptible, lasting_output, notice_if_unread
from trainables.progress import every, watched
from trainables.rsst.config import ConfigError
from trainables.storage.bucket import StorageError
from trainables.terminal import ready
from trainables.text import in_json, with_hint
from tune_rsst.cli import results, sweeps
from tune_rsst.cli.results import fail, sweep_names
from tune_rsst.ledger.lines import LedgerError
from tune_rsst.ledger.lock import SweepBusy
from tune_rsst.storage import home

if TYPE_CHECKING:
    from tune_rsst.planning.plan import Finished, Plan


INTERRUPTED = 130
TRUST = "Run the sweep's copy of its FILE.py space or plug-in, where the file is gone or changed."
Trust = Annotated[bool, typer.Option("--trust", help=TRUST)]
app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"tune-rsst {version('tune-rsst')}")
        raise typer.Exit


@app.callback()
def everywhere(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Search RSST hyperparameters: Ray Tune runs the trials, Optuna chooses them, MLflow shows them."""


@app.command()
def sweep(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE.yaml] [key=value …]", help="Settings: a file, then overrides.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on: with the sweep of that --name (which must be there), else with the newest interrupted one, "
            "where there is one. resume=auto, must or never says it exactly.",
        ),
    ] = False,
    name: Annotated[str | None, typer.Option("--name", help="The sweep's name, which is its folder.")] = None,
    space: Annotated[
        str | None,
        typer.Option("--space", metavar="SPACE", help="What is searched: NAME, FILE.py:function, as space=…"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan (epochs, hours, memory, disk) and write nothing.")
    ] = False,
    warm_start: Annotated[
        list[str] | None,
        typer.Option("--warm-start", metavar="SWEEP", help="Former sweep whose trials guide the search; repeatable."),
    ] = None,
    trust: Trust = False,
) -> None:
    """Run a sweep: `tune-rsst sweep` alone prunes the embedded digits to 0.3 of the units in a few minutes.

    `tune-rsst settings` lists what key=value may be.
    """
    from tune_rsst.planning.begin import make_plan
    from tune_rsst.planning.plan import Finished
    from tune_rsst.planning.preflight import TELL_EVERY_S
    from tune_rsst.settings.written import written_in

    with watched(every(TELL_EVERY_S, print)):  # of a download of weights
        said = written_in(words, name=name, space=space, warm_start=warm_start, trust=trust)
        plan = make_plan(said, None, resume)
    if not dry_run:
        _run(plan)
    elif isinstance(plan, Finished):
        from tune_rsst.results.commands import why_at_rest

        print(why_at_rest(plan.sweep.folder, plan.sweep.view, plan.spent))
    else:
        from tune_rsst.planning import preflight
        from tune_rsst.planning.estimate import estimate, lines

        if plan.note:
            print(plan.note)
        preflight.check(plan, print)
        print("\n".join(lines(plan, estimate(plan))))


def _run(plan: Plan | Finished) -> NoReturn:
    """Run a plan; its exit code is the program's."""
    from tune_rsst.conduct import run
    from tune_rsst.planning.plan import Finished
    from tune_rsst.results.commands import tune_rsst
    from tune_rsst.results.table import make_console, say

    console = make_console()
    if plan.note:
        say(console, plan.note)
    folder = plan.sweep.folder if isinstance(plan, Finished) else plan.folder
    look = tune_rsst(folder, "show", folder.name, "--live")
    notice_if_unread(f"nobody reads the output any more; the sweep goes on, look at it with: {look}")
    raise SystemExit(run(plan, console))  # not typer.Exit: see `_main`


@app.command()
def extend(
    sweep: Annotated[str, typer.Argument(help="A finished or interrupted sweep.", autocompletion=sweep_names)],
    trials: Annotated[int, typer.Argument(min=1, metavar="N", help="How many trials more.")],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[key=value …]", help="Settings of this run: epoch_budget=none …")
    ] = None,
    trust: Trust = False,
) -> None:
    """Go on with a sweep by N trials more than it was to have; what it knows already guides them."""
    from tune_rsst.planning.resume import extension
    from tune_rsst.settings.written import written_in

    _run(extension(sweep, trials, written_in(words, trust=trust)))


@app.command()
def confirm(
    sweep: Annotated[str, typer.Argument(help="A sweep with finished trials.", autocompletion=sweep_names)],
    top: Annotated[int, typer.Option("--top", min=1, metavar="K", help="How many of its best trials.")] = 3,
    seeds: Annotated[int, typer.Option("--seeds", min=2, metavar="N", help="Fresh seeds for each of them.")] = 5,
    split: Annotated[
        bool, typer.Option("--split", help="Each seed splits the images anew, too; else the sweep's own split stays.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="The table as one JSON object; all else goes to stderr.")
    ] = False,
    trust: Trust = False,
) -> None:
    """Train a sweep's best trials again with fresh seeds, and choose among them by the mean of val_top1.

    One seed and a few hundred validation images choose by luck. After a kill the same command goes on.
    """
    from tune_rsst.conduct import confirm as run
    from tune_rsst.planning.resume import confirmation
    from tune_rsst.results.confirmed.table import as_json as found
    from tune_rsst.results.table import make_console, say
    from tune_rsst.storage.folder import Sweep

    plan = confirmation(sweep, {"trust": True} if trust else {})
    console = make_console(stderr=as_json)
    if plan.note:
        say(console, plan.note)
    code = run(plan, top, seeds, console, split=split)
    if as_json:
        print(in_json(found(Sweep.of(plan.folder))))
    raise SystemExit(code)


@app.command()
def retry(
    sweep: Annotated[str, typer.Argument(help="A sweep with failed trials.", autocompletion=sweep_names)],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TRIAL …] [key=value …]", help="Some of them, else all; settings of this run."),
    ] = None,
    trust: Trust = False,
) -> None:
    """Run failed trials again, from their checkpoints: nodes went away, or what was wrong is put right."""
    from tune_rsst.planning.resume import second_try
    from tune_rsst.settings.written import written_in

    said = words or []
    trials = [word for word in said if "=" not in word]
    _run(second_try(sweep, trials, written_in([word for word in said if "=" in word], trust=trust)))


@app.command()
def spaces(
    name: Annotated[str | None, typer.Argument(help="A space: its name, FILE.py:function or module:function.")] = None,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[key=value …]", help="Settings to show it with: dataset=digits …")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="How many trials to draw.")] = 3,
) -> None:
    """List the search spaces, or show one: its ranges, and trials drawn from it with rounds, epochs, size and MACs."""
    from tune_rsst.cli.spaces import print_space, print_spaces
    from tune_rsst.results.table import make_console
    from tune_rsst.settings import written

    if name is None:
        print_spaces(make_console())
    else:
        print_space(make_console(), name, samples, written.given(None, list(words or [])))


@app.command()
def doctor(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE.yaml] [key=value …]", help="The settings of the sweep to be.")
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Run code (a space, plug-ins) that only FILE.yaml names.")
    ] = False,
) -> None:
    """Would this sweep run here? Versions, cluster, GPUs, storage, data, MLflow: a line each; exit code 1 if not."""
    from tune_rsst.planning.doctor import examine
    from tune_rsst.settings.written import written_in

    fine = True
    named = {word.partition("=")[0].strip() for word in words or []}
    for finding in examine(written_in(words, trust=trust), named):
        print(finding.line(), flush=True)
        fine = fine and finding.fine
    raise typer.Exit(0 if fine else 1)


@app.command()
def settings() -> None:
    """List every setting of a sweep and every knob of a trial: type, default, what it does."""
    from tune_rsst.cli.spaces import setting_lines

    print("\n".join(setting_lines()))


@app.command()
def example(
    name: Annotated[
        str | None, typer.Argument(metavar="[cluster.yaml | slurm | rayjob | …]", help="Which one.")
    ] = None,
) -> None:
    """Print a file to start from, for a Ray cluster, Slurm, Kubernetes or Docker; without a name: which there are."""
    from tune_rsst.cli import examples

    print("\n".join(examples.lines()) if name is None else examples.text(name).rstrip("\n"))


app.add_typer(results.app)
app.add_typer(sweeps.app)


def main() -> None:
    """Run the command line; errors of the user's are one line."""
    with lasting_output(), interruptible() as heard:
        _main(heard)


def _main(heard: Heard) -> NoReturn:
    try:
        ready(sys.argv[1:])
        with home.writing():
            code = app(standalone_mode=False)  # else a mistyped option is a box of five lines
        if code == INTERRUPTED:  # typer makes this of a KeyboardInterrupt, without a word
            raise KeyboardInterrupt
    except (ConfigError, SweepBusy) as error:
        fail(str(error), 2)
    except (LedgerError, StorageError) as error:
        fail(str(error), 1)
    except PermissionError as error:
        fail(str(home.closed_to_us(Path(error.filename or home.home()))), 2)
    except (KeyboardInterrupt, typer.Abort):
        fail("interrupted before the sweep began", INTERRUPTED)
    except Exception as error:
        _refuse_usage(error)
        if heard.interrupted:  # a library made another error of it
            fail(f"interrupted ({type(error).__name__}: {error})", INTERRUPTED)
        if isinstance(error, OSError):
            fail(f"{error}; {home.NOTHING_LOST}", 1)
        raise
    raise SystemExit(code if isinstance(code, int) else 0)


def _refuse_usage(error: Exception) -> None:
    """End with one line if `error` is the command line's own (click's, of which typer has its own copy)."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()  # type: ignore[attr-defined]
        raise SystemExit(2)
    if hasattr(error, "format_message"):
        context = getattr(error, "ctx", None)
        hint = f"see {context.command_path} --help" if context else ""
        fail(with_hint(" ".join(error.format_message().split()), hint), 2)
