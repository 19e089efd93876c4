"""`tune-rsst`: the commands. Bad input is one line and exit code 2.

Comes in: the command line. Goes out: text, an exit code. Ray, Optuna and MLflow are imported only where they are used.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from trainables.bucket import StorageError
from trainables.rsst.config import ConfigError
from tune_rsst.ledger import LedgerError, SweepBusy

if TYPE_CHECKING:
    from tune_rsst.plan import Plan

app = typer.Typer(
    help="Search RSST hyperparameters: Ray Tune runs the trials, Optuna chooses them, MLflow shows them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
Sweep = Annotated[str | None, typer.Argument(help="The sweep's name; without it, the newest.")]


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
) -> None:
    """Run a sweep: `tune-rsst sweep` alone prunes the embedded digits to 0.3 of the units in a few minutes.

    `tune-rsst settings` lists what key=value may be.
    """
    from tune_rsst.config import written_in
    from tune_rsst.plan import make_plan

    plan = make_plan(written_in(words, name=name, space=space, warm_start=warm_start), None, resume)
    if dry_run:
        from tune_rsst.estimate import estimate, lines

        print("\n".join(lines(plan, estimate(plan))))
        return
    _run(plan)


def _run(plan: Plan) -> NoReturn:
    """Run a plan; its exit code is the program's."""
    from tune_rsst.sweep import run
    from tune_rsst.table import make_console

    console = make_console()
    for line in filter(None, (plan.note, plan.warm.line)):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    raise typer.Exit(run(plan, console))


@app.command()
def extend(
    sweep: Annotated[str, typer.Argument(help="A finished or interrupted sweep.")],
    trials: Annotated[int, typer.Argument(min=1, metavar="N", help="How many trials more.")],
) -> None:
    """Go on with a sweep by N trials more than it was to have; what it knows already guides them."""
    from tune_rsst.plan import extension

    _run(extension(sweep, trials))


@app.command()
def show(
    sweep: Sweep = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of the table.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="The ranking as CSV instead of the table.")] = False,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", help="Only trials such as 'val_top1>=0.9' or state=stopped; repeatable."),
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Follow a sweep that is running, from any terminal.")] = False,
    pareto: Annotated[
        bool, typer.Option("--pareto", help="Only the front: finished trials that no other beats in both.")
    ] = False,
) -> None:
    """State, ranking, best trial, where everything lies, and what to type next."""
    from tune_rsst import home, results, watching
    from tune_rsst.table import make_console, print_table
    from tune_rsst.tracking_tail import known_parent_run

    if as_json and as_csv:
        raise ConfigError("csv", True, "--json or --csv, not both")
    folder = home.find(sweep)
    if live:
        watching.watch(make_console(), folder)
    view, state = results.load(folder)
    met, front = watching.conditions(view, where or []), set(results.pareto_front(view))
    keep = (lambda trial: met(trial) and trial.trial in front) if pareto else met
    if as_json:
        found = results.as_json(folder, view, state, known_parent_run(folder.cursor))
        found["trials"] = [results.trial_json(trial) for trial in view.trials.values() if keep(trial)]
        print(json.dumps(found, ensure_ascii=False))
    elif as_csv:
        watching.print_csv(view, keep)
    else:
        print_table(make_console(), folder, view, state, keep)


@app.command()
def spaces(
    name: Annotated[str | None, typer.Argument(help="A space: its name, FILE.py:function or module:function.")] = None,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[key=value …]", help="Settings to show it with: dataset=digits …")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="How many trials to draw.")] = 3,
) -> None:
    """List the search spaces, or show one: its ranges, and trials drawn from it with rounds, epochs, size and MACs."""
    from tune_rsst import config
    from tune_rsst.listing import print_space, print_spaces
    from tune_rsst.table import make_console

    if name is None:
        print_spaces(make_console())
    else:
        print_space(make_console(), name, samples, config.given(None, list(words or [])))


@app.command()
def fetch(
    storage: Annotated[str, typer.Argument(metavar="s3://BUCKET/PREFIX", help="Where sweeps lie.")],
    sweep: Annotated[str | None, typer.Argument(help="One of them; else all.")] = None,
) -> None:
    """Bring sweeps from a bucket into TUNE_RSST_HOME: `show`, `report` and `export` then know them here."""
    from tune_rsst.storage import bring

    found = bring(storage, sweep, print)
    if not found:
        raise ConfigError("storage", storage, f"a place with {sweep or 'a sweep'} in it")
    print("\n".join(f"{folder.name}: {folder.path}" for folder in found))


@app.command()
def sync(sweep: Sweep = None) -> None:
    """Upload to MLflow what is missing there, for example after the server was down."""
    from tune_rsst import home, results
    from tune_rsst.tracking_files import RunFiles
    from tune_rsst.uploader import Uploader

    folder = home.find(sweep)
    view, _ = results.load(folder)
    recorded, experiment = view.settings["mlflow_tracking_uri"], view.settings["mlflow_experiment"]
    uri = home.with_passwords(view.settings).get("mlflow_tracking_uri", recorded)
    uploader = Uploader(folder.ledger, uri, experiment, folder.cursor, RunFiles(folder))
    missing = uploader.sync_once()
    if missing:
        _fail(f"{missing} ledger lines of {folder.name} are not in MLflow yet: {'; '.join(uploader.problems)}", 1)
    print(f"{folder.name}: everything is in {recorded}, parent run {uploader.parent_run_id}")


