"""What a line of a ledger may hold: the kinds of event, their fields, who writes and who reads them.

In: nothing; this is a declaration. docs/ledger.md describes it for readers of the file.
Out: `KINDS`, and `check`, which the driver asks before it writes. Every line also has `event`, `time` and `crc`.
tune_rsst/ledger/view.py says what each kind changes in the view of a sweep.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class EventKind(NamedTuple):
    """`fields` and `optional`: name → what it holds. `optional` ones may be absent, in older ledgers for example."""

    help: str
    writer: str
    readers: str
    fields: Mapping[str, str]
    optional: Mapping[str, str] = {}


POINTS = ("guide", "points", "grid")
"""Who suggests what is tried first."""
_TRIAL = {"trial": "the trial, t0007"}
_RUN = {"trial": "the run, t0007-seed12 or t0007-seed12-split"}
_REPLICATE = {"trial": "the run, t0007-seed1"}
REPLICATE = "replicate_"
"""What begins the kinds of lines of a trial's further runs (setting `replicates`)."""
_ASKED = {
    "number": "the trial's number in Optuna's study",
    "params": "suggested parameter → value",
    "distributions": "parameter → its range, as Optuna writes it in JSON",
}
_SAMPLER = {"sampler": "what the sampler must remember after this suggestion"}
_REASON = {"reason": "one line"}
_AS_A_RUN = {
    "knobs": "every knob of the run",
    "fingerprint": "hash of the knobs that decide its numbers; its store's folder",
    "rounds": "how many rounds it has",
}

