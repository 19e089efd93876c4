"""The method's seven invariants, one test each, named after them.

Each was seen to fail with what it guards broken on purpose; the mutations stand in its docstring.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainables import toy
from trainables.rsst import experiment
from trainables.rsst.config import KNOBS
from trainables.rsst.data.load import ImageData
from trainables.rsst.experiment import run
from trainables.rsst.model.vit import Architecture, build
from trainables.rsst.pruning.compact import Units, unit_masks, zeroed
from trainables.rsst.pruning.penalty import Penalty
from trainables.rsst.pruning.pruners import Doomed, Form, UnitPruner
from trainables.rsst.pruning.ramps import ramp
from trainables.rsst.running import Running
from trainables.rsst.training import block
from trainables.rsst.training.epoch import train_epoch
from trainables.rsst.training.setup import Training
from trainables.rsst.trial import open_trial

pytestmark = pytest.mark.usefixtures("toy")

CEILING = {
    "x": 0.3,
    "x^2": 0.3,
    "x^3": 0.3,
    "exp": math.exp(0.3) - 1,
    "exp_custom": 0.3,
    "exp_custom_exponents": 0.3,
}


class SpyPenalty(Penalty):
    """Notes the progress that each step is told."""

    def __init__(self) -> None:
        super().__init__(toy.config(), {}, {}, {})
        self.before: list[float] = []
        self.after: list[tuple[float, float]] = []

    def before_step(self, t: float) -> None:
        self.before.append(t)

    def after_step(self, t_from: float, t_to: float) -> None:
        self.after.append((t_from, t_to))


@pytest.mark.parametrize("batch_size", [96, 32, 11])
@pytest.mark.parametrize("epochs", [1, 3])
def test_invariant_1_the_ramp_runs_from_0_to_its_ceiling_over_the_round_whatever_the_number_of_batches(
    tiny: ImageData, batch_size: int, epochs: int
) -> None:
    """Mutations seen to fail: progress counted per epoch; progress = step / (steps − 1); a ceiling other than g."""
    config = toy.config(batch_size=batch_size, epochs=epochs)
    spy = SpyPenalty()
    fresh = Running.fresh(config, tiny)
    training = Training.begin(config, build(fresh.form.arch), fresh.images, penalty=spy, round=1)
    for epoch in range(epochs):
        train_epoch(training, epoch)
    steps = epochs * math.ceil(96 / batch_size)
    assert spy.before == [pytest.approx((i + 1) / steps) for i in range(steps)]
    assert spy.after == [(pytest.approx(i / steps), pytest.approx((i + 1) / steps)) for i in range(steps)]
    assert spy.after[0][0] == 0.0 and spy.after[-1][1] == 1.0 == spy.before[-1]
    for name, ceiling in CEILING.items():
        assert ramp(name, spy.after[0][0], 0.3, 2.0) == 0.0
        assert ramp(name, spy.after[-1][1], 0.3, 2.0) == pytest.approx(ceiling, rel=1e-12)


@pytest.mark.parametrize("knobs", [{"criteria": c} for c in KNOBS["criteria"].choices]
                         + [{"granularity": "element"}, {"amp": True}], ids=str)  # fmt: skip
def test_invariant_2_scores_depend_on_the_trained_weights_and_not_on_the_rewind_weights(
    tiny: ImageData, knobs: dict[str, Any]
) -> None:
    """Mutation seen to fail: rewinding before scoring."""
    config = toy.config(**knobs)
    trained = next(e.snapshot() for e in run(config, tiny) if e.kind == "round")

    def doomed(weights: float, rewind: float) -> Doomed:
        """What round 1 dooms when weights and rewind weights get noise of this size."""
        torch.manual_seed(1)
        scale = {"weights": weights, "rewind": rewind}
        moved = {
            name: t + scale.get(name.split("/")[0], 0.0) * torch.randn_like(t) if t.is_floating_point() else t
            for name, t in trained.tensors.items()
        }
        trial = Running.resumed(config, tiny, toy.TrialState(trained.meta, moved))
        experiment.begin_round(trial)
        return trial.doomed

    def flat(found: Doomed) -> Any:
        return found.units or {name: mask.nonzero().tolist() for name, mask in found.entries.items()}

    assert flat(doomed(0, 0)) == flat(doomed(0, 1.0))
    assert flat(doomed(0, 0)) != flat(doomed(1.0, 0))


def rounded_half_up(share: float, total: int, least: int) -> int:
    return max(int(share * total + 0.5), least)


@pytest.mark.parametrize("options", [{}, {"amp": True, "micro_batch_size": 20}], ids=str)
@pytest.mark.parametrize("struct", ["rsst", "refill"])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_invariant_3_after_each_pruning_the_kept_counts_are_those_asked_for(
    tiny: ImageData, scope: str, struct: str, options: dict[str, Any]
) -> None:
    """Mutations seen to fail: counts from the last count instead of the full one; floor instead of rounding."""
    sizes = {"epochs": 1, "warmup": 0, "pruning_times": 8, "rate": 0.23}
    config = toy.config(scope=scope, struct=struct, **sizes, **options)
    rounds = [e.metrics for e in run(config, tiny) if e.kind == "round"]
    assert len(rounds) == 8
    for prunings, m in enumerate(rounds):
        share = 0.77**prunings
        heads, neurons = m["heads_kept_per_layer"], m["neurons_kept_per_layer"]
        if scope == "layer":
            assert heads == [rounded_half_up(share, 4, 1)] * 2
            assert neurons == [rounded_half_up(share, 32, 1)] * 2
        assert min(heads) >= 1 and min(neurons) >= 1
        assert m["heads_kept"] == sum(heads) == rounded_half_up(share, 8, 2) or scope == "layer"
        assert m["neurons_kept"] == sum(neurons) == rounded_half_up(share, 64, 2) or scope == "layer"
        assert m["kept_share_asked"] == pytest.approx(share)


@pytest.mark.parametrize("extra", [{}, {"qk_norm": True}, {"qkv_bias": False}], ids=str)
@pytest.mark.parametrize(
    "doomed",
    [
        Units(((1,), (0, 2, 3)), ((), ())),
        Units(((), ()), (tuple(range(1, 32)), (0, 31))),
        Units(((0, 3), (2,)), ((5, 6, 30), tuple(range(0, 32, 2)))),
    ],
    ids=["heads", "neurons", "both"],
)
def test_invariant_4_doomed_weights_at_zero_and_the_compacted_model_give_the_same_logits(
    doomed: Units, extra: dict[str, Any]
) -> None:
    """Mutations seen to fail: q's rows taken for k and v; proj columns of other heads; another activation."""
    sizes = {"img_size": 8, "patch_size": 4, "in_chans": 1, "num_classes": 10}
    sizes |= {"embed_dim": 16, "depth": 2, "num_heads": 4, "mlp_ratio": 2.0, **extra}
    arch = Architecture("", sizes, 4, (4, 4), (32, 32))
    torch.manual_seed(0)
    model = build(arch)
    with torch.no_grad():
        for parameter in model.parameters():  # timm starts biases at 0 and norms at 1, which would hide mistakes
            parameter.add_(0.3 * torch.randn_like(parameter))
    weights, form = UnitPruner().remove(model.state_dict(), Form.unpruned(arch), Doomed(doomed))
    compacted = build(form.arch)
    compacted.load_state_dict(weights)
    model.load_state_dict(zeroed(model.state_dict(), unit_masks(model.state_dict(), arch, doomed)))
    images = torch.randn(7, 1, 8, 8)
    with torch.no_grad():
        expected, found = model.eval()(images), compacted.eval()(images)
    assert expected.std() > 0.1
    assert torch.allclose(found, expected, rtol=0, atol=1e-5)
    assert form.arch.heads == tuple(4 - len(x) for x in doomed.heads)
    assert sum(p.numel() for p in compacted.parameters()) < sum(p.numel() for p in model.parameters())


