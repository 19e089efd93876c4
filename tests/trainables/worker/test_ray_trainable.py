"""The adapter without Ray's processes: memory that runs out is tried again once, a busy store is waited for."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from tests.trainables import toy
from trainables import plugins, progress
from trainables.plugins import loading
from trainables.rsst.store.checkpoint import CheckpointStore
from trainables.rsst.training import epoch
from trainables.worker import system_metrics

ray_trainable = pytest.importorskip("trainables.worker.ray_trainable")
pytestmark = pytest.mark.usefixtures("toy")


@pytest.fixture
def actor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A trainable that has a toy trial of 2 rounds to run, 32 images a step."""
    monkeypatch.setattr("trainables.worker.images.load", toy.images)
    monkeypatch.setattr(ray_trainable, "MIN_STEP_S", 0.0)
    monkeypatch.setattr(ray_trainable, "LOCK_PATIENCE_S", 0.0)
    made = ray_trainable.SweepTrainable.__new__(ray_trainable.SweepTrainable)
    knobs = toy.config(pruning_times=2, epochs=2).knobs()
    made.setup({"knobs": knobs, "store": str(tmp_path), "trial_key": "t0000", "reported": 0, "resources": {"CPU": 1}})
    yield made
    made.cleanup()


def limited(monkeypatch: pytest.MonkeyPatch, largest: int, after_steps: int) -> None:
    """Memory for `largest` images at a time, once `after_steps` forward passes were made."""
    real, calls = epoch.F.cross_entropy, []

    def forward(logits: torch.Tensor, *args: Any, **named: Any) -> torch.Tensor:
        calls.append(len(logits))
        if len(calls) > after_steps and len(logits) > largest and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return real(logits, *args, **named)

    monkeypatch.setattr(epoch.F, "cross_entropy", forward)


def steps(actor: Any) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    while not told or not told[-1]["done"]:
        told.append(actor.step())
        assert len(told) < 50
    return told


