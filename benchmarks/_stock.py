"""What a user writes without this project: growing regularisation by Ray Tune, Optuna and MLflow, stock parts only.

    python -m benchmarks._stock CASE.json FOLDER        part of stock_stack.py, which writes CASE.json

In: CASE.json: "model" (arguments of timm's VisionTransformer), "images" (an .npz), "points" (lr, g, rounds of each
trial), "epochs", "batch", "warmup", "target", "amp", "asha", "at_once".
Out: FOLDER/mlflow.db, and FOLDER/result.json: trials, epochs trained, best validation accuracy at the target.

Well configured: actors are used again, the images are in Ray's object store once, no loggers but MLflow's, a fused
optimizer, one thread a trial, one checkpoint kept, written at the end of each round. Units are pressed and masked to
zero, not cut out. Nothing of this project's code runs here.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Report = Callable[[dict[str, Any], Mapping[str, Any] | None], None]
SMOOTHING, DECAY, DEPTH, EXPONENT = 0.1, 0.05, 30.0, 2.0


class Pruned:
    """A timm ViT whose heads and neurons are alive, doomed (pressed towards zero) or dead (kept at zero).

    `alive[kind, layer]` lists unit numbers.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        from timm.models.vision_transformer import VisionTransformer

        self.model = VisionTransformer(**arguments)
        self.start = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.heads, self.width = self.model.blocks[0].attn.num_heads, self.model.blocks[0].mlp.fc1.out_features
        self.head_dim = self.model.embed_dim // self.heads
        layers = range(len(self.model.blocks))
        counts = {"head": self.heads, "neuron": self.width}
        self.alive = {(kind, layer): list(range(count)) for kind, count in counts.items() for layer in layers}
        self.doomed: dict[tuple[str, int], list[int]] = {}
        self.press: list[tuple[Tensor, Tensor]] = []
        self.keep: list[tuple[Tensor, Tensor]] = []

    def _masks(self, units: Mapping[tuple[str, int], list[int]]) -> dict[str, Tensor]:
        """1 where an entry belongs to one of `units`, by the parameter's name; only parameters that hold such."""
        weights = dict(self.model.named_parameters())
        masks: dict[str, Tensor] = {}
        for (kind, layer), numbers in units.items():
            head = kind == "head"
            block, size = f"blocks.{layer}.", self.head_dim if head else 1
            rows = ("attn.qkv.weight", "attn.qkv.bias") if head else ("mlp.fc1.weight", "mlp.fc1.bias")
            columns = "attn.proj.weight" if head else "mlp.fc2.weight"
            for name in (*rows, columns):
                mask = torch.zeros_like(weights[block + name])
                if name == columns:
                    mask.view(mask.shape[0], -1, size)[:, numbers] = 1
                else:
                    mask.view(3 if head else 1, -1, size, mask[0].numel())[:, numbers] = 1
                masks[block + name] = mask
        return masks

    def choose(self, share: float) -> None:
        """Doom the units with the smallest sum of |w| in each layer, so that `share` of all stays; start again."""
        weights = self.model.state_dict()
        self.doomed = {}
        for (kind, layer), numbers in self.alive.items():
            name, total = ("attn.proj.weight", self.heads) if kind == "head" else ("mlp.fc1.weight", self.width)
            size = weights[f"blocks.{layer}.{name}"].abs()
            sums = size.sum(0).view(self.heads, -1).sum(1) if kind == "head" else size.sum(1)
            stay = max(int(share * total + 0.5), 1)
            self.doomed[kind, layer] = sorted(numbers, key=lambda unit: float(sums[unit]))[: len(numbers) - stay]
        self.model.load_state_dict(self.start)
        self._hold()

    def _hold(self) -> None:
        weights = dict(self.model.named_parameters())
        dead = {
            (kind, layer): sorted(set(range(self.heads if kind == "head" else self.width)) - set(numbers))
            for (kind, layer), numbers in self.alive.items()
        }
        self.press = [(weights[name], mask) for name, mask in self._masks(self.doomed).items()]
        gone = self._masks(dead) if any(dead.values()) else {}
        self.keep = [(weights[name], 1 - mask) for name, mask in gone.items()]

    @torch.no_grad()
    def after_step(self, factor: float) -> None:
        """Multiply the doomed by `factor`, keep the dead at zero."""
        for weight, mask in self.press:
            weight.addcmul_(weight, mask, value=factor - 1.0)
        for weight, mask in self.keep:
            weight.mul_(mask)

    def harden(self) -> None:
        """The doomed are dead from now on."""
        self.alive = {key: [u for u in us if u not in self.doomed.get(key, ())] for key, us in self.alive.items()}
        self.doomed = {}
        self._hold()
        self.after_step(1.0)

    @property
    def kept_share(self) -> float:
        """Of all heads and neurons."""
        return sum(map(len, self.alive.values())) / (len(self.model.blocks) * (self.heads + self.width))


