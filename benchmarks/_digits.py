"""The digits ViT of the comparisons, and its dense models, trained once for all methods that start from them.

In: knobs.
Out: configs with this benchmark's architecture, the data of a seed, the state after round 0.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from trainables.rsst.config import RSSTConfig, models
from trainables.rsst.data.load import ImageData, load
from trainables.rsst.experiment import run
from trainables.rsst.state import TrialState

EIGHT_HEADS = "vit_digits_8heads"
"""64 wide, depth 4, 8 heads of 8, 128 neurons a layer: one head and one neuron a layer are 0.12 and 0.008 of them."""

models.NAMED.setdefault(EIGHT_HEADS, (64, 4, 8, 2.0, None))


def digits_config(**knobs: Any) -> RSSTConfig:
    """A digits trial on one CPU thread; the architecture with 8 heads unless `knobs` name another one."""
    return RSSTConfig.from_knobs({"dataset": "digits", "arch": EIGHT_HEADS, "device": "cpu", "num_threads": 1, **knobs})


def prunings_to(share: float, prunings: int) -> dict[str, float]:
    """The knobs with which a trial reaches `share` of the units in exactly `prunings` prunings."""
    return {"target_density": share, "rate": 1.0 - share ** (1.0 / prunings)}


@lru_cache(maxsize=4)
def digits(seed: int) -> ImageData:
    """The digits, split by `seed`."""
    return load(digits_config(seed=seed))


def after_round_0(config: RSSTConfig) -> TrialState:
    """The state of `config`'s trial when its dense round ends; the same for every kept share, rate and g."""
    knobs = ("seed", "epochs", "rewind", "optimizer", "lr", "weight_decay", "arch")
    return _dense(tuple((name, getattr(config, name)) for name in knobs))


def forget_dense() -> None:
    """Let the next run train its dense round itself."""
    _dense.cache_clear()


@lru_cache(maxsize=24)
def _dense(knobs: tuple[tuple[str, Any], ...]) -> TrialState:
    config = digits_config(**dict(knobs), pruning_times=2)
    for event in run(config, digits(config.seed)):
        if event.kind == "round":
            return event.snapshot()
    raise AssertionError("a trial ends every round with a round event")