@app.command()
def report(
    sweep: Sweep = None,
    to: Annotated[Path | None, typer.Option("--to", help="The file; else report.html in the sweep's folder.")] = None,
) -> None:
    """Write one HTML page with tables and figures that opens without a network, and the pictures as PNG and HTML."""
    from tune_rsst import home, results
    from tune_rsst.plots import save_trial
    from tune_rsst.plots_sweep import save_interactive, save_still
    from tune_rsst.report import write_report

    folder = home.find(sweep)
    view, state = results.load(folder)
    target = (to or folder.report).absolute()
    if not target.parent.is_dir():
        raise ConfigError("to", to, "a file in a folder that exists")
    for trial in view.trials.values():
        save_trial(trial, folder.pictures / trial.trial)
    save_still(view, folder.pictures)
    save_interactive(view, folder.pictures)
    print(f"report: {write_report(folder, view, state, target)}\npictures: {folder.pictures}")


@app.command()
def export(
    what: Annotated[
        str | None, typer.Argument(metavar="[SWEEP | TRIAL | SWEEP/TRIAL]", help="A sweep's best trial, or a trial.")
    ] = None,
    to: Annotated[Path | None, typer.Option("--to", help="Folder; else SWEEP/exports/TRIAL.")] = None,
    formats: Annotated[str, typer.Option(help="Any of safetensors, pt2, onnx; by commas.")] = "safetensors,pt2,onnx",
    register: Annotated[str | None, typer.Option(metavar="NAME", help="Also put it into MLflow's registry.")] = None,
    alias: Annotated[str, typer.Option(help="Alias of the registered version.")] = "champion",
) -> None:
    """Take a finished trial's compacted model away: safetensors with a loader, torch.export, ONNX, MLflow registry."""
    from tune_rsst import export as exporting

    chosen = exporting.choose(what)
    folder = (to or chosen.folder.path / "exports" / chosen.trial.trial).absolute()
    m = chosen.trial.metrics
    print(f"{chosen.folder.name}/{chosen.trial.trial}: test_top1 {m['test_top1']:.4f}, {m['params']:,} parameters")
    try:
        for path, worst in exporting.export(chosen, folder, [f.strip() for f in formats.split(",") if f.strip()]):
            print(f"{path}" + ("" if worst is None else f": largest difference of a logit {worst:.1e}"))
    except RuntimeError as error:
        _fail(str(error), 1)
    print(f"{folder / 'preprocessing.json'}: how pixels become what the files above take")
    if register is not None:
        address = exporting.register(chosen, register, alias)
        print(f"{address}: takes pixels in [0, 1]; mlflow.pyfunc.load_model('{address}').predict(pixels)")


@app.command()
def track(
    save_dir: Annotated[Path, typer.Argument(help="Where a python -m trainables run keeps its report.")],
    sweep: Annotated[str | None, typer.Option("--sweep", help="Put it below this sweep's run.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the run has finished.")] = False,
    uri: Annotated[
        str | None, typer.Option("--uri", help="MLflow; else MLFLOW_TRACKING_URI, else sqlite in TUNE_RSST_HOME.")
    ] = None,
    experiment: Annotated[str, typer.Option(help="MLflow experiment.")] = "tune-rsst",
) -> None:
    """Put a single run into MLflow from its folder; a second time changes nothing."""
    from tune_rsst import home
    from tune_rsst.single import keep_level
    from tune_rsst.tracking import check_tracking_uri

    address = check_tracking_uri(uri or home.default_tracking_uri())
    try:
        keep_level(save_dir, address, experiment, sweep, follow)
    except ConnectionError as error:
        _fail(str(error), 1)


@app.command()
def doctor(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE.yaml] [key=value …]", help="The settings of the sweep to be.")
    ] = None,
) -> None:
    """Would this sweep run here? Versions, cluster, GPUs, storage, data, MLflow: a line each; exit code 1 if not."""
    from tune_rsst.config import written_in
    from tune_rsst.doctor import examine

    fine = True
    for finding in examine(written_in(words)):
        print(finding.line(), flush=True)
        fine = fine and finding.fine
    raise typer.Exit(0 if fine else 1)


@app.command()
def settings() -> None:
    """List every setting of a sweep and every knob of a trial: type, default, what it does."""
    from tune_rsst.listing import setting_lines

    print("\n".join(setting_lines()))


def _fail(line: str, code: int) -> NoReturn:
    print(f"error: {line}", file=sys.stderr)
    raise SystemExit(code)


def main() -> None:
    """Run the command line; errors of the user's are one line."""
    try:
        app()
    except (ConfigError, SweepBusy) as error:
        _fail(str(error), 2)
    except (LedgerError, StorageError) as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:
        _fail("interrupted before the sweep began", 130)