RESUMES = [
    {"optimizer": "adamw", "rewind": "init"},
    {"optimizer": "adamw", "rewind": "none"},
    {"optimizer": "adamw", "rewind": "epoch:1"},
    {"optimizer": "sgd", "rewind": "init"},
    {"optimizer": "sgd", "rewind": "none"},
    {"optimizer": "sgd", "rewind": "epoch:1"},
    {"optimizer": "adamw", "rewind": "init", "granularity": "element"},
    {"optimizer": "sgd", "rewind": "epoch:1", "granularity": "element"},
    {"struct": "refill", "augment": "strong"},
    {"penalty_form": "l2", "scope": "global", "criteria": "saliency"},
    {"amp": True, "micro_batch_size": 10},
    {"deterministic": True, "augment": "standard"},
]


@pytest.mark.parametrize("knobs", RESUMES, ids=lambda k: " ".join(map(str, k.values())))
def test_invariant_5_stopping_and_loading_after_every_event_changes_no_bit(
    tiny: ImageData, tmp_path: Path, knobs: dict[str, Any]
) -> None:
    """Every event is a checkpoint on disk; the trial is opened anew for each, so every epoch is resumed into.

    Mutations seen to fail: not restored: optimizer state, doomed norm at the start, rewind weights, dead entries, the
    penalty, accuracies around refill's removal; data order drawn from a generator with state.
    """
    config = toy.config(**knobs)
    whole = list(run(config, tiny))
    kinds = []
    for number in range(len(whole)):
        with open_trial(config, tmp_path, say=pytest.fail, checkpoint_every_s=0.0, data=tiny) as trial:
            assert len(trial.history) == number
            events = trial.events()
            seen = [next(events) for _ in range(number + 1)]
            kinds.append(seen[-1].kind)
    assert kinds == ["start", *["epoch", "epoch", "round"] * 3, "final"]
    assert toy.told(seen) == toy.told(whole)
    resumed, straight = seen[-1].snapshot(), whole[-1].snapshot()
    assert toy.same_tensors(resumed.tensors, straight.tensors)
    assert resumed.meta["alive"] == straight.meta["alive"]


