"""What a sweep has found: the commands that show it, draw it, take it away and put it into MLflow again.

Part of the command line (app.py). In: arguments. Out: text, files, an exit code.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from trainables.rsst.config import ConfigError
from trainables.text import LONGEST_LINE, counted, in_json, one_line, quoted, shown
from tune_rsst.cli.api import load
from tune_rsst.settings import addresses
from tune_rsst.storage import home
from tune_rsst.storage.cursor import load_cursor
from tune_rsst.storage.folder import Sweep

app = typer.Typer()


def sweep_names() -> list[str]:
    """What the shell completes a sweep's name to."""
    return [folder.name for folder in home.folders()]


SweepName = Annotated[
    str | None, typer.Argument(help="The sweep's name; without it, the newest.", autocompletion=sweep_names)
]


def fail(line: str, code: int) -> NoReturn:
    """End with one line on stderr, whatever is in `line`."""
    print(f"error: {shown(line, LONGEST_LINE)}", file=sys.stderr)
    raise SystemExit(code)


@app.command()
def show(
    sweep: SweepName = None,
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
    from tune_rsst.results import as_json as results
    from tune_rsst.results import query, ranking
    from tune_rsst.results.live import watch
    from tune_rsst.results.table import make_console, print_table

    if as_json and as_csv:
        raise ConfigError("csv", True, "--json or --csv, not both")
    folder = home.find(sweep)
    if live:
        watch(make_console(), folder)
    found = Sweep.of(folder, elsewhere=True)
    met, front = query.conditions(found.view, where or []), set(ranking.pareto_front(found.view))
    keep = (lambda trial: met(trial) and trial.trial in front) if pareto else met
    if as_json:
        shown = results.as_json(found, load_cursor(folder.cursor).parent_run_id)
        shown["trials"] = [results.trial_json(trial) for trial in found.view.trials.values() if keep(trial)]
        print(in_json(shown))
    elif as_csv:
        query.print_csv(found.view, keep)
    else:
        print_table(make_console(), found, keep)


@app.command()
def fetch(
    storage: Annotated[str, typer.Argument(metavar="s3://BUCKET/PREFIX", help="Where sweeps lie; gs://…, az://…")],
    sweep: Annotated[str | None, typer.Argument(help="One of them; else all.")] = None,
) -> None:
    """Bring sweeps from a bucket into TUNE_RSST_HOME: `show`, `report` and `export` then know them here."""
    from tune_rsst.storage.bucket import bring

    found = bring(storage, sweep, print)
    if not found:
        raise ConfigError("storage", storage, f"a place with {sweep or 'a sweep'} in it")
    print("\n".join(f"{folder.name}: {folder.path}" for folder in found))


@app.command()
def sync(sweep: SweepName = None) -> None:
    """Upload to MLflow what is missing there, for example after the server was down."""
    from tune_rsst.tracking.uploader import Uploader

    folder = home.find(sweep)
    settings = Sweep.of(folder).view.settings
    uploader = Uploader(folder, {**settings, **addresses.with_passwords(settings)})
    missing = uploader.sync_once()
    if missing:
        fail(f"{missing} ledger lines of {folder.name} are not in MLflow yet: {'; '.join(uploader.problems)}", 1)
    if uploader.refused:
        fail(f"{folder.name}: MLflow refused a part of what it was sent: {'; '.join(uploader.refused)}", 1)
    there = f"everything is in {settings['mlflow_tracking_uri']}, parent run {uploader.parent_run_id}"
    print(one_line(f"{folder.name}: {there}"))


@app.command()
def report(
    sweep: SweepName = None,
    to: Annotated[Path | None, typer.Option("--to", help="The file; else report.html in the sweep's folder.")] = None,
) -> None:
    """Write one HTML page with tables and figures that opens without a network, and the pictures as PNG and HTML."""
    found = load(sweep)
    print(f"report: {found.report(to)}\npictures: {found.path / 'pictures'}")


@app.command()
def tensorboard(sweep: SweepName = None) -> None:
    """Write the curves and parameters of a sweep's trials as files for TensorBoard, anew each time."""
    from tune_rsst.report.tensorboard import write

    to, trials = write(Sweep.of(home.find(sweep)))
    print(f"{counted(trials, 'trial')}; look at them: tensorboard --logdir {quoted(to)}")


@app.command()
def export(
    what: Annotated[
        str | None, typer.Argument(metavar="[SWEEP | TRIAL | SWEEP/TRIAL]", help="A sweep's best trial, or a trial.")
    ] = None,
    trial: Annotated[str | None, typer.Option("--trial", metavar="TRIAL", help="A trial of SWEEP.")] = None,
    number: Annotated[
        int | None, typer.Option("--round", metavar="N", help="The model of round N, 0 is dense; else the last one.")
    ] = None,
    to: Annotated[Path | None, typer.Option("--to", help="Folder; else SWEEP/exports/TRIAL, or /TRIAL-rNNN.")] = None,
    formats: Annotated[str, typer.Option(help="Any of safetensors, pt2, onnx; by commas.")] = "safetensors,pt2,onnx",
    register: Annotated[str | None, typer.Option(metavar="NAME", help="Also put it into MLflow's registry.")] = None,
    alias: Annotated[str, typer.Option(help="Alias of the registered version.")] = "champion",
    push: Annotated[str | None, typer.Option(metavar="ORG/NAME", help="Also put it into the Hugging Face hub.")] = None,
    private: Annotated[bool, typer.Option("--private", help="A repository that --push makes is private.")] = False,
) -> None:
    """Take a trial's compacted model away: safetensors with a loader, torch.export, ONNX, MLflow registry, hub.

    `python -m trainables.export FOLDER` does the same with the folder of a single run.
    """
    from trainables.export import files
    from tune_rsst.results.export import choose
    from tune_rsst.tracking import hugging_face, registry
    from tune_rsst.tracking.model_card import write_card

    wanted = files.formats_of(formats)
    registry.check_names("model" if register is None else register, alias)
    if private and push is None:
        raise ConfigError("private", True, "given together with --push")
    chosen = choose(what, trial, number)
    if push is not None:
        hugging_face.check_push(push)
    folder = to or chosen.folder.export_of(files.name_of(number, chosen.trial.trial))
    print(f"{chosen.folder.name}/{chosen.trial.trial}, {chosen.trial.state}")
    try:
        with home.writing(folder):
            written = files.export(chosen.model, folder.absolute(), wanted, lambda line: print(one_line(line)))
            written.append(write_card(chosen, folder.absolute(), push or ""))
            print(one_line(str(written[-1])))
        if register is not None:
            address = registry.register(chosen, register, alias)
            print(f"{address}: takes pixels in [0, 1]; mlflow.pyfunc.load_model('{address}').predict(pixels)")
        if push is not None:
            what = f"{chosen.folder.name}/{folder.name}"
            print(hugging_face.push(push, written, private=private, message=f"{what}, by tune-rsst"))
    except (RuntimeError, ConnectionError) as error:
        fail(str(error), 1)


@app.command()
def track(
    save_dir: Annotated[Path, typer.Argument(help="Where a python -m trainables run keeps its report.")],
    sweep: Annotated[str | None, typer.Option("--sweep", help="Put it below this sweep's run.")] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Wait for the run to begin, go on until it has finished or is interrupted.")
    ] = False,
    uri: Annotated[
        str | None, typer.Option("--uri", help="MLflow; else MLFLOW_TRACKING_URI, else sqlite in TUNE_RSST_HOME.")
    ] = None,
    experiment: Annotated[str, typer.Option(help="MLflow experiment.")] = "tune-rsst",
) -> None:
    """Put a single run into MLflow from its folder; a second time adds what is new."""
    from tune_rsst.tracking.following import keep_level

    address = addresses.check_tracking_uri(uri or home.default_tracking_uri())
    try:
        keep_level(save_dir, address, experiment, sweep, follow)
    except ConnectionError as error:
        fail(str(error), 1)
    except KeyboardInterrupt:
        print(f"{save_dir}: no longer followed; the same command goes on")
        raise SystemExit(130) from None
