"""An epoch sends its draws to the device once and reads nothing back before its end."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.trainables import toy
from trainables.rsst.data.augment import POLICIES
from trainables.rsst.data.batches import TrialImages, on_device
from trainables.rsst.data.load import ImageData
from trainables.rsst.model.accepted import architecture
from trainables.rsst.model.vit import build
from trainables.rsst.training import epoch as epochs
from trainables.rsst.training.plan import EpochPlan
from trainables.rsst.training.setup import Training

pytestmark = pytest.mark.usefixtures("toy")


def test_the_steps_take_every_image_once_in_another_order_each_epoch(tiny: ImageData) -> None:
    images, config = on_device(tiny, torch.device("cpu")), toy.config(augment="standard", batch_size=32)
    plans = [EpochPlan.of(config, images, round, epoch) for round, epoch in ((0, 0), (0, 1), (1, 0))]
    orders = [torch.cat([step.rows[0] for step in plan.steps]).tolist() for plan in plans]
    assert all(sorted(order) == list(range(len(images.train))) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert [len(step.rows[0]) for step in plans[0].steps[:-1]] == [32] * (len(plans[0].steps) - 1)
    again = EpochPlan.of(config, images, 0, 1)
    assert all(torch.equal(a.rows, b.rows) for a, b in zip(again.steps, plans[1].steps, strict=True))


# Kernels of one step of the toy (2 layers, plain SGD) at most, counted as below: a new one in each step is a decision.
LAUNCHES = {"none": 172, "flip": 192, "crop": 192, "standard": 192, "strong": 396}


class Crossings(TorchDispatchMode):
    """Counts what goes from the CPU to the meta device, which stands for a GPU, and what is read back.

    `launches`: operators there that compute something new, views left out; one of them is one kernel or a few.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()
        self.launches = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = [one for one in (out if isinstance(out, list | tuple) else [out]) if isinstance(one, torch.Tensor)]
        self.launches += any(one.device.type == "meta" for one in made) and not func.is_view
        name, first = func.name(), args[0] if args and isinstance(args[0], torch.Tensor) else None
        if first is not None and isinstance(out, torch.Tensor) and first.device != out.device:
            self.seen[f"{first.device.type} to {out.device.type}"] += 1
        if first is not None and first.device.type != "cpu" and name in ("aten::_local_scalar_dense", "aten::nonzero"):
            self.seen["read"] += 1
        return out


@pytest.mark.parametrize("policy", POLICIES)
def test_an_epoch_copies_its_plan_once_and_reads_nothing(
    tiny: ImageData, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy.config(augment=policy, batch_size=16, optimizer="sgd")
    here = on_device(tiny, torch.device("cpu"))
    meta = torch.device("meta")
    images = TrialImages(here.train.to(meta), here.val, here.test, here.mean.to(meta), here.std.to(meta), 10)
    model = build(architecture(config, in_chans=1, num_classes=10), "meta")
    training = Training.begin(config, model, images)
    training = replace(training, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))  # meta has no fused one
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # nor autocast
    monkeypatch.setattr(epochs, "_mean_of_finite", lambda losses, round, epoch: float(len(losses)))
    epochs.train_epoch(training, 0)  # tables that a trial makes once
    with Crossings() as crossings:
        steps, _ = epochs.train_epoch(training, 1)
    assert steps > 3 and crossings.seen == {"cpu to meta": 1}
    assert 0 < crossings.launches / steps <= LAUNCHES[policy]
