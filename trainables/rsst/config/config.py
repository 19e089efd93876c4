"""Every knob of a trial: name, type, default, unit, help and check; validated once, then frozen.

In: a mapping of knob names to values (flags, YAML, a search space, an earlier best.yaml).
Out: a frozen `RSSTConfig` with presets applied, or one `ConfigError` line naming the key.
The names are the seed guide's; `python -m trainables --help` says what each one means.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from difflib import get_close_matches
from typing import Any

from trainables.errors import ConfigError as ConfigError
from trainables.plugins import GROUPS, is_plugin, named
from trainables.rsst.config import acting, checks, presets
from trainables.rsst.config.knobs import Knob, check_range, converted, table_of
from trainables.rsst.config.pairs import check_pairs
from trainables.rsst.config.schedule import schedule

METHOD_VERSION = 2
"""Part of every fingerprint; to be raised when the same knobs begin to give other numbers."""


def _knob(help: str, default: Any = MISSING, **properties: Any) -> Any:
    """The one declaration of a knob; `properties` are fields of `Knob`."""
    return field(default=default, metadata={"help": help, **properties})


@dataclass(frozen=True, kw_only=True)
class RSSTConfig:
    """One trial, completely determined. Build it with `from_knobs`; fields without a default come from presets.py."""

    # the model and where it starts
    arch: str = _knob(
        "vit_tiny, vit_small, vit_base, vit_digits, or any timm ViT by its name",
        check=checks.NAME,
        decides_presets=True,
    )
    pretrained: bool = _knob(
        "start from ImageNet (or your own) weights instead of random ones", False, decides_presets=True
    )
    weights: str | None = _knob(
        "weights file (.safetensors, .pth, .ckpt, .npz) or hf_hub:ORG/NAME", None, in_fingerprint=False, path=True
    )
    weights_digest: str | None = _knob("refuse pretrained weights of another digest", None, acts_when=acting.ASKS)
    start_units: str | None = _knob(
        "heads/neurons of each layer that a pruned start has (set by --from)", None, check=checks.UNITS, single_run=True
    )
    patch_embed: str = _knob(
        "how pretrained patch embeddings are fitted", "resample", choices=("resample", "reinit"), acts_when=acting.FITS
    )
    on_missing_weights: str = _knob(
        "when the hub has no pretrained weights to give: start from scratch with a warning, or stop",
        "scratch",
        choices=("scratch", "error"),
        acts_when=acting.ASKS,
        in_fingerprint=False,
        in_rerun=False,
    )
    img_size: int = _knob("side of the (square) images (pixels)", check=checks.SIDE, unit="pixels", of_the_images=True)
    patch_size: int = _knob("side of a patch (pixels)", check=checks.AT_LEAST_1, unit="pixels")
    # data
    dataset: str = _knob(
        "the images; also a folder of them, or path/to/file.py:function of yours",
        "cifar100",
        choices=presets.DATASETS,
        of_the_images=True,
        decides_presets=True,
        same_as=acting.images,
    )
    data: str | None = _knob(
        "folder that holds (or will hold) the data set",
        None,
        acts_when=acting.FILES,
        in_fingerprint=False,
        path=True,
        of_the_run=True,
        of_the_images=True,
    )
    allow_duplicates: bool = _knob(
        "take images that lie in two parts, or twice in a class, of an image folder as they are",
        False,
        acts_when=acting.FOLDER,
        of_the_images=True,
    )
    augment: str = _knob("training augmentation", choices=("none", "flip", "crop", "standard", "strong"))
    label_smoothing: float = _knob("label smoothing (share)", 0.0, check=checks.SHARE, unit="share")
    # training
    epochs: int = _knob("epochs in each round", check=checks.AT_LEAST_1, unit="epochs", decides_presets=True)
    lr: float = _knob("peak learning rate", check=checks.POSITIVE)
    warmup: int = _knob("epochs of linear learning-rate warm-up in each round", check=checks.COUNT, unit="epochs")
    batch_size: int = _knob("images per optimizer step", check=checks.AT_LEAST_1, unit="images", short="batch")
    optimizer: str = _knob("optimizer", "adamw", choices=("adamw", "sgd"))
    momentum: float = _knob("momentum of sgd, first beta of adamw", 0.9, check=checks.SHARE, unit="share")
    weight_decay: float = _knob("weight decay of weight matrices", 0.05, check=checks.NOT_NEGATIVE, short="wd")
    lr_schedule: str = _knob(
        "learning rate after warm-up", "cosine", choices=("cosine", "multistep"), acts_when=acting.DECAYS
    )
    amp: bool = _knob("train in bfloat16 autocast", False)
    compile: bool = _knob("train with compiled blocks, one program for all widths", False)
    # pruning
    struct: str = _knob(
        "rsst presses the doomed units, then removes them; refill removes first, then trains",
        "rsst",
        choices=("rsst", "refill"),
        acts_when=acting.PRUNES,
    )
    criteria: str = _knob(
        "score of a unit, or path/to/file.py:function of yours",
        choices=("magnitude", "l1", "l2", "saliency", "remain"),
        acts_when=acting.PRUNES,
        same_as=acting.criterion,
    )
    calibration_images: int = _knob(
        "training images that l1, l2, saliency and criteria of yours look at",
        256,
        check=checks.AT_LEAST_1,
        unit="images",
        acts_when=acting.LOOKS,
    )
    pruning_times: int = _knob("rounds R, the dense round included: R - 1 prunings", check=checks.ROUNDS, unit="rounds")
    prunings: int = _knob(
        "the same number without the dense round: pruning_times - 1", check=checks.PRUNINGS, short="n"
    )
    rate: float = _knob(
        "share of the alive units that each round removes; with target_density only the number of prunings acts",
        0.15,
        check=checks.OPEN_UNIT,
        unit="share",
        acts_when=acting.PRUNES,
    )
    target_density: float | None = _knob(
        "kept share of units at the end; pruning_times then follows from prunings or rate, and rate from both",
        None,
        check=checks.OPEN_UNIT,
        unit="share",
        short="density",
    )
    granularity: str = _knob(
        "what is removed",
        "both",
        choices=("head", "neuron", "both", "element"),
        acts_when=acting.PRUNES,
        decides_presets=True,
    )
    scope: str = _knob(
        "rank units inside each layer, or all together", choices=("layer", "global"), acts_when=acting.PRUNES
    )
    rewind: str = _knob(
        "weights that each later round starts from: init, none, epoch:K of round 0",
        "init",
        check=checks.REWIND,
        acts_when=acting.PRUNES,
        same_as=acting.rewinds_to,
    )
    penalty_form: str = _knob(
        "how the penalty acts", "normalized", choices=("normalized", "l2"), acts_when=acting.RAMPS
    )
    RST_schedule: str = _knob(
        "shape of the penalty's ramp over a round, or path/to/file.py:function of yours",
        "exp_custom_exponents",
        choices=("x", "x^2", "x^3", "exp", "exp_custom", "exp_custom_exponents"),
        acts_when=acting.RAMPS,
        same_as=acting.ramp_shape,
    )
    exponents: float = _knob("p of the ramp exp_custom_exponents", check=checks.POSITIVE, acts_when=acting.BENDS)
    reg_granularity_prune: float = _knob(
        "g, the height of the penalty's ramp", check=checks.HEIGHT, short="g", acts_when=acting.PRESSES
    )
    # running
    seed: int = _knob("seed of everything random, the data split included", 0, check=checks.COUNT, of_the_images=True)
    split_seed: int | None = _knob(
        "seed of the data split (default: seed)",
        None,
        check=checks.COUNT,
        of_the_images=True,
        same_as=acting.split_apart,
    )
    num_threads: int = _knob("CPU threads of one trial (1 and 2 give different bits)", 1, check=checks.THREADS)
    micro_batch_size: int | None = _knob(
        "images that go through the model at a time, in training, evaluation, scoring and latency; gradients add up to "
        "those of the whole batch (default: the whole batch, and 512 where nothing is trained)",
        None,
        check=checks.AT_LEAST_1,
        in_fingerprint=False,
        unit="images",
        of_the_run=True,
    )
    device: str = _knob(
        "auto, cpu or cuda", "auto", choices=("auto", "cpu", "cuda"), in_fingerprint=False, of_the_run=True
    )
    deterministic: bool = _knob(
        "a GPU's sums in the same order each time (slower there)", False, in_fingerprint=False, of_the_run=True
    )
    keep_rounds: int = _knob(
        "rounds whose model is kept; of more, the largest goes that a smaller one matches (0: the last one alone)",
        20,
        check=checks.COUNT,
        in_fingerprint=False,
        unit="models",
        of_the_run=True,
    )
    share_dense: bool = _knob("train equal dense rounds once a node", True, in_fingerprint=False, of_the_run=True)
    save_dir: str | None = _knob(
        "folder that a single run writes to", None, in_fingerprint=False, path=True, single_run=True, in_rerun=False
    )

    @classmethod
    def from_knobs(cls, knobs: Mapping[str, Any]) -> RSSTConfig:
        """Check and complete `knobs`; anything not given comes from the presets."""
        given = {str(key): checked(str(key), value) for key, value in knobs.items()}
        folder = given.get("dataset")
        if isinstance(folder, str) and folder not in presets.DATASETS and not is_plugin(folder):
            given |= {"dataset": "folder", "data": folder}
        complete = {name: knob.default for name, knob in KNOBS.items()} | presets.defaults(given) | given
        config = cls(**(complete | schedule(given, complete)))
        check_pairs(config)
        return config

    def knobs(self) -> dict[str, Any]:
        """Every knob by name, JSON-able; `from_knobs` of it gives an equal config."""
        return dataclasses.asdict(self)

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the trial's numbers: the knobs that act here, each with one value for equal numbers."""
        return {
            name: knob.same_as(self) if knob.same_as else getattr(self, name)
            for name, knob in KNOBS.items()
            if knob.in_fingerprint and knob.acts(self)
        }

    @property
    def fingerprint(self) -> str:
        """16 hex digits over `identity` and METHOD_VERSION: equal ones mean equal numbers, from equal images.

        Knobs at their class default are left out, so a knob added later does not change old fingerprints.
        """
        named: dict[str, Any] = {"method": METHOD_VERSION}
        usual = {f.name: f.default for f in dataclasses.fields(self)}  # MISSING where presets.py has it
        named |= {name: value for name, value in self.identity.items() if value != usual[name]}
        return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def rounds(self) -> int:
        """Number of rounds R; R − 1 of them end (refill: begin) with a removal."""
        return self.pruning_times

    @property
    def of_round_0(self) -> RSSTConfig:
        """The trial that would end after its dense round: equal ones have equal dense rounds."""
        return dataclasses.replace(self, target_density=None, pruning_times=1, prunings=0)

    @property
    def removes_first(self) -> bool:
        """refill removes at the start of a round and trains without a penalty; rsst removes at its end."""
        return self.struct == "refill"

    @property
    def rewind_epoch(self) -> int | None:
        """K of rewind = epoch:K, else None."""
        return acting.rewind_epoch(self.rewind)

    def kept_share_after(self, prunings: int) -> float:
        """Share of the units that is asked to be alive after `prunings` prunings (docs/method.md, "How many stay")."""
        if self.target_density is not None:
            return float(self.target_density ** (prunings / max(self.rounds - 1, 1)))
        return float((1.0 - self.rate) ** prunings)


KNOBS: Mapping[str, Knob] = table_of(RSSTConfig)


def checked(key: str, value: Any) -> Any:
    """`value` in the type of the knob `key`; one that no trial can have, whatever its other knobs, is refused.

    A `dataset` that is a folder comes back as its absolute path.
    """
    knob = _known(key)
    found = converted(knob, value)
    if key == "dataset":
        return presets.images(found)
    if key in GROUPS:
        return named(key, found, knob.choices)
    check_range(knob, found)
    return found


def _known(key: str) -> Knob:
    if key not in KNOBS:
        close = get_close_matches(key, KNOBS, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "`python -m trainables --help` lists them"
        raise ConfigError(key, "(given)", "a known key only", hint)
    return KNOBS[key]
