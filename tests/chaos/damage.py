"""State files, damaged from a seed, read back by the product's own readers, all in this process.

    python -m tests.chaos.damage --seed 7                                  # the counts of docs/reliability.md
    python -m tests.chaos.damage --seed 7 --kind report --first 123 --count 1   # one case again

In: a seed; case i of a kind is a function of (seed, kind, i). Each case damages one file of a copy of a finished toy
trial. Out: for each kind how often the readers gave back exactly what was written (the damage touched nothing that is
read, or an older copy was taken), and how often they refused it in one line. A value that differs in silence, a
traceback, more than LIMIT_S: a fault. It is printed with the case's number, and ends in exit code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError

from tests.chaos import damage_sweeps
from tests.chaos.damage_sweeps import EARLIER, LEDGER
from tests.chaos.edits import edited
from tests.chaos.fuzz import LIMIT_S, Hang, limited
from tests.trainables import toy
from trainables.export.files import find
from trainables.rsst.config import read_config
from trainables.rsst.dense import DenseRounds
from trainables.rsst.event import read_report
from trainables.rsst.model.saved import SavedModel
from trainables.rsst.state import TrialState
from trainables.rsst.trial import open_trial
from trainables.storage.files import replace_json
from trainables.storage.state_files import replace_state
from tune_rsst.ledger.lines import LedgerError
from tune_rsst.storage.cursor import Cursor, load_cursor, store_cursor

COUNTS = {"checkpoint": 10_000, "ledger": 5_000}  # of the other kinds 1,000
OTHER_JSON = (
    *("[]", "null", "{}", "0", '"text"', "true", '{"a": {}}', "[[]]", '{"": 1}', "[" * 5000 + "]" * 5000),
    *('{"' + "n" * 5000 + '": 1}', '{"round": 1e999}', '{"round": NaN}', '{"round": ' + "9" * 400 + "}", "\ufeff{}"),
)
ODD = ("fifo", "folder", "loop", "endless", "missing", "dangling", "link")


def make(folder: Path) -> None:
    """In `folder` a finished toy trial with the other files that the kinds read, and the home of a finished sweep."""
    damage_sweeps.make(folder / "sweep")
    config, folder = toy.config(), folder / "trial"
    folder.mkdir(parents=True)
    shared, images = folder / "dense", toy.images(config)
    with open_trial(config, folder, say=print, checkpoint_every_s=0.0, data=images, dense=shared) as trial:
        for _ in trial.events():
            pass
    (folder / config.fingerprint).rename(folder / "store")
    replace_state(folder / "config.json", config.knobs())
    store_cursor(folder / "cursor.json", Cursor("abc", "sqlite:///x", 17, "run", "1"))
    replace_json(folder / "foreign.json", {"a": [1, 2, {"b": None}]})


def spoil(draw: random.Random, path: Path, others: list[Path]) -> str:
    """Damage the file `path` in one way; which."""
    content = path.read_bytes()
    ways = ("bit", "byte", "cut", "longer", "zeros", "json", "swap", "edit", "twice", "empty", *ODD)
    way = draw.choice(ways)
    at = draw.randrange(max(len(content), 1))
    if not content and way not in ODD:  # an earlier damage has emptied it
        way = "json"
    if way in ODD:
        path.unlink()
        _odd(way, path, others[0])
        return way
    if way == "edit":  # a value of the same JSON, by hand
        try:
            content = json.dumps(edited(draw, json.loads(content))).encode()
        except ValueError:
            way = "bit"
    new = {
        "bit": lambda: content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :],
        "byte": lambda: content[:at] + bytes([draw.randrange(256)]) + content[at + 1 :],
        "cut": lambda: content[:at],
        "longer": lambda: content + draw.randbytes(draw.randrange(1, 50)),
        "zeros": lambda: content[:at] + bytes(min(64, len(content) - at)) + content[at + 64 :],
        "json": lambda: draw.choice(OTHER_JSON).encode(),
        "swap": lambda: draw.choice(others).read_bytes(),
        "edit": lambda: content,
        "twice": lambda: content + content,
        "empty": lambda: b"",
    }[way]()
    path.write_bytes(new)
    return way


def _odd(way: str, path: Path, other: Path) -> None:
    if way == "fifo":
        os.mkfifo(path)
    elif way == "folder":
        path.mkdir()
    elif way != "missing":
        to = {"loop": path, "endless": Path("/dev/zero"), "dangling": path.with_name("nothing"), "link": other}[way]
        path.symlink_to(to)


Read = Callable[[Path, list[str]], Any]


def _checkpoint(folder: Path, said: list[str]) -> Any:
    config = toy.config()
    (folder / "store").rename(folder / config.fingerprint)
    with open_trial(config, folder, say=said.append, data=DATA[0]) as trial:
        return trial._state


def _cursor(folder: Path, said: list[str]) -> Any:
    found = load_cursor(folder / "cursor.json")
    return None if found == Cursor() else found  # it begins anew: every line is sent again, which changes nothing


def _model(folder: Path, said: list[str]) -> Any:
    saved = SavedModel.read(folder / "store" / "model.safetensors")
    return [saved.facts.to_json(), {name: tensor.tolist() for name, tensor in saved.load().state_dict().items()}]


def _round(folder: Path, said: list[str]) -> Any:
    """Of all rounds: two models of one round are no model of it."""
    found = {}
    for number in range(toy.config().rounds):
        saved = find(folder / "store", number)
        found[number] = [
            saved.facts.to_json(),
            {name: tensor.tolist() for name, tensor in saved.load().state_dict().items()},
        ]
    return found


def _dense(folder: Path, said: list[str]) -> Any:
    (key,) = [path.name for path in (folder / "dense").iterdir()]
    with DenseRounds(folder / "dense", said.append).turn(key, begun=False) as turn:
        return turn.state


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, TrialState) and isinstance(other, TrialState):
        tensors = one.tensors.keys() == other.tensors.keys() and all(
            torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors
        )
        return tensors and json.dumps(one.meta, sort_keys=True) == json.dumps(other.meta, sort_keys=True)
    return bool(one == other)


class Kind(NamedTuple):
    """`part`: trial or sweep; `pattern`: which files of it are damaged; `spoil` gives None to leave it to others."""

    part: str
    pattern: str
    read: Read
    spoil: Callable[[random.Random, Path, list[Path]], str | None] = lambda draw, path, others: None
    may_be_none: bool = False
    """Nothing at all is a right answer too: it begins anew."""


KINDS: dict[str, Kind] = {
    "checkpoint": Kind("trial", "store/r[0-9]*/*", _checkpoint),
    "report": Kind("trial", "store/report.json", lambda folder, said: read_report(folder / "store" / "report.json")),
    "config": Kind("trial", "config.json", lambda folder, said: read_config(folder / "config.json")),
    "cursor": Kind("trial", "cursor.json", _cursor, may_be_none=True),
    "model": Kind("trial", "store/model.safetensors", _model),
    "rounds": Kind("trial", "store/models/*", _round),
    "dense": Kind("trial", "dense/*/r[0-9]*/*", _dense, may_be_none=True),
    "ledger": Kind("sweep", LEDGER, damage_sweeps.read_ledger, damage_sweeps.spoil_ledger),
    "stranger": Kind("sweep", LEDGER, damage_sweeps.read_well, damage_sweeps.spoil_well),
    "repair": Kind("sweep", LEDGER, damage_sweeps.read_repaired, damage_sweeps.spoil_ledger),
    "settings": Kind("sweep", "toys/settings.yaml", damage_sweeps.read_settings),
    "study": Kind("sweep", "toys/optuna.db", damage_sweeps.read_study),
}
DATA: list[Any] = []


def right_answers(kind: str, original: Path, work: Path) -> list[Any]:
    """What a reader may give: what was written last; of checkpoints also the one before, or none; of a cursor none."""
    about = KINDS[kind]
    found = []
    for gone in range(3 if kind == "checkpoint" else 1):
        copy = work / f"right-{kind}-{gone}"
        shutil.copytree(original / about.part, copy)
        for newest in sorted((copy / "store").glob("r[0-9]*"), reverse=True)[:gone] if kind == "checkpoint" else ():
            shutil.rmtree(newest)
        found.append(about.read(copy, []))
    return [*found, *([None] if about.may_be_none else [])]


def _spoilt(kind: str, draw: random.Random, copy: Path, original: Path) -> str:
    """Damage one or two files of `copy`; which, and how."""
    about, how = KINDS[kind], ""
    others = [original / "foreign.json", original / "config.json"]
    others = [original / "other.jsonl"] if about.part == "sweep" else others
    for _ in range(draw.choice((1, 1, 1, 2)) if kind == "checkpoint" else 1):
        file = draw.choice(sorted(one for one in copy.glob(about.pattern) if one.is_file() and not one.is_symlink()))
        way = about.spoil(draw, file, others) or spoil(draw, file, others)
        how += f"{file.relative_to(copy)}: {way} "
    return how


def outcome(kind: str, draw: random.Random, original: Path, right: list[Any]) -> tuple[str, str]:
    """(exact, earlier, refused or FAULT, how it was damaged and what was said)."""
    work, said, how = Path(tempfile.mkdtemp(prefix="damage-")), [], ""
    copy, original = work / "copy", original / KINDS[kind].part
    try:
        shutil.copytree(original, copy)
        how = _spoilt(kind, draw, copy, original)
        with limited():
            found = KINDS[kind].read(copy, said)
        lines = [line for line in said if "\n" in line or not line.isprintable()]
        if lines:
            return "FAULT", f"{how}: said {lines[0]!r}"
        if found == EARLIER:
            return EARLIER, how
        return ("exact", how) if any(_same(found, one) for one in right) else ("FAULT", f"{how}: taken in silence")
    except Hang:
        return "FAULT", f"{how}: more than {LIMIT_S} s"
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        known = type(error).__module__.startswith("trainables") or isinstance(error, OSError | LedgerError)
        words = str(error)
        return ("refused", how) if known or "\n" not in words else ("FAULT", f"{how}: {words[:300]}")
    except BaseException:  # noqa: BLE001  that is what is looked for
        return "FAULT", f"{how}\n{traceback.format_exc()}"
    finally:
        shutil.rmtree(work, ignore_errors=True)


def run(kind: str, seed: int, first: int, count: int, original: Path, work: Path) -> tuple[Counter[str], list[str]]:
    """How many cases ended how, and the faults."""
    DATA[:] = DATA or [toy.images(toy.config())]
    right, found, faults = right_answers(kind, original, work), Counter[str](), []
    for number in range(first, first + count):
        result, what = outcome(kind, random.Random(f"{seed} {kind} {number}"), original, right)
        found[result] += 1
        faults += [f"{kind} {number}: {what}"] if result == "FAULT" else []
    return found, faults


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--kind", choices=list(KINDS))
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int)
    given = parser.parse_args()
    toy.install()
    torch.set_num_threads(1)
    faults = 0
    with tempfile.TemporaryDirectory() as work:
        make(Path(work) / "original")
        for kind in [given.kind] if given.kind else KINDS:
            count = COUNTS.get(kind, 1_000) if given.count is None else given.count
            found, bad = run(kind, given.seed, given.first, count, Path(work) / "original", Path(work))
            words = ", ".join(f"{found[how]:>6} {how}" for how in ("exact", EARLIER, "refused"))
            print(f"{kind:<12} {count:>6} cases: {words}", flush=True)
            for fault in bad:
                print(f"FAULT {fault}")
            faults += len(bad)
    print(f"seed {given.seed}: {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