def train(point: Mapping[str, Any], images: Mapping[str, Any], case: Mapping[str, Any], report: Report) -> None:
    """One trial: `point` has lr, reg_granularity_prune and rounds. `report(metrics, state)`, state at a round's end."""
    from torch.utils.data import DataLoader, TensorDataset

    torch.set_num_threads(1)
    torch.manual_seed(0)
    parts = {}
    mean, std = (float(f(torch.tensor(images["train"]).float() / 255)) for f in (torch.mean, torch.std))
    for part in ("train", "val"):
        pixels = (torch.tensor(images[part]).float() / 255 - mean) / std
        parts[part] = TensorDataset(pixels, torch.tensor(images[f"{part}_labels"]))
    loader = DataLoader(parts["train"], batch_size=case["batch"], shuffle=True)
    validation = DataLoader(parts["val"], batch_size=512)
    net, rounds, epochs = Pruned(case["model"]), int(point["rounds"]), int(case["epochs"])
    for number in range(rounds):
        if number:
            net.choose(case["target"] ** (number / (rounds - 1)))
        optimizer = _optimizer(net.model, point["lr"])
        for epoch in range(epochs):
            loss = _epoch(net, optimizer, loader, (epoch, epochs), point, case)
            told = {"round": number, "train_loss": loss, "epochs_trained": number * epochs + epoch + 1}
            if epoch < epochs - 1:
                report(told | {"val_top1": _accuracy(net.model, validation)}, None)
        net.harden()
        state = {"weights": net.model.state_dict(), "optimizer": optimizer.state_dict(), "alive": net.alive}
        report(told | {"val_top1": _accuracy(net.model, validation), "kept_share": net.kept_share}, state)


def _optimizer(model: torch.nn.Module, lr: float) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.ndim == 2 or p.ndim == 4]
    rest = [p for p in model.parameters() if not (p.ndim == 2 or p.ndim == 4)]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, fused=True)


def _epoch(net: Pruned, optimizer: Any, loader: Any, at: tuple[int, int], point: Any, case: Any) -> float:
    """One epoch, number `at[0]` of `at[1]`; the mean loss."""
    net.model.train()
    each, total = len(loader), 0.0
    warm, steps, step = case["warmup"] * each, at[1] * each, at[0] * each
    for images, labels in loader:
        cosine = 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))
        for group in optimizer.param_groups:
            group["lr"] = point["lr"] * ((step + 1) / warm if step < warm else cosine)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=case["amp"]):
            logits = net.model(images)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=SMOOTHING)
        loss.backward()
        optimizer.step()
        more = ((step + 1) / steps) ** EXPONENT - (step / steps) ** EXPONENT
        net.after_step(math.exp(-DEPTH * point["reg_granularity_prune"] * more))
        total, step = total + loss.item(), step + 1
    return total / each


@torch.no_grad()
def _accuracy(model: torch.nn.Module, loader: Any) -> float:
    model.eval()
    hits = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in loader)
    return hits / len(loader.dataset)


def on_worker(config: dict[str, Any], images: Mapping[str, Any], case: Mapping[str, Any]) -> None:
    """`train` as Ray Tune's function: reports go to it, a round's end with a checkpoint."""
    from ray import tune

    def report(metrics: dict[str, Any], state: Mapping[str, Any] | None) -> None:
        if state is None:
            tune.report(metrics)
            return
        with tempfile.TemporaryDirectory() as folder:
            torch.save(state, Path(folder) / "state.pt")
            tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))

    train(config, images, case, report)


def main(case_file: str, place: str) -> None:
    """Run the sweep."""
    os.environ |= {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_USAGE_STATS_ENABLED": "0", "RAY_AIR_NEW_OUTPUT": "0"}
    import numpy as np
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    case = json.loads(Path(case_file).read_text(encoding="utf-8"))
    images, points, epochs = dict(np.load(case["images"])), case["points"], case["epochs"]
    ray.init(address="local", num_cpus=case["at_once"], include_dashboard=False, log_to_driver=False)
    most = max(point["rounds"] for point in points)
    space = {
        "lr": tune.loguniform(1e-4, 1e-1),
        "reg_granularity_prune": tune.loguniform(1e-2, 10.0),
        "rounds": tune.randint(1, most + 1),
    }
    goal: dict[str, Any] = {"metric": "val_top1", "mode": "max"}
    asha = ASHAScheduler(**goal, grace_period=2 * epochs, reduction_factor=2, max_t=most * epochs)
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(on_worker, images=images, case=case), {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(space, **goal, seed=0, points_to_evaluate=points),
            scheduler=asha if case["asha"] else None,
            num_samples=len(points),
            max_concurrent_trials=case["at_once"],
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="stock",
            storage_path=str(Path(place) / "ray"),
            verbose=0,
            callbacks=[MLflowLoggerCallback(tracking_uri=f"sqlite:///{place}/mlflow.db", experiment_name="stock")],
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
        ),
    )
    found = tuner.fit()
    if found.errors:
        raise SystemExit(f"{len(found.errors)} trials failed: {found.errors[0]}")
    ended = [result.metrics for result in found if result.metrics.get("kept_share", 1.0) <= case["target"] * 1.2]
    told = {
        "ran": len(found),
        "trained": sum(result.metrics["epochs_trained"] for result in found),
        "best": max((metrics["val_top1"] for metrics in ended), default=None),
    }
    (Path(place) / "result.json").write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
