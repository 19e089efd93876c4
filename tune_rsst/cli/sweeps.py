"""Which sweeps a home has, and how one goes. Part of the command line (app.py).

In: arguments. Out: text, an exit code.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from trainables.rsst.config import ConfigError
from trainables.text import LONGEST_LINE, in_json, mib, one_line, shown
from tune_rsst.cli.results import fail, sweep_names
from tune_rsst.ledger.lines import LedgerError
from tune_rsst.storage import home
from tune_rsst.storage.folder import Sweep

app = typer.Typer()


@app.command("list")
def list_sweeps(
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list instead of the table.")] = False,
) -> None:
    """Every sweep of TUNE_RSST_HOME: its state, trials, best, size on disk, age."""
    from tune_rsst.results import listing
    from tune_rsst.results.table import make_console, print_fitting, say

    rows = listing.listed()
    if as_json:
        print(in_json(rows))
    elif rows:
        damaged = [shown(f"{row['name']}: {row['reason']}", LONGEST_LINE) for row in rows if row["reason"]]
        print_fitting(make_console(), listing.table(rows), *damaged)
    else:
        say(make_console(), f"no sweep in {home.home()}; start one: tune-rsst sweep")


@app.command()
def delete(
    sweep: Annotated[str, typer.Argument(help="The sweep's name.", autocompletion=sweep_names)],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a sweep's folder: ledger, checkpoints, models, exports, pictures. MLflow and buckets keep theirs."""
    from tune_rsst.results.listing import size_of
    from tune_rsst.storage import deleting

    there = {folder.name: folder for folder in home.folders()}
    if (half := deleting.leftovers(sweep)) and sweep not in there:
        size = mib(sum(map(size_of, half)) / 2**20)
        deleting.remove_half(sweep)
        print(f"{sweep} was half deleted; the rest is gone now: {size}")
        return
    folder = there.get(sweep) or home.find(sweep)
    try:
        storage = Sweep.of(folder).view.settings.get("storage")
    except LedgerError:
        storage = None
    size, stays = mib(size_of(folder.path) / 2**20), deleting.what_stays(folder)
    if not yes:
        _ask(one_line(f"Delete {folder.path}, {size} ({'; '.join(stays)})? [y/N] "), sweep)
    try:
        deleting.delete(folder, storage)
    except OSError as error:
        fail(f"{folder.path} can't be removed: {error.strerror or error}", 1)
    print("\n".join(map(one_line, [f"deleted: {folder.path}, {size}", *stays])))


@app.command()
def repair(
    sweep: Annotated[str, typer.Argument(help="The sweep's name.", autocompletion=sweep_names)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.")] = False,
) -> None:
    """Put a damaged ledger right: order, doubles, flipped bits, lines that checkpoints and the study still tell of.

    The old file is kept beside it. What is lost is said, and a resume trains it again.
    """
    from tune_rsst.planning import repair as repairing

    found = repairing.repair(repairing.find(sweep), dry_run=dry_run)
    print("\n".join(shown(line, LONGEST_LINE) for line in found.said()))
    if dry_run and found.content is not None:
        print(f"{sweep}: nothing was written")


def _ask(question: str, name: str) -> None:
    """Return where a person at the terminal agrees; end the program where not."""
    if not sys.stdin or not sys.stdin.isatty():
        raise ConfigError("yes", False, "--yes where nobody can be asked", f"tune-rsst delete {name} --yes")
    try:
        answer = input(question)
    except EOFError:
        answer = ""
    if answer.strip().casefold() not in ("y", "yes"):
        print("nothing was deleted")
        raise SystemExit(1)
