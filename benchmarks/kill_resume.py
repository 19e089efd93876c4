"""Kill a trial with SIGKILL at random moments, resume it each time, and compare the end with an uninterrupted run.

    python -m benchmarks.kill_resume                  20 kills of 5 rounds of 4 epochs on digits, about a minute
    python -m benchmarks.kill_resume --kills 4 --toy  the small version that the tests run

Prints one row a kill: the moment (epochs of progress), where the next life went on, epochs lost. Exit code 1 if the
report (apart from times) or the model's bits differ, or if a finished round was trained again.
Every life is a fork of one parent that has imported torch and computed nothing, so that a life costs little.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from trainables.rsst.config import RSSTConfig
from trainables.rsst.event import Event
from trainables.rsst.metrics import CIRCUMSTANCES
from trainables.rsst.trial import open_trial
from trainables.storage.state_files import CRC

KNOBS: dict[str, Any] = {"dataset": "digits", "pruning_times": 5, "rate": 0.3, "epochs": 4, "warmup": 1}
RESULTS = ("report.json", "model.safetensors", "architecture.json")


@dataclass(frozen=True)
class Life:
    """One process: when it was killed (None: it lived to the end), where it began, what it trained."""

    killed_at: float | None  # epochs of progress
    finished_rounds: int  # that its store held at its start
    position: tuple[int, int]  # (round, epochs done in it) that it went on from
    epochs: tuple[tuple[int, int], ...]  # (round, epoch) that it trained to their end


def live(config: RSSTConfig, root: Path, diary: Path, every_s: float) -> None:
    """Run the trial in this process; the diary gets a line per live event, flushed, so that the parent can aim."""
    with (
        diary.open("a", encoding="utf-8") as file,
        open_trial(config, root, say=print, checkpoint_every_s=every_s) as trial,
    ):
        past = trial.history
        rounds = sum(event.kind == "round" for event in past)
        last = past[-1] if past else Event("start", {"round": 0, "epoch": 0})
        at, epoch = last.metrics["round"], last.metrics["epoch"]
        place = (at + 1, 0) if last.kind in ("round", "final") else (at, epoch)
        print("open", rounds, *place, file=file, flush=True)
        for number, event in enumerate(trial.events()):
            if number >= len(past):
                print(event.kind, event.metrics["round"], event.metrics["epoch"], file=file, flush=True)


def one_life(config: RSSTConfig, root: Path, diary: Path, every_s: float, until: float | None, seed: int) -> Life:
    """Fork, run, and kill at `until` epochs of progress (an epoch's share is a share of the time that epochs take)."""
    began = diary.stat().st_size if diary.exists() else 0
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            live(config, root, diary, every_s)
            code = 0
        finally:
            os._exit(code)
    killed = until is not None and kill_when(child, diary, began, config.epochs, until, random.Random(seed))
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
        raise RuntimeError(f"a life ended with exit code {os.WEXITSTATUS(status)}")
    lines = diary.read_text(encoding="utf-8")[began:].splitlines() if diary.exists() else []
    opened = next((line.split() for line in lines if line.startswith("open")), None)
    rounds, at, epoch = (int(x) for x in opened[1:]) if opened else (-1, -1, -1)
    epochs = tuple((int(r), int(e)) for kind, r, e in (line.split()[:3] for line in lines) if kind == "epoch")
    return Life(until if killed else None, rounds, (at, epoch), epochs)


def kill_when(child: int, diary: Path, began: int, epochs: int, until: float, draw: random.Random) -> bool:
    """Watch the diary and kill the child at `until` epochs of progress; False if it had ended before.

    A life that stands at or beyond `until` at its start is killed within its first 0.4 s: while it loads or trains.
    """
    pace, seen, mark = 0.2, -1, time.monotonic()  # seconds an epoch takes; epochs done; when that was seen
    patience = draw.uniform(0.0, 0.4)
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        done = progress(diary, began, epochs)
        if done != seen:
            if seen >= 0 and done == seen + 1:
                pace = time.monotonic() - mark
            seen, mark = done, time.monotonic()
        missing = until - max(seen, 0)
        due = patience if missing <= 0 else missing * pace if missing < 1 else None
        if due is not None and time.monotonic() - mark >= due:
            os.kill(child, signal.SIGKILL)
            return True
        time.sleep(0.001)
    return False


def progress(diary: Path, began: int, epochs: int) -> int:
    """Epochs done in all rounds, as far as this life has told; −1 before it has opened the store."""
    text = diary.read_text(encoding="utf-8")[began:] if diary.exists() else ""
    lines = [line.split() for line in text.splitlines() if text.endswith("\n") or line != text.splitlines()[-1]]
    places = [line[-2:] for line in lines if line[0] in ("open", "epoch")]
    return max((int(r) * epochs + int(e) for r, e in places), default=-1)


def timeless(value: Any) -> Any:
    """A report without the metrics that differ between identical runs."""
    if isinstance(value, dict):
        return {name: timeless(inner) for name, inner in value.items() if name not in CIRCUMSTANCES | {CRC}}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


def results(folder: Path) -> dict[str, str]:
    """File name → sha256 of what must be equal."""
    texts = {name: (folder / name).read_bytes() for name in RESULTS}
    report = timeless(json.loads(texts["report.json"]))
    texts["report.json"] = json.dumps(report, sort_keys=True).encode()
    return {name: hashlib.sha256(content).hexdigest() for name, content in texts.items()}


def rounds_trained_again(lives: list[Life]) -> int:
    """Epochs trained of rounds that the store of that life, or of an earlier one, held as finished."""
    again, finished = 0, 0
    for one in lives:
        finished = max(finished, one.finished_rounds)
        again += sum(r < finished for r, _ in one.epochs)
    return again


def main(arguments: list[str] | None = None) -> int:
    """Kill, resume, compare, print the table; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the kill moments")
    parser.add_argument("--checkpoint_every_s", type=float, default=2.0, help="seconds between saves in a round")
    parser.add_argument("--toy", action="store_true", help="a tiny network and 96 images (needs the tests folder)")
    asked = parser.parse_args(arguments)
    knobs = dict(KNOBS)
    if asked.toy:
        knobs |= {"arch": prepare_toy(), "epochs": 3}
        asked.checkpoint_every_s /= 20
    config = RSSTConfig.from_knobs(knobs)
    draw = random.Random(asked.seed)
    length = config.rounds * config.epochs / max(asked.kills, 1)  # one moment in each of as many equal parts of the run
    moments = [draw.uniform(number, number + 1) * length for number in range(asked.kills)]
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        root = Path(folder)
        one_life(config, root / "whole", root / "whole.diary", asked.checkpoint_every_s, None, 0)
        whole_s = time.monotonic() - began
        lives = []
        for number, moment in enumerate([*moments, None]):
            lives.append(
                one_life(config, root / "killed", root / "diary", asked.checkpoint_every_s, moment, asked.seed + number)
            )
        expected = results(root / "whole" / config.fingerprint)
        found = results(root / "killed" / config.fingerprint)
    return report(config, lives, expected, found, whole_s, time.monotonic() - began - whole_s)


def prepare_toy() -> str:
    """The tests' toy network and images in this process; returns the network's name."""
    from tests.trainables import toy
    from trainables.rsst import trial

    toy.install()
    trial.load = toy.images  # type: ignore[assignment]
    return toy.NAME


def report(
    config: RSSTConfig, lives: list[Life], expected: dict[str, str], found: dict[str, str], whole_s: float, all_s: float
) -> int:
    """Print the table and the verdict; the exit code."""
    kills = [one for one in lives if one.killed_at is not None]
    print("| kill | at (round, epochs into it) | next life went on from (round, epoch) | epochs lost |")
    print("|---|---|---|---|")
    for number, (one, following) in enumerate(pairwise(lives), start=1):
        if one.killed_at is None:
            print(f"| {number} | not killed: it had ended | | |")
            continue
        at, into = divmod(one.killed_at, config.epochs)
        began = one.position if one.position[0] >= 0 else (0, 0)
        reached = max([began, *one.epochs])
        lost = max(
            reached[0] * config.epochs + reached[1] - following.position[0] * config.epochs - following.position[1], 0
        )
        place = (
            f"{following.position[0]}, {following.position[1]}"
            if following.position[0] >= 0
            else "(killed while loading)"
        )
        print(f"| {number} | {int(at)}, {into:.2f} | {place} | {lost if following.position[0] >= 0 else ''} |")
    trained = sum(len(one.epochs) for one in lives)
    again = rounds_trained_again(lives)
    wrong = [name for name in RESULTS if expected[name] != found[name]]
    print(f"\nkills: {len(kills)}; rounds: {config.rounds} of {config.epochs} epochs")
    print(f"seconds: {whole_s:.1f} uninterrupted, {all_s:.1f} with the kills")
    print(f"epochs trained: {trained} of {config.rounds * config.epochs} needed (the rest lay after a checkpoint)")
    print(f"epochs of finished rounds trained twice: {again}")
    print(
        f"equal bit for bit: {', '.join(n for n in RESULTS if n not in wrong)}"
        + (f"; DIFFERENT: {wrong}" if wrong else "")
    )
    return 1 if wrong or again else 0


if __name__ == "__main__":
    raise SystemExit(main())
