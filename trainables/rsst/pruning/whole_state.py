"""Whether a trial can go on from a state that was read back: its form, and that its tensors fit what it counts.

In: a state whose bytes are those that were written, and the trial's config.
Out: nothing, or one line that says what does not fit. Whoever wrote it was then another program, or somebody's hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trainables.rsst.config import RSSTConfig
from trainables.rsst.event import REPORT
from trainables.rsst.model.accepted import architecture
from trainables.rsst.model.saved import ARCHITECTURE_FORM
from trainables.rsst.model.vit import Architecture, build
from trainables.rsst.pruning.compact import Units
from trainables.rsst.state import TrialState
from trainables.storage.forms import WrongForm, anything, listed, mapping, maybe, number, record, text, whole

UNITS = record({"heads": listed(listed(whole())), "neurons": listed(listed(whole()))})
TRIAL_STATE = record(
    {
        "fingerprint": text(most=100),
        "round": whole(),
        "epoch": whole(),
        "full": ARCHITECTURE_FORM,
        "alive": UNITS,
        "doomed": maybe(UNITS),
        "init": record({"weights_digest": maybe(text(most=100)), "init_effective": anything}, more=True),
        "removal": record({"before": maybe(number), "after": maybe(number), "changed": number}),
        "doomed_norm_start": number,
        "history": listed(REPORT),
        "data_digest": text(most=100),
        "environment": mapping(),
    },
    {"method": whole(1), "dense_key": maybe(text(most=100))},
    more=True,
)
"""`TrialState.meta` of a trial."""


def refuse_misfit(config: RSSTConfig, state: TrialState) -> None:
    """Refuse a state that a trial of `config` has never been in.

    Raises:
        WrongForm: says what does not fit.
    """
    full, alive = Architecture.from_json(state.meta["full"]), Units.from_json(state.meta["alive"])
    sizes = full.arguments
    wanted = architecture(config, in_chans=sizes["in_chans"], num_classes=sizes["num_classes"])
    if (full.heads, full.neurons, full.head_dim) != (wanted.heads, wanted.neurons, wanted.head_dim):
        raise WrongForm("its architecture is not this trial's")
    if state.round > config.rounds or state.epoch > config.epochs:
        raise WrongForm(f"round {state.round} or epoch {state.epoch} is none of this trial")
    _refuse_no_units("alive", alive, wanted.heads, wanted.neurons)
    present = wanted.with_counts(alive.counts("head"), alive.counts("neuron"))
    if state.meta["doomed"]:
        _refuse_no_units("doomed", Units.from_json(state.meta["doomed"]), present.heads, present.neurons)
    shapes = {name: tuple(tensor.shape) for name, tensor in build(present, "meta").state_dict().items()}
    for group, exact in (("weights", True), ("rewind", True), ("doomed", False), ("dead", False)):
        found = {name: tuple(tensor.shape) for name, tensor in state.group(group).items()}
        if exact and found.keys() != shapes.keys() and (found or group == "weights"):
            raise WrongForm(f"its {group} are not those of its architecture")
        _refuse_other_shapes(group, found, shapes)
    _refuse_other_shapes("optimizer", dict(_moments(state)), shapes)


def _moments(state: TrialState) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The optimizer's tensors by parameter; a counter of steps has no shape."""
    for name, tensor in state.group("optimizer").items():
        if tensor.dim() or name.rpartition("/")[0] == "":
            yield name.rpartition("/")[0], tuple(tensor.shape)


def _refuse_other_shapes(group: str, found: Mapping[str, Any], shapes: Mapping[str, Any]) -> None:
    for name, shape in found.items():
        if shapes.get(name) != shape:
            raise WrongForm(f"{group}/{name[:100]} has the shape {shape}, not {shapes.get(name)}")


def _refuse_no_units(what: str, units: Units, *most: tuple[int, ...]) -> None:
    """Units are numbers of one kind and layer, ascending, below how many there are."""
    for layers, counts in zip((units.heads, units.neurons), most, strict=True):
        ordered = all(list(layer) == sorted(set(layer)) for layer in layers)
        exists = [not layer or layer[-1] < count for layer, count in zip(layers, counts, strict=False)]
        if len(layers) != len(counts) or not ordered or not all(exists):
            raise WrongForm(f"its {what} units are not those of its architecture")
