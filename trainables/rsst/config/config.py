"""Every knob of a trial: name, type, default, unit, help and check; validated once, then frozen.

In: a mapping of knob names to values (flags, YAML, a search space, an earlier best.yaml).
Out: a frozen `RSSTConfig` with presets applied, or one `ConfigError` line naming the key.
The names are the seed guide's; `python -m trainables --help` says what each one means.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from trainables.errors import ConfigError as ConfigError
from trainables.rsst.config import presets
from trainables.rsst.config.knobs import Check, Knob, check_range, converted

MAX_ROUNDS = 1000
METHOD_VERSION = 1
"""Part of every fingerprint; to be raised when the same knobs begin to give other numbers."""

_POSITIVE: Check = ("a number > 0", lambda v: v > 0)
_NOT_NEGATIVE: Check = ("a number ≥ 0", lambda v: v >= 0)
_OPEN_UNIT: Check = ("between 0 and 1, both excluded", lambda v: 0 < v < 1)
_SHARE: Check = ("at least 0 and below 1", lambda v: 0 <= v < 1)
_AT_LEAST_1: Check = ("a whole number ≥ 1", lambda v: v >= 1)
_COUNT: Check = ("a whole number ≥ 0", lambda v: v >= 0)
_REWIND: Check = ("init, none or epoch:K with K ≥ 1", lambda v: v in ("init", "none") or _rewind_epoch(v) is not None)
_SIDE: Check = ("1 to 4096", lambda v: 1 <= v <= 4096)
_THREADS: Check = ("1 to 1024", lambda v: 1 <= v <= 1024)
_HEIGHT: Check = ("0 to 100", lambda v: 0 <= v <= 100)
_ROUNDS: Check = (f"1 to {MAX_ROUNDS}", lambda v: 1 <= v <= MAX_ROUNDS)
_NAME: Check = ("a name that is not empty", lambda v: bool(v))


def _knob(help: str, default: Any = MISSING, **properties: Any) -> Any:
    """The one declaration of a knob; `properties` are fields of `Knob`."""
    return field(default=default, metadata={"help": help, **properties})


@dataclass(frozen=True, kw_only=True)
class RSSTConfig:
    """One trial, completely determined. Build it with `from_knobs`; fields without a default come from presets.py."""

    # the model and where it starts
    arch: str = _knob(
        "vit_tiny, vit_small, vit_base, vit_digits, or any timm ViT by its name", check=_NAME, decides_presets=True
    )
    pretrained: bool = _knob(
        "start from ImageNet (or your own) weights instead of random ones", False, decides_presets=True
    )
    weights: str | None = _knob(
        "local weights file (.safetensors, .pth, .ckpt, .npz) for pretrained", None, in_fingerprint=False, path=True
    )
    weights_digest: str | None = _knob("refuse pretrained weights whose digest is another one", None)
    patch_embed: str = _knob("how pretrained patch embeddings are fitted", "resample", choices=("resample", "reinit"))
    on_missing_weights: str = _knob(
        "when the hub has no pretrained weights to give: start from scratch with a warning, or stop",
        "scratch",
        choices=("scratch", "error"),
        in_fingerprint=False,
        in_rerun=False,
    )
    img_size: int = _knob("side of the (square) images (pixels)", check=_SIDE, unit="pixels", of_the_images=True)
    patch_size: int = _knob("side of a patch (pixels)", check=_AT_LEAST_1, unit="pixels")
    # data
    dataset: str = _knob("the images", "cifar100", choices=presets.DATASETS, of_the_images=True, decides_presets=True)
    data: str | None = _knob(
        "folder that holds (or will hold) the data set",
        None,
        in_fingerprint=False,
        path=True,
        of_the_run=True,
        of_the_images=True,
    )
    allow_duplicates: bool = _knob(
        "take images that lie in two parts, or twice in a class, of an image folder as they are",
        False,
        of_the_images=True,
    )
    augment: str = _knob("training augmentation", choices=("none", "flip", "crop", "standard", "strong"))
    label_smoothing: float = _knob("label smoothing (share)", 0.0, check=_SHARE, unit="share")
    # training
    epochs: int = _knob("epochs in each round", check=_AT_LEAST_1, unit="epochs", decides_presets=True)
    lr: float = _knob("peak learning rate", check=_POSITIVE)
    warmup: int = _knob("epochs of linear learning-rate warm-up in each round", check=_COUNT, unit="epochs")
    batch_size: int = _knob("images per optimizer step", check=_AT_LEAST_1, unit="images", short="batch")
    optimizer: str = _knob("optimizer", "adamw", choices=("adamw", "sgd"))
    momentum: float = _knob("momentum of sgd, first beta of adamw", 0.9, check=_SHARE, unit="share")
    weight_decay: float = _knob("weight decay of weight matrices", 0.05, check=_NOT_NEGATIVE, short="wd")
    lr_schedule: str = _knob("learning rate after warm-up", "cosine", choices=("cosine", "multistep"))
    amp: bool = _knob("train in bfloat16 autocast", False)
    # pruning
    struct: str = _knob(
        "rsst presses the doomed units, then removes them; refill removes first, then trains",
        "rsst",
        choices=("rsst", "refill"),
    )
    criteria: str = _knob("score of a unit", choices=("magnitude", "l1", "l2", "saliency", "remain"))
    calibration_images: int = _knob(
        "training images that l1, l2 and saliency look at", 256, check=_AT_LEAST_1, unit="images"
    )
    pruning_times: int = _knob("rounds R, the dense round included: R - 1 prunings", check=_ROUNDS, unit="rounds")
    rate: float = _knob("share of the alive units that each round removes", 0.15, check=_OPEN_UNIT, unit="share")
    target_density: float | None = _knob(
        "kept share of units at the end; pruning_times then follows from rate",
        None,
        check=_OPEN_UNIT,
        unit="share",
        short="density",
    )
    granularity: str = _knob(
        "what is removed", "both", choices=("head", "neuron", "both", "element"), decides_presets=True
    )
    scope: str = _knob("rank units inside each layer, or all together", choices=("layer", "global"))
    rewind: str = _knob(
        "weights that each later round starts from: init, none, epoch:K of round 0", "init", check=_REWIND
    )
    penalty_form: str = _knob("how the penalty acts", "normalized", choices=("normalized", "l2"))
    RST_schedule: str = _knob(
        "shape of the penalty's ramp over a round",
        "exp_custom_exponents",
        choices=("x", "x^2", "x^3", "exp", "exp_custom", "exp_custom_exponents"),
    )
    exponents: float = _knob("p of the ramp exp_custom_exponents", check=_POSITIVE)
    reg_granularity_prune: float = _knob("g, the height of the penalty's ramp", check=_HEIGHT, short="g")
    # running
    seed: int = _knob("seed of everything random, the data split included", 0, check=_COUNT, of_the_images=True)
    num_threads: int = _knob("CPU threads of one trial (1 and 2 give different bits)", 1, check=_THREADS)
    micro_batch_size: int | None = _knob(
        "images that go through the model at a time, in training, evaluation, scoring and latency; gradients add up to "
        "those of the whole batch (default: the whole batch, and 512 where nothing is trained)",
        None,
        check=_AT_LEAST_1,
        in_fingerprint=False,
        unit="images",
        of_the_run=True,
    )
    device: str = _knob(
        "auto, cpu or cuda", "auto", choices=("auto", "cpu", "cuda"), in_fingerprint=False, of_the_run=True
    )
    keep_rounds: int = _knob(
        "rounds whose model is kept; of more, the largest goes that a smaller one matches (0: the last one alone)",
        20,
        check=_COUNT,
        in_fingerprint=False,
        unit="models",
        of_the_run=True,
    )
    save_dir: str | None = _knob(
        "folder that a single run writes to", None, in_fingerprint=False, path=True, single_run=True, in_rerun=False
    )

    @classmethod
    def from_knobs(cls, knobs: Mapping[str, Any]) -> RSSTConfig:
        """Check and complete `knobs`; anything not given comes from the presets."""
        given = {str(key): converted(_known(str(key)), value) for key, value in knobs.items()}
        folder = given.get("dataset")
        if isinstance(folder, str) and folder not in presets.DATASETS:
            given |= {"dataset": "folder", "data": _image_folder(folder)}
        for key, value in given.items():
            check_range(KNOBS[key], value)
        config = cls(**(presets.defaults(given) | given))
        _check_pairs(config)
        if config.target_density is None:
            return config
        follows = 1 + _prunings(config.target_density, config.rate)
        if given.get("pruning_times", follows) != follows:
            hint = "leave pruning_times out when target_density is given"
            raise ConfigError("pruning_times", given["pruning_times"], f"{follows}, which follows from rate", hint)
        if follows > MAX_ROUNDS:
            raise ConfigError(
                "rate", config.rate, f"such that target_density takes at most {MAX_ROUNDS} rounds", "raise it"
            )
        return dataclasses.replace(config, pruning_times=follows)

    def knobs(self) -> dict[str, Any]:
        """Every knob by name, JSON-able; `from_knobs` of it gives an equal config."""
        return dataclasses.asdict(self)

    @property
    def fingerprint(self) -> str:
        """16 hex digits over everything that determines the trial's numbers.

        Fields at their class default are left out, so a knob added later does not change old fingerprints.
        """
        named: dict[str, Any] = {"method": METHOD_VERSION}
        named |= {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if KNOBS[f.name].in_fingerprint and (f.default is MISSING or getattr(self, f.name) != f.default)
        }
        return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def rounds(self) -> int:
        """Number of rounds R; R − 1 of them end (refill: begin) with a removal."""
        return self.pruning_times

    @property
    def removes_first(self) -> bool:
        """refill removes at the start of a round and trains without a penalty; rsst removes at its end."""
        return self.struct == "refill"

    @property
    def rewind_epoch(self) -> int | None:
        """K of rewind = epoch:K, else None."""
        return _rewind_epoch(self.rewind)

    def kept_share_after(self, prunings: int) -> float:
        """Share of the units that is asked to be alive after `prunings` prunings (docs/method.md, "How many stay")."""
        if self.target_density is not None:
            return float(self.target_density ** (prunings / max(self.rounds - 1, 1)))
        return float((1.0 - self.rate) ** prunings)


def _prunings(target_density: float, rate: float) -> int:
    return math.ceil(math.log(target_density) / math.log1p(-rate) - 1e-9)


def _rewind_epoch(rewind: str) -> int | None:
    word, _, number = rewind.partition(":")
    return int(number) if word == "epoch" and number.isdecimal() and int(number) >= 1 else None


def _knob_table() -> dict[str, Knob]:
    hints = typing.get_type_hints(RSSTConfig)
    table = {}
    for f in dataclasses.fields(RSSTConfig):
        parts = [t for t in typing.get_args(hints[f.name]) or (hints[f.name],) if t is not type(None)]
        optional = len(typing.get_args(hints[f.name])) > 1
        default = None if f.default is MISSING else f.default
        table[f.name] = Knob(f.name, parts[0], optional, default, **f.metadata)
    return table


KNOBS: Mapping[str, Knob] = _knob_table()


def _known(key: str) -> Knob:
    if key not in KNOBS:
        close = get_close_matches(key, KNOBS, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "`python -m trainables --help` lists them"
        raise ConfigError(key, "(given)", "a known key only", hint)
    return KNOBS[key]


def _image_folder(dataset: str) -> str:
    """The path of `dataset`, which is not the name of one, when it is a folder."""
    if dataset and Path(dataset).expanduser().is_dir():
        return str(Path(dataset).expanduser().absolute())
    close = get_close_matches(dataset, presets.DATASETS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there is no folder {dataset}"
    raise ConfigError("dataset", dataset, f"{' or '.join(presets.DATASETS)}, or an existing folder of images", hint)


def _check_pairs(c: RSSTConfig) -> None:
    """Refuse knobs that contradict each other."""
    if c.warmup > c.epochs:
        raise ConfigError("warmup", c.warmup, f"0 to epochs ({c.epochs})", "give warmup, or more epochs")
    if c.img_size % c.patch_size:
        least = c.img_size - c.img_size % c.patch_size
        sides = " or ".join(str(side) for side in (least, least + c.patch_size) if side)
        hint = f"give img_size {sides}, or another patch_size"
        raise ConfigError("img_size", c.img_size, f"a multiple of patch_size ({c.patch_size})", hint)
    if c.dataset == "folder" and not c.data:
        raise ConfigError("data", c.data, "the image folder's path when dataset = folder", "give data")
    if c.granularity == "element" and c.criteria != "magnitude":
        raise ConfigError("criteria", c.criteria, "magnitude with granularity = element", "leave criteria out")
    if c.granularity == "element" and c.scope != "global":
        raise ConfigError("scope", c.scope, "global with granularity = element", "leave scope out")
    if c.rewind_epoch is not None and c.rewind_epoch > c.epochs:
        raise ConfigError("rewind", c.rewind, f"epoch:1 to epoch:{c.epochs} (epochs of round 0)")
    if c.weights and not c.pretrained:
        raise ConfigError(
            "weights", c.weights, "given together with pretrained", "add pretrained, or leave weights out"
        )