@pytest.mark.parametrize("options", [{}, {"amp": True}, {"compile": True, "rate": 0.5}], ids=str)
def test_invariant_5_three_rounds_equal_one_round_and_two_after_loading(
    tiny: ImageData, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Inductor, in processes of their own: training/test_inductor.py."""
    monkeypatch.setattr(block, "BACKEND", "aot_eager")
    config = toy.config(**options)
    whole = list(run(config, tiny))
    first_rounds = run(config, tiny)
    state = next(e.snapshot() for e in first_rounds if e.kind == "round")
    first_rounds.close()
    rest = list(run(config, tiny, state))
    assert [e.kind for e in rest] == [*["epoch", "epoch", "round"] * 2, "final"]
    assert toy.told(rest) == toy.told(whole)[-len(rest) :]


EACH_IN_ITS_OWN_PROCESS = """
import json, os, sys
from tests.trainables import toy
toy.install()
for knobs in sys.argv[1:]:  # forks of a process that has imported torch and computed nothing
    if os.fork() == 0:
        print(json.dumps(toy.outcome(toy.config(**json.loads(knobs)), toy.images())), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.medium
def test_invariant_6_two_runs_in_one_process_equal_two_runs_in_two_processes(tiny: ImageData, repo_root: Path) -> None:
    """Mutations seen to fail: initial weights or data order from a generator with state; a seed kept."""
    both = [{"augment": "strong", "seed": 3}, {"optimizer": "sgd", "criteria": "saliency", "augment": "standard"}]
    alone = subprocess.run(
        [sys.executable, "-c", EACH_IN_ITS_OWN_PROCESS, *map(json.dumps, both)],
        cwd=repo_root, env=os.environ | {"PYTHONPATH": str(repo_root)}, capture_output=True, text=True, timeout=200,
        check=True,
    )  # fmt: skip
    together = [json.loads(json.dumps(toy.outcome(toy.config(**knobs), tiny))) for knobs in both]
    assert [json.loads(line) for line in alone.stdout.splitlines()] == together
    assert together[0] != together[1]


def test_invariant_7_single_gpu_mode_and_ray_report_the_same_numbers(
    tiny: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Ray trainable, stepped as Tune steps it (without a cluster), against `python -m trainables`.

    One actor runs another trial first, then this one, is replaced in the middle by a second actor that is told what the
    driver has, and ends. Mutations seen to fail: the last reported event sent
    again; another seed; a reused actor that keeps its old trial.
    """
    ray_trainable = pytest.importorskip("trainables.worker.ray_trainable")
    from trainables import __main__ as single
    from trainables.rsst import trial

    monkeypatch.setattr(trial, "load", toy.images)
    monkeypatch.setattr("trainables.worker.images.load", toy.images)
    knobs = toy.config(seed=5, optimizer="sgd").knobs()

    def assignment(reported: int, **changed: Any) -> dict[str, Any]:
        store = str(tmp_path / "trials")
        return {"knobs": knobs | changed, "store": store, "trial_key": "t0000", "reported": reported}

    actor = ray_trainable.SweepTrainable(assignment(0, seed=6))
    actor.step()
    assert actor.reset_config(assignment(0))
    events: list[dict[str, Any]] = []
    for steps in (3, 1000):
        for _ in range(steps):
            result = actor.step()
            assert "failed" not in result
            events += result["events"]
            if result["done"]:
                break
        actor.cleanup()
        actor = ray_trainable.SweepTrainable(assignment(len(events)))
    assert result["done"]
    arguments = [word for name, value in knobs.items() if value is not None for word in (f"--{name}", str(value))]
    assert single.main([*arguments, "--save_dir", str(tmp_path / "single")]) == 0
    report = toy.timeless_report((tmp_path / "single/report.json").read_text())

    def of_kind(kind: str) -> list[dict[str, Any]]:
        return [{k: v for k, v in toy.timeless(e).items() if k != "kind"} for e in events if e["kind"] == kind]

    assert json.loads(json.dumps([of_kind("epoch"), of_kind("round"), of_kind("final")])) == [
        report["epochs"],
        report["rounds"],
        [report["final"]],
    ]
