"""Single-GPU mode: one trial with the seed guide's flags, without Ray, Optuna or MLflow.

In: flags (one per knob, `python -m trainables --help`), or an earlier best.yaml by --config.
Out, below --save_dir: report.json, model.safetensors + architecture.json + preprocessing.json (the compacted model and
what it takes), pictures/, run.log, the trial's checkpoints and each round's model. Exit codes: 0 finished, 2 bad input,
130 interrupted (go on with --resume), 1 anything else.
"""

from __future__ import annotations

if __name__ == "__main__":  # from the first instruction on an interruption is one line
    from trainables.leaving import ends_at_once

    ends_at_once("interrupted before the run began")

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

from trainables import plugins
from trainables.console import Console
from trainables.figures import draw_run
from trainables.leaving import interruptible, lasting_output, leave, notice_if_unread
from trainables.progress import watched
from trainables.provenance import versions
from trainables.rsst.config import (
    KNOBS,
    ConfigError,
    Knob,
    RSSTConfig,
    config_in,
    decisions,
    knobs_in_file,
    overlaid,
)
from trainables.rsst.model import further
from trainables.rsst.model.accepted import architecture, started
from trainables.rsst.model.pretrained import check_fit
from trainables.rsst.model.saved import MODEL
from trainables.rsst.model.vit import build
from trainables.rsst.pruning import own_parts
from trainables.rsst.runs.save_dir import CODE, STATE, begin, end, made, refuse_other_work, take_back
from trainables.rsst.training.device import is_out_of_memory
from trainables.rsst.trial import StoreBusy, TrialDiverged, dense_folder, open_trial
from trainables.storage.files import expanded, path_or_address
from trainables.storage.modes import following
from trainables.terminal import OneLineParser, ready
from trainables.text import LONGEST_LINE, go_on_command, shown
from trainables.user_code.source import Source

try:
    import timm  # noqa: F401
    import torch  # noqa: F401
except ImportError as missing:
    print(f"error: {shown(missing.name)} is missing; install it with pip", file=sys.stderr)
    raise SystemExit(2) from None