_KINDS: Mapping[str, EventKind] = {
    "sweep_started": EventKind(
        "The first line: what the sweep is.",
        "driver.assemble",
        "view, planning (resume), tracking, results",
        {"name": "the sweep's name", "settings": "every setting and fixed knob, without passwords"},
        {
            "space": "the search space",
            "space_digest": "digest of the space's ranges",
            "sources": "setting → the files of the user's code behind it, by sha256 (its copy is in code/)",
            "home": "TUNE_RSST_HOME at the start",
            "weights": "pretrained weights: source, digest, file",
            "starts": "what trials may start from: pretrained, scratch",
            "seed": "the sweep's seed",
            "method": "METHOD_VERSION of its trials",
            "warm_start": "trials of earlier sweeps that guide the search: parameters and metrics",
            "warm_start_left_out": "earlier trials that do not fit, with the reason",
            "points": "what is suggested first, in this order: parameters, and by whom (guide, points, grid)",
            "versions": "package → version",
            "git": "commit of the code",
            "host": "where the driver ran",
            "user": "who started it",
        },
    ),
    "suggested": EventKind(
        "A new trial.",
        "driver.next_trial",
        "view, search (study), tracking",
        _TRIAL
        | _ASKED
        | {
            "knobs": "every knob of the trial",
            "fingerprint": "hash of the knobs that decide its numbers; its store's folder",
            "rounds": "how many rounds it has",
        },
        _SAMPLER,
    ),
    "repeated": EventKind(
        "A suggestion that is no new trial: known already, or not valid.",
        "driver.next_trial",
        "view, search (study)",
        _ASKED | {"of": "the trial that it repeats, or null", "reason": "why it is not valid, or null"},
        _SAMPLER,
    ),
    "infeasible": EventKind(
        "A suggestion whose last model is known to break a limit: it is no trial, and is not trained.",
        "driver.next_trial",
        "view, search (study), tracking, results",
        _ASKED
        | {
            "fingerprint": "hash of the knobs that decide its numbers",
            "metrics": "params and gmacs of its last model, as far as they are limited",
            "reason": "which limits it breaks, one line",
        },
        _SAMPLER,
    ),
    "placed": EventKind(
        "A worker opened the trial.",
        "driver.take",
        "view, results, tracking",
        _TRIAL | {"host": "machine", "node": "Ray's node", "epochs_there": "epochs that the checkpoint held"},
    ),
    "reported": EventKind(
        "The trial reported: start, epoch, round or final.",
        "driver.take",
        "view, search (rungs), tracking, report",
        _TRIAL
        | {
            "seq": "number of the report in its trial",
            "kind": "which report",
            "metrics": "name → value, as in trainables/rsst/metrics.py",
        },
    ),
    "retried": EventKind(
        "The trial ran out of memory and continues with smaller micro-batches.",
        "driver.take",
        "view",
        _TRIAL | {"micro_batch_size": "images in memory at a time from now on"} | _REASON,
    ),
    "system": EventKind(
        "Samples of the worker's CPU, memory and GPUs (system_metrics=true).",
        "driver.take",
        "tracking",
        _TRIAL | {"samples": "time and values of each sample"},
    ),
    "worker_error": EventKind(
        "A worker died, raised an error or waits; Ray may try the trial again.",
        "driver.worker_error",
        "people; it is in no view",
        _TRIAL | _REASON,
    ),
    "hung": EventKind(
        "The trial said nothing for too long: its process was ended. It is continued once in each round.",
        "runners",
        "view",
        _TRIAL | _REASON,
    ),
    "ended": EventKind(
        "The trial is finished, stopped or failed.",
        "driver.end",
        "view, search (study), tracking, results",
        _TRIAL
        | {"state": "finished, stopped or failed", "reason": "one line, or null", "rung": "where it stopped, or null"},
        {"seeds": "how many runs it had, where it may have several (`replicates`)"},
    ),
    "reopened": EventKind("A failed trial is to run again.", "driver.reopen", "view, tracking", _TRIAL),
    "paused": EventKind(
        "The trial does not go on in this run, because a budget is spent; a resume continues it.",
        "driver.take",
        "view",
        _TRIAL | _REASON,
    ),
    "measured": EventKind(
        "What `auto` resources were resolved to.",
        "conduct",
        "view (what was spent)",
        {"cpus_per_trial": "CPUs", "gpus_per_trial": "GPUs", "measured": "time and memory of a step"},
    ),
    "interrupted": EventKind("The driver stopped before the end.", "driver, ending", "view, tracking", {}, _REASON),
    "resumed": EventKind(
        "A driver continues the sweep.",
        "conduct",
        "view, tracking",
        {"versions": "package → version"},
        {
            "settings": "settings of the run that may change from one resume to the next",
            "home": "TUNE_RSST_HOME now",
        },
    ),
    "extended": EventKind(
        "The sweep gets more trials.", "conduct", "view", {"trials": "how many in all", "by": "how many more"}
    ),
    "repaired": EventKind(
        "`tune-rsst repair` put the ledger right; what is not said here is as the driver wrote it.",
        "planning.repair",
        "view, people",
        {
            "lines": "how many lines the ledger had then",
            "rebuilt": "what was rebuilt and from what, a line each",
            "lost": "what was lost, a line each",
            "to_do": "trials that a resume goes on with, or gives anew",
            "aside": "the file that holds the ledger as it was",
        },
    ),
    "sweep_ended": EventKind("Nothing is left to run.", "ending", "view, tracking", {}, _REASON),
    "confirm_started": EventKind(
        "Trials are repeated with fresh seeds: each of these by each of these seeds. Written again where it goes on.",
        "driver (confirm)",
        "view, results, tracking",
        {
            "trials": "the trials, best first",
            "seeds": "the fresh seeds",
            "split": "whether each seed splits the images anew",
        },
    ),
    "confirm_suggested": EventKind(
        "A run that repeats a trial with another seed. It is no trial: the study, rungs and rank know nothing of it.",
        "driver (confirm)",
        "view, results, tracking",
        _RUN
        | {
            "of": "the trial that it repeats",
            "seed": "its seed",
            **_AS_A_RUN,
        },
    ),
}
_LIKE_A_TRIALS = ("placed", "reported", "retried", "system", "worker_error", "hung", "ended", "reopened")
KINDS: Mapping[str, EventKind] = {
    **_KINDS,
    **{
        f"confirm_{kind}": EventKind(
            f"As `{kind}`, of a run that repeats a trial.",
            "driver (confirm)",
            _KINDS[kind].readers.replace(", search (rungs)", "").replace(", search (study)", ""),
            _RUN | {name: held for name, held in _KINDS[kind].fields.items() if name != "trial"},
        )
        for kind in _LIKE_A_TRIALS
    },
    "confirm_interrupted": EventKind(
        "`tune-rsst confirm` stopped before its end. At the end of a sweep that line is `interrupted`.",
        "driver (confirm)",
        "view, tracking",
        {},
        _REASON,
    ),
    f"{REPLICATE}suggested": EventKind(
        "A further run of a trial, with another seed (`replicates=n`): those before it have ended, and it goes on.",
        "driver",
        "view, results, tracking",
        _REPLICATE | {"of": "the trial", "seed": "its seed", **_AS_A_RUN},
    ),
    **{
        f"{REPLICATE}{kind}": EventKind(
            f"As `{kind}`, of a further run of a trial.",
            _KINDS[kind].writer,
            _KINDS[kind].readers.replace(", search (rungs)", "").replace(", search (study)", ""),
            _REPLICATE | {name: held for name, held in _KINDS[kind].fields.items() if name != "trial"},
        )
        for kind in (*_LIKE_A_TRIALS, "paused")
    },
}
"""Kind → what a line of it holds."""


def check(event: str, fields: Iterable[str]) -> None:
    """Refuse an event that is not declared here.

    Raises:
        ValueError: unknown kind, or missing or unknown fields. A mistake of the program, not of the user.
    """
    if event not in KINDS:
        raise ValueError(f"event = {event}: not declared in ledger/events.py")
    kind, given = KINDS[event], set(fields)
    missing, unknown = kind.fields.keys() - given, given - kind.fields.keys() - kind.optional.keys()
    if missing or unknown:
        raise ValueError(f"event = {event}: missing fields {sorted(missing)}, unknown fields {sorted(unknown)}")
