"""A trial while it runs: the live model, optimizer and penalty, and the steps that the round loop takes them through.

In: config and images, or a saved state. Out: itself changed in place; `snapshot()` gives it as a value.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer

from trainables.rsst.config import METHOD_VERSION, ConfigError, RSSTConfig
from trainables.rsst.data.about import AboutImages
from trainables.rsst.data.batches import TrialImages, on_device
from trainables.rsst.data.load import ImageData
from trainables.rsst.event import Event
from trainables.rsst.model.accepted import architecture, started
from trainables.rsst.model.pretrained import initial_weights, resolve
from trainables.rsst.model.vit import Architecture, build, built_with
from trainables.rsst.pruning.compact import Units, Weights
from trainables.rsst.pruning.penalty import Penalty
from trainables.rsst.pruning.pruners import Doomed, Form, pruner_for
from trainables.rsst.seeding import derived
from trainables.rsst.state import TrialState, grouped, load_optimizer_tensors, optimizer_tensors
from trainables.rsst.training.device import choose_device, environment
from trainables.rsst.training.epoch import TrialDiverged
from trainables.rsst.training.evaluation import Accuracy, evaluate
from trainables.rsst.training.kernels import repeatable
from trainables.rsst.training.setup import Training


@dataclass
class Removal:
    """Validation accuracy around the last removal; None in a round that removed nothing."""

    before: float | None = None
    after: float | None = None
    changed: float = 0.0


@dataclass
class Running:
    """The live parts of one trial. `epoch` counts the epochs of the present round that are done.

    `penalty` and `training` always belong to the present model, round and doomed: `_set_up` makes them.
    `uniform`: every epoch so far was trained under the present `dense_key`; a resume may change what is in it.
    """

    config: RSSTConfig
    images: TrialImages
    about: AboutImages
    form: Form
    model: VisionTransformer
    init: dict[str, Any]
    rewind: Weights | None
    round: int = 0
    epoch: int = 0
    doomed: Doomed = field(default_factory=Doomed)
    removal: Removal = field(default_factory=Removal)
    doomed_norm_start: float = 0.0
    history: list[Event] = field(default_factory=list)
    uniform: bool = True
    _validated: Accuracy | None = None

    def __post_init__(self) -> None:
        self.pruner = pruner_for(self.config.granularity)
        self._set_up()

    @classmethod
    def fresh(cls, config: RSSTConfig, data: ImageData) -> Running:
        """A trial before its first step; the model's start depends on the seed alone (and on pretrained weights)."""
        images, full = _prepare(config, data)
        arch = started(config, full)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived(config.seed, "init"))
            model = build(arch)
        report = initial_weights(config, model, data.about.classes)
        model.to(images.device)
        init: dict[str, Any] = {"init_effective": report.init_effective, "weights_digest": report.digest}
        init |= {"source": report.source, "lines": list(report.lines), "warning": report.warning}
        init |= {"listing": list(report.listing())}
        rewind = _copy(model) if config.rewind == "init" else None
        return cls(config, images, data.about, Form.unpruned(full, arch), model, init, rewind)

    @classmethod
    def resumed(cls, config: RSSTConfig, data: ImageData, state: TrialState) -> Running:
        """The trial that `state` was taken from."""
        meta = state.meta
        refuse_other_images(config, data, state)
        images, full = _prepare(config, data)
        alive = Units.from_json(meta["alive"])
        arch = full.with_counts(alive.counts("head"), alive.counts("neuron"))
        form = Form(full, arch, alive, state.group("dead"), started(config, full))
        model = built_with(form.arch, state.group("weights"), images.device)
        rewind = {name: tensor.to(images.device) for name, tensor in state.group("rewind").items()} or None
        trial = cls(config, images, data.about, form, model, dict(meta["init"]), rewind)
        trial.round, trial.epoch = state.round, state.epoch
        units = Units.from_json(meta["doomed"]) if meta["doomed"] else None
        trial.doomed = Doomed(units, state.group("doomed"))
        trial.removal = Removal(**meta["removal"])
        trial.history = [Event.from_json(event) for event in meta["history"]]
        trial.uniform = meta.get("dense_key") == trial.dense_key
        trial._set_up()
        trial.doomed_norm_start = meta["doomed_norm_start"]
        load_optimizer_tensors(trial.training.optimizer, model, state.group("optimizer"))
        return trial

    @property
    def epochs_trained(self) -> int:
        """Epochs of all rounds that are done."""
        return self.round * self.config.epochs + self.epoch

    @property
    def finished(self) -> bool:
        """Whether the final event has been reported."""
        return bool(self.history) and self.history[-1].kind == "final"

    @property
    def start_share(self) -> float:
        """Kept share of the units that the trial began with: 1, but for the start from a pruned model."""
        return self.pruner.kept_share(Form.unpruned(self.form.full, self.form.began), self.config)

    @property
    def dense_key(self) -> str:
        """16 hex digits over everything that decides the numbers of round 0, epoch by epoch."""
        decides = {
            "config": self.config.of_round_0.fingerprint,
            "rewind_epoch": self.config.rewind_epoch,
            "micro_batch_size": self.config.micro_batch_size,
            "weights": self.init["weights_digest"],
            "images": self.about.digest,
            "environment": environment(self.config, self.images.device),
            "cpu": torch.backends.cpu.get_cpu_capability(),
            "versions": {name: version(name) for name in ("timm", "torchvision", "numpy")},
        }
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]

    def dense_state(self) -> TrialState:
        """What another trial needs of this one's round 0, which has just been trained."""
        epochs = [event.to_json() for event in self.history if event.kind == "epoch"]
        meta = {"fingerprint": self.dense_key, "round": 0, "epoch": self.epoch, "history": epochs}
        rewind = self.rewind if self.config.rewind_epoch is not None else None
        meta["trained_by"] = self.config.fingerprint
        return TrialState(meta, grouped({"weights": self.model.state_dict(), "rewind": rewind or {}}))

    def adopt(self, dense: TrialState) -> list[Event]:
        """Stand at the end of the round 0 that another trial has trained; the epochs that were left, without time."""
        weights = {name: tensor.to(self.images.device) for name, tensor in dense.group("weights").items()}
        self.model.load_state_dict(weights)
        if self.config.rewind_epoch is not None:
            self.rewind = {name: tensor.to(self.images.device) for name, tensor in dense.group("rewind").items()}
        done, self.epoch, self._validated = self.epoch, self.config.epochs, None
        mark = {"seconds": 0.0, "adopted_from": dense.meta["trained_by"]}
        told = [Event.from_json(event) for event in dense.meta["history"]][done:]
        adopted = [Event(event.kind, {**event.metrics, **mark}, self.snapshot) for event in told]
        self.history += adopted
        return adopted

    def choose_doomed(self) -> None:
        """Score what round − 1 trained and choose what this round removes."""
        calibration = self.images.calibration(self.config.calibration_images, self.config.seed)
        share = self.config.kept_share_after(self.round)
        with repeatable(self.config.deterministic):
            self.doomed = self.pruner.choose(self.model, self.form, self.config, calibration, share)

    def rewind_weights(self) -> None:
        """Start the round from the rewind weights, which are sliced to what is alive; with rewind = none: go on."""
        if self.rewind is not None:
            self.model.load_state_dict(self.rewind)
            self._validated = None

    def start_training(self) -> None:
        """A new optimizer and the penalty on this round's doomed."""
        self._set_up()
        self.doomed_norm_start = self.penalty.doomed_norm()

    def _set_up(self) -> None:
        weights = dict(self.model.named_parameters())
        masks = self.pruner.masks(weights, self.form, self.doomed)
        self.penalty = Penalty(self.config, weights, masks, self.form.dead)
        self.training = Training.begin(self.config, self.model, self.images, penalty=self.penalty, round=self.round)

    def doomed_norm_left(self) -> dict[str, float]:
        """Share of the doomed norm that is left since the round began, by its metric name; {} if nothing is pressed."""
        if self.doomed_norm_start == 0:
            return {}
        return {"doomed_norm_left": self.penalty.doomed_norm() / self.doomed_norm_start}

    def validated(self) -> Accuracy:
        """Accuracy of the present weights on the validation images; computed once for the same weights.

        Raises:
            TrialDiverged: the loss is not finite.
        """
        if self._validated is None:
            found = evaluate(self.model, self.images, self.images.val)
            if not math.isfinite(found.loss):
                raise TrialDiverged(f"round {self.round}, epoch {self.epoch}: the validation loss is {found.loss}")
            self._validated = found
        return self._validated

    def epoch_done(self) -> None:
        """Count an epoch, which has changed the weights; after epoch K of round 0, rewind = epoch:K keeps them."""
        self.epoch, self._validated = self.epoch + 1, None
        if self.round == 0 and self.epoch == self.config.rewind_epoch:
            self.rewind = _copy(self.model)

    def harden(self) -> None:
        """Remove the doomed, from the model and from the rewind weights; remember accuracy before and after."""
        if self.doomed == Doomed():
            return
        before = self.validated()
        weights, form = self.pruner.remove(self.model.state_dict(), self.form, self.doomed)
        if self.rewind is not None:
            self.rewind, _ = self.pruner.remove(self.rewind, self.form, self.doomed)
        self.form, self.model = form, built_with(form.arch, weights, self.images.device)
        self.doomed, self._validated = Doomed(), None
        self._set_up()
        after = self.validated()
        self.removal = Removal(before.top1, after.top1, after.changed(before))

    def next_round(self) -> None:
        """Stand at the start of the next round."""
        self.round, self.epoch, self.removal, self.doomed_norm_start = self.round + 1, 0, Removal(), 0.0
        self._set_up()

    def snapshot(self) -> TrialState:
        """The trial as a value; later steps do not change it."""
        groups = {
            "weights": self.model.state_dict(),
            "rewind": self.rewind or {},
            "optimizer": optimizer_tensors(self.training.optimizer, self.model),
            "doomed": self.doomed.entries,
            "dead": self.form.dead,
        }
        meta = {
            "fingerprint": self.config.fingerprint,
            "method": METHOD_VERSION,
            "round": self.round,
            "epoch": self.epoch,
            "full": self.form.full.to_json(),
            "alive": self.form.alive.to_json(),
            "doomed": self.doomed.units.to_json() if self.doomed.units else None,
            "init": self.init,
            "removal": vars(self.removal).copy(),
            "doomed_norm_start": self.doomed_norm_start,
            "history": [event.to_json() for event in self.history],
            "data_digest": self.about.digest,
            "environment": environment(self.config, self.images.device),
            "dense_key": self.dense_key if self.uniform else None,
        }
        return TrialState(meta, grouped(groups))