@pytest.mark.medium
def test_out_of_memory_is_tried_again_once_with_half_the_images(actor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the second round: round 0 comes from the checkpoint, the rest is trained 16 images at a time."""
    limited(monkeypatch, largest=16, after_steps=12)
    told = steps(actor)
    retried = [note for r in told for note in r.get("retried", ())]
    assert [r["micro_batch_size"] for r in retried] == [16] and "CUDA out of memory" in retried[0]["reason"]
    assert not any("failed" in r for r in told)
    kinds = [e["kind"] for r in told for e in r["events"]]
    assert kinds.count("final") == 1 and told[-1]["events"][-1]["micro_batch_size"] == 16
    monkeypatch.undo()


def test_out_of_memory_a_second_time_is_the_trials_end(actor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, largest=4, after_steps=0)
    last = steps(actor)[-1]
    assert last["failed"].startswith("out of memory with 16 images at a time: CUDA out of memory")


def test_another_error_is_not_taken_for_it(actor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: Any, **__: Any) -> torch.Tensor:
        raise RuntimeError("the device was lost")

    monkeypatch.setattr(epoch.F, "cross_entropy", wrong)
    with pytest.raises(RuntimeError, match="the device was lost"):
        steps(actor)


@pytest.mark.parametrize(
    ("error", "is_certain"),
    [
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"), True),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), True),
        (ValueError("no\nnumber"), True),
        (ZeroDivisionError(), True),
        (RuntimeError("CUDA error: unspecified launch failure"), False),
        (RuntimeError("can't start new thread"), False),
        (OSError("a file system that went away"), False),
        (EOFError(), False),
    ],
    ids=str,
)
def test_what_would_fail_again_is_the_trials_end_and_the_rest_is_raised(
    actor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, is_certain: bool
) -> None:
    def wrong(*_: Any, **__: Any) -> torch.Tensor:
        raise error

    monkeypatch.setattr(epoch.F, "cross_entropy", wrong)
    if not is_certain:
        with pytest.raises(type(error)):
            steps(actor)
        return
    last = steps(actor)[-1]
    assert last["done"] and last["failed"].startswith(f"it would fail again: {type(error).__name__}")
    assert last["failed"].isprintable() and "Traceback" in next(tmp_path.rglob("messages.log")).read_text()


def test_a_trial_that_diverges_would_fail_again(actor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def loss(logits: torch.Tensor, *_: Any, reduction: str = "mean", **__: Any) -> torch.Tensor:
        return logits.sum(1 if reduction == "none" else None) * torch.nan

    monkeypatch.setattr(epoch.F, "cross_entropy", loss)
    assert re.match(r"it would fail again: round 0, epoch \d.*: the .*loss is nan", steps(actor)[-1]["failed"])


def test_a_store_that_another_process_holds_is_waited_for(actor: Any, tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, toy.config(pruning_times=2, epochs=2).fingerprint, print)
    with store.locked():
        waiting = actor.step()
        assert "in use by another process" in waiting["waiting"] and not waiting["done"] and "failed" not in waiting
    assert steps(actor)[-1]["events"][-1]["kind"] == "final"


def test_a_store_that_is_never_free_is_said_in_one_line(
    actor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_trainable, "BUSY_LIMIT_S", 0.0)
    store = CheckpointStore(tmp_path, toy.config(pruning_times=2, epochs=2).fingerprint, print)
    with store.locked():
        last = actor.step()
    assert last["done"] and "end that process" in last["failed"]


def test_system_metrics_come_with_the_reports_of_a_sweep_that_wants_them(
    actor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not any("system" in told for told in steps(actor)), "on demand only"
    monkeypatch.setattr(
        "trainables.worker.ray_trainable.SystemMetrics", lambda: system_metrics.SystemMetrics(every_s=0.01)
    )
    knobs = toy.config(pruning_times=2, epochs=2, seed=1).knobs()
    actor.reset_config({**actor._assignment, "knobs": knobs, "system_metrics": True})
    samples = [sample for told in steps(actor) for sample in told.get("system", ())]
    assert samples and samples == sorted(samples, key=lambda sample: sample["time"])
    assert all(sample["process_memory_usage_megabytes"] > 50 for sample in samples)
    assert threads() == 0, "the sampling ends with the trial"


def threads() -> int:
    for _ in range(100):
        alive = sum(thread.name == "system-metrics" for thread in threading.enumerate())
        if not alive:
            break
        time.sleep(0.02)
    return alive


def test_without_psutil_a_trial_says_so_and_trains(actor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    actor._assignment["system_metrics"] = True
    assert steps(actor)[-1]["done"]
    assert "[system-metrics]'" in next(Path(actor._assignment["store"]).rglob("messages.log")).read_text()


def test_while_it_trains_long_it_leaves_how_far_it_is(actor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(progress, "KEEP_EVERY_S", 0.0)
    real = progress.write_state

    def write(path: Path, value: Any) -> None:
        real(path, value)
        seen.append(progress.kept(path.parent))

    monkeypatch.setattr(progress, "write_state", write)
    steps(actor)
    assert {work.what for work in seen} >= {"training", "evaluating"}
    assert all(work.total for work in seen if work.what != "writing a checkpoint")
    store = next(path for path in Path(actor._assignment["store"]).iterdir() if path.is_dir())
    assert not (store / progress.KEPT).exists()


PLUGIN = """
def f(units, batches):
    assert len(units.groups) < {most}, "as the test wants it"
    return [w.abs().sum(dim=1) for w in units.weights()]
"""


@pytest.mark.parametrize(
    ("most", "failed"), [(9, None), (3, "it would fail again: criteria mine.py:f: AssertionError")]
)
def test_the_code_behind_a_knob_comes_with_the_trial(most: int, failed: str | None, actor: Any, tmp_path: Path) -> None:
    """Its file is on the driver's machine alone; what it raises is the trial's reason."""
    (tmp_path / "mine.py").write_text(PLUGIN.format(most=most), encoding="utf-8")
    knobs = toy.config(pruning_times=2, epochs=1, criteria=f"{tmp_path / 'mine.py'}:f").knobs()
    code = plugins.Code.at(tmp_path / "mine.py").to_json()
    (tmp_path / "mine.py").unlink()
    for known in (loading._KNOWN, loading._LOADED):
        known.clear()
    order = {**actor._assignment, "knobs": knobs}
    actor.reset_config(order)
    assert "No such file" in steps(actor)[-1].get("failed", "")
    actor.reset_config({**order, "plugins": [code]})
    assert str(steps(actor)[-1].get("failed")).startswith(str(failed))
    other = {**code, "files": {name: text + "#" for name, text in code["files"].items()}}
    loading._KNOWN.clear()
    loading._LOADED.clear()
    actor.reset_config({**order, "plugins": [other], "store": str(tmp_path / "other")})
    assert "No such file" in steps(actor)[-1].get("failed", ""), "other code than the digest says is not run"


@pytest.mark.parametrize("meet", [True, False, None])
def test_a_dense_round_goes_to_the_bucket_only_where_another_trial_can_have_it(
    actor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meet: bool | None
) -> None:
    for name in ("take_environment", "Bucket", "TrialMirror", "fetch_weights"):
        monkeypatch.setattr(ray_trainable, name, mock.MagicMock())
    told = {"storage": "s3://bucket/sweep"} if meet is None else {"storage": "s3://bucket/sweep", "dense_meet": meet}
    monkeypatch.setattr(actor, "_assignment", {**actor._assignment, **told})
    actor._fetch(toy.config(), tmp_path)
    assert (actor._dense is not None) == (meet is not False)
    actor._mirror = actor._dense = None
