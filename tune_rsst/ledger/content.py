"""Whether an event that was read back holds what its kind is declared with (events.py), in types that can be used.

In: an event of a ledger. Out: what is wrong with it, in a few words, or nothing. That its bytes are those that were
written is the checksum's business (lines.py); a ledger of a stranger has right checksums too.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from functools import lru_cache
from typing import Any

from trainables.rsst.metrics import METRICS
from trainables.user_code.source import wrong_record
from tune_rsst.ledger.events import KINDS, POINTS, REPLICATE
from tune_rsst.ledger.lines import LedgerError

_NONE = type(None)
_TYPES: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("trial", "fingerprint", "kind", "state", "name", "host", "space", "home"), (str,)),
    **dict.fromkeys(("of", "reason", "space_digest"), (str, _NONE)),
    **dict.fromkeys(("number", "rounds", "seq", "micro_batch_size", "trials", "by", "method", "seeds"), (int,)),
    **dict.fromkeys(
        ("params", "distributions", "knobs", "sampler", "metrics", "settings", "versions", "sources"), (dict,)
    ),
    **dict.fromkeys(("samples", "warm_start", "weights", "starts", "to_do", "points"), (list,)),
    **dict.fromkeys(("time",), (int, float)),
    **dict.fromkeys(("rung", "epochs_there"), (int, _NONE)),
}
_CHOICES = {"state": ("finished", "stopped", "failed"), "kind": ("start", "epoch", "round", "final")}
_FOR_PEOPLE = {"seq", "versions", "cpus_per_trial", "measured"}
"""Required of who writes; nothing in this program reads them."""
SWEEP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_TRIAL = re.compile(r"t\d{4,12}(-seed\d{1,20}(-split)?)?")
_NAMES = {"trial": _TRIAL, "fingerprint": re.compile(r"\w[\w-]{0,99}"), "name": SWEEP_NAME}
_RUNS = ("confirm_suggested", f"{REPLICATE}suggested")
_NAMED_BY = ("sweep_started", "suggested", "infeasible", *_RUNS)
_KEYS = ("params", "distributions", "knobs", "metrics", "settings", "versions")
_DIGEST = re.compile(r"\w[\w-]{0,99}")
"""Names become files, flags, tags, heads of columns: of one kind of signs wherever the ledger comes from."""
_COUNTS = ("round", "epoch", "epochs_trained")
_NUMBERS = {name for name, metric in METRICS.items() if metric.form} | {
    *("train_loss", "lr", "seconds", "val_top1_before_hardening", "doomed_norm_left", "round_gap", "kept_share_asked")
}
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "start": (),
    "epoch": ("round", "epochs_trained"),
    "round": ("round",),
    "final": ("round",),
}
_FORMER: Mapping[str, type] = {"trial": str, "number": int, "params": dict, "distributions": dict, "metrics": dict}
_LARGEST = 1e300
_OTHER = (("confirm_started", "trials"), ("confirm_started", "seeds"))  # lists there
_FIELDS: Mapping[str, tuple[tuple[str, tuple[type, ...], bool], ...]] = {
    name: tuple(
        (f, _TYPES[f], f in kind.fields)
        for f in (*kind.fields, *kind.optional)
        if f in _TYPES and (name, f) not in _OTHER
    )
    for name, kind in KINDS.items()
}
"""Kind → its fields that have a type here, their types, and whether they must be there."""
_REST = {name: kind.fields.keys() - _TYPES.keys() - _FOR_PEOPLE for name, kind in KINDS.items()}


def wrong(event: Mapping[str, Any]) -> str | None:
    """What of `event` is not as its kind declares; None of what is, and of kinds that a later version may add.

    The trial that it names is to be known by whoever asks, but for one that is suggested.
    """
    word = event["event"]
    for name, types, needed in _FIELDS.get(word, ()):
        value = event.get(name, _FIELDS)
        if value is _FIELDS:
            if needed and name not in _FOR_PEOPLE:
                return f"{name} is missing"
        elif type(value) not in types or (name in _CHOICES and value not in _CHOICES[name]):
            return f"{name} is {_words(value)}"
    for name in _KEYS:
        if (bad := next((key for key in event.get(name, ()) if not _is_name(key)), None)) is not None:
            return f"{name} has the name {_words(bad)}"
    if word in ("reported", "confirm_reported", "replicate_reported"):
        return _wrong_report(event["kind"], event["metrics"])
    for name in _REST.get(word, ()):
        if name not in event:
            return f"{name} is missing"
    for name, pattern in _NAMES.items() if word in _NAMED_BY else ():
        if name in event and not pattern.fullmatch(event[name]):
            return f"{name} is {_words(event[name])}"
    if word in _RUNS and (type(event["seed"]) is not int or event["knobs"].get("seed") != event["seed"]):
        return f"seed is {_words(event['seed'])}"
    return _wrong_begin(event) if word in ("sweep_started", "confirm_started") else _wrong_weights([event])


@lru_cache(maxsize=10_000)
def _is_name(key: str) -> bool:
    """Of a parameter, a knob, a metric, a setting, a package. Earlier versions took parameters such as lr[adamw]."""
    return re.fullmatch(r"[\w.-][\w ./\[\]():,*+-]{0,199}", key) is not None


def _wrong_begin(event: Mapping[str, Any]) -> str | None:
    """What of the first line, or of the one that says what is repeated, is not as it must be."""
    if event["event"] == "confirm_started":
        trials, seeds = event["trials"], event["seeds"]
        fine = all(isinstance(one, list) for one in (trials, seeds)) and all(type(seed) is int for seed in seeds)
        fine = fine and all(isinstance(trial, str) and _TRIAL.fullmatch(trial) for trial in trials)
        return None if fine else f"trials, seeds are {_words(trials)}, {_words(seeds)}"
    for name, record in event.get("sources", {}).items():
        if said := wrong_record(record):
            return f"sources.{name}: {said}"
    former = _wrong_former(event.get("warm_start", ()))
    return _wrong_weights(event.get("weights", ())) or former or _wrong_points(event.get("points", ()))


def _wrong_weights(records: Any) -> str | None:
    """A digest of weights is the name of a file: in the first line, in the knobs of a trial."""
    for record in records:
        if not isinstance(record, dict):
            return f"weights holds {_words(record)}"
        for digest in (record.get("digest"), (record.get("knobs") or {}).get("weights_digest")):
            if digest is not None and not (isinstance(digest, str) and _DIGEST.fullmatch(digest)):
                return f"a digest of weights is {_words(digest)}"
    return None


def refuse_misfit(
    event: Mapping[str, Any],
    number: int,
    name: str,
    trials: Container[str],
    runs: Container[str] | None = None,
    replicas: Container[str] = (),
) -> None:
    """A LedgerError for an event that does not fit its kind, or tells of none of the `trials` that were suggested.

    `number` is its line, `name` the sweep's; `runs` repeat trials, None where `confirm` was never asked for;
    `replicas` are trials' further runs.
    """
    reason = wrong(event)
    if reason is None and event["event"].startswith("confirm_"):
        reason = _wrong_run(event, trials, runs)
    elif reason is None and event["event"].startswith(REPLICATE):
        reason = _wrong_run(event, trials, replicas)
    elif reason is None and "trial" in event and event["trial"] not in trials and event["event"] != "suggested":
        reason = f"{event['trial']} was not suggested before it"
    if reason:
        what = f"line {number}, {event['event'][:40]}, is none that was written there: {reason}"
        raise LedgerError(f"ledger of {name}: {what}; put it right: tune-rsst repair {name}")


def _wrong_run(event: Mapping[str, Any], trials: Container[str], runs: Container[str] | None) -> str | None:
    """Why a line of a run that repeats a trial cannot come here."""
    if event["event"] == "confirm_started":
        return None
    if runs is None:
        return "confirm_started does not come before it"
    if event["event"] in _RUNS:
        return None if event["of"] in trials else f"{event['of']} was not suggested before it"
    if "trial" in event and event["trial"] not in runs:
        return f"{event['trial']} was not suggested before it"
    return None


def _words(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _wrong_report(kind: str, metrics: Mapping[str, Any]) -> str | None:
    for name in _NEEDED[kind]:
        if name not in metrics:
            return f"metrics.{name} is missing"
    for name, value in metrics.items():
        if type(value) is float:
            fine = -_LARGEST <= value <= _LARGEST and name not in _COUNTS
        elif name in _COUNTS:
            fine = type(value) is int and value >= 0
        else:
            empty = value is None and name != "seconds"  # which are added up
            fine = name not in _NUMBERS or empty or type(value) in (int, bool)
        if not fine:
            return f"metrics.{name} is {_words(value)}"
    return None


def _wrong_former(records: Any) -> str | None:
    for record in records:
        for name, type_ in _FORMER.items():
            if not isinstance(record, dict) or type(record.get(name)) is not type_:
                return f"warm_start holds {_words(record)}"
    return None


def _wrong_points(records: Any) -> str | None:
    for record in records:
        params = record.get("params") if isinstance(record, dict) else None
        if not isinstance(params, dict) or record.get("by") not in POINTS or not all(map(_is_name, params)):
            return f"points holds {_words(record)}"
    return None
