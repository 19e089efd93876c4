"""When a knob acts: the configurations in which it decides the trial's numbers, and values that mean the same there.

In: an `RSSTConfig`. Out: conditions and values for the declarations of config.py. The fingerprint holds what acts, so
a condition that is too narrow gives two different trials one fingerprint: tests/trainables/rsst/config/test_identity.py
trains both sides of each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainables.plugins import Address, is_plugin
from trainables.rsst.config.knobs import Condition

if TYPE_CHECKING:
    from trainables.rsst.config.config import RSSTConfig

ABSENT = "absent"
"""The weights_digest of a trial whose weights were looked for and not found: it starts from scratch."""


def source_of(value: str) -> str:
    """`value`, but of a plug-in what is the same wherever its file lies: its function and its digest."""
    found = Address.of(value)
    return value if found is None else found.identity


def criterion(c: RSSTConfig) -> str:
    """`criteria`, a plug-in by its source."""
    return source_of(c.criteria)


def images(c: RSSTConfig) -> str:
    """`dataset`, a plug-in by its source."""
    return source_of(c.dataset)


def rewind_epoch(rewind: str) -> int | None:
    """K of epoch:K, else None."""
    word, _, number = rewind.partition(":")
    return int(number) if word == "epoch" and number.isdecimal() and int(number) >= 1 else None


def rewinds_to(c: RSSTConfig) -> str:
    """`rewind` in one spelling; of two rounds the second begins where round 0 ended, with epoch:LAST as with none."""
    if c.rewind_epoch is None:
        return c.rewind
    return "none" if c.rounds == 2 and c.rewind_epoch == c.epochs else f"epoch:{c.rewind_epoch}"


def ramp_shape(c: RSSTConfig) -> str:
    """`RST_schedule`; with exponents = 1 the ramp exp_custom_exponents is exp_custom."""
    if is_plugin(c.RST_schedule):
        return source_of(c.RST_schedule)
    return "exp_custom" if (c.RST_schedule, c.exponents) == ("exp_custom_exponents", 1.0) else c.RST_schedule


def split_apart(c: RSSTConfig) -> int | None:
    """`split_seed` where the images are split by another seed than `seed`, else None."""
    return None if c.split_seed == c.seed else c.split_seed


def _presses(c: RSSTConfig) -> bool:
    return c.struct == "rsst" and c.rounds > 1


def _ramps(c: RSSTConfig) -> bool:
    return _presses(c) and c.reg_granularity_prune > 0


FILES: Condition = (
    "dataset = cifar10, cifar100 or folder (or a function of yours)",
    lambda c: c.dataset not in ("digits", "synthetic"),
)
FOLDER: Condition = ("dataset = folder", lambda c: c.dataset == "folder")
ASKS: Condition = ("pretrained", lambda c: c.pretrained)
FITS: Condition = ("pretrained weights", lambda c: c.pretrained and c.weights_digest != ABSENT)
DECAYS: Condition = ("warmup below epochs", lambda c: c.warmup < c.epochs)
PRUNES: Condition = ("more than one round", lambda c: c.rounds > 1)
LOOKS: Condition = (
    "criteria = l1, l2 or saliency (or a function of yours) and more than one round",
    lambda c: (c.criteria in ("l1", "l2", "saliency") or is_plugin(c.criteria)) and c.rounds > 1,
)
PRESSES: Condition = ("struct = rsst and more than one round", _presses)
RAMPS: Condition = ("struct = rsst, more than one round and reg_granularity_prune above 0", _ramps)
BENDS: Condition = (
    "RST_schedule = exp_custom_exponents (exponents = 1: exp_custom), struct = rsst, more than one round and "
    "reg_granularity_prune above 0",
    lambda c: _ramps(c) and ramp_shape(c) == "exp_custom_exponents",
)