def refuse_other_images(config: RSSTConfig, data: ImageData, state: TrialState) -> None:
    """Refuse images that are not those that the trial began with."""
    if data.digest != state.meta["data_digest"]:
        valid = f"the images this trial began with (digest {state.meta['data_digest']}, not {data.digest})"
        hint = "put the old images back, or use another save_dir"
        raise ConfigError("data", config.data or config.dataset, valid, hint)


def refuse_other_weights(config: RSSTConfig, state: TrialState) -> None:
    """Refuse a weights file that is not the one that the trial began with."""
    began_with = state.meta["init"]["weights_digest"]
    if config.pretrained and config.weights and (digest := resolve(config).digest) != began_with:
        was = f"digest {began_with}, not {digest}" if began_with else "none were found, it started from scratch"
        hint = "put the old file back, or use another save_dir"
        raise ConfigError("weights", config.weights, f"the weights this trial began with ({was})", hint)


def _prepare(config: RSSTConfig, data: ImageData) -> tuple[TrialImages, Architecture]:
    """Threads first (before any tensor is made), then the images on their device and the unpruned architecture."""
    torch.set_num_threads(config.num_threads)
    arch = architecture(config, in_chans=data.train.images.shape[1], num_classes=data.num_classes)
    return on_device(data, choose_device(config), config.micro_batch_size), arch


def _copy(model: VisionTransformer) -> Weights:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