EDGE = ("config", "from", "resume", "strict", "print_config", "dry_run", "trust")  # flags that are no knobs
SAVE_DIR = "results/{arch}-{dataset}-{hash}"
LOCK_WAIT_S = 1.0  # who looks whether a run is alive holds its lock for a moment


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one trial from command-line arguments; returns the exit code."""
    with lasting_output(), interruptible() as heard:
        try:
            with following(expanded(home)) if (home := os.environ.get("TUNE_RSST_HOME")) else nullcontext():
                return _main(arguments)
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt) and not (heard.interrupted and isinstance(error, Exception)):
                raise
            print("interrupted before the run began", file=sys.stderr)
            return 130


def _main(arguments: Sequence[str] | None) -> int:
    try:
        ready(sys.argv[1:] if arguments is None else arguments)
        given = vars(_parser().parse_args(arguments))
        edge = {
            name: given.pop(name) for name in ("config", "resume", "strict", "print_config", "dry_run", "trust", "from")
        }
        knobs = knobs_in_file(edge["config"]) if edge["config"] else {}
        flags = {name: value for name, value in given.items() if value is not None}
        start = further.start_by(edge["from"], flags)
        knobs = overlaid(overlaid(knobs, start), {k: v for k, v in flags.items() if k != "weights" or not start})
        for name in [n for n, k in KNOBS.items() if k.path and not k.single_run and isinstance(knobs.get(n), str)]:
            knobs[name] = path_or_address(knobs[name])  # the run may go on from another folder
        if edge["resume"]:
            knobs = overlaid(_held(knobs), knobs)
        if edge["strict"]:
            knobs["on_missing_weights"] = "error"
        config = RSSTConfig.from_knobs(knobs)
        if edge["print_config"]:
            for name, value in config.knobs().items():
                print(f"{name}: {json.dumps(value, ensure_ascii=False)}")
            return 0
        sources = _own_parts(config, edge)
        arch = architecture(config, in_chans=3, num_classes=10)  # refuse a name that is no ViT before looking for data
        begun = started(config, arch)
        if config.weights and not edge["resume"]:  # and a file that this ViT can't start from
            check_fit(config, build(begun, "meta"))
        said = [*([further.line(config, arch, begun)] if config.start_units else []), *decisions(flags, [config])]
        if edge["dry_run"]:
            return _dry_run(config, resume=edge["resume"], said=said)
        return _run(config, resume=edge["resume"], said=said, sources=sources)
    except ConfigError as error:
        print(f"error: {shown(error, LONGEST_LINE)}", file=sys.stderr)
        return 2


def _own_parts(config: RSSTConfig, edge: Mapping[str, Any]) -> list[Source]:
    """Let this process run the plug-ins of `config`, and try them; the files to keep a copy of."""
    folder = _folder(config)
    beside = [Path(edge["config"]).absolute().parent / CODE] if edge["config"] else []
    copies = [folder / CODE, *beside] if edge["resume"] or edge["trust"] else []
    return own_parts.permitted(config, plugins.Permission(copies, folder if edge["resume"] else None, edge["trust"]))


def _run(config: RSSTConfig, *, resume: bool, said: Sequence[str], sources: Sequence[Source]) -> int:
    folder = _folder(config)
    mine = made(folder, config)
    refuse_other_work(folder, config, resume=resume)
    notice_if_unread(f"nobody reads the output any more; the run goes on, its lines are in {folder / 'run.log'}")
    with Console(config, folder / "run.log") as console, watched(console.work):
        try:
            dense = dense_folder(config)
            with open_trial(config, folder / STATE, say=console.say, wait_s=LOCK_WAIT_S, dense=dense) as trial:
                begin(folder, config, sources)
                for line in said:
                    console.say(line)
                console.go_on(trial.history)
                for event in islice(trial.events(), len(trial.history), None):
                    console.show(event)
                end(folder, trial.folder)
            drawn = draw_run(folder)
        except KeyboardInterrupt:
            console.say(f"interrupted; {_next(folder)}")
            return 130
        except ConfigError:
            if mine:
                take_back(folder, config)
            raise
        except (TrialDiverged, StoreBusy) as error:
            console.say(f"error: {shown(error, LONGEST_LINE)}")
            return 1
        except plugins.PluginError as error:
            console.say(f"error: {shown(error, LONGEST_LINE)}; {_next(folder)}")
            return 2
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            size = max(1, min(config.micro_batch_size or config.batch_size, config.batch_size) // 2)
            smaller = f"--micro_batch_size {size}"
            console.say(f"error: out of memory; {_next(folder)} {smaller} (the same effective batch)")
            return 1
        except OSError as error:
            console.say(f"error: {shown(error)}; nothing that was saved is lost; {_next(folder)}")
            return 1
        console.say(f"report: {folder / 'report.json'}   model: {folder / MODEL}   pictures: {drawn}")
    return 0


def _next(folder: Path) -> str:
    """What to do with a run that has not come to its end."""
    begun = (folder / "config.json").exists()
    return f"go on with: {go_on_command(folder)}" if begun else "nothing was trained: start it again"


def _dry_run(config: RSSTConfig, *, resume: bool, said: Sequence[str]) -> int:
    """Print the plan; a run that would be refused is refused."""
    from trainables.dry_run import lines

    folder = _folder(config)
    refuse_other_work(folder, config, resume=resume)
    try:
        print("\n".join([*said, *lines(config, folder)]))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        hint = "give a smaller one, or micro_batch_size (the same effective batch)"
        raise ConfigError("batch_size", config.batch_size, "one that fits this machine's memory", hint) from None
    return 0


def _folder(config: RSSTConfig) -> Path:
    images = plugins.said(config.dataset).rpartition(":")[2]
    name = config.save_dir or SAVE_DIR.format(arch=config.arch, dataset=images, hash=config.fingerprint)
    return expanded(name)


def _held(knobs: Mapping[str, Any]) -> dict[str, Any]:
    """The knobs of the trial that --resume goes on with; where there is none, `knobs` must say what to begin."""
    named = {"save_dir": knobs["save_dir"]} if "save_dir" in knobs else knobs
    folder = _folder(RSSTConfig.from_knobs(named))
    held = config_in(folder)
    if held is None and not any(KNOBS[name].in_fingerprint for name in knobs if name in KNOBS):
        hint = "give the folder of an earlier run; or say what to begin there, such as --arch vit_small"
        raise ConfigError("save_dir", folder, "a folder that holds a trial to go on with", hint)
    return held or {}


def _parser() -> OneLineParser:
    parser = OneLineParser("python -m trainables", __doc__)
    parser.add_argument(
        "--version", action="version", version=f"tune-rsst {versions().get('tune-rsst', 'not installed')}"
    )
    parser.add_argument("--config", metavar="FILE", help="YAML or JSON of knobs, such as best.yaml; flags win over it")
    parser.add_argument("--print-config", action="store_true", help="print every knob as YAML and stop")
    parser.add_argument("--dry-run", action="store_true", help="say what the run takes (hours, memory, disk) and stop")
    parser.add_argument("--resume", action="store_true", help="go on with the trial that --save_dir holds")
    parser.add_argument("--strict", action="store_true", help="stop when pretrained weights can't be had")
    parser.add_argument("--from", metavar="RUN", help="prune the model of a finished run or SWEEP/TRIAL further")
    parser.add_argument("--trust", action="store_true", help="run the copy of a plug-in whose file is gone or changed")
    group = parser.add_argument_group("knobs", "a default in (…) depends on arch, dataset and pretrained")
    for knob in KNOBS.values():
        bare: dict[str, Any] = {"nargs": "?", "const": True} if knob.type is bool else {}
        group.add_argument(f"--{knob.name}", default=None, help=_help(knob), metavar=_metavar(knob), **bare)
    return parser


def _help(knob: Knob) -> str:
    default = knob.default if knob.default is not None else "none" if knob.optional else "(preset)"
    if knob.name == "save_dir":
        default = "./" + SAVE_DIR.format(arch="<arch>", dataset="<dataset>", hash="<hash>")
    return f"{knob.help} [{default}]".replace("%", "%%")


def _metavar(knob: Knob) -> str:
    if knob.choices:
        return "{" + ",".join(knob.choices) + "}"
    return {int: "N", float: "X", bool: "BOOL", str: "TEXT"}[knob.type]


if __name__ == "__main__":
    leave(main())
